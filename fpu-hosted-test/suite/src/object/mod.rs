//! The object-code check: reads the code of the hot paths from the disassembly.

mod bound;
mod disasm;
pub mod kernel;
mod on_demand;
mod quiet;
mod rights;
mod rules;
mod tables;
mod walk;

use std::{fmt::Write as _, path::Path};

use crate::run::{Cmd, Outcome, Suite};
use disasm::last_part;
use rules::{judge, Allowed, Line, Rule};

pub use quiet::BACKEND;

/// The budget of the design, and two instructions for the gate on a path that restores.
const HOT: Allowed = Allowed { nothing_due: 4, bookkeeping: 10, around: 14, calls: &[], fpu: &[] };

/// With the backend of `fpu-x86`, which can refuse in two places: the probe then has a frame for the calls
/// to its cold functions, a push and a pop on every path, which a kernel's function has anyway. Around a
/// save or restore the backend chooses the instruction, sets the mask, and looks whether the CPU
/// refused. Where a restore leaves the x87 pointers, five instructions overwrite them and MXCSR before it.
const REAL: Allowed = Allowed {
    nothing_due: 6,
    around: 32,
    fpu: &[
        "xsave64",
        "xsaveopt64",
        "xsavec64",
        "xsaves64",
        "fxsave64",
        "xrstor64",
        "xrstors64",
        "fxrstor64",
        "xgetbv",
        "stmxcsr",
        "fnclex",
        "emms",
        "fild",
        "fldenv",
        "ldmxcsr",
    ],
    ..HOT
};

/// The functions of the probe that are judged, and the rules: (start of the symbol, rule).
const PROBES: &[(&str, Rule)] = &[
    ("probe_switch_", Rule::Hot(HOT)),
    ("probe_real_", Rule::Hot(REAL)),
    (CELL, Rule::Hot(REAL)),
    ("probe_section_", Rule::NoPanic),
    ("probe_session_", Rule::NoPanic),
];

/// The probes with the plan in a static. Each path is as short as that of the same probe with a plain reference.
const CELL: &str = "probe_cell_";
const REFERENCE: &str = "probe_real_";

/// The probes with tiles on demand. They are compared with the same probe with a plain plan.
const ON_DEMAND: &str = "probe_demand_";

/// The return of a task whose context is bound to the CPU.
const BOUND: &str = "probe_bound_switch_return";

/// The switch of protection-key rights.
const RIGHTS: &str = "probe_rights_switch";

/// Code that moves registers on purpose: assembly of the demo and of the tests, and the demo's stand-in
/// for a kernel's vector code inside a section.
const ON_PURPOSE: &[&str] = &["fpu_demo_", "fpu_real_", "fpu_x86_", "clobber"];

const LEGEND: &str = "\
Counted on a path: all but the final ret, the marked save or restore, and a lea or mov that only
computes its operand. No path that returns has a lock, fence or call, and no path at all a panic; no whole
function has a lock, fence or panic. Quiet functions, which demo and benchmark run while registers hold tasks,
touch no FPU register but by the backend's own instructions. With the rights, RDPKRU and WRPKRU are counted too.
";

