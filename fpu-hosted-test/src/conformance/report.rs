//! The results of the checks.

use alloc::{string::String, vec::Vec};
use core::fmt;

/// One check's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The duty is kept.
    Passed,
    /// The duty is not kept, and why.
    Failed(String),
    /// The check could not run, and why.
    Skipped(&'static str),
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The check's name.
    pub name: &'static str,
    /// The duty of [`fpu_core::RawFpu`] that the check is about.
    pub duty: &'static str,
    /// The result.
    pub verdict: Verdict,
}

/// All checks, printed as a table.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The checks in the order in which they ran.
    pub checks: Vec<Check>,
}

impl Report {
    /// Tells whether no check failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.checks.iter().any(|check| matches!(check.verdict, Verdict::Failed(_)))
    }
    /// Tells whether the check of this name failed.
    #[must_use]
    pub fn failed(&self, name: &str) -> bool {
        self.checks
            .iter()
            .any(|check| check.name == name && matches!(check.verdict, Verdict::Failed(_)))
    }
    /// Checks that passed, failed, and were skipped.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        self.checks.iter().fold((0, 0, 0), |(p, f, s), check| match check.verdict {
            Verdict::Passed => (p + 1, f, s),
            Verdict::Failed(_) => (p, f + 1, s),
            Verdict::Skipped(_) => (p, f, s + 1),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, duty, verdict } in &self.checks {
            match verdict {
                Verdict::Passed => writeln!(f, "{name:28} {duty}  passed")?,
                Verdict::Failed(why) => writeln!(f, "{name:28} {duty}  FAILED: {why}")?,
                Verdict::Skipped(why) => writeln!(f, "{name:28} {duty}  skipped: {why}")?,
            }
        }
        let (passed, failed, skipped) = self.counts();
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}
