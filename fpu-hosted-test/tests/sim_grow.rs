//! Areas that are replaced: a task first uses tiles, and its context gets an area with room for them; at exec it gets a
//! smaller one.

use core::ptr::NonNull;
use fpu_core::{
    grow::{ReplaceError, ReplaceRefusal},
    verify::{Scratch, Verified, VerifyError},
    Area, AreaError, CpuLifecycle, Error, HeapArea, KernelFpu, KernelUnits, Level, RawArea,
    SaveArea, TaskFpu,
};
use fpu_hosted_test::{
    sim::{Registers, Room, XfdCpu, XfdFpu, XfdPin, AREA_LEN, BASE_LEN},
    Random,
};

type Task = TaskFpu<XfdFpu, HeapArea>;

const TILES: u64 = 1 << 3;
/// All but the tiles.
const BASE: u64 = TILES - 1;

fn area(cpu: &XfdCpu, len: usize) -> HeapArea {
    HeapArea::with_len(cpu.fpu().the_backend(), len).expect("memory")
}
fn task(cpu: &XfdCpu) -> Task {
    TaskFpu::new(cpu.fpu().the_backend(), area(cpu, BASE_LEN)).expect("the area fits")
}
fn grow(task: &mut Task, cpu: &mut XfdCpu) -> HeapArea {
    let new = area(cpu, AREA_LEN);
    task.replace_area(cpu, new, Room::Full).expect("it fits")
}
fn enter(task: &Task, cpu: &mut XfdCpu) {
    drop(task.switch_return(cpu).expect("loads"));
    assert!(cpu.fpu().shadow_is_right());
    let room = task.room(cpu);
    let allowed = if room == Room::Full { 0 } else { TILES };
    assert_eq!(cpu.fpu().xfd(), allowed, "a task with {room:?} runs");
}
/// The task computes: what it may use.
fn runs(cpu: &XfdCpu, seed: u64) -> Registers {
    let set = if cpu.fpu().xfd() == 0 { u64::MAX } else { BASE };
    let registers = Registers::pattern(seed, set);
    cpu.fpu().registers().load(&registers);
    registers
}

/// From each state, with the claim on this CPU or another: the state is what it was, loaded once.
#[test]
fn growth_keeps_the_state_wherever_it_is() {
    for from in ["registers", "both", "memory", "elsewhere, saved"] {
        let (mut cpu, mut other) = (XfdCpu::online(0), XfdCpu::online(1));
        let mut task = task(&cpu);
        let runs_on = if from == "elsewhere, saved" { &mut other } else { &mut cpu };
        enter(&task, runs_on);
        let expected = runs(runs_on, 7);
        if from != "registers" {
            task.switch_prepare(runs_on).unwrap();
        }
        if from == "memory" {
            cpu.invalidate_registers().unwrap();
        }
        let saved = cpu.totals().saved;
        let old = grow(&mut task, &mut cpu);
        assert_eq!((old.len(), task.room(&cpu)), (BASE_LEN, Room::Full), "{from}");
        assert_eq!(cpu.totals().saved - saved, u64::from(from == "registers"), "{from}");
        drop(old);
        assert!(!task.registers_valid(&cpu) && !task.registers_valid(&other), "{from}");
        // Also where the registers held it before.
        for cpu in [&mut other, &mut cpu] {
            enter(&task, cpu);
            assert_eq!(cpu.registers(), expected, "{from}");
            cpu.use_tile0(1).expect("it has room");
            cpu.use_tile0(0).expect("it has room");
            cpu.fpu().registers().load(&expected);
            task.switch_prepare(cpu).unwrap();
        }
    }
}

