//! The results for programs, as one JSON document.

use serde_json::{json, Value};

use super::{
    controls,
    kernel::{NoKernel, Recipe},
    run::Run,
    table,
};

fn one(run: &Run) -> Value {
    let machine = run.job.machine;
    let params = &run.job.params;
    let caught = run.caught().map(|caught| caught.is_ok());
    json!({
        "machine": machine.name,
        "emulator": machine.emulator.name(),
        "cpu": machine.cpu,
        "boots": if machine.disk { "disk" } else { "elf" },
        "parameters": params.to_string(),
        "cpuid": params.cpuid.map(|recorded| &recorded.name),
        "fault": params.fault.map(|fault| fault.name()),
        "expected_rung": params.rung.or(machine.rung.filter(|_| params.cpuid.is_none())),
        "verdict": run.verdict.name(),
        "why": run.verdict.why(),
        "caught": caught,
        "quirks": run.report.as_ref().map(|report| &report.quirks),
        "seconds": (run.seconds * 1000.0).round() / 1000.0,
        "result": run.report.as_ref().map(|report| &report.whole),
    })
}

/// Runs of machines, or controls.
#[must_use]
pub fn document(runs: &[Run], are_controls: bool) -> Value {
    let (passed, failed, skipped) =
        if are_controls { controls::tally(runs) } else { table::tally(runs) };
    let list: Vec<_> = runs.iter().map(one).collect();
    let name = if are_controls { "controls" } else { "machines" };
    json!({ name: list, "passed": passed, "failed": failed, "skipped": skipped })
}

/// Nothing ran, because there is no kernel. With a recipe: how it is built.
#[must_use]
pub fn without_kernel(why: &NoKernel) -> Value {
    let (word, why) = match why {
        NoKernel::Unsupported(why) => ("skip", why),
        NoKernel::Broken(why) => ("fail", why),
    };
    let (failed, skipped) = (u32::from(word == "fail"), u32::from(word == "skip"));
    json!({ "kernel": { "verdict": word, "why": why }, "passed": 0, "failed": failed, "skipped": skipped })
}

/// How the kernel is built, and what came of it.
#[must_use]
pub fn built(recipe: &Recipe, result: &Result<std::path::PathBuf, NoKernel>) -> Value {
    let (verdict, why) = match result {
        Ok(_) => ("pass", None),
        Err(NoKernel::Unsupported(why)) => ("skip", Some(why)),
        Err(NoKernel::Broken(why)) => ("fail", Some(why)),
    };
    json!({
        "elf": result.as_ref().ok(),
        "verdict": verdict,
        "why": why,
        "manifest": recipe.manifest,
        "target": recipe.target,
        "rustflags": recipe.flags,
        "target_dir": recipe.directory,
    })
}
