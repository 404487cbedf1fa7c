//! Contexts that were never used, on a simulated CPU whose kernel meets the trap as its tasks do.

use core::cell::Cell;
use fpu_core::{
    observe::EventKind,
    trap::{switch, TrapError, Trapped},
    CpuLifecycle, Error, KernelFpu, KernelUnits, Pinned, RestoreFault, SwitchError, TaskFpu,
};
use fpu_hosted_test::sim::{Interrupt, SimArea, SimCpu, SimFpu, SimStopped};

type Task = Trapped<TaskFpu<SimFpu, SimArea>>;

fn new(cpu: &SimCpu) -> Task {
    let context = TaskFpu::new(cpu.fpu(), SimArea::new()).unwrap();
    // SAFETY: K22: simulated registers. K23: the tests that break it say so.
    unsafe { Trapped::new(context, cpu.fpu()) }.unwrap()
}

/// The task writes the register that stands for all, and the handler answers the trap if there is one. Returns the number
/// of traps.
fn writes(cpu: &SimCpu, task: &Task, value: u64) -> u64 {
    for traps in 0..2 {
        if cpu.fpu().task_writes(2, 0, value) {
            return traps;
        }
        task.first_use(&mut cpu.interrupted()).unwrap();
    }
    panic!("it traps again");
}
fn kernel_is_well(cpu: &SimCpu) {
    assert_eq!(cpu.fpu().kernel_traps(), 0, "kernel code met the trap");
}

/// One task computes, three do not, and all take turns.
#[test]
fn one_task_that_computes_among_three_that_do_not() {
    const ROUNDS: u64 = 1000;
    let cpu = SimCpu::online(0);
    let tasks: [Task; 4] = [(); 4].map(|()| new(&cpu));
    let mut traps = 0;
    for round in 1..=ROUNDS {
        for (nth, task) in tasks.iter().enumerate() {
            drop(task.switch_return(&mut cpu.irqs_off()).unwrap());
            if nth == 0 {
                assert!(round == 1 || cpu.fpu().avx0() == round - 1, "round {round}");
                traps += writes(&cpu, task, round);
            }
            assert_eq!(cpu.fpu().trap_is_armed(), nth != 0);
            task.switch_prepare(&cpu.irqs_off()).unwrap();
            assert!(!cpu.fpu().trap_is_armed());
        }
    }
    let totals = cpu.totals();
    println!("{ROUNDS} rounds: {} saves, {} restores", totals.saved, totals.restored);
    assert_eq!((traps, totals.saved, totals.restored), (1, ROUNDS, 1));
    assert!(tasks[1..].iter().all(|task| !task.is_used()));
    kernel_is_well(&cpu);
}

/// The same, by whole switches: between two that do not compute nothing is written.
#[test]
fn whole_switches_keep_the_trap_between_tasks_that_do_not_compute() {
    let cpu = SimCpu::online(0);
    let tasks: [Task; 4] = [(); 4].map(|()| new(&cpu));
    let mut prev = None;
    for round in 1..=100 {
        for (nth, next) in tasks.iter().enumerate() {
            switch(prev, Some(next), &mut cpu.irqs_off()).unwrap();
            if nth == 0 {
                writes(&cpu, next, round);
                assert_eq!(cpu.fpu().avx0(), round);
            }
            assert_eq!(cpu.fpu().trap_is_armed(), nth != 0);
            prev = Some(next);
        }
        // To itself, and from one that left already.
        switch(prev, prev, &mut cpu.irqs_off()).unwrap();
        assert!(cpu.fpu().trap_is_armed());
    }
    switch(prev, None, &mut cpu.irqs_off()).unwrap();
    assert!(!cpu.fpu().trap_is_armed());
    assert_eq!((cpu.totals().saved, cpu.totals().restored), (100, 1));
    kernel_is_well(&cpu);
}

/// An ordinary context beside them is never current while the trap is armed, and has what it left.
#[test]
fn an_ordinary_context_beside_knows_nothing_of_the_trap() {
    let cpu = SimCpu::online(0);
    let (scalar, other) = (new(&cpu), TaskFpu::new(cpu.fpu(), SimArea::new()).unwrap());
    for round in 1..=10 {
        drop(other.switch_return(&mut cpu.irqs_off()).unwrap());
        assert_eq!(cpu.fpu().avx0(), round - 1);
        assert!(cpu.fpu().task_writes(2, 0, round));
        other.switch_prepare(&cpu.irqs_off()).unwrap();
        scalar.switch_in(&mut cpu.irqs_off()).unwrap();
        scalar.switch_prepare(&cpu.irqs_off()).unwrap();
    }
    assert_eq!((cpu.totals().restored, cpu.totals().skipped), (1, 9));
    kernel_is_well(&cpu);
}

