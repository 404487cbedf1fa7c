//! Whether registers are in their initial state, and what it costs to ask.

use core::arch::asm;

use crate::fields::INITIAL_MXCSR;

/// Tells whether the components of `mask`, of which XCR0 enables all, and MXCSR are in their initial state. `false` may
/// be said of that state too, where a CPU does not notice that a component is back in it.
///
/// A clear bit of XINUSE says that the component is in its initial state (SDM vol. 1, 13.6). MXCSR is in none of XINUSE's
/// bits.
///
/// # Safety
///
/// OSXSAVE set (N3), XINUSE readable (N8), and the registers are not the caller's own (N2).
#[inline(always)]
pub(crate) unsafe fn are_initial(mask: u64) -> bool {
    let (low, high, mxcsr): (u64, u64, u64);
    // On the stack by a push, so that the paths around that do not ask need no frame.
    // SAFETY: OSXSAVE set (N3), XINUSE readable (N8), MXCSR not the caller's own (N2). Not `nomem`, as `xgetbv1`.
    unsafe {
        asm!(
            "xgetbv",
            "push rcx",
            "stmxcsr dword ptr [rsp]",
            "pop rcx",
            inlateout("rcx") 1_u64 => mxcsr,
            lateout("rax") low,
            lateout("rdx") high,
            options(preserves_flags),
        );
    }
    (high << 32 | low) & mask == 0 && mxcsr == u64::from(INITIAL_MXCSR)
}

/// Reads the time-stamp counter when all instructions before are done, and before any behind it begins.
///
/// # Safety
///
/// * **N12** CPUID.1:EDX.TSC is set; in ring 3, CR4.TSD is clear.
#[inline(always)]
pub(crate) unsafe fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: counter readable (N12). Not `nomem`, so that no save moves across it.
    unsafe {
        asm!(
            "lfence",
            "rdtsc",
            "lfence",
            out("eax") low,
            out("edx") high,
            options(nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}
