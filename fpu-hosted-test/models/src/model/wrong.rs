//! Kernels that break the rules: the core reports what it can see, and never restores it.

use fpu_core_loom::{session::TaskState, CpuLifecycle, Error, KernelFpu, KernelUnits, SwitchSteps};
use std::{rc::Rc, sync::Arc};

use super::{
    cover,
    ghost::INITIAL,
    must,
    restore::{out_by_raw, out_by_steps},
    scenario::{beside, joined, Side},
    section::leaves,
    Cpu, Machine, Model, Proof, Task,
};

pub(super) fn reported(result: Result<(), Error>, what: &str) {
    match result {
        Err(Error::LiveElsewhere { cpu: 0 }) => cover("reported"),
        other => panic!("not reported: {what} of a task live on CPU 0: {other:?}"),
    }
}

pub(super) const OR_SAVED: &[&str] = &["reported", "had just been saved"];
const AFTER_AN_END: &[&str] = &["ended a claim", "reported", "had just been saved"];

/// CPU 1 switches in a task that is live on CPU 0, which does this.
const fn in_between(name: &'static str, here: Side) -> Model {
    Model::new(name, "I1 I2").explores(3).comes_to(OR_SAVED).live_on_cpu_0(here, switches_in)
}

/// A task switched in on CPU 1 while CPU 0 still has it, or is just switching it out without any order
/// between the two: the core reports that, or restores exactly what was saved (I1, I2; the orderings of the
/// task's word).
pub const IN: Model = in_between("wrong_kernel_switches_in", |cpu, task| cpu.leave(task));

/// The same while a kernel section saves the task on CPU 0.
pub const IN_SECTION: Model = in_between("wrong_kernel_during_section", |cpu, _| cpu.section());

/// The same while CPU 0 executes the steps that switch the task out.
pub const IN_STEPS: Model =
    in_between("wrong_kernel_during_steps", |cpu, task| out_by_steps(cpu, task));

/// The same while assembly saves the task.
pub const IN_RAW: Model =
    in_between("wrong_kernel_during_raw_save", |cpu, task| out_by_raw(cpu, task));

/// The same while a session saves the task.
pub const IN_SESSION: Model =
    in_between("wrong_kernel_during_session", |cpu, task| leaves(cpu, task));

/// The same while a session ends the registers' claim, writes nothing, and loads them again: each word that says
/// "memory is valid" shows the image that was saved, whichever code stored the word.
pub const IN_WRITE: Model = in_between("wrong_kernel_during_write_and_load", |cpu, task| {
    let mut pin = cpu.pinned();
    let state = must(task.fpu.open(&mut pin), "session").make_memory_valid_read();
    must(state.make_memory_valid_write().make_registers_valid().map(drop), "load");
});

/// The same while a session ends a claim that is no longer this CPU's.
pub const IN_MEMORY_WRITE: Model =
    in_between("wrong_kernel_during_write_in_memory", |cpu, task| {
        cpu.section();
        // Unless CPU 1 has just switched it in.
        if let Ok(TaskState::MemoryOnly(session)) = task.fpu.open(&mut cpu.pinned()) {
            drop(session.make_memory_valid_write());
            cover("ended a claim");
        }
    })
    .comes_to(AFTER_AN_END);

/// The same while a debugger ends the claim.
pub const IN_STOPPED_WRITE: Model = in_between("wrong_kernel_during_stopped_write", |cpu, task| {
    cpu.leave(task);
    if let Ok(stopped) = task.fpu.stopped(&mut Proof(cpu, task)) {
        let _written = stopped.make_memory_valid_write();
        cover("ended a claim");
    }
})
.comes_to(AFTER_AN_END);

/// The same with a persistent context, while its run ends.
pub const IN_PERSISTENT: Model = Model::new("wrong_kernel_during_persistent_run", "I1 I2")
    .explores(3)
    .comes_to(OR_SAVED)
    .plays(|| {
        joined(runs_with(|machine| {
            beside(machine, 1, |cpu, machine| switches_in(cpu, &machine.tasks[0]))
        }))
    });

