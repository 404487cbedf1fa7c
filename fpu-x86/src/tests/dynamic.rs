//! Areas without and with what comes on demand, on plans of recorded CPUs and of made-up ones. No instruction runs here:
//! IA32_XFD is a cell, and images are bytes.

use core::cell::Cell;
use std::{format, vec, vec::Vec};

use fpu_core::{
    grow::{GrowFpu, NoRoom},
    verify::CompareFpu,
    Area, IdleFpu, RawFpu, RestoreFault, SaveArea,
};

use super::{
    Answer, DynamicPlan, FirstUse, FirstUseError, PermissionError, Permissions, Room, Whose,
    XfdCopy,
};
use crate::{
    components::Components,
    error::{ImageError, PlanError},
    fields::{u64_at, COMPACTED, XCOMP_BV, XSTATE_BV},
    foreign::ForeignError,
    image::Image,
    plan::Plan,
    registers::ControlRegister,
    regset::tests::{random_area, same, some},
    ring0::{ControlMismatch, ControlState},
    save_instruction::{Format, SaveInstruction},
    tests::{
        corpus,
        sample::{plans, Random},
    },
};

const TILES: Components = Components::TILEDATA;
/// The copy before the first write.
const START: u64 = 0xFFFF;

/// One CPU: the copy, the register, and whether a write of it is refused.
struct Cpu {
    copy: Cell<u64>,
    xfd: Cell<u64>,
    writes: Cell<u32>,
    refuses: Cell<bool>,
}

impl Cpu {
    fn new() -> Self {
        let cell = Cell::new;
        Self { copy: cell(START), xfd: cell(0), writes: Cell::new(0), refuses: Cell::new(false) }
    }
}

// SAFETY: K20: cells of one test.
unsafe impl XfdCopy for Cpu {
    fn get(&self) -> u64 {
        self.copy.get()
    }
    unsafe fn set(&self, xfd: u64) {
        self.copy.set(xfd);
    }
    unsafe fn write(&self, xfd: u64) -> Result<(), RestoreFault> {
        if self.refuses.get() {
            return Err(RestoreFault(13));
        }
        self.writes.set(self.writes.get() + 1);
        self.xfd.set(xfd);
        Ok(())
    }
    unsafe fn take_error(&self) -> u64 {
        0
    }
}

type Dynamic = DynamicPlan<Cpu>;
type Memory = Area<16384>;

fn of_program(plan: &Plan, on_demand: Components) -> Dynamic {
    // SAFETY: C44: nothing runs.
    unsafe { DynamicPlan::for_program(plan.clone(), on_demand, Cpu::new()) }.unwrap()
}
/// A kernel's, with tiles on demand.
fn sapphire() -> (Plan, Dynamic) {
    let tiles = |plan: &Plan| plan.is_for_kernel() && plan.components().contains(TILES);
    let plan = corpus::plans().into_iter().map(|(_, plan)| plan).find(tiles).unwrap();
    let dynamic = DynamicPlan::new(plan.clone(), Cpu::new()).unwrap();
    (plan, dynamic)
}
/// Everything that the plan has, with some of it on demand.
fn every() -> Vec<(Plan, Dynamic)> {
    let mut all = Vec::new();
    for plan in plans().into_iter().filter(|plan| plan.format() != Format::Legacy) {
        let sets =
            [Components::AVX512, Components::AVX, TILES, Components::APX, Components::HI16_ZMM];
        for set in sets.into_iter().filter(|set| plan.components().contains(*set)) {
            all.push((plan.clone(), of_program(&plan, set)));
        }
    }
    assert!(all.len() >= 10);
    all
}

