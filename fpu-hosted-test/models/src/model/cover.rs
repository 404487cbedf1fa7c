//! What the executions of a model have come to, and how many there were.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    thread_local,
};

thread_local! {
    // Loom's threads are coroutines of the test's own thread, so each test has its own.
    static EXECUTIONS: Cell<u64> = const { Cell::new(0) };
    static COVERED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Notes that this execution has reached a case.
pub fn cover(case: &'static str) {
    COVERED.with(|c| *c.borrow_mut().entry(case).or_default() += 1);
}
/// How often executions have reached it.
pub(super) fn covered(case: &str) -> u64 {
    COVERED.with(|c| c.borrow().get(case).copied().unwrap_or(0))
}

/// Begins an execution.
pub(super) fn begin() {
    EXECUTIONS.set(executions() + 1);
}
/// How many have begun.
pub(super) fn executions() -> u64 {
    EXECUTIONS.get()
}
/// Counts from the beginning again.
pub(super) fn forget() {
    EXECUTIONS.set(0);
    COVERED.with(|c| c.borrow_mut().clear());
}
