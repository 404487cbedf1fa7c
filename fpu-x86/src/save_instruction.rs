//! The instruction that saves, its restore, and the format of its images.

/// The instruction that saves; its restore and its initial image belong to it. Better ones compare
/// greater.
///
/// ```
/// use fpu_x86::{Format, SaveInstruction};
/// assert!(SaveInstruction::Xsaves > SaveInstruction::Xsavec && SaveInstruction::Xsavec > SaveInstruction::Xsaveopt);
/// assert_eq!(SaveInstruction::Xsavec.format(), Format::Compacted);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[doc(alias = "Rung")]
pub enum SaveInstruction {
    /// FXSAVE64: x87 and SSE only, always all of it.
    Fxsave,
    /// XSAVE64: every component in every save.
    Xsave,
    /// XSAVEOPT64: leaves out what is initial, and what has not changed since the restore from the
    /// same address.
    Xsaveopt,
    /// XSAVEC64: leaves out what is initial, in an area without gaps.
    Xsavec,
    /// XSAVES64, in ring 0 only: as XSAVEC64, and also leaves out what has not changed since the
    /// restore from the same address; saves supervisor components.
    Xsaves,
}

impl SaveInstruction {
    /// All instructions, the best first.
    pub const ALL: [Self; 5] =
        [Self::Xsaves, Self::Xsavec, Self::Xsaveopt, Self::Xsave, Self::Fxsave];

    /// The format of the instruction's images.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Self::Fxsave => Format::Legacy,
            Self::Xsave | Self::Xsaveopt => Format::Standard,
            Self::Xsavec | Self::Xsaves => Format::Compacted,
        }
    }
}

/// The ways of a restore among which the switching path chooses, most frequent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RestoreBy {
    Xrstor,
    Xrstors,
    Fxrstor,
    /// By XRSTOR or XRSTORS, unless registers and image are both initial.
    UnlessInitial,
    /// By any of the others, after the x87 pointers and MXCSR have been overwritten.
    Scrubbing,
}

/// How an image is laid out (SDM vol. 1, 10.5 and 13.4).
///
/// ```
/// assert_ne!(fpu_x86::Format::Standard, fpu_x86::Format::Compacted);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The 512 bytes of FXSAVE, without a header.
    Legacy,
    /// With a header; each component at its fixed offset.
    Standard,
    /// With a header; components packed.
    Compacted,
}