fn put(area: &Memory, bytes: &[u8]) {
    // SAFETY: C9: an area of the test's own, larger than every image.
    unsafe { area.base().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
}
fn bytes(area: &Memory) -> Vec<u8> {
    // SAFETY: C9, C11: an area of the test's own, all of it initialised.
    unsafe { core::slice::from_raw_parts(area.base().as_ptr(), area.len()) }.to_vec()
}
fn image<'a>(plan: &'a Dynamic, area: &'a Memory) -> Image<'a> {
    // SAFETY: C9, C11: an area of the test's own, which holds an image.
    unsafe { plan.image(area.base()) }
}
fn room(plan: &Dynamic, area: &Memory) -> Room {
    // SAFETY: C9: an area of the test's own, which holds an image.
    unsafe { plan.room(area.base()) }
}
fn moved(plan: &Dynamic, from: &Memory, to: Room) -> Result<Memory, NoRoom> {
    let new = Memory::new();
    put(&new, &[0xA5; 16384]);
    // SAFETY: C9: two areas of the test's own; `from` holds an image.
    unsafe { plan.move_image(from.base(), new.base(), to) }?;
    // No byte behind the room is written.
    assert!(bytes(&new)[plan.area_len_of(to)..].iter().all(|byte| *byte == 0xA5));
    Ok(new)
}

/// On each recorded CPU with AMX and IA32_XFD the tiles come on demand, and areas without them are smaller by what they
/// take; on all others nothing does.
#[test]
fn recorded_cpus_have_two_sizes_where_tiles_can_be_disabled() {
    let mut with = 0;
    for (name, plan) in corpus::plans() {
        let dynamic = DynamicPlan::new(plan.clone(), Cpu::new()).unwrap();
        assert_eq!(dynamic.plan(), &plan, "{name}");
        assert_eq!(dynamic.area_len_of(Room::Full), plan.area_len(), "{name}");
        assert_eq!(dynamic.area_len(), dynamic.area_len_of(Room::Base), "{name}");
        let tiles = plan.is_for_kernel()
            && plan.components().contains(TILES)
            && plan.cpuid_info().xfd()
            && plan.cpuid_info().described(18).unwrap().xfd;
        if !tiles {
            assert_eq!(
                (dynamic.on_demand(), dynamic.area_len()),
                (Components::empty(), plan.area_len())
            );
            continue;
        }
        with += 1;
        assert_eq!(dynamic.on_demand(), TILES, "{name}");
        assert_eq!(dynamic.base.components(), plan.components().difference(TILES), "{name}");
        assert_eq!(
            (dynamic.base.xfd(), dynamic.full.xfd()),
            (TILES, Components::empty()),
            "{name}"
        );
        assert_eq!(dynamic.base.xcr0(), plan.xcr0(), "tiles stay in XCR0");
        assert_eq!(plan.area_len() - dynamic.area_len(), 8192, "{name}");
    }
    assert!(with >= 3, "{with} plans with tiles on demand");
}

#[test]
fn what_a_program_keeps_on_demand_must_be_its_plans() {
    let plan = &plans()[0];
    for wrong in [Components::X87, Components::SSE | TILES, Components::APX, Components::CET_U] {
        let missing = wrong.difference(plan.components().difference(Components::LEGACY));
        // SAFETY: C44: nothing runs.
        let refused = unsafe { DynamicPlan::for_program(plan.clone(), wrong, Cpu::new()) };
        assert_eq!(refused.err(), Some(PlanError::NotEnumerated(missing)));
    }
}

/// Images go from one room to the other and back with everything that is in them; where the smaller has no place for
/// something, nothing is done.
#[test]
fn images_move_between_rooms() {
    let mut random = Random(0xD1);
    let (mut moves, mut refusals) = (0, 0);
    for (full, plan) in every() {
        for _ in 0..40 {
            let what =
                format!("{:?} with {:?} on demand", full.save_instruction(), plan.on_demand());
            let present = some(&full, &mut random);
            let area = Memory::new();
            put(&area, &random_area(&full, present, &mut random));
            plan.image_room(&area, Room::Full);
            let before = bytes(&area);
            let held = image(&plan, &area);
            assert_eq!(held.present(), present, "{what}");
            let base = moved(&plan, &area, Room::Base);
            assert_eq!(bytes(&area), before, "{what}: what was moved has changed");
            assert_eq!(base.is_err(), present.intersects(plan.on_demand()), "{what}");
            let again = moved(&plan, &area, Room::Full).unwrap();
            assert_eq!(
                (room(&plan, &again), image(&plan, &again).present()),
                (Room::Full, present)
            );
            same(&image(&plan, &again), &held, &what);
            let Ok(base) = base else {
                refusals += 1;
                continue;
            };
            moves += 1;
            let header = bytes(&base);
            assert_eq!(room(&plan, &base), Room::Base);
            // The header has no bit for what IA32_XFD disables, nor a place.
            assert_eq!(u64_at(&header, XSTATE_BV) & plan.xfd_of(Room::Base).bits(), 0, "{what}");
            if full.format() == Format::Compacted {
                let places = full.components().difference(plan.on_demand());
                assert_eq!(u64_at(&header, XCOMP_BV), COMPACTED | places.bits(), "{what}");
            }
            same(&image(&plan, &base), &held, &what);
            let grown = moved(&plan, &base, Room::Full).unwrap();
            same(&image(&plan, &grown), &held, &what);
            for (one, other) in [(&base, &grown), (&grown, &base), (&grown, &area), (&area, &base)]
            {
                // SAFETY: C9, C11: areas of the test's own, which hold images.
                let equal = unsafe { plan.same_state(one.base(), other.base()) };
                assert_eq!(equal, Ok(()), "{what}");
            }
        }
    }
    assert!(moves >= 100 && refusals >= 100, "{moves} moves, {refusals} refusals");
}

impl Dynamic {
    /// Makes an image one of that room.
    fn image_room(&self, area: &Memory, room: Room) {
        // SAFETY: C9, C11: an area of the test's own, as long as any.
        unsafe { self.plan_of(room).image_mut(area.base()) }.set_room(|bytes| room.write(bytes));
    }
}

/// A child has the least room, whatever its parent has and whatever its area was before, and none of what comes on demand.
#[test]
fn a_child_has_no_room() {
    let mut random = Random(0xC1);
    for (full, plan) in every() {
        for of in [Room::Base, Room::Full] {
            let layout = plan.plan_of(of).clone();
            let present = some(&layout, &mut random);
            let (parent, child) = (Memory::new(), Memory::new());
            put(&parent, &random_area(&layout, present, &mut random));
            plan.image_room(&parent, of);
            put(&child, &random_area(&full, full.components(), &mut random));
            plan.image_room(&child, Room::Full);
            // SAFETY: C9: two areas of the test's own; the parent's holds an image.
            unsafe { plan.copy_for_child(parent.base(), child.base()) };
            assert_eq!(room(&plan, &child), Room::Base);
            let inherited = present.difference(plan.on_demand());
            assert_eq!(image(&plan, &child).present(), inherited);
            // SAFETY: C9, C11: areas of the test's own, which hold images.
            let equal = unsafe { plan.same_state(parent.base(), child.base()) };
            assert_eq!(equal.is_err(), present.intersects(plan.on_demand()), "{present:?}");
        }
    }
}

/// What lies in an area, but the one word, is no room: no save writes beyond an area because of old bytes.
#[test]
fn only_one_word_says_that_there_is_room() {
    let (_, plan) = sapphire();
    let area = Memory::new();
    // SAFETY: C9: an area of the test's own.
    unsafe { plan.write_initial(area.base()) };
    let initial = bytes(&area);
    assert_eq!(room(&plan, &area), Room::Base);
    let grown = moved(&plan, &area, Room::Full).unwrap();
    let word = bytes(&grown)[496..504].to_vec();
    assert_eq!(room(&plan, &grown), Room::Full);
    for bit in 0..64 {
        let mut spoilt = initial.clone();
        spoilt[496..504].copy_from_slice(&word);
        spoilt[496 + bit / 8] ^= 1 << (bit % 8);
        put(&area, &spoilt);
        assert_eq!(room(&plan, &area), Room::Base, "bit {bit}");
    }
    // A new context in an area that had room.
    put(&area, &bytes(&grown));
    // SAFETY: C9: an area of the test's own.
    unsafe { plan.write_initial(area.base()) };
    assert_eq!(room(&plan, &area), Room::Base);
}

/// IA32_XFD is written if it differs from the copy, and not otherwise; after a write that was refused it is written again.
#[test]
fn xfd_is_written_only_if_it_differs() {
    let (_, plan) = sapphire();
    let (with, without) = (Room::Full, Room::Base);
    let mut expected = 0;
    for (to, writes) in [(without, 1), (without, 0), (with, 1), (with, 0), (without, 1)] {
        // SAFETY: C10: a cell.
        assert_eq!(unsafe { plan.let_use(to) }, Ok(()));
        expected += writes;
        assert_eq!(plan.copy.writes.get(), expected, "{to:?}");
        assert_eq!(
            (plan.copy.xfd.get(), plan.copy.copy.get()),
            (plan.xfd_of(to).bits(), plan.copy.xfd.get())
        );
    }
    plan.copy.refuses.set(true);
    for _ in 0..2 {
        // SAFETY: C10: a cell.
        assert_eq!(unsafe { plan.let_use(with) }, Err(RestoreFault(13)));
        assert!(plan.copy.copy.get() != 0 && plan.copy.copy.get() != TILES.bits(), "not known");
    }
    let area = Memory::new();
    // SAFETY: C9: an area of the test's own. C10: refused before any register changes.
    unsafe {
        plan.write_initial(area.base());
        assert_eq!(plan.restore(area.base()), Err(RestoreFault(13)));
        assert_eq!(plan.adopt(area.base()), Err(RestoreFault(13)));
    }
    plan.copy.refuses.set(false);
    // SAFETY: C9: an area of the test's own. C10: a cell.
    assert_eq!(unsafe { plan.adopt(area.base()) }, Ok(()));
    assert_eq!((plan.copy.xfd.get(), plan.copy.writes.get()), (TILES.bits(), expected + 1));
}

#[test]
fn the_copy_is_compared_with_the_register() {
    let (full, plan) = sapphire();
    let of = ControlState::of(&full);
    let with = |xfd| ControlState { xfd: Some(xfd), ..of };
    for xfd in [0, TILES.bits()] {
        plan.copy.copy.set(xfd);
        assert_eq!(plan.verify(&with(xfd)), Ok(()));
        let found = xfd ^ TILES.bits();
        let (register, expected) = (ControlRegister::Xfd, Some(xfd));
        let mismatch = ControlMismatch { register, expected, found: Some(found) };
        assert_eq!(plan.verify(&with(found)), Err(mismatch));
        let cr0 = ControlState { cr0: of.cr0 ^ 1 << 3, ..with(xfd) };
        assert_eq!(plan.verify(&cr0).unwrap_err().register, ControlRegister::Cr0);
    }
}

/// A task with tiles, one without, one without room: frames and regsets.
#[test]
fn frames_of_tasks_with_room_and_without() {
    let tiles = |plan: &&Plan| plan.components().contains(TILES);
    for full in plans().iter().filter(tiles) {
        let plan = of_program(full, TILES);
        let (base, with) = (plan.user_format(Room::Base), plan.user_format(Room::Full));
        assert_eq!(base.xstate_len(), with.xstate_len(), "a regset has one length");
        assert_eq!(with.frame_len() - base.frame_len(), 8192);
        // An image with tiles in use, by way of a frame with tiles.
        let area = Memory::new();
        // SAFETY: C9: an area of the test's own.
        unsafe { plan.write_initial(area.base()) };
        let mut frame = vec![0; with.frame_len()];
        with.write_frame(&image(&plan, &area), None, &mut frame).unwrap();
        let at = full.cpuid_info().described(18).unwrap().offset as usize;
        frame[at..at + 8192].fill(7);
        frame[XSTATE_BV + 2] |= 4;
        let refused = base.read_frame(&mut frame.clone()).map(drop);
        assert_eq!(refused, Err(ForeignError::NotPermitted { bits: TILES.bits() }));
        let mut copied = frame.clone();
        let valid = with.read_frame(&mut copied).unwrap();
        // SAFETY: C9, C11: an area of the test's own, which holds an image.
        let mut small = unsafe { plan.image_mut(area.base()) };
        assert_eq!(
            small.replace_with(valid.valid()),
            Err(ImageError::NotManaged { component: TILES }),
            "no room yet"
        );
        let grown = moved(&plan, &area, Room::Full).unwrap();
        // SAFETY: C9, C11: an area of the test's own, which holds an image.
        unsafe { plan.image_mut(grown.base()) }.replace_with(valid.valid()).unwrap();
        assert!(image(&plan, &grown).present().contains(TILES));
        let mut back = vec![0; with.frame_len()];
        with.write_frame(&image(&plan, &grown), None, &mut back).unwrap();
        assert_eq!(back[at..at + 8192], frame[at..at + 8192]);
        assert_eq!(moved(&plan, &grown, Room::Base).err(), Some(NoRoom));
        // What a debugger sees of either.
        let mut regset = vec![0xA5; base.xstate_len()];
        for (area, byte) in [(&area, 0), (&grown, 7)] {
            base.write_xstate(&image(&plan, area), None, &mut regset).unwrap();
            assert_eq!((regset[at], regset[at + 8191]), (byte, byte));
        }
    }
}

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
