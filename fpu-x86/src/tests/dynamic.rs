//! Areas without and with what comes on demand, on plans of recorded CPUs and of made-up ones. No instruction runs here:
//! IA32_XFD is a cell, and images are bytes.

use core::cell::Cell;
use std::{format, vec, vec::Vec};

use fpu_core::{
    grow::{GrowFpu, NoRoom},
    verify::CompareFpu,
    Area, CpuFpu, CpuLifecycle, RawFpu, RestoreFault, SaveArea, TaskFpu, TheBackend,
};

use super::{DynamicPlan, Room, XfdCopy};
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
    save_instruction::Format,
    tests::{
        corpus,
        sample::{plans, Random},
        words::tiles,
    },
};

const TILES: Components = Components::TILEDATA;
/// The copy before the first write.
const START: u64 = 0xFFFF;

/// One CPU: the copy, the register, and whether a write of it is refused.
pub(super) struct Cpu {
    pub(super) copy: Cell<u64>,
    xfd: Cell<u64>,
    pub(super) writes: Cell<u32>,
    refuses: Cell<bool>,
}

impl Cpu {
    pub(super) fn new() -> Self {
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

pub(super) type Dynamic = DynamicPlan<Cpu>;
type Memory = Area<16384>;

fn of_program(plan: &Plan, on_demand: Components) -> Dynamic {
    // SAFETY: C46: nothing runs.
    unsafe { DynamicPlan::for_program(plan.clone(), on_demand, Cpu::new()) }.unwrap()
}
/// A kernel's, with tiles on demand.
pub(super) fn sapphire() -> (Plan, Dynamic) {
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
        // SAFETY: C46: nothing runs.
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

/// Where a plan has a shadow stack beside the tiles, a child gets neither; of a plan without state on demand it gets the
/// same.
#[test]
fn a_child_has_no_shadow_stack() {
    let words = tiles().with(0xD, 1, [0x1F, 10752, 0x800, 0]).with(0xD, 11, [16, 0, 1, 0]);
    let full = words.kernel(Components::all()).unwrap();
    assert!(full.components().contains(TILES | Components::CET_U));
    let plan = DynamicPlan::new(full.clone(), Cpu::new()).unwrap();
    let mut random = Random(0x5C);
    for n in 0..200 {
        let own = if n % 2 == 0 { Components::CET_U } else { Components::empty() };
        let present = some(&full, &mut random) | own;
        let area = random_area(&full, present, &mut random);
        let (parent, child, other) = (Memory::new(), Memory::new(), Memory::new());
        put(&parent, &area);
        plan.image_room(&parent, Room::Full);
        // SAFETY: C9: areas of the test's own; the parent's holds an image.
        unsafe {
            plan.copy_for_child(parent.base(), child.base());
            full.copy_for_child(parent.base(), other.base());
        }
        // SAFETY: C9, C11: an area of the test's own, which holds an image.
        let inherited = unsafe { full.image(other.base()) }.present();
        assert_eq!(image(&plan, &child).present(), inherited, "{present:?}");
        let own = Components::CET_U | Components::AMX;
        assert_eq!(inherited, present.difference(own), "{present:?}");
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

/// A CPU on which no instruction is executed: everything is in memory.
struct Kernel<'k>(&'k TheBackend<Dynamic>, &'k CpuFpu);
fpu_core::witness! {
    // SAFETY: K2 to K8: one thread and its words. K9: contexts are in memory only.
    unsafe impl Pinned + Exclusive + SoftFloat for Kernel<'_> {
        backend: Dynamic = |kernel| kernel.0,
        words: CpuFpu = |kernel| kernel.1,
    }
}

/// Frames and regsets by the calls on tasks: what a context has no room for is refused, and then it has.
#[test]
fn a_task_takes_tiles_once_it_has_room() {
    let tiles = |plan: &&Plan| plan.components().contains(TILES);
    for full in plans().iter().filter(tiles) {
        // SAFETY: K1: the one of this kernel.
        let plan = unsafe { TheBackend::new(of_program(full, TILES)) };
        let words = CpuFpu::new();
        let mut cpu = Kernel(&plan, &words);
        // SAFETY: K15, K16: the only CPU, its words new.
        unsafe { cpu.fpu_online(0) }.unwrap();
        let mut task = TaskFpu::new(&plan, Memory::new()).unwrap();
        let (base, with) = (plan.user_format(Room::Base), plan.user_format(Room::Full));
        let at = full.cpuid_info().described(18).unwrap().offset as usize;
        let mut regset = vec![0; with.xstate_len()];
        with.write_xstate(&task.open_saved(&mut cpu).unwrap().image(), None, &mut regset).unwrap();
        regset[at] = 9;
        regset[XSTATE_BV + 2] |= 4;
        let refused = base.set_xstate(task.open_saved(&mut cpu).unwrap(), &mut regset.clone());
        assert_eq!(refused, Err(ForeignError::NotPermitted { bits: TILES.bits() }));
        let refused = with.set_xstate(task.open_saved(&mut cpu).unwrap(), &mut regset.clone());
        assert!(refused.is_err(), "by permission, and without room: {refused:?}");
        assert_eq!(task.open_saved(&mut cpu).unwrap().image().present(), Components::empty());
        let _small = task.replace_area(&mut cpu, Memory::new(), Room::Full).unwrap();
        assert_eq!(task.room(&cpu), Room::Full);
        with.set_xstate(task.open_saved(&mut cpu).unwrap(), &mut regset).unwrap();
        assert!(task.open_saved(&mut cpu).unwrap().image().present().contains(TILES));
        // A handler runs without them, and the task has them again.
        let (mut buffer, mut stack) = (vec![0; with.frame_len()], Vec::new());
        let copied = |frame: &[u8]| {
            stack.extend_from_slice(frame);
            Ok::<(), ()>(())
        };
        with.deliver(task.open_saved(&mut cpu).unwrap(), None, &mut buffer, copied).unwrap();
        assert_eq!((stack[at], stack.len()), (9, with.frame_len()));
        assert!(!task.open_saved(&mut cpu).unwrap().image().present().contains(TILES));
        let mut private = vec![0; 16384];
        let fetch = |from: usize, to: &mut [u8]| {
            to.copy_from_slice(&stack[from..from + to.len()]);
            Ok::<(), ()>(())
        };
        with.sigreturn(task.open_saved(&mut cpu).unwrap(), &mut private, fetch).unwrap();
        let mut byte = [0];
        task.open_saved(&mut cpu).unwrap().image().read(TILES, 0, &mut byte).unwrap();
        assert_eq!(byte, [9]);
        // Exec.
        task.reset(&mut cpu).unwrap();
        let _large = task.replace_area(&mut cpu, Memory::new(), Room::Base).unwrap();
        assert_eq!(task.open_saved(&mut cpu).unwrap().image().present(), Components::empty());
    }
}
