//! What happens to tasks at random moments: sections in interrupts, NMIs, and single steps.

use core::{
    arch::asm,
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use fpu_core::{verify::Verified, Error, KernelFpu, KernelUnits, RestoreFault};
use fpu_x86::units::{SIMD, X87};

use x86_64::instructions::interrupts;

use crate::{
    apic,
    cpu::{self, state, this_cpu, PerCpu},
    faults::Fault,
    fpu::{self, Fpu, InIrq, InNmi, IrqsOff, PreemptOff},
    guest, hw, main_params,
    params::MAX_CPUS,
    refusal,
    regs::{self, RegFile},
    sched::{self, Next},
    seeded, serial,
    task::{Kind, Memory, Task, AREA},
    trap::{Frame, TIMER},
    user::RAISE,
    verdict, watch,
};

/// Moments of a run, counted.
pub static IRQ_SECTIONS: AtomicU64 = AtomicU64::new(0);
pub static SECTIONS: AtomicU64 = AtomicU64::new(0);
pub static BUSY: AtomicU64 = AtomicU64::new(0);
/// Of these, those that had interrupted a worker's section or guest.
pub static WORKER_BUSY: AtomicU64 = AtomicU64::new(0);
pub static NMIS: AtomicU64 = AtomicU64::new(0);
/// Single steps, those after which a section was asked for, and had.
pub static STEPS: AtomicU64 = AtomicU64::new(0);
pub static STEP_ASKED: AtomicU64 = AtomicU64::new(0);
pub static STEP_SECTIONS: AtomicU64 = AtomicU64::new(0);
/// Times a CPU went to sleep, and those when it had to give registers up.
pub static IDLE: AtomicU64 = AtomicU64::new(0);
pub static RELEASED: AtomicU64 = AtomicU64::new(0);
pub static VERIFIED: AtomicU64 = AtomicU64::new(0);
/// Refused images whose error has the vector, and those after a handler that set RIP only.
pub static BAD_IMAGES: AtomicU64 = AtomicU64::new(0);
pub static RIP_ONLY: AtomicU64 = AtomicU64::new(0);
/// x87 errors that tasks raised.
pub static X87_ERRORS: AtomicU64 = AtomicU64::new(0);
static SERVED: AtomicU64 = AtomicU64::new(0);
pub static TICKS: AtomicU64 = AtomicU64::new(0);
/// Microseconds that CPU 0's timer has run.
pub static CLOCK: AtomicU64 = AtomicU64::new(0);

/// Microseconds of it between two signs of life on the serial line.
const BEAT: u64 = 250_000;

static TICKS_PER_MS: AtomicU32 = AtomicU32::new(0);
/// Rounds of the user program's loop in a millisecond.
static SPINS_PER_MS: AtomicU64 = AtomicU64::new(0);
/// The interval that CPU 0's timer was last set to.
static ARMED: AtomicU64 = AtomicU64::new(0);

/// A file that is filled at the start. Stacks are too small to move many of them about.
pub struct File(UnsafeCell<MaybeUninit<RegFile>>);
// SAFETY: see where they are used.
unsafe impl Sync for File {}

impl File {
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }
    pub fn fill(&self, file: RegFile) {
        // SAFETY: called before interrupts, tasks and other CPUs.
        unsafe { self.get().write(file) }
    }
    pub fn get(&self) -> *mut RegFile {
        self.0.get().cast()
    }
}

/// What sections load: patterns that no task has. Read only.
static SCRIBBLES: [File; 4] = [const { File::new() }; 4];
/// What a section of each CPU finds: one at a time, as a second is refused.
static SEEN: [File; MAX_CPUS] = [const { File::new() }; MAX_CPUS];

