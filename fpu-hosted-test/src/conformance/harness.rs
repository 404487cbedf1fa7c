//! The trait that a backend author implements to have the backend checked.

use core::{fmt, ptr::NonNull};
use fpu_core::{verify::Difference, KernelUnits, RawFpu, RestoreFault};

/// One step on the registers. Nothing may come between two steps that changes a register.
#[derive(Clone, Copy, Debug)]
pub enum Step<'r, R> {
    /// Loads these values into all registers.
    Load(&'r R),
    /// [`RawFpu::save`].
    Save(NonNull<u8>),
    /// [`RawFpu::save`], unless [`RawFpu::unchanged`] says that it is not needed.
    SaveIfChanged(NonNull<u8>),
    /// [`RawFpu::restore`].
    Restore(NonNull<u8>),
    /// [`RawFpu::adopt`].
    Adopt(NonNull<u8>),
    /// [`RawFpu::kernel_defaults`].
    Defaults(KernelUnits),
    /// [`RawFpu::section_end`].
    End(KernelUnits),
}

/// The result of some steps.
#[derive(Debug)]
pub struct Outcome<R> {
    /// The answer of the last restore or adoption, `Ok` if there was none.
    pub restored: Result<(), RestoreFault>,
    /// The registers after the last step.
    pub registers: R,
}

/// The result of an instruction that was executed twice, with the trap armed and without.
#[derive(Debug)]
pub struct Trap<R> {
    /// It faulted while the trap was armed.
    pub armed: bool,
    /// It faulted after that.
    pub disarmed: bool,
    /// The registers in between.
    pub registers: R,
}

/// A backend, and the access to the registers that it moves.
///
/// In a program that is itself compiled with vector instructions, registers keep their values inside
/// assembly only: [`run`](Self::run) is then one assembly loop that calls a list of `extern "C"`
/// functions with one pointer each, where the backend's steps are [`call`] with a [`Call`].
pub trait Harness {
    /// The backend.
    type Fpu: RawFpu;
    /// The contents of all registers that the backend moves.
    type Registers: Clone + PartialEq + fmt::Debug;

