//! The faults that `--break` seeds into the demo's kernel.

/// A mistake that kernels make, seeded into the demo's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// See [`Fault::about`] for each.
    SkipRestore,
    /// A save left out.
    SkipSave,
    /// A commit left out.
    SkipCommit,
    /// Residency by owner only.
    StaleClaim,
    /// The claim outlives the write.
    LostWrite,
    /// The claim outlives the section.
    SkipInvalidate,
    /// Another's image.
    WrongTask,
    /// No switch-out before migration.
    NoHandover,
    /// The claim outlives the task.
    InheritClaim,
    /// Kernel code uses a register.
    Clobber,
}

impl Fault {
    /// All, in the order of `--help`.
    pub const ALL: [Self; 10] = [
        Self::SkipRestore,
        Self::SkipSave,
        Self::SkipCommit,
        Self::StaleClaim,
        Self::LostWrite,
        Self::SkipInvalidate,
        Self::WrongTask,
        Self::NoHandover,
        Self::InheritClaim,
        Self::Clobber,
    ];

    /// The fault's name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SkipRestore => "skip-restore",
            Self::SkipSave => "skip-save",
            Self::SkipCommit => "skip-commit",
            Self::StaleClaim => "stale-claim",
            Self::LostWrite => "lost-write",
            Self::SkipInvalidate => "skip-invalidate",
            Self::WrongTask => "wrong-task",
            Self::NoHandover => "no-handover",
            Self::InheritClaim => "inherit-claim",
            Self::Clobber => "clobber",
        }
    }

    /// The kernel's behaviour with the fault, in one line.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::SkipRestore => "enter user mode without the restore that is due",
            Self::SkipSave => "switch out without the save, but say that memory is valid",
            Self::SkipCommit => "restore, but do not say that the registers are the only copy now",
            Self::StaleClaim => "skip a restore because this CPU loaded the task last (not: still)",
            Self::LostWrite => "a tracer writes memory, the registers keep their claim",
            Self::SkipInvalidate => "a kernel FPU section leaves the claim of the task before it",
            Self::WrongTask => "restore from the area of another task",
            Self::NoHandover => "migrate without switching out, and override the refusal",
            Self::InheritClaim => "a new task in reused memory keeps the dead task's word",
            Self::Clobber => "the idle loop uses xmm3",
        }
    }

    /// The fault of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }
}
