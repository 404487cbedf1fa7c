//! The scrub of the x87 pointers for AMD CPUs whose restores leave them, forced here: nothing else of a
//! restore changes. What the scrub by itself does is seen in the unit tests of `fpu-x86`.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::ptr::NonNull;

use fpu_core::RawFpu;
use fpu_hosted_test::{
    conformance::{Harness, Step},
    real::{keeps_x87_pointers, RealHarness, Seen, NO_POINTERS},
};
use fpu_x86::{Plan, SaveInstruction, X87};

#[repr(C, align(64))]
struct Memory([u8; 16384]);

impl Memory {
    fn base(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.0).cast()
    }
}

fn plans() -> Vec<Plan> {
    RealHarness::rungs().0.into_iter().map(|h| h.fpu().clone()).collect()
}

/// Whatever is pending when the scrub runs, it neither faults nor is seen afterwards.
#[test]
fn a_scrubbing_restore_restores_the_same() {
    let pointers = keeps_x87_pointers();
    if !pointers {
        println!("SKIP: {NO_POINTERS}");
    }
    for plan in plans() {
        let rung = plan.save_instruction();
        let mut h = RealHarness::new(plan.scrubbing());
        assert_eq!((h.fpu().save_instruction(), h.fpu().scrubs()), (rung, true));
        let every = (1 << h.components()) - 1;
        for seed in 0..100 {
            let mut held = h.pattern(seed, every);
            let mut pending = h.pattern(seed + 1000, every);
            pending.0.set_fcw(0x340);
            pending.0.set_fsw(pending.0.fsw() | 0x80FF);
            pending.0.set_ftw(0xFF);
            if seed % 2 == 0 {
                held.0.set_fcw(0x37B);
                held.0.set_fsw(held.0.fsw() | 0x8084);
                held.0.set_x87_pointers(0x1234_5678_9ABC, 0x7654_3210_FEDC, 0x5EA);
            }
            let (restored, image) = through_memory(&mut h, &held, &pending);
            assert_eq!(restored.0.first_difference(&held.0), None, "{rung:?}, {seed}");
            if seed % 2 == 0 && pointers {
                let expect = (0x1234_5678_9ABC, 0x7654_3210_FEDC, 0x5EA);
                assert_eq!((image.fip, image.fdp, image.fop), expect, "{rung:?}, {seed}");
            }
        }
    }
    assert!(plans().iter().any(|plan| plan.save_instruction() == SaveInstruction::Fxsave));
}

/// Saves `held`, loads `pending`, restores, and saves again.
fn through_memory(h: &mut RealHarness, held: &Seen, pending: &Seen) -> (Seen, X87) {
    let mut areas = [(); 2].map(|()| Box::new(Memory([0; 16384])));
    let [first, second] = &mut areas;
    for memory in [&mut *first, &mut *second] {
        // SAFETY: C9: aligned, long enough, ours.
        unsafe { h.fpu().write_initial(memory.base()) };
    }
    let (from, to) = (first.base(), second.base());
    let steps = [
        Step::Load(held),
        Step::Save(from),
        Step::Load(pending),
        Step::Restore(from),
        Step::Save(to),
    ];
    // SAFETY: C9: the two areas.
    let outcome = unsafe { h.run(&steps) };
    assert_eq!(outcome.restored, Ok(()));
    // SAFETY: C9, C11: an image, and no other code has it.
    let x87 = unsafe { h.fpu().image(to) }.x87();
    (outcome.registers, x87)
}
