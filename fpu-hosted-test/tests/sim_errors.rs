//! Every refusal: the right error, and nothing changed but what the error says.

use fpu_core::{
    session::TaskState,
    switch,
    verify::{Scratch, VerifyError},
    Area, AreaError, CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits, NewError, PendingGuest,
    PendingSection, RawArea, RawFpu, RestoreFault, SaveArea, SwitchSteps, TaskFpu, MAX_CPUS,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Registers, SimArea, SimCpu, SimStopped, AREA_LEN, COMPONENTS},
};

type Operation = (&'static str, fn(&SimCpu, &Task) -> Result<(), Error>);

/// Every operation that can be refused, each with the weakest witness it takes.
const OPERATIONS: [Operation; 22] = [
    ("switch_prepare", |cpu, task| task.switch_prepare(&cpu.irqs_off())),
    ("switch_return", |cpu, task| task.switch_return(&mut cpu.irqs_off()).map(drop)),
    ("switch_in", |cpu, task| task.switch_in(&mut cpu.irqs_off())),
    ("switch", |cpu, task| Ok(switch(None, Some(task.context()), &mut cpu.irqs_off())?)),
    // SAFETY: C37, C38: it is refused, or no code looks at the registers that it takes.
    ("adopt", |cpu, task| unsafe { task.adopt(&mut cpu.irqs_off()) }),
    ("begin_switch_out", |cpu, task| task.begin_switch_out(&mut cpu.irqs_off()).map(drop)),
    ("begin_user", |cpu, task| task.begin_user(&mut cpu.irqs_off()).map(drop)),
    ("switch to", |cpu, task| {
        SwitchSteps::begin(&mut cpu.irqs_off(), None, Some(task.context())).map(drop)
    }),
    ("switch from", |cpu, task| {
        SwitchSteps::begin(&mut cpu.irqs_off(), Some(task.context()), None).map(drop)
    }),
    ("open", |cpu, task| task.open(&mut cpu.preempt_off()).map(drop)),
    ("open_saved", |cpu, task| task.open_saved(&mut cpu.preempt_off()).map(drop)),
    ("fork", |cpu, task| task.fork_into(&mut cpu.preempt_off(), &mut new_task())),
    ("reset", |cpu, task| task.reset(&mut cpu.preempt_off())),
    ("verify", verify),
    ("section", |cpu, task| {
        let ran = cpu.preempt_off().with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || ());
        ran
    }),
    ("section's steps", |cpu, task| {
        let (mut cpu, told) = (cpu.preempt_off(), Some(task.context()));
        let begun = PendingSection::begin(&mut cpu, told, KernelUnits::ALL).map(drop);
        begun
    }),
    ("guest's steps", |cpu, task| {
        let mut cpu = cpu.preempt_off();
        let begun = PendingGuest::begin(&mut cpu, task.context(), None).map(drop);
        begun
    }),
    ("persistent", |cpu, task| {
        cpu.preempt_off().run_guest(task.context(), None, || unreachable!("it was refused"))
    }),
    ("invalidate", |cpu, _| cpu.preempt_off().invalidate_registers()),
    ("resume", |cpu, _| cpu.preempt_off().fpu_resume()),
    ("idle", |cpu, _| cpu.preempt_off().fpu_idle().map(drop)),
    ("offline", |cpu, _| cpu.preempt_off().fpu_offline()),
];

/// Those that a task in memory needs nothing for.
const SAVED: [&str; 3] = ["switch_prepare", "begin_switch_out", "switch from"];

fn verify(cpu: &SimCpu, task: &Task) -> Result<(), Error> {
    let Ok(mut scratch) = Scratch::new(cpu.fpu(), SimArea::new()) else { panic!("the area fits") };
    match task.verify_registers(&mut cpu.preempt_off(), &mut scratch) {
        Ok(_) => Ok(()),
        Err(VerifyError::Refused(why)) => Err(why),
        Err(why) => panic!("{why}"),
    }
}

/// All that an operation could change. (The image is looked at by what is loaded from it later.)
#[derive(Debug, PartialEq)]
struct Snapshot(u64, u64, String, Registers, fpu_core::observe::Totals);

fn snapshot(cpu: &SimCpu, task: &Task) -> Snapshot {
    let words = cpu.words();
    let (word, registers) = (format!("{task:?}"), cpu.fpu().registers());
    Snapshot(words.resident(), words.gate(), word, registers, cpu.totals())
}

