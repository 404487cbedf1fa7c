//! Every order of calls about contexts that were never used: a search over the states of the real core.
//!
//! A machine of two CPUs has two contexts of [`fpu_core::trap`] and an ordinary one. From each state the search carries out
//! every operation that a right kernel may do next, once alone and once for each of its steps with an interrupt there, whose
//! handler has a section and goes back by `switch_in`. It replays each trace from the beginning, breadth first, and ends when
//! no state is new.
//!
//! The search finds kernel code that moves registers while the trap is armed, a context that runs without the trap although
//! it was never used, one that runs with wrong contents, a trap that is armed for any other context, and refusals.
//!
//! ```
//! use fpu_models::trapped::explore;
//! let found = explore(Some(2));
//! assert!(!found.closed && found.violation.is_none());
//! ```

mod cpu;
mod machine;
mod ops;

use std::{collections::HashSet, fmt, rc::Rc};

use machine::Machine;
use ops::{Move, CPUS, OPS, TASKS};

/// The functions of `fpu-core/src/trap.rs` and its files that the search calls.
pub const CALLS: [&str; 11] = [
    "Trapped::new",
    "Trapped::is_used",
    "Trapped::switch_prepare",
    "Trapped::switch_in",
    "Trapped::switch_return",
    "Trapped::first_use",
    "Trapped::with_kernel_fpu",
    "Trapped::used",
    "Trapped::fork_into",
    "Trapped::reset",
    "Trapped::into_inner",
];

/// What the search came to.
#[derive(Clone, Debug)]
pub struct Found {
    /// How many operations it carried out, replays not counted.
    pub operations: u64,
    /// How many states it found.
    pub states: usize,
    /// The length of the shortest trace to the state that is farthest from the beginning.
    pub depth: usize,
    /// Whether the search has visited every state.
    pub closed: bool,
    /// Operations that no state allowed.
    pub never_applied: Vec<String>,
    /// What was wrong, and the shortest trace to it.
    pub violation: Option<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, states, depth, closed, .. } = self;
        let how = if *closed { "closed" } else { "not closed" };
        write!(
            f,
            "explorer of traps: {CPUS} CPUs, {TASKS} contexts that were never used and an ordinary one, an interrupt at \
             each step: {operations} operations, {states} states, depth {depth}, {how}"
        )
    }
}

fn play(trace: &[Move]) -> (Rc<Machine>, bool) {
    let machine = Machine::new();
    let mut struck = true;
    for step in trace {
        struck = machine.carry_out(*step);
    }
    (machine, struck)
}

/// Searches until no state is new, something is wrong, or the depth is reached.
#[must_use]
pub fn explore(most: Option<usize>) -> Found {
    let contexts = 0..=TASKS;
    let moves: Vec<Move> = OPS
        .into_iter()
        .flat_map(|op| (0..CPUS).map(move |cpu| (op, cpu)))
        .flat_map(|(op, cpu)| contexts.clone().map(move |which| Move { cpu, op, which, irq: None }))
        .collect();
    let mut known = HashSet::from([Machine::new().state()]);
    let mut level: Vec<Vec<Move>> = vec![Vec::new()];
    let mut applied = HashSet::new();
    let (mut operations, mut depth, mut violation) = (0, 0, None);
    while !level.is_empty() && violation.is_none() && most.map_or(true, |most| depth < most) {
        let mut next = Vec::new();
        'level: for trace in &level {
            let here = play(trace).0;
            for step in moves.iter().filter(|step| here.allows(**step)) {
                applied.insert(step.op);
                for irq in std::iter::once(None).chain((1..).map(Some)) {
                    let mut longer = trace.clone();
                    longer.push(Move { irq, ..*step });
                    let (machine, struck) = play(&longer);
                    if irq.is_some() && !struck {
                        break;
                    }
                    operations += 1;
                    if let Some(what) = machine.wrong() {
                        violation = Some(format!("{what}, after {longer:?}"));
                        break 'level;
                    }
                    if known.insert(machine.state()) {
                        next.push(longer);
                    }
                }
            }
        }
        if !next.is_empty() || violation.is_some() {
            depth += 1;
        }
        level = next;
    }
    let never = OPS.into_iter().filter(|op| !applied.contains(op));
    Found {
        operations,
        states: known.len(),
        depth,
        closed: level.is_empty() && violation.is_none(),
        never_applied: never.map(|op| format!("{op:?}")).collect(),
        violation,
    }
}
