//! The instructions of ring 0: control registers, XCR0, model-specific registers.

use core::arch::asm;

macro_rules! control_register {
    ($($read:ident $write:ident $name:literal),*) => {$(
        /// Reads a control register.
        ///
        /// # Safety
        ///
        /// * **N4** in ring 0.
        pub(crate) unsafe fn $read() -> u64 {
            let value;
            // SAFETY: N4. Not `nomem`, so that it is not moved across a write of the register.
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
        /// N4, and
        ///
        /// * **N5** the value is legal, and nothing relies on what it changes.
        pub(crate) unsafe fn $write(value: u64) {
            // SAFETY: N4, N5. Not `nomem`: what follows must not be moved before it.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack)) }
        }
    )*};
}
control_register!(cr0 set_cr0 "cr0", cr4 set_cr4 "cr4");

macro_rules! fallible_write {
    ($insn:literal, $register:expr, $value:expr) => {{
        let vector: u32;
        // SAFETY: N4, N5, of the function around. A fault continues as for restores. Not `nomem`: what
        // follows must not be moved before it.
        unsafe {
            asm!(
                $insn,
                "xor eax, eax",
                ".byte 0x0f, 0x1f, 0x84, 0x00, 0x46, 0x50, 0x55, 0x86",
                in("ecx") $register,
                inlateout("eax") $value as u32 => vector,
                in("edx") ($value >> 32) as u32,
                options(nostack),
            );
        }
        vector
    }};
}

/// Writes XCR0. Returns 0, or the vector of the fault.
///
/// # Safety
///
/// N3, N4, N5.
pub(crate) unsafe fn xsetbv0(value: u64) -> u32 {
    fallible_write!("xsetbv", 0, value)
}

/// Writes a model-specific register. Returns 0, or the vector of the fault.
///
/// # Safety
///
/// N4, N5.
pub(crate) unsafe fn wrmsr(register: u32, value: u64) -> u32 {
    fallible_write!("wrmsr", register, value)
}

/// Can a model-specific register be read? Returns 0, or the vector of the fault.
///
/// # Safety
///
/// N4.
pub(crate) unsafe fn rdmsr_fault(register: u32) -> u32 {
    let vector: u32;
    // SAFETY: N4. A fault continues as for restores; what was read is lost.
    unsafe {
        asm!(
            "rdmsr",
            "xor eax, eax",
            ".byte 0x0f, 0x1f, 0x84, 0x00, 0x46, 0x50, 0x55, 0x86",
            in("ecx") register,
            out("eax") vector,
            out("edx") _,
            options(nostack),
        );
    }
    vector
}

/// Writes CR4. Returns 0, or the vector of the fault.
///
/// # Safety
///
/// N4, N5.
pub(crate) unsafe fn try_set_cr4(value: u64) -> u32 {
    let vector: u64;
    // SAFETY: N4, N5. A fault continues as for restores. Not `nomem`: what follows must not be moved before it.
    unsafe {
        asm!(
            "mov cr4, rax",
            "xor eax, eax",
            ".byte 0x0f, 0x1f, 0x84, 0x00, 0x46, 0x50, 0x55, 0x86",
            inlateout("rax") value => vector,
            options(nostack),
        );
    }
    vector as u32
}

/// Reads a model-specific register.
///
/// # Safety
///
/// N4, and
///
/// * **N6** the CPU has it.
pub(crate) unsafe fn rdmsr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: N4, N6. Not `nomem`, so that it is not moved across a write of the register.
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
