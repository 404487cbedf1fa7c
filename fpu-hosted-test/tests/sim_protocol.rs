//! The scheme over the simulated CPU, with what was saved and restored counted.

use fpu_core::{
    observe::{Event, EventKind, Totals},
    session::TaskState,
    CpuLifecycle, Error, KernelFpu, KernelUnits, RawFpu, SaveArea, TaskFpu,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Registers, SimArea, SimCpu, SimFpu, SimStopped, COMPONENTS, LAYOUT},
};
use fpu_x86::units::{SIMD, X87};

fn enter(cpu: &SimCpu, task: &Task) {
    drop(task.switch_return(&mut cpu.irqs_off()).expect("the CPU is free"));
}
fn leave(cpu: &SimCpu, task: &Task) {
    task.switch_prepare(&cpu.irqs_off()).expect("it is current here");
}
/// The task runs in user mode and leaves this seed's pattern in every register.
fn run(cpu: &SimCpu, task: &Task, seed: u64) -> Registers {
    enter(cpu, task);
    let mine = Registers::pattern(seed, u64::MAX);
    cpu.fpu().load(&mine);
    mine
}
fn finds(cpu: &SimCpu, task: &Task, expect: &Registers) {
    enter(cpu, task);
    assert_eq!(cpu.fpu().registers(), *expect);
}
fn counts(cpu: &SimCpu) -> (u64, u64, u64) {
    let Totals { saved, restored, skipped, .. } = cpu.totals();
    (saved, restored, skipped)
}
fn stopped_registers(task: &Task) -> Registers {
    task.stopped(&mut SimStopped::of(task.context()))
        .expect("it was switched out")
        .image()
        .registers()
}

#[test]
fn t1_switching_out_saves_once_and_leaves_the_registers_alone() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    leave(&cpu, &task); // 2b: nothing
    assert_eq!(counts(&cpu), (0, 0, 0));
    let mine = run(&cpu, &task, 1);
    leave(&cpu, &task); // 1: saved
    assert_eq!((counts(&cpu), cpu.fpu().registers()), ((1, 1, 0), mine.clone()));
    assert!(task.registers_valid(&cpu.irqs_off()));
    leave(&cpu, &task); // 2a: nothing
    assert_eq!(counts(&cpu), (1, 1, 0));
    assert_eq!(stopped_registers(&task), mine);
}

#[test]
fn t2_a_task_that_stays_in_the_kernel_costs_nothing() {
    let (cpu, user, kernel_bound) = (SimCpu::online(0), new_task(), new_task());
    let mine = run(&cpu, &user, 2);
    leave(&cpu, &user);
    for _ in 0..10 {
        leave(&cpu, &kernel_bound); // in and out again without user mode
    }
    finds(&cpu, &user, &mine);
    assert_eq!(counts(&cpu), (1, 1, 1));
}

#[test]
fn t3_task_idle_task_restores_nothing() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let mut mine = run(&cpu, &task, 3);
    for round in 0..100 {
        leave(&cpu, &task); // idle and kernel threads have no context: nothing to call for them
        finds(&cpu, &task, &mine);
        mine = Registers::pattern(round, u64::MAX);
        cpu.fpu().load(&mine);
    }
    assert_eq!(counts(&cpu), (100, 1, 100));
}

#[test]
fn t3_two_tasks_alternate_and_each_finds_its_own() {
    let (cpu, a, b) = (SimCpu::online(0), new_task(), new_task());
    let (mut of_a, mut of_b) = (Registers::initial(), Registers::initial());
    for round in 0..50 {
        finds(&cpu, &a, &of_a);
        of_a = run(&cpu, &a, round);
        leave(&cpu, &a);
        finds(&cpu, &b, &of_b);
        of_b = run(&cpu, &b, !round);
        leave(&cpu, &b);
    }
    assert_eq!(counts(&cpu), (100, 100, 0));
}

#[test]
fn t3_migration_restores_where_the_task_goes_and_trusts_no_older_copy() {
    let (cpus, task) = ([SimCpu::online(0), SimCpu::online(1)], new_task());
    let mut mine = Registers::initial();
    for round in 0..20 {
        let cpu = &cpus[round as usize % 2];
        finds(cpu, &task, &mine); // this CPU's registers still hold what it had two rounds ago
        mine = run(cpu, &task, round);
        leave(cpu, &task);
    }
    assert_eq!((counts(&cpus[0]), counts(&cpus[1])), ((10, 10, 0), (10, 10, 0)));
}

