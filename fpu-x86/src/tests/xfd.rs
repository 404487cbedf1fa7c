//! Areas and the copy of IA32_XFD where no CPU has it: by recorded words, and in ring 3.

use crate::{
    components::Components,
    dynamic::{
        tests::{sapphire, Cpu},
        DynamicPlan, Room,
    },
    plan::Plan,
    ring0::EnableError,
    save_instruction::SaveInstruction,
    tests::corpus,
};

/// What docs/results.md says of a recorded Sapphire Rapids: bytes of an area without tiles, and with.
#[test]
fn a_task_without_tiles_takes_less_on_sapphire_rapids() {
    use SaveInstruction::{Xsavec, Xsaveopt, Xsaves};
    let recorded = |(name, plan): &(_, Plan)| {
        let name: &std::string::String = name;
        name.contains("w9-3475X") && plan.is_for_kernel()
    };
    let (_, plan) = corpus::plans().into_iter().find(recorded).unwrap();
    for (wanted, instruction, bytes) in [
        (Components::USER, Xsaveopt, [2816, 11008]),
        (Components::USER, Xsavec, [2496, 10688]),
        (Components::USER | Components::CET_U, Xsaves, [2560, 10752]),
    ] {
        let plan = Plan::for_kernel(plan.cpuid_info().clone(), 0, wanted).unwrap();
        let plan = plan.with_save_instruction(instruction).unwrap();
        let plan = DynamicPlan::new(plan, Cpu::new()).unwrap();
        let areas = [Room::Base, Room::Full].map(|room| plan.area_len_of(room));
        assert_eq!(areas, bytes, "{instruction:?}");
    }
}

/// Ring 3 is refused before the copy of IA32_XFD is trusted.
#[test]
fn a_refused_cpu_has_no_copy_to_trust() {
    let (full, plan) = sapphire();
    let facts = full.cpuid_info().clone();
    plan.copy.copy.set(0);
    // SAFETY: C1 (undisturbed in ring 0) does not hold, which is refused by name; nothing after that runs.
    assert_eq!(unsafe { plan.enable_given(&facts) }, Err(EnableError::WrongRing(3)));
    assert_eq!((plan.copy.copy.get(), plan.copy.writes.get()), (u64::MAX, 0));
    plan.copy.copy.set(0);
    // SAFETY: C1 (undisturbed in ring 0) does not hold, which is refused by name.
    assert_eq!(unsafe { plan.enable_on_this_cpu() }, Err(EnableError::WrongRing(3)));
    assert_eq!((plan.copy.copy.get(), plan.copy.writes.get()), (u64::MAX, 0));
}
