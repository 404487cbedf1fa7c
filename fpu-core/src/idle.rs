//! Registers that keep a core awake, given up before it sleeps.
//!
//! Some registers hold power even where nobody uses them: on x86, with AMX tiles that are not in their initial
//! state, a core does not reach its deepest idle states. After a switch to idle they may still hold the
//! task that was switched out (state 2a), so giving them up ends that claim.
//!
//! Nothing of it exists for who does not call it.

use crate::RawFpu;

/// A backend that knows which registers keep a core from sleeping deeply, and gives them up. Only
/// [`CpuLifecycle::fpu_idle`](crate::CpuLifecycle::fpu_idle) asks for it.
///
/// # Safety
///
/// Whoever implements this promises, with B6 of [`RawFpu`]:
///
/// * **Z1** [`keeps_awake`](Self::keeps_awake) changes no register and no memory. It answers `false` only
///   where every register that [`release`](Self::release) would change is in its initial state. It may
///   answer `true` where that is so as well; what is lost then is a restore that could have been skipped.
/// * **Z2** [`release`](Self::release) brings the registers that keep a core awake to their initial state. It
///   changes no other register that a task can hold, and no memory.
///
/// # Examples
///
/// A CPU with one register, which keeps it awake unless it is 0:
///
/// ```
/// # use core::{cell::Cell, ptr::NonNull};
/// use fpu_core::{IdleFpu, RawFpu};
/// # use fpu_core::{KernelUnits, RestoreFault};
/// # struct OneRegister(Cell<u64>);
/// # // SAFETY: B1-B7: the one register is one word, moved whole; nothing is left out, nothing faults.
/// # unsafe impl RawFpu for OneRegister {
/// #     type Image<'a> = &'a u64;
/// #     type ImageMut<'a> = &'a mut u64;
/// #     fn area_len(&self) -> usize { 8 }
/// #     fn area_align(&self) -> usize { 8 }
/// #     // SAFETY: S1 by the caller, here and below.
/// #     unsafe fn write_initial(&self, area: NonNull<u8>) { unsafe { area.cast::<u64>().as_ptr().write(0) } }
/// #     unsafe fn save(&self, area: NonNull<u8>) { unsafe { area.cast::<u64>().as_ptr().write(self.0.get()) } }
/// #     unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
/// #         self.0.set(unsafe { area.cast::<u64>().as_ptr().read() });
/// #         Ok(())
/// #     }
/// #     unsafe fn kernel_defaults(&self, _: KernelUnits) { self.0.set(0) }
/// #     unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> &'a u64 { unsafe { area.cast::<u64>().as_ref() } }
/// #     unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> &'a mut u64 { unsafe { area.cast::<u64>().as_mut() } }
/// # }
///
/// // SAFETY: Z1: a comparison. Z2: the one register becomes 0, which is its initial state.
/// unsafe impl IdleFpu for OneRegister {
///     unsafe fn keeps_awake(&self) -> bool { self.0.get() != 0 }
///     unsafe fn release(&self) { self.0.set(0) }
/// }
/// let cpu = OneRegister(Cell::new(7));
/// // SAFETY: S2: the register is a cell, and nobody needs what is in it.
/// unsafe {
///     assert!(cpu.keeps_awake());
///     cpu.release();
///     assert!(!cpu.keeps_awake());
/// }
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "the backend `{Self}` cannot give up registers before a core sleeps",
        label = "nothing is known of registers that keep a core awake",
        note = "implement `fpu_core::IdleFpu` for it, or leave the call out: without such registers there is nothing to do"
    )
)]
pub unsafe trait IdleFpu: RawFpu {
    /// Asks the hardware whether registers are in use now that keep this core from its deepest idle states.
    ///
    /// # Safety
    ///
    /// S2 of [`RawFpu::save`]: what the backend manages is enabled here (P3 of [`Pinned`](crate::Pinned)),
    /// and the answer is about the CPU that the caller stays on.
    unsafe fn keeps_awake(&self) -> bool;

    /// Brings those registers to their initial state.
    ///
    /// # Safety
    ///
    /// S2 of [`RawFpu::save`], the registers hold nothing that anybody needs, and
    /// [`keeps_awake`](Self::keeps_awake) has just answered `true` here.
    unsafe fn release(&self);
}
