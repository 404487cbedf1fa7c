//! Steps, the interrupt that comes at one of them, and what was found to be wrong.

use std::cell::{Cell, RefCell};

use super::machine::Machine;

/// What an interrupt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irq {
    /// A section.
    Section,
    /// A section and then the guest, so that stamps are issued to others.
    SectionThenGuest,
    /// A session of the guest that is loaded three times and never ended.
    Forgets,
    /// Non-maskable, at every step: everything it tries is refused.
    Nmi,
}

/// One machine's steps. Every access to a CPU's words and every part of a backend's step is one.
#[derive(Default)]
pub(super) struct Line {
    machine: Cell<Option<&'static Machine>>,
    cpu: Cell<usize>,
    due: Cell<Option<(u16, Irq)>>,
    now: Cell<u16>,
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
        self.masked.set(false);
        self.inside.set(false);
        self.delivered.set(false);
        *self.wrong.borrow_mut() = None;
    }
    /// Does no interrupt come in this operation?
    pub(super) fn calm(&self) -> bool {
        self.due.get().is_none()
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
        let Some((at, irq)) = self.due.get() else {
            self.now.set(self.now.get() + u16::from(!self.masked.get()));
            return;
        };
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
            machine.interrupted(self.cpu.get(), irq);
            self.inside.set(false);
        }
    }
}
