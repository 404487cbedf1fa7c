//! What a reset, firmware or a loader may leave in the control registers before the library sets them. A kernel of
//! yours has no such file.

use core::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count},
    },
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use x86_64::registers::{
    control::{Cr0, Cr0Flags, Cr4, Cr4Flags},
    model_specific::Msr,
};

const IA32_XSS: u32 = 0xDA0;

static TURN: AtomicU32 = AtomicU32::new(0);

/// x87 and SSE off and trapping, x87 errors to the interrupt controller; in every second turn XSAVE on, with the least
/// in XCR0 and a component in IA32_XSS, and off in the others.
///
/// # Safety
///
/// Interrupts are off, the CPU's word is not open, no code needs what the registers hold, and the library sets
/// the CPU up before any code uses them.
pub unsafe fn leave() {
    // Without leaf 0xD, which says what XCR0 may hold, QEMU's XSETBV faults.
    let xsave = __cpuid(1).ecx >> 26 & 1 != 0 && __cpuid(0).eax >= 0xD;
    let on = xsave && TURN.fetch_add(1, Relaxed) & 1 == 0;
    // SAFETY: the caller's.
    unsafe {
        Cr0::update(|cr0| {
            cr0.remove(Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR);
            cr0.insert(Cr0Flags::TASK_SWITCHED | Cr0Flags::EMULATE_COPROCESSOR);
        });
        Cr4::update(|cr4| {
            cr4.remove(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE);
            cr4.set(Cr4Flags::OSXSAVE, on);
        });
    }
    if !on {
        return;
    }
    // SAFETY: CR4.OSXSAVE is set, and XCR0 may hold x87 alone.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") 1, in("edx") 0, options(nostack)) };
    let sub = __cpuid_count(0xD, 1);
    if sub.eax >> 3 & 1 != 0 {
        let least = u64::from(sub.ecx & sub.ecx.wrapping_neg());
        // SAFETY: the CPU says that it has the register, and the component in it.
        unsafe { Msr::new(IA32_XSS).write(least) };
    }
}
