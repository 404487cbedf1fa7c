//! Atomics that report the address of each access, and are the core's own otherwise.

pub(crate) use core::sync::atomic::{compiler_fence, fence, Ordering};
use std::{cell::Cell, thread_local};

/// Counters are words of the crate too.
pub(crate) use AtomicU64 as Count;

/// So are a CPU's own.
pub(crate) use AtomicU64 as Own;

thread_local! {
    static HOOK: Cell<fn(usize, bool)> = const { Cell::new(|_, _| ()) };
}

/// Gives `hook` the address of each access to a word on this thread, and whether it is a store.
pub fn at_each_access(hook: fn(usize, bool)) {
    HOOK.set(hook);
}

/// A word of 8 bytes, as in the core, so that contexts and CPUs' words lie where they lie there.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct AtomicU64(core::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub const fn new(value: u64) -> Self {
        Self(core::sync::atomic::AtomicU64::new(value))
    }
    pub fn load(&self, order: Ordering) -> u64 {
        HOOK.get()(core::ptr::from_ref(self) as usize, false);
        self.0.load(order)
    }
    pub fn store(&self, value: u64, order: Ordering) {
        HOOK.get()(core::ptr::from_ref(self) as usize, true);
        self.0.store(value, order);
    }
}