/// Tries every operation; those named in `fine` may succeed and are not tried, all others must be
/// refused with `why` and change nothing.
fn all_refused(cpu: &SimCpu, task: &Task, why: Error, fine: &[&str]) {
    let before = snapshot(cpu, task);
    let mut refused = 0;
    for (name, operation) in OPERATIONS {
        if fine.contains(&name) {
            continue;
        }
        assert_eq!(operation(cpu, task), Err(why), "{name}");
        assert_eq!(snapshot(cpu, task), before, "{name} changed something");
        refused += 1;
    }
    assert_eq!(refused + fine.len(), OPERATIONS.len());
}

fn enter(cpu: &SimCpu, task: &Task) {
    drop(task.switch_return(&mut cpu.irqs_off()).expect("the CPU is free"));
}

/// Puts a task into memory only, holding this seed's registers, and garbage into the CPU.
fn put_away(cpu: &SimCpu, task: &Task, seed: u64) -> Registers {
    let mine = Registers::pattern(seed, u64::MAX);
    enter(cpu, task);
    cpu.fpu().load(&mine);
    task.switch_prepare(&cpu.irqs_off()).expect("it is live here");
    cpu.preempt_off().invalidate_registers().expect("online");
    cpu.fpu().scribble(seed);
    mine
}

/// The task still has what it had, on this CPU or another.
fn still_holds(cpu: &SimCpu, task: &Task, registers: &Registers) {
    enter(cpu, task);
    assert_eq!(cpu.fpu().registers(), *registers);
}

#[test]
fn a_cpu_that_was_never_online() {
    let (there, here, task) = (SimCpu::online(1), SimCpu::offline(), new_task());
    let mine = put_away(&there, &task, 1);
    // A task in memory needs nothing saved: nothing is asked of the CPU.
    all_refused(&here, &task, Error::CpuOffline, &SAVED);
    assert_eq!(task.switch_prepare(&here.irqs_off()), Ok(()));
    still_holds(&there, &task, &mine);
}

#[test]
fn a_cpu_that_went_offline() {
    let (cpu, other, task) = (SimCpu::online(0), SimCpu::online(1), new_task());
    let mine = put_away(&cpu, &task, 2);
    cpu.irqs_off().fpu_offline().expect("online");
    all_refused(&cpu, &task, Error::CpuOffline, &SAVED);
    still_holds(&other, &task, &mine);
}

#[test]
fn online_twice_and_numbers_out_of_range() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let before = snapshot(&cpu, &task);
    for number in [0, 1, MAX_CPUS] {
        // SAFETY: K15, K16: refused, so no number is given out.
        let answer = unsafe { cpu.irqs_off().fpu_online(number) };
        assert_eq!(answer, Err(Error::CpuOnline));
    }
    assert_eq!(snapshot(&cpu, &task), before);
    let off = SimCpu::offline();
    let before = snapshot(&off, &task);
    for number in [MAX_CPUS, MAX_CPUS + 1, u32::MAX] {
        // SAFETY: K15, K16: no such number is given out.
        let answer = unsafe { off.irqs_off().fpu_online(number) };
        assert_eq!(answer, Err(Error::InvalidCpu));
        assert_eq!(snapshot(&off, &task), before);
    }
    // SAFETY: K15: no other CPU of this test has it. K16: new words.
    assert_eq!(unsafe { off.irqs_off().fpu_online(MAX_CPUS - 1) }, Ok(()));
}

#[test]
fn an_area_that_is_too_small_or_misaligned_comes_back_untouched() {
    #[repr(align(128))]
    struct Aligned([u8; 2 * AREA_LEN]);
    let cpu = SimCpu::online(0);
    let mut memory = Aligned([0xA5; 2 * AREA_LEN]);
    let base = core::ptr::NonNull::from(&mut memory.0).cast::<u8>();
    for (offset, len, expect) in [
        (0, AREA_LEN - 1, AreaError::TooSmall { need: AREA_LEN, have: AREA_LEN - 1 }),
        (0, 0, AreaError::TooSmall { need: AREA_LEN, have: 0 }),
        (8, AREA_LEN, AreaError::Misaligned { need: 64 }),
        (32, AREA_LEN + 64, AreaError::Misaligned { need: 64 }),
        (1, AREA_LEN, AreaError::Misaligned { need: 64 }),
    ] {
        // SAFETY: the offset is inside the memory.
        let start = unsafe { core::ptr::NonNull::new_unchecked(base.as_ptr().add(offset)) };
        // SAFETY: K19: inside the memory, which nothing else accesses until the area is back.
        let area = unsafe { RawArea::new(start, len) };
        let NewError { why, area } = TaskFpu::new(cpu.fpu(), area).expect_err("it must be refused");
        assert_eq!((why, area.base(), area.len()), (expect, start, len));
    }
    assert!(memory.0.iter().all(|&byte| byte == 0xA5), "a refused area was written");
    // SAFETY: K19: the whole memory, which no other code accesses.
    let area = unsafe { RawArea::new(base, AREA_LEN) };
    assert!(TaskFpu::new(cpu.fpu(), area).is_ok());
    let boxed = Box::new(Area::<{ AREA_LEN + 1 }>::new());
    assert!(TaskFpu::new(cpu.fpu(), boxed).is_ok());
}

