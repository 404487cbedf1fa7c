//! CPUs come and go, registers are lost: the thread that does it, and judges when all has been seen.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use fpu_core::{CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits};
use x86_64::instructions::{hlt, interrupts};

use crate::{
    apic, boot, check,
    counts::{self, count},
    cpu::{self, state, this_cpu, PerCpu},
    crash,
    faults::Fault,
    files,
    fpu::{self, IrqsOff},
    odd, params,
    sched::{self, Next},
    seeded, task, verdict, vmcb,
};

/// The word of the CPU that went last, for the fault that puts it back.
static OLD_WORD: AtomicU64 = AtomicU64::new(0);

/// The number under which a CPU comes online.
fn number_of(cpu: &PerCpu) -> u32 {
    if seeded::on(Fault::SameNumber) {
        0
    } else {
        cpu.number.get()
    }
}

/// This CPU begins, or begins again. Interrupts are off.
pub fn bring_up(cpu: &PerCpu) {
    if seeded::on(Fault::ClearedWords) {
        // SAFETY: it is what K13 (words kept) forbids, and what the fault is for.
        unsafe { cpu.fpu.set_resident(0) };
    }
    // SAFETY: interrupts are off, the CPU is not online, and is set up now.
    unsafe { odd::leave() };
    if let Err(why) = fpu::bring_up(number_of(cpu)) {
        verdict::fail(format_args!("CPU {} cannot be brought up: {why}", cpu.number.get()));
    }
    if seeded::on(Fault::StaleWords) && OLD_WORD.load(Relaxed) != 0 {
        // SAFETY: it is what K13 (words kept) forbids, and what the fault is for.
        unsafe { cpu.fpu.set_resident(OLD_WORD.load(Relaxed)) };
    }
    if let Some(first) = cpu::by_number(0).filter(|_| seeded::on(Fault::SameNumber)) {
        // SAFETY: K15 (own number) is broken already; with equal counts it shows soon. The other CPU may be in a section,
        // where its word is not open; this one's is.
        unsafe { cpu.fpu.set_resident(first.fpu.resident() | 1 << 63) };
    }
    check::prepare(cpu);
    if let Err(why) = fpu::protection_keys() {
        verdict::fail(format_args!("CPU {} differs: {why}", cpu.number.get()));
    }
    // SAFETY: interrupts are off.
    unsafe { vmcb::enable(cpu) };
    cpu.state.store(state::ON, Release);
}

/// Starts a CPU, for the first time or again, and waits until it is there.
pub fn start(number: usize) {
    let Some(cpu) = cpu::by_number(number) else { return };
    // SAFETY: its idle task's stack is free: it does not run. One CPU is started at a time. Nobody but
    // this thread uses `delay_us`.
    let sent = unsafe {
        boot::set_ap(task::idle_of(number).stack_top(), number as u32);
        apic::wake(number as u8, boot::TRAMPOLINE_PAGE)
    };
    let mut patience = 2000;
    while cpu.state.load(Acquire) != state::ON {
        if !sent || patience == 0 {
            verdict::fail(format_args!("CPU {number} does not start"));
        }
        patience -= 1;
        apic::delay_us(1000);
    }
}

/// The end of this CPU, from its idle task: no task runs here, and claims on its registers may stand.
pub fn leave_cpu(cpu: &PerCpu) -> ! {
    interrupts::disable();
    // SAFETY: interrupts are off.
    let mut here = unsafe { IrqsOff::new() };
    OLD_WORD.store(cpu.fpu.resident(), Relaxed);
    if let Err(why) = fpu::take_down(&mut here) {
        verdict::refused(task::of(cpu), why);
    }
    match here.kernel_fpu(None, KernelUnits::ALL).map(drop) {
        Err(Error::CpuOffline) => {}
        answer => verdict::fail(format_args!("a section on an offline CPU: {answer:?}")),
    }
    // With the power go the registers.
    lose_registers();
    cpu.state.store(state::OFF, Release);
    loop {
        hlt();
    }
}