/// The instruction that was refused is executed again, and the tiles live on over switches; other tasks have none.
#[test]
fn the_first_use_of_tiles() {
    let mut cpu = XfdCpu::online(0);
    let (mut one, other) = (task(&cpu), task(&cpu));
    enter(&one, &mut cpu);
    let before = runs(&cpu, 3);
    assert_eq!(cpu.use_tile0(5), Err(TILES));
    assert_eq!((cpu.fpu().take_xfd_err(), cpu.fpu().take_xfd_err()), (TILES, 0));
    drop(grow(&mut one, &mut cpu));
    enter(&one, &mut cpu);
    assert_eq!(cpu.registers(), before);
    assert_eq!(cpu.use_tile0(5), Ok(()));
    let with_tiles = cpu.registers();
    one.switch_prepare(&cpu).unwrap();
    enter(&other, &mut cpu);
    assert_eq!(cpu.registers(), Registers::initial(), "another's tiles");
    assert_eq!(cpu.use_tile0(6), Err(TILES));
    other.switch_prepare(&cpu).unwrap();
    enter(&one, &mut cpu);
    assert_eq!(cpu.registers(), with_tiles);
}

/// Everything that can be wrong with a call: the context has the area that it had, and what it held.
#[test]
fn a_refusal_changes_nothing() {
    let raw = |offset: usize, len: usize| {
        let memory = Box::leak(Box::new(Area::<1024>::new())).base();
        let base = NonNull::new(memory.as_ptr().wrapping_add(offset)).expect("not null");
        // SAFETY: K19: leaked, and nobody else's.
        unsafe { RawArea::new(base, len) }
    };
    let (mut cpu, mut other) = (XfdCpu::online(0), XfdCpu::online(1));
    let mut task = TaskFpu::new(cpu.fpu().the_backend(), raw(0, 512)).expect("the area fits");
    drop(task.switch_return(&mut cpu).unwrap());
    let expected = runs(&cpu, 9);
    let mut refused = |cpu: &mut XfdCpu, area, room, why| {
        let at = format!("{task:?}");
        let ReplaceError { why: got, area: _ } = task.replace_area(cpu, area, room).unwrap_err();
        assert_eq!((got, format!("{task:?}")), (why, at));
    };
    let need = AREA_LEN;
    let small = ReplaceRefusal::Area(AreaError::TooSmall { need, have: 511 });
    refused(&mut cpu, raw(0, 511), Room::Full, small);
    let small = ReplaceRefusal::Area(AreaError::TooSmall { need: BASE_LEN, have: 0 });
    refused(&mut cpu, raw(0, 0), Room::Base, small);
    for offset in [1, 8, 32] {
        let misaligned = ReplaceRefusal::Area(AreaError::Misaligned { need: 64 });
        refused(&mut cpu, raw(offset, 512), Room::Full, misaligned);
    }
    let elsewhere = ReplaceRefusal::Refused(Error::LiveElsewhere { cpu: 0 });
    refused(&mut other, raw(0, 512), Room::Full, elsewhere);
    other.fpu_offline().unwrap();
    refused(&mut other, raw(0, 512), Room::Full, ReplaceRefusal::Refused(Error::CpuOffline));
    // The area that it had is as large as one with tiles, and has no room for them: it was made so.
    assert_eq!((cpu.registers(), task.room(&cpu)), (expected.clone(), Room::Base));
    assert_eq!(cpu.use_tile0(1), Err(TILES));

    // Back to a smaller one, with tiles in use.
    let _base = task.replace_area(&mut cpu, raw(0, 512), Room::Full).unwrap();
    drop(task.switch_return(&mut cpu).unwrap());
    assert_eq!(cpu.registers(), expected);
    let expected = runs(&cpu, 10);
    let shrunk = task.replace_area(&mut cpu, raw(0, 256), Room::Base).unwrap_err();
    assert_eq!(ReplaceRefusal::from(shrunk), ReplaceRefusal::NoRoom);
    assert!(task.registers_valid(&cpu), "saved, and nothing else");
    assert_eq!(task.room(&cpu), Room::Full);
    drop(task.switch_return(&mut cpu).unwrap());
    assert_eq!((cpu.registers(), cpu.totals().skipped), (expected, 1));

    // In a section, through another witness: the CPU is closed.
    let cpu = cpu;
    let mut pin = XfdPin(&cpu, Level::Task);
    let section = pin.kernel_fpu(Some(task.context()), KernelUnits::NONE).unwrap();
    // The section has ended its borrow of the context.
    let busy = task.replace_area(&mut XfdPin(&cpu, Level::Task), raw(0, 512), Room::Full);
    assert_eq!(busy.unwrap_err().why, ReplaceRefusal::Refused(Error::Busy));
    drop(section);
    let nmi = task.replace_area(&mut XfdPin(&cpu, Level::Nmi), raw(0, 512), Room::Full);
    assert_eq!(nmi.unwrap_err().why, ReplaceRefusal::Refused(Error::Nmi));
}

