//! The primitive steps that an architecture supplies, without policy.

use core::{fmt, ptr::NonNull};

/// The primitive steps on one CPU's registers and one save area.
///
/// A value describes one layout (which registers, what format, how many bytes). A backend knows no
/// tasks, no CPUs, and not which copy is valid. The protocol above is the same for every
/// implementation. Run `fpu_hosted_test::conformance` on a new one.
///
/// Compare `lock_api::RawMutex`. Two implementations stand in this workspace: `fpu-x86` and the
/// simulated CPU of `fpu-hosted-test`.
///
/// # Safety
///
/// The implementer promises:
///
/// * **B1** [`area_len`](Self::area_len) and [`area_align`](Self::area_align) never change, the
///   alignment is a power of two, and no method reads or writes outside that many bytes; of an area that has been given
///   more room, outside the bytes of that room ([`GrowFpu`](crate::grow::GrowFpu), B13).
/// * **B2** [`save`](Self::save) writes every register that any task can hold (on x86: XCR0 | IA32_XSS)
///   and changes none.
/// * **B3** [`restore`](Self::restore) sets every such register, those absent from the image to
///   their initial value, so that nothing of the previous holder is left. A restore reads the image and
///   does not write it.
/// * **B4** a restore that cannot be completed returns `Err` and does not fault; the registers may
///   then hold anything, the image is unchanged.
/// * **B5** a restore of what [`save`](Self::save), [`write_initial`](Self::write_initial),
///   [`copy_for_child`](Self::copy_for_child) or the safe methods of
///   [`ImageMut`](Self::ImageMut) wrote succeeds.
/// * **B6** no method allocates, panics, waits, or touches another CPU.
/// * **B7** an optimisation that leaves out of a save what "has not changed since the restore from
///   this address" is allowed only if it is right whenever the last restore on this CPU from this
///   address loaded what is in memory now (the protocol guarantees that, with C38 of [`adopt`](crate::TaskFpu::adopt)).
/// * **B17** [`unchanged`](Self::unchanged) changes no register and no memory. It answers `true` only if no task could tell
///   a restore of what is in the area from one of what [`save`](Self::save) would write there now.
///
/// # Examples
///
/// A CPU with a single 8-byte register:
///
/// ```
/// use core::{cell::Cell, ptr::NonNull};
/// use fpu_core::{KernelUnits, RawFpu, RestoreFault};
///
/// struct OneRegister(Cell<u64>);
///
/// // SAFETY: B1-B7: the one register is one word, moved whole; nothing is left out, nothing faults.
/// unsafe impl RawFpu for OneRegister {
///     type Image<'a> = &'a u64;
///     type ImageMut<'a> = &'a mut u64;
///     fn area_len(&self) -> usize { 8 }
///     fn area_align(&self) -> usize { 8 }
///     unsafe fn write_initial(&self, area: NonNull<u8>) {
///         // SAFETY: the caller's valid area (C9).
///         unsafe { area.cast::<u64>().as_ptr().write(0) }
///     }
///     unsafe fn save(&self, area: NonNull<u8>) {
///         // SAFETY: the caller's valid area (C9).
///         unsafe { area.cast::<u64>().as_ptr().write(self.0.get()) }
///     }
///     unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
///         // SAFETY: the caller's valid area (C9).
///         self.0.set(unsafe { area.cast::<u64>().as_ptr().read() });
///         Ok(())
///     }
///     unsafe fn kernel_defaults(&self, _: KernelUnits) { self.0.set(0) }
///     unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> &'a u64 {
///         // SAFETY: the caller's valid area (C9) and no other writer (C11).
///         unsafe { area.cast::<u64>().as_ref() }
///     }
///     unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> &'a mut u64 {
///         // SAFETY: the caller's valid area (C9) and no other writer (C11).
///         unsafe { area.cast::<u64>().as_mut() }
///     }
/// }
/// let cpu = OneRegister(Cell::new(7));
/// let mut area = 0u64;
/// // SAFETY: C9: an aligned u64 of our own; C10: the register is a cell.
/// unsafe { cpu.save(NonNull::from(&mut area).cast()) };
/// assert_eq!(area, 7);
/// ```
pub unsafe trait RawFpu {
    /// A read-only view of an image in memory.
    type Image<'a>
    where
        Self: 'a;
    /// A view of an image through which it can be changed, by safe methods only into something that
    /// [`restore`](Self::restore) accepts (B5).
    type ImageMut<'a>
    where
        Self: 'a;

    /// Bytes a save area must have.
    #[must_use]
    fn area_len(&self) -> usize;