/// Sets up what follows; the timer is calibrated.
pub fn prepare(ticks_per_ms: u32) {
    TICKS_PER_MS.store(ticks_per_ms, Relaxed);
    let classes = hw::classes();
    for (n, file) in SCRIBBLES.iter().enumerate() {
        file.fill(RegFile::pattern((n as u64 + 1) << 40, classes));
    }
    for file in &SEEN {
        file.fill(RegFile::initial(classes));
    }
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
    TICKS.fetch_add(1, Relaxed);
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
            IRQ_SECTIONS.fetch_add(1, Relaxed);
        } else {
            BUSY.fetch_add(1, Relaxed);
            let worker = cpu.current().kind == Kind::Worker;
            WORKER_BUSY.fetch_add(worker.into(), Relaxed);
        }
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
    let current = cpu.current();
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

/// This CPU's file for what a section finds.
pub fn seen(cpu: &PerCpu) -> *mut RegFile {
    SEEN[cpu.number.get() as usize % MAX_CPUS].get()
}

fn pattern(random: u64) -> &'static RegFile {
    // SAFETY: filled by `prepare`, and not written since.
    unsafe { &*SCRIBBLES[random as usize % SCRIBBLES.len()].get() }
}

/// Puts other values into every register that tasks have.
///
/// # Safety
///
/// The kernel's registers (C35) of [`regs::load`]: in a section, or where a fault leaves it out on purpose.
pub unsafe fn scribble(cpu: &PerCpu) -> &'static RegFile {
    let pattern = pattern(cpu.random());
    // SAFETY: C34: classes of this CPU. C35: the caller's.
    unsafe {
        regs::load(pattern);
        hw::write_ssp(0x5EC7_0000);
    }
    pattern
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
            SECTIONS.fetch_add(1, Relaxed);
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
    NMIS.fetch_add(1, Relaxed);
}

/// Runs `code` with a trap after each instruction; now and then it has a section. Interrupts are off.
pub fn stepped(code: impl FnOnce()) {
    // SAFETY: sets TF, and clears it again; the handler of the traps is `step`.
    unsafe { asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq") };
    code();
    stop_stepping();
}

/// The end of it, also where `code` ends the run.
pub fn stop_stepping() {
    // SAFETY: clears TF.
    unsafe { asm!("pushfq", "and dword ptr [rsp], 0xfffffeff", "popfq") };
}

/// After one instruction of [`stepped`]. A section after each would hide what the one before has broken.
pub fn step(frame: &mut Frame) {
    if watch::step(frame) {
        return;
    }
    STEPS.fetch_add(1, Relaxed);
    if this_cpu().random() & 63 != 0 {
        return;
    }
    STEP_ASKED.fetch_add(1, Relaxed);
    if irq_section(this_cpu(), KernelUnits::NONE) {
        STEP_SECTIONS.fetch_add(1, Relaxed);
    }
}

/// A kernel thread: sections, its guest, and giving way.
pub fn worker() -> ! {
    loop {
        if !seeded::on(Fault::MaskedWorkers) {
            interrupts::enable();
        }
        let cpu = preempt_off();
        // Often none, so that a guest meets the claim of a task.
        for _ in 0..(cpu.random() % 4).saturating_sub(1) {
            section(cpu.current());
        }
        for _ in 0..cpu.random() % 3 {
            guest::round(cpu.current());
        }
        preempt_on();
        interrupts::disable();
        sched::schedule(if this_cpu().random() & 3 == 0 { Next::Idle } else { Next::Any });
    }
}

/// From here on the code stays on its CPU, which it gets.
pub fn preempt_off() -> &'static PerCpu {
    // With interrupts off in between, so that the block is that of the CPU where it is counted.
    interrupts::without_interrupts(|| {
        let cpu = this_cpu();
        cpu.preempt_off.set(cpu.preempt_off.get() + 1);
        cpu
    })
}

/// The other end; a preemption that was due comes with the next interrupt, or on the way to user mode.
pub fn preempt_on() {
    let cpu = this_cpu();
    cpu.preempt_off.set(cpu.preempt_off.get() - 1);
}

/// Memory for what the registers of each CPU hold, where they are compared with the claims.
static CHECK_MEMORY: [Memory<AREA>; MAX_CPUS] = [const { Memory::new() }; MAX_CPUS];

