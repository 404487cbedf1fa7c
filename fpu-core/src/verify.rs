//! A check that can be switched on: do the registers hold what they are claimed to hold?
//!
//! In state 2a the words say that registers and memory agree. The check saves the registers to other
//! memory and compares the two images as *state*. So it finds broken duties that no type can see: kernel
//! code or firmware that uses the registers outside a section (K9), a suspend without `fpu_resume`, words
//! that were zeroed (K13), a CPU number given twice (K15).
//!
//! A kernel that does not call this has no code of it.

use core::{fmt, ptr::NonNull};

use crate::{
    area::SaveArea,
    backend::{RawFpu, TheBackend},
    error::{Error, NewError},
    session::open::TaskState,
    task::TaskFpu,
    witness::{Pinned, SoftFloat},
};

/// A backend that can compare two images.
///
/// Images of one state can differ in their bytes: a component in its initial state may be absent, with old
/// bytes in its place; reserved fields hold anything; some bits are computed from others. The
/// comparison covers what a task would find in its registers after a restore.
///
/// # Safety
///
/// The implementer promises, with B6 (bounded steps) of [`RawFpu`]:
///
/// * **B8** [`same_state`](Self::same_state) reads no more than
///   [`image_len`](RawFpu::image_len) bytes of either area, writes none, and leaves the registers alone.
/// * **B9** it answers `Ok` only if a task could not tell a restore of the one from a restore of the
///   other, by whatever the architecture promises to keep.
/// * **B10** it answers `Ok` if the second image was saved right after the first was restored or saved,
///   nothing having changed the registers between; whatever lay in the second area before.
///
/// # Examples
///
/// A CPU with one register of 32 bits, saved in 8 bytes of which the upper half is reserved:
///
/// ```
/// # use core::{cell::Cell, ptr::NonNull};
/// use fpu_core::{verify::{CompareFpu, Difference}, RawFpu};
/// # use fpu_core::{KernelUnits, RestoreFault};
/// # struct Half(Cell<u32>);
/// # // SAFETY: B1-B7: the one register is half a word, moved whole; nothing faults.
/// # unsafe impl RawFpu for Half {
/// #     type Image<'a> = u32;
/// #     type ImageMut<'a> = &'a mut u32;
/// #     fn area_len(&self) -> usize { 8 }
/// #     fn area_align(&self) -> usize { 8 }
/// #     // SAFETY: valid area (C9) by the caller, here and below.
/// #     unsafe fn write_initial(&self, area: NonNull<u8>) { unsafe { area.cast::<u64>().as_ptr().write(0) } }
/// #     unsafe fn save(&self, area: NonNull<u8>) { unsafe { area.cast::<u32>().as_ptr().write(self.0.get()) } }
/// #     unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
/// #         self.0.set(unsafe { area.cast::<u32>().as_ptr().read() });
/// #         Ok(())
/// #     }
/// #     unsafe fn kernel_defaults(&self, _: KernelUnits) { self.0.set(0) }
/// #     unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> u32 { unsafe { area.cast::<u32>().as_ptr().read() } }
/// #     unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> &'a mut u32 { unsafe { area.cast::<u32>().as_mut() } }
/// # }
///
/// // SAFETY: B8: reads half a word of each. B9, B10: that half is all there is.
/// unsafe impl CompareFpu for Half {
///     unsafe fn same_state(&self, one: NonNull<u8>, other: NonNull<u8>) -> Result<(), Difference> {
///         // SAFETY: the caller's valid area (C9) and no other writer (C11), for both.
///         let (one, other) = unsafe { (self.image(one), self.image(other)) };
///         if one == other { Ok(()) } else { Err(Difference { component: 0, offset: 0 }) }
///     }
/// }
/// # let (one, other) = (1u64, 0xFFFF_0000_0000_0001u64);
/// # let at = |word: &u64| NonNull::from(word).cast();
/// # // SAFETY: C9, C11: two words of ours, read only.
/// # assert_eq!(unsafe { Half(Cell::new(0)).same_state(at(&one), at(&other)) }, Ok(()));
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "the backend `{Self}` cannot compare two images",
        label = "registers cannot be checked against memory with it",
        note = "implement `fpu_core::verify::CompareFpu` for it"
    )
)]
pub unsafe trait CompareFpu: RawFpu {
    /// Do two images hold the same state?
    ///
    /// # Errors
    ///
    /// The first difference; its offset is one in `one`.
    ///
    /// # Safety
    ///
    /// Valid area (C9) of [`RawFpu::write_initial`] for both areas, reading only; both hold an image; and no other
    /// writer (C11) of [`RawFpu::image`].
    unsafe fn same_state(&self, one: NonNull<u8>, other: NonNull<u8>) -> Result<(), Difference>;
}

