//! The atomics of the models: loom's, with an interrupt that can come before each access.

pub(crate) use loom::sync::atomic::{fence, Ordering};
use std::{cell::Cell, thread_local};

/// A CPU's own, or a mark that no image follows, so the models use the real one too.
pub(crate) use core::sync::atomic::AtomicU64 as Own;

/// Counts events, and decides nothing, so the models use the real one too.
pub(crate) use core::sync::atomic::AtomicU64 as Count;

/// Loom explores one interrupt order at a time and does not model the compiler; see docs/theory.md.
pub(crate) fn compiler_fence(_: Ordering) {}

thread_local! {
    static HOOK: Cell<fn()> = const { Cell::new(|| ()) };
}

/// Runs `hook` before each access to a word, of a task or of a CPU, on this thread.
pub fn at_each_access(hook: fn()) {
    HOOK.set(hook);
}

#[derive(Debug)]
pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self(loom::sync::atomic::AtomicU64::new(value))
    }
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        HOOK.get()();
        self.0.load(order)
    }
    pub(crate) fn store(&self, value: u64, order: Ordering) {
        HOOK.get()();
        self.0.store(value, order);
    }
}