    /// Bytes of this area that the backend uses: [`area_len`](Self::area_len), or more where it has given the area more
    /// room ([`GrowFpu`](crate::grow::GrowFpu)).
    ///
    /// # Safety
    ///
    /// Valid area (C9) of [`write_initial`](Self::write_initial), reading only, and the area holds an image.
    #[inline(always)]
    unsafe fn image_len(&self, area: NonNull<u8>) -> usize {
        let _ = area;
        self.area_len()
    }

    /// Alignment a save area must have, in bytes, a power of two (on x86: 64, for XSAVE).
    #[must_use]
    fn area_align(&self) -> usize;

    /// A word that all [steps](crate::UserSteps) pass to assembly. The core gives it no meaning. On x86: the
    /// requested-feature bitmap that XSAVE takes in EDX:EAX.
    #[doc(alias = "plan_mask")]
    #[must_use]
    fn plan_word(&self) -> u64 {
        u64::MAX
    }

    /// Prefetches the memory of an area whose image is restored soon and was written on another CPU. The call changes
    /// nothing and never faults. The default does nothing.
    #[inline]
    fn prefetch(&self, area: NonNull<u8>) {
        let _ = area;
    }

    /// Writes the architectural initial state into an area, whatever was in it before.
    ///
    /// # Safety
    ///
    /// * **C9** `area` is valid for reads and writes of [`area_len`](Self::area_len) bytes, aligned
    ///   to [`area_align`](Self::area_align), and nothing else accesses it meanwhile.
    #[doc(alias = "init_fpstate")]
    unsafe fn write_initial(&self, area: NonNull<u8>);

    /// Writes all registers into `area`; the registers stay as they are.
    ///
    /// # Safety
    ///
    /// * Valid area (C9) as for [`write_initial`](Self::write_initial), and what is in the area was written by
    ///   this backend.
    /// * **C10** the caller may run on this CPU's registers: the caller is pinned, and the code
    ///   around the call keeps nothing of its own in the registers.
    unsafe fn save(&self, area: NonNull<u8>);

    /// Tells whether a [`save`](Self::save) can be left out because the area already holds what the registers hold. It is
    /// asked before each save of a context whose registers these are, except in the steps form and the raw layer.
    ///
    /// Right for a backend that knows it from a few instructions: RISC-V's `sstatus.FS` is Clean where no register has
    /// changed since the kernel set it so, after a save or a restore. (The bits may be in the trap frame instead, which the
    /// witness knows: [`Pinned::unchanged`](crate::Pinned::unchanged).) Where a kernel loads those bits with each trap frame, they
    /// are the interrupted task's, and the context to be saved can be another's: a [bound](crate::BoundCpu) one, or a guest.
    /// Such a backend leaves this out, or reads what it noted itself at the context's restore. x86 knows it only of registers in their initial
    /// state. `false` is always right, and is the default. [`EventKind::Unchanged`](crate::observe::EventKind::Unchanged) has
    /// a backend that says more.
    ///
    /// # Safety
    ///
    /// Valid area (C9) and registers free (C10) as for [`save`](Self::save), reading only, and
    ///
    /// * **C49** the registers are those of the context with this area: this CPU loaded them from it last, or
    ///   [adopted](Self::adopt) them for it.
    #[doc(alias = "sstatus.FS")]
    #[inline(always)]
    #[must_use]
    unsafe fn unchanged(&self, area: NonNull<u8>) -> bool {
        let _ = area;
        false
    }

    /// Loads all registers from `area`.
    ///
    /// # Errors
    ///
    /// The hardware refused the image; the registers are undefined (B4).
    ///
    /// # Safety
    ///
    /// Valid area (C9) and registers free (C10) as for [`save`](Self::save), reading only.
    #[doc(alias = "ex_handler_fprestore")]
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault>;

    /// Tells the backend that the registers, as they are, become those of the context with this area
    /// ([`TaskFpu::adopt`](crate::TaskFpu::adopt)), without a restore from the area. The default does nothing.
    ///
    /// # Errors
    ///
    /// The hardware refused; the registers are unowned.
    ///
    /// # Safety
    ///
    /// Valid area (C9) and registers free (C10) as for [`save`](Self::save), reading only.
    #[inline(always)]
    unsafe fn adopt(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        let _ = area;
        Ok(())
    }

    /// Begins a section: puts the control words that compiled kernel code expects into the registers, for the units
    /// asked for. On x86: FNINIT for x87, MXCSR = 0x1F80 for SIMD.
    ///
    /// # Safety
    ///
    /// Registers free (C10) as for [`save`](Self::save), and no code needs what the registers hold.
    unsafe fn kernel_defaults(&self, units: KernelUnits);

