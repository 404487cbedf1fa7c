//! What a plan found odd in a machine and does without: nothing that loses registers, so nothing to refuse
//! it for, but something that a kernel wants to log.

use core::fmt;

use crate::{Components, ControlRegister, Measured, Rung};

/// A register that CPUID answers in.
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

/// What a word should have been.
///
/// ```
/// assert_eq!(fpu_x86::Expected::AtLeast(576).to_string(), "at least 0x240");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// This.
    Exactly(u32),
    /// This or more.
    AtLeast(u32),
    /// This or less.
    AtMost(u32),
    /// A multiple of this.
    MultipleOf(u32),
    /// The bit in the first with the value that it has in the second.
    Bits(u32, u32),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => write!(f, "{value:#x}"),
            Self::AtLeast(value) => write!(f, "at least {value:#x}"),
            Self::AtMost(value) => write!(f, "at most {value:#x}"),
            Self::MultipleOf(value) => write!(f, "a multiple of {value:#x}"),
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
    /// What it holds.
    pub found: u32,
    /// What it should hold.
    pub expected: Expected,
}

impl fmt::Display for WrongWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subleaf, register, found, expected } = self;
        write!(f, "CPUID(0xD,{subleaf}).{register} is {found:#x}, should be {expected}")
    }
}

/// Why components are not part of a plan although the CPU lists them and they were asked for.
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
    /// Others, without which these cannot be enabled, are not there.
    Incomplete {
        /// Those.
        missing: Components,
    },
    /// They cannot be enabled together with others that are part of the plan (APX takes MPX's place).
    Excluded {
        /// Those.
        by: Components,
    },
    /// The CPU, or a hypervisor, refused to enable them.
    Refused {
        /// By which register.
        register: ControlRegister,
        /// With which exception.
        vector: u32,
    },
    /// A register that enables them did not keep their bits.
    NotKept {
        /// Which register.
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

/// A word of CPUID that gives the size of an area. A plan adds up its components instead.
///
/// ```
/// assert_eq!(fpu_x86::SizeWord::Compacted.to_string(), "CPUID(0xD,1).EBX");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeWord {
    /// CPUID(0xD,0).EBX: the standard format, of what XCR0 enables.
    Standard,
    /// CPUID(0xD,1).EBX: the compacted format, of what XCR0 and IA32_XSS enable.
    Compacted,
    /// CPUID(0xD,0).ECX: the standard format, of all that XCR0 can enable.
    Supported,
}

impl fmt::Display for SizeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standard => "CPUID(0xD,0).EBX",
            Self::Compacted => "CPUID(0xD,1).EBX",
            Self::Supported => "CPUID(0xD,0).ECX",
        })
    }
}

/// Something that a plan overlooked: see [`Plan::quirks`](crate::Plan::quirks).
///
/// ```
/// use fpu_x86::{Quirk, SizeWord};
/// let quirk = Quirk::Size { word: SizeWord::Supported, computed: 2696, reported: 11008 };
/// assert_eq!(quirk.to_string(), "CPUID(0xD,0).ECX says 11008 bytes, the components have 2696");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quirk {
    /// CPUID.1:ECX says XSAVE, and the leaves end before 0xD. Without their words only FXSAVE is used.
    NoXsaveLeaf {
        /// CPUID.0:EAX.
        last: u32,
    },
    /// CPUID.1:ECX says XSAVE, and CPUID(0xD,0).EAX does not list x87 and SSE. Only FXSAVE is used.
    EmptyXsaveLeaf {
        /// CPUID(0xD,0).EAX.
        eax: u32,
    },
    /// A size is not the sum of the components. Where it is larger, areas have the larger size too.
    Size {
        /// Which size.
        word: SizeWord,
        /// Bytes by the components.
        computed: u32,
        /// Bytes by CPUID.
        reported: u32,
    },
    /// Components are not enabled.
    LeftOut {
        /// Which.
        components: Components,
        /// Why.
        why: LeftOut,
    },
    /// An instruction that CPUID promises does not work; the next best is used.
    Barred {
        /// Which.
        rung: Rung,
        /// Why not.
        why: LeftOut,
    },
    /// CPUID promises a register that cannot be written. It is left alone, and what needs it is left out.
    LeftAlone {
        /// Which.
        register: ControlRegister,
        /// The exception.
        vector: u32,
    },
    /// Restores leave MXCSR where the image has no SSE state. The plan [scrubs](crate::Plan::scrubbing).
    KeepsMxcsr,
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoXsaveLeaf { last } => {
                write!(f, "CPUID.1:ECX says XSAVE, the last leaf is {last:#x}: FXSAVE is used")
            }
            Self::EmptyXsaveLeaf { eax } => write!(
                f,
                "CPUID(0xD,0).EAX is {eax:#x}, should be {}: FXSAVE is used",
                Expected::Bits(3, 3)
            ),
            Self::Size { word, computed, reported } => {
                write!(f, "{word} says {reported} bytes, the components have {computed}")
            }
            Self::LeftOut { components, why } => write!(f, "left out {}: {why}", components.list()),
            Self::Barred { rung, why } => write!(f, "{rung:?} is not used: {why}"),
            Self::LeftAlone { register, vector } => {
                write!(f, "{register} is left alone: writing it raised exception {vector}")
            }
            Self::KeepsMxcsr => f.write_str("restores keep MXCSR where SSE state is absent"),
        }
    }
}

