//! Registers against claims: every kind of broken duty that ends in wrong registers is found before user
//! mode, and memory is what runs then; a right kernel is never accused.

use fpu_core::{
    verify::{Difference, Scratch, Verified, VerifyError},
    Area, AreaError, CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits, NewError, RawArea,
    RawFpu, SaveArea,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Registers, SimArea, SimCpu, SimFpu, AREA_LEN, COMPONENTS, LAYOUT},
};

fn scratch(cpu: &SimCpu) -> Scratch<SimFpu, SimArea> {
    Scratch::new(cpu.fpu(), SimArea::new()).expect("the area fits")
}
fn verify(cpu: &SimCpu, task: &Task) -> Result<Verified, VerifyError> {
    task.verify_registers(&mut cpu.preempt_off(), &mut scratch(cpu))
}
fn enter(cpu: &SimCpu, task: &Task) {
    drop(task.switch_return(&mut cpu.irqs_off()).expect("the CPU is free"));
}
fn leave(cpu: &SimCpu, task: &Task) {
    task.switch_prepare(&cpu.irqs_off()).expect("it is live here");
}
/// The task runs, computes something and is switched out.
fn runs(cpu: &SimCpu, task: &Task, seed: u64) -> Registers {
    let mine = Registers::pattern(seed, u64::MAX);
    enter(cpu, task);
    cpu.fpu().load(&mine);
    leave(cpu, task);
    mine
}