#[test]
fn t4_every_transition_of_the_session() {
    let (mut found, cpu, task) = (Vec::new(), SimCpu::online(0), new_task());
    let mut note = |task: &Task| {
        found.push(task.open(&mut cpu.preempt_off()).expect("free").name());
    };
    note(&task); // 2b
    task.open(&mut cpu.irqs_off()).expect("free").make_registers_valid().expect("good image");
    note(&task); // 2a
    let mine = run(&cpu, &task, 4);
    note(&task); // 1
    let mut pin = cpu.preempt_off();
    let read = task.open(&mut pin).expect("free").make_memory_valid_read();
    assert_eq!(read.image().registers(), mine);
    let mut write = read.make_memory_valid_write();
    let wanted = Registers::pattern(5, 0b0101);
    write.image_mut().set(&wanted);
    assert_eq!(write.image().registers(), wanted);
    drop(write);
    note(&task); // 2b
    finds(&cpu, &task, &wanted);
    if let Ok(TaskState::RegistersOnly(session)) = task.open(&mut cpu.preempt_off()) {
        session.switch_prepare();
    }
    note(&task); // 2a
    if let Ok(TaskState::Both(session)) = task.open(&mut cpu.irqs_off()) {
        drop(session.switch_return());
    }
    note(&task); // 1
    if let Ok(TaskState::RegistersOnly(session)) = task.open(&mut cpu.preempt_off()) {
        drop(session.make_memory_valid_write());
    }
    note(&task); // 2b
    let (one, both, memory) = ("registers only", "both", "memory only");
    assert_eq!(found, [memory, both, one, memory, both, one, memory]);
    finds(&cpu, &task, &wanted);
}

#[test]
fn t4_what_is_written_is_what_runs_next_although_the_registers_still_hold_the_old() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    for (component, layout) in LAYOUT.iter().enumerate() {
        let mut mine = run(&cpu, &task, 6);
        let value = 0x1234 & layout.legal;
        let mut pin = cpu.preempt_off();
        let mut session = task.open(&mut pin).expect("free").make_memory_valid_write();
        session.image_mut().set_component(component, &[value]);
        drop(session);
        mine.component_mut(component)[0] = value;
        finds(&cpu, &task, &mine);
        leave(&cpu, &task);
        let mut proof = SimStopped::of(task.context());
        let stopped = task.stopped(&mut proof).expect("it was switched out");
        assert_eq!(stopped.image().registers(), mine);
        stopped.make_memory_valid_write().image_mut().set_component(component, &[value ^ 1]);
        mine.component_mut(component)[0] = value ^ 1;
        finds(&cpu, &task, &mine);
    }
}

#[test]
fn t5_many_sections_in_one_system_call_save_once_and_restore_once() {
    for sections in [1, 2, 7] {
        let (cpu, task) = (SimCpu::online(0), new_task());
        let mine = run(&cpu, &task, 7);
        let before = counts(&cpu);
        for nth in 0..sections {
            cpu.preempt_off()
                .with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || cpu.fpu().scribble(nth))
                .expect("free");
        }
        finds(&cpu, &task, &mine);
        let after = counts(&cpu);
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1), "{sections} sections");
    }
}

#[test]
fn t5_a_section_finds_the_control_words_it_asked_for() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let initial = Registers::initial();
    for (units, x87, simd) in [
        (KernelUnits::ALL, true, true),
        (X87, true, false),
        (SIMD, false, true),
        (KernelUnits::NONE, false, false),
    ] {
        let mine = run(&cpu, &task, 8);
        let mut pin = cpu.preempt_off();
        let section = pin.kernel_fpu(Some(task.context()), units).expect("free");
        let inside = cpu.fpu().registers();
        assert_eq!(cpu.fpu().section(), Some(units));
        drop(section);
        assert_eq!(cpu.fpu().section(), None, "the backend was told of the end");
        assert_eq!(inside.component(0) == initial.component(0), x87, "{units:?}");
        assert_eq!(inside.component(1)[0] == initial.component(1)[0], simd, "{units:?}");
        finds(&cpu, &task, &mine);
    }
}

