//! The instructions of ring 0: control registers, XCR0, model-specific registers.

use core::arch::asm;

use super::vector_of;

macro_rules! control_register {
    ($($read:ident $write:ident $name:literal),*) => {$(
        /// Reads a control register.
        ///
        /// # Safety
        ///
        /// * **N4** in ring 0.
        pub(crate) unsafe fn $read() -> u64 {
            let value;
            // SAFETY: ring 0 (N4). Not `nomem`, so that it is not moved across a write of the register.
            unsafe {
                asm!(
                    concat!("mov {}, ", $name),
                    out(reg) value,
                    options(nostack, preserves_flags),
                );
            }
            value
        }

        /// Writes a control register.
        ///
        /// # Safety
        ///
        /// Ring 0 (N4), and
        ///
        /// * **N5** the value is legal, and no code relies on what the write changes.
        pub(crate) unsafe fn $write(value: u64) {
            // SAFETY: ring 0 (N4), legal value (N5). Not `nomem`: what follows must not be moved before it.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack)) }
        }
    )*};
}
control_register!(cr0 set_cr0 "cr0", cr4 set_cr4 "cr4");

/// Clears CR0.TS.
///
/// # Safety
///
/// Ring 0 (N4), and no code relies on the bit (N5, legal value).
pub(crate) unsafe fn clts() {
    // SAFETY: ring 0 (N4), legal value (N5). Not `nomem`: what follows must not be moved before it.
    unsafe { asm!("clts", options(nostack, preserves_flags)) }
}

macro_rules! fallible {
    ($insn:literal, $($register:tt)*) => {{
        let (told, failed): (u64, u32);
        // SAFETY: ring 0 (N4), legal value (N5), of the function around. A fault continues behind the XOR with 1 in
        // R8D. Not `nomem`: what follows must not be moved before it.
        unsafe {
            asm!(
                $insn,
                "xor r8d, r8d",
                ".byte 0x0f, 0x1f, 0x84, 0x00, 0x46, 0x50, 0x55, 0x86",
                inlateout("r8d") 1u32 => failed,
                $($register)* => told,
                options(nostack),
            );
        }
        if failed == 0 { 0 } else { vector_of(told as u32) }
    }};
}

/// Writes XCR0. Returns 0, or the vector of the fault if the value is not legal.
///
/// # Safety
///
/// OSXSAVE set (N3), ring 0 (N4), legal value (N5) except for the value.
pub(crate) unsafe fn xsetbv0(value: u64) -> u32 {
    fallible!("xsetbv", in("ecx") 0, in("edx") (value >> 32) as u32, inlateout("rax") value)
}

/// Writes a model-specific register. Returns 0, or the vector of the fault if there is no such register or the
/// value is not legal.
///
/// # Safety
///
/// Ring 0 (N4), legal value (N5) except for the value.
#[inline]
pub(crate) unsafe fn wrmsr(register: u32, value: u64) -> u32 {
    fallible!("wrmsr", in("ecx") register, in("edx") (value >> 32) as u32, inlateout("rax") value)
}

/// Tries to read a model-specific register. Returns 0, or the vector of the fault.
///
/// # Safety
///
/// Ring 0 (N4).
pub(crate) unsafe fn rdmsr_fault(register: u32) -> u32 {
    fallible!("rdmsr", in("ecx") register, lateout("edx") _, inlateout("rax") 0u64)
}

/// Writes CR4. Returns 0, or the vector of the fault if the value is not legal.
///
/// # Safety
///
/// Ring 0 (N4), legal value (N5) except for the value.
pub(crate) unsafe fn try_set_cr4(value: u64) -> u32 {
    fallible!("mov cr4, rax", inlateout("rax") value)
}

/// Reads a model-specific register.
///
/// # Safety
///
/// Ring 0 (N4), and
///
/// * **N6** the CPU has it.
pub(crate) unsafe fn rdmsr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: ring 0 (N4), register present (N6). Not `nomem`, so that it is not moved across a write of the register.
    unsafe {
        asm!(
            "rdmsr",
            in("ecx") register,
            out("eax") low,
            out("edx") high,
            options(nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}
