//! The kernel's data: CPUs, tasks, the log; all of it allocated before anything runs.

use std::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use fpu_core::{observe::Counters, CpuFpu, FpuRef, RawArea, TaskFpu, TheBackend};
use fpu_hosted_test::real::{Classes, RegFile};
use fpu_x86::Plan;

use crate::{scenarios::TASKS, script::Op, trip::Instructions};

/// A task's context.
pub type Fpu = TaskFpu<Plan, RawArea>;

/// The settings by the machine and the command line.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The backend.
    pub plan: Plan,
    /// The registers that are checked.
    pub classes: Classes,
    /// The seed of the patterns.
    pub seed: u64,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// One task: its context, and the contents of its registers, past and next.
///
/// `turn` hands the task from one CPU to the other: the operation whose turn it is owns all of the task.
pub struct Slot {
    fpu: UnsafeCell<MaybeUninit<Fpu>>,
    area: UnsafeCell<Vec<Line>>,
    /// What the task loaded last, and what it loads next, in turn.
    files: [UnsafeCell<RegFile>; 2],
    seen: UnsafeCell<RegFile>,
    /// The index of the next file.
    pub parity: AtomicU32,
    /// Trips to user mode, over all generations.
    pub trips: AtomicU32,
    /// The number of tasks that have had this memory before.
    pub generation: AtomicU32,
    /// The number of operations on this task that are done.
    pub turn: AtomicU32,
    /// For the eager kernel: the save was done on entry.
    pub saved_on_entry: AtomicU32,
    /// For the eager kernel's trips, which store commits.
    pub unused_word: AtomicU64,
}

// SAFETY: everything in a cell is touched by the owner of the turn only (`turn` is stored with release
// and loaded with acquire), or by the main thread while no worker runs.
unsafe impl Sync for Slot {}

impl Slot {
    fn new(setup: &Setup) -> Self {
        let initial = RegFile::initial(setup.classes);
        let lines = setup.plan.area_len().div_ceil(64);
        let slot = Self {
            fpu: UnsafeCell::new(MaybeUninit::uninit()),
            area: UnsafeCell::new(vec![Line([0; 64]); lines]),
            files: [UnsafeCell::new(initial.clone()), UnsafeCell::new(initial.clone())],
            seen: UnsafeCell::new(initial),
            parity: AtomicU32::new(1),
            trips: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            turn: AtomicU32::new(0),
            saved_on_entry: AtomicU32::new(1),
            unused_word: AtomicU64::new(0),
        };
        // SAFETY: just made, no other code has a reference.
        unsafe { slot.begin(&setup.plan) };
        slot
    }

    /// The area, known by address.
    #[inline(always)]
    #[must_use]
    pub fn area(&self) -> *mut u8 {
        // SAFETY: the vector is never changed after `new`; only its address is read.
        unsafe { (*self.area.get()).as_ptr().cast::<u8>().cast_mut() }
    }
    /// The context.
    #[inline(always)]
    #[must_use]
    pub fn fpu(&self) -> &Fpu {
        // SAFETY: written in `new`, and again only by `begin`, whose caller owns the turn.
        unsafe { (*self.fpu.get()).assume_init_ref() }
    }
    /// The contents that the task's registers must have when it enters user mode.
    #[inline(always)]
    #[must_use]
    pub fn expected(&self) -> *mut RegFile {
        self.files[(self.parity.load(Ordering::Relaxed) & 1 ^ 1) as usize].get()
    }
    /// The contents that the task then loads.
    #[inline(always)]
    #[must_use]
    pub fn next(&self) -> *mut RegFile {
        self.files[(self.parity.load(Ordering::Relaxed) & 1) as usize].get()
    }
    /// The contents that the task saw.
    #[inline(always)]
    #[must_use]
    pub fn seen(&self) -> *mut RegFile {
        self.seen.get()
    }

    /// A new task in this memory: a new context over the same area, and initial registers expected.
    ///
    /// # Safety
    ///
    /// * **C29** the caller owns the turn, and nothing borrows the context.
    pub unsafe fn begin(&self, plan: &Plan) {
        let base = NonNull::new(self.area()).expect("a vector's address");
        // SAFETY: K19: the vector lives as long as the slot, and belongs to this context alone.
        let area = unsafe { RawArea::new(base, plan.area_len()) };
        // SAFETY: K1: the demo has one plan.
        let backend = unsafe { TheBackend::from_ref(plan) };
        let fpu = Fpu::new(backend, area).expect("made to measure");
        // SAFETY: own turn (C29). The old context has nothing to drop.
        unsafe { (*self.fpu.get()).write(fpu) };
        // SAFETY: own turn (C29).
        unsafe { *self.expected() = RegFile::initial((*self.seen()).classes()) };
    }

