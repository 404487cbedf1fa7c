//! This thread as a kernel that says it is soft-float and is not, for the calls that need the promise.

use fpu_core::{
    observe::{Counters, Event},
    CpuFpu, Exclusive, Pinned, SoftFloat, TheBackend,
};
use fpu_x86::Plan;

/// A CPU of this program's.
pub struct Liar<'k> {
    pub words: &'k CpuFpu,
    pub plan: &'k Plan,
    pub counters: Counters,
}
// SAFETY: P1: one thread, and the registers are its own. P2, P3: its words and plan. P4: one CPU. P5: none.
unsafe impl Pinned for Liar<'_> {
    type Backend = Plan;
    type Words = CpuFpu;
    fn backend(&self) -> &TheBackend<Plan> {
        // SAFETY: K1: each test has one plan.
        unsafe { TheBackend::from_ref(self.plan) }
    }
    fn words(&self) -> &CpuFpu {
        self.words
    }
    fn observe(&self, event: Event) {
        self.counters.record(event.kind);
    }
}
// SAFETY: E1: no interrupt of this program uses the crate.
unsafe impl Exclusive for Liar<'_> {}
// SAFETY: F1 is not kept: compiled code uses vector registers. Each test says what it believes of which.
unsafe impl SoftFloat for Liar<'_> {}
