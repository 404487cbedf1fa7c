//! Every way an operation can be refused. A refused operation changes nothing, except as [`Error`] says.

use core::fmt;

use crate::{backend::RestoreFault, witness::MAX_CPUS};

/// Why an operation on a task's registers was refused.
///
/// A call that returns one of these has changed nothing, with three exceptions. [`Error::Busy`] may come because an
/// interrupt has forgotten a guard just before; then the CPU stays closed. [`Error::RestoreFailed`] leaves the
/// registers undefined and unowned. [`Error::Exhausted`] from
/// [`invalidate_registers`](crate::CpuLifecycle::invalidate_registers) or
/// [`fpu_resume`](crate::CpuLifecycle::fpu_resume) ends the claim all the same, because the registers' contents are gone.
///
/// ```
/// use fpu_core::Error;
/// let why = Error::LiveElsewhere { cpu: 3 };
/// assert_eq!(why.to_string(), "the task's state is live in the registers of CPU 3");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// This CPU was never brought online, or was taken offline.
    CpuOffline,
    /// The CPU is online already.
    CpuOnline,
    /// The CPU number does not fit the word ([`MAX_CPUS`]).
    InvalidCpu,
    /// A kernel FPU section or a session is open on this CPU: use a path without FPU, or wait.
    Busy,
    /// A non-maskable interrupt may not touch the registers or the words.
    Nmi,
    /// The task's only valid state is in another CPU's registers: the kernel switched the task in
    /// here without switching it out there. A bug of the kernel; nothing was restored.
    LiveElsewhere {
        /// The CPU whose registers hold the state.
        cpu: u32,
    },
    /// The context is live in this CPU's own registers, and the call named another context as current, or needs
    /// the state in memory ([`TaskFpu::open_saved`](crate::TaskFpu::open_saved)). Nothing is lost.
    LiveHere,
    /// The proof is another task's ([`Stopped::context`](crate::Stopped::context)).
    NotStopped,
    /// The task's only valid state was in this CPU's registers, and other code got the registers
    /// unsaved (the CPU went offline or resumed while the task was live, or a section was told of
    /// another task).
    /// [`TaskFpu::reset`](crate::TaskFpu::reset) makes the context usable again.
    Lost,
    /// The image could not be loaded. The registers are undefined and unowned; the image and its
    /// task are as before. End the task, or [reset](crate::TaskFpu::reset) it.
    RestoreFailed(RestoreFault),
    /// This CPU has too few stamps of its number left. A number has 2^48 stamps, and sections and sessions leave the
    /// last few to the hot path. No stamp is issued twice: take the CPU offline, and online again with a number that no
    /// CPU has had. Tasks in its registers can be saved and switched out, and those that it holds can run on.
    Exhausted,
    /// The context is [bound](crate::BoundFpu) to that CPU, or the [`BoundCpu`](crate::BoundCpu) is that CPU's, and this is
    /// another one.
    BoundElsewhere {
        /// The CPU to which it belongs.
        cpu: u32,
    },
    /// Each slot of this CPU's [`BoundCpu`](crate::BoundCpu) has a context.
    NoSlot,
    /// The witness does not name this CPU's [`BoundCpu`](crate::BoundCpu), so no call would save its contexts
    /// ([`Pinned::settle`](crate::Pinned::settle)).
    NotNamed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::CpuOffline => f.write_str("this CPU is not online for FPU use"),
            Error::CpuOnline => f.write_str("this CPU is online for FPU use already"),
            Error::InvalidCpu => write!(f, "CPU number above {}", MAX_CPUS - 1),
            Error::Busy => f.write_str("a section or session is open on this CPU"),
            Error::Nmi => f.write_str("the FPU cannot be used in a non-maskable interrupt"),
            Error::LiveElsewhere { cpu } => {
                write!(f, "the task's state is live in the registers of CPU {cpu}")
            }
            Error::LiveHere => f.write_str("the context is live in this CPU's own registers"),
            Error::NotStopped => f.write_str("the proof is for another task"),
            Error::Lost => f.write_str("the registers were given away before the task was saved"),
            Error::RestoreFailed(fault) => write!(f, "restoring the image failed: {fault}"),
            Error::Exhausted => f.write_str("this CPU number has issued all its stamps"),
            Error::BoundElsewhere { cpu } => write!(f, "bound to CPU {cpu}, which is another one"),
            Error::NoSlot => f.write_str("no slot is free for another bound context"),
            Error::NotNamed => f.write_str("the witness does not name these bound contexts"),
        }
    }
}