#[test]
fn a_task_that_moves_is_trapped_on_each_cpu_and_loaded_on_one() {
    let cpus = [SimCpu::online(0), SimCpu::online(1)];
    let task = new(&cpus[0]);
    cpus[1].fpu().scribble(3);
    for cpu in [&cpus[0], &cpus[1]] {
        task.switch_in(&mut cpu.irqs_off()).unwrap();
        assert!(cpu.fpu().trap_is_armed());
        task.switch_prepare(&cpu.irqs_off()).unwrap();
    }
    task.switch_in(&mut cpus[1].irqs_off()).unwrap();
    assert_eq!(writes(&cpus[1], &task, 7), 1);
    task.switch_prepare(&cpus[1].irqs_off()).unwrap();
    task.switch_in(&mut cpus[0].irqs_off()).unwrap();
    assert_eq!((cpus[0].fpu().avx0(), writes(&cpus[0], &task, 8)), (7, 0));
    cpus.iter().for_each(kernel_is_well);
}

/// At every step of a section an interrupt runs a section of its own and goes back by `switch_in`.
#[test]
fn a_section_disarms_and_arms_whatever_interrupts_it() {
    let cpu = SimCpu::online(0);
    let resident = TaskFpu::new(cpu.fpu(), SimArea::new()).unwrap();
    for at in 1.. {
        let task = new(&cpu);
        drop(resident.switch_return(&mut cpu.irqs_off()).unwrap());
        resident.switch_prepare(&cpu.irqs_off()).unwrap();
        task.switch_in(&mut cpu.irqs_off()).unwrap();
        let busy = Cell::new(false);
        let section = || {
            assert!(!cpu.fpu().trap_is_armed());
            cpu.fpu().scribble(1);
        };
        let handler = || {
            let mut irq = cpu.interrupted();
            let ran = task.with_kernel_fpu(&mut irq, KernelUnits::ALL, section);
            assert!(matches!(ran, Ok(()) | Err(Error::Busy)), "step {at}: {ran:?}");
            busy.set(ran.is_err());
            assert!(ran.is_ok() || !cpu.fpu().trap_is_armed() || busy.get());
            let back = task.switch_in(&mut irq);
            assert!(matches!(back, Ok(()) | Err(Error::Busy)), "step {at}: {back:?}");
        };
        let (ran, injection) = cpu.inject(at, Interrupt::Maskable, &handler, || {
            task.with_kernel_fpu(&mut cpu.preempt_off(), KernelUnits::ALL, section)
        });
        assert_eq!(ran, Ok(()), "step {at}");
        assert!(cpu.fpu().trap_is_armed(), "step {at}");
        assert_eq!(writes(&cpu, &task, 5), 1, "step {at}");
        task.switch_prepare(&cpu.irqs_off()).unwrap();
        kernel_is_well(&cpu);
        if !injection.delivered {
            println!("{} steps", at - 1);
            assert!(at > 8);
            return;
        }
    }
}

/// A section of a used context saves it; one before the task was ever switched in leaves the trap alone.
#[test]
fn a_section_of_a_used_context_saves_it() {
    let cpu = SimCpu::online(0);
    let task = new(&cpu);
    let run =
        || task.with_kernel_fpu(&mut cpu.irqs_off(), KernelUnits::ALL, || cpu.fpu().scribble(2));
    run().unwrap();
    assert!(!cpu.fpu().trap_is_armed());
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    writes(&cpu, &task, 9);
    cpu.record_events();
    run().unwrap();
    let told: Vec<_> = cpu.take_events().iter().map(|event| event.kind).collect();
    assert_eq!(told[..2], [EventKind::Saved, EventKind::Unloaded]);
    assert_eq!(cpu.totals().saved, 1);
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    assert_eq!(cpu.fpu().avx0(), 9);
    let busy = cpu.irqs_off().with_kernel_fpu(None, KernelUnits::NONE, || {
        task.with_kernel_fpu(&mut cpu.interrupted(), KernelUnits::NONE, || ())
    });
    assert_eq!(busy, Ok(Err(Error::Busy)));
    assert_eq!(task.with_kernel_fpu(&mut cpu.nmi(), KernelUnits::NONE, || ()), Err(Error::Nmi));
    kernel_is_well(&cpu);
}

