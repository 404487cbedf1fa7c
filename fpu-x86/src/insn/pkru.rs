//! RDPKRU and WRPKRU, which need no privilege.

use core::arch::asm;

/// Reads PKRU.
///
/// # Safety
///
/// * **N10** CR4.PKE is set on the CPU that executes the instruction, without which RDPKRU and WRPKRU raise #UD.
#[inline(always)]
pub(crate) unsafe fn rdpkru() -> u32 {
    let value;
    // SAFETY: keys on (N10); ECX is 0, as it must be. Not `nomem`, so that it is not moved across a write of the register.
    unsafe {
        asm!(
            "rdpkru",
            in("ecx") 0,
            out("eax") value,
            out("edx") _,
            options(nostack, preserves_flags),
        );
    }
    value
}

/// Writes PKRU. No access to memory by instructions behind it is executed before, speculatively neither (SDM vol. 2,
/// WRPKRU).
///
/// # Safety
///
/// Keys on (N10), and
///
/// * **N11** the code that follows needs no user page whose key `value` forbids, or answers the fault.
#[inline(always)]
pub(crate) unsafe fn wrpkru(value: u32) {
    // SAFETY: keys on (N10), usable pages (N11); ECX and EDX are 0, as they must be. Not `nomem`: accesses to user memory
    // must stay on their side.
    unsafe {
        asm!(
            "wrpkru",
            in("ecx") 0,
            in("eax") value,
            in("edx") 0,
            options(nostack, preserves_flags),
        );
    }
}
