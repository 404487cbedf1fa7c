//! The kernel's own use of the registers.

use core::{hint::black_box, marker::PhantomData};

use crate::{
    observe::{Event, EventKind},
    residency::{after, close, gate, refusal, reopen, MEMORY},
    Error, FpuRef, KernelUnits, Level, Pinned, RawFpu, SoftFloat,
};

/// Kernel FPU sections. Its methods exist for every [`SoftFloat`] witness.
///
/// Which to use: [`with_kernel_fpu`](Self::with_kernel_fpu) if the code fits in a closure (it cannot
/// be forgotten); [`kernel_fpu`](Self::kernel_fpu) for spans; [`run_persistent`](Self::run_persistent)
/// for a virtual CPU, whose registers may survive until it comes back.
///
/// The user's state is saved once: after the first section of a system call the task is in memory
/// only, so further ones save nothing, and one restore is due on the way to user mode.
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
    /// Begins a section that ends on drop. What the vector code takes in and gives out has to go through
    /// memory, or [`black_box`](core::hint::black_box): the compiler does not know of sections, and a
    /// computation on values alone may move out of one. [`with_kernel_fpu`](Self::with_kernel_fpu) sees
    /// to it by itself.
    ///
    /// `current` is the task this CPU runs or has interrupted,
    /// `None` for one without a context (a kernel thread, idle).
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
        let resident = begin(self, current)?;
        self.observe(Event { kind: EventKind::Invalidated, context: 0 });
        // SAFETY: S2: pinned (P1), F1, this CPU is closed; the registers are nobody's: the current task
        // is saved, and the word with which the CPU will reopen is no stamp that anybody has.
        unsafe { self.backend().kernel_defaults(units) };
        Ok(Section {
            cpu: self,
            resident: after(resident),
            units: Some(units),
            not_send: PhantomData,
        })
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
    /// saves it after. If nobody else used the registers since it ran here last, nothing is
    /// loaded; if anybody did, it is noticed.
    ///
    /// # Errors
    ///
    /// As for [`kernel_fpu`](Self::kernel_fpu), for `persistent` too; and [`Error::RestoreFailed`]: the
    /// registers are nobody's. `code` was not run. It must not unwind.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let guest = new_task(); // a virtual CPU's context
    /// for _ in 0..3 {
    ///     cpu.run_persistent(guest.context(), Some(task.context()), || { /* VM entry */ })?;
    /// }
    /// assert_eq!((cpu.totals().restored, cpu.totals().skipped), (1, 2));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu_swap_kvm_fpstate")]
    fn run_persistent<T>(
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
        let w = persistent.word.load();
        if w & MEMORY == 0 && current.map_or(true, |c| !core::ptr::eq(c.word, persistent.word)) {
            return Err(refusal(w, self.words()));
        }
        let before = begin(self, current)?;
        let mut end = Section { cpu: self, resident: before, units: None, not_send: PhantomData };
        let w = persistent.word.load();
        if w == before | MEMORY {
            persistent.tell(end.cpu, EventKind::Skipped);
        } else {
            end.resident = after(before);
            // SAFETY: S1: the context was made with this backend (K1) and is used by this CPU now (P4).
            // S2: pinned (P1), F1, this CPU is closed, the current task is saved.
            if let Err(why) = unsafe { end.cpu.backend().restore(persistent.area) } {
                persistent.tell(end.cpu, EventKind::Failed);
                return Err(Error::RestoreFailed(why));
            }
            persistent.tell(end.cpu, EventKind::Restored);
        }
        persistent.word.mark_live(end.resident);
        persistent.tell(end.cpu, EventKind::Loaded);
        let value = stay(code);
        // SAFETY: as for the restore; the CPU was closed all the time.
        unsafe { end.cpu.backend().save(persistent.area) };
        persistent.word.publish(end.resident | MEMORY);
        persistent.tell(end.cpu, EventKind::Saved);
        persistent.tell(end.cpu, EventKind::Unloaded);
        drop(end);
        Ok(value)
    }
}

// For every witness, with `SoftFloat` asked for by the methods: a witness without it is then told what
// is missing, not that there is no such method.
impl<C: Pinned> KernelFpu for C {}

/// Runs `code` here and nowhere else: a computation without memory would otherwise be free to move
/// before the save or behind the end of the section.
#[inline]
fn stay<T>(code: impl FnOnce() -> T) -> T {
    black_box(black_box(code)())
}

/// Closes the CPU and saves the current task if the registers are its only copy. Returns the CPU's
/// open word. On `Err` nothing has changed.
fn begin<C: SoftFloat>(cpu: &C, current: Option<FpuRef<'_, C::Backend>>) -> Result<u64, Error> {
    let words = cpu.words();
    let resident = close(cpu, gate::SECTION)?;
    let Some(task) = current else { return Ok(resident) };
    let w = task.word.load();
    if w == resident {
        // SAFETY: S1: made with this backend (K1), used by this CPU only (P4). S2: pinned (P1), F1;
        // the CPU is closed, and the word has just said that the registers are this task's.
        unsafe { cpu.backend().save(task.area) };
        task.word.publish(w | MEMORY);
        task.tell(cpu, EventKind::Saved);
        task.tell(cpu, EventKind::Unloaded);
    } else if w & MEMORY == 0 {
        reopen(words, resident);
        return Err(refusal(w, words));
    }
    Ok(resident)
}

/// The kernel uses the registers until this is dropped. It holds the witness, so what the kernel
/// has locked stays locked. A forgotten section leaves the CPU refusing with
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
    cpu: &'c mut C,
    /// The word to reopen with.
    resident: u64,
    /// What the section began with; `None` while a persistent context runs.
    units: Option<KernelUnits>,
    not_send: PhantomData<*mut ()>,
}

impl<C: Pinned> Section<'_, C> {
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
        self.cpu
    }
}

impl<C: Pinned> Drop for Section<'_, C> {
    fn drop(&mut self) {
        if let Some(units) = self.units {
            // SAFETY: S2: pinned (P1), F1, this CPU is still closed; the registers are nobody's, as at the beginning.
            unsafe { self.cpu.backend().section_end(units) };
        }
        reopen(self.cpu.words(), self.resident);
    }
}
