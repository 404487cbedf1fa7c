//! One simulated CPU, and the witnesses of what its kernel has locked.

use super::{line::Line, Injection, Interrupt, SimFpu};
use core::marker::PhantomData;
use fpu_core::{
    observe::{Counters, Event, Totals},
    CpuLifecycle, CpuWords, Exclusive, FpuRef, KernelUnits, Level, Pinned, SoftFloat, Stopped,
    TheBackend,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// The two words; every access is a step.
#[derive(Default)]
pub struct SimWords {
    resident: Cell<u64>,
    gate: Cell<u64>,
    line: Rc<Line>,
}

impl SimWords {
    /// Those of a CPU with that interrupt line.
    pub(super) fn on(line: Rc<Line>) -> Self {
        Self { line, ..Self::default() }
    }
}

// SAFETY: K13: cells that only the core writes, kept for as long as the CPU. K14: the interrupt line
// strikes between accesses only.
unsafe impl CpuWords for SimWords {
    fn resident(&self) -> u64 {
        self.line.step();
        self.resident.get()
    }
    unsafe fn set_resident(&self, word: u64) {
        self.line.step();
        self.resident.set(word);
    }
    fn gate(&self) -> u64 {
        self.line.step();
        self.gate.get()
    }
    unsafe fn set_gate(&self, word: u64) {
        self.line.step();
        self.gate.set(word);
    }
}

/// A simulated CPU: registers, words, counters, interrupt line.
///
/// ```
/// use fpu_core::{KernelFpu, KernelUnits};
/// use fpu_hosted_test::sim::{Interrupt, SimCpu};
/// let cpu = SimCpu::online(0);
/// // An interrupt that uses vector registers, at the second step of a section of ours.
/// let handler = || {
///     let refused = cpu.interrupted().with_kernel_fpu(None, KernelUnits::ALL, || ()).is_err();
///     assert!(!refused); // the gate is not taken yet
/// };
/// let (ours, injection) = cpu.inject(2, Interrupt::Maskable, &handler, || {
///     cpu.preempt_off().with_kernel_fpu(None, KernelUnits::ALL, || ())
/// });
/// assert!(ours.is_ok() && injection.delivered);
/// ```
pub struct SimCpu {
    fpu: SimFpu,
    words: SimWords,
    counters: Counters,
    events: RefCell<Option<Vec<Event>>>,
}

impl SimCpu {
    /// A CPU that was never online.
    #[must_use]
    pub fn offline() -> Self {
        let fpu = SimFpu::new();
        let words = SimWords::on(Rc::clone(&fpu.line));
        Self { fpu, words, counters: Counters::new(), events: RefCell::new(None) }
    }
    /// A CPU that is online, with a number that the caller gives to no other.
    ///
    /// # Panics
    ///
    /// If the number is not below [`MAX_CPUS`](fpu_core::MAX_CPUS).
    #[must_use]
    pub fn online(number: u32) -> Self {
        let cpu = Self::offline();
        // SAFETY: K15: by the caller; a number given twice gives wrong values and nothing worse, since the
        // registers are simulated. K16: the words are new.
        if let Err(why) = unsafe { cpu.irqs_off().fpu_online(number) } {
            panic!("CPU {number}: {why}");
        }
        cpu
    }

    /// The registers.
    #[must_use]
    pub fn fpu(&self) -> &TheBackend<SimFpu> {
        self.fpu.the_backend()
    }
    /// The words.
    #[must_use]
    pub fn words(&self) -> &SimWords {
        &self.words
    }
    /// What has happened so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }
    /// Counts an event, and notes it if events are noted; a step.
    pub fn count(&self, event: Event) {
        self.fpu.line.step();
        self.counters.record(event.kind);
        if let Some(events) = self.events.borrow_mut().as_mut() {
            events.push(event);
        }
    }
    /// Begins to note events.
    pub fn record_events(&self) {
        *self.events.borrow_mut() = Some(Vec::new());
    }
    /// The events noted since [`record_events`](Self::record_events) or the last call.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.events.borrow_mut().as_mut().map(core::mem::take).unwrap_or_default()
    }
    /// Runs `operation` with an interrupt at its step `at` (1: the first), which runs `handler`.
    ///
    /// # Panics
    ///
    /// If called from an operation that another injection runs.
    pub fn inject<R>(
        &self,
        at: u64,
        interrupt: Interrupt,
        handler: &dyn Fn(),
        operation: impl FnOnce() -> R,
    ) -> (R, Injection) {
        self.fpu.line.inject(at, interrupt, handler, operation)
    }

    /// Preemption off, interrupts on.
    #[must_use]
    pub fn preempt_off(&self) -> Witness<'_, Preempt> {
        Witness::new(self)
    }
    /// Preemption and interrupts off; what is pending is delivered when it is dropped.
    #[must_use]
    pub fn irqs_off(&self) -> Witness<'_, IrqsOff> {
        Witness::new(self)
    }
    /// What an interrupt handler holds.
    #[must_use]
    pub fn interrupted(&self) -> Witness<'_, Interrupted> {
        Witness::new(self)
    }
    /// What a soft interrupt's handler holds: hard interrupts are on.
    #[must_use]
    pub fn soft_interrupted(&self) -> Witness<'_, SoftInterrupted> {
        Witness::new(self)
    }
    /// What the handler of a non-maskable interrupt holds.
    #[must_use]
    pub fn nmi(&self) -> Witness<'_, Nmi> {
        Witness::new(self)
    }
}

