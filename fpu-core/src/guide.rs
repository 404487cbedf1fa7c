//! The guides of the repository, for readers of the documentation. Links between pages lead to files there.
// The walk quotes parts of functions.
#![allow(rustdoc::invalid_rust_codeblocks)]

/// What kernels, backends and callers promise: each duty of unsafe code once.
#[doc = include_str!("../docs/duties.md")]
pub mod duties {}
/// The terms, each with its one meaning.
#[doc = include_str!("../docs/glossary.md")]
pub mod glossary {}
/// Step by step through the integration of a kernel that boots.
#[doc = include_str!("../docs/kernel.md")]
pub mod kernel {}
/// For readers who know `arch/x86/kernel/fpu`.
#[doc = include_str!("../docs/linux-names.md")]
pub mod linux_names {}
/// Every call site and what a kernel supplies.
#[doc = include_str!("../docs/porting.md")]
pub mod porting {}
/// States, words, orderings, interrupts, races, and what shows each.
#[doc = include_str!("../docs/theory.md")]
pub mod theory {}
