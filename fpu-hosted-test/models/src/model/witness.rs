//! What the models' kernel proves to the core: preemption off, interrupts off, a task stopped.

use fpu_core_loom::Level;

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

fpu_core_loom::witness! {
    // SAFETY: K2: a loom thread is its CPU. K3: the words are picked by its number. K4: nothing has to be enabled.
    // K5: slots hand tasks over with release and acquire. K6: `level` is where the handler says it runs. The seeded
    // faults break these on purpose. K9: ghost registers are changed by `user`, `computes` and the power only.
    unsafe impl Pinned + SoftFloat for Pin<'_> {
        backend: Registers = |cpu| cpu.cpu.registers.the_backend(),
        words: Words = |cpu| cpu.words,
        level: |cpu| cpu.level,
        observe: |cpu, event| cpu.cpu.counters.record(event.kind),
    }
}
fpu_core_loom::witness! {
    // SAFETY: K2-K6, K9: those of `Pin`. K8: no interrupt is delivered while it is masked.
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
