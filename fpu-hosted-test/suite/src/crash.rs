//! Which test ran when a signal ended its program.

use crate::run::{Cmd, Suite};

/// Runs the test program again, one test at a time, and names the test that ran when the signal came. `before` is what
/// the program said when tests ran side by side.
pub fn culprit(program: Cmd, before: &str) -> String {
    match program.args(&["--test-threads=1"]).run() {
        Ok(done) if done.signal.is_some() => match last_started(&done.stdout) {
            Some(test) => test.to_owned(),
            None => "before the first test".into(),
        },
        Ok(_) => format!(
            "with one test at a time it does not happen; {} tests had ended before",
            before.lines().filter(|line| is_result(line)).count()
        ),
        Err(why) => why,
    }
}

fn is_result(line: &str) -> bool {
    line.starts_with("test ") && line.contains(" ... ")
}

/// libtest writes the name before the test runs, if one runs at a time, and the result behind it.
fn last_started(output: &str) -> Option<&str> {
    let line = output.lines().rfind(|line| line.starts_with("test "))?;
    let (name, result) = line["test ".len()..].split_once(" ... ")?;
    // What else stands there the test itself wrote past libtest.
    (!["ok", "FAILED", "ignored"].contains(&result.trim())).then_some(name)
}

/// The test programs that signals ended, of what `cargo test` says: the command of each, and the signal.
pub fn ended(stderr: &str) -> Vec<(&str, &str)> {
    let lines = stderr.lines().filter_map(|line| {
        let (_, rest) = line.split_once("process didn't exit successfully: `")?;
        let (command, why) = rest.split_once("` (")?;
        why.starts_with("signal: ").then_some((command, why.trim_end_matches(')')))
    });
    lines.collect()
}

/// Names the test that ran in each program that a signal ended, of what `cargo test` says.
pub fn named(suite: &Suite, stderr: &str, stdout: &str) -> String {
    let mut said = String::new();
    for (command, signal) in ended(stderr) {
        let mut words = command.split_whitespace();
        let Some(program) = words.next() else { continue };
        let args: Vec<&str> = words.collect();
        let again = Cmd::new(program).args(&args).dir(&suite.root);
        let short = program.rsplit('/').next().unwrap_or(program);
        said += &format!("FAILED {}\n    {signal} ended {short}\n", culprit(again, stdout));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_that_ran_is_the_one_without_a_result() {
        let output = "\nrunning 3 tests\ntest a ... ok\ntest b::c ... ";
        assert_eq!(last_started(output), Some("b::c"));
        assert_eq!(last_started("test a ... ok\ntest b ... its own words\n"), Some("b"));
        assert_eq!(last_started("running 1 test\n"), None);
        assert_eq!(last_started("test a ... ok\n"), None);
    }

    #[test]
    fn what_cargo_says_of_a_signal_is_read() {
        let stderr = "Caused by:\n  process didn't exit successfully: `/t/a-1 --show-output` \
                      (signal: 11, SIGSEGV: invalid memory reference)\n  process didn't exit \
                      successfully: `/t/b-1` (exit status: 101)\n";
        let expect = ("/t/a-1 --show-output", "signal: 11, SIGSEGV: invalid memory reference");
        assert_eq!(ended(stderr), [expect]);
    }

    #[test]
    fn a_program_that_a_signal_ends_is_asked_again() {
        let script = "printf 'test a ... ok\\ntest b ... '; kill -SEGV $$";
        let program = Cmd::new("sh").args(&["-c", script, "sh"]);
        assert_eq!(culprit(program, ""), "b");
        let sound = Cmd::new("sh").args(&["-c", "echo 'test a ... ok'", "sh"]);
        assert!(culprit(sound, "test a ... ok\n").contains("does not happen; 1 tests"));
    }
}
