//! One check per duty of a backend, generic over the backend.
//!
//! A backend author writes a [`Harness`] and calls [`check`]; the README of this crate has a complete
//! one for a CPU with a single register. Every check names the duty of [`fpu_core::RawFpu`] that it
//! holds the backend to; B8 to B10 are those of [`fpu_core::verify::CompareFpu`], B11 and B12 those
//! of [`fpu_core::IdleFpu`], B18 and B19 those of [`fpu_core::trap::TrapFpu`].
//!
//! ```
//! use fpu_hosted_test::{conformance, sim::{Flaw, SimHarness}};
//! let report = conformance::check(&mut SimHarness::new());
//! assert!(report.passed(), "{report}");
//! let report = conformance::check(&mut SimHarness::with_flaw(Flaw::SaveClobbers));
//! assert!(report.failed("save-keeps-registers"));
//! ```
//!
//! It needs `alloc` and no `std`, so it runs where the backend does: on bare metal, depend on this crate with
//! `default-features = false` and print the [`Report`]. There a check that panics ends in the target's panic handler;
//! with the feature `std` it has failed, and the others run.

mod absent;
mod bench;
mod checks;
mod compare;
mod harness;
mod idle;
mod memory;
mod report;
mod trap;
mod unchanged;

pub use harness::{call, save_if_changed, Action, Call, Harness, Outcome, Step, Trap};
pub use report::{Check, Report, Verdict};

/// Runs every check.
#[must_use = "the report says which checks failed"]
pub fn check<H: Harness>(harness: &mut H) -> Report {
    checks::all(harness)
}