#[test]
fn inside_a_section_everything_is_busy() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let mine = put_away(&cpu, &task, 3);
    let mut outer = cpu.preempt_off();
    let section = outer.kernel_fpu(None, KernelUnits::ALL).expect("free");
    all_refused(&cpu, &task, Error::Busy, &SAVED);
    let nested = cpu.interrupted().kernel_fpu(None, KernelUnits::NONE).err();
    assert_eq!(nested, Some(Error::Busy));
    drop(section);
    still_holds(&cpu, &task, &mine);
}

#[test]
fn inside_a_session_everything_is_busy() {
    let (cpu, task, other) = (SimCpu::online(0), new_task(), new_task());
    let mine = put_away(&cpu, &task, 4);
    let mut outer = cpu.preempt_off();
    let session = other.open(&mut outer).expect("free");
    all_refused(&cpu, &task, Error::Busy, &SAVED);
    drop(session);
    still_holds(&cpu, &task, &mine);
}

#[test]
fn the_hot_calls_inside_a_session_of_the_same_live_task_change_nothing() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    enter(&cpu, &task);
    let mine = Registers::pattern(5, u64::MAX);
    cpu.fpu().load(&mine);
    let mut outer = cpu.preempt_off();
    let session = task.open(&mut outer).expect("free");
    all_refused(&cpu, &task, Error::Busy, &[]);
    drop(session);
    // Nothing was lost: it is still live, and saved by the next switch.
    task.switch_prepare(&cpu.irqs_off()).expect("it is live here");
    cpu.fpu().lose_power();
    cpu.irqs_off().fpu_resume().expect("online");
    still_holds(&cpu, &task, &mine);
}

#[test]
fn a_non_maskable_interrupt_is_refused_everywhere() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    enter(&cpu, &task);
    let before = snapshot(&cpu, &task);
    let nmi = Err(Error::Nmi);
    let section = cpu.nmi().with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || ());
    assert_eq!(section, nmi);
    assert_eq!(cpu.nmi().run_guest(new_task().context(), None, || ()), nmi);
    // Also for a context that would be refused for another reason.
    assert_eq!(cpu.nmi().run_guest(task.context(), None, || ()), nmi);
    assert_eq!(task.open(&mut cpu.nmi()).err(), nmi.err());
    assert_eq!(task.open_saved(&mut cpu.nmi()).err(), nmi.err());
    let told = Some(task.context());
    let steps = PendingSection::begin(&mut cpu.nmi(), told, KernelUnits::ALL).map(drop);
    assert_eq!(steps, nmi);
    assert_eq!(PendingGuest::begin(&mut cpu.nmi(), task.context(), None).map(drop), nmi);
    let mut scratch = Scratch::new(cpu.fpu(), SimArea::new()).expect("the area fits");
    let verified = task.verify_registers(&mut cpu.nmi(), &mut scratch);
    assert_eq!(verified.err(), nmi.err().map(VerifyError::Refused));
    assert_eq!(task.reset(&mut cpu.nmi()), nmi);
    assert_eq!(task.fork_into(&mut cpu.nmi(), &mut new_task()), nmi);
    assert_eq!(cpu.nmi().invalidate_registers(), nmi);
    assert_eq!(cpu.nmi().fpu_resume(), nmi);
    assert_eq!(cpu.nmi().fpu_idle(), nmi.map(|()| false));
    assert_eq!(cpu.nmi().fpu_offline(), nmi);
    assert_eq!(snapshot(&cpu, &task), before);
}

#[test]
fn live_on_another_cpu() {
    let (there, here, task) = (SimCpu::online(6), SimCpu::online(0), new_task());
    enter(&there, &task);
    let mine = Registers::pattern(6, u64::MAX);
    there.fpu().load(&mine);
    let why = Error::LiveElsewhere { cpu: 6 };
    all_refused(&here, &task, why, &["reset", "adopt", "invalidate", "resume", "idle", "offline"]);
    assert_eq!(task.stopped(&mut SimStopped::of(task.context())).err(), Some(why));
    task.switch_prepare(&there.irqs_off()).expect("it is live there");
    still_holds(&here, &task, &mine);
}

