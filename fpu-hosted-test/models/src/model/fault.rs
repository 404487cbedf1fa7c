//! The seeded faults: one step taken away in the protocol, in a backend, or in a kernel.

use std::{cell::Cell, thread_local};

/// A backend that breaks one of its duties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // described, one by one, in the table of docs/faults.md
pub enum Backend {
    SaveOmitsComponent,
    SaveClobbers,
    RestoreLeavesResidue,
    RestoreHidesFailure,
    FailedRestoreWritesImage,
    InitialKeepsOldBytes,
    KernelDefaultsMissing,
    ChildCopyOmits,
    ReplaceOmitsComponent,
    CopyLoadsOldBytes,
    CompareOmitsComponent,
    UnchangedGuesses,
}

/// A kernel that forgets one of its duties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // as above
pub enum Embedder {
    NoPrepare,
    PreparesNext,
    HandsOverBeforePrepare,
    RelaxedHandOver,
    NoReturn,
    IgnoresReturnError,
    ClobbersAfterReturn,
    StaleToken,
    InterruptsOnInSwitch,
    NmiSaidToBeIrq,
    KernelUsesRegisters,
    SectionToldNobody,
    SectionToldOther,
    WordsZeroed,
    SharedCpuNumber,
    OfflineNotCalled,
    ResumeNotCalled,
    StoppedWhileRunning,
    VectorCodeAfterSteps,
    CommitsWithoutRestore,
    CommitsAfterFailure,
    SavesLate,
    SwitchForgetsSave,
    SwitchForgetsCommit,
    SwitchForgetsRestore,
    SwitchSavesLate,
    SectionForgetsSave,
    GuestForgetsHost,
    GuestForgetsSave,
    RawForgetsCommit,
    RecyclesContext,
    NoReset,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    /// In `fpu-core`, of which this build has a copy with the edits for it.
    Protocol(&'static str),
    /// In the models' backend.
    Backend(Backend),
    /// In the models' kernel.
    Embedder(Embedder),
}

thread_local! {
    static NOW: Cell<Option<Seeded>> = const { Cell::new(None) };
}

/// Switches one fault on (`None`: all off), for this thread, so that tests run side by side.
pub fn seed(fault: Option<Seeded>) {
    if let Some(Seeded::Protocol(name)) = fault {
        assert_eq!(fpu_core_loom::FAULT, name, "that fault is not in this build");
    }
    NOW.set(fault);
}
pub(super) fn broken(fault: Backend) -> bool {
    NOW.get() == Some(Seeded::Backend(fault))
}
pub(super) fn forgets(fault: Embedder) -> bool {
    NOW.get() == Some(Seeded::Embedder(fault))
}
