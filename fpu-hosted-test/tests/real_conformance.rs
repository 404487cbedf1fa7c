//! The conformance suite on the real registers, for every save instruction that this CPU offers.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use fpu_hosted_test::{
    conformance::{self, Harness, Verdict},
    real::{refuses_reserved_mxcsr, RealHarness},
};
use fpu_x86::SaveInstruction;

#[path = "support/allocator.rs"]
mod allocator;
use allocator::allocations;

#[test]
fn every_rung_of_this_cpu_conforms() {
    let (rungs, skipped) = RealHarness::rungs();
    for why in skipped {
        println!("SKIP: {why}");
    }
    for harness in rungs {
        let mut harness = harness.counting(allocations);
        let plan = harness.fpu();
        println!(
            "{:?}, {:?}, {} bytes",
            plan.save_instruction(),
            plan.components(),
            plan.area_len()
        );
        let report = conformance::check(&mut harness);
        println!("{report}");
        assert!(report.passed(), "{report}");
        let mut skips = 0;
        for check in &report.checks {
            if let Verdict::Skipped(why) = check.verdict {
                println!("SKIP: {:?}, {}: {why}", harness.fpu().save_instruction(), check.name);
                skips += 1;
            }
        }
        // A plan of user mode traps no first use. The others only with FXSAVE, whose images have no header; and where
        // FXRSTOR refuses nothing.
        let traps = report.checks.iter().filter(|check| check.name.starts_with("trap-")).count();
        let most = match harness.fpu().save_instruction() {
            SaveInstruction::Fxsave if !refuses_reserved_mxcsr() => 3,
            SaveInstruction::Fxsave => 1,
            _ => 0,
        } + traps;
        assert_eq!(report.counts(), (report.checks.len() - most, 0, most), "{report}");
        assert_eq!(skips, most);
    }
}
