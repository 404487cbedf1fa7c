//! Interrupts: loom has none, so they are calls, made at one step after the other.
//!
//! A step is an access to a CPU's word, to a task's word, or to registers and an image. What lies
//! between two steps touches nothing that an interrupt touches, so that an interrupt there is the same
//! as one at the next step. [`Model`](super::Model)s with `interrupts` run once for each step, until a run
//! ends before its step comes.

use loom::thread::{self, ThreadId};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    thread_local,
};

use super::Cpu;

#[derive(Clone)]
struct Armed {
    cpu: Rc<Cpu>,
    on: ThreadId,
    handler: fn(&Cpu),
    maskable: bool,
}

thread_local! {
    static ARMED: RefCell<Option<Armed>> = const { RefCell::new(None) };
    static AT: Cell<u32> = const { Cell::new(0) };
    static SEEN: Cell<u32> = const { Cell::new(0) };
    static DELIVERED: Cell<bool> = const { Cell::new(false) };
}

/// The step at which the runs to come are interrupted.
pub(super) fn set_step(at: u32) {
    AT.set(at);
    DELIVERED.set(false);
}
/// Did any run since then get that far?
pub(super) fn delivered() -> bool {
    DELIVERED.get()
}
/// Nobody is interrupted any more.
pub(super) fn disarm() {
    let armed = ARMED.with(|a| a.borrow_mut().take());
    drop(armed);
}
/// The same after a violation: what is armed belongs to an execution that is gone, and leaks with it.
pub(super) fn abandon() {
    std::mem::forget(ARMED.with(|a| a.borrow_mut().take()));
}

/// From here on, this CPU (the loom thread that calls) takes the interrupt.
pub fn arm(cpu: &Rc<Cpu>, handler: fn(&Cpu)) {
    arm_with(cpu, handler, true);
}
/// The same for one that cannot be masked.
pub fn arm_nmi(cpu: &Rc<Cpu>, handler: fn(&Cpu)) {
    arm_with(cpu, handler, false);
}
fn arm_with(cpu: &Rc<Cpu>, handler: fn(&Cpu), maskable: bool) {
    SEEN.set(0);
    let armed = Armed { cpu: Rc::clone(cpu), on: thread::current().id(), handler, maskable };
    ARMED.with(|a| *a.borrow_mut() = Some(armed));
    fpu_core_loom::at_each_access(tick);
}

/// One step of whichever CPU runs now.
pub(super) fn tick() {
    let Some(armed) = ARMED.with(|a| a.borrow().clone()) else { return };
    if armed.on != thread::current().id() || armed.cpu.in_interrupt() {
        return;
    }
    if armed.maskable && armed.cpu.masked() {
        return;
    }
    let seen = SEEN.get();
    SEEN.set(seen + 1);
    if seen == AT.get() {
        DELIVERED.set(true);
        armed.cpu.interrupted(armed.handler);
    }
}
