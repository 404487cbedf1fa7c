//! The states of the thread of 2016, as types. Empty, sealed, and named for what is true.

mod sealed {
    pub trait Sealed {}
}

/// A session's state: [`RegistersOnly`], [`Both`] or [`MemoryOnly`].
///
/// | from | call | to |
/// |---|---|---|
/// | [`RegistersOnly`] | `make_memory_valid_read` (save) | [`Both`] |
/// | [`RegistersOnly`] | `make_memory_valid_write` (save) | [`MemoryOnly`] |
/// | [`RegistersOnly`] | `switch_prepare` (save) | switched out, registers kept |
/// | [`Both`] | `make_memory_valid_write`, `invalidate_registers` | [`MemoryOnly`] |
/// | [`Both`] | `switch_return` | user mode, state 1 |
/// | [`MemoryOnly`] | `make_registers_valid` (restore) | [`Both`] |
/// | [`MemoryOnly`] | `switch_return` (restore) | user mode, state 1 |
///
/// ```
/// fn name<S: fpu_core::State>() -> &'static str { S::NAME }
/// assert_eq!(name::<fpu_core::Both>(), "both");
/// ```
pub trait State: sealed::Sealed {
    /// The state's name as in docs/theory.md.
    const NAME: &'static str;
}

/// State 1: the registers are the only valid copy.
///
/// ```
/// use fpu_core::State;
/// assert_eq!(fpu_core::RegistersOnly::NAME, "registers only");
/// ```
#[derive(Debug)]
pub enum RegistersOnly {}
/// State 2a: registers and memory agree, and neither may be written.
///
/// ```
/// use fpu_core::State;
/// assert_eq!(fpu_core::Both::NAME, "both");
/// ```
#[derive(Debug)]
pub enum Both {}
/// State 2b: memory is the only valid copy.
///
/// ```
/// use fpu_core::State;
/// assert_eq!(fpu_core::MemoryOnly::NAME, "memory only");
/// ```
#[derive(Debug)]
pub enum MemoryOnly {}

impl sealed::Sealed for RegistersOnly {}
impl sealed::Sealed for Both {}
impl sealed::Sealed for MemoryOnly {}
impl State for RegistersOnly {
    const NAME: &'static str = "registers only";
}
impl State for Both {
    const NAME: &'static str = "both";
}
impl State for MemoryOnly {
    const NAME: &'static str = "memory only";
}

/// States in which the image in memory can be read.
///
/// ```
/// fn readable<S: fpu_core::MemoryValid>() {}
/// readable::<fpu_core::Both>();
/// readable::<fpu_core::MemoryOnly>();
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "the image in memory is stale: the task's state is in the registers only",
        label = "`make_memory_valid_read()` is missing before this",
        note = "`let session = session.make_memory_valid_read();` saves the registers and gives a session on which this exists"
    )
)]
pub trait MemoryValid: State {}
impl MemoryValid for Both {}
impl MemoryValid for MemoryOnly {}

/// The state in which the image in memory can be written, or loaded.
///
/// ```
/// fn writable<S: fpu_core::RegistersStale>() {}
/// writable::<fpu_core::MemoryOnly>();
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "the registers still hold this task's state: it cannot be written in memory or loaded again",
        label = "`make_memory_valid_write()` or `invalidate_registers()` is missing before this",
        note = "`let mut session = session.make_memory_valid_write();` invalidates the registers first; writing memory before that would be lost"
    )
)]
pub trait RegistersStale: State {}
impl RegistersStale for MemoryOnly {}

/// The state in which memory is stale, so that a save has something to do.
///
/// ```
/// fn to_be_saved<S: fpu_core::MemoryStale>() {}
/// to_be_saved::<fpu_core::RegistersOnly>();
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "memory holds this task's state already: there is nothing to save",
        label = "leave this call out: the image can be read, and the task switched out, as it is",
        note = "dropping the session ends it"
    )
)]
pub trait MemoryStale: State {}
impl MemoryStale for RegistersOnly {}

/// The state in which registers and memory agree, so that the registers' claim can be dropped.
///
/// ```
/// fn droppable<S: fpu_core::BothValid>() {}
/// droppable::<fpu_core::Both>();
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "the registers' claim can be dropped only while memory holds the same state",
        label = "not in state 2a: the registers hold the only copy, or no claim at all",
        note = "from `RegistersOnly`, `make_memory_valid_write()` saves first; in `MemoryOnly` the image can be written as it is"
    )
)]
pub trait BothValid: State {}
impl BothValid for Both {}
