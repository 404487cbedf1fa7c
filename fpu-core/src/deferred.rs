//! The steps form: Rust code decides what is due, and the kernel's own assembly executes it.

mod section;
mod switch;

use core::marker::PhantomData;

use crate::{
    area::SaveArea,
    backend::{RawFpu, RestoreFault},
    error::Error,
    observe::{Event, EventKind},
    protocol::{
        cpu_word::Stamp,
        steps::{due_on_entry, due_on_leaving, settle_before, OnEntry},
        word::{TaskWord, Word},
    },
    task::{TaskFpu, UserReady},
    witness::{Exclusive, Pinned},
};

pub use section::{GuestSteps, PendingGuest, PendingSection};
pub use switch::SwitchSteps;

/// A backend whose save and restore assembly can execute by [`plan_word`](RawFpu::plan_word) and an area alone. All
/// [steps](UserSteps) ask for it.
///
/// # Safety
///
/// * **B16** the backend's instruction for a save, executed with the plan word on an area, does what
///   [`save`](RawFpu::save) does, and that for a restore what [`restore`](RawFpu::restore) does, whichever area it is.
///
/// ```
/// fn has_steps<B: fpu_core::StepsFpu>() {}
/// has_steps::<fpu_hosted_test::doc::Backend>();
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "assembly cannot save or restore for the backend `{Self}`",
        label = "what a save or a restore takes differs from area to area",
        note = "`fpu_x86::DynamicPlan` asks each area what it has room for, and writes IA32_XFD before a restore: use the calls of `TaskFpu`, or `fpu_x86::Plan`",
        note = "a backend of your own whose save and restore are one instruction each implements `fpu_core::StepsFpu`"
    )
)]
pub unsafe trait StepsFpu: RawFpu {}

/// The steps of one trip to user mode and back, for assembly. The backend's restore, if one is due, its save, and two
/// stores of 8 bytes, in the CPU's own byte order; on x86:
///
/// ```text
/// on the way out, last   if restore_from != 0 { XRSTOR64 [restore_from], mask }
///                        mov [word], live
/// user mode
/// on entry, first        XSAVE64 [save_to], mask
///                        mov [word], saved
/// ```
///
/// The store of `saved` says to other CPUs that memory holds the task, so it has to be a release store, which every
/// store is on x86 (on AArch64 STLR; on RISC-V a `fence rw, w` before it).
///
/// A kernel that saves only at a switch executes [`SaveSteps`] instead of the second half.
///
/// ```
/// assert_eq!(core::mem::offset_of!(fpu_core::UserSteps, live), 32);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UserSteps {
    /// Offset 0: the area to load, or null if the registers still hold the task.
    pub restore_from: *const u8,
    /// Offset 8: the area to save to.
    pub save_to: *mut u8,
    /// Offset 16: the backend's [`plan_word`](RawFpu::plan_word); on x86, for EDX:EAX.
    pub mask: u64,
    /// Offset 24: the task's word.
    pub word: *mut u64,
    /// Offset 32: the word's value once the registers hold the task (the commit of the restore).
    pub live: u64,
    /// Offset 40: the word's value once the registers are saved (the commit of the save).
    pub saved: u64,
}

/// The steps of one switch-out, for assembly: save to `save_to`, then store `saved` to `word` (a release store, as
/// for [`UserSteps`]).
///
/// ```
/// assert_eq!(core::mem::offset_of!(fpu_core::SaveSteps, saved), 24);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SaveSteps {
    /// Offset 0: the area to save to.
    pub save_to: *mut u8,
    /// Offset 8: the backend's [`plan_word`](RawFpu::plan_word); on x86, for EDX:EAX.
    pub mask: u64,
    /// Offset 16: the task's word.
    pub word: *mut u64,
    /// Offset 24: the word's value once the registers are saved (the commit).
    pub saved: u64,
}

