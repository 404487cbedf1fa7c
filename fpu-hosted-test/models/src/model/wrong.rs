//! Kernels that break the rules: what the core can see is reported, never restored.

use fpu_core_loom::{session::TaskState, CpuLifecycle, Error, KernelFpu, KernelUnits, SwitchSteps};
use loom::thread;
use std::{rc::Rc, sync::Arc};

use super::{
    cover,
    restore::{out_by_raw, out_by_steps},
    section::leaves,
    Cpu, Machine, Model, Proof, Task,
};

/// Live on CPU 0 with an old image in memory, and CPU 1 as `other`, which did not take the task.
fn live_on_cpu_0(here: fn(&Rc<Cpu>, &Arc<Task>), other: fn(&Rc<Cpu>, &Arc<Task>)) {
    let machine = Machine::with_shared_tasks(2, 1);
    let cpu = Cpu::online(&machine, 0);
    let task = Arc::clone(&machine.tasks[0]);
    cpu.run(&task);
    cpu.leave(&task);
    cpu.run(&task);
    let elsewhere = {
        let (machine, task) = (Arc::clone(&machine), Arc::clone(&task));
        thread::spawn(move || other(&Cpu::online(&machine, 1), &task))
    };
    here(&cpu, &task);
    if elsewhere.join().is_err() {
        panic!("CPU 1 panicked");
    }
}

fn reported(result: Result<(), Error>, what: &str) {
    match result {
        Err(Error::LiveElsewhere { cpu: 0 }) => cover("reported"),
        other => panic!("not reported: {what} of a task live on CPU 0: {other:?}"),
    }
}

/// A task switched in on CPU 1 while CPU 0 still has it, or is just switching it out without any order
/// between the two: reported, or restored exactly as saved (I1, I2; the orderings of the task's word).
pub const IN: Model = Model {
    name: "wrong_kernel_switches_in",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["reported", "had just been saved"],
    body: || live_on_cpu_0(|cpu, task| cpu.leave(task), switches_in),
};

/// The same while a kernel section saves the task on CPU 0.
pub const IN_SECTION: Model = Model {
    name: "wrong_kernel_during_section",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["reported", "had just been saved"],
    body: || live_on_cpu_0(|cpu, _| cpu.section(), switches_in),
};

/// The same while steps are executed that switch the task out.
pub const IN_STEPS: Model = Model {
    name: "wrong_kernel_during_steps",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["reported", "had just been saved"],
    body: || live_on_cpu_0(|cpu, task| out_by_steps(cpu, task), switches_in),
};

/// The same while assembly saves it.
pub const IN_RAW: Model = Model {
    name: "wrong_kernel_during_raw_save",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["reported", "had just been saved"],
    body: || live_on_cpu_0(|cpu, task| out_by_raw(cpu, task), switches_in),
};

/// The same while a session saves it.
pub const IN_SESSION: Model = Model {
    name: "wrong_kernel_during_session",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["reported", "had just been saved"],
    body: || live_on_cpu_0(|cpu, task| leaves(cpu, task), switches_in),
};

/// The same while a session ends the registers' claim, writes nothing, and loads them again: each word that says
/// "memory is valid" shows the image that was saved, whoever stored it.
pub const IN_WRITE: Model = Model {
    name: "wrong_kernel_during_write_and_load",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["reported", "had just been saved"],
    body: || {
        let writes_and_loads = |cpu: &Rc<Cpu>, task: &Arc<Task>| {
            let mut pin = cpu.pinned();
            let state = super::must(task.fpu.open(&mut pin), "session").make_memory_valid_read();
            super::must(state.make_memory_valid_write().make_registers_valid().map(drop), "load");
        };
        live_on_cpu_0(writes_and_loads, switches_in);
    },
};

