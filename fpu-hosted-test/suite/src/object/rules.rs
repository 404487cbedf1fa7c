//! The rules of what paths may cost and contain, and the findings.

use super::{
    disasm::{Functions, Insn},
    walk::{paths, text, Kind, Path},
};

/// Functions that do not return, which the probes and kernels call on `Err`.
fn gives_up(name: &str) -> bool {
    name.contains("refused")
}

/// What overwriting the x87 pointers may cost more: four instructions and their operand, and the
/// choice of the restore twice more.
const SCRUB: usize = 12;

/// What asking for the lines of an image may cost more, one round of it: where the image ends, and the round.
const FETCH: usize = 10;

/// What a plan may look at more that skips what is initial: the image's header and format, XINUSE and MXCSR.
const LOOK: usize = 30;

/// A line of the report.
#[derive(Debug)]
pub struct Line {
    pub function: String,
    pub path: String,
    pub instructions: usize,
    pub budget: Option<usize>,
    /// The faults.
    pub wrong: Vec<String>,
    pub listing: Vec<String>,
}

/// How strictly a function is judged.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Path by path: a budget for each kind, and no lock, fence, call or panic on any that returns.
    Hot(Allowed),
    /// The whole function: no lock, no fence, no panic.
    NoPanic,
}

/// The limits of the paths of a hot function.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    pub nothing_due: usize,
    pub bookkeeping: usize,
    /// Around a save or restore.
    pub around: usize,
    /// The beginnings of the functions that may be called: a restore that can fault is one.
    pub calls: &'static [&'static str],
    /// The FPU instructions that may stand on them.
    pub fpu: &'static [&'static str],
}

impl Allowed {
    fn budget(&self, kind: Kind, looks: bool) -> Option<usize> {
        if looks {
            // A save or restore that is not needed stands for one that is.
            let most = if kind == Kind::Bookkeeping {
                Some(self.around)
            } else {
                self.budget(kind, false)
            };
            return most.map(|most| most + LOOK);
        }
        match kind {
            Kind::NothingDue => Some(self.nothing_due),
            Kind::Bookkeeping => Some(self.bookkeeping),
            Kind::Save | Kind::Restore => Some(self.around),
            Kind::Scrub => Some(self.around + SCRUB),
            Kind::Fetch => Some(self.around + FETCH),
            Kind::FetchScrub => Some(self.around + SCRUB + FETCH),
            Kind::Refused => None,
        }
    }
    fn forbids(&self, insn: &Insn) -> Option<&'static str> {
        let call_ok = |name: &str| self.calls.iter().any(|start| name.starts_with(start));
        let fpu_ok = self.fpu.contains(&insn.last_word());
        forbidden(insn, &call_ok).or((insn.touches_fpu() && !fpu_ok).then_some("FPU access"))
    }
}

pub fn path_name(function: &str, kind: Kind) -> &'static str {
    match kind {
        Kind::NothingDue => "nothing due",
        Kind::Bookkeeping if function.contains("return") => "restore skipped",
        Kind::Bookkeeping => "stores only",
        Kind::Save => "save",
        Kind::Restore => "restore",
        Kind::Scrub => "scrub, restore",
        Kind::Fetch => "fetch, restore",
        Kind::FetchScrub => "fetch, scrub, restore",
        Kind::Refused => "refused",
    }
}

/// Judges one function.
pub fn judge(functions: &Functions, name: &str, rule: Rule) -> Vec<Line> {
    let Some(body) = functions.get(name).filter(|body| !body.is_empty()) else {
        return vec![problem(name, "is not in the object code".into())];
    };
    match rule {
        Rule::Hot(allowed) => hot(name, body, &allowed),
        Rule::NoPanic => {
            vec![whole(name, body, &|insn| forbidden(insn, &|n| !n.is_empty()))]
        }
    }
}

pub fn problem(name: &str, why: String) -> Line {
    let (function, path) = (name.to_owned(), "all".to_owned());
    Line { function, path, instructions: 0, budget: None, wrong: vec![why], listing: Vec::new() }
}

pub fn is_panic(name: &str) -> bool {
    ["panic", "unwrap_failed", "expect_failed", "slice_index", "bounds_check"]
        .iter()
        .any(|p| name.contains(p))
}

/// What no path that returns may hold. A call through a pointer has no name and is forbidden with the
/// rest, unless any call is allowed.
pub fn forbidden(insn: &Insn, call_ok: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    if insn.is_locked() {
        return Some("a locked access");
    }
    if insn.is_fence() {
        return Some("a fence");
    }
    if insn.is_call() || (insn.is_jump() && insn.target().is_none()) {
        let name = insn.target_name().unwrap_or("");
        if is_panic(name) {
            return Some("a panic");
        }
        if !call_ok(name) {
            return Some("a call");
        }
    }
    None
}

