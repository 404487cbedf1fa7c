//! Steps, the interrupt that comes at one of them, and the first thing that is wrong.

use std::cell::{Cell, RefCell};

use fpu_core::observe::Event;

use super::ops::Irq;

/// The machine whose steps a line counts, as the line knows it.
///
/// Every part of the machine holds the line, so the machine is built above it. At a step, however, the line must call the
/// machine: the step is where the interrupt comes. Hence the line calls through this trait.
pub(super) trait Around {
    /// What comes at a step strikes an operation that this CPU is carrying out.
    fn struck(&self, cpu: usize, by: Irq);
    /// What other CPUs could find in memory, as one number; `None` while the machine cannot say.
    fn seen_by_others(&self) -> Option<u64>;
    /// The core tells of an event on this CPU.
    fn observed(&self, cpu: usize, event: Event);
}

/// One machine's steps. Every access to a CPU's words and every part of a backend's step is one.
#[derive(Default)]
pub(super) struct Line {
    around: Cell<Option<&'static dyn Around>>,
    cpu: Cell<usize>,
    due: Cell<Option<(u16, Irq)>>,
    now: Cell<u16>,
    all: Cell<u16>,
    /// Steps before which memory has changed, if a search asked for them.
    changes: RefCell<Option<Vec<u16>>>,
    /// What memory held at the step before.
    memory: Cell<u64>,
    masked: Cell<bool>,
    inside: Cell<bool>,
    delivered: Cell<bool>,
    wrong: RefCell<Option<String>>,
}

impl Line {
    pub(super) fn belongs_to(&self, machine: &'static dyn Around) {
        self.around.set(Some(machine));
    }
    /// Begins an operation on that CPU.
    pub(super) fn arm(&self, cpu: usize, due: Option<(u16, Irq)>) {
        self.cpu.set(cpu);
        self.due.set(due);
        self.now.set(0);
        self.all.set(0);
        self.masked.set(false);
        self.inside.set(false);
        self.delivered.set(false);
        *self.wrong.borrow_mut() = None;
    }
    /// Tells whether no interrupt comes in this operation.
    pub(super) fn calm(&self) -> bool {
        self.due.get().is_none()
    }
    /// Tells whether no other CPU does anything in this operation.
    pub(super) fn alone(&self) -> bool {
        !self.due.get().is_some_and(|(_, irq)| irq.is_from_another())
    }
    /// From now on nothing comes.
    pub(super) fn disarm(&self) {
        self.due.set(None);
    }
    pub(super) fn cpu(&self) -> usize {
        self.cpu.get()
    }
    /// Steps so far at which an interrupt could have come.
    pub(super) fn steps(&self) -> u16 {
        self.now.get()
    }
    /// From now on the line notes the steps at which another CPU would find other memory than at the step before.
    pub(super) fn note_changes(&self) {
        *self.changes.borrow_mut() = Some(Vec::new());
        self.memory.set(0);
    }
    /// Those steps, the first and the last with them.
    pub(super) fn take_changes(&self) -> Vec<u16> {
        let mut steps = self.changes.borrow_mut().take().unwrap_or_default();
        steps.extend([1, self.all.get()]);
        steps.retain(|step| *step > 0 && *step <= self.all.get());
        steps.sort_unstable();
        steps.dedup();
        steps
    }
    /// Tells whether an interrupt runs now.
    pub(super) fn in_interrupt(&self) -> bool {
        self.inside.get() && self.alone()
    }
    pub(super) fn delivered(&self) -> bool {
        self.delivered.get()
    }
    pub(super) fn mask(&self) -> bool {
        self.masked.replace(true)
    }
    pub(super) fn unmask(&self, was: bool) {
        self.masked.set(was);
    }
    /// Notes a violation. Only the first one counts.
    pub(super) fn report(&self, what: impl FnOnce() -> String) {
        let mut wrong = self.wrong.borrow_mut();
        if wrong.is_none() {
            *wrong = Some(what());
        }
    }
    pub(super) fn take_wrong(&self) -> Option<String> {
        self.wrong.borrow_mut().take()
    }
    /// Passes on what the core tells, which is a step too.
    pub(super) fn tell(&self, cpu: usize, event: Event) {
        self.step();
        if let Some(machine) = self.around.get() {
            machine.observed(cpu, event);
        }
    }
    #[inline]
    pub(super) fn step(&self) {
        if self.inside.get() {
            return;
        }
        self.all.set(self.all.get() + 1);
        if let (Some(changes), Some(machine)) = (&mut *self.changes.borrow_mut(), self.around.get())
        {
            let now = machine.seen_by_others();
            if now.is_none() || now != Some(self.memory.replace(now.unwrap_or(0))) {
                changes.push(self.all.get());
            }
        }
        let Some((at, irq)) = self.due.get() else {
            self.now.set(self.now.get() + u16::from(!self.masked.get()));
            return;
        };
        if irq.is_from_another() {
            if irq == Irq::Attempt || self.all.get() == at {
                self.deliver(irq);
            }
            return;
        }
        if irq == Irq::Nmi {
            return self.deliver(irq);
        }
        if self.masked.get() {
            return;
        }
        let now = self.now.get() + 1;
        self.now.set(now);
        if now == at {
            self.deliver(irq);
        }
    }
    #[cold]
    fn deliver(&self, irq: Irq) {
        if let Some(machine) = self.around.get() {
            self.inside.set(true);
            self.delivered.set(true);
            machine.struck(self.cpu.get(), irq);
            self.inside.set(false);
        }
    }
}
