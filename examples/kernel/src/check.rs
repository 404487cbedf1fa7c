//! Comparisons that can be switched on: of the registers with the claims, of the control registers with the plan.

use core::{cell::UnsafeCell, sync::atomic::Ordering::Relaxed};

use fpu_core::verify::Verified;

use crate::{
    counts::{self, count, CLOCK},
    cpu::{this_cpu, PerCpu},
    faults::Fault,
    fpu::{self, CheckArea, Fpu, IrqsOff, AREA},
    memory::Memory,
    params::{self, MAX_CPUS},
    seeded,
    task::Task,
    verdict,
};

/// Memory for what the registers of each CPU hold, where they are compared with the claims.
static CHECK_MEMORY: [Memory<AREA>; MAX_CPUS] = [const { Memory::new() }; MAX_CPUS];

/// What each CPU compares with, a second image.
struct Area(UnsafeCell<Option<CheckArea>>);
// SAFETY: used by the CPU whose it is, with interrupts off.
unsafe impl Sync for Area {}
static AREAS: [Area; MAX_CPUS] = [const { Area(UnsafeCell::new(None)) }; MAX_CPUS];

/// Its place.
///
/// # Safety
///
/// This is the caller's CPU, interrupts are off while the value lives, and there is no other.
unsafe fn area(cpu: &PerCpu) -> &'static mut Option<CheckArea> {
    // SAFETY: the caller's.
    unsafe { &mut *AREAS[cpu.number.get() as usize % MAX_CPUS].0.get() }
}

/// Sets up the comparison on this CPU, once it is online. Interrupts are off.
pub fn prepare(cpu: &PerCpu) {
    // SAFETY: this CPU, interrupts are off; not kept.
    let place = unsafe { area(cpu) };
    if !params::given().check || place.is_some() {
        return;
    }
    let base = CHECK_MEMORY[cpu.number.get() as usize % MAX_CPUS].base();
    // SAFETY: K19: this CPU's own, given once.
    match unsafe { fpu::new_check_area(base, AREA) } {
        Ok(made) => *place = Some(made),
        Err(why) => verdict::fail(format_args!("CPU {}: {why}", cpu.number.get())),
    }
}

/// The last look before user mode, if that is switched on. Interrupts are off.
pub fn before_user(task: &'static Task, context: &Fpu) {
    let cpu = this_cpu();
    // SAFETY: this CPU, interrupts are off; the only one until the end of the function.
    let Some(scratch) = (unsafe { area(cpu) }) else { return };
    // SAFETY: interrupts are off.
    let mut here = unsafe { IrqsOff::new() };
    match fpu::registers(context, &mut here, scratch) {
        Ok(Verified::Agreed) => count(&counts::VERIFIED),
        Ok(_) => {}
        Err(why) => verdict::disagree(task, cpu, why),
    }
}

/// Compares the control registers with the plan, and breaks them where the fault asks for it.
///
/// Interrupts are off.
pub fn control(cpu: &PerCpu) {
    if seeded::on(Fault::ControlDrift) && CLOCK.load(Relaxed) > 20_000 {
        use x86_64::registers::control::{Cr4, Cr4Flags};
        // SAFETY: no exception is unmasked; it is what C5 (bits stay) forbids, and what the fault is for.
        unsafe { Cr4::update(|cr4| *cr4 &= !Cr4Flags::OSXMMEXCPT_ENABLE) };
    }
    // SAFETY: interrupts are off.
    let irqs_off = unsafe { IrqsOff::new() };
    if let Err(why) = fpu::control_registers(&irqs_off) {
        verdict::fail(format_args!("control registers of CPU {}: {why}", cpu.number.get()));
    }
}
