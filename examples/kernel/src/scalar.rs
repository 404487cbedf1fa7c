//! Threads of which most never use a register, in a kernel that is one trust domain: the trap of a first use.
//!
//! Before there are tasks in user mode, this kernel is a unikernel for a moment: threads of ring 0 take turns on one
//! stack, and the timer interrupts them for sections.

use core::{
    ptr::null_mut,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed},
};

use fpu_core::{
    trap::{switch, Trapped},
    KernelUnits, SwitchError,
};
use x86_64::{
    instructions::interrupts,
    registers::control::{Cr0, Cr0Flags},
};

use crate::{
    apic,
    counts::{self, count, COMPUTING},
    cpu::{this_cpu, PerCpu},
    faults::Fault,
    files::{self, File},
    fpu::{self, Fpu, InIrq, IrqsOff, PreemptOff, AREA},
    hw,
    memory::Memory,
    regs::{self, RegFile},
    seeded, torture, verdict,
};

/// The threads. The first computes from its first turn on, the second from the middle, and the others never.
const THREADS: usize = 5;
/// The least number of rounds; there are more until so many interrupts had sections, but not for ever.
const ROUNDS: usize = 24;
const SECTIONS: u64 = 10;

static AREAS: [Memory<AREA>; THREADS] = [const { Memory::new() }; THREADS];
/// What the two that compute load, in turn.
static PATTERNS: [[File; 2]; COMPUTING as usize] = [const { [const { File::new() }; 2] }; 2];
static SEEN: File = File::new();
/// While the threads take turns: they, and the one that has the CPU, and one.
static ALL: AtomicPtr<[Trapped<Fpu>; THREADS]> = AtomicPtr::new(null_mut());
static CURRENT: AtomicUsize = AtomicUsize::new(0);

/// The thread that has the CPU, and its context.
fn current() -> Option<(usize, &'static Trapped<Fpu>)> {
    let slot = CURRENT.load(Relaxed).checked_sub(1)?;
    // SAFETY: set while `run` has them, and borrows them for no change.
    let all = unsafe { ALL.load(Relaxed).as_ref()? };
    Some((slot, all.get(slot)?))
}

/// Tells whether the threads take turns.
pub fn is_running() -> bool {
    CURRENT.load(Relaxed) != 0
}

/// The first use of a register, in ring 0. Interrupts are off.
pub fn trapped() {
    let Some((slot, context)) = current() else { return };
    // SAFETY: interrupts are off, in the handler of an exception.
    let mut cpu = unsafe { IrqsOff::new() };
    match context.first_use(&mut cpu) {
        Ok(()) => count(&counts::FIRST_USES),
        Err(why) => verdict::fail(format_args!("the first use of thread {slot}: {why}")),
    }
}

/// The timer, which may have interrupted anything of a thread.
pub fn tick() {
    let (cpu, Some((slot, context))) = (this_cpu(), current()) else { return };
    let units = [KernelUnits::ALL, KernelUnits::NONE][cpu.random() as usize & 1];
    // SAFETY: C35: a section.
    let code = || _ = unsafe { files::scribble(cpu) };
    // SAFETY: an interrupt handler, with interrupts off.
    let mut irq = unsafe { InIrq::new() };
    let ran = if seeded::on(Fault::TrapUntold) {
        fpu_core::KernelFpu::with_kernel_fpu(&mut irq, None, units, code)
    } else {
        context.with_kernel_fpu(&mut irq, units, code)
    };
    match ran {
        Ok(()) => {
            count(&counts::TRAP_SECTIONS);
            // SAFETY: interrupts are off until the thread goes on, and the handler's other value is used no more.
            let mut cpu = unsafe { IrqsOff::new() };
            if let Err(why) = context.switch_in(&mut cpu) {
                verdict::fail(format_args!("thread {slot} after an interrupt: {why}"));
            }
        }
        Err(fpu_core::Error::Busy) => count(&counts::TRAP_BUSY),
        Err(why) => {
            verdict::fail(format_args!("a section in an interrupt of thread {slot}: {why}"))
        }
    }
    torture::arm(cpu);
}

/// What the registers hold is what the thread put there, or the initial state.
fn look(slot: usize, want: &RegFile) {
    // SAFETY: C34: classes of this CPU, and nobody else's file. C36: TS is clear, or its handler clears it.
    unsafe { regs::dump(SEEN.get()) };
    // SAFETY: one thread at a time, and no handler uses it.
    let seen = unsafe { &*SEEN.get() };
    count(&counts::CHECKS);
    if let Some(name) = RegFile::register_of(want.quiet_first_difference(seen)) {
        count(&counts::MISMATCHES);
        verdict::fail(format_args!(
            "thread {slot}: register {name} is {:#x} and should be {:#x}",
            name.value(seen),
            name.value(want)
        ));
    }
}