/// What a path does, and whether the plan looks for what is initial. A refusal is judged as one kind.
fn sort(path: &Path<'_>) -> (Kind, bool) {
    let kind = path.kind();
    (kind, kind != Kind::Refused && path.looks())
}

fn hot(name: &str, body: &[Insn], allowed: &Allowed) -> Vec<Line> {
    let all = match paths(body, &gives_up) {
        Ok(all) => all,
        Err(why) => return vec![problem(name, why)],
    };
    let mut lines: Vec<Line> = Vec::new();
    let mut kinds: Vec<(Kind, bool)> = all.iter().map(sort).collect();
    kinds.sort();
    kinds.dedup();
    // What must be there for the walk to have meant anything.
    let due = if name.contains("return") { Kind::Restore } else { Kind::Save };
    for kind in [Kind::NothingDue, due] {
        if !kinds.contains(&(kind, false)) {
            lines.push(problem(name, format!("no path `{}`", path_name(name, kind))));
        }
    }
    for (kind, looks) in kinds {
        // The longest of each kind stands for all of it.
        let these = || all.iter().filter(|p| sort(p) == (kind, looks));
        let Some(path) = these().max_by_key(|p| p.counted().len()) else {
            continue;
        };
        let counted = path.counted();
        let limit = allowed.budget(kind, looks);
        let mut wrong = Vec::new();
        if let Some(limit) = limit.filter(|&limit| counted.len() > limit) {
            wrong.push(format!("{} instructions, {limit} are allowed", counted.len()));
        }
        if kind != Kind::Refused {
            for p in these() {
                for insn in &p.insns {
                    if let Some(what) = allowed.forbids(insn) {
                        wrong.push(format!("{what}: `{}`", text(insn)));
                    }
                }
            }
        }
        // A refusal is a value, not a panic.
        for insn in all.iter().flat_map(|p| &p.insns) {
            if let Some(called) = insn.target_name().filter(|called| is_panic(called)) {
                wrong.push(format!("a panic: `{called}`"));
            }
        }
        wrong.dedup();
        lines.push(Line {
            function: name.to_owned(),
            path: format!("{}{}", if looks { "looks, " } else { "" }, path_name(name, kind)),
            instructions: counted.len(),
            budget: limit,
            wrong,
            listing: path.insns.iter().map(|i| text(i)).collect(),
        });
    }
    lines
}

