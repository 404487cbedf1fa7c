//! Which plans can skip, and when asking pays.

use std::println;

use super::pays;
use crate::{
    components::Components,
    plan::Plan,
    save_instruction::SaveInstruction,
    tests::{
        corpus,
        words::{cpu, server, tiles, Words, FXSR_SSE, OSXSAVE, XSAVE},
    },
};

const INTEL: [u32; 3] = [0x756E_6547, 0x6C65_746E, 0x4965_6E69];
const AMD: [u32; 3] = [0x6874_7541, 0x444D_4163, 0x6974_6E65];

fn skips(plan: &Plan) -> bool {
    let skipping = plan.clone().skipping_initial();
    // Nothing else changes, but for how it restores.
    assert_eq!(skipping == *plan, !skipping.skips_initial(), "{skipping:?}");
    assert_eq!(skipping.area_len(), plan.area_len());
    assert_eq!(skipping.scrubs(), plan.scrubs());
    assert_eq!(skipping.clone().never_skipping_initial(), *plan);
    skipping.skips_initial()
}

#[test]
fn no_plan_skips_by_itself() {
    for words in [server(), tiles()] {
        assert!(!words.plan().unwrap().skips_initial());
        assert!(!words.kernel(Components::USER).unwrap().skips_initial());
    }
}

#[test]
fn every_instruction_with_a_header_can_skip() {
    let plan = server().plan().unwrap();
    for instruction in [SaveInstruction::Xsave, SaveInstruction::Xsaveopt, SaveInstruction::Xsavec]
    {
        assert!(
            skips(&plan.clone().with_save_instruction(instruction).unwrap()),
            "{instruction:?}"
        );
    }
    let kernel = server().kernel(Components::USER).unwrap();
    assert_eq!(kernel.save_instruction(), SaveInstruction::Xsaves);
    assert!(skips(&kernel));
    assert!(skips(&tiles().kernel(Components::USER).unwrap()));
}

#[test]
fn a_plan_that_cannot_ask_does_not_skip() {
    let without = |words: Words| words.with(0xD, 1, [0xB, 2440, 0x100, 0]);
    assert!(!skips(&without(server()).plan().unwrap()), "no XGETBV with ECX = 1");
    let small = server().kernel(Components::LEGACY).unwrap();
    let fxsave = small.with_save_instruction(SaveInstruction::Fxsave).unwrap();
    assert!(!skips(&fxsave), "FXSAVE");
    let supervisor = server()
        .with(0xD, 1, [0xF, 2440, 0x800, 0])
        .with(0xD, 11, [16, 0, 1, 0])
        .kernel(Components::USER | Components::CET_U)
        .unwrap();
    assert!(supervisor.components().contains(Components::CET_U));
    assert!(!skips(&supervisor), "a supervisor component");
    let plan = server().plan().unwrap();
    assert!(!skips(&plan.clone().scrubbing()), "scrubbing");
    assert!(plan.clone().skipping_initial().scrubbing().scrubs(), "scrubbing afterwards");
    assert!(!plan.skipping_initial().scrubbing().skips_initial());
    let avx =
        |vendor| cpu(vendor, 0xA0_0F11).with(0xD, 0, [7, 832, 832, 0]).with(0xD, 1, [7, 832, 0, 0]);
    assert!(skips(&avx(INTEL).plan().unwrap()));
    assert!(!skips(&avx(AMD).plan().unwrap()), "a restore leaves x87 pointers");
}