fn lose_registers() {
    // SAFETY: only claimed registers are here, and the test is their loss.
    unsafe { files::scribble(this_cpu()) };
}

/// Takes a CPU down and starts it again. The other tasks run on meanwhile, or (`at_once`) wait, so that the
/// task which the CPU held runs there again with the claim of before.
fn cycle(number: usize, at_once: bool) {
    let Some(cpu) = cpu::by_number(number) else { return };
    if at_once {
        cpu::preempt_off();
    }
    cpu.state.store(state::LEAVING, Release);
    while cpu.state.load(Acquire) != state::OFF {
        if !at_once {
            pause(Next::Any);
        }
    }
    start(number);
    if at_once {
        cpu::preempt_on();
    }
    count(&counts::OFFLINE);
}

/// Registers are lost, the control registers are not.
fn doze() {
    interrupts::disable();
    // SAFETY: interrupts are off; only this thread is current here.
    let mut here = unsafe { IrqsOff::new() };
    lose_registers();
    if !seeded::on(Fault::NoResume) {
        if let Err(why) = here.fpu_resume() {
            verdict::refused(task::current(), why);
        }
    }
    count(&counts::RESUMES);
    pause(Next::Back);
}

/// Everything is lost: off, set up anew, on.
fn suspend() {
    interrupts::disable();
    let cpu = this_cpu();
    // SAFETY: interrupts are off; only this thread is current here.
    let mut here = unsafe { IrqsOff::new() };
    if let Err(why) = fpu::take_down(&mut here) {
        verdict::refused(task::of(cpu), why);
    }
    lose_registers();
    bring_up(cpu);
    count(&counts::RESUMES);
    pause(Next::Back);
}

fn pause(next: Next) {
    interrupts::disable();
    sched::schedule(next);
    interrupts::enable();
}

/// The thread: something every 2 ms, and the verdict when the goals are reached.
pub fn thread() -> ! {
    interrupts::enable();
    let params = params::given();
    let mut next = 0;
    let mut turn = 0;
    loop {
        let now = counts::CLOCK.load(Relaxed);
        crash::if_seeded(now);
        if seeded::on(Fault::ClearedWords) && params.cpus > 1 {
            // Short lives, so that the first stamps are issued again while tasks still have them.
            cycle(1, true);
            apic::delay_us(this_cpu().random() % 3000);
            verdict::judge(&params, now);
            continue;
        }
        if now < next {
            pause(Next::Any);
            continue;
        }
        next = now + 2000;
        turn += 1;
        match turn % 8 {
            1 | 3 | 5 => doze(),
            4 => suspend(),
            2 | 6 if params.cpus > 1 => cycle(1 + turn / 8 % (params.cpus - 1), turn % 8 == 6),
            _ => interrupts::without_interrupts(|| check::control(this_cpu())),
        }
        verdict::judge(&params, now);
    }
}

/// Where a CPU is when no thread runs.
pub fn idle() -> ! {
    loop {
        interrupts::disable();
        let cpu = this_cpu();
        if cpu.state.load(Acquire) == state::LEAVING {
            leave_cpu(cpu);
        }
        if cpu.random() & 0x3F == 0 {
            check::control(cpu);
        }
        sched::schedule(Next::Any);
        before_sleep(this_cpu());
        interrupts::enable_and_hlt();
    }
}

/// The last thing before this CPU sleeps. Interrupts are off.
fn before_sleep(cpu: &PerCpu) {
    // SAFETY: interrupts are off.
    let mut here = unsafe { IrqsOff::new() };
    match fpu::idle(&mut here) {
        Ok(released) => {
            count(&counts::IDLE);
            counts::RELEASED.fetch_add(released.into(), Relaxed);
        }
        Err(why) => verdict::refused(task::of(cpu), why),
    }
}
