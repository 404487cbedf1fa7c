//! Words that contradict themselves. Every component of made-up CPUs is spoilt in every way that there is: in
//! ring 0 it is left out with its group and the word is named, in ring 3, where the system has enabled it, it
//! is the error.

use std::{string::ToString, vec::Vec};

use crate::{
    components::Components as C,
    error::{CpuidRegister as R, Expected, LeftOut, PlanError, WrongWord},
    plan::{CpuMismatch, Plan, Quirk, SizeWord},
    registers::ControlRegister,
    save_instruction::SaveInstruction,
    tests::words::{big_core, server, tiles, Words},
};

/// CPUs with everything that a plan can hold, MPX on one and APX on the other.
fn cpus() -> [Words; 2] {
    let all = tiles().with(0xD, 1, [0xF, 10752, 0x1900, 0]).with(0xD, 11, [16, 0, 1, 0]).with(
        0xD,
        12,
        [24, 0, 1, 0],
    );
    let mpx = all
        .clone()
        .with(0xD, 0, [0x6_02FF, 11008, 11008, 0])
        .with(0xD, 3, [64, 960, 0, 0])
        .with(0xD, 4, [64, 1024, 0, 0])
        .xcr0(0x6_02FF);
    let apx = all
        .with(0xD, 0, [0xE_02E7, 11008, 11008, 0])
        .with(0xD, 19, [128, 960, 0, 0])
        .xcr0(0xE_02E7);
    [mpx, apx]
}

/// The ways to spoil the words of one component, and what is then wrong about which of them.
fn spoilt(number: u32, words: [u32; 4]) -> Vec<([u32; 4], R, u32, Option<Expected>)> {
    let [size, offset, kind, rest] = words;
    let user = kind & 1 == 0;
    let mut ways = Vec::new();
    let mut sized =
        |size: u32, expected| ways.push(([size, offset, kind, rest], R::Eax, size, expected));
    let least =
        C::fixed_size(number).map_or(Expected::AtLeast(C::least_size(number)), Expected::Exactly);
    sized(0, Some(least));
    if C::fixed_size(number).is_some() || C::least_size(number) > 1 {
        sized(size - 1, Some(least));
    }
    for huge in [(1 << 20) + 1, u32::MAX] {
        let most = Expected::AtMost(1 << 20);
        sized(huge, Some(C::fixed_size(number).map_or(most, Expected::Exactly)));
    }
    let other = Expected::Bits(1, u16::from(!user));
    ways.push(([size, offset, kind ^ 1, rest], R::Ecx, u32::from(user), Some(other)));
    if user {
        let mut placed =
            |offset, expected| ways.push(([size, offset, kind, rest], R::Ebx, offset, expected));
        for low in [0, 511, 575] {
            placed(low, Some(Expected::AtLeast(576)));
        }
        for far in [(1 << 20) + 64, u32::MAX - 63, u32::MAX] {
            placed(far, Some(Expected::AtMost(1 << 20)));
        }
    }
    ways
}

