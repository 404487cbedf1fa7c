//! Events for trace points and counters. A kernel that does not override `observe` has no code of them.

use crate::sync::{Count, Ordering};

/// Something that happened to a context's registers or memory.
///
/// ```
/// use fpu_core::observe::{Event, EventKind};
/// let event = Event { kind: EventKind::Restored, context: 0x1000 };
/// assert_eq!(event.kind, EventKind::Restored);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The context: the address of its [`TaskFpu`](crate::TaskFpu), 0 for the CPU as a whole.
    pub context: usize,
}

/// The kinds of events.
///
/// | kind | Linux trace point |
/// |---|---|
/// | `Saved` | `x86_fpu_after_save` |
/// | `Unchanged` | none: the save that was not needed |
/// | `Restored` | `x86_fpu_after_restore` |
/// | `Skipped` | none: the restore that was not needed |
/// | `Loaded` | `x86_fpu_regs_activated` |
/// | `Unloaded` | `x86_fpu_regs_deactivated` |
/// | `Invalidated` | none |
/// | `Failed` | `x86_fpu_xstate_check_failed` |
///
/// ```
/// use fpu_core::observe::{Counters, EventKind};
/// let counters = Counters::new();
/// counters.record(EventKind::Skipped);
/// assert_eq!(counters.totals().skipped, 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// Registers were written to memory.
    #[doc(alias = "x86_fpu_after_save")]
    Saved,
    /// A save was not needed: memory held already what the registers hold ([`RawFpu::unchanged`](crate::RawFpu::unchanged)).
    /// Told in place of `Saved`. A RISC-V kernel with one register:
    ///
    /// ```
    /// # use core::{cell::Cell, ptr::NonNull};
    /// use fpu_core::{KernelUnits, RawFpu, RestoreFault};
    ///
    /// /// `sstatus.FS`.
    /// #[derive(Clone, Copy, PartialEq)]
    /// enum Fs { Clean, Dirty }
    /// struct Riscv { f0: Cell<u64>, fs: Cell<Fs> }
    /// impl Riscv {
    ///     /// `fld f0, ..` in user mode: the CPU sets the bits.
    ///     fn write(&self, value: u64) { self.f0.set(value); self.fs.set(Fs::Dirty) }
    /// }
    /// // SAFETY: B1-B7: one register, moved whole. B17: a restore and a save leave area and register equal and FS Clean; the
    /// // CPU makes FS Dirty with the first write, and the kernel where no restore has loaded what the registers hold.
    /// unsafe impl RawFpu for Riscv {
    ///     unsafe fn unchanged(&self, _: NonNull<u8>) -> bool { self.fs.get() == Fs::Clean }
    ///     unsafe fn save(&self, area: NonNull<u8>) {
    ///         // SAFETY: the caller's valid area (C9).
    ///         unsafe { area.cast::<u64>().as_ptr().write(self.f0.get()) }
    ///         self.fs.set(Fs::Clean);
    ///     }
    ///     unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
    ///         // SAFETY: the caller's valid area (C9).
    ///         self.f0.set(unsafe { area.cast::<u64>().as_ptr().read() });
    ///         self.fs.set(Fs::Clean);
    ///         Ok(())
    ///     }
    ///     // What becomes a context's without a restore is not in its area.
    ///     unsafe fn adopt(&self, _: NonNull<u8>) -> Result<(), RestoreFault> { self.fs.set(Fs::Dirty); Ok(()) }
    /// #     type Image<'a> = ();
    /// #     type ImageMut<'a> = ();
    /// #     fn area_len(&self) -> usize { 8 }
    /// #     fn area_align(&self) -> usize { 8 }
    /// #     unsafe fn write_initial(&self, area: NonNull<u8>) { unsafe { area.cast::<u64>().as_ptr().write(0) } }
    /// #     unsafe fn kernel_defaults(&self, _: KernelUnits) { self.write(0) }
    /// #     unsafe fn image<'a>(&'a self, _: NonNull<u8>) {}
    /// #     unsafe fn image_mut<'a>(&'a self, _: NonNull<u8>) {}
    ///     // ...
    /// }
    /// # use fpu_core::{observe::{Counters, Event, Totals}, Area, CpuFpu, CpuLifecycle, TaskFpu, TheBackend};
    /// # struct Cpu<'c>(&'c TheBackend<Riscv>, &'c CpuFpu, &'c Counters);
    /// # fpu_core::witness! {
    /// #     // SAFETY: K2-K9: one thread, one CPU.
    /// #     unsafe impl Pinned + Exclusive + SoftFloat for Cpu<'_> {
    /// #         backend: Riscv = |cpu| cpu.0,
    /// #         words: CpuFpu = |cpu| cpu.1,
    /// #         observe: |cpu, event| cpu.2.record(event.kind),
    /// #     }
    /// # }
    /// # // SAFETY: K1: the only one.
    /// # let backend = unsafe { TheBackend::new(Riscv { f0: Cell::new(0), fs: Cell::new(Fs::Dirty) }) };
    /// # let (words, counters) = (CpuFpu::new(), Counters::new());
    /// # let mut cpu = Cpu(&backend, &words, &counters);
    /// # // SAFETY: K15, K16: the only CPU, its words new.
    /// # unsafe { cpu.fpu_online(0)? };
    /// # let task = TaskFpu::new(&backend, Area::<64>::new())?;
    /// drop(task.switch_return(&mut cpu)?);
    /// task.switch_prepare(&cpu)?;        // nothing was written: no save
    /// drop(task.switch_return(&mut cpu)?);
    /// backend.write(7);
    /// task.switch_prepare(&cpu)?;        // a save
    /// let Totals { saved, unchanged, .. } = counters.totals();
    /// assert_eq!((saved, unchanged), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Unchanged,
    /// Memory was loaded into registers, or the backend found that both are initial (on x86: a plan that skips that).
    #[doc(alias = "x86_fpu_after_restore")]
    Restored,
    /// A restore was not needed: the registers still held the context, and so did memory. A context that is entered while
    /// the registers are its only copy (again without a switch, or bound and not saved since) tells nothing.
    Skipped,
    /// The registers became the only valid copy (after `Restored` or `Skipped`, or [adopted](crate::TaskFpu::adopt)).
    #[doc(alias = "x86_fpu_regs_activated")]
    Loaded,
    /// The registers stopped being the context's only copy: a switch, or a section (after `Saved` or
    /// `Unchanged`). A session's save for reading is the first of the two alone.
    #[doc(alias = "x86_fpu_regs_deactivated")]
    Unloaded,
    /// A claim on registers was dropped: of one context (its memory changes), or of the context in
    /// a CPU's registers (`context` 0).
    Invalidated,
    /// A restore was refused by the hardware.
    #[doc(alias = "x86_fpu_xstate_check_failed")]
    Failed,
}

