//! The seeded faults of the core, given to the explorer.

use crate::{
    explore::{explore, Bounds},
    trapped,
};

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
        | "UnchangedMarksFirst"
        | "ResetMarksLate" => Bounds { depth, ..Bounds::OTHERS },
        // It shows where saves are left out.
        "UnchangedForgetsMark" | "UnchangedOverruled" | "UnchangedToldAsSaved" => {
            Bounds { depth, ..Bounds::UNCHANGED }
        }
        // It shows where areas have more room and less.
        "ReplaceKeepsClaim" | "ReplaceKeepsArea" => Bounds { depth, ..Bounds::GROWS },
        "AdoptKeepsRoom" => Bounds { interrupts: false, tasks: 2, depth, ..Bounds::GROWS },
        "OnlineTakesNoStep" | "OnlineRefusedStaysClosed" => {
            Bounds { cpus: 1, tasks: 1, stamps: Some(6), depth, ..Bounds::SUITE }
        }
        "BoundReturnTrustsCpu" | "BoundOpenTrustsCpu" => {
            Bounds { cpus: 2, bound: 1, interrupts: false, depth, ..Bounds::BOUND }
        }
        _ if name.starts_with("Bound") => Bounds { depth, ..Bounds::BOUND },
        _ => Bounds { depth, ..Bounds::SUITE },
    }
}

/// Tells whether the fault is of contexts that were never used, which have a search of their own.
#[must_use]
pub fn is_of_traps(name: &str) -> bool {
    name.starts_with("Trap")
}

/// Searches where the fault of that name shows. Returns how many states there were, and what was wrong after how many
/// moves.
#[must_use]
pub fn search(name: &str, seen: Seen) -> (usize, Option<(usize, String)>) {
    if is_of_traps(name) {
        let most = if let Seen::At(depth) = seen { depth } else { 3 };
        let found = trapped::explore(Some(most));
        return (found.states, found.violation.map(|what| (found.depth, what)));
    }
    let found = explore(bounds(name, seen));
    (found.states, found.violation.map(|violation| (found.depth, violation.what)))
}