#[test]
fn every_component_spoilt_in_every_way_is_left_out_and_its_word_is_named() {
    let mut tried = 0;
    for cpu in cpus() {
        let whole = cpu.kernel(C::all()).unwrap();
        assert!(whole.components().contains(C::AMX | C::CET_U | C::CET_S | C::AVX512));
        for number in whole.components().difference(C::LEGACY).numbers() {
            let component = C::of_number(number).unwrap();
            for (words, register, found, expected) in spoilt(number, cpu.cpuid[&(0xD, number)]) {
                let cpu = cpu.clone().with(0xD, number, words);
                let plan = cpu.kernel(C::all()).unwrap();
                let lost = component.with_dependents().intersection(whole.components());
                assert_eq!(plan.components(), whole.components().difference(lost), "{words:x?}");
                let named = |why: LeftOut| {
                    let LeftOut::Word(word) = why else { panic!("{why}") };
                    assert_eq!(
                        (word.subleaf, word.register, word.found),
                        (number, register, found)
                    );
                    assert_eq!(Some(word.expected), expected, "{words:x?}");
                };
                let left_out = plan.quirks().find_map(|quirk| match quirk {
                    Quirk::LeftOut { components, why } if components.contains(component) => {
                        Some(why)
                    }
                    _ => None,
                });
                named(left_out.unwrap());
                match plan.requiring(component) {
                    Err(PlanError::Required { component: named_too, why }) => {
                        assert!(named_too.contains(component));
                        named(why);
                    }
                    other => panic!("{other:?}"),
                }
                // Ring 3 cannot turn it off. Of supervisor components it knows nothing.
                match cpu.plan() {
                    Err(PlanError::Required { component: only, why }) => {
                        assert_eq!(only, component);
                        named(why);
                        let text = why.to_string();
                        assert!(text.starts_with(&std::format!("CPUID(0xD,{number}).E")), "{text}");
                    }
                    other => {
                        assert!(C::SUPERVISOR.contains(component) && other.is_ok(), "{other:?}")
                    }
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "{tried}");
}

/// One place in another's: the component with the higher number goes, whichever was moved.
#[test]
fn no_two_components_share_a_byte() {
    let mut tried = 0;
    for cpu in cpus() {
        let whole = cpu.kernel(C::all()).unwrap();
        let user = || whole.xcr0().difference(C::LEGACY).numbers();
        for moved in user() {
            for onto in user().filter(|onto| *onto != moved) {
                let [size, start, ..] = cpu.cpuid[&(0xD, onto)];
                let [own, _, kind, _] = cpu.cpuid[&(0xD, moved)];
                let starts = if kind & 2 == 0 {
                    [start, start + size - 1, start.saturating_sub(own - 1).max(576)]
                } else {
                    [start.next_multiple_of(64); 3]
                };
                for at in starts {
                    let plan = cpu.clone().with(0xD, moved, [own, at, kind, 0]).kernel(C::all());
                    let plan = plan.unwrap();
                    let kept = C::of_number(moved).unwrap() | C::of_number(onto).unwrap();
                    assert!(!plan.components().contains(kept), "{moved} at {at}, on {onto}");
                    tried += 1;
                }
                let xsave = cpu.clone().with(0xD, moved, [own, start, kind, 0]).kernel(C::all());
                assert!(xsave.is_ok_and(|plan| plan.standard_len() <= 11264));
            }
        }
    }
    assert!(tried > 150, "{tried}");
}

#[test]
fn a_group_that_is_incomplete_is_left_out_as_one() {
    let left_out = |words: &Words, components, missing| {
        let plan = words.kernel(C::all()).unwrap();
        assert!(!plan.components().intersects(components));
        let why = LeftOut::Incomplete { missing };
        assert!(
            plan.quirks().any(|quirk| quirk == Quirk::LeftOut { components, why }),
            "{missing:?}"
        );
    };
    let listing = |bits: u32| tiles().with(0xD, 0, [bits, 11008, 11008, 0]);
    left_out(&listing(0x2_02E7), C::TILECFG, C::TILEDATA);
    left_out(&listing(0x4_02E7), C::TILEDATA, C::TILECFG);
    left_out(&listing(0x6_02C7), C::ZMM_HI256 | C::HI16_ZMM, C::OPMASK);
    left_out(&listing(0x6_0227), C::OPMASK, C::ZMM_HI256 | C::HI16_ZMM);
    left_out(&listing(0x6_02E3), C::AVX512, C::AVX);
    left_out(&cpus()[0].clone().with(0xD, 0, [0x6_02EF, 11008, 11008, 0]), C::BNDREGS, C::BNDCSR);
    // Each half of CET can be enabled by itself, if that is all that is listed.
    let cet_u = cpus()[0].clone().with(0xD, 1, [0xF, 10752, 0x900, 0]);
    assert_eq!(cet_u.kernel(C::all()).unwrap().xss(), C::CET_U);
    // What is not asked for is not missed.
    let plan = listing(0x2_02E7).kernel(C::USER.difference(C::AMX)).unwrap();
    assert_eq!(plan.quirks().filter(|quirk| matches!(quirk, Quirk::LeftOut { .. })).count(), 0);
}

#[test]
fn mpx_is_enabled_only_by_name() {
    let [mpx, _] = cpus();
    assert!(!mpx.kernel(C::USER).unwrap().components().intersects(C::MPX));
    assert!(mpx.kernel(C::USER | C::MPX).unwrap().components().contains(C::MPX));
    let wanted = C::USER;
    assert_eq!(mpx.user(wanted, C::empty()), Err(PlanError::Uncovered { missing: C::MPX }));
}

fn sizes(plan: &Plan) -> Vec<(SizeWord, u32, u32)> {
    plan.quirks()
        .filter_map(|quirk| match quirk {
            Quirk::Size { word, computed, reported } => Some((word, computed, reported)),
            _ => None,
        })
        .collect()
}

#[test]
fn sizes_in_ring_3_are_hints() {
    // CPUID(0xD,0).EBX, for what is enabled with PKRU: 2696 bytes, of which the plan has 2688.
    for reported in [0, 832, 2695, 2696, 2697, 11008, 1 << 20, (1 << 20) + 1, u32::MAX] {
        let plan = server().with(0xD, 0, [0x2E7, reported, 2696, 0]).plan().unwrap();
        assert_eq!(
            (plan.save_instruction(), plan.area_len()),
            (SaveInstruction::Xsavec, 2432),
            "another format"
        );
        let plan = plan.with_save_instruction(SaveInstruction::Xsave).unwrap();
        let larger = if (2697..=1 << 20).contains(&reported) { reported } else { 2688 };
        assert_eq!(plan.area_len(), larger as usize);
        let expect = [(SizeWord::Standard, 2696, reported)];
        assert_eq!(sizes(&plan), expect[usize::from(reported == 2696)..]);
    }
    // CPUID(0xD,1).EBX: 2440 bytes with PKRU; 128 of supervisor state may be enabled or not.
    for reported in [0, 2439, 2440, 2568, 2569, 10704, u32::MAX] {
        let plan = server().with(0xD, 1, [0xF, reported, 0x100, 0]).plan().unwrap();
        let good = (2440..=2568).contains(&reported);
        let larger = if reported == 2569 || reported == 10704 { reported } else { 2432 };
        assert_eq!(plan.area_len(), larger as usize, "{reported}");
        let expect = [(SizeWord::Compacted, 2440, reported)];
        assert_eq!(sizes(&plan), expect[usize::from(good)..]);
    }
    // Without XSAVES there is no supervisor state; without XSAVEC there is no size.
    let plan = server().with(0xD, 1, [0x3, 2568, 0x100, 0]).plan().unwrap();
    assert_eq!(sizes(&plan), [(SizeWord::Compacted, 2440, 2568)]);
    let plan = server().with(0xD, 1, [0x1, 7, 0, 0]).plan().unwrap();
    assert_eq!((plan.save_instruction(), sizes(&plan)), (SaveInstruction::Xsaveopt, Vec::new()));
    // CPUID(0xD,0).ECX decides nothing.
    for reported in [0, 576, 2695, 11008, u32::MAX] {
        let words = server().with(0xD, 0, [0x2E7, 2696, reported, 0]);
        for plan in [words.plan().unwrap(), words.kernel(C::all()).unwrap()] {
            assert_eq!(plan.area_len(), 2432);
            assert_eq!(sizes(&plan), [(SizeWord::Supported, 2696, reported)]);
        }
    }
}

#[test]
fn sizes_after_enabling_only_enlarge() {
    let plan = big_core().kernel(C::USER | C::CET_U).unwrap();
    assert_eq!(
        (plan.save_instruction(), plan.area_len(), sizes(&plan)),
        (SaveInstruction::Xsaves, 2448, Vec::new())
    );
    let after = |standard, compacted| {
        let words = big_core().with(0xD, 0, [0x2E7, standard, 0xA88, 0]);
        words.with(0xD, 1, [0xF, compacted, 0x1_9900, 0]).cpuid_info().unwrap()
    };
    let same = plan.clone().with_sizes(&after(2688, 2448));
    assert_eq!(same, plan);
    let smaller = plan.clone().with_sizes(&after(0, 576));
    assert_eq!(smaller.area_len(), 2448);
    let expect = [(SizeWord::Standard, 2688, 0), (SizeWord::Compacted, 2448, 576)];
    assert_eq!(sizes(&smaller), expect);
    let larger = smaller.with_sizes(&after(2696, 2512));
    assert_eq!((larger.area_len(), larger.place(C::CET_U)), (2512, plan.place(C::CET_U)));
    let expect = [(SizeWord::Standard, 2688, 2696), (SizeWord::Compacted, 2448, 2512)];
    assert_eq!(sizes(&larger), expect, "what was said before is forgotten");
    let absurd = plan.clone().with_sizes(&after(u32::MAX, (1 << 20) + 1));
    assert_eq!(absurd.area_len(), 2448);
    // The same words again give the same plan.
    assert_eq!(absurd.with_sizes(&after(2688, 2448)), plan);
    let standard = big_core()
        .kernel(C::USER)
        .unwrap()
        .with_save_instruction(SaveInstruction::Xsaveopt)
        .unwrap();
    assert_eq!(standard.with_sizes(&after(2752, 2512)).area_len(), 2752);
    let legacy = big_core()
        .kernel(C::LEGACY)
        .unwrap()
        .with_save_instruction(SaveInstruction::Fxsave)
        .unwrap();
    assert_eq!(legacy.clone().with_sizes(&after(9, 9)), legacy, "FXSAVE has 512 bytes");
    // Sizes that were for more components go with one of them.
    let why = LeftOut::NotKept { register: ControlRegister::Xcr0 };
    for instruction in [SaveInstruction::Xsave, SaveInstruction::Xsavec, SaveInstruction::Xsaves] {
        let user = big_core().kernel(C::USER).unwrap();
        let mut left = user.with_save_instruction(instruction).unwrap();
        let mut sized = left.clone().with_sizes(&after(9008, 9000));
        assert!(sized.area_len() >= 9000, "{instruction:?}");
        for plan in [&mut left, &mut sized] {
            plan.leave_out(C::AVX512, why).unwrap();
        }
        let of = |plan: &Plan| (plan.save_instruction(), plan.components(), plan.area_len());
        assert_eq!((of(&sized), sized.area_len()), (of(&left), 832));
    }
}

/// PKRU is not saved, so its place does not matter, and no place is trusted.
#[test]
fn pkru_that_is_misdescribed_has_no_place() {
    let wrong = [
        [u32::MAX, 2688, 0, 0],
        [8, 0, 0, 0],
        [8, 2688, 1, 0],
        [0; 4],
        [8, 576, 0, 0],
        [8, 1152, 0, 0],
        [8, u32::MAX, 0, 0],
        [3, 2688, 0, 0],
    ];
    for words in wrong {
        let spoilt = server().with(0xD, 9, words);
        for plan in [spoilt.plan().unwrap(), spoilt.kernel(C::USER).unwrap()] {
            assert_eq!((plan.components().bits(), plan.area_len()), (0xE7, 2432));
            let left_out = |quirk| matches!(quirk, Quirk::LeftOut { components: C::PKRU, .. });
            assert!(plan.quirks().any(left_out), "{words:?}");
            assert!(plan.foreign_len() <= 2696 && plan.pkru_place().is_none());
            let format = plan.user_format();
            assert!(!format.components().contains(C::PKRU), "{words:?}");
            assert_eq!((format.xstate_len(), format.frame_len()), (2688, 2692), "{words:?}");
        }
    }
    assert_eq!(server().plan().unwrap().pkru_place(), Some((2688, 8)));
    assert_eq!(server().kernel(C::USER).unwrap().user_format().frame_len(), 2700);
}

#[test]
fn what_ring_3_finds_enabled_and_cannot_save_is_named() {
    for (words, why) in [
        (server().xcr0(0x5), PlanError::IllegalXcr0(C::X87 | C::AVX)),
        (server().xcr0(0x27), PlanError::IllegalXcr0(C::from_bits_retain(0x27))),
        (
            server().with(0xD, 0, [0x7, 832, 832, 0]),
            PlanError::NotEnumerated(C::from_bits_retain(0xE0)),
        ),
        (server().xcr0(0x3E7), PlanError::Unsupported(C::PT)),
        (server().xcr0(1 << 62 | 7), PlanError::Unsupported(C::LWP)),
        (server().xcr0(1), PlanError::Uncovered { missing: C::SSE }),
    ] {
        assert_eq!(words.plan(), Err(why));
        assert!(!why.to_string().is_empty());
    }
    for flags in [1 << 24, 1 << 25] {
        let words = server().with(1, 0, [0, 0, 3 << 26, flags]);
        assert_eq!(words.plan(), Err(PlanError::NoFxsave));
        assert_eq!(words.kernel(C::all()), Err(PlanError::NoFxsave));
    }
    let facts = server().cpuid_info().unwrap();
    assert_eq!(Plan::for_user(facts, 0, C::all()), Err(PlanError::UnknownXcr0));
}

#[test]
fn a_wrong_word_is_shown_with_what_it_should_be() {
    for (word, text) in [
        (
            (5, R::Ebx, 800, Expected::AtLeast(832)),
            "CPUID(0xD,5).EBX is 0x320, should be at least 0x340",
        ),
        (
            (9, R::Eax, 2 << 20, Expected::AtMost(1 << 20)),
            "CPUID(0xD,9).EAX is 0x200000, should be at most 0x100000",
        ),
        (
            (11, R::Ecx, 0, Expected::Bits(1, 1)),
            "CPUID(0xD,11).ECX is 0x0, should be 0x1 in the bits 0x1",
        ),
    ] {
        let (subleaf, register, found, expected) = word;
        assert_eq!(WrongWord { subleaf, register, found, expected }.to_string(), text);
    }
}

/// A plan for ring 3 fits CPUs with the same XCR0 only: what another one has more, no area holds.
#[test]
fn a_plan_for_ring_3_is_for_one_xcr0() {
    let plan = server().plan().unwrap();
    let with = |xcr0: u64| server().cpuid_info().unwrap().with_xcr0(C::from_bits_retain(xcr0));
    assert_eq!(plan.check_cpu(&with(0x2E7)), Ok(()));
    for bit in 0..63 {
        let found = Some(C::from_bits_retain(0x2E7 ^ 1 << bit));
        let why = Err(CpuMismatch::Xcr0 { expected: plan.xcr0(), found });
        assert_eq!(plan.check_cpu(&with(0x2E7 ^ 1 << bit)), why, "bit {bit}");
    }
    let unknown = server().cpuid_info().unwrap();
    let why = Err(CpuMismatch::Xcr0 { expected: plan.xcr0(), found: None });
    assert_eq!(plan.check_cpu(&unknown), why);
    // A system without XSAVE has x87 and SSE enabled, whatever is said of XCR0.
    let disabled = server().with(1, 0, [0, 0, 1 << 26, 3 << 24]);
    let (legacy, disabled) = (disabled.plan().unwrap(), disabled.cpuid_info().unwrap());
    assert_eq!(legacy.check_cpu(&disabled), Ok(()));
    // The instructions of XSAVE have an invalid opcode there, also for a plan of what is enabled.
    let narrow = server().xcr0(3).plan().unwrap();
    assert_eq!(narrow.check_cpu(&with(3)), Ok(()));
    for plan in [&plan, &narrow] {
        let why = CpuMismatch::NoInstruction(SaveInstruction::Xsavec);
        assert_eq!(plan.check_cpu(&disabled), Err(why));
        assert_eq!(plan.check_cpu(&disabled.clone().with_xcr0(plan.xcr0())), Err(why));
    }
    let fxsave = narrow.with_save_instruction(SaveInstruction::Fxsave).unwrap();
    assert_eq!(fxsave.check_cpu(&disabled), Ok(()));
    assert!(legacy.check_cpu(&with(0x2E7)).is_err());
    // Ring 0 decides XCR0 itself.
    let kernel = server().kernel(C::all()).unwrap();
    assert_eq!(kernel.check_cpu(&with(3)), Ok(()));
}