/// CPU 0 runs a persistent context, and this in its run.
fn runs_with<T>(inside: impl FnOnce(&Arc<Machine>) -> T) -> T {
    let machine = Machine::with_shared_tasks(2, 1);
    let (cpu, guest) = (Cpu::online(&machine, 0), &machine.tasks[0]);
    let ran = cpu.pinned().run_guest(guest.fpu.context(), None, || {
        cpu.user(guest);
        inside(&machine)
    });
    must(ran, "persistent context")
}

fn switches_in(cpu: &Rc<Cpu>, task: &Arc<Task>) {
    match cpu.enter(task) {
        Ok(()) => cover("had just been saved"),
        other => reported(other, "switch-in"),
    }
}

/// A debugger whose proof is false, while CPU 0 switches the task out: the core reports that, or the image is
/// what was saved (I1).
pub const STOPS: Model = Model::new("wrong_kernel_stops_running_task", "I1")
    .explores(3)
    .comes_to(OR_SAVED)
    .live_on_cpu_0(
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

/// The core reports everything else that CPU 1 can try with a task live on CPU 0, changes nothing, and leaves
/// CPU 1 usable (I1, I2, liveness).
pub const ELSEWHERE: Model = Model::new("wrong_kernel_uses_task_elsewhere", "I1 I2, liveness")
    .comes_to(&["reported"])
    .live_on_cpu_0(
        |_, _| {},
        |cpu, task| {
            reported(cpu.enter(task), "switch-in");
            cpu.set_current(None);
            reported(task.fpu.switch_prepare(&cpu.irq_off()), "switch-out");
            let told = Some(task.fpu.context());
            let mut pin = cpu.pinned();
            reported(pin.with_kernel_fpu(told, KernelUnits::ALL, || ()), "section");
            reported(task.fpu.open(&mut pin).map(drop), "session");
            reported(task.fpu.open_saved(&mut pin).map(drop), "session on memory");
            reported(pin.run_guest(task.fpu.context(), None, || ()), "persistent run");
            let steps = SwitchSteps::begin(&mut cpu.irq_off(), None, told).map(drop);
            reported(steps, "switch by steps");
            let stopped = task.fpu.stopped(&mut Proof(cpu, task)).map(drop);
            reported(stopped, "debugger's access");
            cpu.run_once(&Arc::new(Task::new(8)));
        },
    );

/// The core reports a persistent context that CPU 1 runs while CPU 0 runs it (I1).
pub const TWICE: Model =
    Model::new("wrong_kernel_runs_persistent_twice", "I1").comes_to(&["reported"]).plays(|| {
        runs_with(|machine| {
            joined(beside(machine, 1, |cpu, machine| {
                let ran = cpu.pinned().run_guest(machine.tasks[0].fpu.context(), None, || ());
                reported(ran, "second run");
            }));
        });
    });

/// Inside a section or session the core refuses a switch, a section, and the CPU's going offline, and changes
/// nothing (I5).
pub const INSIDE: Model = Model::new("wrong_kernel_switches_inside_section", "I5")
    .comes_to(&["refused inside"])
    .plays(|| {
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
        must(ran, "kernel section");
        cpu.run(&task);
        let mut pin = cpu.pinned();
        let session = must(task.fpu.open(&mut pin), "session");
        inside(&cpu);
        let left = task.fpu.switch_prepare(&cpu.irq_off());
        assert_eq!(left, Err(Error::Busy), "not reported: a switch-out inside a session");
        drop(session);
        cpu.run(&task);
    });

/// A CPU that lost its registers with a live task in them: the core reports the loss, and a reset makes the
/// task usable again (I2).
pub const LOST: Model =
    Model::new("wrong_kernel_sleeps_with_live_task", "I2").comes_to(&["reported"]).plays(|| {
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
        must(task.fpu.reset(&mut cpu.pinned()), "reset");
        task.ghost.expect(INITIAL);
        cpu.run(&task);
        must(cpu.pinned().invalidate_registers(), "invalidation");
    });
