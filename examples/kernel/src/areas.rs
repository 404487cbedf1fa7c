//! The memory of contexts. Areas go from hand to hand with their contexts, and with state on demand from small to large
//! ones and back.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use fpu_x86::Room;

use crate::{
    fpu::{self, AREA},
    memory::Memory,
};

/// Contexts of tasks in user mode, a child's included: each has a small area, or has given it up for a large one.
pub const CONTEXTS: usize = 8;
/// Fewer than there are contexts, so that there may be none.
const LARGE: usize = 4;
/// What lies behind a small area.
const GUARD: u8 = 0xA5;

static AREAS: [Memory<AREA>; CONTEXTS + LARGE] = [const { Memory::new() }; CONTEXTS + LARGE];
/// Those without a context, one bit each; contexts begin with the small ones.
static FREE: AtomicU32 = AtomicU32::new(((1 << LARGE) - 1) << CONTEXTS);

/// Memory for an image.
pub fn memory(number: usize) -> NonNull<u8> {
    AREAS[number].base()
}

/// Tells whether the area has room for what comes on demand.
pub fn is_large(number: usize) -> bool {
    number >= CONTEXTS
}

/// Bytes of the area.
pub fn len(number: usize) -> usize {
    match fpu::on_demand() {
        Some(plan) if is_large(number) => plan.area_len_of(Room::Full),
        Some(plan) => plan.area_len(),
        None => AREA,
    }
}

/// Puts something behind the small areas, before there are contexts.
pub fn prepare() {
    for (number, memory) in AREAS.iter().enumerate() {
        // SAFETY: no other code has the memory yet.
        unsafe { memory.base().as_ptr().add(len(number)).write_bytes(GUARD, AREA - len(number)) };
    }
}

/// Tells whether bytes behind the area were written. Its context is the caller's.
pub fn is_overrun(number: usize) -> bool {
    let len = len(number);
    // SAFETY: bytes of a static behind the area, which no code should write.
    let behind =
        unsafe { core::slice::from_raw_parts(memory(number).as_ptr().add(len), AREA - len) };
    behind.iter().any(|byte| *byte != GUARD)
}

/// Takes an area, if one is free.
pub fn take(large: bool) -> Option<usize> {
    let range = if large { CONTEXTS..CONTEXTS + LARGE } else { 0..CONTEXTS };
    let mut numbers = range;
    numbers.find(|number| FREE.fetch_and(!(1 << number), Relaxed) & 1 << number != 0)
}

/// Gives one back. No context has it, though registers may have been loaded from it.
pub fn give_back(number: usize) {
    FREE.fetch_or(1 << number, Relaxed);
}

/// The area of a context that begins anew: a small one, in place of a large one. Its context is gone.
pub fn small_again(number: usize) -> usize {
    if !is_large(number) {
        return number;
    }
    match take(false) {
        Some(small) => {
            give_back(number);
            small
        }
        None => number,
    }
}