    /// The backend.
    #[must_use]
    fn fpu(&self) -> &Self::Fpu;
    /// The number of components that an image can have or not have, at most 16.
    #[must_use]
    fn components(&self) -> u32;
    /// The components that a child task inherits, one bit each.
    #[must_use]
    fn inherited(&self) -> u64 {
        u64::MAX
    }
    /// Contents that only this seed gives in the components of `present`, and the initial state in the
    /// others.
    #[must_use]
    fn pattern(&self, seed: u64, present: u64) -> Self::Registers;
    /// Executes the steps and then reads the registers, with nothing in between.
    ///
    /// # Safety
    ///
    /// Valid area (C9) of [`RawFpu`] holds for every area in the steps.
    unsafe fn run(&mut self, steps: &[Step<'_, Self::Registers>]) -> Outcome<Self::Registers>;
    /// The number of units that the backend has.
    #[must_use]
    fn units(&self) -> u32 {
        1
    }
    /// Tells whether the control words of these units are as [`RawFpu::kernel_defaults`] promises.
    #[must_use]
    fn defaults_hold(&self, registers: &Self::Registers, units: KernelUnits) -> bool;
    /// The registers that the view shows; `None` if the backend's view shows none.
    #[must_use]
    fn view(&self, image: <Self::Fpu as RawFpu>::Image<'_>) -> Option<Self::Registers> {
        drop(image);
        None
    }
    /// Gives the image these contents through the view; `false` if the view cannot.
    #[must_use]
    fn write(
        &self,
        image: <Self::Fpu as RawFpu>::ImageMut<'_>,
        registers: &Self::Registers,
    ) -> bool {
        drop((image, registers));
        false
    }
    /// Makes a legal image one that the hardware refuses; `false` if it refuses none.
    #[must_use]
    fn spoil(&self, image: &mut [u8]) -> bool {
        let _: &mut [u8] = image;
        false
    }
    /// Says in a legal image that these components are in their initial state, and leaves their bytes as they
    /// are; `false` if no image of this format can say so. Fields that the format keeps for them in every image get
    /// their initial values.
    #[must_use]
    fn omit(&self, image: &mut [u8], components: u64) -> bool {
        let _ = (image, components);
        false
    }
    /// The backend's comparison of two images; `None` if the backend [cannot compare](fpu_core::verify::CompareFpu).
    ///
    /// # Safety
    ///
    /// Valid area (C9) of [`RawFpu`] and C11 (no other writer) hold for both, and both hold an image.
    #[must_use]
    unsafe fn compare(
        &self,
        one: NonNull<u8>,
        other: NonNull<u8>,
    ) -> Option<Result<(), Difference>> {
        let _ = (one, other);
        None
    }
    /// The components that keep a core awake, one bit each, of those that the harness sees.
    #[must_use]
    fn keeps_awake(&self) -> u64 {
        0
    }
    /// Loads these registers and asks the backend whether they keep the core awake; if so, has the backend give up
    /// those that do. Returns the answer, and the registers after that; `None` if the backend
    /// [cannot](fpu_core::IdleFpu). Nothing may come in between that changes a register, as for [`run`](Self::run).
    #[must_use]
    fn idle(&mut self, registers: &Self::Registers) -> Option<(bool, Self::Registers)> {
        let _ = registers;
        None
    }
    /// Loads these registers and arms the backend's trap, has a task's instruction write this component, disarms the trap
    /// and has the instruction executed again. `None` if the backend [cannot trap](fpu_core::trap::TrapFpu).
    #[must_use]
    fn trap(
        &mut self,
        registers: &Self::Registers,
        component: u32,
    ) -> Option<Trap<Self::Registers>> {
        let _ = (registers, component);
        None
    }
    /// Allocations made so far by the backend's own steps in [`run`](Self::run), if they are counted.
    #[must_use]
    fn allocations(&self) -> Option<u64> {
        None
    }
}

/// One of the backend's steps, for [`call`].
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// [`RawFpu::save`].
    Save(NonNull<u8>),
    /// [`RawFpu::save`], unless [`RawFpu::unchanged`] says that it is not needed.
    SaveIfChanged(NonNull<u8>),
    /// [`RawFpu::restore`].
    Restore(NonNull<u8>),
    /// [`RawFpu::adopt`].
    Adopt(NonNull<u8>),
    /// [`RawFpu::kernel_defaults`].
    Defaults(KernelUnits),
    /// [`RawFpu::section_end`].
    End(KernelUnits),
}

/// Saves, unless the backend says that the area holds the registers already.
///
/// # Safety
///
/// Valid area (C9), registers free (C10) and the area's registers (C49) of [`RawFpu`].
pub unsafe fn save_if_changed<F: RawFpu>(fpu: &F, area: NonNull<u8>) {
    // SAFETY: the caller's.
    unsafe {
        if !fpu.unchanged(area) {
            fpu.save(area);
        }
    }
}

/// A step and its answer, which assembly passes by pointer.
///
/// ```
/// use core::{fmt, ptr::NonNull};
/// use fpu_core::RawFpu;
/// use fpu_hosted_test::{conformance::{call, Action, Call}, sim::{Registers, SimFpu, AREA_LEN}};
/// #[repr(align(64))]
/// struct Memory([u8; AREA_LEN]);
/// let (fpu, mut memory) = (SimFpu::new(), Memory([0; AREA_LEN]));
/// let area = NonNull::from(&mut memory.0).cast();
/// // SAFETY: C9: aligned, long enough, ours.
/// unsafe { fpu.write_initial(area) };
/// fpu.scribble(1);
/// let mut restore = Call::new(&fpu, Action::Restore(area));
/// // SAFETY: C9: it was written by `write_initial`. C10: simulated registers.
/// unsafe { call::<SimFpu>(&mut restore) };
/// assert_eq!((restore.answer, fpu.registers()), (Ok(()), Registers::initial()));
/// ```
#[repr(C)]
#[derive(Debug)]
pub struct Call<F> {
    fpu: *const F,
    action: Action,
    /// The answer of a restore or an adoption.
    pub answer: Result<(), RestoreFault>,
}

impl<F: RawFpu> Call<F> {
    /// The step, not executed. The backend must outlive the value.
    pub fn new(fpu: &F, action: Action) -> Self {
        Self { fpu, action, answer: Ok(()) }
    }
}

/// Executes a step of the backend. The assembly of a harness calls this.
///
/// # Safety
///
/// `call` points to a value made by [`Call::new`] whose backend is alive; valid area (C9), registers free (C10) and, where
/// it is asked, the area's registers (C49) of [`RawFpu`] hold.
pub unsafe extern "C" fn call<F: RawFpu>(call: *mut Call<F>) {
    // SAFETY: the caller's promise: both are alive, and no other code uses `call`.
    let (call, fpu) = unsafe { (&mut *call, &*(*call).fpu) };
    // SAFETY: valid area (C9), registers free (C10), the area's registers (C49) by the caller.
    unsafe {
        match call.action {
            Action::Save(area) => fpu.save(area),
            Action::SaveIfChanged(area) => save_if_changed(fpu, area),
            Action::Restore(area) => call.answer = fpu.restore(area),
            Action::Adopt(area) => call.answer = fpu.adopt(area),
            Action::Defaults(units) => fpu.kernel_defaults(units),
            Action::End(units) => fpu.section_end(units),
        }
    }
}
