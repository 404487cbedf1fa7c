//! The kernel that boots: no vector register on any path from ring 3 to a save, or anywhere else that its
//! tasks, handlers and threads go.
//!
//! Where `x86_64-unknown-none` is not installed it is linked with a `core` that was compiled with SSE, of
//! which `core::fmt` keeps some. So what the kernel promises (F1) is read off the disassembly.

use super::{
    disasm, disassembly, last_part, quiet, report,
    rules::{problem, Line},
};
use crate::{
    boot,
    run::{Cmd, Outcome, Suite},
};

/// Where the processor, or a switch of stacks, enters the kernel's code; the rest is reached from there.
const ROOTS: &[&str] = &[
    "trap_common",
    "trap_2",
    "trap_8",
    "trap_resume",
    "syscall_entry",
    "switch_stacks",
    "task_entry",
    "trap_dispatch",
    "syscall_dispatch",
    "nmi_dispatch",
    "task_begin",
];

/// What the roots must have led to, or the walk has lost its way.
const REACHED: &[&str] = &["schedule", "enable_on_this_cpu"];

/// Code that moves registers on purpose (a section's patterns, a seeded fault), and the verdict, from which
/// nobody comes back.
const ON_PURPOSE: &[&str] = &["kernel_regs_", "seeded_vector", "verdict_end"];

/// Builds the kernel and judges it.
pub fn check(suite: &Suite) -> Outcome {
    let Some(objdump) = suite.tool(&["objdump", "llvm-objdump"]) else {
        return Outcome::Skipped("no objdump or llvm-objdump: install the package binutils".into());
    };
    let elf = match boot::kernel(suite).and_then(|kernel| kernel.elf) {
        Ok(elf) => elf,
        Err(outcome) => return outcome,
    };
    let data = Cmd::new(&objdump).args(&["-s", "-j", ".data", &elf.to_string_lossy()]).ok();
    let functions = disassembly(&objdump, &elf).and_then(|mut functions| {
        // Calls of `memcpy` and its like go through the global offset table, which is there.
        disasm::resolve_words(&mut functions, &disasm::words(&data?));
        Ok(functions)
    });
    let functions = match functions {
        Ok(functions) => functions,
        Err(why) => return Outcome::Failed(why),
    };
    let lines = judge(&functions);
    let wrong = lines.iter().any(|line| !line.wrong.is_empty());
    let text = report(&lines, suite.verbose);
    if wrong {
        return Outcome::Failed(text);
    }
    // One line: what was looked at is of interest only to those who ask.
    let note = if suite.verbose { text } else { format!("{} functions\n", lines.len()) };
    Outcome::Passed { count: lines.len(), note }
}

fn judge(functions: &disasm::Functions) -> Vec<Line> {
    let (roots, missing): (Vec<_>, Vec<_>) = ROOTS
        .iter()
        .map(|root| (root, functions.get_key_value(*root)))
        .partition(|r| r.1.is_some());
    let found: Vec<&String> =
        roots.into_iter().filter_map(|(_, f)| f.map(|(name, _)| name)).collect();
    let mut lines = quiet::judge(functions, &found, ON_PURPOSE);
    for (root, _) in missing {
        lines.push(problem(root, "is not in the kernel".into()));
    }
    for name in REACHED {
        if !lines.iter().any(|line| last_part(&line.function) == *name) {
            lines.push(problem(name, "was not reached from any root".into()));
        }
    }
    for line in &mut lines {
        line.path = "kernel".into();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::disasm::parse;

    fn kernel() -> String {
        let mut text = String::new();
        for (n, root) in ROOTS.iter().enumerate() {
            text += &format!("{n:x}000 <{root}>:\n {n:x}000:\tcall   ff000 <schedule>\n");
        }
        text + "fe000 <enable_on_this_cpu>:\n fe000:\tret\n\
            ff000 <schedule>:\n ff000:\txsave64 [rdi]\n ff004:\tcall   fe000 <enable_on_this_cpu>\n ff009:\tret\n"
    }
    fn wrong(text: &str) -> Vec<String> {
        judge(&parse(text)).into_iter().flat_map(|line| line.wrong).collect()
    }

    #[test]
    fn vector_code_behind_any_root_is_found() {
        assert_eq!(wrong(&kernel()), [""; 0]);
        let noisy = kernel().replace("fe000:\tret", "fe000:\tmovups XMMWORD PTR [rdi],xmm0");
        assert!(wrong(&noisy)[0].contains("FPU access"));
    }

    #[test]
    fn a_walk_that_lost_its_way_is_no_pass() {
        let renamed = kernel().replace("<nmi_dispatch>", "<nmi_handler>");
        assert!(wrong(&renamed)[0].contains("is not in the kernel"));
        let unreached = kernel().replace("call   fe000 <enable_on_this_cpu>", "nop");
        assert!(wrong(&unreached)[0].contains("was not reached"));
    }
}