/// The same while a session ends a claim that is no longer this CPU's.
pub const IN_MEMORY_WRITE: Model = Model {
    name: "wrong_kernel_during_write_in_memory",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["ended a claim", "reported", "had just been saved"],
    body: || {
        let writes = |cpu: &Rc<Cpu>, task: &Arc<Task>| {
            cpu.section();
            // Unless CPU 1 has just switched it in.
            if let Ok(TaskState::MemoryOnly(session)) = task.fpu.open(&mut cpu.pinned()) {
                drop(session.make_memory_valid_write());
                cover("ended a claim");
            }
        };
        live_on_cpu_0(writes, switches_in);
    },
};

/// The same while a debugger ends the claim.
pub const IN_STOPPED_WRITE: Model = Model {
    name: "wrong_kernel_during_stopped_write",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["ended a claim", "reported", "had just been saved"],
    body: || {
        let writes = |cpu: &Rc<Cpu>, task: &Arc<Task>| {
            cpu.leave(task);
            if let Ok(stopped) = task.fpu.stopped(&mut Proof(cpu, task)) {
                let _written = stopped.make_memory_valid_write();
                cover("ended a claim");
            }
        };
        live_on_cpu_0(writes, switches_in);
    },
};

/// The same with a persistent context, while its run ends.
pub const IN_PERSISTENT: Model = Model {
    name: "wrong_kernel_during_persistent_run",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["reported", "had just been saved"],
    body: || {
        let machine = Machine::with_shared_tasks(2, 1);
        let (cpu, guest) = (Cpu::online(&machine, 0), Arc::clone(&machine.tasks[0]));
        let ran = cpu.pinned().run_guest(guest.fpu.context(), None, || {
            cpu.user(&guest);
            let (machine, guest) = (Arc::clone(&machine), Arc::clone(&guest));
            thread::spawn(move || switches_in(&Cpu::online(&machine, 1), &guest))
        });
        if super::must(ran, "persistent context").join().is_err() {
            panic!("CPU 1 panicked");
        }
    },
};

fn switches_in(cpu: &Rc<Cpu>, task: &Arc<Task>) {
    match cpu.enter(task) {
        Ok(()) => cover("had just been saved"),
        other => reported(other, "switch-in"),
    }
}

/// A debugger whose proof is false, against CPU 0's switching out: reported, or the image is what was
/// saved (I1).
pub const STOPS: Model = Model {
    name: "wrong_kernel_stops_running_task",
    guards: "I1",
    bound: None,
    interrupts: false,
    floor: 3,
    covers: &["reported", "had just been saved"],
    body: || {
        live_on_cpu_0(
            |cpu, task| cpu.leave(task),
            |cpu, task| {
                let mut proof = Proof(cpu, task);
                let stopped = task.fpu.stopped(&mut proof).map(|stopped| {
                    task.ghost.judge(stopped.image().get(), "a stopped task's image");
                    cover("had just been saved");
                });
                if stopped.is_err() {
                    reported(stopped, "debugger's access");
                }
            },
        );
    },
};

/// Everything else that CPU 1 can try with a task live on CPU 0 is reported, changes nothing, and leaves
/// CPU 1 usable (I1, I2, liveness).
pub const ELSEWHERE: Model = Model {
    name: "wrong_kernel_uses_task_elsewhere",
    guards: "I1 I2, liveness",
    bound: None,
    interrupts: false,
    floor: 1,
    covers: &["reported"],
    body: || {
        live_on_cpu_0(
            |_, _| {},
            |cpu, task| {
                reported(cpu.enter(task), "switch-in");
                cpu.set_current(None);
                reported(task.fpu.switch_prepare(&cpu.irq_off()), "switch-out");
                let told = Some(task.fpu.context());
                let mut pin = cpu.pinned();
                let section = pin.with_kernel_fpu(told, KernelUnits::ALL, || ());
                reported(section, "section");
                let session = task.fpu.open(&mut pin).map(drop);
                reported(session, "session");
                reported(task.fpu.open_saved(&mut pin).map(drop), "session on memory");
                let nobody = pin.run_guest(task.fpu.context(), None, || ());
                reported(nobody, "persistent run");
                let steps = SwitchSteps::begin(&mut cpu.irq_off(), None, told).map(drop);
                reported(steps, "switch by steps");
                let mut proof = Proof(cpu, task);
                let stopped = task.fpu.stopped(&mut proof).map(drop);
                reported(stopped, "debugger's access");
                let mine = Arc::new(Task::new(8));
                cpu.run(&mine);
                cpu.leave(&mine);
            },
        );
    },
};

