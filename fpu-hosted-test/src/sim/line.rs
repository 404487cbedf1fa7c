//! Steps, and the interrupt that strikes at one of them.

use std::cell::{Cell, RefCell};

/// What strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Waits until interrupts are on.
    Maskable,
    /// Waits for nothing.
    NonMaskable,
}

/// What came of one injected interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Steps that the operation took.
    pub steps: u64,
    /// The handler ran.
    pub delivered: bool,
    /// The interrupt had to wait until interrupts were on.
    pub held_back: bool,
}

type Handler = *const dyn Fn();

/// One CPU's interrupt line. Every access to the CPU's words, every event, and every part of a
/// backend's step is a step here.
#[derive(Default)]
pub(super) struct Line {
    steps: Cell<u64>,
    due: Cell<Option<(u64, Interrupt)>>,
    masked: Cell<u32>,
    pending: Cell<bool>,
    inside: Cell<bool>,
    delivered: Cell<bool>,
    held_back: Cell<bool>,
    handler: RefCell<Option<Handler>>,
}

impl Line {
    /// An instruction boundary. Steps of the handler itself do not count.
    pub(super) fn step(&self) {
        if self.inside.get() {
            return;
        }
        let now = self.steps.get() + 1;
        self.steps.set(now);
        match self.due.get() {
            Some((at, Interrupt::NonMaskable)) if at == now => self.deliver(),
            Some((at, Interrupt::Maskable)) if at == now => {
                if self.masked.get() == 0 {
                    self.deliver();
                } else {
                    self.held_back.set(true);
                    self.pending.set(true);
                }
            }
            _ => {}
        }
    }

    fn deliver(&self) {
        let handler = *self.handler.borrow();
        if let Some(handler) = handler {
            self.inside.set(true);
            self.delivered.set(true);
            // SAFETY: `inject` keeps the closure borrowed, and takes the pointer away before it returns.
            unsafe { (*handler)() };
            self.inside.set(false);
        }
    }

    pub(super) fn mask(&self) {
        self.masked.set(self.masked.get() + 1);
    }

    pub(super) fn unmask(&self) {
        self.masked.set(self.masked.get() - 1);
        if self.masked.get() == 0 && self.pending.replace(false) {
            self.deliver();
        }
    }

    /// Runs `operation` with the interrupt at its step `at`.
    pub(super) fn inject<R>(
        &self,
        at: u64,
        interrupt: Interrupt,
        handler: &dyn Fn(),
        operation: impl FnOnce() -> R,
    ) -> (R, Injection) {
        struct Disarm<'l>(&'l Line);
        impl Drop for Disarm<'_> {
            fn drop(&mut self) {
                *self.0.handler.borrow_mut() = None;
                self.0.due.set(None);
                self.0.pending.set(false);
                self.0.inside.set(false);
            }
        }
        assert!(self.handler.borrow().is_none(), "one injection at a time");
        // SAFETY: only the lifetime changes; `Disarm` takes the pointer away before `handler` ends,
        // on panic too, and `step` is reached through this value only, on this thread.
        let handler = unsafe { core::mem::transmute::<*const (dyn Fn() + '_), Handler>(handler) };
        *self.handler.borrow_mut() = Some(handler);
        self.steps.set(0);
        self.delivered.set(false);
        self.held_back.set(false);
        self.due.set(Some((at, interrupt)));
        let disarm = Disarm(self);
        let result = operation();
        drop(disarm);
        let (steps, delivered) = (self.steps.get(), self.delivered.get());
        (result, Injection { steps, delivered, held_back: self.held_back.get() })
    }
}