/// What a kernel breaks, and on which CPU (of two) the task runs next.
type Broken = (&'static str, fn(&[SimCpu; 2], &Task), usize);
const BROKEN: [Broken; 6] = [
    ("K9: kernel code compiled with SSE", |cpus, _| cpus[0].fpu().set_avx0(13), 0),
    ("firmware uses the registers", |cpus, _| cpus[0].fpu().scribble(13), 0),
    (
        "a handler does, behind the back of its section",
        |cpus, _| {
            cpus[0].fpu().load(&Registers::initial());
        },
        0,
    ),
    ("no fpu_resume after suspend", |cpus, _| cpus[0].fpu().lose_power(), 0),
    (
        "K13: words zeroed while offline",
        |cpus, _| {
            let cpu = &cpus[0];
            cpu.irqs_off().fpu_offline().expect("online");
            // SAFETY: K13 (words kept) is what is broken here.
            unsafe { cpu.words().set_resident(0) };
            // SAFETY: K15: the number it had. K16 (words as left) is broken with K13 (words kept).
            unsafe { cpu.irqs_off().fpu_online(0) }.expect("offline");
            runs(cpu, &new_task(), 13); // the first stamp again
        },
        0,
    ),
    (
        "K15: two CPUs with one number",
        |cpus, _| {
            let cpu = &cpus[1];
            cpu.irqs_off().fpu_offline().expect("online");
            // SAFETY: K15 (own number) is what is broken here, as is K16 (words as left).
            unsafe { cpu.words().set_resident(0) };
            // SAFETY: K15: two CPUs get one number, which is the fault.
            unsafe { cpu.irqs_off().fpu_online(0) }.expect("offline");
            runs(cpu, &new_task(), 13);
        },
        1,
    ),
];

#[test]
fn every_broken_duty_is_found_and_memory_runs_then() {
    for verified in [false, true] {
        for (name, broken, back) in BROKEN {
            let cpus = [SimCpu::online(0), SimCpu::online(1)];
            let task = new_task();
            let mine = runs(&cpus[0], &task, 12);
            broken(&cpus, &task);
            let cpu = &cpus[back];
            if verified {
                let before = cpu.totals();
                let found = verify(cpu, &task);
                assert!(matches!(found, Err(VerifyError::Disagreement(_))), "{name}: {found:?}");
                assert_eq!(cpu.totals().invalidated, before.invalidated + 1, "{name}");
                assert_eq!(cpu.totals().saved, before.saved, "{name}: no context was saved");
                assert_eq!(verify(cpu, &task), Ok(Verified::MemoryOnly), "{name}");
            }
            enter(cpu, &task);
            // Without the check the task runs with what is there: the duty is really broken.
            assert_eq!(cpu.fpu().registers() == mine, verified, "{name}");
        }
    }
}

#[test]
fn the_first_difference_is_named() {
    for (component, layout) in LAYOUT.iter().enumerate() {
        for word in 0..layout.words {
            let (cpu, task) = (SimCpu::online(0), new_task());
            let mine = runs(&cpu, &task, 5);
            cpu.fpu().write_one(component, word, mine.component(component)[word] ^ 1);
            let offset = (layout.offset + 8 * word) as u32;
            let difference = Difference { component: component as u32, offset };
            let found = verify(&cpu, &task);
            assert_eq!(found, Err(VerifyError::Disagreement(difference)), "{}", layout.name);
        }
    }
}

/// Every component initial or not, over an area that held everything before.
#[test]
fn a_right_kernel_is_not_accused_and_nothing_moves() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let mut kept = scratch(&cpu);
    for present in (0..1 << COMPONENTS).chain([u64::MAX, 0]) {
        let mine = Registers::pattern(present ^ 55, present);
        let look = |kept: &mut _| {
            let before = (format!("{task:?}"), cpu.fpu().registers(), cpu.totals());
            let words = (cpu.words().resident(), cpu.words().gate());
            let answer = task.verify_registers(&mut cpu.preempt_off(), kept);
            assert_eq!(before, (format!("{task:?}"), cpu.fpu().registers(), cpu.totals()));
            assert_eq!(words, (cpu.words().resident(), cpu.words().gate()));
            answer
        };
        enter(&cpu, &task);
        cpu.fpu().load(&mine);
        assert_eq!(look(&mut kept), Ok(Verified::RegistersOnly));
        leave(&cpu, &task);
        assert_eq!(look(&mut kept), Ok(Verified::Agreed), "{present:#b}");
        enter(&cpu, &task);
        leave(&cpu, &task);
        assert_eq!(look(&mut kept), Ok(Verified::Agreed), "{present:#b}");
        cpu.preempt_off().invalidate_registers().expect("online");
        cpu.fpu().scribble(present);
        assert_eq!(look(&mut kept), Ok(Verified::MemoryOnly));
        // Loaded by a session: state 2a straight from memory.
        task.open(&mut cpu.preempt_off()).expect("free").make_registers_valid().expect("loads");
        assert_eq!(look(&mut kept), Ok(Verified::Agreed), "{present:#b}");
        enter(&cpu, &task);
        assert_eq!(cpu.fpu().registers(), mine);
    }
}

/// The check saves elsewhere; what the CPU remembers of the last restore still stands, so a later save to
/// the task's own area may leave out what is unmodified, and does not leave out what is.
#[test]
fn a_check_leaves_the_next_save_whole() {
    for component in 0..COMPONENTS {
        let (cpu, task) = (SimCpu::online(0), new_task());
        let mut mine = runs(&cpu, &task, 6);
        cpu.preempt_off().invalidate_registers().expect("online");
        cpu.fpu().scribble(6);
        task.open(&mut cpu.preempt_off()).expect("free").make_registers_valid().expect("loads");
        assert_eq!(verify(&cpu, &task), Ok(Verified::Agreed));
        enter(&cpu, &task);
        cpu.fpu().write_one(component, 1, 77);
        mine.component_mut(component)[1] = 77;
        leave(&cpu, &task);
        assert_eq!(verify(&cpu, &task), Ok(Verified::Agreed));
        cpu.preempt_off().invalidate_registers().expect("online");
        cpu.fpu().scribble(7);
        enter(&cpu, &task);
        assert_eq!(cpu.fpu().registers(), mine, "component {component}");
    }
}

