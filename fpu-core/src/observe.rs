//! What happened, for trace points and counters; nothing of it exists unless asked for.

use core::cell::Cell;

/// Something that happened to a context's registers or memory.
///
/// ```
/// use fpu_core::{Event, EventKind};
/// let event = Event { kind: EventKind::Restored, context: 0x1000 };
/// assert_eq!(event.kind, EventKind::Restored);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// To whom: the address of its [`TaskFpu`](crate::TaskFpu), 0 for the CPU as a whole.
    pub context: usize,
}

/// What can happen.
///
/// | kind | Linux trace point |
/// |---|---|
/// | `Saved` | `x86_fpu_after_save` |
/// | `Restored` | `x86_fpu_after_restore` |
/// | `Skipped` | none: the restore that was not needed |
/// | `Loaded` | `x86_fpu_regs_activated` |
/// | `Unloaded` | `x86_fpu_regs_deactivated` |
/// | `Invalidated` | none |
/// | `Failed` | `x86_fpu_xstate_check_failed` |
///
/// ```
/// use fpu_core::{Counters, EventKind};
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
    /// Memory was loaded into registers.
    #[doc(alias = "x86_fpu_after_restore")]
    Restored,
    /// A restore was not needed: the registers still held the context.
    Skipped,
    /// The registers became the only valid copy (after `Restored` or `Skipped`).
    #[doc(alias = "x86_fpu_regs_activated")]
    Loaded,
    /// The context left the registers: it was switched out, or a section took them (after `Saved`). A
    /// session's save for reading is `Saved` alone.
    #[doc(alias = "x86_fpu_regs_deactivated")]
    Unloaded,
    /// A claim on registers was dropped: of one context (its memory changes), or of whoever was in
    /// a CPU's registers (`context` 0).
    Invalidated,
    /// A restore was refused by the hardware.
    #[doc(alias = "x86_fpu_xstate_check_failed")]
    Failed,
}

/// Ready-made counters, one value per CPU: override [`Pinned::observe`](crate::Pinned::observe) with
/// `self.counters.record(event.kind)`.
///
/// Plain loads and stores, so for one CPU only; not `Sync`.
///
/// ```
/// use fpu_core::{Counters, EventKind};
/// let counters = Counters::new();
/// counters.record(EventKind::Saved);
/// assert_eq!(counters.totals().saved, 1);
/// ```
#[derive(Debug, Default)]
pub struct Counters {
    saved: Cell<u64>,
    restored: Cell<u64>,
    skipped: Cell<u64>,
    loaded: Cell<u64>,
    unloaded: Cell<u64>,
    invalidated: Cell<u64>,
    failed: Cell<u64>,
}

/// What a [`Counters`] has seen.
///
/// ```
/// assert_eq!(fpu_core::Totals::default().saved, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Registers written to memory.
    pub saved: u64,
    /// Memory loaded into registers.
    pub restored: u64,
    /// Restores not needed.
    pub skipped: u64,
    /// Times the registers became the only valid copy.
    pub loaded: u64,
    /// Times they stopped being it.
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
    /// assert_eq!(fpu_core::Counters::new().totals(), fpu_core::Totals::default());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self {
            saved: Cell::new(0),
            restored: Cell::new(0),
            skipped: Cell::new(0),
            loaded: Cell::new(0),
            unloaded: Cell::new(0),
            invalidated: Cell::new(0),
            failed: Cell::new(0),
        }
    }
    /// Counts one event.
    ///
    /// ```
    /// use fpu_core::{Counters, EventKind};
    /// let counters = Counters::new(); // one a CPU, in its per-CPU data
    /// counters.record(EventKind::Restored); // in `Pinned::observe`
    /// assert_eq!(counters.totals().restored, 1);
    /// ```
    #[inline]
    pub fn record(&self, kind: EventKind) {
        let counter = match kind {
            EventKind::Saved => &self.saved,
            EventKind::Restored => &self.restored,
            EventKind::Skipped => &self.skipped,
            EventKind::Loaded => &self.loaded,
            EventKind::Unloaded => &self.unloaded,
            EventKind::Invalidated => &self.invalidated,
            EventKind::Failed => &self.failed,
        };
        counter.set(counter.get().wrapping_add(1));
    }
    /// What has been counted so far.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// task.switch_prepare(&cpu)?;
    /// let fpu_core::Totals { saved, restored, .. } = cpu.totals();
    /// assert_eq!((saved, restored), (1, 1));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            saved: self.saved.get(),
            restored: self.restored.get(),
            skipped: self.skipped.get(),
            loaded: self.loaded.get(),
            unloaded: self.unloaded.get(),
            invalidated: self.invalidated.get(),
            failed: self.failed.get(),
        }
    }
}
