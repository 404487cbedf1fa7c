//! System calls: what the tasks in user mode ask for, each a use of the library.

use fpu_core::session::TaskState;
use fpu_x86::{Components, Pkru};

use crate::{
    cpu::{this_cpu, PerCpu},
    faults::Fault,
    fork,
    fpu::{self, Fpu, PreemptOff},
    hw, rights,
    sched::{self, Next},
    seeded,
    task::{Kind, Task},
    torture::{self, preempt_off, preempt_on},
    trap::Frame,
    user::{UserBlock, LOOK, RAISE, SYS_BORN, SYS_CHECK},
    verdict,
};

/// Numbers of the calls that a round can consist of; 0 is to spin.
const SPIN: u32 = 0;
const YIELD: u32 = 10;
const SLEEP: u32 = 11;
const SECTIONS: u32 = 12;
const READ: u32 = 13;
const WRITE: u32 = 14;
const STEPPED: u32 = 15;
const LOAD: u32 = 18;
const EXIT: u32 = 16;
const FORK: u32 = 19;
const SPOIL: u32 = 17;

/// Interrupts are off, and the registers hold the current task.
#[no_mangle]
extern "C" fn syscall_dispatch(frame: &mut Frame) -> ! {
    let cpu = this_cpu();
    let task = cpu.current();
    if seeded::on(Fault::VectorKernel) {
        seeded::seeded_vector_instruction();
    }
    // SAFETY: the task's own memory, while it waits for this call.
    let block = unsafe { &mut *task.block() };
    match frame.rax as u32 {
        SYS_BORN => {
            verdict::compare(task, cpu, block, true);
            next_round(task, cpu, block);
        }
        SYS_CHECK => {
            verdict::compare(task, cpu, block, false);
            next_round(task, cpu, block);
        }
        SPIN | YIELD => {
            // Preempted with other rights than its own, as where a copy to user memory sleeps.
            let rights = Pkru::from_bits(cpu.random() as u32 & !3);
            match task.pkru() {
                Some(own) => {
                    fpu::KEYS.with_rights(own, rights, || {
                        sched::schedule(Next::Any);
                        rights::access(task, rights);
                    });
                    if let Some(now) = fpu::KEYS.current(own) {
                        verdict::word(task, "pkru", block.pkru_want.into(), now.bits().into());
                    }
                    rights::access(task, Pkru::from_bits(block.pkru_want));
                }
                None => sched::schedule(Next::Any),
            }
        }
        SLEEP => {
            sched::schedule(Next::Idle);
            rights::access(task, Pkru::from_bits(block.pkru_want));
        }
        EXIT => {
            verdict::count_exit();
            // SAFETY: interrupts are off, and the current task exits.
            let child = task.kind == Kind::Holder
                && cpu.random() & 1 == 0
                && unsafe { fork::begins(task, block) };
            if !child {
                // SAFETY: interrupts are off, and it is the current task's frame.
                unsafe { task.born_again(frame) };
            }
        }
        number => {
            // Half of the time the task has slept, and maybe moved: what it asks for is not in the registers.
            if cpu.random() & 1 == 0 {
                sched::schedule(Next::Any);
            }
            with_registers(number, task, block);
        }
    }
    sched::return_to_user(frame)
}

/// Calls that look at the task's registers, with preemption off.
fn with_registers(number: u32, task: &'static Task, block: &mut UserBlock) {
    let Some(context) = task.fpu() else { return };
    let cpu = preempt_off();
    if number == STEPPED {
        // An interrupt after each instruction; those of the timer stay away.
        match cpu.random() & 3 {
            0 => torture::stepped(|| read(task, context, block)),
            1 => torture::stepped(|| write(task, context, block)),
            2 => torture::stepped(|| load(task, context)),
            _ => torture::stepped(|| torture::section(task)),
        }
    } else {
        x86_64::instructions::interrupts::enable();
        match number {
            SECTIONS => sections(task, cpu),
            READ => read(task, context, block),
            WRITE => write(task, context, block),
            LOAD => load(task, context),
            FORK if task.kind == Kind::Holder => fork::fork(task, context, block),
            FORK => {}
            SPOIL => {
                write(task, context, block);
                // SAFETY: `write` has dropped the claim on the registers; asked for where `bad_images` only.
                unsafe { task.spoil() };
            }
            _ => verdict::fail(format_args!("task {}: no system call {number}", task.slot)),
        }
        x86_64::instructions::interrupts::disable();
    }
    preempt_on();
}

/// Several sections in one call save the task once.
fn sections(task: &'static Task, cpu: &PerCpu) {
    let before = cpu.counters.totals();
    let count = 2 + cpu.random() % 4;
    for _ in 0..count {
        torture::section(task);
    }
    let after = cpu.counters.totals();
    let (saves, restores) = (after.saved - before.saved, after.restored - before.restored);
    if saves > 1 || restores > 0 {
        verdict::fail(format_args!(
            "task {}: {count} sections in one call took {saves} saves and {restores} restores",
            task.slot
        ));
    }
}

pub fn open<'a>(
    task: &Task,
    context: &'a Fpu,
    here: &'a mut PreemptOff,
) -> TaskState<'a, PreemptOff> {
    match context.open(here) {
        Ok(state) => state,
        Err(why) => verdict::refused(task, why),
    }
}

