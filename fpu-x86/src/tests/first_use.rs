//! Every reason for #NM, and every option of the system call.

use fpu_core::IdleFpu;

use super::*;
use crate::dynamic::{
    permission::{Answer, PermissionError},
    tests::{sapphire, Cpu},
};
use crate::{plan::Plan, save_instruction::SaveInstruction, tests::sample::plans};

const TILES: Components = Components::TILEDATA;

/// Every #NM that can come.
#[test]
fn the_reasons_for_nm() {
    let (_, plan) = sapphire();
    let (none, some) = (Permissions::new(), Permissions::new());
    assert_eq!(some.request(&plan, 18, Whose::Host, |_| true), Ok(()));
    let guest = Permissions::new();
    assert_eq!(guest.request(&plan, 18, Whose::Guest, |_| unreachable!()), Ok(()));
    let grow = FirstUse::Grow { room: Room::Full, len: plan.area_len_of(Room::Full) };
    let other = Components::AVX512 | TILES;
    for in_user_mode in [true, false] {
        for room in [None, Some(Room::Base), Some(Room::Full)] {
            for (permissions, can) in [(&none, false), (&guest, false), (&some, true)] {
                let first = |error| plan.first_use(error, in_user_mode, room, permissions);
                assert_eq!(first(Components::empty()), Ok(FirstUse::NotOurs));
                let components = Components::AVX512;
                assert_eq!(first(other), Err(FirstUseError::Unknown { components }));
                let expected = match room {
                    _ if !in_user_mode => Err(FirstUseError::InKernel),
                    None => Err(FirstUseError::NoContext),
                    Some(Room::Full) => Err(FirstUseError::HasRoom),
                    Some(Room::Base) if can => Ok(grow),
                    Some(Room::Base) => Ok(FirstUse::Kill),
                };
                assert_eq!(first(TILES), expected);
            }
        }
    }
    // Where nothing comes on demand, no #NM is a first use.
    let without = DynamicPlan::new(plans()[0].clone(), Cpu::new()).unwrap();
    let error = FirstUseError::Unknown { components: TILES };
    assert_eq!(without.first_use(TILES, true, Some(Room::Base), &some), Err(error));
    // SAFETY: C1: nothing is read, as there is nothing on demand.
    assert_eq!(unsafe { without.take_error() }, Components::empty());
    // SAFETY: C10: no AMX in the plan, so nothing is asked and nothing given up.
    unsafe {
        let plan = DynamicPlan::new(corpus_without_amx(), Cpu::new()).unwrap();
        assert!(!plan.keeps_awake());
    }
}

fn corpus_without_amx() -> Plan {
    let plans = plans().into_iter();
    plans.rev().find(|plan| plan.save_instruction() == SaveInstruction::Fxsave).unwrap()
}

/// Permissions only grow, host and guest apart, are inherited, and are all or nothing.
#[test]
fn permissions() {
    let (_, plan) = sapphire();
    let process = Permissions::new();
    let get = |process: &Permissions, option| {
        process.arch_prctl(&plan, option, 0, |_| unreachable!()).unwrap().unwrap()
    };
    let ask = |process: &Permissions, option, number, stack: usize| {
        process.arch_prctl(&plan, option, number, |need| stack >= need).unwrap()
    };
    let all = plan.plan().user_format().components().bits();
    let without = Answer::Word(all & !TILES.bits());
    assert_eq!(all & TILES.bits(), TILES.bits());
    assert_eq!(get(&process, 0x1021), Answer::Word(all));
    for option in [0x1022, 0x1024] {
        assert_eq!(get(&process, option), without);
    }
    for option in [0x1023, 0x1025] {
        for number in 0..18 {
            let why = PermissionError::NotOnDemand { number };
            assert_eq!((ask(&process, option, number, 1 << 20), why.errno()), (Err(why), 95));
        }
        for number in [19, 20, 62, 63, 64, 1 << 32 | 18, u64::MAX] {
            let why = PermissionError::Unknown { number };
            assert_eq!((ask(&process, option, number, 1 << 20), why.errno()), (Err(why), 22));
        }
    }
    let need = plan.user_format(Room::Full).frame_len();
    assert!(need > 8192 && process.frame_len(&plan) == plan.user_format(Room::Base).frame_len());
    assert_eq!(ask(&process, 0x1023, 18, need - 1), Err(PermissionError::SmallStack { need }));
    assert_eq!((get(&process, 0x1022), get(&process, 0x1024)), (without, without));
    assert_eq!(ask(&process, 0x1023, 18, need), Ok(Answer::Done));
    assert_eq!((get(&process, 0x1022), get(&process, 0x1024)), (Answer::Word(all), without));
    assert_eq!(process.frame_len(&plan), need);
    // Once more, whatever the stacks are by now.
    assert_eq!(ask(&process, 0x1023, 18, 0), Ok(Answer::Done));

    let child = process.inherited();
    assert_eq!(child.of(Whose::Host), TILES);
    assert_eq!(ask(&child, 0x1025, 18, 0), Ok(Answer::Done));
    assert_eq!((get(&child, 0x1024), get(&process, 0x1024)), (Answer::Word(all), without));
    // A virtual CPU ends it, and what was granted stays.
    assert_eq!(process.lock_guest(), Components::empty());
    assert_eq!(ask(&process, 0x1025, 18, 0), Err(PermissionError::Locked));
    assert_eq!(ask(&process.inherited(), 0x1025, 18, 0), Err(PermissionError::Locked));
    assert_eq!(child.lock_guest(), TILES);
    assert_eq!(ask(&child, 0x1025, 18, 0), Ok(Answer::Done), "it has it");
    assert_eq!(ask(&process, 0x1023, 18, 0), Ok(Answer::Done));
    for option in [0x1001, 0x1020, 0x1026, u64::MAX] {
        assert_eq!(process.arch_prctl(&plan, option, 18, |_| unreachable!()), None);
    }
    // A CPU without.
    let plain = DynamicPlan::new(plans()[0].clone(), Cpu::new()).unwrap();
    let refused = Permissions::new().request(&plain, 18, Whose::Host, |_| true);
    assert_eq!(refused, Err(PermissionError::NotOnDemand { number: 18 }));
}
