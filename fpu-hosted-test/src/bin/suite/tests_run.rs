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

impl Counts {
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

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(read("error: could not compile"), Counts::default());
        let zero = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 12 filtered out";
        assert_eq!(read(zero).total(), 0);
    }
}
