//! Checks of what a change easily breaks for others: features in each combination, other people's packages, memory in
//! the tests.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    libtest::counted,
    run::{Cmd, Outcome, Suite, LIBRARIES},
    tests_run::Counts,
};

/// Each library with its default features, with none, with each alone, and with all; only checked, not built.
pub fn features(suite: &Suite) -> Outcome {
    let metadata = suite.cargo(&["metadata", "--no-deps", "--format-version", "1"]).ok();
    let metadata = metadata
        .and_then(|text| serde_json::from_str::<Value>(&text).map_err(|why| why.to_string()));
    let packages = match &metadata {
        Ok(metadata) => metadata["packages"].as_array().map_or(&[][..], Vec::as_slice),
        Err(why) => return Outcome::Failed(why.clone()),
    };
    let (mut tried, mut wrong) = (0, String::new());
    for library in LIBRARIES {
        let Some(package) = packages.iter().find(|package| package["name"] == library) else {
            return Outcome::Failed(format!("cargo knows no package {library}"));
        };
        let features = package["features"].as_object();
        for set in sets(features.into_iter().flat_map(|all| all.keys().map(String::as_str))) {
            tried += 1;
            let args = [&["check", "--lib", "-p", library][..], &set].concat();
            match suite.cargo(&args).run() {
                // A warning of what was checked before is said again.
                Ok(done) if done.success && !done.stderr.contains("warning: ") => {}
                Ok(done) => wrong += &done.tail(),
                Err(why) => wrong += &why,
            }
        }
    }
    if wrong.is_empty() {
        Outcome::Passed { count: tried, note: String::new() }
    } else {
        Outcome::Failed(wrong)
    }
}

/// The options for each set of features; without features there is one.
fn sets<'f>(features: impl Iterator<Item = &'f str>) -> BTreeSet<Vec<&'f str>> {
    let named = features.filter(|feature| *feature != "default");
    let mut sets: BTreeSet<_> =
        named.map(|one| vec!["--no-default-features", "--features", one]).collect();
    if !sets.is_empty() {
        sets.extend([vec!["--no-default-features"], vec!["--all-features"]]);
    }
    sets.insert(Vec::new());
    sets
}

/// Licences, origins and known holes of the packages that these build with.
pub fn deny(suite: &Suite) -> Outcome {
    if suite.cargo(&["deny", "--version"]).ok().is_err() {
        return Outcome::Skipped("no cargo-deny: `cargo install --locked cargo-deny`".into());
    }
    let check = |offline: &[&str], what: &[&str]| {
        let command = suite.cargo(&["deny", "--all-features"]).args(offline);
        command.args(&["check", "--config", ".cargo/deny.toml"]).args(what).ok()
    };
    if let Err(why) = check(&["--offline"], &["licenses", "bans", "sources"]) {
        return Outcome::Failed(why);
    }
    match check(&[], &["advisories"]) {
        Ok(_) => Outcome::Passed { count: 2, note: String::new() },
        Err(why) if why.contains("failed to fetch advisory database") => {
            let skipped = vec!["no network for the advisories".into()];
            let counts = Counts { passed: 1, skipped, failed: 0 };
            Outcome::Tests(counts, String::new())
        }
        Err(why) => Outcome::Failed(why),
    }
}

/// Tests of the simulated CPU that Miri runs; the others try every step, or long sequences.
const MIRI: [&str; 10] = [
    "areas",
    "auto_traits",
    "errors",
    "events",
    "idle",
    "power",
    "protocol",
    "raw",
    "traps",
    "verify",
];
/// Tests that take minutes under Miri, or more memory than the machine has.
const TOO_MUCH: [&str; 5] = [
    "sizes_that_no_memory_has",
    "interrupts_at_every_step",
    "a_stamp_issued_in_an_interrupt",
    "t3_two_tasks_alternate",
    "raw_and_typed_calls_mix",
];

/// Each access of memory in these tests, judged by the rules that optimisation rests on.
pub fn miri(suite: &Suite) -> Outcome {
    let cargo = |program: &[&str]| {
        let (first, rest) = program.split_first().unwrap_or((&"cargo", &[]));
        let command = Cmd::new(first).args(rest).dir(&suite.root);
        let command = command.env("CARGO_TARGET_DIR", &suite.target);
        // What rustup said to this program is of another toolchain.
        command.unset(&["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTDOC"])
    };
    // It belongs to a nightly toolchain, which need not be the one at hand.
    let programs: [&[&str]; 2] = [&["cargo"], &["rustup", "run", "nightly", "cargo"]];
    let has = |program: &&&[&str]| cargo(program).args(&["miri", "--version"]).ok().is_ok();
    let Some(program) = programs.iter().find(has) else {
        let get = "`rustup toolchain install nightly --component miri,rust-src`";
        return Outcome::Skipped(format!("no Miri: {get}"));
    };
    let tests: Vec<String> = MIRI.iter().map(|name| format!("--test=sim_{name}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let skip = TOO_MUCH.iter().flat_map(|name| ["--skip", name]);
    let skip: Vec<&str> = ["--", "--show-output"].into_iter().chain(skip).collect();
    let mut sum = Counts::default();
    for what in
        [&["-p", "fpu-core", "--lib"][..], &[&["-p", "fpu-hosted-test"], &tests[..]].concat()]
    {
        let command =
            cargo(program).args(&["miri", "test", "--no-fail-fast"]).args(what).args(&skip);
        // A simulated CPU and its interrupt handler hold each other, until the test's end.
        let command = command.env("MIRIFLAGS", "-Zmiri-ignore-leaks");
        match counted(suite, command) {
            Outcome::Tests(counts, _) if counts.failed == 0 => sum.add(counts),
            other => return other,
        }
    }
    Outcome::Tests(sum, String::new())
}

#[cfg(test)]
mod tests {
    use super::sets;

    #[test]
    fn each_set_of_features_is_there_once() {
        let all: Vec<_> = sets(["a", "default", "b"].into_iter()).into_iter().collect();
        let expected = [
            &[][..],
            &["--all-features"],
            &["--no-default-features"],
            &["--no-default-features", "--features", "a"],
            &["--no-default-features", "--features", "b"],
        ];
        assert_eq!(all, expected);
        assert_eq!(sets([].into_iter()).len(), 1);
    }
}
