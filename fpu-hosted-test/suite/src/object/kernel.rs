//! The kernel that boots: no vector register on any path from ring 3 to a save, or anywhere else that its
//! tasks, handlers and threads go.
//!
//! A call or jump must say where it goes, if not by name then by a table of its own function. The
//! backend's instructions are accepted where they come from the library's own source.
//!
//! Where `x86_64-unknown-none` is not installed the kernel is linked with a `core` that was compiled with SSE, of
//! which `core::fmt` keeps some. So what the kernel promises (K9) is read off the disassembly.

use std::{collections::BTreeMap, path::Path};

use super::{
    disasm::{self, last_part, Functions, Insn},
    disassembly_with, quiet, report,
    rules::{problem, Line},
    tables::Tables,
};
use crate::{
    boot,
    run::{Cmd, Outcome, Suite},
};

/// The functions by which the processor, or a switch of stacks, enters the kernel's code; the rest is reached from
/// there.
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
    // A CPU starts again while the tasks run on others.
    "ap_main",
];

/// Functions of the kernel, by their own names, that only boot code calls and that stay when it is over.
///
/// The first CPU's boot code, `kernel_main`, is no root: there are no tasks yet, and some of its functions
/// keep the address of `memcpy` in a register over branches, so that the calls cannot be named.
const STAYING: &[&str] = &["idle"];

/// The processor enters at `trap_0`, `trap_1` and so on. The table has more than these.
const MIN_TRAPS: usize = 20;

/// The source of the backend's instructions.
const BACKEND_FILES: [&str; 2] = ["fpu-x86/src/insn.rs", "fpu-x86/src/insn/initial.rs"];

/// Functions that a complete walk from the roots must have reached.
const REACHED: &[&str] = &["schedule", "enable_given"];

/// Code that moves registers on purpose (a section's patterns, a seeded fault), and the verdict, from which
/// no call returns.
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
    let lines = match read(&objdump, &elf) {
        Ok((functions, constants)) => judge(&functions, &constants),
        Err(why) => return Outcome::Failed(why),
    };
    let wrong = lines.iter().any(|line| !line.wrong.is_empty());
    let text = report(&lines, suite.verbose);
    if wrong {
        return Outcome::Failed(text);
    }
    // One line; `--verbose` shows the functions.
    let note = if suite.verbose { text } else { format!("{} functions\n", lines.len()) };
    Outcome::Passed { count: lines.len(), note }
}

/// The kernel's functions, and the words of its constants.
fn read(objdump: &str, elf: &Path) -> Result<(Functions, BTreeMap<u64, u64>), String> {
    let mut functions = disassembly_with(objdump, &["-l"], elf)?;
    let run = |args: &[&str]| Cmd::new(objdump).args(args).args(&[&elf.to_string_lossy()]).ok();
    // Calls of `memcpy` and its like go through the global offset table, which is in this section. A
    // variable with a function's address may have another later.
    let mut slots = disasm::words(&run(&["-s", "-j", ".data"])?);
    let variables = disasm::objects(&run(&["-t"])?);
    slots.retain(|at, _| !variables.iter().any(|variable| variable.contains(at)));
    disasm::resolve_words(&mut functions, &slots);
    Ok((functions, disasm::words(&run(&["-s", "-j", ".rodata"])?)))
}

