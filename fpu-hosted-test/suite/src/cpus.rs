//! The hosted tests on CPUs that this host does not have: test programs under QEMU's emulator of user mode.
//!
//! The emulator has no XSAVEC and XSAVES, no AVX-512, no initial and modified optimisations, keeps no x87 pointers and
//! refuses no MXCSR. The tests find this out themselves, and skip what needs more.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Mutex,
    },
    time::Instant,
};

use serde_json::Value;

use crate::{
    crash,
    run::{Cmd, Done, Outcome, Suite},
    tests_run::{self, Counts, Failure},
};

/// QEMU's names, and the reason for each.
const MODELS: [(&str, &str); 6] = [
    ("qemu64", "FXSAVE only"),
    ("Nehalem", "FXSAVE only, of another maker"),
    ("Denverton", "XSAVE without AVX"),
    ("Haswell", "AVX"),
    ("EPYC-Milan", "AVX and PKRU, as AMD has it"),
    ("max", "all that the emulator has"),
];

/// Fewer than natively, where a million are tried; more than the tests need for their own counts.
const IMAGES: &str = "60000";
const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";

/// Where the documentation's examples run too: FXSAVE, and a set of components that is not the usual.
const DOC_TESTS: [&str; 2] = ["qemu64", "Denverton"];

/// The programs to run: each is built by one call of cargo.
const PACKAGES: [(&str, &[&str]); 3] = [
    ("fpu-x86", &["--lib"]),
    ("fpu-hosted-test", &["--lib", "--test", "real_*"]),
    (
        "fpu-examples",
        &["--test", "xstate", "--test", "xstate_decode", "--test", "demo", "--test", "cooperative"],
    ),
];

/// A test program.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    path: PathBuf,
    /// Where cargo would run it.
    dir: PathBuf,
}

pub fn check(suite: &Suite) -> Outcome {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Outcome::Skipped("these tests are programs for Linux on x86-64".into());
    }
    let Some(qemu) = suite.tool(&["qemu-x86_64", "qemu-x86_64-static"]) else {
        return Outcome::Skipped("no qemu-x86_64: install the package qemu-user".into());
    };
    let mut programs = Vec::new();
    for (package, targets) in PACKAGES {
        match build(suite, package, targets) {
            Ok(built) => programs.extend(built),
            Err(why) => return Outcome::Failed(why),
        }
    }
    let seen = on_all(|model| on_model(suite, &qemu, model, &programs));
    let mut all = Counts::default();
    let (mut failed, mut skipped) = (String::new(), Reasons::default());
    let mut table = format!(
        "{:<11} {:>6} {:>6} {:>7} {:>7}  (foreign images: {IMAGES} instead of a million)\n",
        "CPU", "passed", "failed", "skipped", "seconds"
    );
    for ((model, about), Seen { counts, failures, seconds }) in MODELS.into_iter().zip(seen) {
        table += &format!(
            "{model:<11} {:>6} {:>6} {:>7} {seconds:>7.1}  {about}\n",
            counts.passed,
            counts.failed,
            counts.skipped.len(),
        );
        failed += &failures;
        all.passed += counts.passed;
        all.failed += counts.failed;
        for why in counts.skipped {
            skipped.add(model, &why);
            all.skipped.push(format!("{model}: what this CPU does not do, see the table"));
        }
    }
    table +=
        "skipped, wholly or in part (one instruction, one check), with the tests on each CPU:\n";
    // Failures come first, because a reader looks for them.
    Outcome::Table(all, format!("{failed}{table}{}", skipped.shown()))
}

/// The result of one model.
#[derive(Default)]
struct Seen {
    counts: Counts,
    failures: String,
    seconds: f64,
}

/// Two models at a time: much of each is one test that takes long. In the order of the list.
fn on_all(run: impl Fn(&str) -> Seen + Sync) -> Vec<Seen> {
    let next = AtomicUsize::new(0);
    let results = MODELS.map(|_| Mutex::new(Seen::default()));
    let work = || loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let (Some((model, _)), Some(result)) = (MODELS.get(at), results.get(at)) else { break };
        let seen = run(model);
        *result.lock().expect("no other thread panics with this one") = seen;
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    results.into_iter().map(|seen| seen.into_inner().expect("no thread panicked")).collect()
}

/// Every program on one model.
fn on_model(suite: &Suite, qemu: &str, model: &str, programs: &[Program]) -> Seen {
    let started = Instant::now();
    let mut runs: Vec<(&str, (Counts, Vec<Failure>))> = Vec::new();
    for program in programs {
        runs.push((&program.name, run(qemu, model, program)));
    }
    if DOC_TESTS.contains(&model) {
        runs.push(("doc tests", doc_tests(suite, qemu, model)));
    }
    let mut seen = Seen::default();
    for (name, (counts, failures)) in runs {
        seen.counts.add(counts);
        for failure in failures {
            seen.failures += &format!("FAILED on {model}: {name}: {}", failure.text());
        }
    }
    seen.seconds = started.elapsed().as_secs_f64();
    seen
}