/// What the image says, in whatever format and by whatever instruction it was saved, is what the task has in
/// its registers. (A task that leaves the FPU alone wants the initial state.)
fn read(task: &Task, context: &Fpu, block: &UserBlock) {
    // SAFETY: preemption is off.
    let mut here = unsafe { PreemptOff::new() };
    let session = open(task, context, &mut here).make_memory_valid_read();
    let image = session.image();
    let want = &block.want;
    verdict::word(task, "fcw in memory", want.fcw().into(), image.fcw().into());
    verdict::word(task, "mxcsr in memory", want.mxcsr().into(), image.mxcsr().into());
    for n in 0..8 {
        let (significand, exponent) = want.x87(n);
        if let Some(st) = image.st(n) {
            words(task, "st in memory", &[significand], &st[..8]);
            verdict::word(
                task,
                "st in memory",
                exponent.into(),
                u16::from_le_bytes([st[8], st[9]]).into(),
            );
        }
        if let Some(mask) = image.opmask(n) {
            verdict::word(task, "k in memory", want.mask(n), mask);
        }
    }
    for n in 0..16 {
        let vector = want.vector(n);
        if let Some(low) = image.xmm(n) {
            words(task, "xmm in memory", &vector[..2], &low);
        }
        if let Some(middle) = image.ymm_hi(n) {
            words(task, "ymm in memory", &vector[2..4], &middle);
        }
        if let Some(high) = image.zmm_hi256(n) {
            words(task, "zmm in memory", &vector[4..], &high);
        }
        if let Some(whole) = image.zmm_hi16(n) {
            words(task, "zmm16-31 in memory", want.vector(n + 16), &whole);
        }
    }
    if hw::has_ssp() {
        let mut ssp = [0; 8];
        // IA32_PL3_SSP is the second register of CET_U.
        if image.read(Components::CET_U, 8, &mut ssp).is_err() {
            verdict::fail(format_args!("task {}: its image has no CET_U", task.slot));
        }
        verdict::word(task, "ssp in memory", task.ssp.get(), u64::from_le_bytes(ssp));
    }
}

/// The registers of a class, as bytes of an image.
fn words(task: &Task, what: &'static str, want: &[u64], seen: &[u8]) {
    for (want, seen) in want.iter().zip(seen.chunks_exact(8)) {
        let word = seen.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        verdict::word(task, what, *want, word);
    }
}

/// What is written to the image is what the task finds in its registers.
fn write(task: &Task, context: &Fpu, block: &mut UserBlock) {
    // SAFETY: preemption is off.
    let mut here = unsafe { PreemptOff::new() };
    let mut session = open(task, context, &mut here).make_memory_valid_write();
    if task.kind != Kind::Holder {
        return;
    }
    // Round up instead of down, and the other way round.
    let mxcsr = block.want.mxcsr() ^ 0x6000;
    let word = block.want.vector(5)[0] ^ 0xFFFF_0000_FFFF;
    let mut xmm = [0; 16];
    for (n, byte) in xmm.iter_mut().enumerate() {
        let half = if n < 8 { word } else { block.want.vector(5)[1] };
        *byte = (half >> (8 * (n % 8))) as u8;
    }
    let mut image = session.image_mut();
    if image.set_mxcsr(mxcsr).is_err() || image.set_xmm(5, xmm).is_err() {
        verdict::fail(format_args!("task {}: its image cannot be written", task.slot));
    }
    block.want.set_mxcsr(mxcsr);
    block.want.vector_mut(5)[0] = word;
}

/// The registers are loaded before they are due.
fn load(task: &Task, context: &Fpu) {
    // SAFETY: preemption is off.
    let mut here = unsafe { PreemptOff::new() };
    if let Err(why) = open(task, context, &mut here).make_registers_valid() {
        verdict::refused(task, why);
    }
}

/// Chooses the next pattern, and what to do while the registers hold it.
fn next_round(task: &Task, cpu: &PerCpu, block: &mut UserBlock) {
    let seed = task.seed.get() + 1;
    task.seed.set(seed);
    if task.kind == Kind::Holder {
        block.want.quiet_set_pattern(seed);
        // Key 0 stays usable.
        block.pkru_want = (seed as u32).wrapping_mul(0x9E37_79B1) & !3;
        if hw::has_ssp() {
            task.ssp.set((seed << 5) & 0x7FFF_FFFF_FFE0);
            // SAFETY: the registers hold the task, so this is its own, as if it had set it in user mode.
            unsafe { hw::write_ssp(task.ssp.get()) };
        }
    }
    let random = cpu.random();
    block.spin = torture::spins(random >> 16);
    block.action = match random & 0x7F {
        0..=66 => SPIN,
        67 => RAISE,
        68..=71 => FORK,
        72..=87 => YIELD,
        88..=97 => SLEEP,
        98..=107 => SECTIONS,
        108..=114 => READ,
        115..=117 => WRITE,
        118 => LOAD,
        119..=123 => STEPPED,
        124..=125 => EXIT,
        _ if hw::bad_images() => SPOIL,
        _ => EXIT,
    };
    match block.action {
        YIELD if task.kind == Kind::Quiet => block.action = LOOK,
        RAISE if task.kind == Kind::Quiet => block.action = SPIN,
        _ => {}
    }
}
