//! The kernel that boots: on every machine that this host can run, and with every seeded fault.
//!
//! `cargo boot` does the work, so that a person sees what the suite sees. `cargo boot` builds the kernel too, and
//! [`kernel`] returns its place, for the steps that read its code.

use std::path::PathBuf;

use serde_json::Value;

use crate::{
    run::{Cmd, Done, Outcome, Suite},
    tests_run::Counts,
};

/// `cargo boot ARGS --json`.
fn boot(suite: &Suite, args: &[&str]) -> Result<(Done, Value), String> {
    let run = ["run", "-q", "--release", "-p", "fpu-examples", "--bin", "boot", "--", "--json"];
    let done = suite.cargo(&run).args(args).run()?;
    match serde_json::from_str(&done.stdout) {
        Ok(document) => Ok((done, document)),
        Err(why) => Err(format!("no JSON document ({why})\n{}", done.tail())),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Every machine once: each that this host cannot run is a skip.
pub fn machines(suite: &Suite) -> Outcome {
    let is_passed = |run: &Value| text(run, "verdict") == "pass";
    // Two seconds of each machine's own, so that what shows by chance is likely to show.
    counted(boot(suite, &["--all", "--seconds", "2"]), "machines", "machine", is_passed)
}

/// One machine of each rung, where registers are compared with the claims before every return to user mode.
pub fn checked(suite: &Suite) -> Outcome {
    let is_passed = |run: &Value| text(run, "verdict") == "pass";
    let machines = ["qemu64", "max-noopt", "max", "ryzen", "sapphire"];
    let mut args = vec!["--check"];
    args.extend(machines.iter().flat_map(|machine| ["--machine", machine]));
    counted(boot(suite, &args), "machines", "machine", is_passed)
}

/// The words of every recorded machine, and some made-up words, once on a machine that has what they
/// promise, and once on one that has nothing that they promise.
pub fn cpuid(suite: &Suite) -> Outcome {
    let is_passed = |run: &Value| text(run, "verdict") == "pass";
    let made_up = suite.root.join("examples/testdata/made_up.jsonl");
    let made_up = made_up.to_string_lossy();
    let words = ["--cpuid", "all", "--cpuid", &made_up];
    let on = |args: &[&str]| counted(boot(suite, args), "machines", "cpuid", is_passed);
    let (own, lesser) = (on(&words), on(&[&words[..], &["--machine", "arrandale"]].concat()));
    both(own, lesser)
}

/// Two tables as one; a failure instead of a table is the outcome.
fn both(one: Outcome, other: Outcome) -> Outcome {
    match (one, other) {
        (Outcome::Table(mut counts, shown), Outcome::Table(mut more, also)) => {
            if more.passed + more.failed == 0 {
                // All for the same reason.
                more.skipped.truncate(1);
            }
            counts.add(more);
            Outcome::Table(counts, format!("{shown}\n{also}"))
        }
        (Outcome::Table(..), other) => other,
        (one, _) => one,
    }
}

/// Every seeded fault once: each must be noticed.
pub fn controls(suite: &Suite) -> Outcome {
    let is_passed = |run: &Value| run["caught"] == true;
    counted(boot(suite, &["--controls"]), "controls", "fault", is_passed)
}

/// One check for each entry of the list; the table as it was shown.
fn counted(
    result: Result<(Done, Value), String>,
    list: &str,
    name: &str,
    is_passed: impl Fn(&Value) -> bool,
) -> Outcome {
    let (done, document) = match result {
        Ok(result) => result,
        Err(why) => return Outcome::Failed(why),
    };
    match text(&document["kernel"], "verdict") {
        "" => {}
        "skip" => return Outcome::Skipped(text(&document["kernel"], "why").into()),
        _ => return Outcome::Failed(text(&document["kernel"], "why").into()),
    }
    let mut counts = Counts::default();
    let mut shown = done.stderr.clone();
    for run in document[list].as_array().into_iter().flatten() {
        let (name, why) = (text(run, name), text(run, "why"));
        if text(run, "verdict") == "skip" {
            counts.skipped.push(format!("{name}: {why}"));
        } else if is_passed(run) {
            counts.passed += 1;
        } else {
            counts.failed += 1;
            shown += &format!("{name} failed: {why}\n");
        }
    }
    if counts.total() == 0 {
        return Outcome::Failed(format!("nothing was booted\n{}", done.tail()));
    }
    // Its own judgement must be the same.
    if done.success != (counts.failed == 0 && counts.passed > 0) {
        counts.failed = counts.failed.max(1);
        shown += &format!("the exit code does not agree with the document\n{}", done.tail());
    }
    Outcome::Table(counts, shown)
}

/// The kernel, and how it is built here.
#[derive(Debug)]
pub struct Kernel {
    /// The ELF file, or why there is none.
    pub elf: Result<PathBuf, Outcome>,
    /// Its manifest.
    pub manifest: String,
    /// rustc's target.
    pub target: String,
    /// `RUSTFLAGS`.
    pub rustflags: String,
    /// `CARGO_TARGET_DIR`.
    pub target_dir: String,
}

/// Builds the kernel as `cargo boot` does.
pub fn kernel(suite: &Suite) -> Result<Kernel, Outcome> {
    let (_, document) = boot(suite, &["--build-only"]).map_err(Outcome::Failed)?;
    let why = || text(&document, "why").to_owned();
    let elf = match text(&document, "verdict") {
        "pass" => Ok(PathBuf::from(text(&document, "elf"))),
        "skip" => Err(Outcome::Skipped(why())),
        _ => Err(Outcome::Failed(why())),
    };
    let [manifest, target, rustflags, target_dir] =
        ["manifest", "target", "rustflags", "target_dir"].map(|key| text(&document, key).into());
    Ok(Kernel { elf, manifest, target, rustflags, target_dir })
}

/// rustfmt and clippy on the kernel, which the workspace's own do not reach.
pub fn lint(suite: &Suite) -> Outcome {
    let kernel = match kernel(suite) {
        Ok(kernel) => kernel,
        Err(outcome) => return outcome,
    };
    let manifest = ["--manifest-path", kernel.manifest.as_str()];
    let there = |tool: &str| Cmd::new("cargo").args(&[tool, "--version"]).ok().is_ok();
    let mut counts = Counts::default();
    let mut said = String::new();
    let mut add = |result: Result<String, String>| match result {
        Ok(_) => counts.passed += 1,
        Err(why) => {
            counts.failed += 1;
            said += &why;
        }
    };
    let mut skipped = Vec::new();
    if there("fmt") {
        add(suite.cargo(&["fmt", "--check"]).args(&manifest).ok());
    } else {
        skipped.push("no rustfmt: `rustup component add rustfmt`".into());
    }
    match kernel.elf {
        Err(Outcome::Skipped(why)) => skipped.push(why),
        _ if !there("clippy") => skipped.push("no clippy: `rustup component add clippy`".into()),
        _ => {
            let command = suite.cargo(&["clippy", "-q", "--release", "--target", &kernel.target]);
            let command = command.args(&manifest).args(&["--", "-Dwarnings"]);
            add(command
                .env("CARGO_TARGET_DIR", &kernel.target_dir)
                .env("RUSTFLAGS", &kernel.rustflags)
                .ok());
        }
    }
    counts.skipped = skipped;
    Outcome::Tests(counts, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(success: bool, document: &str) -> Result<(Done, Value), String> {
        let stderr = "the table\n".into();
        let done =
            Done { shown: "boot".into(), success, signal: None, stdout: document.into(), stderr };
        Ok((done, serde_json::from_str(document).unwrap()))
    }
    fn of(success: bool, document: &str) -> Outcome {
        counted(ended(success, document), "machines", "machine", |r| text(r, "verdict") == "pass")
    }

    #[test]
    fn one_check_for_each_machine() {
        let document = r#"{"machines":[{"machine":"a","verdict":"pass"},
            {"machine":"b","verdict":"fail","why":"register xmm0"},
            {"machine":"c","verdict":"hung","why":"hung"},
            {"machine":"d","verdict":"skip","why":"no emulator"}]}"#;
        let Outcome::Table(counts, said) = of(false, document) else { panic!("no table") };
        assert_eq!((counts.passed, counts.failed), (1, 2));
        assert_eq!(counts.skipped, ["d: no emulator"]);
        assert!(said.starts_with("the table\n") && said.contains("b failed: register xmm0"));
    }

    #[test]
    fn an_exit_code_that_does_not_agree_is_a_failure() {
        let document = r#"{"machines":[{"machine":"a","verdict":"pass"}]}"#;
        let Outcome::Table(counts, _) = of(true, document) else { panic!("no table") };
        assert_eq!((counts.passed, counts.failed), (1, 0));
        let Outcome::Table(counts, _) = of(false, document) else { panic!("no table") };
        assert_eq!((counts.passed, counts.failed), (1, 1));
    }

    #[test]
    fn two_tables_are_one() {
        let table = |passed: &str, others: [&str; 2]| {
            let [one, two] =
                others.map(|v| format!(r#"{{"machine":"b","verdict":"{v}","why":"w"}}"#));
            let document = format!(r#"{{"machines":[{passed}{one},{two}]}}"#);
            of(!passed.is_empty() && !document.contains("fail"), &document)
        };
        let good = r#"{"machine":"a","verdict":"pass"},"#;
        let count = |one, other| match both(one, other) {
            Outcome::Table(counts, _) => (counts.passed, counts.failed, counts.skipped.len()),
            _ => panic!("no table"),
        };
        let skips = || table("", ["skip", "skip"]);
        assert_eq!(count(table(good, ["pass", "skip"]), table(good, ["fail", "skip"])), (3, 1, 2));
        assert_eq!(count(table(good, ["pass", "pass"]), skips()), (3, 0, 1));
        let broken = || of(true, r#"{"machines":[]}"#);
        assert!(matches!(both(skips(), broken()), Outcome::Failed(_)));
        assert!(matches!(both(broken(), skips()), Outcome::Failed(_)));
    }

    #[test]
    fn nothing_is_no_pass() {
        assert!(matches!(of(true, r#"{"machines":[]}"#), Outcome::Failed(_)));
        assert!(matches!(of(true, "{}"), Outcome::Failed(_)));
        let skip = r#"{"kernel":{"verdict":"skip","why":"no target"}}"#;
        assert!(matches!(of(false, skip), Outcome::Skipped(why) if why == "no target"));
        let broken = r#"{"kernel":{"verdict":"fail","why":"error"}}"#;
        assert!(matches!(of(false, broken), Outcome::Failed(why) if why == "error"));
    }
}
