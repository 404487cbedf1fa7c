//! A debugger: it stops tasks, reads their registers as a tracer gets them, and sets others.

use fpu_core::RawFpu;
use fpu_x86::{Components, ForeignError, Pkru, Room, SaveInstruction};
use x86_64::instructions::interrupts;

use crate::{
    counts::{self, count},
    cpu::{preempt_off, preempt_on, this_cpu},
    faults::Fault,
    fpu::{self, Fpu, PreemptOff, Traced, AREA},
    hw,
    memory::Memory,
    sched::{self, Next, Stop},
    seeded, signal,
    task::{self, HOLDERS, USER_PAGE},
    tiles,
    user::{self, UserBlock},
    verdict,
};

/// The debugger's bytes; there is one debugger.
static BYTES: Memory<AREA> = Memory::new();
/// Bytes of NT_PRFPREG.
const LEGACY: usize = 512;
const MXCSR: usize = 24;
const XMM7: usize = 160 + 7 * 16;
/// What an edit turns: the rounding of MXCSR, a word of XMM7 and one of the upper half of YMM7, keys of PKRU.
const ROUNDING: u64 = 0x6000;
const TURNS: u64 = 0xA5A5_0000_A5A5_0000;
const KEYS: u64 = 0xFF00;

/// The thread.
pub fn thread() -> ! {
    loop {
        interrupts::disable();
        sched::schedule(Next::Idle);
        let random = this_cpu().random();
        let stop = Stop::new(&task::users()[random as usize % HOLDERS]);
        interrupts::enable();
        // From here on it may be preempted, and the task stays stopped.
        if let Some(stop) = stop.as_ref().filter(|stop| expects(stop)) {
            look(stop, random >> 8);
        }
        drop(stop);
    }
}

/// Tells whether its registers are what its block says.
fn expects(stop: &Stop) -> bool {
    // SAFETY: the task is switched out.
    let rip = unsafe { stop.task.frame() }.rip as usize;
    !stop.task.spoilt.get() && user::holds().contains(&rip.wrapping_sub(USER_PAGE))
}

