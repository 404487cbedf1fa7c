//! Which plans CR0.TS covers.

use std::println;

use fpu_core::{
    trap::{TrapFpu, Trapped},
    Area, TaskFpu, TheBackend,
};

use crate::{
    components::Components as C,
    plan::Plan,
    save_instruction::SaveInstruction,
    tests::{
        corpus,
        sample::{facts, kernel, plan, MXCSR_MASK},
    },
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

/// Every recorded CPU by every instruction. A context that cannot be trapped comes back.
#[test]
fn recorded_cpus_trap_where_their_components_do() {
    /// x87, SSE, AVX and AVX-512, by their bits in XCR0.
    const BY_TS: u64 = 0xE7;
    let (mut trap, mut come_back) = (0, 0);
    for (name, words) in corpus::machines() {
        let kernels = [C::USER, C::all()].map(|wanted| (true, words.kernel(wanted)));
        for (ring0, plan) in kernels.into_iter().chain([(false, words.plan())]) {
            for instruction in SaveInstruction::ALL {
                let plan = plan.clone().and_then(|plan| plan.with_save_instruction(instruction));
                let Ok(plan) = plan else { continue };
                let traps = ring0 && plan.components().bits() & !BY_TS == 0;
                assert_eq!(plan.traps(), traps, "{name}, {instruction:?}: {plan:?}");
                // SAFETY: K1: the one context made with it ends with it, and no register is touched.
                let backend = unsafe { TheBackend::new(plan) };
                let task = TaskFpu::new(&backend, Area::<16384>::new()).unwrap();
                // SAFETY: K22, K23: the context is never current.
                match unsafe { Trapped::new(task, &backend) } {
                    Ok(trapped) => assert!(traps && !trapped.is_used(), "{name}"),
                    Err(refused) => {
                        assert!(!traps, "{name}, {instruction:?}");
                        let _back: Area<16384> = refused.context.into_area();
                    }
                }
                trap += u32::from(traps);
                come_back += u32::from(!traps);
            }
        }
    }
    println!("{trap} plans trap, {come_back} do not");
    assert!(trap >= 50 && come_back >= 50, "{trap}, {come_back}");
}