/// A persistent context run on CPU 1 while CPU 0 runs it is reported (I1).
pub const TWICE: Model = Model {
    name: "wrong_kernel_runs_persistent_twice",
    guards: "I1",
    bound: None,
    interrupts: false,
    floor: 1,
    covers: &["reported"],
    body: || {
        let machine = Machine::with_shared_tasks(2, 1);
        let (cpu, guest) = (Cpu::online(&machine, 0), Arc::clone(&machine.tasks[0]));
        let ran = cpu.pinned().run_guest(guest.fpu.context(), None, || {
            cpu.user(&guest);
            let (machine, guest) = (Arc::clone(&machine), Arc::clone(&guest));
            let other = thread::spawn(move || {
                let cpu = Cpu::online(&machine, 1);
                let mut pin = cpu.pinned();
                let ran = pin.run_guest(guest.fpu.context(), None, || ());
                reported(ran, "second run");
            });
            if other.join().is_err() {
                panic!("CPU 1 panicked");
            }
        });
        super::must(ran, "persistent context");
    },
};

/// A switch, a section, or the CPU's going offline inside a section or session is refused there, and
/// changes nothing (I5).
pub const INSIDE: Model = Model {
    name: "wrong_kernel_switches_inside_section",
    guards: "I5",
    bound: None,
    interrupts: false,
    floor: 1,
    covers: &["refused inside"],
    body: || {
        let machine = Machine::new(1, 0);
        let (cpu, task) = (Cpu::online(&machine, 0), Arc::new(Task::new(1)));
        let inside = |cpu: &Cpu| {
            let entered = task.fpu.switch_return(&mut cpu.irq_off()).map(drop);
            assert_eq!(entered, Err(Error::Busy), "not reported: a switch-in inside a section");
            let mut pin = cpu.pinned();
            let nested = pin.run_guest(task.fpu.context(), None, || ());
            for result in [nested, task.fpu.reset(&mut pin), pin.fpu_offline(), pin.fpu_resume()] {
                assert_eq!(result, Err(Error::Busy), "not reported: a call inside a section");
            }
            cover("refused inside");
        };
        cpu.run(&task);
        let told = Some(task.fpu.context());
        let ran = cpu.pinned().with_kernel_fpu(told, KernelUnits::ALL, || inside(&cpu));
        super::must(ran, "kernel section");
        cpu.run(&task);
        let mut pin = cpu.pinned();
        let session = super::must(task.fpu.open(&mut pin), "session");
        inside(&cpu);
        let left = task.fpu.switch_prepare(&cpu.irq_off());
        assert_eq!(left, Err(Error::Busy), "not reported: a switch-out inside a session");
        drop(session);
        cpu.run(&task);
    },
};

/// A CPU that lost its registers with a live task in them: the loss is reported, and a reset makes the
/// task usable again (I2).
pub const LOST: Model = Model {
    name: "wrong_kernel_sleeps_with_live_task",
    guards: "I2",
    bound: None,
    interrupts: false,
    floor: 1,
    covers: &["reported"],
    body: || {
        let machine = Machine::new(1, 0);
        let (cpu, task) = (Cpu::online(&machine, 0), Arc::new(Task::new(1)));
        cpu.run(&task);
        cpu.suspend();
        let lost = |result| {
            assert_eq!(result, Err(Error::Lost), "not reported: a lost state");
            cover("reported");
        };
        lost(task.fpu.switch_prepare(&cpu.irq_off()));
        lost(cpu.enter(&task));
        super::must(task.fpu.reset(&mut cpu.pinned()), "reset");
        task.ghost.expect(super::ghost::INITIAL);
        cpu.run(&task);
        super::must(cpu.pinned().invalidate_registers(), "invalidation");
    },
};
