//! The context in a task, and the two calls of the hot path.

use core::{fmt, marker::PhantomData, ptr::NonNull};

use crate::{
    area::SaveArea,
    backend::{RawFpu, TheBackend},
    error::{AreaError, Error, NewError},
    observe::EventKind,
    protocol::{
        closed::Closed,
        cpu_word::{gate, Stamp},
        steps::{self, FpuRef},
        word::{Place, TaskWord},
    },
    witness::{Exclusive, Pinned, SoftFloat},
};

/// One task's FPU state: 8 bytes of protocol and the save area.
///
/// The kernel puts the value into its task struct. The value keeps its state at run time; typestate
/// covers only the short [session](Self::open) borrowed from it. Drop touches no CPU: registers
/// that still hold the state are unowned from then on.
///
/// | to | call |
/// |---|---|
/// | switch out | [`switch_prepare`](Self::switch_prepare) |
/// | have an image near that was written on another CPU | [`prefetch`](Self::prefetch) |
/// | enter user mode | [`switch_return`](Self::switch_return) |
/// | both in one call, or inside the switch | [`switch`](crate::switch()), [`switch_in`](Self::switch_in) |
/// | give a running thread a context | [`adopt`](Self::adopt) |
/// | read or write the state of a current task, or of one held exclusively | [`open`](Self::open) |
/// | read or write a stopped task's state | [`stopped`](Self::stopped) |
/// | use the FPU in the kernel | [`KernelFpu::kernel_fpu`](crate::KernelFpu::kernel_fpu) |
/// | fork, exec, exit | [`fork_into`](Self::fork_into), [`reset`](Self::reset), drop |
/// | give it a larger or smaller area | [`replace_area`](Self::replace_area) |
/// | do it from assembly | [`begin_user`](Self::begin_user), [`SwitchSteps`](crate::SwitchSteps), [`raw`](crate::raw) |
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::TaskFpu;
/// # let mut cpu = online_cpu();
/// let task = TaskFpu::new(cpu.backend(), Area::new())?;
/// task.switch_return(&mut cpu)?;      // loads the initial state
/// task.switch_prepare(&cpu)?;         // saves; the registers keep it
/// task.switch_return(&mut cpu)?;      // nothing is loaded: they still hold it
/// assert_eq!((cpu.totals().restored, cpu.totals().skipped), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "fpu")]
#[doc(alias = "task_struct")]
#[doc(alias = "last_cpu")]
#[doc(alias = "fpu__drop")]
#[repr(C)]
pub struct TaskFpu<B, A> {
    pub(crate) word: TaskWord,
    pub(crate) area: A,
    backend: PhantomData<fn(&B)>,
}

// SAFETY: shared use is what K5 (current here) and K10 (stopped) regulate: only the CPU on which the task is current,
// whoever holds the context exclusively, or the holder of the proof that the task is stopped touches the area; the word
// is atomic.
unsafe impl<B, A: SaveArea + Send + Sync> Sync for TaskFpu<B, A> {}

