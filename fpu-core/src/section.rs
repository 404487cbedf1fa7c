//! The kernel's own use of the registers: sections, and persistent contexts.

use core::{fmt, hint::black_box, marker::PhantomData};

use crate::{
    backend::{KernelUnits, RawFpu},
    error::Error,
    observe::{Event, EventKind},
    protocol::{
        closed::Closed,
        cpu_word::gate,
        steps::{self, FpuRef},
        word::{Place, Word},
    },
    witness::{Level, Pinned, SoftFloat},
};

/// Kernel FPU sections. The methods exist for every [`SoftFloat`] witness.
///
/// Which to use: [`with_kernel_fpu`](Self::with_kernel_fpu) if the code fits in a closure (a closure
/// cannot be forgotten); [`kernel_fpu`](Self::kernel_fpu) for spans;
/// [`run_guest`](Self::run_guest) for a persistent context that is saved at the end of each run and may survive in the
/// registers until its next. A virtual CPU whose registers stay over exits is a context that is entered by
/// [`switch_return`](crate::TaskFpu::switch_return).
///
/// The first section of a system call saves the user's state. The task is in memory only then, so
/// further sections save nothing, and one restore is due on the way to user mode.
///
/// | begun in | allowed | refused |
/// |---|---|---|
/// | task, soft or hard interrupt | while the CPU is online and its registers are not in use | `CpuOffline`; `Busy` inside a section, a session, or a switch of this CPU; `Nmi` |
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// task.switch_return(&mut cpu)?;
/// for _ in 0..3 {
///     cpu.with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || { /* checksum */ })?;
/// }
/// task.switch_return(&mut cpu)?;
/// assert_eq!((cpu.totals().saved, cpu.totals().restored), (1, 2));
/// # Ok::<(), fpu_core::Error>(())
/// ```
pub trait KernelFpu: Pinned {
    /// Begins a section that ends on drop. Input and output of the vector code have to go through
    /// memory, or [`black_box`](core::hint::black_box): the compiler does not know of sections, and may
    /// move a computation on values alone out of a section. [`with_kernel_fpu`](Self::with_kernel_fpu) passes its
    /// closure and value through `black_box`.
    ///
    /// `current` is the task this CPU runs or has interrupted,
    /// `None` for a task without a context (a kernel thread, idle). Of a thread that runs a virtual CPU it is the guest's
    /// context, from the thread's own `switch_prepare` until the guest's.
    ///
    /// # Errors
    ///
    /// [`Error::Nmi`], [`Error::CpuOffline`], [`Error::Busy`], [`Error::Exhausted`]: use a path without
    /// FPU. [`Error::LiveElsewhere`], [`Error::Lost`]: `current` is not current here. Nothing has changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// let section = cpu.kernel_fpu(None, KernelUnits::ALL)?;
    /// /* vector code */
    /// drop(section);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "kernel_fpu_begin")]
    #[doc(alias = "kernel_fpu_begin_mask")]
    #[doc(alias = "kernel_fpu_end")]
    #[doc(alias = "irq_fpu_usable")]
    fn kernel_fpu(
        &mut self,
        current: Option<FpuRef<'_, Self::Backend>>,
        units: KernelUnits,
    ) -> Result<Section<'_, Self>, Error>
    where
        Self: SoftFloat + Sized,
    {
        let closed = begin(self, current)?;
        // SAFETY: soft-float (K9); the current task has been saved just now, if a save was due.
        Ok(unsafe { Section::begin(closed, units) })
    }

