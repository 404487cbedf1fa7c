//! How a CPU comes from reset to Rust; the work is in `boot.s`.
//!
//! The first CPU arrives in `kernel_main(params)`, every other one in `ap_main(number)`, both in 64-bit
//! mode with interrupts off. Memory: the first 4 GiB at their own addresses in pages of 2 MiB, for the
//! supervisor only but [`USER_PAGE`] and [`KEYED_PAGE`]. The descriptor table has 64-bit code at 0x08 and data at 0x10.
//! `CR0.EM`, `CR0.TS`, `CR0.MP` and all of CR4 but PAE are as reset left them.

use core::{arch::global_asm, ptr, slice};

// Raw: the text has no operands.
global_asm!(include_str!("boot.s"), options(raw));

/// The only memory that ring 3 may use: one page of [`USER_PAGE_SIZE`] bytes.
pub const USER_PAGE: u64 = 0x40_0000;

/// See [`USER_PAGE`].
pub const USER_PAGE_SIZE: u64 = 0x20_0000;

/// User memory with a protection key, for the kernel's own accesses: the page behind.
pub const KEYED_PAGE: u64 = USER_PAGE + USER_PAGE_SIZE;

/// Page number of the code that another CPU starts at, as a start-up message carries it.
pub const TRAMPOLINE_PAGE: u8 = 0x08;

extern "C" {
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
    static mut ap_stack: u64;
    static mut ap_number: u32;
    /// Its address is the number of bytes that the linker script reserves for the parameters, with their NUL.
    static boot_params_size: u8;
}

/// Puts the real-mode code for other CPUs to [`TRAMPOLINE_PAGE`].
///
/// # Safety
///
/// Nobody else uses that page of memory, and no CPU is on its way through it.
pub unsafe fn prepare_trampoline() {
    let from = &raw const ap_trampoline;
    let len = (&raw const ap_trampoline_end).addr() - from.addr();
    let to = (usize::from(TRAMPOLINE_PAGE) << 12) as *mut u8;
    // SAFETY: `boot.s` has the two labels around the code, and the linker script holds it to one page. The
    // target is RAM at its own address, apart from the image, and the caller gives it away.
    unsafe { ptr::copy_nonoverlapping(from, to, len) };
}

/// Says which stack and number the next CPU takes, before it is woken.
///
/// # Safety
///
/// `stack_top` is a multiple of 16 below 4 GiB, above memory for one CPU's stack that nothing else
/// uses. No CPU is between its start-up message and `ap_main`: there is one place for these words.
pub unsafe fn set_ap(stack_top: u64, number: u32) {
    // SAFETY: the words are writable data of the image, and by the contract no CPU reads them now.
    // Volatile: the reader is assembly on another CPU, which the message sent later makes run.
    unsafe {
        ptr::write_volatile(&raw mut ap_stack, stack_top);
        ptr::write_volatile(&raw mut ap_number, number);
    }
}

/// The parameters up to their NUL.
///
/// # Safety
///
/// `params` is what `kernel_main` was given, and no code writes there.
pub unsafe fn params(params: *const u8) -> &'static [u8] {
    let size = (&raw const boot_params_size).addr();
    let mut len = 0;
    // SAFETY: `boot.s` passes the bytes reserved in the image for this, and fewer are looked at.
    while len + 1 < size && unsafe { *params.add(len) } != 0 {
        len += 1;
    }
    // SAFETY: the bytes just read, in memory that stays and, by the contract, does not change.
    unsafe { slice::from_raw_parts(params, len) }
}
