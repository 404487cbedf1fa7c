//! Plans measured on this CPU, right ones and wrong ones; and what a save could write, written by hand.

use super::*;
use crate::{layout::Slot, tests::words};
use std::{println, vec::Vec};

/// This CPU's plans, by every instruction of ring 3. Without components that refuse some bytes, because nothing
/// here serves faults, and without tiles, for which no permission was asked.
fn plans() -> Vec<Plan> {
    let refusing = Components::MPX | Components::AMX;
    // SAFETY: C23: nothing here uses them.
    let all = unsafe { Plan::detect_user_without(refusing) }.unwrap();
    // SAFETY: C23: this test changes no other thread's registers.
    let legacy = unsafe { Plan::detect_user_without(!Components::LEGACY) }.unwrap();
    let mut plans: Vec<Plan> = SaveInstruction::ALL
        .iter()
        .filter_map(|instruction| all.clone().with_save_instruction(*instruction).ok())
        .collect();
    plans.extend(legacy.with_save_instruction(SaveInstruction::Fxsave));
    plans
}

fn measured(plan: &Plan) -> Result<(), Measured> {
    // SAFETY: C26, C2: the registers hold nothing across the call, by its clobbers. C6: ring 3.
    unsafe { plan.measure() }
}

#[test]
fn this_cpu_saves_what_its_plans_say() {
    for plan in plans() {
        assert_eq!(measured(&plan), Ok(()), "{:?}", plan.save_instruction());
        assert_eq!(measured(&plan.clone().scrubbing()), Ok(()), "{:?}", plan.save_instruction());
    }
}

/// Each component moved by every distance, and made smaller and larger by every amount, over and into the
/// others. A component that the CPU has as often as the plan says passes: nothing else does.
#[test]
fn a_layout_that_is_not_the_cpus_is_found() {
    let mut found = 0;
    for plan in plans() {
        for number in extended(plan.components()) {
            let slot = plan.layout.slot(number).unwrap();
            let moved = (1..=32).flat_map(|by| [8 * by, -8 * by]).map(|by: i32| Slot {
                offset: slot.offset.saturating_add_signed(by).max(EXTENDED),
                ..slot
            });
            let sized = (1..=16)
                .flat_map(|by| [slot.size.saturating_sub(8 * by).max(8), slot.size + 8 * by])
                .map(|size| Slot { size, ..slot });
            for other in moved.chain(sized).filter(|other| *other != slot) {
                let mut wrong = plan.clone();
                wrong.layout.place_for_test(number, other);
                let result = measured(&wrong);
                assert!(result.is_err(), "{:?}: {number} as {other:?}", plan.save_instruction());
                found += 1;
            }
        }
    }
    match found {
        0 => println!("SKIP: this CPU or its system has no component beyond x87 and SSE"),
        _ => assert!(found > 60, "{found}"),
    }
    let plan = &plans()[0];
    assert_eq!(measured(plan), Ok(()), "and leaves nothing behind");
}

#[test]
fn an_area_that_no_cpu_has_is_not_tried() {
    for plan in plans().iter_mut().filter(|plan| plan.format() != Format::Legacy) {
        let Some(number) = extended(plan.components()).last() else { continue };
        plan.layout.place_for_test(number, Slot { offset: MOST as u32 - 63, size: 64 });
        let component = one(number);
        assert_eq!(measured(plan), Err(Measured::TooLarge { component }));
    }
}

#[test]
fn every_state_differs_from_what_else_lies_there() {
    for number in 2..63 {
        let size = 8192;
        let len = registers(number, size);
        assert!((0..len).any(|at| state(number, at) != 0), "{number}: it is the initial one");
        if words(number).is_empty() {
            let odd = |at: &usize| [0, FILL, POISON].contains(&state(number, *at));
            assert_eq!((0..size).find(odd), None, "{number}");
            // By so much a component can be moved; and none may be taken for the next.
            for by in [1, 8, 64] {
                let same = |at: &usize| pattern(number, *at) == pattern(number, at + by);
                assert_eq!((0..size).find(same), None, "{number}: as {by} further on");
            }
            let same = |at: &usize| pattern(number, *at) == pattern(number + 1, *at);
            assert_eq!((0..size).find(same), None, "{number}: as the next");
        }
    }
    for checked in [Components::BNDCSR, Components::TILECFG] {
        let number = checked.number().unwrap();
        let bytes: Vec<u8> = (0..64).map(|at| state(number, at)).collect();
        assert_eq!(crate::image::first_illegal(checked, &bytes), None, "{checked:?}");
    }
}

/// What a save of `present` writes, and one line of memory behind the area.
fn saved(plan: &Plan, present: Components) -> Vec<u8> {
    let mut area = std::vec![POISON; plan.layout.len() + 64];
    write_legacy(&mut area, present, plan.mxcsr_mask());
    if plan.format() != Format::Legacy {
        area[XSTATE_BV..EXTENDED as usize].fill(0);
        fields::set(&mut area, XSTATE_BV, present.bits().to_le_bytes());
    }
    if plan.format() == Format::Compacted {
        fields::set(&mut area, XCOMP_BV, (COMPACTED | plan.mask).to_le_bytes());
    }
    for number in extended(present) {
        let (start, end) = plan.bounds(number).unwrap();
        for (at, byte) in area[start..end].iter_mut().enumerate() {
            *byte = state(number, at);
        }
    }
    area
}

