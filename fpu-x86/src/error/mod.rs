//! Why a plan or a write to an image was refused, or something is not part of a plan.

mod left_out;
mod measured;

pub use left_out::{CpuidRegister, Expected, LeftOut, WrongWord};
pub use measured::Measured;

use core::fmt;

use crate::{components::Components, save_instruction::SaveInstruction};

/// Where MXCSR stands in every image.
const MXCSR: usize = 24;

/// Why no plan could be made. The CPU's state is as before.
///
/// ```
/// use fpu_x86::{Components, PlanError};
/// let why = PlanError::Uncovered { missing: Components::AVX };
/// assert_eq!(why.to_string(), "usable but not saved: AVX");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// The CPU has no FXSAVE or no SSE; no 64-bit CPU is like that.
    NoFxsave,
    /// In ring 0, with CR0.EM or CR0.TS set or CR4.OSFXSR clear: FXSAVE, which tells the MXCSR mask, would
    /// fault or tell nothing.
    FpuOff,
    /// The system has enabled what only XSAVE can save, and CPUID has no leaf 0xD to say where.
    NoXsaveLeaf,
    /// The system has enabled what only XSAVE can save, and CPUID's leaf 0xD does not even list x87 and SSE.
    EmptyXsaveLeaf,
    /// XCR0 is a value that XSETBV does not accept, or one is asked for: AVX without SSE, a part of AVX-512,
    /// of MPX or of AMX; APX with MPX.
    IllegalXcr0(Components),
    /// Components are enabled, or asked for, that CPUID does not list.
    NotEnumerated(Components),
    /// Components are enabled, or asked for, that this crate does not know or does not switch: neither
    /// what their initial state is nor whether a restore can refuse them.
    Unsupported(Components),
    /// Tasks can hold components that would not be saved.
    Uncovered {
        /// The components that would not be saved.
        missing: Components,
    },
    /// For a layout, CPUID lists a component, but describes it with size 0, or not as what it is: user state in
    /// XCR0, supervisor state in IA32_XSS.
    Undescribed(Components),
    /// The standard format has no place for components that IA32_XSS enables.
    SupervisorOnly(Components),
    /// A component's size is not that of its registers.
    WrongSize {
        /// The component.
        component: Components,
        /// The size CPUID gives it.
        size: u32,
    },
    /// A component's offset lies in the legacy area or header, in another component, or is not
    /// aligned as its description demands.
    Misplaced {
        /// The component.
        component: Components,
        /// The offset CPUID gives it.
        offset: u32,
    },
    /// A component is required, and cannot be had: it is one that the kernel [requires](crate::Plan::requiring),
    /// or one that the system of a plan for ring 3 has enabled.
    Required {
        /// The component, or several.
        component: Components,
        /// The reason. For a word of CPUID the reason names the word, its value and the value that it should have.
        why: LeftOut,
    },
    /// The system has enabled XSAVE, and what XCR0 holds was not given.
    UnknownXcr0,
    /// The CPU, or its operating system, does not offer this instruction; XSAVES is for ring 0 only.
    Unavailable(SaveInstruction),
    /// The instruction cannot save all that is enabled.
    TooNarrow {
        /// The components that would be lost.
        missing: Components,
    },
}

/// Flag names, or bit numbers where there is no name.
pub(crate) struct List(Components);

impl Components {
    pub(crate) fn list(self) -> List {
        List(self)
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for bit in (0..64).filter(|bit| self.0.bits() >> bit & 1 != 0) {
            let one = Components::from_bits_retain(1 << bit);
            match Components::all().iter_names().find(|(_, flag)| *flag == one) {
                Some((name, _)) => write!(f, "{separator}{name}")?,
                None => write!(f, "{separator}component {bit}")?,
            }
            separator = ", ";
        }
        Ok(())
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoFxsave => f.write_str("the CPU has no FXSAVE or no SSE"),
            Self::FpuOff => f.write_str("CR0 or CR4 keeps FXSAVE from working"),
            Self::NoXsaveLeaf => f.write_str("CPUID says XSAVE and has no leaf 0xD"),
            Self::EmptyXsaveLeaf => f.write_str("CPUID says XSAVE and leaf 0xD is empty"),
            Self::IllegalXcr0(bits) => {
                write!(f, "XCR0 {:#x} is no legal set of components", bits.bits())
            }
            Self::NotEnumerated(bits) => write!(f, "not in CPUID: {}", List(bits)),
            Self::Unsupported(bits) => write!(f, "not known here: {}", List(bits)),
            Self::Uncovered { missing } => write!(f, "usable but not saved: {}", List(missing)),
            Self::Undescribed(bits) => {
                write!(f, "CPUID describes wrongly or not at all: {}", List(bits))
            }
            Self::SupervisorOnly(bits) => {
                write!(f, "not part of the standard format: {}", List(bits))
            }
            Self::WrongSize { component, size } => {
                write!(f, "CPUID gives {} a size of {size} bytes", List(component))
            }
            Self::Misplaced { component, offset } => {
                write!(f, "CPUID places {} at offset {offset}", List(component))
            }
            Self::Required { component, why } => write!(f, "no {}: {why}", List(component)),
            Self::UnknownXcr0 => f.write_str("what XCR0 holds is not known"),
            Self::Unavailable(instruction) => {
                write!(f, "{instruction:?} is not available on this CPU")
            }
            Self::TooNarrow { missing } => {
                write!(f, "the instruction does not save {}", List(missing))
            }
        }
    }
}

