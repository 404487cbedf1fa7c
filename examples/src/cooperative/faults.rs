//! The faults that `--break` seeds into the scheduler.

/// A step that is left out, or one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// See [`Fault::about`] for each.
    SkipSave,
    /// The commit of the save.
    SkipSaved,
    /// The restore.
    SkipRestore,
    /// The commit of the restore.
    SkipLive,
    /// Code before the save.
    ComputesFirst,
    /// The save before a section.
    SectionUnsaved,
}

impl Fault {
    /// All, in the order of `--help`.
    pub const ALL: [Self; 6] = [
        Self::SkipSave,
        Self::SkipSaved,
        Self::SkipRestore,
        Self::SkipLive,
        Self::ComputesFirst,
        Self::SectionUnsaved,
    ];

    /// The fault's name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SkipSave => "skip-save",
            Self::SkipSaved => "skip-saved",
            Self::SkipRestore => "skip-restore",
            Self::SkipLive => "skip-live",
            Self::ComputesFirst => "computes-first",
            Self::SectionUnsaved => "section-unsaved",
        }
    }

    /// The scheduler's behaviour with the fault, in one line.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::SkipSave => "switch without the save, but say that memory is valid",
            Self::SkipSaved => "save, but do not say that memory is valid",
            Self::SkipRestore => "switch without the restore, but say that it is done",
            Self::SkipLive => "restore, but do not say that the registers are the only copy",
            Self::ComputesFirst => "vector code runs between the task and its save",
            Self::SectionUnsaved => "a section begins without the save, but says that it is done",
        }
    }

    /// The fault of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Its bit in [`Frame::leaves_out`](super::switch::Frame::leaves_out).
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self as u32
    }
}