/// Every byte that is not as a save writes it is named, wherever it is that anything depends on it.
#[test]
fn each_wrong_byte_of_a_save_is_named() {
    let server = words::server().kernel(Components::USER).unwrap();
    let legacy = words::server().kernel(Components::LEGACY).unwrap();
    for plan in [
        server.clone(),
        server.with_save_instruction(SaveInstruction::Xsave).unwrap(),
        legacy.with_save_instruction(SaveInstruction::Fxsave).unwrap(),
    ] {
        let all = plan.components();
        for present in [all, all & (Components::AVX | Components::X87), Components::empty()] {
            let good = saved(&plan, present);
            assert_eq!(plan.check_saved(present, &good), Ok(()));
            for at in 0..good.len() {
                let header = plan.format() != Format::Legacy && (512..576).contains(&at);
                let bits = if header { 0..8 } else { 0..1 };
                for bit in bits {
                    let mut area = good.clone();
                    area[at] ^= if header { 1 << bit } else { 0x18 };
                    let result = plan.check_saved(present, &area);
                    let name =
                        std::format!("{:?} {present:?}: {at} {bit}", plan.save_instruction());
                    if header {
                        // A bit of what is not present may be set.
                        let number = (at - 512) * 8 + bit;
                        let known = number < 63 && all.contains(one(number as u32));
                        let free = known && !present.contains(one(number as u32));
                        assert_eq!(result.is_ok(), free, "{name}");
                    } else if at < 512 {
                        let x87 = at < 2 || x87_bytes().any(|it| it == at);
                        let sse = (24..28).contains(&at) || (160..416).contains(&at);
                        let held = (x87 && present.contains(Components::X87))
                            || (sse && present.contains(Components::SSE));
                        assert_eq!(result.is_err(), held, "{name}");
                    } else {
                        let place = |it: &u32| {
                            let (start, end) = plan.bounds(*it).unwrap();
                            (start..end).contains(&at)
                        };
                        let at = at as u32;
                        let why = match extended(present).find(place) {
                            Some(number) => Measured::Elsewhere { component: one(number), at },
                            None => Measured::Outside { present, at },
                        };
                        assert_eq!(result, Err(why), "{name}");
                    }
                }
            }
        }
    }
}

/// A measurement leaves nothing to the code that runs next.
#[test]
fn the_registers_are_initial_afterwards() {
    #[repr(C, align(64))]
    struct Area([u8; 512]);
    for plan in plans() {
        let mut area = Area([0xFF; 512]);
        assert_eq!(measured(&plan), Ok(()));
        // SAFETY: N1: 512 bytes, aligned.
        unsafe { insn::fxsave(area.0.as_mut_ptr()) };
        // Compiled code may have used the lower ones since.
        assert!(
            area.0[160 + 8 * 16..416].iter().all(|byte| *byte == 0),
            "{:?}",
            plan.save_instruction()
        );
        assert!(x87_bytes().all(|at| area.0[at] == 0), "{:?}", plan.save_instruction());
        assert_eq!(fields::u16_at(&area.0, FCW), INITIAL_FCW);
    }
}

/// Nor after a measurement that failed: a component that is then left out would keep what was loaded for ever.
#[test]
fn the_registers_are_initial_after_a_failure_too() {
    #[repr(C, align(64))]
    struct Area([u8; MOST]);
    let Some(standard) =
        plans().into_iter().find(|plan| plan.save_instruction() == SaveInstruction::Xsave)
    else {
        return println!("SKIP: this CPU or its system has no XSAVE");
    };
    if extended(standard.components()).next().is_none() {
        return println!("SKIP: XSAVE saves no more than x87 and SSE here");
    }
    for plan in plans().into_iter().filter(|plan| plan.format() != Format::Legacy) {
        for number in extended(plan.components()) {
            let slot = plan.layout.slot(number).unwrap();
            let mut wrong = plan.clone();
            wrong.layout.place_for_test(number, Slot { offset: slot.offset + 8, ..slot });
            let mut area = Area([0; MOST]);
            let result = measured(&wrong);
            // SAFETY: N1: larger than any area, aligned; the plan's instruction is offered.
            unsafe { insn::xsave(area.0.as_mut_ptr(), standard.mask) };
            assert!(result.is_err());
            let place = standard.layout.slot(number).unwrap();
            // Compiled code may have used the lower registers since; of mask and bound registers it uses none.
            let skipped = if [2, 6].contains(&number) { place.size / 2 } else { 0 };
            let kept = (place.offset + skipped) as usize..(place.offset + place.size) as usize;
            let left = area.0[kept].iter().position(|byte| *byte != 0);
            assert_eq!(left, None, "{:?}: component {number}", plan.save_instruction());
        }
    }
}
