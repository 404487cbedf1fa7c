//! Virtual CPUs: contexts that kernel threads run, whose registers may survive until the next run.

use fpu_core::KernelFpu;

use crate::{
    counts::{self, count},
    cpu::this_cpu,
    files::{self, File},
    fpu::{self, Fpu, PreemptOff, AREA},
    hw,
    memory::Memory,
    regs::{self, RegFile},
    task::{Task, WORKERS},
    verdict,
};

static MEMORY: [Memory<AREA>; WORKERS] = [const { Memory::new() }; WORKERS];
/// What each guest left in its registers.
static LEFT: [File; WORKERS] = [const { File::new() }; WORKERS];
static CONTEXTS: [spin::Once<Fpu>; WORKERS] = [const { spin::Once::new() }; WORKERS];

/// Makes the guests, one for each worker, in the initial state.
///
/// # Safety
///
/// Called once, on the first CPU, before others are started.
pub unsafe fn prepare() {
    for ((memory, left), context) in MEMORY.iter().zip(&LEFT).zip(&CONTEXTS) {
        left.fill(RegFile::initial(hw::classes()));
        // SAFETY: K19: the guest's own memory, given once.
        match unsafe { fpu::new_context(memory.base(), AREA) } {
            Ok(fpu) => {
                context.call_once(|| fpu);
            }
            Err(why) => verdict::fail(format_args!("a guest's context: {why}")),
        }
    }
}

/// A guest runs: it looks at its registers, and changes all of them. Interrupts are on; those that ask for
/// a section meanwhile are refused.
///
/// Preemption is off, and `worker` is the current task, which has no other guest.
pub fn round(worker: &Task) {
    let number = worker.worker();
    let (Some(context), left) = (CONTEXTS[number].get(), LEFT[number].get()) else { return };
    // SAFETY: preemption is off until the end of the function.
    let mut here = unsafe { PreemptOff::new() };
    let cpu = this_cpu();
    let guest = || {
        let seen = files::seen(cpu);
        // SAFETY: C34: classes of this CPU. C35, C36: the registers are the guest's, and handlers are refused.
        unsafe { regs::dump(seen) };
        // SAFETY: this CPU's file, and the file of a guest that is here.
        let (seen, left) = unsafe { (&*seen, &mut *left) };
        verdict::guest(number, cpu, left, seen);
        left.quiet_set_pattern(cpu.random() << 8 | number as u64);
        if RegFile::register_of(left.quiet_first_difference(seen)).is_none() {
            verdict::fail(format_args!("guest {number} holds what it held, so nothing is tried"));
        }
        // SAFETY: C34: a file of this CPU's classes. C35, C36: the guest's registers are in, and handlers are refused.
        unsafe { regs::load(left) };
        for _ in 0..cpu.random() % 512 {
            core::hint::spin_loop();
        }
    };
    // The thread has no registers of its own; the context that was here before has been saved.
    if let Err(why) = here.run_guest(context.context(), None, guest) {
        verdict::refused(worker, why);
    }
    count(&counts::GUESTS);
}