#[test]
fn lost_with_its_registers() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    enter(&cpu, &task);
    cpu.fpu().scribble(7);
    cpu.irqs_off().invalidate_registers().expect("online"); // unsaved: the kernel's mistake
    all_refused(
        &cpu,
        &task,
        Error::Lost,
        &["reset", "adopt", "invalidate", "resume", "idle", "offline"],
    );
    let stopped = task.stopped(&mut SimStopped::of(task.context())).err();
    assert_eq!(stopped, Some(Error::LiveElsewhere { cpu: 0 }));
    task.reset(&mut cpu.preempt_off()).expect("reset takes any context");
    still_holds(&cpu, &task, &Registers::initial());
}

#[test]
fn a_section_told_of_another_task_loses_the_right_one_and_says_so() {
    let (cpu, current, wrong) = (SimCpu::online(0), new_task(), new_task());
    enter(&cpu, &current);
    cpu.preempt_off()
        .with_kernel_fpu(Some(wrong.context()), KernelUnits::ALL, || ())
        .expect("nothing wrong can be seen yet");
    assert_eq!(current.switch_prepare(&cpu.irqs_off()), Err(Error::Lost));
}

/// The last word from which a claim succeeds, by the documented encoding: one more, and the next would
/// carry out of the word.
fn almost_exhausted(cpu: &SimCpu) {
    let id = cpu.words().resident() & 0x7FFE;
    // SAFETY: a word of this CPU's own range that no context has.
    unsafe { cpu.words().set_resident(0u64.wrapping_sub(2 << 15) | id) };
}

#[test]
fn all_stamps_issued() {
    let (cpu, other) = (SimCpu::online(0), SimCpu::online(1));
    let (task, last) = (new_task(), new_task());
    let mine = put_away(&other, &task, 8);
    almost_exhausted(&cpu);
    enter(&cpu, &last); // the last stamp there is
    let kept = Registers::pattern(9, u64::MAX);
    cpu.fpu().load(&kept);
    let [first, second, third] = SAVED;
    let fine = [first, second, third, "offline", "invalidate", "resume"];
    all_refused(&cpu, &task, Error::Exhausted, &fine);
    // The task that has it can still be saved, run again, and leave.
    last.switch_prepare(&cpu.irqs_off()).expect("live here");
    enter(&cpu, &last);
    last.switch_prepare(&cpu.irqs_off()).expect("live here");
    still_holds(&other, &task, &mine);
    task.switch_prepare(&other.irqs_off()).expect("live there");
    // What clobbers the registers ends the claim, stamps or none.
    assert!(last.registers_valid(&cpu.irqs_off()));
    assert_eq!(cpu.preempt_off().invalidate_registers(), Err(Error::Exhausted));
    cpu.fpu().scribble(3);
    for _ in 0..2 {
        assert!(!last.registers_valid(&cpu.irqs_off()));
        all_refused(
            &cpu,
            &last,
            Error::Exhausted,
            &["switch_prepare", "begin_switch_out", "switch from", "offline"],
        );
    }
    still_holds(&other, &last, &kept);
    // Offline and back under the same number is refused; under a new one it is as good as new.
    cpu.irqs_off().fpu_offline().expect("online");
    // SAFETY: K15, K16: the number it had, its words as left.
    assert_eq!(unsafe { cpu.irqs_off().fpu_online(0) }, Err(Error::Exhausted));
    // SAFETY: K15: a number that no CPU of this test has had.
    assert_eq!(unsafe { cpu.irqs_off().fpu_online(2) }, Ok(()));
    still_holds(&cpu, &task, &mine);
}

/// After a refused restore, from the middle component on, which no injected fault lets through.
fn neither(left: &Registers, trusted: [&Registers; 2]) {
    for registers in trusted {
        assert_ne!(left, registers, "the registers still look right");
        for component in COMPONENTS / 2..COMPONENTS {
            assert_ne!(left.component(component), registers.component(component), "{component}");
        }
    }
}