    /// Runs `code` in a section.
    ///
    /// # Errors
    ///
    /// As for [`kernel_fpu`](Self::kernel_fpu); `code` was not run.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// let sum = cpu.with_kernel_fpu(None, KernelUnits::ALL, || 40 + 2)?;
    /// assert_eq!(sum, 42);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    fn with_kernel_fpu<T>(
        &mut self,
        current: Option<FpuRef<'_, Self::Backend>>,
        units: KernelUnits,
        code: impl FnOnce() -> T,
    ) -> Result<T, Error>
    where
        Self: SoftFloat + Sized,
    {
        let section = self.kernel_fpu(current, units)?;
        let value = stay(code);
        drop(section);
        Ok(value)
    }

    /// Runs `code` with the registers holding `persistent` (a virtual CPU, a vector coroutine), and
    /// saves `persistent` afterwards. If no other code has used the registers since its last run
    /// here, nothing is loaded; the words tell whether any has.
    ///
    /// The CPU is closed while `code` runs: sections are refused with [`Error::Busy`], those in interrupts too. `code` does not
    /// sleep, and is not preempted (K2). A hypervisor whose thread may be preempted makes the guest's context the thread's
    /// current one instead.
    ///
    /// # Errors
    ///
    /// As for [`kernel_fpu`](Self::kernel_fpu), for `persistent` too; and [`Error::RestoreFailed`]: the
    /// registers are unowned. `code` was not run. `code` must not unwind.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let guest = new_task(); // a virtual CPU's context
    /// for _ in 0..3 {
    ///     cpu.run_guest(guest.context(), Some(task.context()), || { /* VM entry */ })?;
    /// }
    /// assert_eq!((cpu.totals().restored, cpu.totals().skipped), (1, 2));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "run_persistent")]
    #[doc(alias = "fpu_swap_kvm_fpstate")]
    fn run_guest<T>(
        &mut self,
        persistent: FpuRef<'_, Self::Backend>,
        current: Option<FpuRef<'_, Self::Backend>>,
        code: impl FnOnce() -> T,
    ) -> Result<T, Error>
    where
        Self: SoftFloat + Sized,
    {
        if self.level() == Level::Nmi {
            return Err(Error::Nmi);
        }
        let word = persistent.word.load();
        let is_current = current.is_some_and(|c| core::ptr::eq(c.word, persistent.word));
        if !word.in_memory() && !is_current {
            return Err(word.refusal(self.words()));
        }
        let mut closed = begin(self, current)?;
        if let Place::Both = closed.place(persistent.word.load()) {
            persistent.word.mark_live(closed.stamp());
            persistent.tell(closed.cpu(), EventKind::Skipped);
        } else {
            closed.end_claims();
            // SAFETY: C19: one backend (K1), and it is used by this CPU now (K5). C20: this CPU is closed. C22: the
            // current task is saved, and the stamp with which the CPU will reopen is no context's.
            unsafe { steps::load(persistent, closed.cpu(), closed.stamp()) }?;
        }
        persistent.tell(closed.cpu(), EventKind::Loaded);
        let value = stay(code);
        // SAFETY: C19, C20: as for the load; the CPU was closed all the time. C21: they were the context's then.
        unsafe { steps::save(persistent, closed.cpu(), Word::both(closed.stamp())) };
        persistent.tell(closed.cpu(), EventKind::Unloaded);
        drop(closed);
        Ok(value)
    }
}

// For every witness; the methods ask for `SoftFloat`. So the compiler tells a caller without
// `SoftFloat` what is missing, and not that there is no such method.
impl<C: Pinned> KernelFpu for C {}

/// Keeps `code` here: without `black_box` the compiler may move a computation without memory before
/// the save or behind the end of the section.
#[inline]
pub(crate) fn stay<T>(code: impl FnOnce() -> T) -> T {
    black_box(black_box(code)())
}

/// A CPU that is closed, and the task that is to be saved first.
type Begun<'c, 't, C> = (Closed<'c, C>, Option<FpuRef<'t, <C as Pinned>::Backend>>);

/// Closes the CPU, and decides whether the current task is to be saved: if the registers are its only copy. On `Err`
/// nothing has changed.
pub(crate) fn close<'c, 't, C: Pinned>(
    cpu: &'c mut C,
    current: Option<FpuRef<'t, C::Backend>>,
) -> Result<Begun<'c, 't, C>, Error> {
    decide(Closed::new(cpu, gate::SECTION)?, current)
}

