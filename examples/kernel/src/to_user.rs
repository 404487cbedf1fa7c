//! The way to user mode: a preemption that waited, a signal, the registers; and the end of a task.

use core::sync::atomic::Ordering;

use fpu_core::Error;

use crate::{
    check,
    cpu::this_cpu,
    entry::Frame,
    faults::Fault,
    fpu::{self, IrqsOff},
    sched::{self, Next},
    seeded, signal,
    task::{self, Task},
    verdict,
};

/// A task ends, and another begins in its place.
///
/// # Safety
///
/// As for [`Task::born_again`].
pub unsafe fn ends(task: &Task, frame: &mut Frame) {
    // SAFETY: the caller's.
    if let Err(why) = unsafe { task.born_again(frame) } {
        verdict::fail(format_args!("task {}: {why}", task.slot));
    }
}

/// Back to the user mode that `frame` is of. Interrupts are off.
pub fn return_to_user(frame: &mut Frame) -> ! {
    let mut refused = false;
    loop {
        if this_cpu().resched.get() && !seeded::on(Fault::NoResched) {
            task::current().deferred.fetch_add(1, Ordering::Relaxed);
            sched::schedule(Next::Any);
        }
        let task = task::current();
        if this_cpu().resched.get() {
            verdict::fail(format_args!("task {} goes on with a preemption due", task.slot));
        }
        let Some(context) = task.fpu() else {
            verdict::fail(format_args!("task {} has no FPU context", task.slot));
        };
        if seeded::on(Fault::LatePkru) {
            fpu::switch_rights(None, task.pkru());
        }
        if signal::due(task) {
            signal::deliver(task, context, frame);
            continue;
        }
        check::before_user(task, context);
        // SAFETY: interrupts are off, and stay so until user mode.
        let irqs_off = unsafe { IrqsOff::new() };
        // SAFETY: the current task's frame is at the top of its stack, by all entries and `spawn`.
        match unsafe { fpu::to_user(context, irqs_off, frame) } {
            // The processor refused the image. It will do so again: nothing claims that it was loaded.
            Error::RestoreFailed(fault) if task.spoilt.get() && !refused => {
                refused = true;
                verdict::refused_as_it_should(task, fault);
            }
            // The task ends, and another begins in its place.
            Error::RestoreFailed(fault) if task.spoilt.get() => {
                refused = false;
                verdict::refused_as_it_should(task, fault);
                // SAFETY: interrupts are off, and it is the current task's frame.
                unsafe { ends(task, frame) };
            }
            why => verdict::refused(task, why),
        }
    }
}
