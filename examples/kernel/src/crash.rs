//! Ends of which the kernel itself has nothing to say, or not all: the program that boots it must.

use core::arch::asm;

use x86_64::{
    instructions::{interrupts, tables::lidt},
    structures::DescriptorTablePointer,
    VirtAddr,
};

use crate::{faults::Fault, seeded};

/// When the tasks have run for a while, by CPU 0's clock.
const WHEN: u64 = 50_000;

/// Comes to one of them, if it is seeded and time.
pub fn if_seeded(now: u64) {
    if now < WHEN {
        return;
    }
    if seeded::on(Fault::Exception) {
        undefined_instruction();
    }
    if seeded::on(Fault::NoTable) {
        interrupts::disable();
        // SAFETY: none: without a table the next exception is the third.
        unsafe { lidt(&DescriptorTablePointer { limit: 0, base: VirtAddr::zero() }) };
        undefined_instruction();
    }
    if seeded::on(Fault::StandStill) {
        interrupts::disable();
        loop {
            core::hint::spin_loop();
        }
    }
}

#[inline(never)]
fn undefined_instruction() {
    // SAFETY: an exception, which is what the fault is for.
    unsafe { asm!("ud2") }
}
