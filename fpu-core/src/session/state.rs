//! The states of a session, as empty, sealed types that are named for what is true.

mod sealed {
    pub trait Sealed {}
}

/// A session's state: [`RegistersOnly`], [`Both`], [`MemoryOnly`] or [`MemoryWritable`].
///
/// | from | call | to |
/// |---|---|---|
/// | [`RegistersOnly`] | `make_memory_valid_read` (save) | [`Both`] |
/// | [`RegistersOnly`] | `make_memory_valid_write` (save) | [`MemoryWritable`] |
/// | [`RegistersOnly`] | `switch_prepare` (save) | switched out, registers kept |
/// | [`Both`] | `make_memory_valid_write`, `invalidate_registers` | [`MemoryWritable`] |
/// | [`Both`] | `switch_return` | user mode, state 1 |
/// | [`MemoryOnly`] | `make_memory_valid_write` | [`MemoryWritable`] |
/// | [`MemoryOnly`], [`MemoryWritable`] | `make_registers_valid` (restore) | [`Both`] |
/// | [`MemoryOnly`], [`MemoryWritable`] | `switch_return` (restore) | user mode, state 1 |
///
/// ```
/// fn name<S: fpu_core::session::State>() -> &'static str { S::NAME }
/// assert_eq!(name::<fpu_core::session::Both>(), "both");
/// ```
pub trait State: sealed::Sealed {
    /// The state's name, as in the theory statement.
    const NAME: &'static str;
}

/// State 1: the registers are the only valid copy.
///
/// ```
/// use fpu_core::session::State;
/// assert_eq!(fpu_core::session::RegistersOnly::NAME, "registers only");
/// ```
#[derive(Debug)]
pub enum RegistersOnly {}
/// State 2a: registers and memory agree, and neither may be written.
///
/// ```
/// use fpu_core::session::State;
/// assert_eq!(fpu_core::session::Both::NAME, "both");
/// ```
#[derive(Debug)]
pub enum Both {}
/// State 2b on this CPU: this CPU's registers do not hold the state, and memory does. Another CPU's
/// registers may hold the state too, if the task came from that CPU and has not been in user mode since. So
/// memory can be read and not written.
///
/// ```
/// use fpu_core::session::State;
/// assert_eq!(fpu_core::session::MemoryOnly::NAME, "memory only");
/// ```
#[derive(Debug)]
pub enum MemoryOnly {}
/// State 2b, and no registers of any CPU claim to hold the state: memory can be written.
///
/// ```
/// use fpu_core::session::State;
/// assert_eq!(fpu_core::session::MemoryWritable::NAME, "memory writable");
/// ```
#[derive(Debug)]
pub enum MemoryWritable {}

impl sealed::Sealed for RegistersOnly {}
impl sealed::Sealed for Both {}
impl sealed::Sealed for MemoryOnly {}
impl sealed::Sealed for MemoryWritable {}
impl State for RegistersOnly {
    const NAME: &'static str = "registers only";
}
impl State for Both {
    const NAME: &'static str = "both";
}
impl State for MemoryOnly {
    const NAME: &'static str = "memory only";
}
impl State for MemoryWritable {
    const NAME: &'static str = "memory writable";
}

/// States in which the image in memory can be read.
///
/// ```
/// fn readable<S: fpu_core::session::MemoryValid>() {}
/// readable::<fpu_core::session::Both>();
/// readable::<fpu_core::session::MemoryOnly>();
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
impl MemoryValid for MemoryWritable {}

/// States in which this CPU's registers do not hold the task's state, so that a restore has something to do.
///
/// ```
/// fn loadable<S: fpu_core::session::RegistersStale>() {}
/// loadable::<fpu_core::session::MemoryOnly>();
/// loadable::<fpu_core::session::MemoryWritable>();
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "the registers still hold this task's state: it cannot be loaded again",
        label = "leave this call out, or `make_memory_valid_write()` is missing before this",
        note = "`let mut session = session.make_memory_valid_write();` drops the registers' claim, for an image that is to be changed"
    )
)]
pub trait RegistersStale: State {}
impl RegistersStale for MemoryOnly {}
impl RegistersStale for MemoryWritable {}

/// The state in which no registers claim to hold the task's state, so that memory can be written.
///
/// ```
/// fn writable<S: fpu_core::session::Unclaimed>() {}
/// writable::<fpu_core::session::MemoryWritable>();
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "registers may still hold this task's state, of this CPU or another: what is written in memory would be lost",
        label = "`make_memory_valid_write()` is missing before this",
        note = "`let mut session = session.make_memory_valid_write();` drops whatever claim stands; then `image_mut()` exists"
    )
)]
pub trait Unclaimed: State {}
impl Unclaimed for MemoryWritable {}

/// The state in which memory is stale, so that a save has something to do.
///
/// ```
/// fn to_be_saved<S: fpu_core::session::MemoryStale>() {}
/// to_be_saved::<fpu_core::session::RegistersOnly>();
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
/// fn droppable<S: fpu_core::session::BothValid>() {}
/// droppable::<fpu_core::session::Both>();
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "the registers' claim can be dropped only while memory holds the same state",
        label = "not in state 2a: the registers hold the only copy, or no claim at all",
        note = "`make_memory_valid_write()` exists in every state: it saves first where that is due, and drops whatever claim stands"
    )
)]
pub trait BothValid: State {}
impl BothValid for Both {}
