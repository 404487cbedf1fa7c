//! Interrupts: loom has none, so the models call a handler, at one step after the other.
//!
//! A step is an access to a CPU's word, to a task's word, or to registers and an image. What lies
//! between two steps touches nothing that an interrupt touches, so that an interrupt there is the same
//! as one at the next step. A model with interrupts runs once for each step, until a run ends before its
//! step comes.

use loom::thread::{self, ThreadId};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    thread_local,
};

/// An interrupt that is to come, as the steps know it.
///
/// Registers, words and the kernel's code make the steps, so they are built above this file. At the step,
/// however, the kernel's handler must run on its CPU. Hence [`tick`] calls the interrupt through this trait.
pub(super) trait Pending {
    /// Tells whether its CPU takes the interrupt now.
    fn can_come(&self) -> bool;
    /// Its CPU runs the handler.
    fn comes(&self);
}

#[derive(Clone)]
struct Armed {
    on: ThreadId,
    pending: Rc<dyn Pending>,
}

thread_local! {
    static ARMED: RefCell<Option<Armed>> = const { RefCell::new(None) };
    static AT: Cell<u32> = const { Cell::new(0) };
    static SEEN: Cell<u32> = const { Cell::new(0) };
    static DELIVERED: Cell<bool> = const { Cell::new(false) };
}

/// The runs that follow are interrupted at this step.
pub(super) fn set_step(at: u32) {
    AT.set(at);
    DELIVERED.set(false);
}
/// Tells whether any run since then got that far.
pub(super) fn delivered() -> bool {
    DELIVERED.get()
}
/// From now on no interrupt comes.
pub(super) fn disarm() {
    let armed = ARMED.with(|a| a.borrow_mut().take());
    drop(armed);
}
/// The same after a violation: what is armed belongs to an execution that is gone, and leaks with it.
pub(super) fn abandon() {
    std::mem::forget(ARMED.with(|a| a.borrow_mut().take()));
}

/// From now on the loom thread that calls takes this interrupt.
pub(super) fn arm(pending: Rc<dyn Pending>) {
    SEEN.set(0);
    ARMED.with(|a| *a.borrow_mut() = Some(Armed { on: thread::current().id(), pending }));
    fpu_core_loom::at_each_access(tick);
}

/// One step of the CPU that runs now.
pub(super) fn tick() {
    let Some(armed) = ARMED.with(|a| a.borrow().clone()) else { return };
    if armed.on != thread::current().id() || !armed.pending.can_come() {
        return;
    }
    let seen = SEEN.get();
    SEEN.set(seen + 1);
    if seen == AT.get() {
        DELIVERED.set(true);
        armed.pending.comes();
    }
}