#[test]
fn t6_a_persistent_context_skips_the_restore_until_somebody_else_was_there() {
    let (cpu, guest, host) = (SimCpu::online(0), new_task(), new_task());
    let mut inside = Registers::initial();
    let mut enter_guest = |seed: u64| {
        let ran = cpu.preempt_off().run_guest(guest.context(), Some(host.context()), || {
            assert_eq!(cpu.fpu().registers(), inside, "the guest found something else");
            inside = Registers::pattern(seed, u64::MAX);
            cpu.fpu().load(&inside);
            // Inside, no other code gets the registers.
            let intruder = cpu.interrupted().with_kernel_fpu(None, KernelUnits::ALL, || ());
            assert_eq!(intruder, Err(Error::Busy));
        });
        ran.expect("free");
        assert_eq!(cpu.fpu().section(), None, "its registers stay claimed: no section ends");
    };
    let of_host = run(&cpu, &host, 9);
    enter_guest(1); // host saved, guest loaded
    enter_guest(2);
    enter_guest(3);
    assert_eq!(counts(&cpu), (1 + 3, 1 + 1, 2));
    cpu.preempt_off()
        .with_kernel_fpu(Some(host.context()), KernelUnits::ALL, || cpu.fpu().scribble(4))
        .expect("free");
    enter_guest(5); // noticed
    assert_eq!(counts(&cpu), (1 + 4, 1 + 2, 2));
    finds(&cpu, &host, &of_host);
    enter_guest(6); // the host was there: noticed
    finds(&cpu, &host, &of_host);
    assert_eq!(counts(&cpu), (1 + 4 + 2, 1 + 3 + 2, 2));
}

#[test]
fn t6_a_persistent_context_that_moves_is_loaded_there() {
    let (cpus, guest) = ([SimCpu::online(0), SimCpu::online(1)], new_task());
    let mut inside = Registers::initial();
    for round in 0..10 {
        let cpu = &cpus[round as usize / 2 % 2];
        let ran = cpu.preempt_off().run_guest(guest.context(), None, || {
            assert_eq!(cpu.fpu().registers(), inside);
            inside = Registers::pattern(round, u64::MAX);
            cpu.fpu().load(&inside);
        });
        ran.expect("free");
    }
    let (zero, one) = (counts(&cpus[0]), counts(&cpus[1]));
    assert_eq!((zero, one), ((6, 3, 3), (4, 2, 2)));
}

#[test]
fn t9_a_fresh_task_has_exactly_the_initial_state_in_both_places() {
    let cpu = SimCpu::online(0);
    cpu.fpu().scribble(10);
    let task = new_task();
    assert_eq!(stopped_registers(&task), Registers::initial());
    finds(&cpu, &task, &Registers::initial());
    leave(&cpu, &task);
    assert_eq!(stopped_registers(&task), Registers::initial());
}

#[test]
fn t9_an_area_that_held_another_tasks_state_shows_nothing_of_it() {
    let cpu = SimCpu::online(0);
    let old = new_task();
    run(&cpu, &old, 11);
    leave(&cpu, &old);
    let Ok(task) = TaskFpu::new(cpu.fpu(), old.into_area()) else { panic!("the area fits") };
    assert_eq!(stopped_registers(&task), Registers::initial());
    finds(&cpu, &task, &Registers::initial());
}

#[test]
fn t12_a_context_is_dropped_while_registers_hold_it_and_its_memory_used_again() {
    let cpu = SimCpu::online(0);
    for live in [false, true] {
        let old = Box::new(new_task());
        run(&cpu, &old, 12);
        if !live {
            leave(&cpu, &old);
        }
        let (before, words) = (cpu.totals(), Box::into_raw(old));
        // The same address for the next one: what a pointer comparison would be fooled by.
        // SAFETY: `words` came from `Box::into_raw`, is valid, and is written before it is used again.
        let new = unsafe {
            core::ptr::drop_in_place(words);
            words.write(new_task());
            Box::from_raw(words)
        };
        assert_eq!(cpu.totals(), before, "dropping did something");
        assert!(!new.registers_valid(&cpu.irqs_off()));
        finds(&cpu, &new, &Registers::initial());
        leave(&cpu, &new);
    }
}

