//! What the models' kernel proves to the core: preemption off, interrupts off, a task stopped.

use fpu_core_loom::{
    observe::Event, Exclusive, FpuRef, Level, Pinned, SoftFloat, Stopped, TheBackend,
};

use super::{
    backend::Registers,
    kernel::{Cpu, Task, Words},
};

/// Preemption is off.
#[derive(Debug)]
pub struct Pin<'c> {
    pub(super) cpu: &'c Cpu,
    pub(super) words: &'c Words,
    pub(super) level: Level,
}

/// Interrupts are off.
#[derive(Debug)]
pub struct IrqOff<'c> {
    pub(super) pin: Pin<'c>,
    pub(super) was: bool,
}

impl Drop for IrqOff<'_> {
    fn drop(&mut self) {
        self.pin.cpu.set_masked(self.was);
    }
}

// SAFETY: P1: a loom thread is its CPU. P2: the words are picked by its number. P3: nothing has to be
// enabled.
// P4: slots hand tasks over with release and acquire. P5: `level` is where the handler says it runs. The
// seeded faults break these on purpose.
unsafe impl Pinned for Pin<'_> {
    type Backend = Registers;
    type Words = Words;
    fn backend(&self) -> &TheBackend<Registers> {
        self.cpu.registers.the_backend()
    }
    fn words(&self) -> &Words {
        self.words
    }
    fn level(&self) -> Level {
        self.level
    }
    fn observe(&self, event: Event) {
        self.cpu.counters.record(event.kind);
    }
}
// SAFETY: P1-P5: those of `Pin`.
unsafe impl Pinned for IrqOff<'_> {
    type Backend = Registers;
    type Words = Words;
    fn backend(&self) -> &TheBackend<Registers> {
        self.pin.backend()
    }
    fn words(&self) -> &Words {
        self.pin.words
    }
    fn observe(&self, event: Event) {
        self.pin.observe(event);
    }
}
// SAFETY: E1: no interrupt is delivered while it is masked.
unsafe impl Exclusive for IrqOff<'_> {}
// SAFETY: F1: ghost registers are changed by `user`, `computes` and the power only.
unsafe impl SoftFloat for Pin<'_> {}
// SAFETY: F1: as above.
unsafe impl SoftFloat for IrqOff<'_> {}

/// The proof that a task is stopped: whoever makes it has taken the task out of its slot.
#[derive(Debug)]
pub struct Proof<'c>(pub &'c Cpu, pub &'c Task);

// SAFETY: T1, T2: a task taken is nobody else's until it is put back, by release and acquire. T3: a field.
unsafe impl Stopped for Proof<'_> {
    type Backend = Registers;
    fn backend(&self) -> &TheBackend<Registers> {
        self.0.registers.the_backend()
    }
    fn context(&self) -> FpuRef<'_, Registers> {
        self.1.fpu.context()
    }
}
