//! Code that makes memory differ from some CPU's registers ends that CPU's claim first; code that only reads
//! leaves it. Two CPUs: the task was switched out on CPU 0, whose registers still claim it, and is then
//! reached from somewhere else, in memory only, and goes on on CPU 0 without having been in user mode.

use fpu_core::{
    session::{ReadSession, TaskState},
    verify::{Scratch, Verified},
    Error, KernelFpu, KernelUnits,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Registers, SimArea, SimCpu, SimStopped, COMPONENTS},
};

fn enter(cpu: &SimCpu, task: &Task) {
    drop(task.switch_return(&mut cpu.irqs_off()).expect("the CPU is free"));
}
fn leave(cpu: &SimCpu, task: &Task) {
    task.switch_prepare(&cpu.irqs_off()).expect("it is current here");
}
fn old() -> Registers {
    Registers::pattern(1, u64::MAX)
}
/// With a component that is initial where the old one was not.
fn new() -> Registers {
    Registers::pattern(2, 0b0110)
}

/// CPU 0 claims the task, which holds [`old`]; CPU 1 has run another task.
fn claimed() -> (SimCpu, SimCpu, Task) {
    let (first, second, task) = (SimCpu::online(0), SimCpu::online(1), new_task());
    enter(&second, &new_task());
    enter(&first, &task);
    first.fpu().load(&old());
    leave(&first, &task);
    assert!(task.registers_valid(&first.irqs_off()));
    (first, second, task)
}

/// What CPU 1 does with the task, and what the task holds then.
type Op = fn(&SimCpu, &Task) -> Registers;

fn memory_only<'s, C: fpu_core::SoftFloat>(state: TaskState<'s, C>) -> TaskState<'s, C> {
    assert_eq!(state.name(), "memory only", "CPU 1 does not hold it");
    state
}

const WRITERS: [(&str, Op); 11] = [
    ("session", |cpu, task| {
        let mut pin = cpu.preempt_off();
        let state = memory_only(task.open(&mut pin).expect("free"));
        state.make_memory_valid_write().image_mut().set(&new());
        new()
    }),
    ("session that read first", |cpu, task| {
        let mut pin = cpu.preempt_off();
        let session = memory_only(task.open(&mut pin).expect("free")).make_memory_valid_read();
        assert_eq!(session.image().registers(), old());
        session.make_memory_valid_write().image_mut().set(&new());
        new()
    }),
    ("session found in memory only", |cpu, task| {
        let mut pin = cpu.preempt_off();
        let TaskState::MemoryOnly(session) = task.open(&mut pin).expect("free") else {
            panic!("CPU 1 does not hold it")
        };
        session.make_memory_valid_write().image_mut().set(&new());
        new()
    }),
    ("read session, matched", |cpu, task| {
        let mut pin = cpu.preempt_off();
        let read = task.open(&mut pin).expect("free").make_memory_valid_read();
        let ReadSession::MemoryOnly(session) = read else { panic!("CPU 1 does not hold it") };
        session.make_memory_valid_write().image_mut().set(&new());
        new()
    }),
    ("session, one component", |cpu, task| {
        let mut pin = cpu.preempt_off();
        let mut session = task.open(&mut pin).expect("free").make_memory_valid_write();
        session.image_mut().set_avx0(5);
        session.image().registers()
    }),
    ("session whose load fails", |cpu, task| {
        let mut irqs = cpu.irqs_off();
        let mut session = task.open(&mut irqs).expect("free").make_memory_valid_write();
        session.image_mut().set(&new());
        cpu.fpu().fail_restore(1);
        assert!(matches!(session.switch_return().err(), Some(Error::RestoreFailed(_))));
        new()
    }),
    ("session that loads", |cpu, task| {
        let mut pin = cpu.preempt_off();
        let mut session = task.open(&mut pin).expect("free").make_memory_valid_write();
        session.image_mut().set(&new());
        drop(session.make_registers_valid().expect("a good image"));
        new()
    }),
    ("stopped", |_, task| {
        let mut proof = SimStopped::of(task.context());
        let stopped = task.stopped(&mut proof).expect("it was switched out");
        stopped.make_memory_valid_write().image_mut().set(&new());
        new()
    }),
    ("reset", |cpu, task| {
        task.reset(&mut cpu.preempt_off()).expect("free");
        Registers::initial()
    }),
    ("user mode", |cpu, task| {
        enter(cpu, task);
        cpu.fpu().load(&new());
        leave(cpu, task);
        new()
    }),
    ("run as a persistent context", |cpu, task| {
        let run = || cpu.fpu().load(&new());
        cpu.preempt_off().run_guest(task.context(), None, run).expect("free");
        new()
    }),
];