/// Where two images hold different state; the numbers are the backend's (on x86: the component's number in
/// XCR0, the byte in the image).
///
/// ```
/// let avx = fpu_core::verify::Difference { component: 2, offset: 576 };
/// assert_eq!(avx.to_string(), "component 2 differs, at byte 576 of the image");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The component.
    pub component: u32,
    /// Where, in the task's image: the first byte that differs, or that of the register or field which it is in (on
    /// x86: of x87 and SSE).
    pub offset: u32,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { component, offset } = self;
        write!(f, "component {component} differs, at byte {offset} of the image")
    }
}

/// How [`TaskFpu::verify_registers`] found registers and words in agreement.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # use fpu_core::{verify::{Scratch, Verified}, Pinned};
/// # let (mut cpu, task) = cpu_and_task();
/// let mut scratch = Scratch::new(cpu.backend(), Area::new())?;
/// assert_eq!(task.verify_registers(&mut cpu, &mut scratch), Ok(Verified::MemoryOnly)); // never ran
/// # Ok::<(), fpu_core::AreaError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "only `Agreed` says that anything was compared"]
pub enum Verified {
    /// State 2a, and the registers hold what memory holds.
    Agreed,
    /// State 1: there is no second copy to compare with.
    RegistersOnly,
    /// State 2b: the registers are not claimed.
    MemoryOnly,
}

/// Why [`TaskFpu::verify_registers`] did not find registers and words in agreement.
///
/// This type is apart from [`Error`], which stays small because the hot path returns it.
///
/// ```
/// use fpu_core::{verify::{Difference, VerifyError}, Error};
/// let found = VerifyError::Disagreement(Difference { component: 1, offset: 160 });
/// assert_eq!(
///     found.to_string(),
///     "the registers do not hold the task's state: component 1 differs, at byte 160 of the image"
/// );
/// assert_eq!(VerifyError::from(Error::Busy).to_string(), Error::Busy.to_string());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// Nothing was compared, and nothing has changed.
    Refused(Error),
    /// The registers do not hold what the words claim: some duty is broken. The claim has ended, so
    /// the next [`switch_return`](TaskFpu::switch_return) loads the task from
    /// memory, which was saved before and is right.
    Disagreement(Difference),
    /// Nothing was compared, and nothing has changed: the scratch is smaller than the task's image, whose area was
    /// [replaced](TaskFpu::replace_area).
    ScratchTooSmall {
        /// Bytes of the image.
        need: usize,
        /// Bytes of the scratch.
        have: usize,
    },
}

