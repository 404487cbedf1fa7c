//! What a search came to, and how it prints.

use std::fmt;

use super::{bounds::Bounds, ops::Move};

/// Something that must not be, and the shortest trace that leads there.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What it is.
    pub what: String,
    /// The bounds of the search.
    pub bounds: Bounds,
    /// The moves that lead there; the last one shows it.
    pub trace: Vec<Move>,
}

/// As a test that fails as the search did.
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
        let Bounds { cpus, tasks, stamps, bound, unchanged, .. } = self.bounds;
        let owned = if bound > 0 { format!("bound: {bound}, ") } else { String::new() };
        writeln!(f, "    ];")?;
        let base = if unchanged { "UNCHANGED" } else { "SUITE" };
        writeln!(
            f,
            "    let bounds = Bounds {{ cpus: {cpus}, tasks: {tasks}, {owned}stamps: {stamps:?}, ..Bounds::{base} }};"
        )?;
        writeln!(f, "    assert_eq!(replay(bounds, &trace), Ok(()));\n}}")
    }
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Found {
    /// The bounds of the search.
    pub bounds: Bounds,
    /// How many operations it carried out.
    pub operations: u64,
    /// How many states it found.
    pub states: usize,
    /// The length of the shortest trace to the state that is farthest from the beginning.
    pub depth: usize,
    /// Whether the search has visited every state.
    pub closed: bool,
    /// Operations that no state allowed.
    pub never_applied: Vec<String>,
    /// Functions of the core that it called.
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
            unchanged,
            stamps,
            bound,
            ..
        } = self.bounds;
        write!(f, "explorer: {cpus} CPUs, {tasks} tasks, a guest")?;
        if bound > 0 {
            write!(f, ", {bound} bound to a CPU")?;
        }
        let extras = [
            (interrupts, "an interrupt at each step"),
            (forgotten, "forgotten guards"),
            (lifecycle, "online and offline in an interrupt"),
            (others, "another CPU's operation at each step"),
            (moves, "moves in memory"),
            (grows, "areas that grow"),
            (unchanged, "saves left out"),
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