const READERS: [(&str, Op); 8] = [
    ("session", |cpu, task| {
        let mut pin = cpu.preempt_off();
        let session = memory_only(task.open(&mut pin).expect("free")).make_memory_valid_read();
        session.image().registers()
    }),
    ("session, dropped", |cpu, task| {
        drop(task.open(&mut cpu.preempt_off()).expect("free"));
        old()
    }),
    ("stopped", |_, task| {
        let mut proof = SimStopped::of(task.context());
        let stopped = task.stopped(&mut proof).expect("it was switched out");
        stopped.image().registers()
    }),
    ("fork from it", |cpu, task| {
        let mut child = new_task();
        task.fork_into(&mut cpu.preempt_off(), &mut child).expect("free");
        old()
    }),
    ("section", |cpu, task| {
        let told = Some(task.context());
        let seen = cpu.preempt_off().with_kernel_fpu(told, KernelUnits::ALL, || ());
        seen.expect("free");
        old()
    }),
    ("verify", |cpu, task| {
        let mut scratch = Scratch::new(cpu.fpu(), SimArea::new()).expect("it fits");
        let found = task.verify_registers(&mut cpu.preempt_off(), &mut scratch);
        assert_eq!(found, Ok(Verified::MemoryOnly));
        old()
    }),
    ("switching out what was not in", |cpu, task| {
        leave(cpu, task);
        old()
    }),
    ("load that fails", |cpu, task| {
        cpu.fpu().fail_restore(1);
        let failed = task.switch_return(&mut cpu.irqs_off()).err();
        assert!(matches!(failed, Some(Error::RestoreFailed(_))));
        old()
    }),
];

#[test]
fn what_was_written_elsewhere_is_what_runs_next() {
    for (name, write) in WRITERS {
        let (first, second, task) = claimed();
        let expect = write(&second, &task);
        assert_ne!(expect, old(), "{name} writes nothing");
        assert!(!task.registers_valid(&first.irqs_off()), "{name}: the claim of CPU 0 stands");
        let before = first.totals().restored;
        enter(&first, &task);
        assert_eq!(first.fpu().registers(), expect, "{name}: CPU 0 runs with the old registers");
        assert_eq!(first.totals().restored, before + 1, "{name}");
        // And what is saved from there is complete: no component was left out as unmodified.
        leave(&first, &task);
        enter(&second, &new_task());
        enter(&second, &task);
        assert_eq!(second.fpu().registers(), expect, "{name}: saved by CPU 0");
    }
}

#[test]
fn what_was_only_read_elsewhere_costs_no_restore() {
    for (name, read) in READERS {
        let (first, second, task) = claimed();
        assert_eq!(read(&second, &task), old(), "{name}");
        let before = first.totals();
        enter(&first, &task);
        assert_eq!(first.fpu().registers(), old(), "{name}");
        let after = first.totals();
        let (restored, skipped) =
            (after.restored - before.restored, after.skipped - before.skipped);
        assert_eq!((restored, skipped), (0, 1), "{name} has taken the claim of CPU 0");
    }
}

/// A child made in a context that CPU 0 still claims, by each of its parent's states.
#[test]
fn a_child_made_in_a_claimed_context_is_loaded() {
    for parent_state in 0..3 {
        let (first, second, mut child) = claimed();
        let parent = new_task();
        if parent_state < 2 {
            enter(&second, &parent);
            second.fpu().load(&Registers::pattern(3, 0b0111));
        }
        if parent_state == 1 {
            leave(&second, &parent);
        }
        parent.fork_into(&mut second.preempt_off(), &mut child).expect("free");
        let inherited = match parent_state {
            2 => Registers::initial(),
            _ => Registers::pattern(3, 0b0111),
        };
        enter(&first, &child);
        assert_eq!(first.fpu().registers(), inherited, "parent in state {parent_state}");
    }
}

/// What is old and what is new can be told apart in every component.
#[test]
fn the_cases_differ_in_every_component() {
    let differ = (0..COMPONENTS).filter(|&c| old().component(c) != new().component(c)).count();
    assert_eq!(differ, COMPONENTS);
}
