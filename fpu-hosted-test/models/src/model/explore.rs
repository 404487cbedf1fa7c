//! Runs a model, counts, and refuses a success that explored too little.

use std::{
    any::Any,
    cell::Cell,
    panic::{catch_unwind, AssertUnwindSafe},
    string::String,
    sync::Once,
    thread_local,
};

use super::{
    cover::{begin, covered, executions, forget},
    fault::{seed, Seeded},
    irq,
    scenario::Model,
    table,
};

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

fn explore(model: &Model, bound: Option<usize>) {
    let mut builder = loom::model::Builder::new();
    // Of the environment only what helps to debug counts: a budget would pass for a success.
    (builder.max_permutations, builder.max_duration) = (None, None);
    builder.preemption_bound = bound;
    builder.max_branches = 10_000;
    let body = model.body();
    let code = move || {
        begin();
        body();
        irq::disarm();
    };
    match std::env::var_os("LOOM_LOG") {
        None => builder.check(code),
        // Only this form prints the log; its bound is that of LOOM_MAX_PREEMPTIONS.
        Some(_) => loom::model(code),
    }
}

/// Says where a model was when it failed, and abandons what belonged to that execution.
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
            eprintln!("model {}: failed in execution {}{at}", self.0.name, executions());
        }
    }
}

fn run(model: &Model, bound: Option<usize>) {
    forget();
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

/// Explores a model, and requires that it passes, explores enough executions, and comes to its cases.
///
/// If `FPU_FAULT` in the environment names a fault, seeds that fault first, so that one can watch the model fail.
pub fn check(model: &Model) {
    if let Ok(name) = std::env::var("FPU_FAULT") {
        let row = table::all().find(|row| row.name == name);
        seed(Some(row.unwrap_or_else(|| panic!("no fault is called {name}")).fault));
    }
    run(model, model.bound);
    let explored = executions();
    let interesting =
        model.covers.first().map_or(String::new(), |case| format!(", {} x {case}", covered(case)));
    println!("model {}: {explored} executions{interesting}", model.name);
    assert!(explored >= model.floor, "{explored} of {} executions explored", model.floor);
    for case in model.covers {
        assert!(covered(case) > 0, "no execution came to: {case}");
    }
}

/// How a model failed.
#[derive(Debug)]
pub struct Violation {
    /// What it said.
    pub message: String,
    /// The fewest preemptions in one execution that led there.
    pub preemptions: usize,
    /// In which execution, counted from the first without preemption.
    pub execution: u64,
}

/// Explores a model with this fault, or without one, under a bound of 0 preemptions, then of 1, up to that many. Returns
/// the first violation, and `None` if the model passes.
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
    (result.err().map(message), executions())
}

fn message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| String::from(*s)))
        .unwrap_or_else(|| String::from("a panic without text"))
        .trim_end()
        .into()
}
