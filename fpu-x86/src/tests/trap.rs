//! Which plans CR0.TS covers.

use fpu_core::trap::TrapFpu;

use crate::{
    components::Components as C,
    plan::Plan,
    tests::sample::{facts, kernel, plan, MXCSR_MASK},
};

/// The SDM names CR0.TS at the instructions of x87, SSE, AVX and AVX-512, and at no others.
#[test]
fn only_plans_of_ring_0_whose_registers_all_trap() {
    let avx = C::LEGACY | C::AVX;
    for (set, traps) in [
        (C::LEGACY, true),
        (avx, true),
        (avx | C::AVX512, true),
        // PKRU is in no plan: it is switched apart.
        (avx | C::AVX512 | C::PKRU, true),
        (avx | C::MPX, false),
        (avx | C::AVX512 | C::AMX, false),
        (avx | C::APX, false),
    ] {
        let ours = Plan::for_kernel(facts(set, false), MXCSR_MASK, C::all()).unwrap();
        assert_eq!(ours.traps(), traps, "{set:?}");
        assert!(!plan(set).traps(), "a plan for ring 3: {set:?}");
    }
    assert!(kernel().components().contains(C::CET_U) && !kernel().traps());
}
