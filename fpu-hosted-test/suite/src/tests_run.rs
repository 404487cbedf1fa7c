//! Reads what libtest prints: how many passed and failed, and which could not run.

use std::collections::BTreeMap;

/// Sums over all binaries of one `cargo test`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    /// Tests that printed `SKIP: reason`, or are ignored, and why.
    pub skipped: Vec<String>,
}

/// A test that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub test: String,
    /// The test's output, without the backtrace.
    pub message: String,
}

impl Failure {
    /// The name, and the message indented under it.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.test);
        for line in self.message.lines() {
            text += &format!("    {line}\n");
        }
        text
    }
}

impl Counts {
    pub fn failed(failed: usize) -> Self {
        Self { failed, ..Self::default() }
    }
    pub fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped.extend(more.skipped);
    }
    pub fn total(&self) -> usize {
        self.passed + self.failed + self.skipped.len()
    }
}

/// Reads the output of `cargo test -- --show-output`.
///
/// A test that printed `SKIP: reason` lines is counted as skipped, not as passed, whatever else it
/// did: libtest knows only "ok".
pub fn read(output: &str) -> Counts {
    let mut counts = Counts::default();
    let mut skips: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.split(' ').next()) {
            section = name.to_owned();
        } else if let Some(reason) = line.trim_start().strip_prefix("SKIP: ") {
            skips.entry(section.clone()).or_default().push(reason.trim().to_owned());
        } else if let Some(numbers) = line.trim_start().strip_prefix("test result: ") {
            counts.passed += number_before(numbers, " passed");
            counts.failed += number_before(numbers, " failed");
            for _ in 0..number_before(numbers, " ignored") {
                counts.skipped.push("an ignored test".into());
            }
            // Sections are those of one binary.
            counts.passed = counts.passed.saturating_sub(skips.len());
            for (name, reasons) in std::mem::take(&mut skips) {
                counts.skipped.push(format!("{name}: {}", reasons.join("; ")));
            }
            section.clear();
        }
    }
    counts
}

/// The tests that failed, of all binaries of one `cargo test`, with what they said first.
pub fn failures(output: &str) -> Vec<Failure> {
    /// Of the message: what an assertion needs, not a whole table.
    const LINES: usize = 12;
    let mut found = Vec::new();
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    // Their sections come under the first such line of a binary, their names under the second.
    let (mut headings, mut section) = (0, None);
    for line in output.lines() {
        let name = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if line == "failures:" {
            (headings, section) = (headings + 1, None);
        } else if line == "successes:" || line.starts_with("test result: ") {
            (headings, section) = (0, None);
            sections.clear();
        } else if let (1, Some(name)) = (headings, name) {
            section = Some(name);
        } else if let (1, Some(name)) = (headings, section) {
            sections.entry(name).or_default().push(line);
        } else if let (2, Some(test)) = (headings, line.strip_prefix("    ")) {
            let said = sections.remove(test).unwrap_or_default();
            // From the panic on; all of it if there is none, as in a doc test that does not compile.
            let from = said.iter().position(|line| line.starts_with("thread '")).unwrap_or(0);
            let said = said[from..].iter().filter(|line| !line.trim().is_empty());
            let message: Vec<&str> = said
                .take_while(|line| {
                    **line != "stack backtrace:" && !line.starts_with("note: run with")
                })
                .take(LINES)
                .copied()
                .collect();
            found.push(Failure { test: test.into(), message: message.join("\n") });
        }
    }
    found
}

/// The lines in which the explorer says how far it went.
pub fn searches(output: &str) -> String {
    let lines = output.lines().filter(|line| line.starts_with("explorer: "));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn number_before(text: &str, unit: &str) -> usize {
    let Some(end) = text.find(unit) else { return 0 };
    text[..end].rsplit([' ', '.']).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
running 3 tests
test a ... ok
test b ... ok
test c ... ok

successes:

---- a stdout ----
SKIP: no AVX-512
SKIP: no AMX

successes:
    a
    b
    c

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 2 tests
test d ... FAILED

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn binaries_are_summed_and_skips_are_not_passes() {
        let counts = read(TWO);
        assert_eq!((counts.passed, counts.failed), (3, 1));
        assert_eq!(counts.skipped, ["an ignored test", "a: no AVX-512; no AMX"]);
        assert_eq!(counts.total(), 6);
    }

    const FAILED: &str = "
running 2 tests
test a ... FAILED
test b ... ok

successes:

---- b stdout ----
thread 'b' said this

successes:
    b

failures:

---- a stdout ----
a table

thread 'a' (71) panicked at x.rs:1:2:
assertion `left == right` failed
  left: 1
 right: 2
stack backtrace:
   0: much


failures:
    a

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 1 test
failures:

---- a.rs - f (line 3) stdout ----
error[E0425]: no such thing

failures:
    a.rs - f (line 3)

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn a_failure_has_its_name_and_its_message() {
        let of = |test: &str, message: &str| Failure { test: test.into(), message: message.into() };
        let said = "thread 'a' (71) panicked at x.rs:1:2:\nassertion `left == right` failed\n  left: 1\n right: 2";
        let expect = [of("a", said), of("a.rs - f (line 3)", "error[E0425]: no such thing")];
        assert_eq!(failures(FAILED), expect);
        assert_eq!(failures(TWO), []);
        assert_eq!(expect[1].text(), "a.rs - f (line 3)\n    error[E0425]: no such thing\n");
    }

    #[test]
    fn a_search_has_its_line() {
        let output = "---- a stdout ----\nexplorer: 2 CPUs: closed\n\nother: 1\nexplorer: 3 CPUs\n";
        assert_eq!(searches(output), "explorer: 2 CPUs: closed\nexplorer: 3 CPUs\n");
        assert_eq!(searches(TWO), "");
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(read("error: could not compile"), Counts::default());
        let zero = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 12 filtered out";
        assert_eq!(read(zero).total(), 0);
    }
}
