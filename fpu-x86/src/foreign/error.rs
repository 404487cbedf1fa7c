//! Why foreign bytes were refused.

use core::fmt;

use crate::{
    components::Components,
    fields::{MXCSR, XCOMP_BV, XSTATE_BV},
};

/// Why foreign bytes were refused. Nothing has been changed.
///
/// ```
/// use fpu_x86::ForeignError;
/// let why = ForeignError::ReservedHeader { offset: 531 };
/// assert_eq!(why.to_string(), "reserved header byte at offset 531 is not zero");
/// assert_eq!((why.field(), why.offset()), ("reserved", 531));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForeignError {
    /// The bytes end within the legacy area, the header, or a component that is present.
    Truncated {
        /// How many there are.
        len: usize,
        /// How many there would have to be.
        need: usize,
    },
    /// More bytes than the standard format has on this CPU, or than the private buffer takes.
    Oversized {
        /// How many there are.
        len: usize,
        /// How many there may be.
        most: usize,
    },
    /// XSTATE_BV has supervisor components.
    Supervisor {
        /// Which bits.
        bits: u64,
    },
    /// XSTATE_BV has components that this crate does not know.
    Unknown {
        /// Which bits.
        bits: u64,
    },
    /// XSTATE_BV has user components that the plan does not have.
    NotEnabled {
        /// Which bits.
        bits: u64,
    },
    /// XSTATE_BV has components for which the task would need permission.
    NotPermitted {
        /// Which bits.
        bits: u64,
    },
    /// XCOMP_BV is not zero: the format is not the standard one.
    NotStandard {
        /// Its value.
        xcomp_bv: u64,
    },
    /// A byte of the header that has to be zero is not.
    ReservedHeader {
        /// Where.
        offset: usize,
    },
    /// MXCSR has bits that this CPU does not have.
    ReservedMxcsr {
        /// Which bits.
        bits: u32,
    },
    /// A component has a value that the instructions which load it refuse.
    IllegalValue {
        /// Which component.
        component: Components,
        /// Where in the image its first wrong field is.
        offset: usize,
    },
}

impl ForeignError {
    /// The name of the field that is wrong, as in the SDM.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Truncated { .. } | Self::Oversized { .. } => "length",
            Self::Supervisor { .. }
            | Self::Unknown { .. }
            | Self::NotEnabled { .. }
            | Self::NotPermitted { .. } => "XSTATE_BV",
            Self::NotStandard { .. } => "XCOMP_BV",
            Self::ReservedHeader { .. } => "reserved",
            Self::ReservedMxcsr { .. } => "MXCSR",
            Self::IllegalValue { .. } => "component",
        }
    }

    /// Where in the bytes it is; for a wrong length, where they end.
    #[must_use]
    pub const fn offset(&self) -> usize {
        match *self {
            Self::Truncated { len, .. } | Self::Oversized { len, .. } => len,
            Self::Supervisor { .. }
            | Self::Unknown { .. }
            | Self::NotEnabled { .. }
            | Self::NotPermitted { .. } => XSTATE_BV,
            Self::NotStandard { .. } => XCOMP_BV,
            Self::ReservedMxcsr { .. } => MXCSR,
            Self::ReservedHeader { offset } | Self::IllegalValue { offset, .. } => offset,
        }
    }
}

impl fmt::Display for ForeignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { len, need } => write!(f, "{len} bytes where {need} are needed"),
            Self::Oversized { len, most } => write!(f, "{len} bytes, at most {most} are taken"),
            Self::Supervisor { bits } => {
                write!(f, "XSTATE_BV has supervisor components {bits:#x}")
            }
            Self::Unknown { bits } => write!(f, "XSTATE_BV has unknown components {bits:#x}"),
            Self::NotEnabled { bits } => {
                write!(f, "XSTATE_BV has components {bits:#x}, which are not enabled")
            }
            Self::NotPermitted { bits } => {
                write!(f, "XSTATE_BV has components {bits:#x}, which need a permission")
            }
            Self::NotStandard { xcomp_bv } => {
                write!(f, "XCOMP_BV is {xcomp_bv:#x}: not the standard format")
            }
            Self::ReservedHeader { offset } => {
                write!(f, "reserved header byte at offset {offset} is not zero")
            }
            Self::ReservedMxcsr { bits } => {
                write!(f, "MXCSR bits {bits:#x} are reserved on this CPU")
            }
            Self::IllegalValue { component, offset } => {
                write!(f, "illegal value of component {:#x} at offset {offset}", component.bits())
            }
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for ForeignError {}
