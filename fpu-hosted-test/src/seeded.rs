//! The seeded faults of the core, given to the explorer.

/// What the explorer makes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A violation, so many moves from the beginning.
    At(usize),
    /// Nothing, because of this.
    Not(&'static str),
}
use Seen::{At, Not};

/// One operation runs at a time there, so that every store is seen in order.
const ORDERING: &str = "ordering";

/// Makes the list, and where the faults can be switched on a `match` without wildcard: a fault that has no row does
/// not compile.
macro_rules! rows {
    ($($fault:ident $seen:expr;)*) => {
        /// Each fault, by name.
        pub const SEEN: &[(&str, Seen)] = &[$((stringify!($fault), $seen)),*];
        #[cfg(fpu_seeded)]
        const FAULTS: &[fpu_core::seam::Fault] = &[$(fpu_core::seam::Fault::$fault),*];
        #[cfg(any(fpu_seeded, fpu_loom))]
        const _: fn(fpu_core::seam::Fault) = |fault| match fault {
            $(fpu_core::seam::Fault::$fault => {})*
        };
    };
}

rows! {
    PrepareSkipsSave At(3);
    PrepareForgetsMemory At(3);
    PrepareMarksBeforeSave At(2);
    PrepareMarkRelaxed Not(ORDERING);
    PrepareIgnoresElsewhere At(1);
    ReturnLoadRelaxed Not(ORDERING);
    ReturnIgnoresElsewhere At(1);
    ReturnTrustsStale At(1);
    ReturnSkipsMark At(3);
    ReturnClaimsBeforeRestore At(2);
    ReturnReusesStamp At(3);
    ReturnClaimsAfterFailure At(2);
    ReturnKeepsCpuStamp At(2);
    ReturnMovesCpuLate At(2);
    SectionSkipsSave At(3);
    SectionMarksBeforeSave At(2);
    SectionMarkRelaxed Not(ORDERING);
    SectionKeepsStamp At(1);
    SectionSkipsGate At(1);
    SectionNests At(1);
    SectionRefusedStaysClosed At(1);
    CloseReadsBeforeGate At(1);
    CloseKeepsWordOpen At(1);
    PersistentTrustsStale At(1);
    PersistentSkipsSave At(1);
    PersistentKeepsStamp At(2);
    PersistentSkipsMark At(1);
    PersistentMarkRelaxed Not(ORDERING);
    PlanMarkRelaxed Not(ORDERING);
    RawMarkRelaxed Not(ORDERING);
    SessionMarkRelaxed Not(ORDERING);
    WriteKeepsClaim At(1);
    WriteKeepsOtherClaim At(2);
    WriteSkipsSave At(3);
    SessionSkipsGate At(1);
    SessionReloadKeepsStamp At(2);
    SessionReturnSkipsMark At(2);
    StoppedWriteKeepsClaim At(2);
    StoppedIgnoresLive At(1);
    OnlineResetsCounter At(2);
    OfflineKeepsOpen At(1);
    OfflineReadsBeforeGate At(1);
    OfflineTrustsForgotten At(2);
    ResumeKeepsStamp At(2);
    ForkSkipsSave At(3);
    ForkCopiesClaim At(3);
    ForkKeepsChildClaim At(3);
    NewSkipsInitial At(2);
    ResetKeepsClaim At(2);
    CounterWraps At(5);
    VerifySkipsSave At(2);
    VerifyKeepsClaim At(2);
    IdleKeepsClaim At(1);
    IdleReopensEarly At(1);
}

/// What the explorer makes of the fault of that name.
#[must_use]
pub fn seen(name: &str) -> Option<Seen> {
    SEEN.iter().find(|(fault, _)| *fault == name).map(|(_, seen)| *seen)
}

/// Gives each to the explorer; what comes of it, by name.
#[cfg(fpu_seeded)]
pub fn try_all(mut say: impl FnMut(&str, crate::explore::Found)) {
    use crate::explore::{explore, Bounds};
    for (fault, (name, seen)) in FAULTS.iter().zip(SEEN) {
        // What it cannot see differs in nothing that it could: a part of the search will do.
        let depth = matches!(seen, Not(_)).then_some(6);
        fpu_core::seam::set_fault(Some(*fault));
        // One of them shows where the stamps run out, and there one CPU is enough.
        let few = Bounds { cpus: 1, stamps: Some(1), ..Bounds::SUITE };
        let found = explore(match *name {
            "CounterWraps" => few,
            // Put right before the operation ends, so that only another CPU sees it.
            "PrepareMarksBeforeSave" | "SectionMarksBeforeSave" => Bounds::OTHERS,
            _ => Bounds { depth, ..Bounds::SUITE },
        });
        fpu_core::seam::set_fault(None);
        say(name, found);
    }
}
