//! Kernel FPU sections and guests whose saves and restores assembly executes.

use core::marker::PhantomData;

use super::{SaveSteps, StepsFpu};
use crate::{
    backend::{KernelUnits, RawFpu, RestoreFault},
    error::Error,
    observe::{Event, EventKind},
    protocol::{closed::Closed, steps::FpuRef, word::Word},
    section::{self, Section},
    witness::Pinned,
};

/// A kernel FPU section of a kernel compiled with vector instructions: the CPU is closed to all others, and the section
/// begins once the save that is due is executed ([`saved`](Self::saved)). Dropped before that, it has changed nothing.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// use fpu_core::PendingSection;
/// drop(task.switch_return(&mut cpu)?);
/// let pending = PendingSection::begin(&mut cpu, Some(task.context()), KernelUnits::ALL)?;
/// // SAFETY: `pending` is alive; C42: the save was executed just now.
/// let section = unsafe {
///     if let Some(steps) = pending.steps() {
///         sim_save(steps); // assembly
///     }
///     pending.saved()
/// };
/// /* vector code */
/// drop(section);
/// assert_eq!(cpu.totals().saved, 1);
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[doc(alias = "SectionPlan")]
#[must_use = "nothing is done until the steps are executed"]
pub struct PendingSection<'c, C: Pinned> {
    closed: Closed<'c, C>,
    units: KernelUnits,
    current: Option<(FpuRef<'c, C::Backend>, SaveSteps)>,
}

impl<'c, C: Pinned> PendingSection<'c, C> {
    /// Closes the CPU, and decides on the save of `current`, the task that this CPU runs or has interrupted.
    ///
    /// # Errors
    ///
    /// As for [`KernelFpu::kernel_fpu`](crate::KernelFpu::kernel_fpu).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// use fpu_core::PendingSection;
    /// drop(task.switch_return(&mut cpu)?);
    /// drop(PendingSection::begin(&mut cpu, Some(task.context()), KernelUnits::ALL)?); // not executed
    /// assert!(task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn begin(
        cpu: &'c mut C,
        current: Option<FpuRef<'c, C::Backend>>,
        units: KernelUnits,
    ) -> Result<Self, Error>
    where
        C::Backend: StepsFpu,
    {
        let (closed, saves) = section::close(cpu, current)?;
        let current = saves.map(|task| {
            let steps = SaveSteps {
                save_to: task.area.as_ptr(),
                mask: closed.cpu().backend().plan_word(),
                word: task.word.as_ptr(),
                saved: Word::NOWHERE.bits(),
            };
            (task, steps)
        });
        Ok(Self { closed, units, current })
    }

    /// Returns the steps that the assembly executes; `None` if nothing is to be saved.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// use fpu_core::PendingSection;
    /// let pending = PendingSection::begin(&mut cpu, Some(task.context()), KernelUnits::ALL)?;
    /// assert!(pending.steps().is_none()); // it never ran
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn steps(&self) -> Option<&SaveSteps> {
        self.current.as_ref().map(|(_, steps)| steps)
    }

    /// Commits the save, and begins the section: the backend puts its control words into the registers
    /// ([`RawFpu::kernel_defaults`]), for the units asked for.
    ///
    /// # Safety
    ///
    /// * **C42** if there are steps, the backend's save was executed, and from `begin` until then nothing had changed the
    ///   registers. The compiled code around needs nothing in them but those control words.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// use fpu_core::PendingSection;
    /// let pending = PendingSection::begin(&mut cpu, None, KernelUnits::NONE)?;
    /// // SAFETY: `pending` is alive; C42: there are no steps.
    /// drop(unsafe { pending.saved() });
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub unsafe fn saved(self) -> Section<'c, C> {
        let Self { closed, units, current } = self;
        if let Some((task, steps)) = current {
            task.word.publish(Word::from_bits(steps.saved));
            task.tell(closed.cpu(), EventKind::Saved);
            task.tell(closed.cpu(), EventKind::Unloaded);
        }
        // SAFETY: section's save done (C42).
        unsafe { Section::begin(closed, units) }
    }
}

/// The steps of one run of a guest (a virtual CPU, a vector coroutine), for assembly: the backend's save of the task that
/// is current, if one is due, its restore, and its save, each with a store of 8 bytes; on x86:
///
/// ```text
/// if host_save_to != 0  { XSAVE64 [host_save_to], mask; mov [host_word], host_saved }
/// XRSTOR64 [area], mask; mov [word], live        if it faults: `failed`
/// the guest
/// XSAVE64 [area], mask;  mov [word], saved
/// ```
///
/// The stores are release stores, as for [`UserSteps`](crate::UserSteps). The guest is always restored: no claim survives
/// compiled code that uses the registers.
///
/// ```
/// assert_eq!(core::mem::offset_of!(fpu_core::GuestSteps, mask), 56);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GuestSteps {
    /// Offset 0: the area to save the current task to, or null if nothing is to be saved.
    pub host_save_to: *mut u8,
    /// Offset 8: that task's word; null with `host_save_to`.
    pub host_word: *mut u64,
    /// Offset 16: its value once the registers are saved.
    pub host_saved: u64,
    /// Offset 24: the guest's area, to load and to save to.
    pub area: *mut u8,
    /// Offset 32: the guest's word.
    pub word: *mut u64,
    /// Offset 40: its value once the registers hold the guest.
    pub live: u64,
    /// Offset 48: its value once they are saved.
    pub saved: u64,
    /// Offset 56: the backend's [`plan_word`](RawFpu::plan_word); on x86, for EDX:EAX.
    pub mask: u64,
}

