//! Sessions that change a task in memory while another CPU's registers still claim that task.

use std::rc::Rc;

use super::{
    backend::ImageMut, cover, ghost::Regs, must, read, scenario::Code, Cpu, Machine, Model, Proof,
    Task,
};

/// A task that has come from another CPU runs next with what a session writes then, even on that other CPU,
/// whose registers still hold the old state (I1, no lost write).
pub const WRITE: Model =
    migrates("session_write_after_migration", "I1, no lost write", |cpu, machine| {
        scene(cpu, machine, writes)
    });

/// The same where the session replaces the whole state (I1, I8, no lost write).
pub const REPLACE: Model =
    migrates("session_replace_after_migration", "I1 I8, no lost write", |cpu, machine| {
        scene(cpu, machine, replaces)
    });

/// The same where the session copies an image that has an absent component over old bytes (I1, I8, I13,
/// no lost write).
pub const COPY: Model =
    migrates("session_copy_after_migration", "I1 I8 I13, no lost write", |cpu, machine| {
        scene(cpu, machine, copies)
    });

const fn migrates(name: &'static str, guards: &'static str, code: Code) -> Model {
    Model::new(name, guards)
        .explores(500)
        .comes_to(&["written where it was in memory only", "went on where it was claimed"])
        .on_cpus(2, 1, code)
}

type Change = fn(&Cpu, &Task, &mut ImageMut<'_>);

/// CPU 0 runs the task, three times at most. CPU 1 makes the task current, writes, and switches it out again.
fn scene(cpu: &Rc<Cpu>, machine: &Machine, change: Change) {
    let slot = &machine.slots[0];
    if cpu.number == 0 {
        for _ in 0..3 {
            let Some(task) = slot.take() else { continue };
            if task.last_cpu() == 0 && task.ghost.written_by_tracer() {
                cover("went on where it was claimed");
            }
            cpu.run(&task);
            cpu.hand_over(task, slot);
        }
        return;
    }
    for _ in 0..2 {
        let Some(task) = slot.take() else { continue };
        cpu.set_current(Some(&task));
        written(cpu, &task, change);
        cpu.hand_over(task, slot); // preempted before user mode
    }
}

fn written(cpu: &Cpu, task: &Task, change: Change) {
    let mut pin = cpu.pinned();
    let session = read(task, &mut pin);
    if task.last_cpu() == 0 {
        cover("written where it was in memory only");
    }
    let mut session = session.make_memory_valid_write();
    change(cpu, task, &mut session.image_mut());
}

fn writes(_: &Cpu, task: &Task, image: &mut ImageMut<'_>) {
    image.write(task.ghost.tracer_writes());
}
fn replaces(_: &Cpu, task: &Task, image: &mut ImageMut<'_>) {
    image.replace_with(Regs::of(task.ghost.tracer_writes()));
}
/// From a task whose first state had both components and whose last state lacks one.
fn copies(cpu: &Cpu, task: &Task, image: &mut ImageMut<'_>) {
    let model = Task::new(4);
    let mut wrote = task.ghost.tracer_writes();
    while Regs::of(wrote).high != 0 {
        wrote = task.ghost.tracer_writes();
    }
    let mut proof = Proof(cpu, &model);
    let mut other = must(model.fpu.stopped(&mut proof), "stopped").make_memory_valid_write();
    other.image_mut().write(wrote + 1);
    other.image_mut().write(wrote);
    image.copy_from(other.image());
}