/// Words that a debugger gets: their names, places in the bytes, lengths and values.
fn words(block: &UserBlock, legacy: bool, mut each: impl FnMut(&'static str, usize, usize, u64)) {
    let want = &block.want;
    each("fcw", 0, 2, want.fcw().into());
    each("fsw", 2, 2, want.fsw().into());
    each("mxcsr", MXCSR, 4, want.mxcsr().into());
    for n in 0..8 {
        each("st", 32 + 16 * n, 8, want.x87(n).0);
    }
    for n in 0..16 * 2 {
        each("xmm", 160 + 8 * n, 8, want.vector(n / 2)[n % 2]);
    }
    if legacy {
        return;
    }
    if let Some(at) = place(Components::AVX) {
        (0..16 * 2).for_each(|n| each("ymm", at + 8 * n, 8, want.vector(n / 2)[2 + n % 2]));
    }
    if let Some(at) = place(Components::OPMASK) {
        (0..8).for_each(|n| each("k", at + 8 * n, 8, want.mask(n)));
    }
    if let Some(at) = place(Components::ZMM_HI256) {
        (0..16 * 4).for_each(|n| each("zmm", at + 8 * n, 8, want.vector(n / 4)[4 + n % 4]));
    }
    if let Some(at) = place(Components::HI16_ZMM) {
        (0..16 * 8).for_each(|n| each("zmm16-31", at + 8 * n, 8, want.vector(16 + n / 8)[n % 8]));
    }
    tiles::in_standard_format(block, |at, len, want| each("tmm", at, len, want));
    if let Some(at) = place(Components::PKRU) {
        each("pkru", at, 4, block.pkru_want.into());
    }
}

/// Where a component is in NT_X86_XSTATE, if it has the component, and the programs use it.
fn place(component: Components) -> Option<usize> {
    let used = match component {
        Components::PKRU => true,
        Components::AVX => hw::classes().vector_words() >= 4,
        _ => hw::classes().vector_words() == 8,
    };
    let described = fpu::plan().cpuid_info().described(component.number()?)?;
    let there = used && signal::format().components().contains(component);
    there.then_some(described.offset as usize)
}

/// What the area of a stopped task has room for.
fn room(context: &Fpu) -> Room {
    preempt_off();
    // SAFETY: preemption is off.
    let room = context.room(&unsafe { PreemptOff::new() });
    preempt_on();
    room
}

fn word(bytes: &[u8], at: usize, len: usize) -> u64 {
    let part = bytes.get(at..at + len).unwrap_or_default();
    part.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Turns some bits.
fn turn(bytes: &mut [u8], at: usize, bits: u64) {
    let eight = bytes.get_mut(at..at + 8).unwrap_or_default();
    eight.iter_mut().zip(bits.to_le_bytes()).for_each(|(byte, bits)| *byte ^= bits);
}

/// Reads a stopped task's registers, which must be what its program expects, and half of the time sets others, which it
/// expects from then on.
fn look(stop: &Stop, random: u64) {
    let task = stop.task;
    let Some(context) = task.fpu() else { return };
    // SAFETY: K10: `Stop`. K11: there is one debugger.
    let mut proof = unsafe { Traced::new(context) };
    let has_pkru = signal::format().components().contains(Components::PKRU);
    let rights = task.pkru().filter(|_| has_pkru);
    let pkru = rights.map(|rights| rights.read(&proof).bits());
    let stopped = match context.stopped(&mut proof) {
        Ok(stopped) => stopped,
        Err(why) => verdict::refused(task, why),
    };
    // SAFETY: the debugger's own, and there is no other such value.
    let bytes = unsafe { core::slice::from_raw_parts_mut(BYTES.base().as_ptr(), AREA) };
    // SAFETY: the task's memory, while it is stopped.
    let block = unsafe { &mut *task.block() };
    let format = signal::format_of(room(context));
    // Without XSAVE there is only NT_PRFPREG.
    let legacy = fpu::plan().save_instruction() == SaveInstruction::Fxsave || random & 3 == 0;
    let written = match bytes.first_chunk_mut::<LEGACY>() {
        Some(bytes) if legacy => format.write_prfpreg(&stopped.image(), bytes).map(|()| LEGACY),
        _ => format.write_xstate(&stopped.image(), pkru, bytes),
    };
    let bytes = match written {
        Ok(len) => bytes.get_mut(..len).unwrap_or_default(),
        Err(why) => verdict::fail(format_args!("the debugger of task {}: {why}", task.slot)),
    };
    words(block, legacy, |what, at, len, want| {
        verdict::traced(task, what, want, word(bytes, at, len));
    });
    count(&counts::TRACE_READS);
    if random & 4 == 0 {
        return;
    }
    turn(bytes, MXCSR, ROUNDING);
    turn(bytes, XMM7, TURNS);
    block.want.set_mxcsr(block.want.mxcsr() ^ ROUNDING as u32);
    block.want.vector_mut(7)[0] ^= TURNS;
    if let Some(at) = place(Components::AVX).filter(|_| !legacy) {
        turn(bytes, at + 7 * 16, TURNS);
        block.want.vector_mut(7)[2] ^= TURNS;
    }
    if let Some(at) = place(Components::PKRU).filter(|_| !legacy) {
        turn(bytes, at, KEYS);
        block.pkru_want ^= KEYS as u32;
    }
    let set = if seeded::on(Fault::TraceClaim) {
        keeping_claims(stop, legacy, bytes, room(context))
    } else if legacy {
        format.set_prfpreg(stopped, bytes).map(|()| None)
    } else {
        format.set_xstate(stopped, bytes)
    };
    match set {
        Ok(pkru) => {
            if let (Some(rights), Some(pkru)) = (rights, pkru) {
                rights.write(&proof, Pkru::from_bits(pkru));
            }
        }
        Err(why) => verdict::fail(format_args!("the debugger of task {}: {why}", task.slot)),
    }
    task.traced.set(task.traced.get() + 1);
    count(&counts::TRACE_WRITES);
}

/// Writes the image although some CPU's registers may still claim to hold the task.
fn keeping_claims(
    stop: &Stop,
    legacy: bool,
    bytes: &mut [u8],
    room: Room,
) -> Result<Option<u32>, ForeignError> {
    let format = signal::format_of(room);
    // SAFETY: C9: an image, of a task that is stopped. That nothing claims it is broken on purpose.
    let mut image = unsafe { fpu::plan().image_mut(stop.task.area()) };
    let (valid, only) = match legacy {
        true => (format.read_prfpreg(bytes)?, Components::LEGACY),
        false => (format.read_xstate(bytes)?, Components::all()),
    };
    // Of the same plan.
    let _merged = image.merge(&valid, only);
    Ok(valid.pkru())
}