/// Which half of a [`switch`](crate::switch()) was refused, and why. `?` turns it into the [`Error`] itself.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::{switch, Error, RestoreFault, SwitchError};
/// # let (mut cpu, a) = cpu_and_task();
/// # let b = new_task();
/// switch(None, Some(a.context()), &mut cpu)?;
/// cpu.fail_next_restore();
/// let refused = switch(Some(a.context()), Some(b.context()), &mut cpu);
/// assert_eq!(refused, Err(SwitchError::Next(Error::RestoreFailed(RestoreFault(14)))));
/// switch(None, Some(a.context()), &mut cpu)?; // on with `a`, which was saved
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchError {
    /// The task that leaves was refused: the call did not save it, and did not look at the next one.
    Prev(Error),
    /// The task that comes was refused: the task that leaves is switched out, and the next one must not run.
    Next(Error),
}

impl From<SwitchError> for Error {
    fn from(refused: SwitchError) -> Self {
        let (SwitchError::Prev(why) | SwitchError::Next(why)) = refused;
        why
    }
}

impl fmt::Display for SwitchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwitchError::Prev(why) => write!(f, "the task that leaves: {why}"),
            SwitchError::Next(why) => write!(f, "the task that comes: {why}"),
        }
    }
}

/// Why a save area was refused. [`NewError`] carries the area too.
///
/// ```
/// use fpu_core::AreaError;
/// let why = AreaError::TooSmall { need: 2696, have: 512 };
/// assert_eq!(why.to_string(), "the save area has 512 bytes, 2696 are needed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AreaError {
    /// Too few bytes for what the backend saves.
    TooSmall {
        /// Bytes the backend writes.
        need: usize,
        /// Bytes the area has.
        have: usize,
    },
    /// The first byte is not aligned as the backend's instructions require.
    Misaligned {
        /// The alignment required, in bytes.
        need: usize,
    },
    /// The allocator has no such memory ([`HeapArea`](crate::HeapArea), feature `alloc`).
    OutOfMemory {
        /// Bytes asked for.
        need: usize,
    },
}

impl fmt::Display for AreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AreaError::TooSmall { need, have } => {
                write!(f, "the save area has {have} bytes, {need} are needed")
            }
            AreaError::Misaligned { need } => {
                write!(f, "the save area is not aligned to {need} bytes")
            }
            AreaError::OutOfMemory { need } => {
                write!(f, "no memory for a save area of {need} bytes")
            }
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for Error {}
#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl core::error::Error for SwitchError {}
#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl core::error::Error for AreaError {}

/// Why no context was made ([`TaskFpu::new`](crate::TaskFpu::new)), with the area that was refused.
///
/// `?` turns it into an [`AreaError`], which drops the area, or into a boxed error.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::{Area, AreaError, NewError, TaskFpu};
/// # let cpu = online_cpu();
/// fn small(cpu: &Cpu) -> Result<TaskFpu<Backend, Area<64>>, AreaError> {
///     Ok(TaskFpu::new(cpu.backend(), Area::new())?)
/// }
/// assert!(matches!(small(&cpu), Err(AreaError::TooSmall { have: 64, .. })));
/// // Or with the area, for the slab it came from:
/// if let Err(NewError { why, area }) = TaskFpu::new(cpu.backend(), Area::<64>::new()) {
///     println!("{why}");
///     drop(area);
/// }
/// ```
pub struct NewError<A> {
    /// Why the area was refused.
    pub why: AreaError,
    /// The area, untouched.
    pub area: A,
}

// Prints the reason only, so the area need not be `Debug`.
impl<A> fmt::Debug for NewError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewError").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<A> fmt::Display for NewError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl<A> From<NewError<A>> for AreaError {
    fn from(refused: NewError<A>) -> Self {
        refused.why
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl<A> core::error::Error for NewError<A> {}

/// Why a context was not bound or unbound, with what was to be.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::{BoundError, Error};
/// # let mut cpu = offline_cpu();
/// match this_cpu_bound().bind(new_task(), &mut cpu) {
///     Err(BoundError { why, of }) => {
///         assert_eq!(why, Error::CpuOffline);
///         drop(of); // the context
///     }
///     Ok(_) => unreachable!(),
/// }
/// ```
pub struct BoundError<T> {
    /// Why it was refused.
    pub why: Error,
    /// The context, or the handle: unchanged.
    pub of: T,
}

impl<T> From<BoundError<T>> for Error {
    fn from(refused: BoundError<T>) -> Self {
        refused.why
    }
}

// Prints the reason only, so what it carries need not be `Debug`.
impl<T> fmt::Debug for BoundError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundError").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for BoundError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl<T> core::error::Error for BoundError<T> {}
