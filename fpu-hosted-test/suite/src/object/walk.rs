//! Walks every path through one function, from its entry to where it returns or gives up.

use super::disasm::{family, registers, Insn};

/// How a path ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Return,
    /// In a function that does not return: the refusal.
    Refused,
}

/// The kind of a path, by its marked instructions and its stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    NothingDue,
    /// Stores, but neither saves nor restores.
    Bookkeeping,
    Save,
    Restore,
    /// Restores, after the x87 pointers were overwritten: on CPUs whose restores leave them.
    Scrub,
    /// Restores, after the lines of an image from another CPU were asked for.
    Fetch,
    /// Restores, after both.
    FetchScrub,
    Refused,
}

#[derive(Debug)]
pub struct Path<'f> {
    pub insns: Vec<&'f Insn>,
    pub end: End,
}

/// The most paths: more than a hot function has.
const MAX_PATHS: usize = 4096;

/// All paths. `gives_up` names the functions that do not return.
pub fn paths<'f>(
    body: &'f [Insn],
    gives_up: &dyn Fn(&str) -> bool,
) -> Result<Vec<Path<'f>>, String> {
    let mut done = Vec::new();
    let mut open: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new())];
    while let Some((mut at, mut taken)) = open.pop() {
        let end = loop {
            let Some(insn) = body.get(at) else {
                return Err("runs past the end of the function".into());
            };
            if taken.contains(&at) {
                return Err(format!("a loop at {:x}: `{}`", insn.address, text(insn)));
            }
            taken.push(at);
            if insn.is_return() {
                break End::Return;
            }
            if insn.is_trap() {
                break End::Refused;
            }
            if insn.is_call() {
                if insn.target_name().is_some_and(gives_up) {
                    break End::Refused;
                }
                // After a call that does not return comes nothing, or padding.
                if body.get(at + 1).map_or(true, |next| next.is_trap() || next.is_padding()) {
                    break End::Refused;
                }
            } else if insn.is_jump() {
                let within = insn.target().and_then(|to| body.iter().position(|i| i.address == to));
                match within {
                    Some(to) if insn.is_unconditional_jump() => {
                        at = to;
                        continue;
                    }
                    // Round again for the next line of an image: the path goes through once.
                    Some(to) if to < at && is_fetch(&body[to]) => {}
                    Some(to) => open.push((to, taken.clone())),
                    None if insn.target_name().is_some_and(gives_up) => {
                        if insn.is_unconditional_jump() {
                            break End::Refused;
                        }
                        done.push(path(body, &taken, End::Refused));
                    }
                    None => {
                        return Err(format!("leaves by `{}` at {:x}", text(insn), insn.address));
                    }
                }
            }
            at += 1;
        };
        done.push(path(body, &taken, end));
        if done.len() + open.len() > MAX_PATHS {
            return Err(format!("more than {MAX_PATHS} paths"));
        }
    }
    Ok(done)
}

fn path<'f>(body: &'f [Insn], taken: &[usize], end: End) -> Path<'f> {
    Path { insns: taken.iter().map(|&i| &body[i]).collect(), end }
}

pub fn text(insn: &Insn) -> String {
    format!("{} {}", insn.mnemonic, insn.operands).trim().to_owned()
}

impl Path<'_> {
    pub fn kind(&self) -> Kind {
        let fetches = self.insns.iter().any(|insn| is_fetch(insn));
        let has = |mark: Mark| self.insns.iter().any(|i| mark_of(i) == Some(mark));
        if self.end == End::Refused {
            Kind::Refused
        } else if has(Mark::Scrub) {
            if fetches {
                Kind::FetchScrub
            } else {
                Kind::Scrub
            }
        } else if fetches {
            Kind::Fetch
        } else if has(Mark::Restore) {
            Kind::Restore
        } else if has(Mark::Save) {
            Kind::Save
        } else if self.insns.iter().any(|i| i.is_store()) {
            Kind::Bookkeeping
        } else {
            Kind::NothingDue
        }
    }

    /// Tells whether the image's header is looked at, which only a plan does that skips what is initial: a comparison of
    /// 8 bytes in memory with 0.
    pub fn looks(&self) -> bool {
        let zero = |operands: &str| operands.starts_with("QWORD PTR") && operands.ends_with(",0x0");
        self.insns.iter().any(|insn| insn.last_word() == "cmp" && zero(&insn.operands))
    }

    /// The instructions that count: not the final `ret`, not the marked instruction, and not what
    /// only computes its operand.
    pub fn counted(&self) -> Vec<&Insn> {
        let last = self.insns.len() - 1;
        let skip: Vec<usize> = self
            .insns
            .iter()
            .enumerate()
            .filter(|(i, insn)| {
                (*i == last && insn.is_return())
                    || mark_of(insn).is_some()
                    || insn.is_padding()
                    || self.only_computes_operand(*i)
            })
            .map(|(i, _)| i)
            .collect();
        (0..=last).filter(|i| !skip.contains(i)).map(|i| self.insns[i]).collect()
    }

    /// Tells whether this is the `lea` or `mov` of a register that only a marked instruction after it reads.
    fn only_computes_operand(&self, at: usize) -> bool {
        let insn = self.insns[at];
        if !matches!(insn.last_word(), "lea" | "mov") || insn.destination().contains('[') {
            return false;
        }
        let own = family(insn.destination());
        let mut marked = false;
        for later in &self.insns[at + 1..] {
            let names = registers(&later.operands).any(|r| family(r) == own);
            if mark_of(later).is_some() && names {
                marked = true;
            } else if names {
                // Overwritten without being read: its life ended at the marked instruction.
                let sources = later.operands.split_once(',').map_or("", |(_, s)| s);
                let overwritten = matches!(later.last_word(), "lea" | "mov")
                    && family(later.destination()) == own
                    && !registers(sources).any(|r| family(r) == own);
                return marked && overwritten;
            }
        }
        marked
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Save,
    Restore,
    Scrub,
}

