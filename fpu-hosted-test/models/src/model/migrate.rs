//! A task that another CPU's registers still claim, changed in memory where it has not been in user mode.

use std::rc::Rc;

use super::{backend::ImageMut, cover, ghost::Regs, must, on_cpus, Cpu, Machine, Model, Task};

/// What a session writes after the task has come from another CPU is what runs next, on that other CPU
/// too, whose registers still hold the old state (I1, no lost write).
pub const WRITE: Model = Model {
    name: "session_write_after_migration",
    guards: "I1, no lost write",
    bound: None,
    interrupts: false,
    floor: 500,
    covers: &["written where it was in memory only", "went on where it was claimed"],
    body: || on_cpus(&Machine::new(2, 1), 2, |cpu, machine| scene(cpu, machine, writes)),
};

/// The same where the whole state is replaced (I1, I8, no lost write).
pub const REPLACE: Model = Model {
    name: "session_replace_after_migration",
    guards: "I1 I8, no lost write",
    bound: None,
    interrupts: false,
    floor: 500,
    covers: &["written where it was in memory only", "went on where it was claimed"],
    body: || on_cpus(&Machine::new(2, 1), 2, |cpu, machine| scene(cpu, machine, replaces)),
};

/// The same where another image is copied, one that has an absent component over old bytes (I1, I8, I13,
/// no lost write).
pub const COPY: Model = Model {
    name: "session_copy_after_migration",
    guards: "I1 I8 I13, no lost write",
    bound: None,
    interrupts: false,
    floor: 500,
    covers: &["written where it was in memory only", "went on where it was claimed"],
    body: || on_cpus(&Machine::new(2, 1), 2, |cpu, machine| scene(cpu, machine, copies)),
};

type Change = fn(&Cpu, &Task, &mut ImageMut<'_>);

/// CPU 0 runs the task, twice at most in a row; CPU 1 has it become current, writes, and lets it go again.
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
    let session = must(task.fpu.open(&mut pin), "session").make_memory_valid_read();
    task.ghost.judge(session.image().get(), "a session's image");
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
    let mut proof = super::Proof(cpu, &model);
    let mut other = must(model.fpu.stopped(&mut proof), "stopped").make_memory_valid_write();
    other.image_mut().write(wrote + 1);
    other.image_mut().write(wrote);
    image.copy_from(other.image());
}