/// The steps of a trip to user mode and back: decided, not yet executed.
///
/// If a restore is due, the CPU's registers are unowned from the moment this value exists. Dropped
/// without its steps, it leaves the task in memory only.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// let pending = task.begin_user(&mut cpu)?;
/// assert!(!pending.steps().restore_from.is_null()); // its first time here
/// // SAFETY: `pending` is alive; C12, C13, C14: the assembly did all of it.
/// unsafe {
///     // load, `mov [word], live`, user mode, save, `mov [word], saved`
///     sim_round_trip(pending.steps(), 7).expect("a good image");
///     pending.round_trip_done();
/// }
/// assert!(task.registers_valid(&cpu));
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[doc(alias = "UserPlan")]
#[must_use = "nothing is done until the steps are executed"]
#[derive(Debug)]
pub struct PendingUser<'t, C: Pinned> {
    steps: UserSteps,
    /// The word that the restore commits, if a restore is due.
    load: Option<EventKind>,
    cpu: &'t mut C,
    word: &'t TaskWord,
    not_send: PhantomData<*mut ()>,
}

/// The save that switching out takes: decided, not yet executed.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// assert!(task.begin_switch_out(&mut cpu)?.is_none()); // it never ran
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[doc(alias = "OutPlan")]
#[must_use = "nothing is done until the steps are executed"]
#[derive(Debug)]
pub struct PendingSave<'t, C: Pinned> {
    steps: SaveSteps,
    cpu: &'t mut C,
    word: &'t TaskWord,
    not_send: PhantomData<*mut ()>,
}

impl<B: RawFpu, A: SaveArea> TaskFpu<B, A> {
    /// [`switch_return`](Self::switch_return) as steps: for kernels whose own code may use the
    /// registers, so that the restore must be the last step before user mode.
    ///
    /// # Errors
    ///
    /// As for [`switch_return`](Self::switch_return), except `RestoreFailed`: the assembly sees the
    /// fault, and must not store `live`.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.begin_user(&mut cpu)?); // nothing done: the task stays in memory
    /// assert!(!task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "plan_user")]
    #[inline]
    pub fn begin_user<'t, C>(&'t self, cpu: &'t mut C) -> Result<PendingUser<'t, C>, Error>
    where
        B: StepsFpu,
        C: Exclusive + Pinned<Backend = B>,
    {
        let area = self.base().as_ptr();
        let (restore_from, live, load) = match due_on_entry(&self.word, cpu.words())? {
            OnEntry::Nothing => (core::ptr::null(), Stamp::of(cpu.words()), None),
            OnEntry::Mark(live) => (core::ptr::null(), live, Some(EventKind::Skipped)),
            OnEntry::Load { live, .. } => {
                settle_before(live, cpu);
                (area.cast_const(), live, Some(EventKind::Restored))
            }
        };
        let steps = UserSteps {
            restore_from,
            save_to: area,
            mask: cpu.backend().plan_word(),
            word: self.word.as_ptr(),
            live: live.bits(),
            saved: Word::both(live).bits(),
        };
        Ok(PendingUser { steps, load, cpu, word: &self.word, not_send: PhantomData })
    }

    /// [`switch_prepare`](Self::switch_prepare) as steps; `None` if nothing is due.
    ///
    /// # Errors
    ///
    /// As for [`switch_prepare`](Self::switch_prepare).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// if let Some(pending) = task.begin_switch_out(&mut cpu)? {
    ///     // SAFETY: `pending` is alive; C15: the save was executed just now.
    ///     unsafe {
    ///         sim_save(pending.steps()); // assembly
    ///         pending.saved();
    ///     }
    /// }
    /// assert!(task.begin_switch_out(&mut cpu)?.is_none());
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "plan_switch_out")]
    #[inline]
    pub fn begin_switch_out<'t, C>(
        &'t self,
        cpu: &'t mut C,
    ) -> Result<Option<PendingSave<'t, C>>, Error>
    where
        B: StepsFpu,
        C: Exclusive + Pinned<Backend = B>,
    {
        let Some(saved) = due_on_leaving(&self.word, cpu.words())? else { return Ok(None) };
        let (save_to, mask, word) =
            (self.base().as_ptr(), cpu.backend().plan_word(), self.word.as_ptr());
        let steps = SaveSteps { save_to, mask, word, saved: saved.bits() };
        Ok(Some(PendingSave { steps, cpu, word: &self.word, not_send: PhantomData }))
    }
}