/// A section that is told of no task meets the trap at its first instruction, and the handler can tell.
#[test]
fn a_section_that_forgets_the_task_is_noticed() {
    let cpu = SimCpu::online(0);
    let task = new(&cpu);
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    let answer = Cell::new(None);
    cpu.preempt_off()
        .with_kernel_fpu(None, KernelUnits::ALL, || {
            answer.set(Some(task.first_use(&mut cpu.interrupted())));
        })
        .unwrap();
    assert_eq!(answer.get(), Some(Err(TrapError::Refused(Error::Busy))));
    assert!(cpu.fpu().kernel_traps() > 0 && cpu.fpu().trap_is_armed() && !task.is_used());
}

#[test]
fn a_trap_that_is_not_the_contexts_is_refused() {
    let cpus = [SimCpu::online(0), SimCpu::online(1)];
    let task = new(&cpus[0]);
    let first_use = |cpu: &SimCpu| task.first_use(&mut cpu.interrupted());
    assert_eq!(first_use(&cpus[0]), Err(TrapError::NotOurs), "never entered");
    task.switch_in(&mut cpus[0].irqs_off()).unwrap();
    let elsewhere = Error::LiveElsewhere { cpu: 0 };
    assert_eq!(first_use(&cpus[1]), Err(TrapError::Refused(elsewhere)));
    assert_eq!(task.switch_in(&mut cpus[1].irqs_off()), Err(elsewhere));
    assert_eq!(task.switch_prepare(&cpus[1].irqs_off()), Err(elsewhere));
    assert_eq!(task.used(&mut cpus[1].irqs_off()).err(), Some(elsewhere));
    assert_eq!(first_use(&cpus[0]), Ok(()));
    assert_eq!(first_use(&cpus[0]), Err(TrapError::NotOurs), "used");
    cpus.iter().for_each(kernel_is_well);
}

#[test]
fn a_first_use_that_cannot_load_leaves_the_trap_armed() {
    let cpu = SimCpu::online(0);
    let task = new(&cpu);
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    cpu.fpu().fail_restore(1);
    let refused = task.first_use(&mut cpu.interrupted());
    assert_eq!(refused, Err(TrapError::Refused(Error::RestoreFailed(RestoreFault(14)))));
    assert!(cpu.fpu().trap_is_armed() && !task.is_used());
    assert_eq!(writes(&cpu, &task, 3), 1, "again, and now it loads");
    kernel_is_well(&cpu);
}

#[test]
fn a_cpu_that_is_closed_offline_or_used_up_arms_nothing() {
    let cpu = SimCpu::offline();
    let task = new(&cpu);
    assert_eq!(task.switch_in(&mut cpu.irqs_off()), Err(Error::CpuOffline));
    assert_eq!(task.used(&mut cpu.irqs_off()).err(), Some(Error::CpuOffline));
    let cpu = SimCpu::online(0);
    let other = TaskFpu::new(cpu.fpu(), SimArea::new()).unwrap();
    let mut pin = cpu.irqs_off();
    let session = other.open(&mut pin).unwrap();
    assert_eq!(task.switch_in(&mut cpu.interrupted()), Err(Error::Busy));
    let refused = switch(None, Some(&task), &mut cpu.interrupted());
    assert_eq!(refused, Err(SwitchError::Next(Error::Busy)));
    drop(session);
    assert!(!cpu.fpu().trap_is_armed());
    drop(pin);
    // Suspended while no task is current.
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    task.switch_prepare(&cpu.irqs_off()).unwrap();
    assert_eq!(cpu.irqs_off().fpu_idle(), Ok(false));
    cpu.irqs_off().fpu_offline().unwrap();
    cpu.fpu().lose_power();
    // SAFETY: K15, K16: the same CPU again.
    unsafe { cpu.irqs_off().fpu_online(0) }.unwrap();
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    assert_eq!(writes(&cpu, &task, 4), 1);
    kernel_is_well(&cpu);
}

/// A CPU that went offline with the task on it has lost its control registers, or another kernel has them. The context must
/// not be taken for trapped.
#[test]
fn a_cpu_that_was_offline_is_armed_again() {
    let cpu = SimCpu::online(0);
    let (task, next) = (new(&cpu), new(&cpu));
    let suspended = || {
        cpu.irqs_off().fpu_offline().unwrap();
        cpu.fpu().lose_power();
        // SAFETY: C50: the control registers are set up anew, and no task runs.
        unsafe { fpu_core::trap::TrapFpu::disarm(&**cpu.fpu()) };
        // SAFETY: K15, K16: the same CPU again.
        unsafe { cpu.irqs_off().fpu_online(0) }.unwrap();
    };
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    suspended();
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    assert!(cpu.fpu().trap_is_armed(), "back where it was");
    suspended();
    switch(Some(&task), Some(&next), &mut cpu.irqs_off()).unwrap();
    assert!(cpu.fpu().trap_is_armed(), "another that was never used");
    assert_eq!(writes(&cpu, &next, 4), 1);
    kernel_is_well(&cpu);
}

