//! The object-code check: what the compiler made of the hot paths, read from the disassembly.

mod disasm;
mod rules;
mod walk;

use std::{fmt::Write as _, path::Path};

use crate::run::{Cmd, Outcome, Suite};
use rules::{judge, Allowed, Line, Rule};

/// The budget of the design.
const HOT: Allowed = Allowed { nothing_due: 4, bookkeeping: 10, around: 12, calls: &[], fpu: &[] };

/// With the backend of `fpu-x86`. A restore is a call there, as it may fault, so registers are put by
/// around it, and the instruction is chosen at run time; the limits are what was measured when this was
/// written.
const REAL: Allowed = Allowed {
    nothing_due: 10,
    bookkeeping: 13,
    around: 26,
    calls: &["fpu_x86_0_1_xrstor", "fpu_x86_0_1_fxrstor"],
    fpu: &["xsave64", "xsaveopt64", "xsavec64", "fxsave64"],
};

/// What is judged, and how, in the probe: (start of the symbol, rule).
const PROBES: &[(&str, Rule)] = &[
    ("probe_switch_", Rule::Hot(HOT)),
    ("probe_real_", Rule::Hot(REAL)),
    ("probe_section_", Rule::NoPanic),
    ("probe_session_", Rule::NoPanic),
];

/// What the demo's quiet functions may call: each other, and assembly.
const QUIET: &[(&str, Rule)] = &[("quiet_", Rule::Quiet { calls: &["quiet_"] })];

/// Builds and judges the probes, and the functions of the demo that must not touch the FPU.
pub fn check(suite: &Suite) -> Outcome {
    let Some(objdump) = suite.tool(&["objdump", "llvm-objdump"]) else {
        return Outcome::Skipped("no objdump or llvm-objdump: install the package binutils".into());
    };
    let mut lines = Vec::new();
    // Static and without jump tables, so that every call and jump names where it goes.
    let build = suite.cargo(&["rustc", "--release", "-p", "fpu-hosted-test", "--example", "probe"]);
    let build = build.args(&[
        "--",
        "-Cpanic=abort",
        "-Ccodegen-units=1",
        "-Crelocation-model=static",
        "-Cllvm-args=-min-jump-table-entries=1000",
    ]);
    if let Err(why) = build.ok() {
        return Outcome::Failed(why);
    }
    let probe = suite.target.join("release/examples/probe");
    match disassembly(&objdump, &probe) {
        Ok(functions) => judge_all(&functions, PROBES, &mut lines),
        Err(why) => return Outcome::Failed(why),
    }
    if suite.root.join("examples/src/bin/demo").exists()
        || suite.root.join("examples/src/bin/demo.rs").exists()
    {
        let build = suite.cargo(&["build", "--release", "-p", "fpu-examples", "--bin", "demo"]);
        let functions =
            build.ok().and_then(|_| disassembly(&objdump, &suite.target.join("release/demo")));
        match functions {
            Ok(functions) => judge_all(&functions, QUIET, &mut lines),
            Err(why) => return Outcome::Failed(why),
        }
    }
    let report = report(&lines, suite.verbose);
    let file = suite.target.join("object-code.txt");
    if let Err(why) = std::fs::write(&file, &report) {
        return Outcome::Failed(format!("{}: {why}", file.display()));
    }
    let wrong = lines.iter().filter(|line| !line.wrong.is_empty()).count();
    if wrong > 0 {
        return Outcome::Failed(report);
    }
    Outcome::Passed { count: lines.len(), note: report }
}

/// The functions of an object file, library or program.
pub fn disassembly(objdump: &str, file: &Path) -> Result<disasm::Functions, String> {
    let file = file.to_string_lossy();
    let command = Cmd::new(objdump).args(&["-d", "--no-show-raw-insn", "-M", "intel", &file]);
    command.ok().map(|text| disasm::parse(&text))
}

fn judge_all(functions: &disasm::Functions, rules: &[(&str, Rule)], lines: &mut Vec<Line>) {
    for &(start, rule) in rules {
        let names: Vec<&String> = functions.keys().filter(|n| symbol_is(n, start)).collect();
        if names.is_empty() {
            lines.extend(judge(functions, start, rule)); // says that it is missing
        }
        for name in names {
            lines.extend(judge(functions, name, rule));
        }
    }
}

/// Is this the symbol `start...`, or a mangled one whose last part is?
fn symbol_is(symbol: &str, start: &str) -> bool {
    symbol.starts_with(start)
        || symbol
            .match_indices(start)
            .any(|(at, _)| symbol[..at].ends_with(|c: char| c.is_ascii_digit()))
}

/// The table, and with `verbose` the instructions.
fn report(lines: &[Line], verbose: bool) -> String {
    let mut text = String::new();
    let mut put = |line: String| {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    };
    put(format!("{:<28} {:<16} {:>12} {:>7}", "function", "path", "instructions", "budget"));
    for line in lines {
        let budget = line.budget.map_or("-".into(), |b| b.to_string());
        let (f, p, n) = (&line.function, &line.path, line.instructions);
        put(format!("{f:<28} {p:<16} {n:>12} {budget:>7}"));
        for wrong in &line.wrong {
            put(format!("    WRONG: {wrong}"));
        }
        if verbose || !line.wrong.is_empty() {
            for insn in &line.listing {
                put(format!("        {insn}"));
            }
        }
    }
    put("Counted on a path: all but the final ret, the marked save or restore, and a lea or mov that".into());
    put("only computes its operand. No lock, fence, call or panic on any path that returns.".into());
    text
}