#[test]
fn an_image_that_is_refused_leaves_neither_the_old_registers_nor_its_own() {
    let cpu = SimCpu::online(0);
    let (image, old) = (Registers::pattern(12, u64::MAX), Registers::pattern(13, u64::MAX));
    for injected in [false, true] {
        let area = SimArea::new();
        cpu.fpu().load(&image);
        // SAFETY: C9: an area of ours that fits. C10: simulated registers.
        unsafe { cpu.fpu().save(area.base()) };
        if injected {
            cpu.fpu().fail_restore(1);
        } else {
            // SAFETY: a reserved word of the header, inside the area.
            unsafe { area.base().as_ptr().cast::<u64>().add(2).write(1) };
        }
        cpu.fpu().load(&old);
        // SAFETY: as for the save.
        let answer = unsafe { cpu.fpu().restore(area.base()) };
        assert_eq!(answer, Err(RestoreFault(if injected { 14 } else { 13 })));
        neither(&cpu.fpu().registers(), [&old, &image]);
    }
}

#[test]
fn a_restore_that_fails_leaves_no_owner_and_the_image_as_it_was() {
    type Load = fn(&SimCpu, &Task) -> Result<(), Error>;
    let loads: [(&str, Load); 7] = [
        ("switch_in", |cpu, task| task.switch_in(&mut cpu.irqs_off())),
        ("switch", |cpu, task| Ok(switch(None, Some(task.context()), &mut cpu.irqs_off())?)),
        ("switch_return", |cpu, task| task.switch_return(&mut cpu.irqs_off()).map(drop)),
        ("make_registers_valid", |cpu, task| {
            task.open(&mut cpu.preempt_off())?.make_registers_valid()
        }),
        ("session switch_return", |cpu, task| {
            let mut cpu = cpu.irqs_off();
            let state = task.open(&mut cpu)?;
            let TaskState::MemoryOnly(session) = state else { unreachable!("it is not here") };
            session.switch_return().map(drop)
        }),
        ("run_guest", |cpu, task| {
            let ran = || unreachable!("its registers are not loaded");
            cpu.preempt_off().run_guest(task.context(), None, ran)
        }),
        ("begin_user", |cpu, task| {
            let mut cpu = cpu.irqs_off();
            let fpu = cpu.cpu().fpu();
            let pending = task.begin_user(&mut cpu)?;
            let from = core::ptr::NonNull::new(pending.steps().restore_from.cast_mut());
            // SAFETY: C9: `pending`'s area. C10: simulated registers.
            let answer = unsafe { fpu.restore(from.expect("a restore is due")) };
            answer.map(|()| unreachable!("it was made to fail")).map_err(|why| pending.failed(why))
        }),
    ];
    for (name, load) in loads {
        let (cpu, task, resident) = (SimCpu::online(0), new_task(), new_task());
        let mine = put_away(&cpu, &task, 10);
        let theirs = Registers::pattern(11, u64::MAX);
        enter(&cpu, &resident);
        cpu.fpu().load(&theirs);
        resident.switch_prepare(&cpu.irqs_off()).expect("live here");
        let before = format!("{task:?}");
        for again in 1..=2 {
            cpu.fpu().fail_restore(1);
            let answer = load(&cpu, &task);
            assert_eq!(answer, Err(Error::RestoreFailed(RestoreFault(14))), "{name} {again}");
            assert_eq!(format!("{task:?}"), before, "{name}: the task claims something");
            assert_eq!(cpu.totals().failed, again, "{name}");
            // What is left is neither, so that code that trusts it is found out.
            neither(&cpu.fpu().registers(), [&theirs, &mine]);
            let valid = |task: &Task| task.registers_valid(&cpu.irqs_off());
            assert!(!valid(&task) && !valid(&resident), "{name}: the registers have an owner");
        }
        // The earlier task is loaded again, not taken for resident.
        still_holds(&cpu, &resident, &theirs);
        resident.switch_prepare(&cpu.irqs_off()).expect("live here");
        still_holds(&cpu, &task, &mine);
    }
}

#[test]
fn a_section_or_session_that_is_never_ended_leaves_the_cpu_busy_and_the_tasks_whole() {
    for leak in ["section", "session"] {
        let (cpu, other, task) = (SimCpu::online(0), SimCpu::online(1), new_task());
        let mine = put_away(&cpu, &task, 12);
        let mut held = cpu.preempt_off();
        if leak == "section" {
            core::mem::forget(held.kernel_fpu(None, KernelUnits::ALL).expect("free"));
        } else {
            core::mem::forget(task.open(&mut held).expect("free"));
        }
        all_refused(&cpu, &task, Error::Busy, &SAVED);
        still_holds(&other, &task, &mine);
    }
}

#[test]
fn the_image_of_a_refused_area_has_the_layout_the_backend_asks_for() {
    let cpu = SimCpu::online(0);
    assert_eq!((SimArea::new().len(), cpu.fpu().area_len()), (AREA_LEN, AREA_LEN));
}
