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
/// let why = ForeignError::ReservedHeader { offset: 531, value: 7 };
/// assert_eq!(why.to_string(), "reserved header byte at offset 531 is 0x7, not zero");
/// assert_eq!((why.field(), why.offset(), why.value()), ("reserved", 531, 7));
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
    /// Of something that is set as a whole, more or fewer bytes than it has.
    WrongLength {
        /// How many there are.
        len: usize,
        /// How many there have to be.
        need: usize,
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
    /// XSTATE_BV has user components that the plan does not have, and their values are not the initial ones, or
    /// cannot be seen.
    NotEnabled {
        /// Which bits.
        bits: u64,
    },
    /// XSTATE_BV has components for which the task would need permission.
    NotPermitted {
        /// Which bits.
        bits: u64,
    },
    /// XSTATE_BV has components for which XCOMP_BV has no place.
    NotInFormat {
        /// Which bits.
        bits: u64,
    },
    /// XCOMP_BV is not zero: the format is not the standard one. Or the compacted one is asked for, and there is a
    /// component in it whose size is not known.
    NotStandard {
        /// Its value.
        xcomp_bv: u64,
    },
    /// A byte of the header that has to be zero is not.
    ReservedHeader {
        /// Where.
        offset: usize,
        /// Its value.
        value: u8,
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
        /// The byte there.
        value: u8,
    },
    /// The bytes are another machine's by the XCR0 that they name, and neither that nor their length tells its layout.
    OtherLayout {
        /// Where XCR0 stands.
        offset: usize,
        /// Its value.
        xcr0: Components,
    },
    /// A component has another size than here.
    OtherSize {
        /// Which component.
        component: Components,
        /// Where it lies.
        offset: usize,
        /// Its size there.
        size: usize,
    },
    /// A field of a layout note is not possible.
    LayoutNote {
        /// Where in the note.
        offset: usize,
        /// Its value.
        value: u32,
    },
}

impl ForeignError {
    /// The name of the field that is wrong, as in the SDM.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Truncated { .. } | Self::WrongLength { .. } => "length",
            Self::Supervisor { .. }
            | Self::Unknown { .. }
            | Self::NotEnabled { .. }
            | Self::NotPermitted { .. }
            | Self::NotInFormat { .. } => "XSTATE_BV",
            Self::NotStandard { .. } => "XCOMP_BV",
            Self::ReservedHeader { .. } => "reserved",
            Self::ReservedMxcsr { .. } => "MXCSR",
            Self::IllegalValue { .. } => "component",
            Self::OtherLayout { .. } => "XCR0",
            Self::OtherSize { .. } => "size",
            Self::LayoutNote { .. } => "layout note",
        }
    }

    /// Where in the bytes it is; for a wrong length, where they end.
    #[must_use]
    pub const fn offset(&self) -> usize {
        match *self {
            Self::Truncated { len, .. } | Self::WrongLength { len, .. } => len,
            Self::Supervisor { .. }
            | Self::Unknown { .. }
            | Self::NotEnabled { .. }
            | Self::NotPermitted { .. }
            | Self::NotInFormat { .. } => XSTATE_BV,
            Self::NotStandard { .. } => XCOMP_BV,
            Self::ReservedMxcsr { .. } => MXCSR,
            Self::ReservedHeader { offset, .. }
            | Self::IllegalValue { offset, .. }
            | Self::OtherLayout { offset, .. }
            | Self::OtherSize { offset, .. }
            | Self::LayoutNote { offset, .. } => offset,
        }
    }

    /// What is wrong there: a length, the bits of XSTATE_BV or of MXCSR that are too many, or the field's value.
    #[must_use]
    pub const fn value(&self) -> u64 {
        match *self {
            Self::Truncated { len, .. } | Self::WrongLength { len, .. } => len as u64,
            Self::Supervisor { bits }
            | Self::Unknown { bits }
            | Self::NotEnabled { bits }
            | Self::NotPermitted { bits }
            | Self::NotInFormat { bits } => bits,
            Self::NotStandard { xcomp_bv } => xcomp_bv,
            Self::ReservedMxcsr { bits } => bits as u64,
            Self::ReservedHeader { value, .. } | Self::IllegalValue { value, .. } => value as u64,
            Self::OtherLayout { xcr0, .. } => xcr0.bits(),
            Self::OtherSize { size, .. } => size as u64,
            Self::LayoutNote { value, .. } => value as u64,
        }
    }
}

impl fmt::Display for ForeignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |bits| Components::from_bits_retain(bits).list();
        match *self {
            Self::Truncated { len, need } => {
                write!(f, "{len} bytes where {need} are needed: too short a length")
            }
            Self::WrongLength { len, need } => {
                write!(f, "{len} bytes, not {need}: a wrong length")
            }
            Self::Supervisor { bits } => {
                write!(
                    f,
                    "XSTATE_BV at offset {XSTATE_BV} has supervisor components {bits:#x}: {}",
                    list(bits)
                )
            }
            Self::Unknown { bits } => {
                write!(
                    f,
                    "XSTATE_BV at offset {XSTATE_BV} has unknown components {bits:#x}: {}",
                    list(bits)
                )
            }
            Self::NotEnabled { bits } => {
                let names = list(bits);
                write!(f, "XSTATE_BV at offset {XSTATE_BV} has components {bits:#x}, which are not enabled: {names}")
            }
            Self::NotPermitted { bits } => {
                let names = list(bits);
                write!(f, "XSTATE_BV at offset {XSTATE_BV} has components {bits:#x}, which need a permission: {names}")
            }
            Self::NotInFormat { bits } => {
                let names = list(bits);
                write!(f, "XSTATE_BV at offset {XSTATE_BV} has components {bits:#x}, which XCOMP_BV lacks: {names}")
            }
            Self::NotStandard { xcomp_bv } => {
                write!(f, "XCOMP_BV at offset {XCOMP_BV} is {xcomp_bv:#x}: not the standard format")
            }
            Self::ReservedHeader { offset, value } => {
                write!(f, "reserved header byte at offset {offset} is {value:#x}, not zero")
            }
            Self::ReservedMxcsr { bits } => {
                let has = "which are reserved on this CPU";
                write!(f, "MXCSR at offset {MXCSR} has bits {bits:#x}, {has}")
            }
            Self::IllegalValue { component, offset, value } => {
                let name = component.list();
                write!(f, "component {name} at offset {offset} has an illegal value: {value:#x}")
            }
            Self::OtherLayout { offset, xcr0 } => {
                let bits = xcr0.bits();
                write!(f, "XCR0 at offset {offset} is {bits:#x}: a machine of unknown layout")
            }
            Self::OtherSize { component, offset, size } => {
                let name = component.list();
                write!(f, "the size of {name} at offset {offset} is {size} bytes, not as here")
            }
            Self::LayoutNote { offset, value } => {
                write!(f, "the layout note's field at offset {offset} is {value:#x}")
            }
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for ForeignError {}
