//! Runs a model, counts, and refuses a success that explored nothing.

use loom::thread;
use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::BTreeMap,
    panic::{catch_unwind, AssertUnwindSafe},
    rc::Rc,
    string::String,
    sync::{Arc, Once},
    thread_local,
};

use super::{
    fault::{seed, Seeded},
    irq, table, Cpu, Machine,
};

/// One claim about the protocol, and the scenario that would refute it.
#[derive(Debug)]
pub struct Model {
    /// Its name in the table of faults.
    pub name: &'static str,
    /// The invariants it guards.
    pub guards: &'static str,
    /// The bound on preemptions, if every interleaving would take too long.
    pub bound: Option<usize>,
    /// Whether it runs once for each step at which an interrupt can come.
    pub interrupts: bool,
    /// How many executions it must explore at least.
    pub floor: u64,
    /// The cases that at least one execution must have reached, the interesting one first.
    pub covers: &'static [&'static str],
    /// The scenario.
    pub body: fn(),
}

thread_local! {
    // Loom's threads are coroutines of the test's own thread, so these are one per test.
    static EXECUTIONS: Cell<u64> = const { Cell::new(0) };
    static COVERED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Notes that this execution has reached a case.
pub fn cover(case: &'static str) {
    COVERED.with(|c| *c.borrow_mut().entry(case).or_default() += 1);
}
fn covered(case: &str) -> u64 {
    COVERED.with(|c| c.borrow().get(case).copied().unwrap_or(0))
}

/// Runs `code` on so many CPUs at once; the first is the loom thread that calls.
pub fn on_cpus(machine: &Arc<Machine>, cpus: u32, code: fn(&Rc<Cpu>, &Machine)) {
    let others: Vec<_> = (1..cpus)
        .map(|number| {
            let machine = Arc::clone(machine);
            thread::spawn(move || code(&Cpu::online(&machine, number), &machine))
        })
        .collect();
    code(&Cpu::online(machine, 0), machine);
    for other in others {
        if other.join().is_err() {
            panic!("a CPU panicked");
        }
    }
}

fn explore(model: &Model, bound: Option<usize>) {
    let mut builder = loom::model::Builder::new();
    // Nothing from the environment but what helps to debug: a budget would pass for a success.
    (builder.max_permutations, builder.max_duration) = (None, None);
    builder.preemption_bound = bound;
    builder.max_branches = 10_000;
    let body = model.body;
    let code = move || {
        EXECUTIONS.set(EXECUTIONS.get() + 1);
        body();
        irq::disarm();
    };
    match std::env::var_os("LOOM_LOG") {
        None => builder.check(code),
        // Only this form prints the log; its bound is that of LOOM_MAX_PREEMPTIONS.
        Some(_) => loom::model(code),
    }
}

/// Says where a model was when it failed, and lets go of what belonged to that execution.
struct Where<'m>(&'m Model, u32);

impl Drop for Where<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        irq::abandon();
        if !QUIET.get() {
            let at =
                if self.0.interrupts { format!(", FPU_STEP={}", self.1) } else { String::new() };
            eprintln!("model {}: failed in execution {}{at}", self.0.name, EXECUTIONS.get());
        }
    }
}

fn run(model: &Model, bound: Option<usize>) {
    EXECUTIONS.set(0);
    COVERED.with(|c| c.borrow_mut().clear());
    let first = std::env::var("FPU_STEP").ok().and_then(|step| step.parse().ok());
    let mut at = Where(model, first.unwrap_or(0));
    loop {
        irq::set_step(at.1);
        explore(model, bound);
        if !model.interrupts || !irq::delivered() {
            return;
        }
        at.1 += 1;
    }
}

/// Explores a model and requires that it passes, and that it explored what it is for.
///
/// The environment's `FPU_FAULT` seeds the fault of that name first, to watch the model fail.
pub fn check(model: &Model) {
    if let Ok(name) = std::env::var("FPU_FAULT") {
        let row = table::all().find(|row| row.name == name);
        seed(Some(row.unwrap_or_else(|| panic!("no fault is called {name}")).fault));
    }
    run(model, model.bound);
    let executions = EXECUTIONS.get();
    let interesting =
        model.covers.first().map_or(String::new(), |case| format!(", {} x {case}", covered(case)));
    println!("model {}: {executions} executions{interesting}", model.name);
    assert!(executions >= model.floor, "{} of {} executions explored", executions, model.floor);
    for case in model.covers {
        assert!(covered(case) > 0, "no execution came to: {case}");
    }
}

/// How a model failed.
#[derive(Debug)]
pub struct Violation {
    /// What it said.
    pub message: String,
    /// The fewest preemptions in one execution that made it say so.
    pub preemptions: usize,
    /// In which execution, counted from the first without preemption.
    pub execution: u64,
}

/// Explores a model with a fault seeded, or none, with as few preemptions as will do, and no more than that many;
/// `None` if it passes.
#[must_use]
pub fn violation(model: &'static Model, fault: Option<Seeded>, most: usize) -> Option<Violation> {
    let mut before = 0;
    for preemptions in 0..=most {
        let (message, executions) = caught(model, fault, preemptions);
        before += executions;
        if let Some(message) = message {
            return Some(Violation { message, preemptions, execution: before });
        }
    }
    None
}

/// More than any of the seeded faults takes.
pub const MOST_PREEMPTIONS: usize = 4;

fn caught(
    model: &'static Model,
    fault: Option<Seeded>,
    preemptions: usize,
) -> (Option<String>, u64) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    seed(fault);
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| run(model, Some(preemptions))));
    QUIET.set(false);
    seed(None);
    (result.err().map(message), EXECUTIONS.get())
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| String::from(*s)))
        .unwrap_or_else(|| String::from("a panic without text"))
        .trim_end()
        .into()
}