/// Tells whether the instruction asks for a line of an image.
fn is_fetch(insn: &Insn) -> bool {
    insn.last_word() == "prefetcht0"
}

/// The instructions with which the probe marks its save and its restore, which no compiler emits by
/// itself, and those of the real backend.
fn mark_of(insn: &Insn) -> Option<Mark> {
    match insn.last_word() {
        "prefetchnta" | "xsave64" | "xsaveopt64" | "xsavec64" | "xsaves64" | "fxsave64" => {
            Some(Mark::Save)
        }
        "prefetcht2" | "xrstor64" | "xrstors64" | "fxrstor64" => Some(Mark::Restore),
        "fldenv" => Some(Mark::Scrub),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::disasm::parse;

    fn walk(lines: &str) -> Result<Vec<(Kind, usize)>, String> {
        let text = format!("0000000000001000 <probe>:\n{lines}");
        let functions = parse(&text);
        let mut kinds: Vec<_> = paths(&functions["probe"], &|name| name.contains("refused"))?
            .iter()
            .map(|p| (p.kind(), p.counted().len()))
            .collect();
        kinds.sort();
        Ok(kinds)
    }

    const RETURN: &str = "\
        1000:\tmov    rcx,QWORD PTR [rsi]
        1003:\tmov    rax,QWORD PTR [rdi]
        1006:\txor    rax,rcx
        1009:\tje     102b <probe+0x2b>
        100b:\tcmp    rax,0x1
        100f:\tje     1028 <probe+0x28>
        1011:\ttest   al,0x1
        1013:\tje     102c <probe+0x2c>
        1015:\tadd    rcx,0x8000
        101c:\tjns    102c <probe+0x2c>
        101e:\tmov    QWORD PTR [rsi],rcx
        1021:\tlea    rax,[rdi+0x40]
        1025:\tprefetcht2 BYTE PTR [rax]
        1028:\tmov    QWORD PTR [rdi],rcx
        102b:\tret
        102c:\tpush   rax
        102d:\tcall   QWORD PTR [rip+0x4022a]        # 54500 <_DYNAMIC+0x280>
        1033:\tmov    edi,eax
        1035:\tcall   900 <refused>
        103a:\tint3
";

    #[test]
    fn paths_are_found_named_and_counted() {
        let found = walk(RETURN).unwrap();
        assert_eq!(
            found,
            [
                (Kind::NothingDue, 4),
                (Kind::Bookkeeping, 7),
                (Kind::Restore, 12),
                (Kind::Refused, 12),
                (Kind::Refused, 14)
            ]
        );
    }

    /// A loop that asks for one line after the other is gone through once, and no other loop is let off.
    #[test]
    fn the_lines_of_an_image_are_asked_for_on_a_path_of_its_own() {
        let fetch = |first| {
            let lines = format!(
                "1021:\ttest   cl,cl\n1022:\tje     1028 <probe+0x28>\n\
                 1023:\t{first} BYTE PTR [rax]\n1024:\tadd    rax,0x40\n\
                 1025:\tcmp    rax,rdx\n1026:\tjb     1023 <probe+0x23>\n\
                 1028:\tprefetcht2 BYTE PTR [rax]\n1029:\tmov "
            );
            let (before, after) = RETURN.split_once("1021:").unwrap();
            let (_, end) = after.split_once("1028:\tmov ").unwrap();
            format!("{before}{lines}{end}").replace(
                "je     1028 <probe+0x28>\n        1011",
                "je     1029 <probe+0x29>\n        1011",
            )
        };
        let found = walk(&fetch("prefetcht0")).unwrap();
        assert!(
            found.contains(&(Kind::Fetch, 18)) && found.contains(&(Kind::Restore, 14)),
            "{found:?}"
        );
        assert!(walk(&fetch("clflush")).unwrap_err().contains("a loop"));
    }

    #[test]
    fn an_extra_instruction_is_counted() {
        let more =
            RETURN.replace("1006:\txor    rax,rcx", "1005:\tnot    rax\n1006:\txor    rax,rcx");
        assert_eq!(walk(&more).unwrap()[0], (Kind::NothingDue, 5));
    }

    #[test]
    fn an_operand_that_is_used_twice_is_counted() {
        let used = RETURN
            .replace("1028:\tmov    QWORD PTR [rdi],rcx", "1028:\tmov    QWORD PTR [rax],rcx");
        assert!(walk(&used).unwrap().contains(&(Kind::Restore, 13)));
    }

    #[test]
    fn a_loop_and_a_way_out_are_errors() {
        let back = RETURN.replace("102b:\tret", "102b:\tjmp    1006 <probe+0x6>");
        assert!(walk(&back).unwrap_err().contains("a loop"), "{:?}", walk(&back));
        let tail = RETURN.replace("102b:\tret", "102b:\tjmp    8000 <elsewhere>");
        assert!(walk(&tail).unwrap_err().contains("elsewhere"));
        let indirect = RETURN.replace("102b:\tret", "102b:\tjmp    QWORD PTR [rip+0x12]");
        assert!(walk(&indirect).unwrap_err().contains("leaves by"));
        let off_the_end = RETURN.lines().take(3).collect::<Vec<_>>().join("\n");
        assert!(walk(&off_the_end).unwrap_err().contains("past the end"));
    }
}