    /// Ends the section that [`kernel_defaults`](Self::kernel_defaults) began with these units: turns off again what
    /// the kernel's code must not leave on (on AArch64 streaming mode, by SMSTOP; on RISC-V `sstatus.FS`). Sections
    /// are refused on this CPU until the call returns. The default, which x86 uses, does nothing.
    ///
    /// # Safety
    ///
    /// As for [`kernel_defaults`](Self::kernel_defaults).
    #[inline(always)]
    unsafe fn section_end(&self, units: KernelUnits) {
        let _ = units;
    }

    /// Copies an image for a child task, leaving out what a child does not inherit (on x86: AMX tiles).
    ///
    /// # Safety
    ///
    /// Valid area (C9) for both areas, which do not overlap; `from` holds an image.
    unsafe fn copy_for_child(&self, from: NonNull<u8>, to: NonNull<u8>) {
        // SAFETY: valid area (C9) of both, not overlapping, by the caller.
        unsafe { to.as_ptr().copy_from_nonoverlapping(from.as_ptr(), self.area_len()) }
    }

    /// The typed view of an area.
    ///
    /// # Safety
    ///
    /// * Valid area (C9) as for [`write_initial`](Self::write_initial), and the area holds an image.
    /// * **C11** no other code writes the area while the view lives.
    #[must_use]
    unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> Self::Image<'a>;

    /// The typed view of an area, for changing it.
    ///
    /// # Safety
    ///
    /// As for [`image`](Self::image), and no other code reads the area while the view lives.
    #[must_use]
    unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> Self::ImageMut<'a>;
}

/// A backend that knows which registers keep a core from sleeping deeply, and gives them up. Only
/// [`CpuLifecycle::fpu_idle`](crate::CpuLifecycle::fpu_idle) needs this trait. A kernel without that call has no code
/// of the trait.
///
/// Some registers keep power on although no code uses them: with AMX tiles that are not in their
/// initial state, a core does not reach its deepest idle states. After a switch to idle the tiles may
/// still be those of the task that was switched out (state 2a), so giving up the tiles ends that claim.
///
/// # Safety
///
/// The implementer promises, with B6 (bounded steps) of [`RawFpu`]:
///
/// * **B11** [`keeps_awake`](Self::keeps_awake) changes no register and no memory. It answers `false` only
///   where every register that [`release`](Self::release) would change is in its initial state. It may
///   answer `true` there too; the cost is a restore that could have been skipped.
/// * **B12** [`release`](Self::release) brings the registers that keep a core awake to their initial state. It
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
/// #     // SAFETY: valid area (C9) by the caller, here and below.
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
/// // SAFETY: B11: a comparison. B12: the one register becomes 0, which is its initial state.
/// unsafe impl IdleFpu for OneRegister {
///     unsafe fn keeps_awake(&self) -> bool { self.0.get() != 0 }
///     unsafe fn release(&self) { self.0.set(0) }
/// }
/// let cpu = OneRegister(Cell::new(7));
/// // SAFETY: C10: the register is a cell, and no code needs its value.
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
    /// Registers free (C10) of [`RawFpu::save`]: what the backend manages is enabled here (K4 of
    /// [`Pinned`](crate::Pinned)), and the answer is about the CPU that the caller stays on.
    #[must_use]
    unsafe fn keeps_awake(&self) -> bool;

    /// Brings those registers to their initial state.
    ///
    /// # Safety
    ///
    /// Registers free (C10) of [`RawFpu::save`], no code needs what the registers hold, and
    /// [`keeps_awake`](Self::keeps_awake) has just answered `true` here.
    unsafe fn release(&self);
}

/// Why the hardware refused an image; the number is the backend's (on x86: the exception vector, 13 for
/// general protection, 14 for a page fault).
///
/// ```
/// assert_eq!(fpu_core::RestoreFault(13).to_string(), "fault 13");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreFault(
    /// The backend's number.
    pub u32,
);

impl fmt::Display for RestoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault {}", self.0)
    }
}

