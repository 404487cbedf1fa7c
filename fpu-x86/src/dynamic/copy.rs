//! A CPU's copy of IA32_XFD, and the instructions on the registers that it is a copy of.

use fpu_core::RestoreFault;

use crate::{
    insn,
    ring0::{IA32_XFD, IA32_XFD_ERR},
};

/// This CPU's copy of IA32_XFD, so that a restore need not read it: a word of the kernel's per-CPU data, 0 at first.
///
/// The writes and reads of the registers themselves are here for programs and simulations, which replace them.
///
/// # Safety
///
/// * **K20** on each CPU, [`get`](Self::get) returns what the last [`set`](Self::set) there stored, or 0 if there was none;
///   [`write`](Self::write) and [`take_error`](Self::take_error) are of that CPU's registers, or of what stands for them. Nothing else
///   writes IA32_XFD or IA32_XFD_ERR while the CPU is online, but for a guest's values from
///   [`GuestControls::enter`](crate::GuestControls::enter) until its exit, after which the register is what it was.
///
/// ```
/// use core::cell::Cell;
/// struct PerCpu { xfd: Cell<u64> }
/// # fn this_cpu() -> PerCpu { PerCpu { xfd: Cell::new(0) } }
/// /// Finds it (on x86: behind GS).
/// struct Xfd;
/// // SAFETY: K20: the CPU's own block, where no other code uses this cell.
/// unsafe impl fpu_x86::XfdCopy for Xfd {
///     fn get(&self) -> u64 { this_cpu().xfd.get() }
///     unsafe fn set(&self, xfd: u64) { this_cpu().xfd.set(xfd) }
/// }
/// # let _ = Xfd;
/// ```
pub unsafe trait XfdCopy {
    /// Returns the copy.
    fn get(&self) -> u64;

    /// Stores the copy.
    ///
    /// # Safety
    ///
    /// For this crate only: with another value a task could use what it has no room for.
    unsafe fn set(&self, xfd: u64);

    /// WRMSR of IA32_XFD.
    ///
    /// # Errors
    ///
    /// The exception, if the handlers serve [`fixup`](crate::fixup).
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1); for this crate only.
    #[inline]
    unsafe fn write(&self, xfd: u64) -> Result<(), RestoreFault> {
        // SAFETY: N4: undisturbed in ring 0 (C1). N5: bits of components that CPUID says can be disabled.
        match unsafe { insn::wrmsr(IA32_XFD, xfd) } {
            0 => Ok(()),
            vector => Err(RestoreFault(vector)),
        }
    }

    /// RDMSR of IA32_XFD_ERR, and a WRMSR of 0.
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1).
    unsafe fn take_error(&self) -> u64 {
        // SAFETY: N4: undisturbed in ring 0 (C1).
        if unsafe { insn::rdmsr_fault(IA32_XFD_ERR) } != 0 {
            return 0;
        }
        // SAFETY: N4: undisturbed in ring 0 (C1). N6: just tried.
        let error = unsafe { insn::rdmsr(IA32_XFD_ERR) };
        if error != 0 {
            // SAFETY: N4: undisturbed in ring 0 (C1). N5: 0 is legal.
            let _refused = unsafe { insn::wrmsr(IA32_XFD_ERR, 0) };
        }
        error
    }
}