impl<B: RawFpu, A: SaveArea> TaskFpu<B, A> {
    /// A context in the architectural initial state, in memory only.
    ///
    /// It needs no witness: a context is made wherever the kernel makes a task, preemption on or off. The area is
    /// checked against this backend, and every later save uses this backend too, as there is
    /// [only one](TheBackend) (K1).
    ///
    /// # Errors
    ///
    /// The area is too small or misaligned for the backend; the error carries it, untouched.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let cpu = online_cpu();
    /// use fpu_core::{AreaError, RawFpu, TaskFpu};
    /// let small = fpu_core::Area::<64>::new();
    /// let refused = TaskFpu::new(cpu.backend(), small).err().map(|refused| refused.why);
    /// let need = cpu.backend().area_len();
    /// assert_eq!(refused, Some(AreaError::TooSmall { need, have: 64 }));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn new(backend: &TheBackend<B>, area: A) -> Result<Self, NewError<A>> {
        let (need, align) = (backend.area_len(), backend.area_align());
        if area.len() < need {
            return Err(NewError { why: AreaError::TooSmall { need, have: area.len() }, area });
        }
        let task = Self { word: TaskWord::new(), area, backend: PhantomData };
        // The alignment that the type promises wherever the value is moved, and the address that the area has here.
        if task.area.align() < align || task.base().as_ptr() as usize & (align - 1) != 0 {
            return Err(NewError { why: AreaError::Misaligned { need: align }, area: task.area });
        }
        // SAFETY: C9: K17 (steady area) and K18 (private area) give us that many bytes, checked just now with the
        // alignment.
        unsafe { backend.write_initial(task.base()) };
        Ok(task)
    }

    /// The context's address, by which an [`Event`](crate::observe::Event) names the context.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (_cpu, task) = cpu_and_task();
    /// assert_eq!(task.address(), std::ptr::from_ref(&task) as usize);
    /// ```
    #[inline]
    #[must_use]
    pub fn address(&self) -> usize {
        self.word.as_ptr() as usize
    }

    #[inline(always)]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.area.base()
    }

    /// The context without its area's type, as kernel FPU sections take it.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.with_kernel_fpu(Some(task.context()), KernelUnits::NONE, || ())?;
    /// assert_eq!(cpu.totals().saved, 1);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn context(&self) -> FpuRef<'_, B> {
        FpuRef { word: &self.word, area: self.base(), backend: PhantomData }
    }

    /// Gives the area back. The area holds the last image saved, if the context's registers were
    /// [saved](Self::switch_prepare) at all.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let task = new_task();
    /// use fpu_core::SaveArea;
    /// let area = task.into_area(); // for the slab it came from
    /// assert_eq!(area.len(), AREA);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn into_area(self) -> A {
        self.area
    }

    /// Tells whether this CPU's registers hold this context's state (states 1 and 2a).
    ///
    /// One load and one comparison. The answer holds as long as `cpu` excludes sections.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// assert!(!task.registers_valid(&cpu));
    /// drop(task.switch_return(&mut cpu)?);
    /// assert!(task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpregs_state_valid")]
    #[inline]
    #[must_use]
    pub fn registers_valid<C: Pinned<Backend = B>>(&self, cpu: &C) -> bool {
        let place = self.word.peek().against(Stamp::of(cpu.words())).place();
        matches!(place, Place::Registers | Place::Both)
    }

    /// Switches the task out: saves the registers if they are the only valid copy, and does not change them.
    ///
    /// State 1 becomes 2a; states 2a and 2b stay. The kernel calls this for the task that leaves,
    /// while that task is still current. A kernel thread has no context and needs no call.
    ///
    /// # Errors
    ///
    /// [`Error::LiveElsewhere`], [`Error::Lost`]: see there. [`Error::CpuOffline`],
    /// [`Error::Busy`]: the registers are not this task's now.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// task.switch_prepare(&cpu)?; // saves
    /// task.switch_prepare(&cpu)?; // nothing to do
    /// assert_eq!(cpu.totals().saved, 1);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "switch_fpu_prepare")]
    #[doc(alias = "switch_fpu")]
    #[inline]
    pub fn switch_prepare<C>(&self, cpu: &C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        steps::leave(self.context(), cpu)
    }

    /// A hint for the scheduler, as soon as it has picked the next task: if the task ran on another CPU, fetches its
    /// image, which [`switch_return`](Self::switch_return) restores soon. One load and one comparison otherwise.
    ///
    /// It changes neither words nor registers, and the kernel may call it or not. `switch_return` itself fetches the image
    /// just before such a restore, when less of the time is left to save.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// task.prefetch(&cpu); // the scheduler has picked it
    /// /* switch address spaces and stacks */
    /// task.switch_return(&mut cpu)?;
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline]
    pub fn prefetch<C: Pinned<Backend = B>>(&self, cpu: &C) {
        if !self.word.peek().is_of(Stamp::of(cpu.words())) {
            cpu.backend().prefetch(self.base());
        }
    }

    /// Loads this task's registers on the way to user mode, unless the CPU still holds them.
    ///
    /// There is no `switch_finish`: the words tell whether a load is due. The kernel's `enter_user`
    /// should take the value returned. While the value lives, no other call can use `cpu`, so no
    /// call comes between the decision and user mode.
    ///
    /// # Errors
    ///
    /// [`Error::LiveElsewhere`], [`Error::Lost`]: nothing was loaded. [`Error::CpuOffline`],
    /// [`Error::Busy`], [`Error::Exhausted`]: this CPU cannot hold a task now.
    /// [`Error::RestoreFailed`]: the registers are undefined and unowned. After any of these errors
    /// the kernel must not enter user mode.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// {
    ///     let _ready = task.switch_return(&mut cpu)?; // loads; `enter_user(ready)`
    /// }
    /// cpu.set_avx0(7); // the task, in user mode
    /// {
    ///     let _ready = task.switch_return(&mut cpu)?; // a system call later: nothing to do
    /// }
    /// assert_eq!((cpu.avx0(), cpu.totals().restored), (7, 1));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    ///
    /// A virtual CPU's context is a task's. The thread that runs it has its own in memory meanwhile, and the VM entry takes
    /// the value:
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// fn vm_entry(_ready: fpu_core::UserReady<'_, Cpu>) { /* VMRUN, VMLAUNCH; it returns at the exit */ }
    /// # let (mut cpu, thread) = cpu_and_task();
    /// # let guest = new_task();
    /// # drop(thread.switch_return(&mut cpu)?);
    /// # cpu.set_avx0(7);
    /// // The thread's system call that runs its guest: from here on the guest's context is the thread's current one.
    /// thread.switch_prepare(&cpu)?;
    /// for _ in 0..1000 {
    ///     vm_entry(guest.switch_return(&mut cpu)?); // interrupts off; the first loads, no exit saves
    ///     // Handle the exit, interrupts on.
    ///     // A section, or an interrupt's, is told of the guest: `cpu.with_kernel_fpu(Some(guest.context()), ..)`.
    ///     // The scheduler, if the thread gives up the CPU: `guest.switch_prepare(&cpu)`.
    /// }
    /// // Back to user mode.
    /// guest.switch_prepare(&cpu)?;
    /// drop(thread.switch_return(&mut cpu)?);
    /// assert_eq!((cpu.avx0(), cpu.totals().saved, cpu.totals().restored), (7, 2, 3));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "switch_fpu_return")]
    #[doc(alias = "switch_fpu_finish")]
    #[doc(alias = "fpregs_restore_userregs")]
    #[doc(alias = "TIF_NEED_FPU_LOAD")]
    #[inline]
    pub fn switch_return<'c, C>(&'c self, cpu: &'c mut C) -> Result<UserReady<'c, C>, Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        steps::enter(self.context(), cpu, |cpu| UserReady { _cpu: cpu, not_send: PhantomData })
    }

    /// Resets the context to the initial state, from any state (exec, or a context that reported
    /// [`Error::Lost`] or [`Error::RestoreFailed`]): memory only, loaded at the next return.
    ///
    /// # Errors
    ///
    /// [`Error::Nmi`], [`Error::CpuOffline`], [`Error::Busy`], [`Error::Exhausted`]: nothing has
    /// changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// task.reset(&mut cpu)?; // exec
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu_flush_thread")]
    #[doc(alias = "fpu__clear_user_states")]
    pub fn reset<C: Pinned<Backend = B>>(&self, cpu: &mut C) -> Result<(), Error> {
        let closed = Closed::new(cpu, gate::SESSION)?;
        self.word.mark_nowhere();
        // SAFETY: C9: checked in `new`; the CPU is closed, so that no save or restore runs meanwhile,
        // and no other CPU uses a context whose task is current here or that is held exclusively (K5).
        unsafe { closed.cpu().backend().write_initial(self.base()) };
        self.tell(closed.cpu(), EventKind::Invalidated);
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn tell<C: Pinned>(&self, cpu: &C, kind: EventKind) {
        self.context().tell(cpu, kind);
    }
}

impl<B, A> fmt::Debug for TaskFpu<B, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskFpu {{ word: {:#x} }}", self.word.load().bits())
    }
}

/// Proof that the registers are the task's, as long as this value lives. A kernel's `enter_user`
/// should take this value and no other.
///
/// The value borrows the witness exclusively, so no other call of this crate can use the CPU before
/// user mode, and interrupts stay off ([`Exclusive`]).
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// fn enter_user(_ready: fpu_core::UserReady<'_, Cpu>) { /* on x86: iretq */ }
/// # let (mut cpu, task) = cpu_and_task();
/// enter_user(task.switch_return(&mut cpu)?);
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[must_use = "the registers are the task's only until something else happens on this CPU: enter user mode with it"]
#[derive(Debug)]
pub struct UserReady<'c, C> {
    pub(crate) _cpu: &'c mut C,
    pub(crate) not_send: PhantomData<*mut ()>,
}
