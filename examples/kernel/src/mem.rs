//! The memory functions that compiled code calls, for a target whose own come from a C library.
//!
//! In assembly: the compiler turns loops that copy or fill into calls of these very functions. No vector
//! registers, which belong to tasks.

use core::arch::asm;

/// # Safety
///
/// As in C: `n` readable bytes at `src`, `n` writable ones at `dest`, apart from each other.
#[no_mangle]
pub unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's ranges; the direction flag is clear at every call.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") n => _, inout("rdi") dest => _, inout("rsi") src => _,
            options(nostack, preserves_flags)
        );
    }
    dest
}

/// # Safety
///
/// As in C: `n` readable bytes at `src`, `n` writable ones at `dest`; they may overlap.
#[no_mangle]
pub unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    if dest.addr().wrapping_sub(src.addr()) >= n {
        // SAFETY: `dest` is below `src` or past its end, so bytes in rising order are read before they
        // are written, which is how `memcpy` goes.
        return unsafe { memcpy(dest, src, n) };
    }
    // Here n > 0. A loop, not `std`: an interrupt handler must not find the direction flag set.
    // SAFETY: the caller's ranges, from the last byte to the first.
    unsafe {
        asm!(
            "2:",
            "mov {byte}, byte ptr [{src} + {n} - 1]",
            "mov byte ptr [{dest} + {n} - 1], {byte}",
            "dec {n}",
            "jnz 2b",
            byte = out(reg_byte) _,
            src = in(reg) src,
            dest = in(reg) dest,
            n = inout(reg) n => _,
            options(nostack)
        );
    }
    dest
}

/// # Safety
///
/// As in C: `n` writable bytes at `dest`.
#[no_mangle]
pub unsafe extern "C" fn memset(dest: *mut u8, value: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller's range; the direction flag is clear at every call.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") n => _, inout("rdi") dest => _, in("al") value as u8,
            options(nostack, preserves_flags)
        );
    }
    dest
}

/// # Safety
///
/// As in C: `n` readable bytes at `a` and at `b`.
#[no_mangle]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    if n == 0 {
        return 0;
    }
    let (end_a, end_b): (*const u8, *const u8);
    // SAFETY: the caller's ranges; the direction flag is clear at every call.
    unsafe {
        asm!(
            "repe cmpsb",
            inout("rcx") n => _, inout("rsi") a => end_a, inout("rdi") b => end_b,
            options(nostack, readonly)
        );
    }
    // SAFETY: at least one byte was compared, so both pointers are just past a byte of their range.
    unsafe { i32::from(*end_a.sub(1)) - i32::from(*end_b.sub(1)) }
}

/// # Safety
///
/// As [`memcmp`].
#[no_mangle]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, n) }
}
