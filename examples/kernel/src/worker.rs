//! Kernel threads that use the registers.

use x86_64::instructions::interrupts;

use crate::{
    cpu::{preempt_off, preempt_on, this_cpu},
    faults::Fault,
    guest,
    sched::{self, Next},
    seeded, task, torture,
};

/// A kernel thread: sections, its guest, and giving way.
pub fn thread() -> ! {
    loop {
        if !seeded::on(Fault::MaskedWorkers) {
            interrupts::enable();
        }
        let cpu = preempt_off();
        // Often none, so that a guest meets the claim of a task.
        for _ in 0..(cpu.random() % 4).saturating_sub(1) {
            torture::section(task::of(cpu));
        }
        for _ in 0..cpu.random() % 3 {
            guest::round(task::of(cpu));
        }
        preempt_on();
        interrupts::disable();
        sched::schedule(if this_cpu().random() & 3 == 0 { Next::Idle } else { Next::Any });
    }
}
