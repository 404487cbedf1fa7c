//! A task's image, read and written in its system calls while preemption is off.

use fpu_core::session::TaskState;
use fpu_x86::Components;

use crate::{
    fpu::{Fpu, PreemptOff},
    hw,
    task::{Kind, Task},
    tiles,
    user::UserBlock,
    verdict,
};

/// Opens the current task's state.
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
pub fn read(task: &Task, context: &Fpu, block: &UserBlock) {
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
    tiles::compare_image(task, block, &image);
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
pub fn write(task: &Task, context: &Fpu, block: &mut UserBlock) {
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
pub fn load(task: &Task, context: &Fpu) {
    // SAFETY: preemption is off.
    let mut here = unsafe { PreemptOff::new() };
    if let Err(why) = open(task, context, &mut here).make_registers_valid() {
        verdict::refused(task, why);
    }
}
