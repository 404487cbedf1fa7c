//! A bound context, as its task holds it.

use core::{fmt, marker::PhantomData};

use super::{per_cpu::BoundCpu, slot::BoundSlot};
use crate::{
    area::SaveArea,
    backend::RawFpu,
    error::{BoundError, Error},
    protocol::{
        closed::{refuse_unless_open, Closed},
        cpu_word::{gate, Stamp},
        steps,
    },
    session::TaskState,
    sync::Ordering,
    task::{TaskFpu, UserReady},
    witness::{Exclusive, Pinned, SoftFloat},
};

/// A context that is bound to one CPU, in a slot of its [`BoundCpu`]. The task that has it leaves the CPU without a call.
///
/// | to | call |
/// |---|---|
/// | switch out | none |
/// | enter user mode, or restore inside the switch | [`switch_return`](Self::switch_return), [`switch_in`](Self::switch_in) |
/// | use the FPU in the kernel | [`KernelFpu::kernel_fpu`](crate::KernelFpu::kernel_fpu) with `None`: the CPU knows whom to save |
/// | read or write the state, fork | [`open`](Self::open), on this CPU |
/// | exec | [`reset`](Self::reset) |
/// | exit | drop: nothing is saved, and the slot is free |
/// | move to another CPU | [`unbind`](Self::unbind) |
///
/// The value is neither `Send` nor `Clone`, and it borrows the CPU's array: the context is bound by its type, its slot cannot be
/// given to another while the value lives, and no value is left when it is. Memory safety does not rest on that: a kernel that
/// has to keep the value in a shared task struct wraps it, and a call on another CPU is refused.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let mut cpu = online_cpu();
/// let one = this_cpu_bound().bind(new_task(), &mut cpu)?;
/// let two = this_cpu_bound().bind(new_task(), &mut cpu)?;
/// drop(one.switch_return(&mut cpu)?);
/// cpu.set_avx0(7);
/// drop(two.switch_return(&mut cpu)?); // saves one, loads two
/// assert_eq!((cpu.totals().saved, cpu.totals().restored), (1, 2));
/// drop(one.switch_return(&mut cpu)?);
/// assert_eq!(cpu.avx0(), 7);
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[must_use = "dropping it ends the context"]
pub struct BoundFpu<'b, B, A> {
    owner: &'b BoundCpu<B, A>,
    slot: &'b BoundSlot<B, A>,
    index: u64,
    not_send: PhantomData<*mut ()>,
}

impl<B: RawFpu, A: SaveArea> BoundCpu<B, A> {
    /// Binds a context to this CPU: one that is current here, or that the caller holds exclusively (K5). If this CPU's registers
    /// are the only copy, they are saved; they keep the claim.
    ///
    /// A slot whose context was dropped is used again; its area is dropped here.
    ///
    /// # Errors
    ///
    /// [`Error::BoundElsewhere`]: this is another CPU. [`Error::NoSlot`]; [`Error::NotNamed`].
    /// [`Error::LiveElsewhere`], [`Error::Lost`], [`Error::CpuOffline`], [`Error::Busy`]: as for
    /// [`switch_prepare`](TaskFpu::switch_prepare). The error carries the context, unchanged.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// let bound = this_cpu_bound().bind(task, &mut cpu).map_err(|refused| refused.why)?;
    /// drop(bound.switch_return(&mut cpu)?); // the registers still hold it
    /// assert_eq!((cpu.avx0(), cpu.totals().restored), (7, 1));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn bind<C>(
        &self,
        task: TaskFpu<B, A>,
        cpu: &mut C,
    ) -> Result<BoundFpu<'_, B, A>, BoundError<TaskFpu<B, A>>>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        let found = self.free_slot(cpu).and_then(|found| {
            steps::leave(task.context(), cpu)?;
            Ok(found)
        });
        match found {
            Ok((index, slot)) => {
                // SAFETY: rests on own array and the witness: this is the array's CPU, open, so nothing that is
                // interrupted here uses a slot; exclusive (K8); and the slot was found to have no handle.
                unsafe { slot.put(task) };
                Ok(BoundFpu { owner: self, slot, index, not_send: PhantomData })
            }
            Err(why) => Err(BoundError { why, of: task }),
        }
    }
}

impl<'b, B, A> BoundFpu<'b, B, A> {
    #[inline(always)]
    fn task(&self) -> &TaskFpu<B, A> {
        // SAFETY: rests on own array: the slot was taken for this value, and is until the value is dropped or unbound.
        unsafe { self.slot.task() }
    }
    /// The context, and its CPU's number, for a handle that is wrapped ([`trap`](crate::trap)).
    #[inline(always)]
    pub(crate) fn parts(&self) -> (&TaskFpu<B, A>, u32) {
        (self.task(), self.owner.number)
    }
}