/// Sets up the comparison on this CPU, once it is online. Interrupts are off.
pub fn prepare_check(cpu: &PerCpu) {
    // SAFETY: this CPU, interrupts are off; not kept.
    if !main_params().check || unsafe { cpu.check_area() }.is_some() {
        return;
    }
    let base = CHECK_MEMORY[cpu.number.get() as usize % MAX_CPUS].base();
    // SAFETY: K19: this CPU's own, given once.
    match unsafe { fpu::new_check_area(base, AREA) } {
        // SAFETY: this CPU, interrupts are off.
        Ok(area) => unsafe { cpu.set_check_area(area) },
        Err(why) => verdict::fail(format_args!("CPU {}: {why}", cpu.number.get())),
    }
}

/// The last look before user mode, if that is switched on. Interrupts are off.
pub fn before_user(task: &'static Task, context: &Fpu) {
    let cpu = this_cpu();
    // SAFETY: this CPU, interrupts are off; the only one until the end of the function.
    let Some(scratch) = (unsafe { cpu.check_area() }) else { return };
    // SAFETY: interrupts are off.
    let mut here = unsafe { IrqsOff::new() };
    match fpu::registers(context, &mut here, scratch) {
        Ok(Verified::Agreed) => {
            VERIFIED.fetch_add(1, Relaxed);
        }
        Ok(_) => {}
        Err(why) => verdict::disagree(task, cpu, why),
    }
}

/// The last thing before this CPU sleeps. Interrupts are off.
pub fn before_sleep(cpu: &PerCpu) {
    // SAFETY: interrupts are off.
    let mut here = unsafe { IrqsOff::new() };
    match fpu::idle(&mut here) {
        Ok(released) => {
            IDLE.fetch_add(1, Relaxed);
            RELEASED.fetch_add(released.into(), Relaxed);
        }
        Err(why) => verdict::refused(cpu.current(), why),
    }
}

/// Do the handlers ask the library about faults?
///
/// While the first CPU finds out which images are refused, they do in any case.
pub fn serves_fixup() -> bool {
    !seeded::on(Fault::NoFixup) || CLOCK.load(Relaxed) == 0
}

/// Does the handler tell the vector in RAX? Handlers of the type `extern "x86-interrupt"` can set RIP only: once
/// tasks run, every second fault is served as they would.
pub fn tells_vector() -> bool {
    if CLOCK.load(Relaxed) == 0 {
        return !refusal::rip_only();
    }
    SERVED.fetch_add(1, Relaxed) & 1 == 0
}

/// Does the current task, which is in user mode, raise an x87 error?
pub fn raises() -> bool {
    // SAFETY: the task's own memory, while it waits.
    unsafe { (*this_cpu().current().block()).action == RAISE }
}

/// An x87 error of user mode: did the current task raise it? It ends then.
pub fn raised_as_it_should() -> bool {
    let raised = raises();
    X87_ERRORS.fetch_add(raised.into(), Relaxed);
    raised
}

/// A spoilt image was refused, by #GP or, where the handler has not told it, by an unknown vector.
pub fn refused_as_it_should(task: &Task, fault: RestoreFault) {
    match fault.0 {
        13 => &BAD_IMAGES,
        255 => &RIP_ONLY,
        _ => verdict::refused(task, Error::RestoreFailed(fault)),
    }
    .fetch_add(1, Relaxed);
}

/// Compares the control registers with the plan, and breaks them where the fault asks for it.
///
/// Interrupts are off.
pub fn check_control(cpu: &PerCpu) {
    if seeded::on(Fault::ControlDrift) && CLOCK.load(Relaxed) > 20_000 {
        use x86_64::registers::control::{Cr4, Cr4Flags};
        // SAFETY: no exception is unmasked; it is what C5 (bits stay) forbids, and what the fault is for.
        unsafe { Cr4::update(|cr4| *cr4 &= !Cr4Flags::OSXMMEXCPT_ENABLE) };
    }
    // SAFETY: interrupts are off.
    let irqs_off = unsafe { fpu::IrqsOff::new() };
    if let Err(why) = fpu::control_registers(&irqs_off) {
        verdict::fail(format_args!("control registers of CPU {}: {why}", cpu.number.get()));
    }
}
