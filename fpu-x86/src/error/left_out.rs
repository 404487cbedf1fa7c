//! Why components, instructions or registers are not part of a plan.

use core::fmt;

use super::measured::Measured;
use crate::{components::Components, registers::ControlRegister};

/// A register in which CPUID returns a word.
///
/// ```
/// assert_eq!(fpu_x86::CpuidRegister::Ecx.to_string(), "ECX");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuidRegister {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
}

impl fmt::Display for CpuidRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
        })
    }
}

/// The value that a word should have had.
///
/// ```
/// assert_eq!(fpu_x86::Expected::AtLeast(576).to_string(), "at least 0x240");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// Exactly this value.
    Exactly(u32),
    /// This value or more.
    AtLeast(u32),
    /// This value or less.
    AtMost(u32),
    /// The bits that are set in the first field, with the values that they have in the second.
    Bits(u16, u16),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => write!(f, "{value:#x}"),
            Self::AtLeast(value) => write!(f, "at least {value:#x}"),
            Self::AtMost(value) => write!(f, "at most {value:#x}"),
            Self::Bits(mask, value) => write!(f, "{value:#x} in the bits {mask:#x}"),
        }
    }
}

/// One word of CPUID's leaf 0xD that cannot be right.
///
/// ```
/// use fpu_x86::{CpuidRegister, Expected, WrongWord};
/// let register = CpuidRegister::Eax;
/// let word = WrongWord { subleaf: 2, register, found: 128, expected: Expected::Exactly(256) };
/// assert_eq!(word.to_string(), "CPUID(0xD,2).EAX is 0x80, should be 0x100");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongWord {
    /// The subleaf of leaf 0xD.
    pub subleaf: u32,
    /// The register.
    pub register: CpuidRegister,
    /// The value that the register holds.
    pub found: u32,
    /// The value that the register should hold.
    pub expected: Expected,
}

impl fmt::Display for WrongWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subleaf, register, found, expected } = self;
        write!(f, "CPUID(0xD,{subleaf}).{register} is {found:#x}, should be {expected}")
    }
}

/// Why components are not part of a plan although the CPU lists them and the kernel asked for them.
///
/// ```
/// use fpu_x86::{Components, LeftOut};
/// let why = LeftOut::Incomplete { missing: Components::TILEDATA };
/// assert_eq!(why.to_string(), "TILEDATA is missing");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftOut {
    /// CPUID describes one of them wrongly, or not at all.
    Word(WrongWord),
    /// The CPU lacks components without which these cannot be enabled.
    Incomplete {
        /// The components.
        missing: Components,
    },
    /// The components cannot be enabled together with others that are part of the plan (APX takes MPX's place).
    Excluded {
        /// The components.
        by: Components,
    },
    /// The CPU, or a hypervisor, refused to enable them.
    Refused {
        /// The register whose write was refused.
        register: ControlRegister,
        /// The vector of the exception.
        vector: u32,
    },
    /// A register that enables them did not keep their bits.
    NotKept {
        /// The register that did not keep the bits.
        register: ControlRegister,
    },
    /// The save instruction does not do with them what the layout says.
    Measured(Measured),
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => word.fmt(f),
            Self::Incomplete { missing } => {
                let verb = if missing.number().is_some() { "is" } else { "are" };
                write!(f, "{} {verb} missing", missing.list())
            }
            Self::Excluded { by } => write!(f, "{} excludes it", by.list()),
            Self::Refused { register, vector } => {
                write!(f, "{register} was refused with exception {vector}")
            }
            Self::NotKept { register } => write!(f, "{register} did not keep it"),
            Self::Measured(why) => write!(f, "measured: {why}"),
        }
    }
}
