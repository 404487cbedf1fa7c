//! The moves of the register, for the CPU's and for a test's.
//!
//! A thread can be interrupted and switched out between any two steps, and go on on another CPU; a debugger can write its
//! value meanwhile. An interrupt undoes what it does here before it returns.

use super::{
    task::{TaskPkru, Word},
    value::Pkru,
};

/// PKRU of the CPU on which the caller runs.
pub(super) trait Register {
    fn read(&self) -> u32;
    fn write(&self, value: u32);
}

/// Switches from one thread to the next. `None` is a thread without user memory; the register stays as it is.
#[inline(always)]
pub(super) fn switch(on: &impl Register, prev: Option<&TaskPkru>, next: Option<&TaskPkru>) {
    let now = on.read();
    if let Some(prev) = prev {
        prev.save(now);
    }
    if let Some(next) = next {
        let due = next.saved();
        if due != now {
            on.write(due);
        }
    }
}

/// The value that the current thread has in user mode.
pub(super) fn current(on: &impl Register, thread: &TaskPkru) -> Pkru {
    let word = thread.word();
    Pkru::from_bits(if word.scopes == 0 { on.read() } else { word.user })
}

/// Gives the current thread another value. Within a scope, whose rights stay, the thread gets the value at its end.
pub(super) fn set_current(on: &impl Register, thread: &TaskPkru, value: Pkru) {
    loop {
        let word = thread.word();
        if word.scopes == 0 {
            return on.write(value.bits());
        }
        if thread.replace(word, Word { user: value.bits(), ..word }) {
            return;
        }
    }
}

/// A stretch of code that accesses user memory with given rights.
pub(super) struct Scope<'a, R: Register> {
    pub(super) on: &'a R,
    pub(super) thread: &'a TaskPkru,
    /// The register's value before.
    pub(super) outer: u32,
}

impl<'a, R: Register> Scope<'a, R> {
    pub(super) fn open(on: &'a R, thread: &'a TaskPkru, rights: Pkru) -> Self {
        let outer = loop {
            let word = thread.word();
            let now = on.read();
            let user = if word.scopes == 0 { now } else { word.user };
            if thread.replace(word, Word { user, scopes: word.scopes.wrapping_add(1), ..word }) {
                break now;
            }
        };
        if outer != rights.bits() {
            on.write(rights.bits());
        }
        Self { on, thread, outer }
    }
}

impl<R: Register> Drop for Scope<'_, R> {
    /// The register first: an interrupt before the count would take the scope's rights for the task's.
    fn drop(&mut self) {
        loop {
            let word = self.thread.word();
            self.on.write(if word.scopes == 1 { word.user } else { self.outer });
            if self.thread.replace(word, Word { scopes: word.scopes.wrapping_sub(1), ..word }) {
                return;
            }
        }
    }
}

/// Delivers a signal: `write` puts the frame on the stack, with all keys usable, and gets the value of the interrupted
/// code. If `write` succeeds, the handler starts with `handler`.
pub(super) fn deliver<T, E>(
    on: &impl Register,
    thread: &TaskPkru,
    handler: Pkru,
    write: impl FnOnce(Pkru) -> Result<T, E>,
) -> Result<T, E> {
    let interrupted = current(on, thread);
    let scope = Scope::open(on, thread, Pkru::INITIAL);
    let written = write(interrupted);
    if written.is_ok() {
        set_current(on, thread, handler);
    }
    drop(scope);
    written
}