#[test]
fn fork_copies_the_live_state_and_leaves_out_what_a_child_does_not_get() {
    let (cpu, parent) = (SimCpu::online(0), new_task());
    for saved in [false, true] {
        let mine = run(&cpu, &parent, 13);
        if saved {
            leave(&cpu, &parent);
        }
        let mut child = new_task();
        parent.fork_into(&mut cpu.preempt_off(), &mut child).expect("free");
        assert!(!child.registers_valid(&cpu.irqs_off()));
        let mut expect = mine.clone();
        expect.component_mut(3).fill(0); // the tile
        assert_eq!(stopped_registers(&child), expect);
        finds(&cpu, &parent, &mine);
        leave(&cpu, &parent);
        finds(&cpu, &child, &expect);
        leave(&cpu, &child);
        finds(&cpu, &parent, &mine);
    }
}

#[test]
fn reset_gives_the_initial_state_whatever_was_before() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    for prepare in [|_: &SimCpu, _: &Task| {}, leave] {
        run(&cpu, &task, 14);
        prepare(&cpu, &task);
        task.reset(&mut cpu.preempt_off()).expect("free");
        assert_eq!(stopped_registers(&task), Registers::initial());
        finds(&cpu, &task, &Registers::initial());
    }
}

#[test]
fn offline_and_resume_end_every_claim() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let mine = run(&cpu, &task, 15);
    leave(&cpu, &task);
    cpu.irqs_off().fpu_offline().expect("online");
    cpu.fpu().lose_power();
    // SAFETY: K15, K16: the number it had, its words kept.
    unsafe { cpu.irqs_off().fpu_online(0) }.expect("offline");
    finds(&cpu, &task, &mine);
    leave(&cpu, &task);
    cpu.fpu().lose_power();
    cpu.irqs_off().fpu_resume().expect("online");
    finds(&cpu, &task, &mine);
    assert_eq!(counts(&cpu), (2, 3, 0));
}

#[test]
fn offline_and_back_many_times_never_meets_an_old_claim() {
    let (cpu, tasks) = (SimCpu::online(0), [new_task(), new_task(), new_task()]);
    let mut of: [Registers; 3] = core::array::from_fn(|_| Registers::initial());
    for round in 0..60 {
        let nth = round % 3;
        finds(&cpu, &tasks[nth], &of[nth]);
        of[nth] = run(&cpu, &tasks[nth], round as u64);
        leave(&cpu, &tasks[nth]);
        cpu.irqs_off().fpu_offline().expect("online");
        cpu.fpu().lose_power();
        // SAFETY: K15, K16: the number it had, its words kept.
        unsafe { cpu.irqs_off().fpu_online(0) }.expect("offline");
    }
    assert_eq!(cpu.totals().skipped, 0);
}

#[test]
fn events_tell_the_story_in_order() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    cpu.record_events();
    run(&cpu, &task, 16);
    leave(&cpu, &task);
    enter(&cpu, &task);
    let section = cpu.preempt_off().with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || ());
    section.expect("free");
    cpu.fpu().fail_restore(1);
    assert!(task.switch_return(&mut cpu.irqs_off()).is_err());
    let events = cpu.take_events();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    use EventKind::{Failed, Invalidated, Loaded, Restored, Saved, Skipped, Unloaded};
    let first = [Restored, Loaded, Saved, Unloaded, Skipped, Loaded];
    assert_eq!(kinds, [&first[..], &[Saved, Unloaded, Invalidated, Failed]].concat());
    let (whole, own): (Vec<Event>, Vec<Event>) =
        events.iter().partition(|event| event.context == 0);
    assert!(whole.iter().all(|event| event.kind == Invalidated) && whole.len() == 1);
    assert!(own.iter().all(|event| event.context == &task as *const Task as usize));
}