impl<'b, B: RawFpu, A: SaveArea> BoundFpu<'b, B, A> {
    /// Makes the registers this task's. If they are still its own, that is one comparison. Otherwise the context
    /// whose save was deferred is saved, and this one is loaded.
    ///
    /// # Errors
    ///
    /// [`Error::BoundElsewhere`]: this is another CPU. Otherwise as for [`TaskFpu::switch_return`].
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, other) = cpu_and_task();
    /// let task = this_cpu_bound().bind(new_task(), &mut cpu)?;
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// drop(other.switch_return(&mut cpu)?); // saves `task` first
    /// other.switch_prepare(&cpu)?;
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!((cpu.avx0(), cpu.totals().restored), (7, 3));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline]
    pub fn switch_return<'c, C>(&'c self, cpu: &'c mut C) -> Result<UserReady<'c, C>, Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        self.switch_in(cpu)?;
        Ok(UserReady { _cpu: cpu, not_send: PhantomData })
    }

    /// [`switch_return`](Self::switch_return) inside the switch; what [`TaskFpu::switch_in`] says of interrupts holds here too.
    ///
    /// # Errors
    ///
    /// As for [`switch_return`](Self::switch_return).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// let task = this_cpu_bound().bind(new_task(), &mut cpu)?;
    /// task.switch_in(&mut cpu)?;
    /// assert!(task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline]
    pub fn switch_in<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        if self.task().word.peek().is_live_under(Stamp::of(cpu.words())) {
            return Ok(());
        }
        self.bring_in(cpu)
    }

    #[inline(never)]
    fn bring_in<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        refuse_unless_open(cpu.words(), self.owner.number)?;
        // Saves the one that was loaded last, by the witness.
        steps::enter(self.task().context(), cpu, drop)?;
        self.owner.last.store(self.index, Ordering::Relaxed);
        Ok(())
    }

    /// Tells whether this CPU's registers hold this context's state.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// let task = this_cpu_bound().bind(new_task(), &mut cpu)?;
    /// assert!(!task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn registers_valid<C: Pinned<Backend = B>>(&self, cpu: &C) -> bool {
        self.task().registers_valid(cpu)
    }

    /// The context's address, as [`TaskFpu::address`].
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// let task = this_cpu_bound().bind(new_task(), &mut cpu)?;
    /// assert_ne!(task.address(), 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn address(&self) -> usize {
        self.task().word.as_ptr() as usize
    }

    /// Opens the state for a debugger, a signal, a fork: on this CPU, whether the task is current or not. Another context whose
    /// save was deferred is saved first.
    ///
    /// # Errors
    ///
    /// [`Error::BoundElsewhere`]: this is another CPU; run the call there. Otherwise as for [`TaskFpu::open`].
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// let task = this_cpu_bound().bind(new_task(), &mut cpu)?;
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// // The task has left; a debugger reads and writes it, by a call on its CPU.
    /// let mut session = task.open(&mut cpu)?.make_memory_valid_write();
    /// assert_eq!(session.image().avx0(), 7);
    /// session.image_mut().set_avx0(8);
    /// drop(session);
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 8);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn open<'s, C>(&'s self, cpu: &'s mut C) -> Result<TaskState<'s, C>, Error>
    where
        C: SoftFloat + Pinned<Backend = B>,
    {
        let (closed, owner) = (Closed::new(cpu, gate::SESSION)?, self.owner);
        if !closed.stamp().is_of(owner.number) {
            return Err(Error::BoundElsewhere { cpu: owner.number });
        }
        // The session may leave this context in the registers.
        if owner.last.load(Ordering::Relaxed) != self.index {
            closed.settle();
            owner.last.store(self.index, Ordering::Relaxed);
        }
        TaskState::of(self.task().context(), closed)
    }

    /// Resets the context to the initial state, as [`TaskFpu::reset`].
    ///
    /// # Errors
    ///
    /// [`Error::BoundElsewhere`]: this is another CPU. Otherwise as for [`TaskFpu::reset`].
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// let task = this_cpu_bound().bind(new_task(), &mut cpu)?;
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// task.reset(&mut cpu)?; // exec
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn reset<C: Pinned<Backend = B>>(&self, cpu: &mut C) -> Result<(), Error> {
        refuse_unless_open(cpu.words(), self.owner.number)?;
        self.task().reset(cpu)
    }

    /// Saves the context if the registers are its only copy, and gives it back as one that can move.
    ///
    /// # Errors
    ///
    /// [`Error::BoundElsewhere`], [`Error::CpuOffline`], [`Error::Busy`], [`Error::Lost`]. The error carries the context, still
    /// bound.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// let bound = this_cpu_bound().bind(new_task(), &mut cpu)?;
    /// drop(bound.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// let task = bound.unbind(&mut cpu)?; // saves
    /// assert_eq!(task.open_saved(&mut cpu)?.image().avx0(), 7);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn unbind<C>(self, cpu: &mut C) -> Result<TaskFpu<B, A>, BoundError<Self>>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        let open = refuse_unless_open(cpu.words(), self.owner.number);
        if let Err(why) = open.and_then(|()| steps::leave(self.task().context(), cpu)) {
            return Err(BoundError { why, of: self });
        }
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: rests on own array: the handle is gone. This is the array's CPU, open, so nothing that is interrupted here
        // uses the slot; exclusive (K8).
        Ok(unsafe { this.slot.take() })
    }
}

impl<B, A> Drop for BoundFpu<'_, B, A> {
    fn drop(&mut self) {
        self.slot.leave();
    }
}

impl<B, A> fmt::Debug for BoundFpu<'_, B, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.task().word.load().bits();
        write!(f, "BoundFpu {{ cpu: {}, word: {word:#x} }}", self.owner.number)
    }
}
