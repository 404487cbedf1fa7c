//! Operations too rare to be written as scalar code: they run while assembly keeps the registers.

use std::{ffi::c_void, sync::atomic::Ordering};

use fpu_core::{Error, RawFpu};
use fpu_hosted_test::real::{Classes, RegFile};
use fpu_x86::{ImageMut, Plan};

use crate::{
    faults::Fault,
    script::Op,
    world::{HasTurn, Slot, ThisCpu},
};

/// The data that these operations work on.
pub struct Rare<'a, 'm> {
    /// The CPU.
    pub cpu: &'a mut ThisCpu<'m>,
    /// The task.
    pub slot: &'a Slot,
    /// The child of a fork.
    pub other: &'a Slot,
    /// The operation.
    pub op: &'a Op,
    /// The seeded fault.
    pub fault: Option<Fault>,
    /// The refusal.
    pub refused: Option<Error>,
}

fn word_of(slot: &Slot) -> *mut u64 {
    std::ptr::from_ref(slot.fpu()).cast_mut().cast()
}

/// The task of the slot is gone; a new one gets its memory.
///
/// # Safety
///
/// * **C30** `arg` points to a [`Rare`], whose operation has the turn of the slots in it.
pub unsafe extern "C" fn spawn(arg: *mut c_void) {
    // SAFETY: own operation (C30).
    let rare = unsafe { &mut *arg.cast::<Rare<'_, '_>>() };
    // SAFETY: the first 8 bytes of a context are its word.
    let old = unsafe { word_of(rare.slot).read_volatile() };
    // SAFETY: own turn (C29) by C30 (own operation).
    unsafe { rare.slot.begin(rare.cpu.plan) };
    rare.slot.generation.fetch_add(1, Ordering::Relaxed);
    if rare.fault == Some(Fault::InheritClaim) {
        // SAFETY: the seeded fault: a claim that the crate did not make.
        unsafe { word_of(rare.slot).write_volatile(old) };
    }
}

/// Writes one register of an image, and the same into the file of what is expected. `pick` chooses
/// among control words and every class that the machine has.
pub fn write_register(image: &mut ImageMut<'_>, expected: &mut RegFile, pick: u32) {
    let classes = expected.classes();
    let index = (pick / 6 % 8) as usize;
    let value = u64::from(pick).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 << 63;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes[8..].copy_from_slice(&(!value).to_le_bytes());
    let written = match pick % 6 {
        0 => {
            expected.set_mxcsr(0x1F80 | (pick & 0x3F));
            image.set_mxcsr(expected.mxcsr())
        }
        1 => {
            expected.set_fcw(0x037F | (pick as u16 & 3) << 10);
            image.set_fcw(expected.fcw());
            Ok(())
        }
        2 if classes.contains(Classes::AVX) => {
            expected.vector_mut(index)[2..4].copy_from_slice(&[value, !value]);
            image.set_ymm_hi(index, bytes)
        }
        3 if classes.contains(Classes::AVX512) => {
            *expected.mask_mut(index) = value & classes.mask_bits();
            image.set_opmask(index, expected.mask(index))
        }
        4 if classes.contains(Classes::AVX512) => {
            *expected.vector_mut(16 + index) = [0; 8];
            expected.vector_mut(16 + index)[0] = value;
            let mut wide = [0; 64];
            wide[..8].copy_from_slice(&value.to_le_bytes());
            image.set_zmm_hi16(16 + index, wide)
        }
        _ => {
            expected.vector_mut(index)[..2].copy_from_slice(&[value, !value]);
            image.set_xmm(index, bytes)
        }
    };
    // Legal values of registers that the plan switches. Were one refused, what is expected would not
    // be seen.
    debug_assert!(written.is_ok());
}

/// A tracer writes a register of the stopped task.
///
/// # Safety
///
/// Own operation (C30); the task is switched out.
pub unsafe extern "C" fn poke(arg: *mut c_void) {
    // SAFETY: own operation (C30).
    let rare = unsafe { &mut *arg.cast::<Rare<'_, '_>>() };
    // SAFETY: the first 8 bytes of a context are its word.
    let claim = unsafe { word_of(rare.slot).read_volatile() };
    let task = rare.slot.fpu();
    match task.stopped(&mut HasTurn(rare.cpu.plan, task.context())) {
        Ok(stopped) => {
            let mut writable = stopped.make_memory_valid_write();
            // SAFETY: C30: no other code reads what is expected.
            let expected = unsafe { &mut *rare.slot.expected() };
            write_register(&mut writable.image_mut(), expected, rare.op.turn);
        }
        Err(why) => rare.refused = Some(why),
    }
    if rare.fault == Some(Fault::LostWrite) {
        // SAFETY: the seeded fault: the claim that should be gone.
        unsafe { word_of(rare.slot).write_volatile(claim) };
    }
}

/// The current task forks.
///
/// # Safety
///
/// Own operation (C30); the registers are the task's, if its word says so.
pub unsafe extern "C" fn fork(arg: *mut c_void) {
    // SAFETY: own operation (C30).
    let rare = unsafe { &mut *arg.cast::<Rare<'_, '_>>() };
    // SAFETY: own turn (C29) by C30 (own operation).
    let child = unsafe { rare.other.fpu_mut() };
    if let Err(why) = rare.slot.fpu().fork_into(rare.cpu, child) {
        rare.refused = Some(why);
    }
    // SAFETY: own turn (C29) by C30 (own operation).
    unsafe { rare.other.expect_as(rare.slot) };
    rare.other.generation.fetch_add(1, Ordering::Relaxed);
}

/// The eager kernel's tracer: the image is where it always is.
///
/// # Safety
///
/// Own operation (C30); the task is switched out.
pub unsafe extern "C" fn eager_poke(arg: *mut c_void) {
    // SAFETY: own operation (C30).
    let rare = unsafe { &mut *arg.cast::<Rare<'_, '_>>() };
    let plan: &Plan = rare.cpu.plan;
    let Some(area) = std::ptr::NonNull::new(rare.slot.area()) else { return };
    // SAFETY: C9, C11: the slot's area, whose turn it is, and which holds an image.
    let mut image = unsafe { plan.image_mut(area) };
    // SAFETY: own operation (C30).
    write_register(&mut image, unsafe { &mut *rare.slot.expected() }, rare.op.turn);
}

/// The eager kernel's fork, after the parent's registers were saved to the child's area.
///
/// # Safety
///
/// Own operation (C30).
pub unsafe extern "C" fn eager_fork(arg: *mut c_void) {
    // SAFETY: own operation (C30).
    let rare = unsafe { &mut *arg.cast::<Rare<'_, '_>>() };
    // SAFETY: own turn (C29) by C30 (own operation).
    unsafe { rare.other.expect_as(rare.slot) };
    rare.other.generation.fetch_add(1, Ordering::Relaxed);
}
