//! What an architecture supplies: a trap that covers all registers.

use crate::backend::RawFpu;

/// A backend whose CPU can refuse every use of the registers. Only [`Trapped`](super::Trapped) needs this trait. A kernel without such
/// contexts has no code of it.
///
/// # Safety
///
/// The implementer promises, with B6 (bounded steps) of [`RawFpu`]:
///
/// * **B18** the answer of [`traps`](Self::traps) never changes. Where it is `true`: from [`arm`](Self::arm) to
///   [`disarm`](Self::disarm) each instruction of a task that reads or writes a register that a task can hold faults, and has
///   no effect.
/// * **B19** `arm` and `disarm` change no register that a task can hold, and no memory. After `disarm` all methods of
///   [`RawFpu`] work as if the trap had never been armed.
///
/// # Examples
///
/// A CPU with one register, and a bit that refuses it:
///
/// ```
/// # use core::{cell::Cell, ptr::NonNull};
/// use fpu_core::{trap::TrapFpu, RawFpu};
/// # use fpu_core::{KernelUnits, RestoreFault};
/// # struct OneRegister { value: Cell<u64>, refused: Cell<bool> }
/// # // SAFETY: B1-B7: the one register is one word, moved whole; nothing is left out, nothing faults.
/// # unsafe impl RawFpu for OneRegister {
/// #     type Image<'a> = &'a u64;
/// #     type ImageMut<'a> = &'a mut u64;
/// #     fn area_len(&self) -> usize { 8 }
/// #     fn area_align(&self) -> usize { 8 }
/// #     // SAFETY: valid area (C9) by the caller, here and below.
/// #     unsafe fn write_initial(&self, area: NonNull<u8>) { unsafe { area.cast::<u64>().as_ptr().write(0) } }
/// #     unsafe fn save(&self, area: NonNull<u8>) { unsafe { area.cast::<u64>().as_ptr().write(self.value.get()) } }
/// #     unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
/// #         self.value.set(unsafe { area.cast::<u64>().as_ptr().read() });
/// #         Ok(())
/// #     }
/// #     unsafe fn kernel_defaults(&self, _: KernelUnits) { self.value.set(0) }
/// #     unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> &'a u64 { unsafe { area.cast::<u64>().as_ref() } }
/// #     unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> &'a mut u64 { unsafe { area.cast::<u64>().as_mut() } }
/// # }
///
/// // SAFETY: B18: the bit is that of the one register there is. B19: it is the only thing that changes.
/// unsafe impl TrapFpu for OneRegister {
///     fn traps(&self) -> bool { true }
///     unsafe fn arm(&self) { self.refused.set(true) }
///     unsafe fn disarm(&self) { self.refused.set(false) }
/// }
/// # let cpu = OneRegister { value: Cell::new(7), refused: Cell::new(false) };
/// # // SAFETY: C50: no code uses the register.
/// # unsafe { cpu.arm() };
/// # assert!(cpu.refused.get() && cpu.value.get() == 7);
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "the backend `{Self}` cannot trap the first use of its registers",
        label = "no instruction of a task would fault",
        note = "`fpu_x86::Plan` can, in ring 0, without tiles on demand; a backend of your own implements `fpu_core::trap::TrapFpu`"
    )
)]
pub unsafe trait TrapFpu: RawFpu {
    /// Tells whether the trap covers every register that the backend manages, and the backend is where the trap can be
    /// armed (on x86: a plan for ring 0).
    #[must_use]
    fn traps(&self) -> bool;

    /// Arms the trap, also where it is armed.
    ///
    /// # Safety
    ///
    /// * **C50** [`traps`](Self::traps) is `true`, the backend is enabled here (K4 of [`Pinned`](crate::Pinned)), and until
    ///   [`disarm`](Self::disarm) no code of the kernel uses the registers on this CPU, and none changes what arms the trap.
    unsafe fn arm(&self);

    /// Disarms the trap, also where it is not armed.
    ///
    /// # Safety
    ///
    /// As for [`arm`](Self::arm), and no task runs on this CPU that relies on the trap until the trap is armed again.
    unsafe fn disarm(&self);
}