/// One program on one model.
fn run(qemu: &str, model: &str, program: &Program) -> (Counts, Vec<Failure>) {
    // Not a word about features that the emulator lacks: tests look at what programs say.
    let cpu = format!("{model},check=off");
    let command = || {
        Cmd::new(qemu)
            .args(&["-cpu", &cpu, &program.path.to_string_lossy()])
            .dir(&program.dir)
            .env("FPU_FUZZ", IMAGES)
            .env(RUNNER, format!("{qemu} -cpu {cpu}"))
    };
    let one = |test: String, message: String| vec![Failure { test, message }];
    // One test at a time: a fork while another thread holds a lock of the emulator's leaves a child that waits for ever.
    let done = match command().args(&["--show-output", "--test-threads=1"]).run() {
        Ok(done) => done,
        Err(why) => return (Counts::failed(1), one("it did not start".into(), why)),
    };
    let Some(signal) = done.signal else { return judged(&done) };
    let test = crash::culprit(command(), &done.stdout);
    (Counts::failed(1), one(test, format!("ended by signal {signal}\n{}", done.tail())))
}

/// What libtest said, and that it said something.
fn judged(done: &Done) -> (Counts, Vec<Failure>) {
    let mut counts = tests_run::read(&done.stdout);
    let mut failures = tests_run::failures(&done.stdout);
    if counts.total() == 0 || (!done.success && counts.failed == 0) {
        counts.failed += 1;
        let test = "no test ran, or none that failed".into();
        failures.push(Failure { test, message: done.tail() });
    }
    (counts, failures)
}

/// The documentation's examples; cargo before 1.89 runs them on this host's CPU.
fn doc_tests(suite: &Suite, qemu: &str, model: &str) -> (Counts, Vec<Failure>) {
    let args = ["test", "--doc", "-p", "fpu-x86", "-p", "fpu-hosted-test", "--no-fail-fast"];
    let command = suite.cargo(&args).env(RUNNER, format!("{qemu} -cpu {model},check=off"));
    match command.args(&["--", "--show-output"]).run() {
        Ok(done) => judged(&done),
        Err(why) => (Counts::failed(1), vec![Failure { test: "cargo".into(), message: why }]),
    }
}

/// Builds tests, optimised: the emulator is slow enough.
fn build(suite: &Suite, package: &str, targets: &[&str]) -> Result<Vec<Program>, String> {
    let mut args = vec!["test", "--release", "--no-run", "--message-format=json", "-p", package];
    args.extend(targets);
    let said = suite.cargo(&args).ok()?;
    let programs = programs(&said);
    if programs.is_empty() {
        return Err(format!("no test program of {package} was built"));
    }
    Ok(programs)
}

/// The test programs that cargo names.
fn programs(said: &str) -> Vec<Program> {
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if message["profile"]["test"] != true {
            return None;
        }
        Some(Program {
            name: text(&message["target"]["name"])?,
            path: text(&message["executable"])?.into(),
            dir: Path::new(&text(&message["manifest_path"])?).parent()?.into(),
        })
    };
    said.lines().filter_map(program).collect()
}

/// Why something was skipped: how often on which models.
#[derive(Default)]
struct Reasons(BTreeMap<String, BTreeMap<String, usize>>);

impl Reasons {
    /// `why` is `TEST: REASON; REASON`.
    fn add(&mut self, model: &str, why: &str) {
        let reasons = why.split_once(": ").map_or(why, |(_, reasons)| reasons);
        let reasons: BTreeSet<&str> = reasons.split("; ").collect();
        for reason in reasons {
            let models = self.0.entry(reason.into()).or_default();
            *models.entry(model.into()).or_default() += 1;
        }
    }
    fn shown(&self) -> String {
        let mut lines = String::new();
        for (reason, models) in &self.0 {
            let names = models.iter().map(|(model, times)| format!("{model} {times}"));
            let names: Vec<_> = names.collect();
            lines += &format!("  {} ({})\n", reason, names.join(", "));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_those_that_cargo_calls_so() {
        let said =
            r#"{"reason":"compiler-artifact","profile":{"test":false},"target":{"name":"lib"},
"executable":null,"manifest_path":"/a/Cargo.toml"}"#
                .replace('\n', "");
        let test = r#"{"profile":{"test":true},"target":{"name":"real_plan"},"executable":"/t/real_plan-1","manifest_path":"/a/Cargo.toml"}"#;
        let expect =
            Program { name: "real_plan".into(), path: "/t/real_plan-1".into(), dir: "/a".into() };
        assert_eq!(programs(&format!("{said}\n{test}\nno JSON\n")), [expect]);
    }

    #[test]
    fn every_model_runs_once_in_the_order_of_the_list() {
        let runs = AtomicUsize::new(0);
        let seen = on_all(|model| {
            runs.fetch_add(1, Ordering::Relaxed);
            Seen { failures: model.into(), ..Seen::default() }
        });
        let names: Vec<_> = seen.into_iter().map(|seen| seen.failures).collect();
        assert_eq!(names, MODELS.map(|(model, _)| model));
        assert_eq!(runs.into_inner(), MODELS.len());
    }

    #[test]
    fn reasons_are_grouped() {
        let mut reasons = Reasons::default();
        reasons.add("max", "a: no XSAVEC");
        reasons.add("max", "b: no XSAVEC");
        reasons.add("qemu64", "a: no XSAVEC; no AVX; no XSAVEC");
        reasons.add("qemu64", "c: no AVX");
        let expect = "  no AVX (qemu64 2)\n  no XSAVEC (max 2, qemu64 1)\n";
        assert_eq!(reasons.shown(), expect);
    }
}