/// As [`close`], of a CPU that is closed already; on `Err` it is open again.
pub(crate) fn decide<'c, 't, C: Pinned>(
    closed: Closed<'c, C>,
    current: Option<FpuRef<'t, C::Backend>>,
) -> Result<Begun<'c, 't, C>, Error> {
    let Some(task) = current else { return Ok((closed, None)) };
    let word = task.word.load();
    match closed.place(word) {
        Place::Registers => Ok((closed, current)),
        Place::Both | Place::Memory => Ok((closed, None)),
        Place::Elsewhere => Err(closed.refuse(word)),
    }
}

/// Closes the CPU, and saves the current task if that is due. On `Err` nothing has changed.
fn begin<'c, C: SoftFloat>(
    cpu: &'c mut C,
    current: Option<FpuRef<'_, C::Backend>>,
) -> Result<Closed<'c, C>, Error> {
    Ok(saved(close(cpu, current)?))
}

/// Saves the task of which [`decide`] said so.
pub(crate) fn saved<'c, C: SoftFloat>((closed, saves): Begun<'c, '_, C>) -> Closed<'c, C> {
    if let Some(task) = saves {
        // SAFETY: C19: one backend (K1), current here (K5). C20: this CPU has been closed since its word was read.
        // C21: compared just now.
        unsafe { steps::save(task, closed.cpu(), Word::both(closed.stamp())) };
        task.tell(closed.cpu(), EventKind::Unloaded);
    }
    closed
}

/// The kernel uses the registers until this value is dropped. The section holds the witness, so
/// what the kernel has locked stays locked. After a forgotten section the CPU refuses with
/// [`Error::Busy`], nothing worse.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let mut cpu = online_cpu();
/// let section = cpu.kernel_fpu(None, KernelUnits::ALL)?;
/// /* vector code */
/// drop(section);
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[must_use = "the section ends when this is dropped"]
pub struct Section<'c, C: Pinned> {
    closed: Closed<'c, C>,
    /// The units with which the section began.
    units: KernelUnits,
    not_send: PhantomData<*mut ()>,
}

impl<'c, C: Pinned> Section<'c, C> {
    /// Ends the claims on the CPU, and begins the section.
    ///
    /// # Safety
    ///
    /// The save that [`close`] has decided on is executed. No code needs anything in the registers: the kernel leaves
    /// them alone (K9), or the section's save is done (C42).
    #[inline(always)]
    pub(crate) unsafe fn begin(mut closed: Closed<'c, C>, units: KernelUnits) -> Self {
        closed.end_claims();
        let cpu = closed.cpu();
        cpu.observe(Event { kind: EventKind::Invalidated, context: 0 });
        // SAFETY: C10: pinned (K2), soft-float (K9) or section's save done (C42), this CPU is closed; the registers are
        // unowned: the current task is saved, and the stamp with which the CPU will reopen is no context's.
        unsafe { cpu.backend().kernel_defaults(units) };
        Self { closed, units, not_send: PhantomData }
    }

    /// Ends the section, and leaves the CPU closed.
    pub(crate) fn end(self) -> Closed<'c, C> {
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: C10: as in `drop`, which does not run.
        unsafe { this.closed.cpu().backend().section_end(this.units) };
        // SAFETY: rests on no duty: moves the guard out of a value that is neither dropped nor used again.
        unsafe { core::ptr::read(&this.closed) }
    }

    /// The witness that the section holds, for reading.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// use fpu_core::Level;
    /// let section = cpu.kernel_fpu(None, KernelUnits::NONE)?;
    /// assert_eq!(section.cpu().level(), Level::Task);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn cpu(&self) -> &C {
        self.closed.cpu()
    }
}

impl<C: Pinned> fmt::Debug for Section<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").field("units", &self.units).finish_non_exhaustive()
    }
}

impl<C: Pinned> Drop for Section<'_, C> {
    fn drop(&mut self) {
        // SAFETY: C10: pinned (K2), soft-float (K9) or section's save done (C42), this CPU is still closed; no context is
        // in the registers, as at the beginning.
        unsafe { self.closed.cpu().backend().section_end(self.units) };
    }
}