/// An interrupt at each step of a growth runs a section, or is told that the CPU is busy; what the context holds stays.
#[test]
fn an_interrupt_comes_at_each_step() {
    let (mut ran, mut busy, mut steps) = (0, 0, 1);
    let mut at = 1;
    while at <= steps {
        let mut cpu = XfdCpu::online(0);
        let mut task = task(&cpu);
        enter(&task, &mut cpu);
        let expected = runs(&cpu, 11);
        // It is stopped, and held exclusively; the registers still claim it.
        task.switch_prepare(&cpu).unwrap();
        let (new, outcome) = (area(&cpu, AREA_LEN), core::cell::Cell::new(None));
        let handler = || {
            let mut pin = XfdPin(&cpu, Level::HardIrq);
            let used = pin.with_kernel_fpu(None, KernelUnits::ALL, || {
                cpu.fpu().registers().load(&Registers::pattern(99, BASE));
            });
            outcome.set(Some(used));
        };
        let (grown, injection) = cpu.inject(at, &handler, || {
            task.replace_area(&mut XfdPin(&cpu, Level::Task), new, Room::Full)
        });
        assert_eq!(grown.map(|old| old.len()).unwrap(), BASE_LEN);
        match outcome.get() {
            Some(Ok(())) => ran += 1,
            Some(Err(Error::Busy)) => busy += 1,
            other => assert!(!injection.delivered, "at step {at}: {other:?}"),
        }
        enter(&task, &mut cpu);
        assert_eq!(cpu.registers(), expected, "at step {at}");
        steps = injection.steps;
        at += 1;
    }
    assert!(ran >= 2 && busy >= 5, "{ran} sections ran, {busy} were refused");
}

/// Fork, exec, sections, idle, adopted registers.
#[test]
fn what_a_life_does_to_room() {
    let mut cpu = XfdCpu::online(0);
    let (mut parent, mut child) = (task(&cpu), task(&cpu));
    drop(grow(&mut parent, &mut cpu));
    drop(grow(&mut child, &mut cpu)); // of a task that has ended
    enter(&parent, &mut cpu);
    let all = runs(&cpu, 20);
    parent.fork_into(&mut cpu, &mut child).unwrap();
    assert_eq!((parent.room(&cpu), child.room(&cpu)), (Room::Full, Room::Base));
    parent.switch_prepare(&cpu).unwrap();
    enter(&child, &mut cpu);
    let tiles = |registers: &Registers| registers.component(3).to_vec();
    let forked = cpu.registers();
    assert_eq!(tiles(&forked), tiles(&Registers::initial()), "the parent's tiles");
    assert_eq!(
        (0..3).map(|c| forked.component(c)).collect::<Vec<_>>(),
        (0..3).map(|c| all.component(c)).collect::<Vec<_>>()
    );

    // A section leaves IA32_XFD alone; what comes after it is restored.
    let writes = cpu.fpu().xfd_writes();
    cpu.with_kernel_fpu(Some(child.context()), KernelUnits::ALL, || ()).unwrap();
    enter(&child, &mut cpu);
    assert_eq!(cpu.fpu().xfd_writes(), writes, "it did not differ");
    child.switch_prepare(&cpu).unwrap();
    enter(&parent, &mut cpu);
    assert_eq!((cpu.registers(), cpu.fpu().xfd_writes()), (all, writes + 1));

    // The idle CPU gives up its tiles.
    parent.switch_prepare(&cpu).unwrap();
    assert_eq!(cpu.fpu_idle(), Ok(true));
    enter(&parent, &mut cpu);

    // Exec: the initial state, in an area without room for tiles.
    parent.reset(&mut cpu).unwrap();
    assert_eq!(parent.room(&cpu), Room::Base);
    let small = area(&cpu, BASE_LEN);
    let large = parent.replace_area(&mut cpu, small, Room::Base).unwrap();
    assert_eq!(large.len(), AREA_LEN);
    enter(&parent, &mut cpu);
    assert_eq!(cpu.registers(), Registers::initial());

    // Registers that are adopted by a context without room, after those of one with room.
    let mut with_room = task(&cpu);
    drop(grow(&mut with_room, &mut cpu));
    parent.switch_prepare(&cpu).unwrap();
    enter(&with_room, &mut cpu);
    with_room.switch_prepare(&cpu).unwrap();
    let boot = task(&cpu);
    // SAFETY: C37: what was live is saved. C38: nothing was restored from this area.
    unsafe { boot.adopt(&mut cpu).unwrap() };
    assert_eq!(cpu.use_tile0(1), Err(TILES));
}