/// Builds and judges the probes, and the functions of the demo and the benchmark that must not touch the FPU.
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
    match resolved(&objdump, &probe) {
        Ok(functions) => {
            judge_all(&functions, PROBES, &mut lines);
            lines.extend(on_demand::judge(&functions, ON_DEMAND, REFERENCE));
            lines.extend(bound::judge(&functions, BOUND));
            lines.extend(rights::judge(&functions, RIGHTS));
            as_short_as_by_reference(&mut lines);
        }
        Err(why) => return Outcome::Failed(why),
    }
    for target in [["--bin", "demo"], ["--bench", "switch"]] {
        match quiet_code(suite, &objdump, target) {
            Ok(found) => lines.extend(found),
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

/// The functions named `quiet_...` of the demo or of the benchmark, and what they call.
fn quiet_code(suite: &Suite, objdump: &str, target: [&str; 2]) -> Result<Vec<Line>, String> {
    let build = ["build", "--release", "--message-format=json", "-p", "fpu-examples"];
    let said = suite.cargo(&build).args(&target).ok()?;
    // A benchmark is built together with the programs of its package.
    let program = said.lines().find_map(|line| executable(line, target[1]));
    let program = program.ok_or("cargo names no program")?;
    let functions = resolved(objdump, Path::new(&program))?;
    let roots: Vec<_> =
        functions.keys().filter(|name| last_part(name).starts_with("quiet_")).collect();
    if roots.is_empty() {
        return Err(format!("{target:?} has no function named quiet_...: nothing was checked"));
    }
    Ok(quiet::judge(&functions, &roots, ON_PURPOSE, &|_, insn| quiet::noise(insn)))
}

/// The program of this target, if a line of cargo's says that it is built.
fn executable(line: &str, target: &str) -> Option<String> {
    let said: serde_json::Value = serde_json::from_str(line).ok()?;
    if said.get("target")?.get("name")?.as_str()? != target {
        return None;
    }
    said.get("executable")?.as_str().map(str::to_owned)
}

/// The functions of an object file, library or program.
pub fn disassembly(objdump: &str, file: &Path) -> Result<disasm::Functions, String> {
    disassembly_with(objdump, &[], file)
}

/// With the names of what is called through slots: `memcpy` and its like.
fn resolved(objdump: &str, program: &Path) -> Result<disasm::Functions, String> {
    let mut functions = disassembly(objdump, program)?;
    let relocations = Cmd::new(objdump).args(&["-R", &program.to_string_lossy()]).ok()?;
    disasm::resolve(&mut functions, &relocations);
    Ok(functions)
}

fn disassembly_with(
    objdump: &str,
    more: &[&str],
    file: &Path,
) -> Result<disasm::Functions, String> {
    let command = Cmd::new(objdump).args(&["-d", "--no-show-raw-insn", "-M", "intel"]);
    let command = command.args(more).args(&[&file.to_string_lossy()]);
    command.ok().map(|text| disasm::parse(&text))
}

fn judge_all(functions: &disasm::Functions, rules: &[(&str, Rule)], lines: &mut Vec<Line>) {
    for &(start, rule) in rules {
        let names: Vec<&String> = functions.keys().filter(|n| n.starts_with(start)).collect();
        if names.is_empty() {
            lines.extend(judge(functions, start, rule)); // says that it is missing
        }
        for name in names {
            lines.extend(judge(functions, name, rule));
        }
    }
}

/// A plan in a [`fpu_x86::PlanCell`] costs a switch nothing.
fn as_short_as_by_reference(lines: &mut [Line]) {
    let name = |line: &Line, start| line.function.strip_prefix(start).map(str::to_owned);
    let by_reference: Vec<_> = lines
        .iter()
        .filter_map(|line| Some((name(line, REFERENCE)?, line.path.clone(), line.instructions)))
        .collect();
    for line in lines.iter_mut().filter(|line| line.budget.is_some()) {
        let Some(own) = name(line, CELL) else { continue };
        let same = by_reference.iter().find(|(name, path, _)| *name == own && *path == line.path);
        match same {
            Some((.., most)) if line.instructions <= *most => {}
            Some((.., most)) => line.wrong.push(format!("{most} by a plain reference")),
            None => line.wrong.push(format!("{REFERENCE}{own} has no such path")),
        }
    }
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
        let (f, p, n) = (last_part(&line.function), &line.path, line.instructions);
        put(format!("{f:<28} {p:<16} {n:>12} {budget:>7}"));
        for wrong in &line.wrong {
            put(format!("    WRONG: {wrong}"));
        }
        if verbose || (!line.wrong.is_empty() && line.budget.is_some()) {
            for insn in &line.listing {
                put(format!("        {insn}"));
            }
        }
    }
    text.push_str(LEGEND);
    text
}

#[cfg(test)]
mod tests {
    use super::{as_short_as_by_reference, executable, Line};

    /// Cargo builds a package's programs for its benchmark, and says so in any order.
    #[test]
    fn the_program_is_that_of_the_target() {
        let said = |name: &str, path: &str| {
            format!(r#"{{"target":{{"name":"{name}"}},"executable":"{path}"}}"#)
        };
        assert_eq!(executable(&said("boot", "/t/boot"), "switch"), None);
        assert_eq!(
            executable(&said("switch", "/t/switch-1"), "switch"),
            Some("/t/switch-1".into())
        );
        assert_eq!(executable(r#"{"reason":"build-finished"}"#, "switch"), None);
    }

    #[test]
    fn a_cell_that_costs_something_is_named() {
        let line = |function: &str, path: &str, instructions| {
            let (wrong, listing) = (Vec::new(), Vec::new());
            let (function, path) = (function.into(), path.into());
            Line { function, path, instructions, budget: Some(30), wrong, listing }
        };
        let mut lines = [
            line("probe_real_switch", "save", 20),
            line("probe_cell_switch", "save", 20),
            line("probe_real_switch", "nothing due", 6),
            line("probe_cell_switch", "nothing due", 7),
            line("probe_cell_other", "save", 1),
        ];
        as_short_as_by_reference(&mut lines);
        let wrong: Vec<_> = lines.iter().map(|line| line.wrong.join(" ")).collect();
        let missing = "probe_real_other has no such path";
        assert_eq!(wrong, ["", "", "", "6 by a plain reference", missing]);
    }
}