/// A thread's turn, with interrupts on.
fn turn(slot: usize, round: usize, context: &Trapped<Fpu>, cpu: &PerCpu) {
    let spin = |rounds| (0..rounds).for_each(|_| core::hint::spin_loop());
    interrupts::enable();
    spin(torture::spins(cpu.random()) / 4);
    let begins = slot * (ROUNDS / 2);
    if (slot as u64) < COMPUTING && round >= begins {
        let patterns = &PATTERNS[slot];
        let file = |round: usize| patterns[round & 1].get();
        // SAFETY: filled by `run`, and not written since.
        let want = if round == begins { files::initial() } else { unsafe { &*file(round - 1) } };
        look(slot, want);
        if !context.is_used() {
            verdict::fail(format_args!("the first use of thread {slot} was not trapped"));
        }
        // SAFETY: C34: classes of this CPU. C35: the thread's own registers; TS is clear, as the context is used.
        unsafe { regs::load(file(round)) };
        spin(torture::spins(cpu.random()) / 4);
    } else if cpu.random() & 3 == 0 {
        // A call into the kernel, with a section that interrupts meet.
        let random = cpu.random();
        // SAFETY: this kernel's threads are not preempted.
        let mut here = unsafe { PreemptOff::new() };
        // SAFETY: C35: a section.
        let section = || _ = unsafe { files::scribble(cpu) };
        let ran = context.with_kernel_fpu(&mut here, KernelUnits::ALL, || {
            section();
            spin(torture::spins(random) / 4);
        });
        if let Err(why) = ran {
            verdict::fail(format_args!("a section of thread {slot}: {why}"));
        }
        interrupts::disable();
        // SAFETY: interrupts are off, and `here` is used no more.
        let back = context.switch_in(&mut unsafe { IrqsOff::new() });
        if let Err(why) = back {
            verdict::fail(format_args!("thread {slot} after a section: {why}"));
        }
        interrupts::enable();
        spin(torture::spins(cpu.random()) / 8);
    }
    interrupts::disable();
}

/// Lets the threads take turns, and ends the run if one finds other registers than its own, or is trapped too often. Interrupts
/// are off, there is one CPU, and no task runs.
pub fn run(cpu: &PerCpu) {
    let context = |slot: usize| {
        let area = AREAS[slot].base();
        // SAFETY: K19: memory of this context alone.
        let context = unsafe { fpu::new_context(area, AREA) };
        let Ok(context) = context else {
            verdict::fail(format_args!("the context of thread {slot}"));
        };
        // SAFETY: K22: threads of this kernel. K23: `tick` and `turn` call its sections, and each is switched out.
        unsafe { fpu::trapped(context) }
    };
    let Ok(first) = context(0) else {
        // The plan has registers that CR0.TS does not cover.
        return;
    };
    let Ok(others) = try_map(context) else {
        verdict::fail(format_args!("a plan traps, and then not"));
    };
    let [a, b, c, d] = others;
    let mut all = [first, a, b, c, d];
    for (slot, files) in PATTERNS.iter().enumerate() {
        for (nth, file) in files.iter().enumerate() {
            file.fill(RegFile::pattern((0x51 + 2 * slot as u64 + nth as u64) << 48, hw::classes()));
        }
    }
    SEEN.fill(RegFile::initial(hw::classes()));
    ALL.store(&raw mut all, Relaxed);
    torture::arm(cpu);
    for round in 0..20 * ROUNDS {
        if round >= ROUNDS && counts::TRAP_SECTIONS.load(Relaxed) >= SECTIONS {
            break;
        }
        let mut prev = None;
        for (slot, context) in all.iter().enumerate() {
            // SAFETY: interrupts are off until the thread's turn.
            let mut here = unsafe { IrqsOff::new() };
            // Half of the switches know both threads.
            let switched = if round & 1 == 0 {
                switch(prev, Some(context), &mut here)
            } else {
                let left = prev.map_or(Ok(()), |prev: &Trapped<Fpu>| prev.switch_prepare(&here));
                left.map_err(SwitchError::Prev)
                    .and_then(|()| context.switch_in(&mut here).map_err(SwitchError::Next))
            };
            if let Err(why) = switched {
                verdict::fail(format_args!("a switch to thread {slot}: {why}"));
            }
            CURRENT.store(slot + 1, Relaxed);
            turn(slot, round, context, cpu);
            prev = Some(context);
        }
        // SAFETY: interrupts are off.
        if let Err(why) = switch(prev, None, &mut unsafe { IrqsOff::new() }) {
            verdict::fail(format_args!("a switch to idle: {why}"));
        }
        CURRENT.store(0, Relaxed);
        if Cr0::read().contains(Cr0Flags::TASK_SWITCHED) {
            verdict::fail(format_args!("the trap is armed after round {round}"));
        }
    }
    apic::arm_silent(0);
    ALL.store(null_mut(), Relaxed);
    let (uses, used) =
        (counts::FIRST_USES.load(Relaxed), all.iter().filter(|c| c.is_used()).count());
    if uses != COMPUTING || used as u64 != COMPUTING {
        verdict::fail(format_args!("{uses} first uses, {used} threads with registers"));
    }
}

/// The contexts of all threads but the first.
fn try_map<E>(
    mut context: impl FnMut(usize) -> Result<Trapped<Fpu>, E>,
) -> Result<[Trapped<Fpu>; THREADS - 1], E> {
    Ok([context(1)?, context(2)?, context(3)?, context(4)?])
}
