//! Which CPU it is that this thread plays, and where its accesses go.

use std::cell::{Cell, RefCell};

use crate::lines::{Lines, Moved, LINE};

thread_local! {
    static CPU: Cell<u16> = const { Cell::new(0) };
    static LINES: RefCell<Lines> = RefCell::default();
}

/// An empty directory for this thread; the core's words report to it from now on.
pub fn reset() {
    LINES.with_borrow_mut(|lines| *lines = Lines::default());
    fpu_core::at_each_access(|address, stores| {
        LINES.with_borrow_mut(|lines| match stores {
            true => lines.store(cpu(), address),
            false => lines.load(cpu(), address),
        });
    });
}
/// From now on this thread plays that CPU.
pub fn become_cpu(cpu: u16) {
    CPU.set(cpu);
}
/// The CPU that this thread plays.
#[must_use]
pub fn cpu() -> u16 {
    CPU.get()
}
/// The CPU loads all lines of this memory.
pub fn load(address: usize, bytes: usize) {
    LINES.with_borrow_mut(|lines| {
        (address..address + bytes).step_by(LINE).for_each(|at| lines.load(cpu(), at));
    });
}
/// The CPU stores to all lines of this memory.
pub fn store(address: usize, bytes: usize) {
    LINES.with_borrow_mut(|lines| {
        (address..address + bytes).step_by(LINE).for_each(|at| lines.store(cpu(), at));
    });
}
/// What has moved since the directory was empty.
#[must_use]
pub fn moved() -> Moved {
    LINES.with_borrow(Lines::moved)
}