/// The quirks of one plan. Each can occur once for each of the groups, rungs, registers and sizes that there
/// are, of which there are fewer than places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quirks([Option<Quirk>; Self::MOST]);

impl Quirks {
    pub(crate) const MOST: usize = 24;

    /// Adds one that is not there yet. A size replaces what was said of it before.
    pub(crate) fn add(&mut self, quirk: Quirk) {
        let same = |old: &Quirk| match (old, &quirk) {
            (Quirk::Size { word: old, .. }, Quirk::Size { word, .. }) => old == word,
            (old, new) => old == new,
        };
        let there = self.0.iter().position(|slot| slot.as_ref().is_some_and(same));
        let place = there.or_else(|| self.0.iter().position(Option::is_none));
        debug_assert!(place.is_some(), "more quirks than can be");
        if let Some(slot) = place.and_then(|place| self.0.get_mut(place)) {
            *slot = Some(quirk);
        }
    }

    /// Takes back what was said of a size.
    pub(crate) fn forget_size(&mut self, word: SizeWord) {
        for slot in &mut self.0 {
            if matches!(slot, Some(Quirk::Size { word: old, .. }) if *old == word) {
                *slot = None;
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Quirk> + '_ {
        self.0.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_quirk_is_listed_once_and_a_size_is_the_last_one_read() {
        let mut quirks = Quirks::default();
        let size = |word, reported| Quirk::Size { word, computed: 832, reported };
        for quirk in [
            Quirk::KeepsMxcsr,
            size(SizeWord::Standard, 0),
            Quirk::KeepsMxcsr,
            size(SizeWord::Compacted, 1),
            size(SizeWord::Standard, 2),
        ] {
            quirks.add(quirk);
        }
        let listed: Vec<Quirk> = quirks.iter().collect();
        let expect = [Quirk::KeepsMxcsr, size(SizeWord::Standard, 2), size(SizeWord::Compacted, 1)];
        assert_eq!(listed, expect);
        quirks.forget_size(SizeWord::Standard);
        assert_eq!(quirks.iter().count(), 2);
        quirks.add(Quirk::EmptyXsaveLeaf { eax: 0 });
        assert_eq!(quirks.iter().count(), 3, "the place is free again");
    }

    /// Every kind of quirk for everything that it can be about fits.
    #[test]
    fn there_is_room_for_all() {
        let leaf = 1;
        let sizes = 3;
        let groups = Components::GROUPS.len() + 1; // and PKRU
        let rungs = Rung::ALL.len();
        let registers = 2; // IA32_XSS, IA32_XFD
        let mxcsr = 1;
        assert!(leaf + sizes + groups + rungs + registers + mxcsr <= Quirks::MOST);
    }
}