#[test]
fn a_child_and_an_exec_are_as_new_where_the_task_is() {
    let cpu = SimCpu::online(0);
    let (mut task, mut child) = (new(&cpu), new(&cpu));
    child.used(&mut cpu.irqs_off()).unwrap();
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    task.fork_into(&mut cpu.irqs_off(), &mut child).unwrap();
    assert!(!child.is_used() && cpu.fpu().trap_is_armed());
    writes(&cpu, &task, 6);
    task.fork_into(&mut cpu.irqs_off(), &mut child).unwrap();
    assert!(child.is_used());
    switch(Some(&task), Some(&child), &mut cpu.irqs_off()).unwrap();
    assert_eq!(cpu.fpu().avx0(), 6);
    child.reset(&mut cpu.irqs_off()).unwrap();
    child.switch_in(&mut cpu.irqs_off()).unwrap();
    assert!(cpu.fpu().trap_is_armed());
    // Armed already: it stays.
    child.reset(&mut cpu.irqs_off()).unwrap();
    assert_eq!(writes(&cpu, &child, 1), 1);
    // A child that the kernel still runs is refused, and unchanged.
    child.switch_prepare(&cpu.irqs_off()).unwrap();
    task.reset(&mut cpu.irqs_off()).unwrap();
    task.switch_in(&mut cpu.irqs_off()).unwrap();
    assert_eq!(child.fork_into(&mut cpu.irqs_off(), &mut task), Err(Error::LiveHere));
    assert!(cpu.fpu().trap_is_armed());
    kernel_is_well(&cpu);
}

/// A context that has run before starts anew, whether its registers are still there, are the only copy, or neither.
#[test]
fn a_context_that_has_run_begins_as_a_new_one() {
    for leaves in 0..3 {
        let cpu = SimCpu::online(0);
        let context = TaskFpu::new(cpu.fpu(), SimArea::new()).unwrap();
        drop(context.switch_return(&mut cpu.irqs_off()).unwrap());
        cpu.fpu().set_avx0(7);
        if leaves > 0 {
            context.switch_prepare(&cpu.irqs_off()).unwrap();
        }
        if leaves > 1 {
            cpu.irqs_off().invalidate_registers().unwrap();
        }
        // SAFETY: K22, K23: as in `new`.
        let task = unsafe { Trapped::new(context, cpu.fpu()) }.unwrap();
        task.switch_in(&mut cpu.irqs_off()).unwrap();
        task.first_use(&mut cpu.interrupted()).unwrap();
        assert_eq!(cpu.fpu().avx0(), 0, "{leaves}");
        kernel_is_well(&cpu);
    }
}

/// A debugger that writes makes the context one like any other, stopped or current.
#[test]
fn a_debuggers_write_is_what_the_task_runs_with() {
    let cpu = SimCpu::online(0);
    let (stopped, current, debugger) = (new(&cpu), new(&cpu), new(&cpu));
    debugger.switch_in(&mut cpu.irqs_off()).unwrap();
    let context = stopped.used(&mut cpu.irqs_off()).unwrap();
    let mut proof = SimStopped::of(context.context());
    let mut image = context.stopped(&mut proof).unwrap().make_memory_valid_write();
    let mut registers = image.image().registers();
    registers.component_mut(2)[0] = 5;
    image.image_mut().set(&registers);
    drop(image);
    assert!(cpu.fpu().trap_is_armed(), "the debugger's own");
    switch(Some(&debugger), Some(&stopped), &mut cpu.irqs_off()).unwrap();
    assert_eq!(cpu.fpu().avx0(), 5);
    switch(Some(&stopped), Some(&current), &mut cpu.irqs_off()).unwrap();
    let mut pin = cpu.irqs_off();
    let context = current.used(&mut pin).unwrap();
    context.open(&mut pin).unwrap().make_memory_valid_write().image_mut().set(&registers);
    drop(pin);
    assert!(!cpu.fpu().trap_is_armed());
    current.switch_in(&mut cpu.irqs_off()).unwrap();
    assert_eq!(cpu.fpu().avx0(), 5);
    // Of one that is used it is a look alone, while the CPU is closed and in a non-maskable interrupt too.
    let found = cpu.irqs_off().with_kernel_fpu(None, KernelUnits::NONE, || {
        [current.used(&mut cpu.interrupted()).err(), current.used(&mut cpu.nmi()).err()]
    });
    assert_eq!(found, Ok([None, None]));
    let level = cpu.irqs_off().level();
    assert_eq!(level, fpu_core::Level::Task);
    kernel_is_well(&cpu);
}