#[test]
fn loads_and_unloads_balance() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    for round in 0..20 {
        run(&cpu, &task, round);
        if round % 3 == 0 {
            drop(task.open(&mut cpu.preempt_off()).expect("free").make_memory_valid_write());
        } else {
            leave(&cpu, &task);
        }
    }
    // A session's write takes the registers away too, but says so as an invalidation.
    let Totals { loaded, unloaded, invalidated, restored, skipped, .. } = cpu.totals();
    assert_eq!(loaded, restored + skipped);
    assert_eq!(loaded, unloaded + invalidated - 1, "one invalidation was the CPU's coming online");
}

#[test]
fn the_init_optimisation_leaves_old_bytes_that_nobody_sees() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    run(&cpu, &task, 17);
    leave(&cpu, &task);
    let few = Registers::pattern(18, 0b0001);
    enter(&cpu, &task);
    cpu.fpu().load(&few);
    leave(&cpu, &task);
    assert_eq!(stopped_registers(&task), few);
    cpu.irqs_off().invalidate_registers().expect("online");
    cpu.fpu().scribble(19);
    finds(&cpu, &task, &few);
    leave(&cpu, &task);
    // The bytes are still there: this is what makes it worth testing.
    let area = task.into_area();
    let tile = LAYOUT[3].offset;
    // SAFETY: the area is ours again, and the offset is inside it.
    let old = unsafe { area.base().as_ptr().add(tile).cast::<u64>().read() };
    assert_eq!(old, Registers::pattern(17, u64::MAX).component(3)[0]);
}

#[test]
fn the_modified_optimisation_leaves_out_what_was_not_written() {
    let (fpu, area) = (SimFpu::new(), SimArea::new());
    // SAFETY: C9: an area of ours that fits. C10: simulated registers.
    unsafe { fpu.save(area.base()) };
    fpu.scribble(1);
    // SAFETY: C9: an area of ours that fits. C10: simulated registers.
    unsafe { fpu.save(area.base()) };
    // SAFETY: C9: an image that was saved. C10: simulated registers.
    unsafe { fpu.restore(area.base()) }.expect("its own image");
    // SAFETY: the offset is inside the area.
    let word = unsafe { area.base().as_ptr().add(LAYOUT[2].offset).cast::<u64>() };
    // SAFETY: inside the area, which is ours; the write breaks the promise of B7 (sound omission) on purpose.
    unsafe { word.write(7) };
    // SAFETY: as for the first save.
    unsafe { fpu.save(area.base()) };
    // SAFETY: inside the area, which is ours.
    assert_eq!(unsafe { word.read() }, 7, "it was written although nothing had changed");
}

#[test]
fn the_modified_optimisation_is_right_under_the_protocol() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let mut mine = run(&cpu, &task, 20);
    leave(&cpu, &task);
    cpu.irqs_off().invalidate_registers().expect("online");
    for round in 0..30_u64 {
        enter(&cpu, &task);
        assert_eq!(cpu.fpu().registers(), mine);
        let component = round as usize % COMPONENTS;
        cpu.fpu().write_one(component, 1, round);
        mine.component_mut(component)[1] = round;
        leave(&cpu, &task);
        if round % 5 == 0 {
            cpu.irqs_off().invalidate_registers().expect("online");
            cpu.fpu().scribble(round);
        }
    }
    assert_eq!(stopped_registers(&task), mine);
}

#[test]
fn areas_of_every_kind_work() {
    fn round_trip<A: SaveArea>(cpu: &SimCpu, task: &TaskFpu<SimFpu, A>) {
        let mine = Registers::pattern(21, u64::MAX);
        drop(task.switch_return(&mut cpu.irqs_off()).expect("free"));
        cpu.fpu().load(&mine);
        task.switch_prepare(&cpu.irqs_off()).expect("live here");
        cpu.irqs_off().invalidate_registers().expect("online");
        cpu.fpu().scribble(22);
        drop(task.switch_return(&mut cpu.irqs_off()).expect("free"));
        assert_eq!(cpu.fpu().registers(), mine);
    }
    let cpu = SimCpu::online(0);
    round_trip(&cpu, &new_task());
    let Ok(boxed) = TaskFpu::new(cpu.fpu(), Box::new(SimArea::new())) else { panic!("it fits") };
    round_trip(&cpu, &boxed);
    let Ok(larger) = TaskFpu::new(cpu.fpu(), fpu_core::Area::<4096>::new()) else {
        panic!("it fits")
    };
    round_trip(&cpu, &larger);
}
