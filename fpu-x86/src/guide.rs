//! The guides of the repository that concern this backend. Links between pages lead to files there.

/// What kernels, backends and callers promise, and what instructions need: each duty of unsafe code once.
#[doc = include_str!("../docs/duties.md")]
pub mod duties {}
/// Machines whose CPUID words contradict each other, and what a plan does with each.
#[doc = include_str!("../docs/hypervisors.md")]
pub mod hypervisors {}
/// The save instructions: formats, needs, and cycles.
#[doc = include_str!("../docs/rungs.md")]
#[doc(alias = "rungs")]
pub mod instructions {}
/// State that leaves a kernel and returns: handlers, debuggers, core files, migration.
#[doc = include_str!("../docs/signal-frames.md")]
pub mod signal_frames {}