impl From<Error> for VerifyError {
    fn from(why: Error) -> Self {
        Self::Refused(why)
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => why.fmt(f),
            Self::Disagreement(difference) => {
                write!(f, "the registers do not hold the task's state: {difference}")
            }
            Self::ScratchTooSmall { need, have } => {
                write!(f, "the scratch has {have} bytes, the task's image {need}")
            }
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for VerifyError {}

/// Memory that [`TaskFpu::verify_registers`] saves registers to, checked once: one for each CPU, or one
/// for each call.
///
/// No restore is ever made from this memory. It holds the registers that were compared last.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let cpu = online_cpu();
/// use fpu_core::{verify::Scratch, AreaError, RawFpu};
/// let refused = Scratch::new(cpu.backend(), fpu_core::Area::<64>::new()).err().map(|refused| refused.why);
/// assert_eq!(refused, Some(AreaError::TooSmall { need: cpu.backend().area_len(), have: 64 }));
/// let scratch = Scratch::new(cpu.backend(), Area::new())?;
/// # drop(scratch);
/// # Ok::<(), AreaError>(())
/// ```
pub struct Scratch<B, A>(TaskFpu<B, A>);

impl<B: RawFpu, A: SaveArea> Scratch<B, A> {
    /// Takes an area and writes an initial image into it. As [`TaskFpu::new`], it needs no witness.
    ///
    /// # Errors
    ///
    /// The area is too small or misaligned for the backend; the error carries it, untouched.
    pub fn new(backend: &TheBackend<B>, area: A) -> Result<Self, NewError<A>> {
        TaskFpu::new(backend, area).map(Self)
    }

    /// Gives the area back.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # use fpu_core::{verify::Scratch, Pinned, SaveArea};
    /// # let cpu = online_cpu();
    /// let scratch = Scratch::new(cpu.backend(), Area::new())?;
    /// assert_eq!(scratch.into_area().len(), AREA);
    /// # Ok::<(), fpu_core::AreaError>(())
    /// ```
    #[must_use]
    pub fn into_area(self) -> A {
        self.0.into_area()
    }
}

impl<B, A> fmt::Debug for Scratch<B, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

impl<B: RawFpu, A: SaveArea> TaskFpu<B, A> {
    /// Checks the registers' claim: in state 2a, saves the registers to `scratch` and compares the two
    /// images. For a kernel's debug configuration, just before [`switch_return`](Self::switch_return)
    /// or wherever the registers are claimed.
    ///
    /// The image in memory, the registers and the state stay as they are, unless registers and
    /// memory disagree. Until the call returns, this CPU refuses sections with [`Error::Busy`], in
    /// interrupts too.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Disagreement`]: a duty is broken. The task is in state 2b then
    /// ([`Invalidated`](crate::observe::EventKind::Invalidated) is told).
    /// [`VerifyError::Refused`]: as for [`open`](Self::open); nothing has changed.
    ///
    /// # Examples
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// use fpu_core::verify::{Scratch, Verified, VerifyError};
    /// # let (mut cpu, task) = cpu_and_task();
    /// let mut scratch = Scratch::new(cpu.backend(), Area::new())?; // one a CPU
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7); // user mode
    /// task.switch_prepare(&cpu)?;
    /// assert_eq!(task.verify_registers(&mut cpu, &mut scratch), Ok(Verified::Agreed));
    ///
    /// cpu.set_avx0(8); // kernel code that should have been compiled soft-float
    /// if let Err(VerifyError::Disagreement(what)) = task.verify_registers(&mut cpu, &mut scratch) {
    ///     println!("before user mode: {what}");
    ///     # assert_eq!(what.component, 2);
    /// }
    /// drop(task.switch_return(&mut cpu)?); // restores
    /// assert_eq!(cpu.avx0(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "fpregs_assert_state_consistent")]
    pub fn verify_registers<C, A2>(
        &self,
        cpu: &mut C,
        scratch: &mut Scratch<B, A2>,
    ) -> Result<Verified, VerifyError>
    where
        B: CompareFpu,
        C: SoftFloat + Pinned<Backend = B>,
        A2: SaveArea,
    {
        let state = self.open(cpu)?;
        match &state {
            TaskState::RegistersOnly(_) => return Ok(Verified::RegistersOnly),
            TaskState::MemoryOnly(_) => return Ok(Verified::MemoryOnly),
            TaskState::Both(_) => {}
        }
        let (backend, memory, registers) = (state.cpu().backend(), self.base(), scratch.0.base());
        // SAFETY: C9: checked in `new`, against this backend (K1); memory is valid, and this CPU is closed.
        let (need, have) = (unsafe { backend.image_len(memory) }, scratch.0.area.len());
        if have < need {
            return Err(VerifyError::ScratchTooSmall { need, have });
        }
        // SAFETY: C9: `Scratch::new` checked the area, and `new` the task's, against this backend (K1): so many bytes each, as
        // just asked, apart (K18); the scratch is borrowed exclusively.
        unsafe {
            registers.as_ptr().copy_from_nonoverlapping(memory.as_ptr(), need);
        }
        // SAFETY: C9: `Scratch::new` checked it, and it now holds the task's image. C10: pinned (K2), soft-float (K9);
        // a save changes no register (B2). B7: should the CPU take the scratch for the area of its last restore (the
        // task has been moved in memory, the scratch is where it was), then what it leaves out as
        // unchanged is what that restore loaded, which the copy has. A save does not change what the
        // CPU remembers of a restore, so the next one to the task's own area leaves out no more.
        unsafe { backend.save(registers) };
        // SAFETY: C9: checked in `new`, both of them, and two values (K18). C11: this CPU is closed, so
        // no save goes to the task's area (K5); the scratch is borrowed exclusively.
        match unsafe { backend.same_state(memory, registers) } {
            Ok(()) => Ok(Verified::Agreed),
            Err(difference) => {
                drop(state.make_memory_valid_write());
                Err(VerifyError::Disagreement(difference))
            }
        }
    }
}