/// The kernel's one backend: the value with which contexts are made and registers moved.
///
/// A context's area is checked once, when the context is made; the saves into it come later, through other values
/// (a witness, a proof of being stopped). All of them must use one size and format. With this type a kernel promises
/// that once, where it stores its backend; [`TaskFpu::new`](crate::TaskFpu::new) and all that follows are safe then.
///
/// The type holds the backend's value and nothing else ([`Deref`](core::ops::Deref) gives it), and can be a `static`.
///
/// ```
/// use fpu_core::{RawFpu, TaskFpu, TheBackend};
/// # use fpu_hosted_test::{doc::Area, sim::SimFpu};
/// // SAFETY: K1: the only one that this kernel makes.
/// let backend = unsafe { TheBackend::new(SimFpu::new()) };
/// let need = backend.area_len();
/// let task = TaskFpu::new(&backend, Area::new())?;
/// # let _ = (need, task);
/// # Ok::<(), fpu_core::AreaError>(())
/// ```
#[derive(Debug)]
#[repr(transparent)]
pub struct TheBackend<B>(B);

impl<B> TheBackend<B> {
    /// Promises that `backend` is the kernel's one backend.
    ///
    /// # Safety
    ///
    /// * **K1** all values of `TheBackend<B>` that the kernel makes describe the same layout
    ///   ([`area_len`](RawFpu::area_len), [`area_align`](RawFpu::area_align), and an image that one of them wrote is
    ///   one for the others), now and always. The simplest kernel makes one, stores it in a static, and has
    ///   no second. With another layout, saves could reach beyond an area.
    ///
    /// ```
    /// # use fpu_hosted_test::sim::SimFpu;
    /// // SAFETY: K1: the only one.
    /// let backend = unsafe { fpu_core::TheBackend::new(SimFpu::new()) };
    /// # let _ = backend;
    /// ```
    #[must_use]
    pub const unsafe fn new(backend: B) -> Self {
        Self(backend)
    }

    /// Promises the same of a backend that is stored already.
    ///
    /// # Safety
    ///
    /// One backend (K1) as for [`new`](Self::new).
    ///
    /// ```
    /// # use fpu_hosted_test::{doc::Area, sim::SimFpu};
    /// use fpu_core::{TaskFpu, TheBackend};
    /// let stored = SimFpu::new();
    /// // SAFETY: K1: the only one.
    /// let backend = unsafe { TheBackend::from_ref(&stored) };
    /// assert!(TaskFpu::new(backend, Area::new()).is_ok());
    /// ```
    #[inline(always)]
    #[must_use]
    pub const unsafe fn from_ref(backend: &B) -> &Self {
        // SAFETY: `repr(transparent)`: the same address, layout and lifetime.
        unsafe { &*(backend as *const B).cast::<Self>() }
    }
}

impl<B> core::ops::Deref for TheBackend<B> {
    type Target = B;
    #[inline(always)]
    fn deref(&self) -> &B {
        &self.0
    }
}

/// The units whose control words a kernel FPU section wants set to defaults: any of 32, which the backend numbers and
/// names (`fpu_x86::units`).
///
/// ```
/// use fpu_core::KernelUnits;
/// const SCALAR: KernelUnits = KernelUnits::unit(0); // in the backend's crate
/// const VECTOR: KernelUnits = KernelUnits::unit(1);
/// assert!((SCALAR | VECTOR).contains(VECTOR) && !SCALAR.contains(VECTOR));
/// assert!(KernelUnits::ALL.contains(SCALAR | VECTOR));
/// ```
#[doc(alias = "KFPU_387")]
#[doc(alias = "KFPU_MXCSR")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelUnits(u32);

impl KernelUnits {
    /// No unit: the section sets up what it needs by itself.
    pub const NONE: Self = Self(0);
    /// All units of the backend.
    pub const ALL: Self = Self(u32::MAX);

    /// The backend's unit of this number. From 32 on no unit has the number, and the result is [`NONE`](Self::NONE).
    ///
    /// ```
    /// use fpu_core::KernelUnits;
    /// assert_ne!(KernelUnits::unit(0), KernelUnits::unit(31));
    /// assert_eq!(KernelUnits::unit(32), KernelUnits::NONE);
    /// ```
    #[must_use]
    pub const fn unit(number: u32) -> Self {
        match 1u32.checked_shl(number) {
            Some(bit) => Self(bit),
            None => Self::NONE,
        }
    }

    /// Tells whether all of `units` are asked for.
    ///
    /// ```
    /// use fpu_core::KernelUnits;
    /// assert!(!KernelUnits::NONE.contains(KernelUnits::unit(0)));
    /// ```
    #[doc(alias = "x87")]
    #[doc(alias = "simd")]
    #[inline]
    #[must_use]
    pub const fn contains(self, units: Self) -> bool {
        self.0 & units.0 == units.0
    }
}

impl core::ops::BitOr for KernelUnits {
    type Output = Self;
    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
