//! What happens to tasks at random moments: sections in interrupts, NMIs, and single steps.

use core::{
    arch::asm,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use fpu_core::{Error, KernelFpu, KernelUnits};
use fpu_x86::units::{SIMD, X87};

use x86_64::instructions::interrupts;

use crate::{
    apic,
    counts::{self, count, CLOCK},
    cpu::{self, state, this_cpu, PerCpu},
    entry::{Frame, TIMER},
    faults::Fault,
    files::{scribble, seen},
    fpu::{Fpu, InIrq, InNmi, PreemptOff},
    params::MAX_CPUS,
    regs, seeded, serial, signal,
    task::{self, Kind, Task},
    verdict, watch,
};

/// Microseconds of the clock between two signs of life on the serial line.
const BEAT: u64 = 250_000;

static TICKS_PER_MS: AtomicU32 = AtomicU32::new(0);
/// Rounds of the user program's loop in a millisecond.
static SPINS_PER_MS: AtomicU64 = AtomicU64::new(0);
/// The interval that CPU 0's timer was last set to.
static ARMED: AtomicU64 = AtomicU64::new(0);

/// Sets up what follows; the timer is calibrated.
pub fn prepare(ticks_per_ms: u32) {
    TICKS_PER_MS.store(ticks_per_ms, Relaxed);
    // How fast the loop of ring 3 is here.
    apic::arm_silent(u32::MAX);
    let before = apic::remaining();
    const ROUNDS: u64 = 100_000;
    // SAFETY: counts a register down.
    unsafe { asm!("2: dec {n}", "jnz 2b", n = inout(reg) ROUNDS => _, options(nomem, nostack)) };
    let took = u64::from(before - apic::remaining()).max(1);
    apic::arm_silent(0);
    SPINS_PER_MS.store((ROUNDS * u64::from(ticks_per_ms) / took).max(1), Relaxed);
}

/// Rounds of a spin of up to two thirds of a millisecond.
pub fn spins(random: u64) -> u64 {
    SPINS_PER_MS.load(Relaxed) * (random % 1024) / 1536
}

/// Sets the timer to 50 to 1000 microseconds: at least 1 kHz, 2 kHz on the average.
pub fn arm(cpu: &PerCpu) {
    let us = 50 + cpu.random() % 951;
    if cpu.number.get() == 0 {
        ARMED.store(us, Relaxed);
    }
    let count = u64::from(TICKS_PER_MS.load(Relaxed)) * us / 1000;
    // SAFETY: the vector has its handler.
    unsafe { apic::arm(TIMER, (count as u32).max(1)) };
}

/// The timer has interrupted `frame`, which may be anything that runs with interrupts on.
pub fn tick(_frame: &Frame) {
    let cpu = this_cpu();
    count(&counts::TICKS);
    if cpu.number.get() == 0 {
        let before = CLOCK.fetch_add(ARMED.load(Relaxed), Relaxed);
        let beat = CLOCK.load(Relaxed) / BEAT;
        if beat != before / BEAT {
            // Tells the reader of the serial line that a verdict will come.
            if let Some(mut line) = serial::try_lock() {
                line.put("tick ").put_dec(beat).put("\n");
            }
        }
    }
    arm(cpu);
    let random = cpu.random();
    if seeded::on(Fault::NoSection) {
        // SAFETY: C35 (the kernel's registers) is broken on purpose.
        unsafe { scribble(cpu) };
    } else if !seeded::on(Fault::NoIrqSections) && random & 3 != 0 {
        if irq_section(cpu, units(random)) {
            count(&counts::IRQ_SECTIONS);
        } else {
            count(&counts::BUSY);
            let worker = task::of(cpu).kind == Kind::Worker;
            counts::WORKER_BUSY.fetch_add(worker.into(), Relaxed);
        }
    }
    if random >> 24 & 31 == 0 {
        signal::post(random >> 32);
    }
    if random & 0x70 == 0 {
        // To itself; the CPU that takes others down, and so knows that they are not on their way, to all.
        let number = if cpu.number.get() == 0 { (random >> 8) as usize % MAX_CPUS } else { 0 };
        let to = if number == 0 { cpu } else { &cpu::all()[number] };
        if to.state.load(Relaxed) == state::ON {
            // SAFETY: it has a handler, which returns.
            unsafe { apic::send_nmi(to.apic.load(Relaxed) as u8) };
        }
    }
}

/// Some units, all of them in half of the cases.
fn units(random: u64) -> KernelUnits {
    match random >> 16 & 7 {
        0 => KernelUnits::NONE,
        1 => X87,
        2 => SIMD,
        _ => KernelUnits::ALL,
    }
}

/// A section in an interrupt, which may have come anywhere outside of the scheduler. False if it was
/// refused because the interrupted code has one, or looks at a task's registers.
fn irq_section(cpu: &PerCpu, units: KernelUnits) -> bool {
    // SAFETY: an interrupt handler, with interrupts off.
    let mut irq = unsafe { InIrq::new() };
    let current = task::of(cpu);
    let saved = counts::saved(&cpu.counters);
    let had_one = match irq.kernel_fpu(current.fpu().map(Fpu::context), units) {
        Ok(section) => {
            control_words(cpu, units);
            // SAFETY: C35: a section.
            unsafe { scribble(cpu) };
            drop(section);
            true
        }
        Err(Error::Busy) => {
            if seeded::on(Fault::IgnoreBusy) {
                // SAFETY: C35 (the kernel's registers) is broken on purpose.
                unsafe { scribble(cpu) };
            }
            false
        }
        Err(why) => verdict::refused(current, why),
    };
    counts::of_guest(current.vcpu().is_some(), &cpu.counters, saved);
    had_one
}

/// A section begins with the control words that compiled code expects, not with the task's.
fn control_words(cpu: &PerCpu, units: KernelUnits) {
    let seen = seen(cpu);
    // SAFETY: C34: classes of this CPU, and its own file. C36: CR0.TS is never set here.
    unsafe { regs::dump(seen) };
    // SAFETY: no other code has it.
    let seen = unsafe { &*seen };
    let x87 = [
        ("fcw", 0x37F, seen.fcw().into()),
        ("fsw", 0, seen.fsw().into()),
        ("ftw", 0, u32::from(seen.ftw())),
    ];
    let simd = [("mxcsr", 0x1F80, seen.mxcsr())];
    let x87 = x87.iter().filter(|_| units.contains(X87));
    for (name, want, seen) in x87.chain(simd.iter().filter(|_| units.contains(SIMD))) {
        if seen != want {
            verdict::fail(format_args!(
                "kernel section on CPU {}: register {name} is {seen:#x} and should be {want:#x}",
                cpu.number.get()
            ));
        }
    }
}

/// Kernel code uses every register in a section; an interrupt's section is refused, or comes before.
///
/// Preemption is off. Where interrupts are on, the section ends with them off half of the time: it has no
/// part in that.
pub fn section(current: &'static Task) {
    // SAFETY: preemption is off until the end of the function.
    let mut here = unsafe { PreemptOff::new() };
    let cpu = this_cpu();
    match here.kernel_fpu(current.fpu().map(Fpu::context), KernelUnits::ALL) {
        Ok(section) => {
            // SAFETY: C35: a section.
            let want = unsafe { scribble(cpu) };
            for _ in 0..cpu.random() % 512 {
                core::hint::spin_loop();
            }
            let seen = seen(cpu);
            // SAFETY: C34, C36: as in `control_words`; a handler that comes now is refused its section.
            unsafe { regs::dump(seen) };
            // SAFETY: this CPU's own file, which no other code uses until the section ends.
            verdict::section(cpu, want, unsafe { &*seen });
            let on = interrupts::are_enabled();
            if on && cpu.random() & 1 == 0 {
                interrupts::disable();
                drop(section);
                interrupts::enable();
            } else {
                drop(section);
            }
            if interrupts::are_enabled() != on {
                verdict::fail(format_args!("a section has changed whether interrupts are on"));
            }
            count(&counts::SECTIONS);
        }
        Err(why) => verdict::refused(current, why),
    };
}

/// A non-maskable interrupt asks for a section, wherever it came.
pub fn nmi(frame: &Frame) {
    // It may come in the two instructions after SYSCALL in which RSP is the user's. Nothing else is on its stack.
    let end = core::ptr::from_ref(frame).wrapping_add(1) as u64;
    if end != this_cpu().nmi_stack_top() {
        verdict::fail(format_args!("an NMI is not on its own stack: its frame ends at {end:#x}"));
    }
    // SAFETY: the handler of NMIs.
    let mut nmi = unsafe { InNmi::new() };
    match nmi.kernel_fpu(None, KernelUnits::ALL) {
        Err(Error::Nmi) => {}
        Err(why) => verdict::fail(format_args!("an NMI was refused for a wrong reason: {why}")),
        Ok(section) => {
            drop(section);
            verdict::fail(format_args!("an NMI was given a section"));
        }
    }
    // Through GS, which the handler's entry has to find right wherever it came.
    let cpu = this_cpu();
    cpu.nmis.set(cpu.nmis.get() + 1);
    if seeded::on(Fault::NmiUses) {
        // SAFETY: C35 (the kernel's registers) is broken on purpose.
        unsafe { scribble(cpu) };
    }
    count(&counts::NMIS);
}

/// After one instruction of [`stepped`](crate::steps::stepped). A section after each would hide what the one before has broken.
pub fn step(frame: &mut Frame) {
    if watch::step(frame) {
        return;
    }
    count(&counts::STEPS);
    if this_cpu().random() & 63 != 0 {
        return;
    }
    count(&counts::STEP_ASKED);
    if irq_section(this_cpu(), KernelUnits::NONE) {
        count(&counts::STEP_SECTIONS);
    }
}

/// An x87 error of user mode: did the current task raise it? It ends then.
pub fn raised_as_it_should() -> bool {
    let raised = task::current().raises();
    counts::X87_ERRORS.fetch_add(raised.into(), Relaxed);
    raised
}