/// A disagreement ends the task's claim and no other.
#[test]
fn a_persistent_context_is_checked_like_a_task() {
    let (cpu, task, guest) = (SimCpu::online(0), new_task(), new_task());
    runs(&cpu, &task, 8);
    let inside = Registers::pattern(9, u64::MAX);
    let ran = cpu.preempt_off().run_guest(guest.context(), Some(task.context()), || {
        cpu.fpu().load(&inside);
    });
    ran.expect("free");
    assert_eq!(verify(&cpu, &guest), Ok(Verified::Agreed));
    assert_eq!(verify(&cpu, &task), Ok(Verified::MemoryOnly));
    cpu.fpu().set_avx0(1);
    assert!(matches!(verify(&cpu, &guest), Err(VerifyError::Disagreement(_))));
    let ran = cpu.preempt_off().run_guest(guest.context(), Some(task.context()), || {
        assert_eq!(cpu.fpu().registers(), inside);
    });
    ran.expect("free");
}

#[test]
fn a_scratch_that_does_not_fit_comes_back_untouched() {
    #[repr(align(128))]
    struct Aligned([u8; 2 * AREA_LEN]);
    let cpu = SimCpu::online(0);
    let mut memory = Aligned([0xA5; 2 * AREA_LEN]);
    let base = core::ptr::NonNull::from(&mut memory.0).cast::<u8>();
    for (offset, len, expect) in [
        (0, AREA_LEN - 1, AreaError::TooSmall { need: AREA_LEN, have: AREA_LEN - 1 }),
        (32, AREA_LEN + 64, AreaError::Misaligned { need: 64 }),
    ] {
        // SAFETY: the offset is inside the memory.
        let start = unsafe { core::ptr::NonNull::new_unchecked(base.as_ptr().add(offset)) };
        // SAFETY: K19: inside the memory, which nothing else accesses until the area is back.
        let area = unsafe { RawArea::new(start, len) };
        let NewError { why, area } = Scratch::new(cpu.fpu(), area).expect_err("it must be refused");
        assert_eq!((why, area.base(), area.len()), (expect, start, len));
    }
    assert!(memory.0.iter().all(|&byte| byte == 0xA5), "a refused area was written");
    let larger = Scratch::new(cpu.fpu(), Area::<{ 2 * AREA_LEN }>::new());
    assert_eq!(larger.expect("more is enough").into_area().len(), 2 * AREA_LEN);
    assert_eq!(cpu.fpu().area_len(), AREA_LEN);
}

#[test]
fn a_check_inside_a_section_is_refused() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let mine = runs(&cpu, &task, 10);
    let inside = cpu.preempt_off().with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || {
        cpu.fpu().scribble(10);
        verify(&cpu, &task)
    });
    assert_eq!(inside, Ok(Err(VerifyError::Refused(Error::Busy))));
    assert_eq!(verify(&cpu, &task), Ok(Verified::MemoryOnly));
    enter(&cpu, &task);
    assert_eq!(cpu.fpu().registers(), mine);
}

/// The task is moved in memory while the registers still hold it, and the scratch lies where it was: the CPU takes
/// a save there for one to the area of its last restore, and leaves out what has not changed since.
#[test]
fn a_scratch_in_the_place_of_the_task_accuses_nobody() {
    enum Slot {
        Task(Task),
        Scratch(Scratch<SimFpu, SimArea>),
    }
    let cpu = SimCpu::online(0);
    let mut slots = [Slot::Task(new_task()), Slot::Scratch(scratch(&cpu))];
    let Slot::Task(task) = &slots[0] else { unreachable!() };
    let mine = runs(&cpu, task, 1);
    cpu.irqs_off().invalidate_registers().expect("online");
    cpu.fpu().scribble(7);
    // Restored, and nothing changed: all of it is unmodified for the CPU.
    enter(&cpu, task);
    leave(&cpu, task);
    slots.swap(0, 1);
    let [Slot::Scratch(scratch), Slot::Task(task)] = &mut slots else { unreachable!() };
    assert_eq!(task.verify_registers(&mut cpu.preempt_off(), scratch), Ok(Verified::Agreed));
    assert_eq!(cpu.fpu().registers(), mine);
}
