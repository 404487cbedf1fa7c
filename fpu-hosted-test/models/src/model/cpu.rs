//! One CPU of a model, and what its kernel proves about it to the core.

use fpu_core_loom::{observe::Counters, Level};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use super::{
    backend::Registers,
    fault::{forgets, Embedder},
    irq::{self, Pending},
    machine::{Machine, Task, Words},
};

/// One CPU: the loom thread that plays it uses it alone.
#[derive(Debug)]
pub struct Cpu {
    /// Its number.
    pub number: u32,
    /// Its registers.
    pub registers: Registers,
    /// What the core told of.
    pub counters: Counters,
    machine: Arc<Machine>,
    current: RefCell<Option<Arc<Task>>>,
    masked: Cell<bool>,
    in_interrupt: Cell<bool>,
    pub(super) in_section: Cell<bool>,
    pub(super) going_offline: Cell<bool>,
    pub(super) users_only_look: Cell<bool>,
}

impl Cpu {
    /// One that is not online yet.
    pub(super) fn offline(machine: &Arc<Machine>, number: u32) -> Self {
        Self {
            number,
            registers: Registers::new(),
            counters: Counters::new(),
            machine: Arc::clone(machine),
            current: RefCell::new(None),
            masked: Cell::new(false),
            in_interrupt: Cell::new(false),
            in_section: Cell::new(false),
            going_offline: Cell::new(true),
            users_only_look: Cell::new(false),
        }
    }
    /// Its words.
    pub fn words(&self) -> &Words {
        &self.machine.words[self.number as usize]
    }
    /// What it shares with the others.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
    /// The task that it runs.
    pub fn current(&self) -> Option<Arc<Task>> {
        self.current.borrow().clone()
    }
    /// Makes a task the one that it runs.
    pub fn set_current(&self, task: Option<&Arc<Task>>) {
        let task = task.map(Arc::clone);
        *self.current.borrow_mut() = task;
    }

    /// Preemption off.
    pub fn pinned(&self) -> Pin<'_> {
        self.pinned_at(Level::Task)
    }
    /// Preemption off, in an interrupt of that level.
    pub fn pinned_at(&self, level: Level) -> Pin<'_> {
        Pin { cpu: self, words: self.words(), level }
    }
    /// Interrupts off.
    pub fn irq_off(&self) -> IrqOff<'_> {
        let was = self.masked.replace(!forgets(Embedder::InterruptsOnInSwitch));
        let stale = forgets(Embedder::StaleToken) && self.number == 1;
        let words = if stale { &self.machine.words[0] } else { self.words() };
        IrqOff { pin: Pin { cpu: self, words, level: Level::Task }, was }
    }

    /// From now on the loom thread that calls, which plays this CPU, takes an interrupt with this handler.
    pub fn arm(self: &Rc<Self>, handler: fn(&Self)) {
        irq::arm(Rc::new(Irq { cpu: Rc::clone(self), handler, maskable: true }));
    }
    /// The same with an interrupt that cannot be masked.
    pub fn arm_nmi(self: &Rc<Self>, handler: fn(&Self)) {
        irq::arm(Rc::new(Irq { cpu: Rc::clone(self), handler, maskable: false }));
    }
}

struct Irq {
    cpu: Rc<Cpu>,
    handler: fn(&Cpu),
    maskable: bool,
}

impl Pending for Irq {
    fn can_come(&self) -> bool {
        let masked = self.maskable && self.cpu.masked.get();
        !masked && !self.cpu.in_interrupt.get()
    }
    fn comes(&self) {
        self.cpu.in_interrupt.set(true);
        (self.handler)(&self.cpu);
        self.cpu.in_interrupt.set(false);
    }
}

/// Preemption is off.
#[derive(Debug)]
pub struct Pin<'c> {
    cpu: &'c Cpu,
    words: &'c Words,
    level: Level,
}

/// Interrupts are off.
#[derive(Debug)]
pub struct IrqOff<'c> {
    pin: Pin<'c>,
    was: bool,
}

impl Drop for IrqOff<'_> {
    fn drop(&mut self) {
        self.pin.cpu.masked.set(self.was);
    }
}

fpu_core_loom::witness! {
    // SAFETY: K2: a loom thread is its CPU. K3: the CPU's number picks the words. K4: nothing has to be enabled.
    // K5: slots hand tasks over with release and acquire. K6: `level` is where the handler says it runs. The seeded
    // faults break these on purpose. K9: only user code, kernel code in a section, and the power change ghost registers.
    unsafe impl Pinned + SoftFloat for Pin<'_> {
        backend: Registers = |cpu| cpu.cpu.registers.the_backend(),
        words: Words = |cpu| cpu.words,
        level: |cpu| cpu.level,
        observe: |cpu, event| cpu.cpu.counters.record(event.kind),
    }
}
fpu_core_loom::witness! {
    // SAFETY: K2-K6, K9: those of `Pin`. K8: no interrupt comes while the CPU is masked.
    unsafe impl Pinned + Exclusive + SoftFloat for IrqOff<'_> {
        backend: Registers = |cpu| cpu.pin.backend(),
        words: Words = |cpu| cpu.pin.words,
        observe: |cpu, event| cpu.pin.observe(event),
    }
}

/// The proof that a task is stopped: its maker has taken the task out of its slot.
#[derive(Debug)]
pub struct Proof<'c>(pub &'c Cpu, pub &'c Task);

fpu_core_loom::witness! {
    // SAFETY: K10, K11: a task taken is its taker's until it is put back, by release and acquire. K12: a field.
    unsafe impl Stopped for Proof<'_> {
        backend: Registers = |proof| proof.0.registers.the_backend(),
        context: |proof| proof.1.fpu.context(),
    }
}