/// Every recorded CPU, in ring 3 and in ring 0, with and without supervisor components, by every instruction: which plans skip
/// is what the words of CPUID say. A change of the instruction comes to the same before it and after it.
#[test]
fn recorded_cpus_skip_where_their_words_let_them() {
    /// Components that IA32_XSS enables (SDM vol. 1, 13.1).
    const BY_XSS: u64 = 0x1_FD00;
    const HYGON: [u32; 3] = [0x6F67_7948, 0x656E_6975, 0x6E65_476E];
    let (mut may, mut may_not) = (0, [0; 4]);
    for (name, words) in corpus::machines() {
        let word =
            |leaf, sub, nth: usize| words.cpuid.get(&(leaf, sub)).map_or(0, |four| four[nth]);
        let asks = word(0xD, 1, 0) >> 2 & 1 == 1;
        let vendor = [word(0, 0, 1), word(0, 0, 2), word(0, 0, 3)];
        let fixed = word(0x8000_0000, 0, 0) >= 0x8000_0008 && word(0x8000_0008, 0, 1) & 4 != 0;
        let keeps = [AMD, HYGON].contains(&vendor) && !fixed;
        let kernels = [Components::USER, Components::all()].map(|wanted| words.kernel(wanted));
        let plans = kernels.into_iter().chain([words.plan()]).flatten();
        for (plan, instruction) in
            plans.flat_map(|plan| SaveInstruction::ALL.map(|by| (plan.clone(), by)))
        {
            let Ok(plan) = plan.with_save_instruction(instruction) else { continue };
            let fxsave = instruction == SaveInstruction::Fxsave;
            let supervisor = plan.components().bits() & BY_XSS != 0;
            let reasons = [!asks, keeps, fxsave, supervisor];
            let can = reasons == [false; 4];
            assert_eq!(skips(&plan), can, "{name}, {instruction:?}: {plan:?}");
            reasons.iter().zip(&mut may_not).for_each(|(is, sum)| *sum += u32::from(*is));
            if !can {
                continue;
            }
            may += 1;
            for other in SaveInstruction::ALL {
                let before = plan.clone().with_save_instruction(other).map(Plan::skipping_initial);
                let after = plan.clone().skipping_initial().with_save_instruction(other);
                assert_eq!(before, after, "{name}, {instruction:?}, {other:?}");
            }
        }
    }
    println!("{may} plans can skip; reasons of the others: {may_not:?}");
    assert!(may >= 50 && may_not.iter().all(|sum| *sum >= 10), "{may}, {may_not:?}");
}

/// A plan that has been asked to skip goes on to do so with a lesser instruction that can.
#[test]
fn a_lesser_instruction_keeps_what_was_asked_for() {
    let plan = server().kernel(Components::USER).unwrap().skipping_initial();
    let lesser = plan.clone().with_save_instruction(SaveInstruction::Xsavec).unwrap();
    assert!(lesser.skips_initial());
    let plan = server().plan().unwrap().skipping_initial();
    let lesser = plan.with_save_instruction(SaveInstruction::Xsave).unwrap();
    assert!(lesser.skips_initial());
    let small = server().kernel(Components::LEGACY).unwrap().skipping_initial();
    let fxsave = small.with_save_instruction(SaveInstruction::Fxsave).unwrap();
    assert!(!fxsave.skips_initial(), "FXSAVE cannot");
}

#[test]
fn asking_pays_where_twice_is_less_than_a_save() {
    for (asking, save, pays_off) in [
        (34, 86, true),
        (10, 52, true),
        (54, 76, false),
        (43, 86, false),
        (42, 86, true),
        // A counter that stands still, or goes back.
        (0, 0, false),
        (0, 86, false),
        (86, 0, false),
        (u64::MAX, u64::MAX, false),
        (34, u64::MAX, true),
    ] {
        assert_eq!(pays(asking, save), pays_off, "{asking} {save}");
    }
}

/// The measurement changes no plan but in this one respect, and comes to the same as being asked for, or to nothing.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn measured_on_this_cpu() {
    let plan = Plan::detect_user(Components::all()).unwrap();
    // SAFETY: C6: the system has enabled them. N12: it lets programs read the counter.
    let measured = unsafe { plan.clone().skipping_initial_if_cheaper() };
    let asked = plan.clone().skipping_initial();
    assert!(measured == plan || measured == asked);
    for (plan, why) in not_measured() {
        // SAFETY: C6, N12: nothing is executed, which is what is tested: XSAVES would fault in ring 3.
        assert!(unsafe { plan.clone().skipping_initial_if_cheaper() } == plan, "{why}");
    }
}

/// Plans for ring 0 with XSAVES, of which nothing may be measured.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn not_measured() -> [(Plan, &'static str); 4] {
    const TSC: u32 = 1 << 4;
    let with_tsc = || server().with(1, 0, [0, 0, XSAVE | OSXSAVE, FXSR_SSE | TSC]);
    let kernel = |words: Words| words.kernel(Components::USER).unwrap();
    let supervisor = with_tsc().with(0xD, 1, [0xF, 2440, 0x800, 0]).with(0xD, 11, [16, 0, 1, 0]);
    let plans = [
        (kernel(server()), "no counter"),
        (kernel(with_tsc().with(0xD, 1, [0xB, 2440, 0x100, 0])), "no XGETBV with ECX = 1"),
        (kernel(with_tsc()).scrubbing(), "scrubbing"),
        (supervisor.kernel(Components::USER | Components::CET_U).unwrap(), "CET_U"),
    ];
    for (plan, why) in &plans {
        assert_eq!(plan.save_instruction(), SaveInstruction::Xsaves, "{why}");
        assert_eq!(plan.cpuid_info().tsc(), *why != "no counter");
    }
    plans
}
