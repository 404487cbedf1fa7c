//! The seeded faults of the core, given to the explorer.

use crate::explore::Bounds;

/// What the explorer makes of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A violation, so many moves from the beginning.
    At(usize),
    /// Nothing, for this reason.
    Not(&'static str),
}

/// The explorer runs one operation at a time, so that every CPU sees every store in order.
pub const ORDERING: &str = "ordering";

/// Why no model notices a fault: contents are right, only later than need be, or at a price.
pub const COST: &str = "a cost";
/// The core refuses a call, as it must, with the wrong error.
pub const REASON: &str = "a refusal's reason";
/// The core tells its observer of an event too early.
pub const EVENT: &str = "an event";
/// The models' scenarios do not come to it.
pub const SCENARIO: &str = "no scenario";

/// Within these bounds the fault of that name shows, at the last of the moves.
#[must_use]
pub fn bounds(name: &str, seen: Seen) -> Bounds {
    let depth = Some(match seen {
        Seen::At(depth) => depth,
        // The explorer cannot see the fault, so a part of the search is enough.
        Seen::Not(_) => 3,
    });
    match name {
        // The fault shows where the stamps run out, and there one CPU is enough.
        "CounterWraps" => Bounds { cpus: 1, stamps: Some(1), depth, ..Bounds::SUITE },
        // The operation puts the fault right before it ends, so that only another CPU sees the fault.
        "PrepareMarksBeforeSave"
        | "SectionMarksBeforeSave"
        | "SaveMarksFirst"
        | "ResetMarksLate" => Bounds { depth, ..Bounds::OTHERS },
        // It shows where areas have more room and less.
        "ReplaceKeepsClaim" | "ReplaceKeepsArea" => Bounds { depth, ..Bounds::GROWS },
        "AdoptKeepsRoom" => Bounds { interrupts: false, tasks: 2, depth, ..Bounds::GROWS },
        "LastStampTaken" | "OnlineTakesNoStep" | "OnlineRefusedStaysClosed" => {
            Bounds { cpus: 1, tasks: 1, stamps: Some(6), depth, ..Bounds::SUITE }
        }
        // The task that claims the CPU without a stamp left must be live on another CPU.
        "OfflineTakesNoStep" => Bounds {
            tasks: 1,
            interrupts: false,
            forgotten: false,
            lifecycle: false,
            stamps: Some(1),
            depth,
            ..Bounds::SUITE
        },
        "BoundReturnTrustsCpu" | "BoundOpenTrustsCpu" => {
            Bounds { cpus: 2, bound: 1, interrupts: false, depth, ..Bounds::BOUND }
        }
        _ if name.starts_with("Bound") => Bounds { depth, ..Bounds::BOUND },
        _ => Bounds { depth, ..Bounds::SUITE },
    }
}