/// The scratch of a comparison holds what the context holds, or is refused.
#[test]
fn registers_are_compared_in_a_scratch_that_is_large_enough() {
    let mut cpu = XfdCpu::online(0);
    let mut task = task(&cpu);
    let mut small = Scratch::new(cpu.fpu().the_backend(), area(&cpu, BASE_LEN)).unwrap();
    let mut large = Scratch::new(cpu.fpu().the_backend(), area(&cpu, AREA_LEN)).unwrap();
    enter(&task, &mut cpu);
    runs(&cpu, 30);
    task.switch_prepare(&cpu).unwrap();
    assert_eq!(task.verify_registers(&mut cpu, &mut small), Ok(Verified::Agreed));
    drop(grow(&mut task, &mut cpu));
    enter(&task, &mut cpu);
    runs(&cpu, 31);
    task.switch_prepare(&cpu).unwrap();
    let refused = VerifyError::ScratchTooSmall { need: AREA_LEN, have: BASE_LEN };
    assert_eq!(task.verify_registers(&mut cpu, &mut small), Err(refused));
    for _ in 0..2 {
        assert_eq!(task.verify_registers(&mut cpu, &mut large), Ok(Verified::Agreed));
    }
    cpu.use_tile0(77).unwrap();
    let found = task.verify_registers(&mut cpu, &mut large);
    assert!(matches!(found, Err(VerifyError::Disagreement(it)) if it.component == 3), "{found:?}");
}

/// Any order of runs, growths, shrinkings, forks, sections, sleeps and power cycles on two CPUs.
#[test]
fn tiles_are_whose_they_are_in_any_order() {
    let mut random = Random::new(0x0DE1);
    for _ in 0..300 {
        let mut cpus = [XfdCpu::online(0), XfdCpu::online(1)];
        let mut tasks: Vec<_> =
            (0..3).map(|_| (task(&cpus[0]), Registers::initial(), None)).collect();
        let mut current = [None; 2];
        for step in 0..60 {
            let c = random.below(2);
            let cpu = &mut cpus[c];
            let t = random.below(3);
            if current[1 - c] == Some(t) {
                continue;
            }
            let turn = random.below(8);
            if current[c] != Some(t) && turn < 4 {
                if let Some(prev) = current[c].replace(t) {
                    let (prev, ..): &(Task, Registers, Option<usize>) = &tasks[prev];
                    prev.switch_prepare(cpu).unwrap();
                }
            }
            let (this, expected, _) = &mut tasks[t];
            match turn {
                0..=3 => {
                    enter(this, cpu);
                    assert_eq!(cpu.registers(), *expected, "step {step}");
                    *expected = runs(cpu, random.word());
                }
                4 => drop(grow(this, cpu)),
                5 => {
                    let small = area(cpu, BASE_LEN);
                    let shrunk = this.replace_area(cpu, small, Room::Base);
                    let has_tiles = expected.in_use() & TILES != 0;
                    assert_eq!(shrunk.is_err(), has_tiles, "step {step}");
                }
                6 => {
                    let named = current[c].map(|t| tasks[t].0.context());
                    cpu.with_kernel_fpu(named, KernelUnits::ALL, || ()).unwrap();
                }
                _ => {
                    if let Some(prev) = current[c].take() {
                        tasks[prev].0.switch_prepare(cpu).unwrap();
                    }
                    cpu.fpu_offline().unwrap();
                    cpu.fpu().lose_power();
                    // SAFETY: K15, K16: its own number again.
                    unsafe { cpu.fpu_online(c as u32).unwrap() };
                }
            }
        }
    }
}