/// Why an instruction may not be in the kernel.
fn forbidden(tables: &Tables<'_>, body: &[Insn], insn: &Insn) -> Option<&'static str> {
    let backend = quiet::BACKEND.contains(&insn.last_word());
    if backend && !insn.file.as_deref().is_some_and(is_backend_file) {
        return Some("an instruction of the backend, but not from its source");
    }
    let nowhere = (insn.is_call() || insn.is_jump()) && insn.target_name().is_none();
    if nowhere && insn.is_jump() && !tables.stays_within(body, insn) {
        return Some("a jump to an unknown place");
    }
    quiet::noise(insn)
}

fn is_backend_file(path: &str) -> bool {
    let mut dirs = BACKEND_FILES.iter().filter_map(|file| path.strip_suffix(file));
    dirs.any(|dir| dir.is_empty() || dir.ends_with('/'))
}

/// `trap_32`
fn is_trap_entry(name: &str) -> bool {
    let number = name.strip_prefix("trap_").unwrap_or("");
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

fn judge(functions: &Functions, constants: &BTreeMap<u64, u64>) -> Vec<Line> {
    // Without them every instruction of the backend would be named.
    if functions.values().flatten().all(|insn| insn.file.is_none()) {
        let why =
            "has no line tables, so it does not say where the backend's instructions come from";
        return vec![problem("kernel", why.into())];
    }
    let (roots, missing): (Vec<_>, Vec<_>) = ROOTS
        .iter()
        .map(|root| (root, functions.get_key_value(*root)))
        .partition(|r| r.1.is_some());
    let mut found: Vec<&String> =
        roots.into_iter().filter_map(|(_, f)| f.map(|(name, _)| name)).collect();
    let mut missing: Vec<&str> = missing.into_iter().map(|(root, _)| *root).collect();
    for name in STAYING {
        let before = found.len();
        let own = |symbol: &&String| symbol.starts_with("_ZN6kernel") && last_part(symbol) == *name;
        found.extend(functions.keys().filter(own));
        if found.len() == before {
            missing.push(name);
        }
    }
    let traps: Vec<&String> = functions.keys().filter(|name| is_trap_entry(name)).collect();
    found.extend(&traps);

    let tables = Tables::new(functions, constants);
    let rule = |body: &[Insn], insn: &Insn| forbidden(&tables, body, insn);
    let mut lines = quiet::judge(functions, &found, ON_PURPOSE, &rule);
    for root in missing {
        lines.push(problem(root, "is not in the kernel".into()));
    }
    if traps.len() < MIN_TRAPS {
        let why = format!("only {} of the table's entries are in the kernel", traps.len());
        lines.push(problem("trap_", why));
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
    use crate::object::disasm::{parse, words};

    const IDLE: &str = "_ZN6kernel5power4idle17h3590a58568660e67E";
    const INSN: &str = "/w/fpu-x86/src/insn.rs:107\n ff000:\txsave64 [rdi]\n";

    fn kernel() -> String {
        let mut text = String::new();
        let traps: Vec<String> = (10..28).map(|n| format!("trap_{n}")).collect();
        let roots = ROOTS.iter().copied().chain([IDLE]).chain(traps.iter().map(String::as_str));
        for (n, root) in (1..).zip(roots) {
            text += &format!("{n:x}000 <{root}>:\n {n:x}000:\tcall   ff000 <schedule>\n");
        }
        text + "fe000 <enable_given>:\n fe000:\tret\n\
            ff000 <schedule>:\n"
            + INSN
            + "/w/kernel/src/sched.rs:7 (discriminator 2)\n \
            ff004:\tcall   fe000 <enable_given>\n ff009:\tret\n"
    }
    fn wrong_with(text: &str, dump: &str) -> Vec<String> {
        let lines = judge(&parse(text), &words(dump));
        lines.into_iter().flat_map(|line| line.wrong).collect()
    }
    fn wrong(text: &str) -> Vec<String> {
        wrong_with(text, "")
    }
    /// With one more instruction at the beginning of a function.
    fn with(function: &str, line: &str) -> String {
        let header = format!("<{function}>:\n");
        assert!(kernel().contains(&header));
        kernel().replace(&header, &format!("{header} 0:\t{line}\n"))
    }

    #[test]
    fn vector_code_behind_any_root_is_found() {
        assert_eq!(wrong(&kernel()), [""; 0]);
        for function in ["enable_given", "syscall_dispatch", "trap_8", "trap_27", IDLE] {
            let found = wrong(&with(function, "pxor   xmm9,xmm9"));
            assert_eq!(found, ["FPU access: `pxor xmm9,xmm9`"], "{function}");
        }
    }

    #[test]
    fn a_walk_that_lost_its_way_is_no_pass() {
        let renamed = kernel().replace("<nmi_dispatch>", "<nmi_handler>");
        assert!(wrong(&renamed)[0].contains("is not in the kernel"));
        // Not the kernel's own.
        let elsewhere = kernel().replace("_ZN6kernel5power", "_ZN6device5power");
        assert!(wrong(&elsewhere)[0].contains("is not in the kernel"));
        let fewer = kernel().replace("<trap_27>", "<trap_last>");
        assert!(wrong(&fewer)[0].contains("only 19 of the table's"), "{:?}", wrong(&fewer));
        let unreached = kernel().replace("call   fe000 <enable_given>", "nop");
        assert!(wrong(&unreached)[0].contains("was not reached"));
    }

    #[test]
    fn a_jump_must_say_where_it_goes() {
        for jump in ["jmp    rax", "jmp    QWORD PTR [rbx+0x8]", "rex.W jmp rax"] {
            let found = wrong(&with("syscall_dispatch", jump));
            assert!(found[0].contains("a jump to an unknown place"), "{jump}: {found:?}");
        }
        let table = with("schedule", "jmp    QWORD PTR [rax*8+0x2000]");
        let dump = |low: &str| format!(" 2000 {low}0f00 00000000 00000000 00000000  ....\n");
        assert_eq!(wrong_with(&table, &dump("09f0")), [""; 0]);
        assert!(wrong_with(&table, &dump("00e0"))[0].contains("a jump to an unknown"));
        assert!(wrong_with(&table, "")[0].contains("a jump to an unknown"));
    }

    #[test]
    fn the_backend_is_known_by_its_file() {
        let elsewhere = "an instruction of the backend, but not from its source";
        let found = wrong(&with("syscall_dispatch", "fninit"));
        assert_eq!(found, [format!("{elsewhere}: `fninit`")]);
        for file in ["/w/kernel/src/syscall.rs", "/w/my-fpu-x86/src/insn.rs", "??"] {
            let other = kernel().replace("/w/fpu-x86/src/insn.rs", file);
            assert!(wrong(&other)[0].contains(elsewhere), "{file}: {:?}", wrong(&other));
        }
        let lines = kernel();
        let bare: Vec<&str> = lines.lines().filter(|line| !line.starts_with('/')).collect();
        let found = wrong(&bare.join("\n"));
        assert!(found.len() == 1 && found[0].contains("has no line tables"), "{found:?}");
    }
}
