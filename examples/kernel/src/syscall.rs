//! System calls: what the tasks in user mode ask for, each a use of the library.

use fpu_x86::Pkru;

use crate::{
    counts::{self, count},
    cpu::{preempt_off, preempt_on, this_cpu, PerCpu},
    demand,
    entry::Frame,
    faults::Fault,
    fork,
    fpu::{self, IrqsOff},
    hw, rights,
    sched::{self, Next},
    seeded,
    session::{load, read, write},
    signal, steps,
    task::{self, Kind, Task},
    to_user, torture,
    user::{UserBlock, LOOK, RAISE, SYS_BORN, SYS_CHECK, SYS_SIGRETURN},
    verdict, xfd,
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
const EXEC: u32 = 20;
const SPOIL: u32 = 17;
const PERMIT: u32 = 21;

/// The current task's memory, while it waits for this call. Not to be kept while others run: a debugger may write there.
fn block(task: &Task) -> &'static mut UserBlock {
    // SAFETY: the task's own, and the caller drops it before it gives way.
    unsafe { &mut *task.block() }
}

/// Interrupts are off, and the registers hold the current task.
#[no_mangle]
extern "C" fn syscall_dispatch(frame: &mut Frame) -> ! {
    verdict::tiles(xfd::from_user());
    let cpu = this_cpu();
    let task = task::of(cpu);
    if seeded::on(Fault::VectorKernel) {
        seeded::seeded_vector_instruction();
    }
    match frame.rax as u32 {
        SYS_BORN => {
            verdict::compare(task, cpu, block(task), true);
            demand::compare(task, cpu, block(task), true);
            next_round(task, cpu, block(task));
        }
        SYS_CHECK => {
            verdict::compare(task, cpu, block(task), false);
            demand::compare(task, cpu, block(task), false);
            next_round(task, cpu, block(task));
        }
        SYS_SIGRETURN => {
            let back =
                task.fpu().is_some_and(|fpu| signal::sigreturn(task, fpu, block(task), frame));
            if !back {
                // SAFETY: interrupts are off, and it is the current task's frame.
                unsafe { to_user::ends(task, frame) };
            }
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
                        verdict::word(
                            task,
                            "pkru",
                            block(task).pkru_want.into(),
                            now.bits().into(),
                        );
                    }
                    rights::access(task, Pkru::from_bits(block(task).pkru_want));
                }
                None => sched::schedule(Next::Any),
            }
        }
        SLEEP => {
            sched::schedule(Next::Idle);
            rights::access(task, Pkru::from_bits(block(task).pkru_want));
        }
        EXIT => {
            count(&counts::EXITS);
            // SAFETY: interrupts are off, and the current task exits.
            let child = task.kind == Kind::Holder
                && cpu.random() & 1 == 0
                && unsafe { fork::begins(task, block(task)) };
            if !child {
                // SAFETY: interrupts are off, and it is the current task's frame.
                unsafe { to_user::ends(task, frame) };
            }
        }
        EXEC => {
            // SAFETY: interrupts are off.
            let mut here = unsafe { IrqsOff::new() };
            // SAFETY: interrupts are off, and it is the current task's frame.
            if let Err(why) = unsafe { task.exec(frame, &mut here) } {
                verdict::refused(task, why);
            }
            demand::shrink(task, here);
        }
        PERMIT => demand::permit(task),
        number => {
            // Half of the time the task has slept, and maybe moved: what it asks for is not in the registers.
            if cpu.random() & 1 == 0 {
                sched::schedule(Next::Any);
            }
            with_registers(number, task, block(task));
        }
    }
    to_user::return_to_user(frame)
}

/// Calls that look at the task's registers, with preemption off.
fn with_registers(number: u32, task: &'static Task, block: &mut UserBlock) {
    let Some(context) = task.fpu() else { return };
    let cpu = preempt_off();
    if number == STEPPED {
        // An interrupt after each instruction; those of the timer stay away.
        match cpu.random() & 3 {
            0 => steps::stepped(|| read(task, context, block)),
            1 => steps::stepped(|| write(task, context, block)),
            2 => steps::stepped(|| load(task, context)),
            _ => steps::stepped(|| torture::section(task)),
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
        119..=122 => STEPPED,
        123 => EXEC,
        124..=125 => EXIT,
        _ if hw::bad_images() => SPOIL,
        _ => EXIT,
    };
    if demand::choose(task, block, cpu.random()) {
        block.action = PERMIT;
    }
    match block.action {
        YIELD if task.kind == Kind::Quiet => block.action = LOOK,
        RAISE if task.kind == Kind::Quiet => block.action = SPIN,
        _ => {}
    }
}