/// A run of a guest: decided, not yet executed; the CPU is closed to all others. Dropped before anything is executed, it has
/// changed nothing.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// use fpu_core::PendingGuest;
/// let guest = new_task(); // a virtual CPU's context
/// drop(task.switch_return(&mut cpu)?);
/// for _ in 0..2 {
///     let pending = PendingGuest::begin(&mut cpu, guest.context(), Some(task.context()))?;
///     // SAFETY: `pending` is alive; C43: the assembly did all of it.
///     unsafe {
///         sim_guest(pending.steps(), 7).expect("a good image"); // assembly, and the guest writes
///         pending.done();
///     }
/// }
/// assert_eq!((cpu.totals().saved, cpu.totals().restored), (3, 3));
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[doc(alias = "GuestPlan")]
#[must_use = "nothing is done until the steps are executed"]
pub struct PendingGuest<'c, C: Pinned> {
    closed: Closed<'c, C>,
    steps: GuestSteps,
    contexts: PhantomData<FpuRef<'c, C::Backend>>,
}

impl<'c, C: Pinned> PendingGuest<'c, C> {
    /// Closes the CPU, and decides what a run of `guest` takes. `current` is the task that this CPU runs or has
    /// interrupted.
    ///
    /// # Errors
    ///
    /// As for [`KernelFpu::run_guest`](crate::KernelFpu::run_guest), except `RestoreFailed`: the assembly sees
    /// the fault.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// use fpu_core::PendingGuest;
    /// drop(task.switch_return(&mut cpu)?);
    /// let guest = new_task();
    /// drop(PendingGuest::begin(&mut cpu, guest.context(), Some(task.context()))?); // not executed
    /// assert!(task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn begin(
        cpu: &'c mut C,
        guest: FpuRef<'c, C::Backend>,
        current: Option<FpuRef<'c, C::Backend>>,
    ) -> Result<Self, Error>
    where
        C::Backend: StepsFpu,
    {
        let (closed, saves) = section::close(cpu, current)?;
        let (word, saved) = (guest.word.load(), Word::NOWHERE.bits());
        let is_saved_first = saves.is_some_and(|task| core::ptr::eq(task.word, guest.word));
        if !word.in_memory() && !is_saved_first {
            return Err(closed.refuse(word));
        }
        // The claims end after the run, when the registers are another's.
        closed.settle();
        let steps = GuestSteps {
            host_save_to: saves.map_or(core::ptr::null_mut(), |task| task.area.as_ptr()),
            host_word: saves.map_or(core::ptr::null_mut(), |task| task.word.as_ptr()),
            host_saved: saved,
            area: guest.area.as_ptr(),
            word: guest.word.as_ptr(),
            // The CPU is not opened with this stamp again, so no code takes what is left of the guest for the guest.
            live: closed.stamp().bits(),
            saved,
            mask: closed.cpu().backend().plan_word(),
        };
        Ok(Self { closed, steps, contexts: PhantomData })
    }

    /// Returns the steps that the assembly executes.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// use fpu_core::PendingGuest;
    /// let guest = new_task();
    /// let pending = PendingGuest::begin(&mut cpu, guest.context(), None)?;
    /// assert!(pending.steps().host_save_to.is_null()); // no task runs here
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn steps(&self) -> &GuestSteps {
        &self.steps
    }

    /// Ends the run once the assembly has executed and committed all steps: opens the CPU.
    ///
    /// # Safety
    ///
    /// * **C43** all steps were executed, in their order; until each save nothing but the one that is saved had changed the
    ///   registers.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// use fpu_core::PendingGuest;
    /// let guest = new_task();
    /// let pending = PendingGuest::begin(&mut cpu, guest.context(), None)?;
    /// // SAFETY: `pending` is alive; C43: the assembly did all of it.
    /// unsafe {
    ///     sim_guest(pending.steps(), 7).expect("a good image"); // assembly
    ///     pending.done();
    /// }
    /// assert_eq!(guest.open_saved(&mut cpu)?.image().avx0(), 7);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub unsafe fn done(mut self) {
        self.closed.end_claims();
        self.tell_host();
        for kind in [EventKind::Restored, EventKind::Loaded, EventKind::Saved, EventKind::Unloaded]
        {
            self.tell(kind, self.steps.word);
        }
    }

    /// Reports that the restore faulted: the steps before it were executed, and none after it. Opens the CPU; the
    /// registers are unowned.
    ///
    /// # Safety
    ///
    /// Guest's steps done (C43) of those steps.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// use fpu_core::{Error, PendingGuest};
    /// let guest = new_task();
    /// cpu.fail_next_restore();
    /// let pending = PendingGuest::begin(&mut cpu, guest.context(), None)?;
    /// // SAFETY: `pending` is alive; C43: no step but the restore was due.
    /// match unsafe { sim_guest(pending.steps(), 7) } {
    ///     // SAFETY: C43: all of it.
    ///     Ok(()) => unsafe { pending.done() },
    ///     // SAFETY: C43: the restore faulted, and no step followed it.
    ///     Err(why) => assert_eq!(unsafe { pending.failed(why) }, Error::RestoreFailed(why)),
    /// }
    /// assert_eq!(guest.open_saved(&mut cpu)?.image().avx0(), 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub unsafe fn failed(mut self, why: RestoreFault) -> Error {
        self.closed.end_claims();
        self.tell_host();
        self.tell(EventKind::Failed, self.steps.word);
        Error::RestoreFailed(why)
    }

    fn tell_host(&self) {
        if !self.steps.host_save_to.is_null() {
            self.tell(EventKind::Saved, self.steps.host_word);
            self.tell(EventKind::Unloaded, self.steps.host_word);
        }
    }
    fn tell(&self, kind: EventKind, word: *mut u64) {
        self.closed.cpu().observe(Event { kind, context: word as usize });
    }
}
