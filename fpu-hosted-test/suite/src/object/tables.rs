//! The tables of a program that is not relocated, through which a `switch` jumps.

use std::collections::{BTreeMap, BTreeSet};

use super::disasm::{hex, Functions, Insn};

/// The constants of a program, and the tables in it.
pub struct Tables<'a> {
    /// The 8-byte words of the section of constants.
    words: &'a BTreeMap<u64, u64>,
    /// Where jumps find their tables.
    starts: BTreeSet<u64>,
    /// All instructions.
    code: BTreeSet<u64>,
}

impl<'a> Tables<'a> {
    pub fn new(functions: &Functions, words: &'a BTreeMap<u64, u64>) -> Self {
        let all = || functions.values().flatten();
        let starts = all().filter_map(base).collect();
        Self { words, starts, code: all().map(|insn| insn.address).collect() }
    }

    /// Tells whether this jump goes through a table of constants, and from there only to instructions of `body`, the
    /// function that the jump is in.
    ///
    /// A table does not say how long it is. It is read as long as there are addresses of code, up to where
    /// the next begins: rather one too many than one too few.
    pub fn stays_within(&self, body: &[Insn], jump: &Insn) -> bool {
        let Some(start) = base(jump) else { return false };
        let end = self.starts.range(start + 1..).next().copied().unwrap_or(u64::MAX);
        let entries = (start..end).step_by(8).map_while(|at| self.words.get(&at).copied());
        let targets: Vec<u64> = entries.take_while(|to| self.code.contains(to)).collect();
        let within = |to: &u64| body.iter().any(|insn| insn.address == *to);
        !targets.is_empty() && targets.iter().all(within)
    }
}

/// The table of `jmp QWORD PTR [rax*8+0x117438]` or `jmp qword ptr [8*rax + 1143864]`.
fn base(jump: &Insn) -> Option<u64> {
    if !jump.is_unconditional_jump() || jump.operands.contains('<') {
        return None;
    }
    let (size, address) = jump.operands.split_once('[')?;
    let size = size.trim();
    let (index, base) = address.strip_suffix(']')?.split_once('+')?;
    let index = index.trim();
    let register = index.strip_suffix("*8").or_else(|| index.strip_prefix("8*"))?;
    let plain = register.bytes().all(|b| b.is_ascii_alphanumeric());
    let base = base.trim();
    let base = if base.starts_with("0x") { hex(base) } else { base.parse().ok() };
    base.filter(|base| size.eq_ignore_ascii_case("qword ptr") && plain && base % 8 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::disasm::{parse, words};

    const CODE: &str = "\
        1000 <f>:\n 1000:\tjmp    QWORD PTR [rax*8+0x2000]\n 1008:\tnop\n 1009:\tret\n\
        1100 <g>:\n 1100:\tjmp    QWORD PTR [rcx*8+0x2010]\n 1108:\tret\n";
    /// Two entries of `f`, one of `g`, and no code.
    const DUMP: &str = "\nContents of section .rodata:\n \
        2000 08100000 00000000 09100000 00000000  ................\n \
        2010 08110000 00000000 07000000 00000000  ................\n";

    fn stay(code: &str, dump: &str) -> Vec<bool> {
        let (functions, words) = (parse(code), words(dump));
        let tables = Tables::new(&functions, &words);
        let bodies = functions.values().filter(|body| body[0].is_jump());
        bodies.map(|body| tables.stays_within(body, &body[0])).collect()
    }

    #[test]
    fn a_table_may_lead_to_its_own_function_only() {
        assert_eq!(stay(CODE, DUMP), [true, true]);
        let llvm = CODE.replace("QWORD PTR [rax*8+0x2000]", "qword ptr [8*rax + 8192]");
        assert_eq!(stay(&llvm, DUMP), [true, true]);
        // The second entry of `f` is `g`.
        let away = DUMP.replace("09100000", "00110000");
        assert_eq!(stay(CODE, &away), [false, true]);
        // Between two instructions is no code, and nothing is known of what is not in the section.
        assert_eq!(stay(CODE, &DUMP.replace("2010 0811", "2010 0711")), [true, false]);
        assert_eq!(stay(CODE, ""), [false, false]);
    }

    #[test]
    fn what_is_no_table_is_not_taken_for_one() {
        for jump in [
            "jmp    rax",
            "jmp    QWORD PTR [rax]",
            "jmp    QWORD PTR [rip+0x10]        # 2000 <x>",
            "jmp    QWORD PTR ds:0x2000",
            "jmp    QWORD PTR [rax*4+0x2000]",
            "jmp    QWORD PTR [rbx+rax*8+0x2000]",
            "jmp    FWORD PTR [rax*8+0x2000]",
        ] {
            let code = CODE.replace("jmp    QWORD PTR [rax*8+0x2000]", jump);
            assert!(!stay(&code, DUMP)[0], "{jump}");
        }
    }
}