/// Why a write to an image was refused; the image is unchanged.
///
/// ```
/// use fpu_x86::ImageError;
/// let why = ImageError::ReservedMxcsr { bits: 1 << 16 };
/// assert_eq!(why.to_string(), "MXCSR at offset 24 has bits 0x10000, which are reserved on this CPU");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// There is no register of that number.
    NoRegister {
        /// The component in which it would be.
        component: Components,
        /// The number.
        index: usize,
    },
    /// There are no such bytes.
    OutOfRange {
        /// The component.
        component: Components,
        /// The first byte asked for, from the beginning of the component.
        at: usize,
        /// The number of bytes.
        len: usize,
    },
    /// A component of the other image has another size, so that image is of another CPU.
    OtherSize {
        /// The component.
        component: Components,
        /// The component's size in the other image.
        size: usize,
    },
    /// The components are not part of the plan.
    NotManaged {
        /// The components, or none where no component has the number.
        component: Components,
    },
    /// The component has values that a restore refuses, or has an accessor of its own.
    NotWritable {
        /// The component.
        component: Components,
    },
    /// MXCSR bits that a restore refuses.
    ReservedMxcsr {
        /// The bits.
        bits: u32,
    },
    /// The component would have a value that the instructions which load it refuse.
    IllegalValue {
        /// The component.
        component: Components,
        /// The offset in the component of its first wrong field.
        at: usize,
        /// The byte there.
        value: u8,
    },
    /// The buffer is shorter than the image.
    TooShort {
        /// The bytes that the buffer must have.
        need: usize,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegister { component, index } => {
                write!(f, "{} has no register {index}", List(*component))
            }
            Self::OutOfRange { component, at, len } => {
                write!(f, "{} has no {len} bytes at its byte {at}", List(*component))
            }
            Self::OtherSize { component, size } => {
                write!(f, "the size of {} is {size} bytes, not as here", List(*component))
            }
            Self::NotManaged { component } if component.is_empty() => {
                f.write_str("no component is named")
            }
            Self::NotManaged { component } => {
                let bits = component.bits();
                write!(f, "components {bits:#x} are not part of the plan: {}", List(*component))
            }
            Self::NotWritable { component } if component.is_empty() => {
                f.write_str("no component to write is named")
            }
            Self::NotWritable { component } => {
                let bits = component.bits();
                write!(f, "components {bits:#x} cannot be written as bytes: {}", List(*component))
            }
            Self::ReservedMxcsr { bits } => {
                let has = "which are reserved on this CPU";
                write!(f, "MXCSR at offset {MXCSR} has bits {bits:#x}, {has}")
            }
            Self::IllegalValue { component, at, value } => {
                write!(f, "illegal value of {} at its byte {at}: {value:#x}", List(*component))
            }
            Self::TooShort { need } => write!(f, "the buffer must have {need} bytes"),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for PlanError {}
#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl core::error::Error for ImageError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn unnamed_bits_are_named_by_number() {
        let bits = Components::from_bits_retain(1 << 61) | Components::TILEDATA | Components::LWP;
        assert_eq!(
            PlanError::Unsupported(bits).to_string(),
            "not known here: TILEDATA, component 61, LWP"
        );
    }

    #[test]
    fn no_component_at_all_is_not_called_a_number() {
        let component = Components::empty();
        let said = [ImageError::NotManaged { component }, ImageError::NotWritable { component }]
            .map(|why| why.to_string());
        assert_eq!(said, ["no component is named", "no component to write is named",]);
        let component = Components::LWP;
        assert_eq!(
            ImageError::NotManaged { component }.to_string(),
            "components 0x4000000000000000 are not part of the plan: LWP"
        );
    }
}
