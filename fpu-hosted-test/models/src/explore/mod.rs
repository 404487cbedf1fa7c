//! Every order of calls, up to what cannot be told apart: a search over the states of the real core.
//!
//! A machine of a few CPUs, tasks and a guest (a persistent context) is put into a state, one operation is carried
//! out on the real `fpu-core` by a right kernel, and what comes of it is compared with a ghost. Registers and
//! images hold *symbols*; stamps are renumbered by their distance from the CPU's own; CPUs and tasks are
//! renamed. So the states are finitely many, and the search ends by itself: then every order of the operations, of
//! any length, has been visited.
//!
//! ```
//! use fpu_models::explore::{explore, Bounds};
//! let found = explore(Bounds { cpus: 1, tasks: 1, ..Bounds::SUITE });
//! assert!(found.closed && found.violation.is_none());
//! ```
//!
//! # What is asked
//!
//! A context that enters user mode, a persistent run, or a view of an image finds what it must hold, by any writer
//! that wrote
//! it last. A CPU's registers have one claim at most; registers that are claimed hold what is claimed, and in
//! 2a memory does too. Nothing that a right kernel does is refused on a CPU that is open. What is refused, inside
//! sections, in non-maskable interrupts, of a context that is live elsewhere, changes nothing. A CPU's
//! count of stamps never goes back. What `fpu_idle` answers is right when it opens the CPU again.
//!
//! # Why nothing is lost by renumbering
//!
//! A context's stamp is compared with a CPU's word for equality only, and that word's count never goes back (each
//! store is checked), so all past stamps are alike; one that is still to come (a forgotten session) keeps its
//! distance. Of contents, code asks only whether they are the expected ones. A trace that is found is played again
//! from the beginning without renumbering.
//!
//! # What a pass does not say
//!
//! One operation runs at a time, with one interrupt or one operation of another CPU in it: weak memory, and two
//! operations of which neither is whole inside the other, are the models' part. Contents are one symbol: the parts of an image are the conformance suite's.

mod after;
mod apply;
mod backend;
mod calls;
mod check;
mod deferred;
mod grow;
mod inside;
mod life;
mod line;
mod machine;
mod ops;
mod others;
mod search;
mod session;
mod state;
mod words;

use std::fmt;

pub use calls::CALLS;
pub use line::Irq;
pub use machine::User;
pub use ops::{on, Does, Form, Move, Of, Op};
pub use search::replay;

/// How large a machine, and what can happen to it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// CPUs, at most 3.
    pub cpus: usize,
    /// Tasks, at most 3; a guest comes on top.
    pub tasks: usize,
    /// An interrupt at each step of each operation that allows one, with a section, or a section and the guest; and
    /// a non-maskable one at every step.
    pub interrupts: bool,
    /// An interrupt that opens a session, loads it three times, and forgets it.
    pub forgotten: bool,
    /// An interrupt that brings the CPU online, or takes it offline, at each step of each operation that allows one.
    pub lifecycle: bool,
    /// A whole operation of another CPU at each step of each operation, and its attempt to take what is in use.
    pub others: bool,
    /// Contexts change places in memory.
    pub moves: bool,
    /// Areas have more room and less.
    pub grows: bool,
    /// So many stamps of its number are left to each CPU, at most 11; then it takes a number that none has had.
    pub stamps: Option<u8>,
    /// Kernel code breaks a duty, which must be found.
    pub wrong_kernel: bool,
    /// No further than this.
    pub depth: Option<usize>,
}

impl Bounds {
    /// What the suite runs.
    pub const SUITE: Self = Self {
        cpus: 2,
        tasks: 2,
        interrupts: true,
        forgotten: true,
        lifecycle: true,
        others: false,
        moves: false,
        grows: false,
        stamps: None,
        wrong_kernel: false,
        depth: None,
    };
    /// What the suite runs with areas that grow.
    pub const GROWS: Self =
        Self { tasks: 1, forgotten: false, lifecycle: false, grows: true, ..Self::SUITE };
    /// What the suite runs with another CPU's operations.
    pub const OTHERS: Self =
        Self { interrupts: false, forgotten: false, lifecycle: false, others: true, ..Self::SUITE };
}

/// Something that must not be, and the shortest way there.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What.
    pub what: String,
    /// Within these.
    pub bounds: Bounds,
    /// How to get there; the last move shows it.
    pub trace: Vec<Move>,
}

/// A test that fails as the search did.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "/// {}.", self.what)?;
        writeln!(f, "#[test]\nfn found_by_the_explorer() {{")?;
        writeln!(f, "    #[allow(unused_imports)]")?;
        writeln!(
            f,
            "    use fpu_models::explore::{{on, replay, Bounds, Does, Form, Irq, Of, Op, User}};"
        )?;
        writeln!(f, "    let trace = [")?;
        for step in &self.trace {
            writeln!(f, "        {step},")?;
        }
        let Bounds { cpus, tasks, stamps, .. } = self.bounds;
        writeln!(f, "    ];")?;
        writeln!(
            f,
            "    let bounds = Bounds {{ cpus: {cpus}, tasks: {tasks}, stamps: {stamps:?}, ..Bounds::SUITE }};"
        )?;
        writeln!(f, "    assert_eq!(replay(bounds, &trace), Ok(()));\n}}")
    }
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Found {
    /// Within these.
    pub bounds: Bounds,
    /// Operations carried out.
    pub operations: u64,
    /// States.
    pub states: usize,
    /// The length of the shortest way to the state that is farthest away.
    pub depth: usize,
    /// Is there no state that was not visited?
    pub closed: bool,
    /// Operations that no state allowed.
    pub never_applied: Vec<String>,
    /// Functions of the core that were called.
    pub called: Vec<&'static str>,
    /// What was wrong.
    pub violation: Option<Violation>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds {
            cpus,
            tasks,
            interrupts,
            forgotten,
            lifecycle,
            others,
            moves,
            grows,
            stamps,
            ..
        } = self.bounds;
        write!(f, "explorer: {cpus} CPUs, {tasks} tasks, a guest")?;
        let extras = [
            (interrupts, "an interrupt at each step"),
            (forgotten, "forgotten guards"),
            (lifecycle, "online and offline in an interrupt"),
            (others, "another CPU's operation at each step"),
            (moves, "moves in memory"),
            (grows, "areas that grow"),
        ];
        for (_, name) in extras.iter().filter(|(on, _)| *on) {
            write!(f, ", {name}")?;
        }
        if let Some(stamps) = stamps {
            write!(f, ", {stamps} stamps left")?;
        }
        let Self { operations, states, depth, .. } = self;
        let how = if self.closed { "closed" } else { "not closed" };
        write!(f, ": {operations} operations, {states} states, depth {depth}, {how}")
    }
}

/// Visits every state that a right kernel can bring the core into.
#[must_use]
pub fn explore(bounds: Bounds) -> Found {
    search::Search::new(bounds).run()
}
