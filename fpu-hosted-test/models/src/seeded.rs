//! The seeded faults of the core, given to the explorer.

use crate::explore::Bounds;

/// What the explorer makes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A violation, so many moves from the beginning.
    At(usize),
    /// Nothing, because of this.
    Not(&'static str),
}

/// One operation runs at a time there, so that every store is seen in order.
pub const ORDERING: &str = "ordering";

/// Why no model notices one: contents are right, only later than need be, or at a price.
pub const COST: &str = "a cost";
/// A call is refused, as it must be, with the wrong error.
pub const REASON: &str = "a refusal's reason";
/// What the core tells its observer of.
pub const EVENT: &str = "an event";
/// The models' scenarios do not come to it.
pub const SCENARIO: &str = "no scenario";

/// Within these the fault of that name shows, at the last of the moves.
#[must_use]
pub fn bounds(name: &str, seen: Seen) -> Bounds {
    let depth = Some(match seen {
        Seen::At(depth) => depth,
        // What it cannot see differs in nothing that it could: a part of the search will do.
        Seen::Not(_) => 3,
    });
    match name {
        // It shows where the stamps run out, and there one CPU is enough.
        "CounterWraps" => Bounds { cpus: 1, stamps: Some(1), depth, ..Bounds::SUITE },
        // Put right before the operation ends, so that only another CPU sees it.
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
        // A claim on the CPU without a stamp left must be tried for a task that is live on another.
        "OfflineTakesNoStep" => Bounds {
            tasks: 1,
            interrupts: false,
            forgotten: false,
            lifecycle: false,
            stamps: Some(1),
            depth,
            ..Bounds::SUITE
        },
        _ => Bounds { depth, ..Bounds::SUITE },
    }
}
