//! Turns the output of `cargo test` into an outcome.

use crate::{
    crash,
    run::{Cmd, Outcome, Suite},
    tests_run,
};

/// `cargo test ARGS`, counted.
pub fn cargo_test(suite: &Suite, args: &[&str]) -> Outcome {
    let command = suite.cargo(&["test", "--no-fail-fast"]).args(args);
    counted(suite, command.args(&["--", "--show-output"]))
}

pub fn counted(suite: &Suite, command: Cmd) -> Outcome {
    let done = match command.run() {
        Ok(done) => done,
        Err(why) => return Outcome::Failed(why),
    };
    let mut counts = tests_run::read(&done.stdout);
    counts.failed += crash::ended(&done.stderr).len();
    if !done.success && counts.failed == 0 {
        // It did not build, or was killed.
        counts.failed = 1;
    }
    if counts.total() == 0 {
        return Outcome::Failed(format!("no test ran\n{}", done.tail()));
    }
    if counts.failed == 0 {
        // How far a search went is worth reading even when all is well.
        let searches = tests_run::searches(&done.stdout);
        if !searches.is_empty() && !suite.verbose {
            return Outcome::Table(counts, searches);
        }
    }
    // Failures come first, because a reader looks for them, and the rest may be long.
    let mut said = String::new();
    for failure in tests_run::failures(&done.stdout) {
        said += &format!("FAILED {}", failure.text());
    }
    said += &crash::named(suite, &done.stderr, &done.stdout);
    said += &done.tail();
    Outcome::Tests(counts, said)
}
