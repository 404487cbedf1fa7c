//! Steps, the interrupt that comes at one of them, and what was found to be wrong.

use std::cell::{Cell, RefCell};

use super::{
    machine::Machine,
    ops::{Move, Op},
};

/// What comes at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irq {
    /// A section.
    Section,
    /// A section and then the guest, so that stamps are issued to others.
    SectionThenGuest,
    /// A session of the guest that is loaded three times and never ended.
    Forgets,
    /// Brings an offline CPU online; then a section and the guest.
    Online,
    /// Takes the CPU offline, where no task is current.
    Offline,
    /// Non-maskable, at every step: everything it tries is refused.
    Nmi,
    /// No interrupt: another CPU's operation, from its beginning to its end.
    Other {
        /// The other CPU.
        cpu: u8,
        /// What it does.
        op: Op,
        /// With that context.
        context: u8,
    },
    /// No interrupt: at every step, another CPU's attempt to take what is in use.
    Attempt,
}

impl Irq {
    /// Can it be that the CPU is offline, or online, that was not?
    pub(super) fn is_lifecycle(self) -> bool {
        matches!(self, Irq::Online | Irq::Offline)
    }
    /// Does it come from another CPU, so that interrupts off do not keep it away?
    pub(super) fn is_from_another(self) -> bool {
        matches!(self, Irq::Other { .. } | Irq::Attempt)
    }
}

/// One machine's steps. Every access to a CPU's words and every part of a backend's step is one.
#[derive(Default)]
pub(super) struct Line {
    machine: Cell<Option<&'static Machine>>,
    cpu: Cell<usize>,
    due: Cell<Option<(u16, Irq)>>,
    now: Cell<u16>,
    all: Cell<u16>,
    /// Steps before which memory has changed, noted where it is asked for, and what memory held.
    changes: RefCell<Option<Vec<u16>>>,
    memory: Cell<u64>,
    masked: Cell<bool>,
    inside: Cell<bool>,
    delivered: Cell<bool>,
    wrong: RefCell<Option<String>>,
}

impl Line {
    pub(super) fn belongs_to(&self, machine: &'static Machine) {
        self.machine.set(Some(machine));
    }
    /// Before an operation on that CPU.
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
    /// Does no interrupt come in this operation?
    pub(super) fn calm(&self) -> bool {
        self.due.get().is_none()
    }
    /// Does no other CPU do anything in this operation?
    pub(super) fn alone(&self) -> bool {
        !self.due.get().is_some_and(|(_, irq)| irq.is_from_another())
    }
    /// Nothing more is interrupted.
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
    /// From now on the steps at which another CPU would find other memory than at the step before are noted.
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
    /// Is it an interrupt that runs now?
    pub(super) fn in_interrupt(&self) -> bool {
        self.inside.get() && self.alone()
    }
    /// The machine.
    pub(super) fn machine(&self) -> Option<&'static Machine> {
        self.machine.get()
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
    /// Notes a violation; the first one counts.
    pub(super) fn report(&self, what: impl FnOnce() -> String) {
        let mut wrong = self.wrong.borrow_mut();
        if wrong.is_none() {
            *wrong = Some(what());
        }
    }
    pub(super) fn take_wrong(&self) -> Option<String> {
        self.wrong.borrow_mut().take()
    }
    #[inline]
    pub(super) fn step(&self) {
        if self.inside.get() {
            return;
        }
        self.all.set(self.all.get() + 1);
        if let (Some(changes), Some(machine)) =
            (&mut *self.changes.borrow_mut(), self.machine.get())
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
        if let Some(machine) = self.machine.get() {
            self.inside.set(true);
            self.delivered.set(true);
            match irq {
                Irq::Other { cpu, op, context } => {
                    machine.meanwhile(Move { cpu, op, context, irq: None });
                }
                Irq::Attempt => machine.attempted(self.cpu.get()),
                _ => machine.interrupted(self.cpu.get(), irq),
            }
            self.inside.set(false);
        }
    }
}
