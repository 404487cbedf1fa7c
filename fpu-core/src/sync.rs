//! The only file that names atomics: the real ones, or the model checker's.
//!
//! Built with `--cfg fpu_loom` (our own name, so that a user's `--cfg loom` does not change this
//! crate) the words become loom's, and the seam below lets the models switch off one step of the
//! protocol at run time and run an interrupt at every access. `--cfg fpu_seeded` has the first half of that
//! seam and the real words, for the explorer. In every other build [`fault`] is a constant `false`, and
//! [`step`] is empty.

#[cfg(not(fpu_loom))]
pub(crate) use core::sync::atomic::{compiler_fence, AtomicU64, Ordering};
#[cfg(fpu_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};

/// Counts events, and decides nothing: the real one in the models too.
pub(crate) use core::sync::atomic::AtomicU64 as Count;

/// Loom explores one interrupt order at a time and does not model the compiler; see docs/theory.md.
#[cfg(fpu_loom)]
pub(crate) fn compiler_fence(_: Ordering) {}

/// One step of the protocol that a model can take away, to show that it would be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(any(fpu_loom, fpu_seeded)), allow(dead_code))]
#[allow(missing_docs)] // described, one by one, in the table of docs/faults.md
pub enum Fault {
    PrepareSkipsSave,
    PrepareForgetsMemory,
    PrepareMarksBeforeSave,
    PrepareMarkRelaxed,
    PrepareIgnoresElsewhere,
    ReturnLoadRelaxed,
    ReturnIgnoresElsewhere,
    ReturnTrustsStale,
    ReturnSkipsMark,
    ReturnClaimsBeforeRestore,
    ReturnReusesStamp,
    ReturnClaimsAfterFailure,
    ReturnKeepsCpuStamp,
    ReturnMovesCpuLate,
    SectionSkipsSave,
    SectionMarksBeforeSave,
    SectionMarkRelaxed,
    SectionKeepsStamp,
    SectionSkipsGate,
    SectionNests,
    SectionRefusedStaysClosed,
    CloseReadsBeforeGate,
    CloseKeepsWordOpen,
    PersistentTrustsStale,
    PersistentSkipsSave,
    PersistentKeepsStamp,
    PersistentSkipsMark,
    PersistentMarkRelaxed,
    PlanMarkRelaxed,
    RawMarkRelaxed,
    SessionMarkRelaxed,
    WriteKeepsClaim,
    WriteKeepsOtherClaim,
    WriteSkipsSave,
    SessionSkipsGate,
    SessionReloadKeepsStamp,
    SessionReturnSkipsMark,
    StoppedWriteKeepsClaim,
    StoppedIgnoresLive,
    OnlineResetsCounter,
    OfflineKeepsOpen,
    OfflineReadsBeforeGate,
    OfflineTrustsForgotten,
    ResumeKeepsStamp,
    ForkSkipsSave,
    ForkCopiesClaim,
    ForkKeepsChildClaim,
    NewSkipsInitial,
    ResetKeepsClaim,
    CounterWraps,
    VerifySkipsSave,
    VerifyKeepsClaim,
    IdleKeepsClaim,
    IdleReopensEarly,
}

/// True if the models have switched this step off; constant `false` in every other build.
#[cfg(not(any(fpu_loom, fpu_seeded)))]
#[inline(always)]
pub(crate) const fn fault(_: Fault) -> bool {
    false
}
/// A point between two accesses at which an interrupt can be injected.
#[cfg(not(fpu_loom))]
#[inline(always)]
pub(crate) const fn step() {}

#[cfg(any(fpu_loom, fpu_seeded))]
pub(crate) use seam::fault;
#[cfg(fpu_loom)]
pub(crate) use seam::step;

/// What the models, and the explorer, reach in with.
#[cfg(any(fpu_loom, fpu_seeded))]
pub mod seam {
    pub use super::Fault;
    #[cfg(fpu_loom)]
    use std::{boxed::Box, cell::RefCell, rc::Rc};
    use std::{cell::Cell, thread_local};

    #[cfg(fpu_loom)]
    type Hook = Rc<dyn Fn()>;
    thread_local! {
        static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    }
    #[cfg(fpu_loom)]
    thread_local! {
        static STEP: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Switches one step off (`None`: all on). Of this thread only, so that tests run side by side.
    pub fn set_fault(fault: Option<Fault>) {
        FAULT.with(|f| f.set(fault));
    }
    /// Runs `hook` at every access to a task's word (`None`: nothing).
    #[cfg(fpu_loom)]
    pub fn set_step(hook: Option<Box<dyn Fn()>>) {
        STEP.with(|s| *s.borrow_mut() = hook.map(Rc::from));
    }
    pub(crate) fn fault(fault: Fault) -> bool {
        FAULT.with(|f| f.get() == Some(fault))
    }
    #[cfg(fpu_loom)]
    pub(crate) fn step() {
        let hook = STEP.with(|s| s.borrow().clone());
        if let Some(hook) = hook {
            hook();
        }
    }
}
