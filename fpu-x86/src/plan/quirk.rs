//! Odd words of a machine, and what a plan leaves out because of them. No quirk loses registers, so none
//! is a refusal; a kernel logs them.

use core::fmt;

use crate::{
    components::Components, cpuid::Leaf, error::LeftOut, registers::ControlRegister,
    save_instruction::SaveInstruction,
};

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

impl SizeWord {
    const ALL: [Self; 3] = [Self::Standard, Self::Compacted, Self::Supported];
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

/// A word that a plan did not follow: see [`Plan::quirks`](crate::Plan::quirks).
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
        /// The word.
        word: SizeWord,
        /// Bytes by the components.
        computed: u32,
        /// Bytes by CPUID.
        reported: u32,
    },
    /// Components are not enabled.
    LeftOut {
        /// The components.
        components: Components,
        /// The reason.
        why: LeftOut,
    },
    /// An instruction that CPUID promises does not work. The plan uses the next best.
    Barred {
        /// The instruction.
        instruction: SaveInstruction,
        /// The reason.
        why: LeftOut,
    },
    /// CPUID promises a register that cannot be written. It is left alone, and what needs it is left out.
    LeftAlone {
        /// The register.
        register: ControlRegister,
        /// The reason.
        why: LeftOut,
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
                crate::error::Expected::Bits(3, 3)
            ),
            Self::Size { word, computed, reported } => {
                write!(f, "{word} says {reported} bytes, the components have {computed}")
            }
            Self::LeftOut { components, why } => write!(f, "left out {}: {why}", components.list()),
            Self::Barred { instruction, why } => write!(f, "{instruction:?} is not used: {why}"),
            Self::LeftAlone { register, why } => write!(f, "{register} is left alone: {why}"),
            Self::KeepsMxcsr => f.write_str("restores keep MXCSR where SSE state is absent"),
        }
    }
}

/// The quirks of one plan, without a list that could be too short: each place is what it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// The leaf as a whole.
    leaf: Option<Leaf>,
    /// By [`SizeWord`]: computed and reported.
    sizes: [Option<(u32, u32)>; 3],
    /// One place more than there are groups: PKRU, which is in none.
    left_out: [Option<(Components, LeftOut)>; Components::GROUPS.len() + 1],
    /// By [`SaveInstruction`].
    barred: [Option<LeftOut>; SaveInstruction::ALL.len()],
    /// IA32_XSS and IA32_XFD.
    left_alone: [Option<(ControlRegister, LeftOut)>; 2],
    keeps_mxcsr: bool,
}

impl Quirks {
    pub(crate) fn of(leaf: Option<Leaf>) -> Self {
        Self { leaf, ..Self::default() }
    }

    pub(crate) fn set_size(&mut self, word: SizeWord, computed: u32, reported: u32) {
        if let Some(size) = self.sizes.get_mut(word as usize) {
            *size = (computed != reported).then_some((computed, reported));
        }
    }

    /// What is left out was part of the plan, so it is in no other entry, and takes a group at least.
    pub(crate) fn leave_out(&mut self, components: Components, why: LeftOut) {
        if let Some(slot) = self.left_out.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some((components, why));
        }
    }

    pub(crate) fn bar(&mut self, instruction: SaveInstruction, why: LeftOut) {
        if let Some(slot) = self.barred.get_mut(instruction as usize) {
            *slot = Some(why);
        }
    }

    pub(crate) fn is_barred(&self, instruction: SaveInstruction) -> bool {
        self.barred.get(instruction as usize).is_some_and(Option::is_some)
    }

    pub(crate) fn leave_alone(&mut self, register: ControlRegister, why: LeftOut) {
        let at = usize::from(register == ControlRegister::Xfd);
        self.left_alone[at] = Some((register, why));
    }

    pub(crate) fn keep_mxcsr(&mut self) {
        self.keeps_mxcsr = true;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Quirk> + '_ {
        let leaf = self.leaf.map(|leaf| match leaf {
            Leaf::None { last } => Quirk::NoXsaveLeaf { last },
            Leaf::Empty { eax } => Quirk::EmptyXsaveLeaf { eax },
        });
        let sizes = SizeWord::ALL.iter().zip(&self.sizes).filter_map(|(word, size)| {
            size.map(|(computed, reported)| Quirk::Size { word: *word, computed, reported })
        });
        let left_out = self.left_out.iter().flatten();
        let left_out =
            left_out.map(|(components, why)| Quirk::LeftOut { components: *components, why: *why });
        let barred = SaveInstruction::ALL.into_iter().filter_map(|instruction| {
            let why = self.barred.get(instruction as usize).copied().flatten()?;
            Some(Quirk::Barred { instruction, why })
        });
        let left_alone = self.left_alone.iter().flatten();
        let left_alone =
            left_alone.map(|(register, why)| Quirk::LeftAlone { register: *register, why: *why });
        let mxcsr = self.keeps_mxcsr.then_some(Quirk::KeepsMxcsr);
        leaf.into_iter().chain(sizes).chain(left_out).chain(barred).chain(left_alone).chain(mxcsr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn everything_that_is_noted_is_listed_once_and_a_size_is_the_last_one_read() {
        let mut quirks = Quirks::default();
        quirks.set_size(SizeWord::Standard, 832, 0);
        quirks.set_size(SizeWord::Compacted, 832, 1);
        quirks.set_size(SizeWord::Supported, 832, 832);
        quirks.set_size(SizeWord::Standard, 832, 2);
        let why = LeftOut::Refused { register: ControlRegister::Xcr0, vector: 13 };
        let mut expect = Vec::from([
            Quirk::Size { word: SizeWord::Standard, computed: 832, reported: 2 },
            Quirk::Size { word: SizeWord::Compacted, computed: 832, reported: 1 },
        ]);
        // Every group, and PKRU.
        for components in Components::GROUPS.into_iter().chain([Components::PKRU]) {
            quirks.leave_out(components, why);
            expect.push(Quirk::LeftOut { components, why });
        }
        for instruction in SaveInstruction::ALL {
            quirks.bar(instruction, why);
            assert!(quirks.is_barred(instruction));
            expect.push(Quirk::Barred { instruction, why });
        }
        for register in [ControlRegister::Xss, ControlRegister::Xfd] {
            quirks.leave_alone(register, why);
            expect.push(Quirk::LeftAlone { register, why });
        }
        quirks.keep_mxcsr();
        expect.push(Quirk::KeepsMxcsr);
        assert_eq!(quirks.iter().collect::<Vec<_>>(), expect);
        quirks.set_size(SizeWord::Standard, 832, 832);
        assert_eq!(quirks.iter().next(), Some(expect[1]));
        quirks.leaf = Some(Leaf::Empty { eax: 1 });
        assert_eq!(quirks.iter().next(), Some(Quirk::EmptyXsaveLeaf { eax: 1 }));
    }
}
