//! Code that must leave the registers alone although its program is compiled with vector instructions:
//! the demo's loop while registers hold tasks, and the kernel.

use std::collections::BTreeSet;

use super::{
    disasm::{last_part, Functions, Insn},
    rules::{is_panic, problem, whole, Line},
};

/// FPU instructions that the backend is made of; all else in quiet code must leave the registers alone.
pub const BACKEND: &[&str] = &[
    "xsave64",
    // Of the published crate that the benchmark runs too.
    "xsave",
    "xrstor",
    "xsaveopt64",
    "xsavec64",
    "xsaves64",
    "xrstor64",
    "xrstors64",
    "fxsave64",
    "fxrstor64",
    "fninit",
    "ldmxcsr",
    "stmxcsr",
    "fnclex",
    "emms",
    "fild",
    "fldenv",
    "tilerelease",
];

/// The fault of an instruction of a function, if it has one.
pub type Rule<'a> = dyn Fn(&[Insn], &Insn) -> Option<&'static str> + 'a;

/// The rule of the demo: the backend's instructions may be anywhere, and jumps through tables.
pub fn noise(insn: &Insn) -> Option<&'static str> {
    if insn.touches_fpu() && !BACKEND.contains(&insn.last_word()) {
        Some("FPU access")
    } else if insn.is_call() && insn.target_name().is_none() {
        Some("a call of an unknown function")
    } else {
        None
    }
}

/// Judges the functions with these names and everything they call, however far down, by `rule`.
/// `on_purpose` are the beginnings of the names of those that move registers on purpose.
pub fn judge(
    functions: &Functions,
    roots: &[&String],
    on_purpose: &[&str],
    rule: &Rule<'_>,
) -> Vec<Line> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut open: Vec<(&str, &str)> = roots.iter().map(|root| (root.as_str(), "")).collect();
    let mut lines = Vec::new();
    while let Some((name, caller)) = open.pop() {
        let moves = on_purpose.iter().any(|start| last_part(name).starts_with(start));
        // Code that panics does not return to registers that hold a task.
        if moves || is_panic(name) || !seen.insert(name) {
            continue;
        }
        let Some((name, body)) = functions.get_key_value(name).filter(|(_, b)| !b.is_empty())
        else {
            lines.push(problem(name, format!("called by {caller}, is not in the program")));
            continue;
        };
        let mut line = whole(name, body, &|insn| rule(body, insn));
        let by_name = last_part(name).starts_with("quiet_");
        line.path = if by_name { "quiet" } else { "called by quiet" }.into();
        lines.push(line);
        open.extend(callees(name, body).map(|callee| (callee, name.as_str())));
    }
    lines
}

/// The functions that a function calls or jumps to.
fn callees<'f>(name: &'f str, body: &'f [Insn]) -> impl Iterator<Item = &'f str> {
    body.iter()
        .filter(|insn| insn.is_call() || insn.is_jump())
        .filter_map(Insn::target_name)
        .filter(move |callee| *callee != name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::disasm::parse;

    const LOOP: &str = "\
1000 <quiet_loop>:
 1000:\tmov    rax,QWORD PTR [rdi]
 1003:\tcall   2000 <helper>
 1008:\tcall   3000 <asm_save>
 100d:\tcall   4000 <core::panicking::panic>
2000 <helper>:
 2000:\tadd    rax,0x1
 2004:\tjmp    5000 <last>
3000 <asm_save>:
 3000:\txsave64 [rdi]
5000 <last>:
 5000:\tret
";

    fn wrong(text: &str) -> Vec<String> {
        let functions = parse(text);
        let roots: Vec<_> = functions.keys().filter(|n| n.starts_with("quiet_")).collect();
        let lines = judge(&functions, &roots, &["asm_"], &|_, insn| noise(insn));
        lines.into_iter().flat_map(|line| line.wrong).collect()
    }

    #[test]
    fn noise_is_found_however_far_down() {
        assert_eq!(wrong(LOOP), [""; 0]);
        assert_eq!(wrong(&LOOP.replace("add    rax,0x1", "xsavec64 [rdi]")), [""; 0]);
        let deep = LOOP.replace("5000:\tret", "5000:\tmovups XMMWORD PTR [rdi],xmm0");
        assert!(wrong(&deep)[0].contains("FPU access"));
        let here = LOOP.replace("mov    rax,QWORD PTR [rdi]", "fld1");
        assert!(wrong(&here)[0].contains("FPU access"));
        let pointer = LOOP.replace("call   2000 <helper>", "call   rax");
        assert!(wrong(&pointer)[0].contains("an unknown function"));
        let library = LOOP.replace("call   2000 <helper>", "call   2000 <memcpy>");
        assert!(wrong(&library)[0].contains("is not in the program"));
    }
}