/// Ready-made counters, one value per CPU: override [`Pinned::observe`](crate::Pinned::observe) with
/// `self.counters.record(event.kind)`.
///
/// It is `Sync` and made by a `const` function, so a per-CPU static holds it and any CPU may read it, without
/// `unsafe`. Each counter is a relaxed atomic that is loaded, increased and stored:
///
/// * One CPU counts in one value, its own, so that no store of another comes between. Two CPUs that share a value
///   lose counts, and nothing else.
/// * An interrupt may come between load and store. Saves, restores and what belongs to them are told with
///   interrupts off or while other uses of this CPU's registers are refused, so it counts none of those.
///   The calls of [`CpuLifecycle`](crate::CpuLifecycle) tell [`Invalidated`](EventKind::Invalidated) after they have
///   opened the CPU again: one that an interrupt counts there may be lost.
/// * A reader on another CPU sees recent values, and the eight need not be of one moment.
///
/// ```
/// use fpu_core::observe::{Counters, EventKind};
/// static CPU0: Counters = Counters::new();
/// CPU0.record(EventKind::Saved);
/// assert_eq!(std::thread::spawn(|| CPU0.totals().saved).join().ok(), Some(1));
/// ```
#[derive(Debug, Default)]
#[repr(align(64))] // no two CPUs' counters in one cache line
pub struct Counters {
    saved: Count,
    unchanged: Count,
    restored: Count,
    skipped: Count,
    loaded: Count,
    unloaded: Count,
    invalidated: Count,
    failed: Count,
}

/// The counts of a [`Counters`].
///
/// ```
/// assert_eq!(fpu_core::observe::Totals::default().saved, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Registers written to memory.
    pub saved: u64,
    /// Saves not needed.
    pub unchanged: u64,
    /// Memory loaded into registers.
    pub restored: u64,
    /// Restores not needed.
    pub skipped: u64,
    /// Times the registers became the only valid copy.
    pub loaded: u64,
    /// Times the registers stopped being the only valid copy.
    pub unloaded: u64,
    /// Claims dropped.
    pub invalidated: u64,
    /// Restores refused by the hardware.
    pub failed: u64,
}

impl Counters {
    /// All zero.
    ///
    /// ```
    /// assert_eq!(fpu_core::observe::Counters::new().totals(), fpu_core::observe::Totals::default());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self {
            saved: Count::new(0),
            unchanged: Count::new(0),
            restored: Count::new(0),
            skipped: Count::new(0),
            loaded: Count::new(0),
            unloaded: Count::new(0),
            invalidated: Count::new(0),
            failed: Count::new(0),
        }
    }
    /// Counts one event.
    ///
    /// ```
    /// use fpu_core::observe::{Counters, EventKind};
    /// let counters = Counters::new(); // one a CPU, in its per-CPU data
    /// counters.record(EventKind::Restored); // in `Pinned::observe`
    /// assert_eq!(counters.totals().restored, 1);
    /// ```
    #[inline]
    pub fn record(&self, kind: EventKind) {
        let counter = match kind {
            EventKind::Saved => &self.saved,
            EventKind::Unchanged => &self.unchanged,
            EventKind::Restored => &self.restored,
            EventKind::Skipped => &self.skipped,
            EventKind::Loaded => &self.loaded,
            EventKind::Unloaded => &self.unloaded,
            EventKind::Invalidated => &self.invalidated,
            EventKind::Failed => &self.failed,
        };
        // No other CPU writes it, so a load and a store do what an addition in one step would, without its cost.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
    /// What has been counted so far.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// task.switch_prepare(&cpu)?;
    /// let fpu_core::observe::Totals { saved, restored, .. } = cpu.totals();
    /// assert_eq!((saved, restored), (1, 1));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            saved: self.saved.load(Ordering::Relaxed),
            unchanged: self.unchanged.load(Ordering::Relaxed),
            restored: self.restored.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            loaded: self.loaded.load(Ordering::Relaxed),
            unloaded: self.unloaded.load(Ordering::Relaxed),
            invalidated: self.invalidated.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}
