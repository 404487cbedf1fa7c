//! Both tasks of a switch in one call, for kernels whose compiled code uses the registers.

use super::StepsFpu;
use crate::{
    backend::{RawFpu, RestoreFault},
    error::Error,
    observe::{Event, EventKind},
    protocol::{
        steps::{due_on_switch, settle_before, FpuRef},
        word::Word,
    },
    witness::{Exclusive, Pinned},
};

/// The steps of one switch from a task to another, for assembly, by value: nothing is borrowed, so they can be handed
/// over a switch of stacks. The backend's save, if one is due, its restore, if one is due, and a store of 8 bytes after
/// each; on x86:
///
/// ```text
/// if save_to != 0       { XSAVE64 [save_to], mask;       mov [save_word], saved }
/// if restore_from != 0  { XRSTOR64 [restore_from], mask; mov [restore_word], live }
/// ```
///
/// Stacks and general registers are switched before, between or after. Both stores are release stores, as for
/// [`UserSteps`](crate::UserSteps). After a restore that faulted `live` is not stored.
///
/// Such a kernel's compiled code may change vector registers at any point, so a switch leaves no claim: `saved` says
/// that memory holds the task and no registers do, and a task that comes from memory is always restored. A task that
/// is switched to itself keeps what it has.
///
/// Steps that are not executed change no task's memory. If a restore was due, the CPU's registers are unowned
/// from [`begin`](Self::begin) on: a task that was to be saved is reported as [`Error::Lost`], and the one that was to
/// come stays in memory.
///
/// # Executing them
///
/// * **C39** the assembly executes all of it, in this order; from [`begin`](Self::begin) to the last step the code is on one
///   CPU and [`Exclusive`], and both contexts are alive where they were.
/// * **C40** until the save nothing but the task that leaves has changed the registers since they were its own. (Where the
///   tasks are the kernel's threads, the code that calls the scheduler is the task that leaves.)
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, one) = cpu_and_task();
/// # let two = new_task();
/// use fpu_core::SwitchSteps;
/// for (prev, next) in [(None, Some(&one)), (Some(&one), Some(&two)), (Some(&two), Some(&one))] {
///     let (prev, next) = (prev.map(Task::context), next.map(Task::context));
///     let steps = SwitchSteps::begin(&mut cpu, prev, next)?;
///     // SAFETY: C39: executed at once. C40: simulated registers.
///     let restored = unsafe { sim_switch(&steps) }; // assembly
///     steps.done(&cpu, restored)?;
/// }
/// assert_eq!((cpu.totals().saved, cpu.totals().restored), (2, 3));
/// assert_eq!(core::mem::offset_of!(SwitchSteps, mask), 48);
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[must_use = "nothing is done until the steps are executed"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SwitchSteps {
    /// Offset 0: the area to save to, or null if nothing is to be saved.
    pub save_to: *mut u8,
    /// Offset 8: the word of the task that leaves; null with `save_to`.
    pub save_word: *mut u64,
    /// Offset 16: its value once the registers are saved (the commit of the save).
    pub saved: u64,
    /// Offset 24: the area to load, or null if nothing is to be loaded.
    pub restore_from: *const u8,
    /// Offset 32: the word of the task that comes; null with `restore_from`.
    pub restore_word: *mut u64,
    /// Offset 40: its value once the registers hold the task (the commit of the restore).
    pub live: u64,
    /// Offset 48: the backend's [`plan_word`](RawFpu::plan_word); on x86, for EDX:EAX.
    pub mask: u64,
}

impl SwitchSteps {
    /// Decides what a switch takes. `prev` is the task that leaves this CPU, `next` the one that comes; `None` for one
    /// without a context (idle). A task that only needs to be in memory is switched out with `next` `None`.
    ///
    /// # Errors
    ///
    /// [`Error::LiveElsewhere`], [`Error::Lost`], for either. [`Error::LiveHere`]: the registers are `next`'s, which is
    /// not `prev`. [`Error::CpuOffline`], [`Error::Busy`], [`Error::Exhausted`]: this CPU cannot hold a task now.
    /// Nothing has changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// use fpu_core::SwitchSteps;
    /// let steps = SwitchSteps::begin(&mut cpu, None, Some(task.context()))?;
    /// // SAFETY: C39: executed at once. C40: nothing is saved.
    /// steps.done(&cpu, unsafe { sim_switch(&steps) })?;
    /// cpu.set_avx0(7); // the task
    /// // It yields, and is the one that goes on.
    /// let steps = SwitchSteps::begin(&mut cpu, Some(task.context()), Some(task.context()))?;
    /// assert!(steps.save_to.is_null() && steps.restore_from.is_null());
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "plan")]
    #[doc(alias = "switch_to")]
    #[doc(alias = "context_switch")]
    #[inline]
    pub fn begin<C: Exclusive>(
        cpu: &mut C,
        prev: Option<FpuRef<'_, C::Backend>>,
        next: Option<FpuRef<'_, C::Backend>>,
    ) -> Result<Self, Error>
    where
        C::Backend: StepsFpu,
    {
        let words = (prev.map(|task| task.word), next.map(|task| task.word));
        let (saves, loads) = due_on_switch(words.0, words.1, cpu.words())?;
        let mut steps = Self {
            save_to: core::ptr::null_mut(),
            save_word: core::ptr::null_mut(),
            saved: Word::NOWHERE.bits(),
            restore_from: core::ptr::null(),
            restore_word: core::ptr::null_mut(),
            live: 0,
            mask: cpu.backend().plan_word(),
        };
        if let (true, Some(prev)) = (saves, prev) {
            (steps.save_to, steps.save_word) = (prev.area.as_ptr(), prev.word.as_ptr());
        }
        if let (Some(stamp), Some(next)) = (loads, next) {
            settle_before(stamp, cpu);
            (steps.restore_from, steps.restore_word) = (next.area.as_ptr(), next.word.as_ptr());
            steps.live = stamp.bits();
        }
        Ok(steps)
    }

    /// Tells the observer what the assembly has done, and turns a fault of the restore into the error: the task that was
    /// to come stays in memory, and the registers are unowned. The assembly has changed words and registers already, so
    /// a kernel that observes nothing and sees the fault itself needs no call.
    ///
    /// # Errors
    ///
    /// [`Error::RestoreFailed`], if `restored` is an error.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// use fpu_core::{Error, SwitchSteps};
    /// cpu.fail_next_restore();
    /// let steps = SwitchSteps::begin(&mut cpu, None, Some(task.context()))?;
    /// // SAFETY: C39: executed at once. C40: nothing is saved.
    /// let restored = unsafe { sim_switch(&steps) };
    /// assert!(matches!(steps.done(&cpu, restored), Err(Error::RestoreFailed(_))));
    /// assert!(!task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn done<C: Pinned>(
        &self,
        cpu: &C,
        restored: Result<(), RestoreFault>,
    ) -> Result<(), Error> {
        let tell = |kind, word: *mut u64| cpu.observe(Event { kind, context: word as usize });
        if !self.save_to.is_null() {
            tell(EventKind::Saved, self.save_word);
            tell(EventKind::Unloaded, self.save_word);
        }
        if let Err(why) = restored {
            tell(EventKind::Failed, self.restore_word);
            return Err(Error::RestoreFailed(why));
        }
        if !self.restore_from.is_null() {
            tell(EventKind::Restored, self.restore_word);
            tell(EventKind::Loaded, self.restore_word);
        }
        Ok(())
    }
}