pub fn whole(name: &str, body: &[Insn], check: &dyn Fn(&Insn) -> Option<&'static str>) -> Line {
    let wrong = body
        .iter()
        .filter_map(|insn| check(insn).map(|what| format!("{what}: `{}`", text(insn))))
        .collect();
    let instructions = body.iter().filter(|i| !i.is_padding() && !i.is_trap()).count();
    let listing = body.iter().filter(|i| !i.is_trap()).map(text).collect();
    let (function, path) = (name.to_owned(), "whole function".to_owned());
    Line { function, path, instructions, budget: None, wrong, listing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::disasm::parse;

    const PREPARE: &str = "\
0000000000001240 <probe_switch_prepare>:
        1240:\tmov    rax,rdi
        1243:\tmov    rdi,QWORD PTR [rdi]
        1246:\ttest   dil,0x1
        124a:\tjne    1262 <probe_switch_prepare+0x22>
        124c:\tmov    rcx,QWORD PTR [rsi]
        124f:\tcmp    rdi,rcx
        1252:\tjne    1263 <probe_switch_prepare+0x23>
        1254:\tor     rdi,0x1
        1258:\tlea    rcx,[rax+0x40]
        125c:\tprefetchnta BYTE PTR [rcx]
        125f:\tmov    QWORD PTR [rax],rdi
        1262:\tret
        1263:\tpush   rax
        1264:\tcall   200 <reason>
        127d:\tcall   300 <probe_refused>
";

    const HOT: Allowed =
        Allowed { nothing_due: 4, bookkeeping: 10, around: 12, calls: &[], fpu: &[] };

    fn judged(text: &str, rule: Rule) -> Vec<String> {
        judge(&parse(text), "probe_switch_prepare", rule)
            .into_iter()
            .flat_map(|line| line.wrong)
            .collect()
    }

    #[test]
    fn the_real_shape_passes_with_its_counts() {
        let lines = judge(&parse(PREPARE), "probe_switch_prepare", Rule::Hot(HOT));
        let counts: Vec<_> = lines.iter().map(|l| (l.path.as_str(), l.instructions)).collect();
        assert_eq!(counts[..2], [("nothing due", 4), ("save", 9)]);
        assert!(lines.iter().all(|l| l.wrong.is_empty()), "{lines:?}");
    }

    /// Each thing that is forbidden, put into the path, is named.
    #[test]
    fn what_is_forbidden_is_caught() {
        let line = "1254:\tor     rdi,0x1\n";
        for (put, named) in [
            ("1253:\tlock or QWORD PTR [rax],rdi", "a locked access"),
            ("1253:\txchg   QWORD PTR [rax],rdi", "a locked access"),
            ("1253:\tmfence", "a fence"),
            ("1253:\tcall   400 <helper>", "a call"),
            ("1253:\tcall   QWORD PTR [rip+0x4028e]", "a call"),
            ("1253:\tcall   400 <core::panicking::panic>", "a panic"),
            (
                "1250:\tnop\n1251:\tnot rcx\n1252:\tnot rcx\n1253:\tnot rcx\n1253:\tnot rcx",
                "13 instructions",
            ),
        ] {
            let text = PREPARE.replace(line, &format!("{put}\n{line}"));
            let found = judged(&text, Rule::Hot(HOT));
            assert!(found.iter().any(|w| w.contains(named)), "{put}: {found:?}");
        }
        assert!(judged("", Rule::Hot(HOT))[0].contains("is not in the object code"));
    }

    #[test]
    fn a_missing_save_is_noticed() {
        let text = PREPARE.replace("prefetchnta", "prefetcht0");
        assert!(judged(&text, Rule::Hot(HOT)).iter().any(|w| w.contains("no path `save`")));
    }

    #[test]
    fn a_panic_and_a_call_without_a_name_are_caught() {
        let calls = PREPARE.replace("<reason>", "<memcpy>");
        assert!(judged(&calls, Rule::NoPanic).is_empty());
        let panics = PREPARE.replace("<reason>", "<core::panicking::panic_bounds_check>");
        assert!(judged(&panics, Rule::NoPanic)[0].contains("a panic"));
        // On a path that does not return, too.
        assert!(judged(&panics, Rule::Hot(HOT)).iter().any(|w| w.contains("a panic")));
        let unnamed = PREPARE.replace("call   200 <reason>", "call   rax");
        assert!(judged(&unnamed, Rule::NoPanic)[0].contains("a call"));
    }

    /// A real backend: its save and its restore are instructions, and it may call what is named.
    #[test]
    fn a_real_backend_may_use_what_is_named() {
        let fpu = &["xsavec64", "xrstor64", "fldenv"];
        let real = Allowed { calls: &["fpu_x86_"], fpu, ..HOT };
        let saves = PREPARE.replace("prefetchnta BYTE PTR [rcx]", "xsavec64 [rcx]");
        assert!(judged(&saves, Rule::Hot(real)).is_empty());
        assert!(judged(&saves, Rule::Hot(HOT))[0].contains("FPU access"));
        let vector = saves.replace("or     rdi,0x1", "movups XMMWORD PTR [rax],xmm0");
        assert!(judged(&vector, Rule::Hot(real))[0].contains("FPU access"));
        let calls = saves.replace("1254:", "1253:\tcall   600 <fpu_x86_0_1_helper>\n1254:");
        assert!(judged(&calls, Rule::Hot(real)).is_empty());
        let other = calls.replace("fpu_x86_0_1_helper", "memcpy");
        assert!(judged(&other, Rule::Hot(real))[0].contains("a call"));
    }

    /// A restore has its budget; one that scrubs before it has another.
    #[test]
    fn a_scrub_is_a_path_of_its_own() {
        let real = Allowed { fpu: &["xrstor64", "fldenv"], ..HOT };
        let kinds = |text: &str| -> Vec<(String, bool)> {
            let lines = judge(&parse(text), "probe_switch_prepare", Rule::Hot(real));
            lines.into_iter().map(|line| (line.path, line.wrong.is_empty())).collect()
        };
        let restores = PREPARE.replace("prefetchnta BYTE PTR [rcx]", "xrstor64 [rcx]");
        assert!(kinds(&restores).contains(&("restore".into(), true)));
        let more = "1253:\tnot rcx\n".repeat(6);
        let long = restores.replace("1254:", &format!("{more}1254:"));
        assert!(kinds(&long).contains(&("restore".into(), false)), "over the budget");
        let scrubs = long.replace("1254:", "1253:\tfldenv [rsi]\n1254:");
        assert!(kinds(&scrubs).contains(&("scrub, restore".into(), true)));
        let longer = scrubs.replace("1254:", &format!("{more}{more}1254:"));
        assert!(kinds(&longer).contains(&("scrub, restore".into(), false)));
    }
}
