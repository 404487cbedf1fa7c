//! Why a context cannot be trapped, and why a trap is not its first use.

use core::fmt;

use crate::error::Error;

/// The backend cannot trap the use of all of its registers. The context, untouched.
///
/// ```
/// use fpu_core::trap::NotTrapped;
/// let why = NotTrapped { context: () };
/// assert_eq!(why.to_string(), "the use of some registers cannot be trapped here");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NotTrapped<T> {
    /// The context.
    pub context: T,
}

impl<T> fmt::Debug for NotTrapped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotTrapped")
    }
}

impl<T> fmt::Display for NotTrapped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the use of some registers cannot be trapped here")
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl<T> core::error::Error for NotTrapped<T> {}

/// Why a trap was not answered.
///
/// ```
/// use fpu_core::{trap::TrapError, Error};
/// assert_eq!(TrapError::NotOurs.to_string(), "the trap is not armed for this context");
/// assert_eq!(TrapError::Refused(Error::Busy).to_string(), "a section or session is open on this CPU");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrapError {
    /// The context was used before, or the trap is not armed for it: the fault has another reason (on x86: IA32_XFD, or
    /// code that set CR0.TS).
    NotOurs,
    /// The trap is armed for this context, and the context cannot be loaded. [`Error::Busy`]: kernel code in a section that
    /// was told of another task, or of none, used the registers. The task must not run on.
    Refused(Error),
}

impl fmt::Display for TrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOurs => f.write_str("the trap is not armed for this context"),
            Self::Refused(why) => why.fmt(f),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for TrapError {}