impl<'t, C: Exclusive> PendingUser<'t, C> {
    /// Returns the steps that the assembly executes.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let pending = task.begin_user(&mut cpu)?;
    /// let steps = pending.steps();
    /// assert_eq!(steps.restore_from, steps.save_to.cast_const()); // the task's area
    /// assert_eq!(steps.saved, steps.live | 1);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn steps(&self) -> &UserSteps {
        &self.steps
    }

    fn tell(&self, kinds: [EventKind; 2]) {
        for kind in kinds {
            self.cpu.observe(Event { kind, context: self.steps.word as usize });
        }
    }
    fn tell_loaded(&self) {
        if let Some(how) = self.load {
            self.tell([how, EventKind::Loaded]);
        }
    }

    /// Commits the first half: the registers hold the task.
    ///
    /// # Safety
    ///
    /// * **C12** if `restore_from` is not null, the backend's restore from it was executed, did not
    ///   fault, and nothing has changed the registers since.
    /// * **C13** if it is null, nothing has changed the registers since they were the task's.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let pending = task.begin_user(&mut cpu)?;
    /// // SAFETY: `pending` is alive; C12, C13: restored just now, and nothing has changed the registers.
    /// let ready = unsafe {
    ///     sim_restore(pending.steps()).expect("a good image"); // assembly
    ///     pending.restored()
    /// };
    /// # drop(ready);
    /// assert!(task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub unsafe fn restored(self) -> UserReady<'t, C> {
        // What the word says now is restore done (C12) and registers unchanged (C13), by the caller.
        self.word.mark_live(Stamp::from_bits(self.steps.live));
        self.tell_loaded();
        UserReady { _cpu: self.cpu, not_send: PhantomData }
    }

    /// Tells the observer that the assembly has executed and committed all steps, out and back.
    ///
    /// # Safety
    ///
    /// Restore done (C12), registers unchanged (C13), and
    ///
    /// * **C14** `live` was stored before user mode; on the way back the backend's save was executed
    ///   before anything changed the registers, and `saved` stored after it.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let pending = task.begin_user(&mut cpu)?;
    /// // SAFETY: `pending` is alive; C12, C13, C14: the assembly did all of it.
    /// unsafe {
    ///     sim_round_trip(pending.steps(), 7).expect("a good image"); // assembly
    ///     pending.round_trip_done();
    /// }
    /// let pending = task.begin_user(&mut cpu)?;
    /// assert!(pending.steps().restore_from.is_null()); // the registers still hold it
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub unsafe fn round_trip_done(self) {
        self.tell_loaded();
        self.tell([EventKind::Saved, EventKind::Unloaded]);
    }

    /// Reports that the restore faulted and `live` was not stored. The registers are unowned.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// cpu.fail_next_restore();
    /// let pending = task.begin_user(&mut cpu)?;
    /// // SAFETY: `pending` is alive.
    /// if let Err(why) = unsafe { sim_restore(pending.steps()) } {
    ///     assert_eq!(pending.failed(why), fpu_core::Error::RestoreFailed(why));
    /// }
    /// assert!(!task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn failed(self, why: RestoreFault) -> Error {
        self.cpu.observe(Event { kind: EventKind::Failed, context: self.steps.word as usize });
        Error::RestoreFailed(why)
    }
}

impl<C: Exclusive> PendingSave<'_, C> {
    /// Returns the steps that the assembly executes.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// if let Some(pending) = task.begin_switch_out(&mut cpu)? {
    ///     assert_eq!(pending.steps().saved & 1, 1); // "memory is valid"
    /// }
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn steps(&self) -> &SaveSteps {
        &self.steps
    }

    /// Commits: memory holds the task, and the registers still do.
    ///
    /// # Safety
    ///
    /// * **C15** the backend's save to `save_to` was executed, and from `begin_switch_out` until then nothing had
    ///   changed the registers.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// if let Some(pending) = task.begin_switch_out(&mut cpu)? {
    ///     // SAFETY: `pending` is alive; C15: the save was executed just now.
    ///     unsafe {
    ///         sim_save(pending.steps()); // assembly
    ///         pending.saved();
    ///     }
    /// }
    /// assert_eq!(cpu.totals().saved, 1);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub unsafe fn saved(self) {
        // What the word says now is save done (C15), by the caller.
        self.word.publish(Word::from_bits(self.steps.saved));
        for kind in [EventKind::Saved, EventKind::Unloaded] {
            self.cpu.observe(Event { kind, context: self.steps.word as usize });
        }
    }
}
