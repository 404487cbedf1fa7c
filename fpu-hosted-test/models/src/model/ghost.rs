//! What registers and images hold in the models, and what to call it when they hold the wrong thing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The registers: two parts, so that a half-done save or restore shows. `high` plays the component
/// that can be in its initial state, and is then absent from an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regs {
    /// The part that every image has.
    pub low: u64,
    /// The part that is 0 in the initial state.
    pub high: u64,
}

/// The writer of a value; 0 is the initial state, which has no writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    User = 1,
    Tracer = 2,
    Kernel = 3,
    Undefined = 4,
}

/// The architectural initial state.
pub const INITIAL: u64 = 0;
/// The state with sane control words that a kernel section begins with.
pub const KERNEL_DEFAULTS: u64 = value(Author::Kernel, 0, 0);
/// What kernel code computes with.
pub const KERNEL_DATA: u64 = value(Author::Kernel, 0, 2);
/// What a failed restore or a power cycle leaves.
pub const UNDEFINED: u64 = value(Author::Undefined, 0, 0);

const fn value(author: Author, holder: u64, serial: u64) -> u64 {
    (author as u64) << 48 | holder << 32 | serial
}
fn author(value: u64) -> u64 {
    value >> 48
}
fn holder(value: u64) -> u64 {
    value >> 32 & 0xffff
}

impl Regs {
    /// The registers that belong to a value: every second one leaves the high part initial.
    #[must_use]
    pub const fn of(value: u64) -> Self {
        Self { low: value, high: if value & 1 == 1 { 0 } else { value } }
    }
}

/// What a task's registers must hold when it runs next. Only the model knows it: relaxed atomics of
/// `std`, which loom neither orders nor explores.
#[derive(Debug)]
pub struct Ghost {
    id: u64,
    expected: AtomicU64,
    serial: AtomicU64,
}

impl Ghost {
    /// A fresh task must hold the initial state.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { id, expected: AtomicU64::new(INITIAL), serial: AtomicU64::new(0) }
    }
    /// The value that the task must hold.
    pub fn expected(&self) -> u64 {
        self.expected.load(Relaxed)
    }
    /// From now on the task must hold another value.
    pub fn expect(&self, value: u64) {
        self.expected.store(value, Relaxed);
    }
    /// How many values the task has had since it was fresh.
    pub fn serial(&self) -> u64 {
        self.serial.load(Relaxed)
    }
    /// Whether a debugger wrote the last value.
    pub fn written_by_tracer(&self) -> bool {
        author(self.expected()) == Author::Tracer as u64
    }
    fn next(&self, author: Author) -> u64 {
        let next = value(author, self.id, self.serial.fetch_add(1, Relaxed) + 1);
        self.expect(next);
        next
    }
    /// User code computes something new.
    pub fn user_writes(&self) -> u64 {
        self.next(Author::User)
    }
    /// A debugger, a signal return or a core restore writes the image.
    pub fn tracer_writes(&self) -> u64 {
        self.next(Author::Tracer)
    }

    /// If `found` is not what the task must hold, panics with the name of what was violated.
    pub fn judge(&self, found: Regs, place: &str) {
        let expected = self.expected();
        if found == Regs::of(expected) {
            return;
        }
        let is = |who: Author| [found.low, found.high].iter().any(|v| author(*v) == who as u64);
        let mine = |v: u64| v == INITIAL || holder(v) == holder(expected) || holder(v) == self.id;
        let what = if is(Author::Undefined) {
            "undefined registers"
        } else if is(Author::Kernel) {
            "kernel residue"
        } else if !mine(found.low) || !mine(found.high) {
            "another task's residue"
        } else if found != Regs::of(found.low) {
            "torn state"
        } else if author(expected) == Author::Tracer as u64 {
            "lost write"
        } else if expected == INITIAL {
            "residue where the initial state belongs"
        } else {
            "stale registers"
        };
        panic!("{what}: task {} in {place}: {found:x?}, expected {expected:x}", self.id);
    }
}