    /// A child in this memory: it expects what the parent expects.
    ///
    /// # Safety
    ///
    /// Own turn (C29) for both.
    pub unsafe fn expect_as(&self, parent: &Self) {
        // SAFETY: own turn (C29); two slots.
        unsafe { (*self.expected()).clone_from(&*parent.expected()) };
    }

    /// The context, to be changed.
    ///
    /// # Safety
    ///
    /// Own turn (C29).
    #[allow(clippy::mut_from_ref)] // the turn is what makes it exclusive
    pub unsafe fn fpu_mut(&self) -> &mut Fpu {
        // SAFETY: own turn (C29), and written in `new`.
        unsafe { (*self.fpu.get()).assume_init_mut() }
    }
}

/// The record of one operation; written by scalar stores.
#[derive(Debug, Default)]
pub struct Record {
    /// [`RESTORED`] and so on.
    pub flags: AtomicU32,
    /// Cycles on the way to user mode or to the guest, of the switch-out, or of beginning the section.
    pub cycles: AtomicU32,
    /// Cycles of the save on entry, or of the way back from the guest.
    pub entry_cycles: AtomicU32,
}

/// A restore was executed.
pub const RESTORED: u32 = 1;
/// The registers still held the task: no restore.
pub const SKIPPED: u32 = 2;
/// A save was executed.
pub const SAVED: u32 = 4;
/// The operation was executed.
pub const DONE: u32 = 8;
/// The task that runs a guest was saved, besides what was done to the guest.
pub const HOST_SAVED: u32 = 16;
/// It was restored after (eager only).
pub const HOST_RESTORED: u32 = 32;

/// The data of one run of one script.
pub struct World<'s> {
    /// The machine.
    pub setup: &'s Setup,
    /// The script.
    pub ops: &'s [Op],
    /// One for each operation.
    pub records: Vec<Record>,
    /// The tasks.
    pub slots: Vec<Slot>,
    /// Not zero: a CPU has found a mismatch, and all CPUs stop.
    pub abort: AtomicU32,
    /// The instructions of the plan's rung.
    pub instructions: Instructions,
    /// The registers that sections load.
    pub scribble: RegFile,
}

impl<'s> World<'s> {
    /// New tasks, an empty log.
    #[must_use]
    pub fn new(setup: &'s Setup, ops: &'s [Op], instructions: Instructions) -> Self {
        Self {
            setup,
            ops,
            records: ops.iter().map(|_| Record::default()).collect(),
            slots: (0..TASKS).map(|_| Slot::new(setup)).collect(),
            abort: AtomicU32::new(0),
            instructions,
            scribble: RegFile::pattern(!setup.seed, setup.classes),
        }
    }
}

/// Proof of running on one of the demo's CPUs, which is a pinned thread.
pub struct ThisCpu<'m> {
    /// The backend.
    pub plan: &'m Plan,
    /// This CPU's words.
    pub words: &'m CpuFpu,
    /// This CPU's counters.
    pub counters: &'m Counters,
}

fpu_core::witness! {
    // SAFETY: K2: the thread is pinned, and stands for a CPU of its own. K3: each worker gets the words of its
    // number. K4: the system has its components enabled. K5: turns are handed over by release and acquire. K6: no
    // interrupts here. K8: a thread has no interrupts, and installs no signal handler. K9: while registers hold a
    // task, only functions named `quiet_` run, which are scalar code (their disassembly is checked, and every
    // register at every return), or code inside `call_preserving`.
    unsafe impl Pinned + Exclusive + SoftFloat for ThisCpu<'_> {
        backend: Plan = |cpu| {
            // SAFETY: K1: the demo has one plan.
            unsafe { TheBackend::from_ref(cpu.plan) }
        },
        words: CpuFpu = |cpu| cpu.words,
        observe: |cpu, event| cpu.counters.record(event.kind),
    }
}

/// Proof that a task is stopped: the tracer's operation has the turn.
pub struct HasTurn<'m>(pub &'m Plan, pub FpuRef<'m, Plan>);
fpu_core::witness! {
    // SAFETY: K10: the task is switched out (the script says so) and its next operation waits for the turn. K11:
    // there is one turn. K12: a field.
    unsafe impl Stopped for HasTurn<'_> {
        backend: Plan = |proof| {
            // SAFETY: K1: the demo has one plan.
            unsafe { TheBackend::from_ref(proof.0) }
        },
        context: |proof| proof.1,
    }
}