impl SimFpu {
    /// Itself, as what contexts are made with.
    ///
    /// # Panics
    ///
    /// If it has a [`Flaw`](super::Flaw): no context may have such a backend.
    #[must_use]
    pub fn the_backend(&self) -> &TheBackend<Self> {
        assert!(self.flaw().is_none(), "a context would have a flawed backend");
        // SAFETY: K1: the layout is the same constants for every value, as this one has no flaw.
        unsafe { TheBackend::from_ref(self) }
    }
    /// The units of a section of which the backend was told one end only: its beginning while it is open.
    #[must_use]
    pub fn section(&self) -> Option<KernelUnits> {
        self.section.get()
    }
}

/// What a witness stands for.
pub trait Kind {
    /// Where the code runs.
    const LEVEL: Level;
    /// Are interrupts off?
    const MASKS: bool;
}
/// Preemption off.
pub enum Preempt {}
/// Interrupts off.
pub enum IrqsOff {}
/// In an interrupt handler, interrupts off.
pub enum Interrupted {}
/// In a soft interrupt, hard interrupts on.
pub enum SoftInterrupted {}
/// In the handler of a non-maskable interrupt.
pub enum Nmi {}
impl Kind for Preempt {
    const LEVEL: Level = Level::Task;
    const MASKS: bool = false;
}
impl Kind for IrqsOff {
    const LEVEL: Level = Level::Task;
    const MASKS: bool = true;
}
impl Kind for Interrupted {
    const LEVEL: Level = Level::HardIrq;
    const MASKS: bool = true;
}
impl Kind for SoftInterrupted {
    const LEVEL: Level = Level::SoftIrq;
    const MASKS: bool = false;
}
impl Kind for Nmi {
    const LEVEL: Level = Level::Nmi;
    const MASKS: bool = true;
}

/// Proof of holding a simulated CPU.
///
/// ```
/// use fpu_core::{Level, Pinned};
/// let cpu = fpu_hosted_test::sim::SimCpu::offline();
/// assert_eq!(cpu.interrupted().level(), Level::HardIrq);
/// ```
pub struct Witness<'c, K: Kind> {
    cpu: &'c SimCpu,
    kind: PhantomData<(K, *mut ())>,
}

impl<'c, K: Kind> Witness<'c, K> {
    fn new(cpu: &'c SimCpu) -> Self {
        if K::MASKS {
            cpu.fpu.line.mask();
        }
        Self { cpu, kind: PhantomData }
    }
    /// The CPU.
    #[must_use]
    pub fn cpu(&self) -> &'c SimCpu {
        self.cpu
    }
}

impl<K: Kind> Drop for Witness<'_, K> {
    fn drop(&mut self) {
        if K::MASKS {
            self.cpu.fpu.line.unmask();
        }
    }
}

// SAFETY: K2: the value cannot leave its thread, nor its `SimCpu`. K3: the CPU's own. K4: nothing
// has to be enabled. K5: the driver of the simulation; a violation gives wrong values
// and nothing worse, since registers and CPU words are cells of one thread and the memory of images is
// accessed atomically. K6: the kind's constant.
unsafe impl<K: Kind> Pinned for Witness<'_, K> {
    type Backend = SimFpu;
    type Words = SimWords;
    fn backend(&self) -> &TheBackend<SimFpu> {
        self.cpu.fpu()
    }
    fn words(&self) -> &SimWords {
        &self.cpu.words
    }
    fn level(&self) -> Level {
        K::LEVEL
    }
    fn observe(&self, event: Event) {
        self.cpu.count(event);
    }
}
// SAFETY: K8: the line holds interrupts back while the value lives; only non-maskable ones come.
unsafe impl Exclusive for Witness<'_, IrqsOff> {}
// SAFETY: K8: a handler runs with interrupts off.
unsafe impl Exclusive for Witness<'_, Interrupted> {}
// SAFETY: K9: simulated registers change only when told to.
unsafe impl<K: Kind> SoftFloat for Witness<'_, K> {}

/// Proof that a task is stopped, as far as the test that makes it sees to that.
///
/// ```
/// use fpu_core::TaskFpu;
/// use fpu_hosted_test::sim::{Registers, SimArea, SimFpu, SimStopped};
/// let task = TaskFpu::new(SimFpu::new().the_backend(), SimArea::new())?;
/// let mut proof = SimStopped::of(task.context());
/// assert_eq!(task.stopped(&mut proof)?.image().registers(), Registers::initial());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SimStopped<'t>(SimFpu, FpuRef<'t, SimFpu>);

impl<'t> SimStopped<'t> {
    /// The caller has switched the task out and will not switch it in while the value lives.
    #[must_use]
    pub fn of(task: FpuRef<'t, SimFpu>) -> Self {
        Self(SimFpu::new(), task)
    }
}
// SAFETY: K10, K11: the driver of the simulation; a violation is as harmless as one of K5 (current here) (`Witness`).
// K12: a field.
unsafe impl Stopped for SimStopped<'_> {
    type Backend = SimFpu;
    fn backend(&self) -> &TheBackend<SimFpu> {
        self.0.the_backend()
    }
    fn context(&self) -> FpuRef<'_, SimFpu> {
        self.1
    }
}
