//! This thread as a kernel that says it is soft-float and is not, for the calls that need the promise.

use fpu_core::{observe::Counters, CpuFpu, TheBackend};
use fpu_x86::Plan;

/// A CPU of this program's.
pub struct Liar<'k> {
    pub words: &'k CpuFpu,
    pub plan: &'k Plan,
    pub counters: Counters,
}
fpu_core::witness! {
    // SAFETY: K2: one thread, and the registers are its own. K3, K4: its words and plan. K5: one CPU. K6: none. K8:
    // no interrupt of this program uses the crate. K9 (soft-float) is not kept: compiled code uses vector registers.
    // Each test says what it believes of which.
    unsafe impl Pinned + Exclusive + SoftFloat for Liar<'_> {
        backend: Plan = |cpu| {
            // SAFETY: K1: each test has one plan.
            unsafe { TheBackend::from_ref(cpu.plan) }
        },
        words: CpuFpu = |cpu| cpu.words,
        observe: |cpu, event| cpu.counters.record(event.kind),
    }
}
