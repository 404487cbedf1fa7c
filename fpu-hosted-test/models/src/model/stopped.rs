//! A debugger on one CPU, and the task waking up on the same or another one.

use fpu_core_loom::Error;
use std::rc::Rc;

use super::{
    cover,
    fault::{forgets, Embedder},
    on_cpus, Cpu, Machine, Model, Proof, Slot, Task,
};

/// What a debugger wrote is what the task runs with next, on the CPU whose registers still hold the
/// old state too (I1, no lost write).
pub const WRITE: Model = Model {
    name: "stopped_write_against_wakeup",
    guards: "I1, no lost write",
    bound: None,
    interrupts: false,
    floor: 2800,
    covers: &["woke where the registers held the old state", "migrated"],
    body: || scene(true),
};

/// A debugger reads what the task left, and its reading costs the task nothing: the registers stay
/// valid (I1).
pub const READ: Model = Model {
    name: "stopped_read_against_wakeup",
    guards: "I1",
    bound: None,
    interrupts: false,
    floor: 2800,
    covers: &["read", "restore skipped", "migrated"],
    body: || scene(false),
};

/// CPU 0 runs two tasks; CPU 1 stops the first one, runs it, and stops it again.
fn scene(write: bool) {
    let code = if write { writer } else { reader };
    on_cpus(&Machine::with_shared_tasks(2, 2), 2, code);
}
fn writer(cpu: &Rc<Cpu>, machine: &Machine) {
    play(cpu, machine, true);
}
fn reader(cpu: &Rc<Cpu>, machine: &Machine) {
    play(cpu, machine, false);
}
fn play(cpu: &Cpu, machine: &Machine, write: bool) {
    let [first, second] = &machine.slots[..] else { return };
    if cpu.number == 0 {
        for slot in [first, first, second, first] {
            wake(cpu, slot);
        }
        return;
    }
    for _ in 0..2 {
        stop(cpu, machine, first, write);
        wake(cpu, first);
    }
}
pub(super) fn wake(cpu: &Cpu, slot: &Slot) {
    let Some(task) = slot.take() else { return };
    if task.last_cpu() == cpu.number && task.ghost.written_by_tracer() {
        cover("woke where the registers held the old state");
    }
    cpu.run(&task);
    cpu.hand_over(task, slot);
}

fn stop(cpu: &Cpu, machine: &Machine, slot: &Slot, write: bool) {
    if forgets(Embedder::StoppedWhileRunning) {
        debug(cpu, &machine.tasks[0], write);
    } else if let Some(task) = slot.take() {
        debug(cpu, &task, write);
        slot.put(task);
    }
}

fn debug(cpu: &Cpu, task: &Task, write: bool) {
    let mut proof = Proof(cpu, task);
    let stopped = match task.fpu.stopped(&mut proof) {
        Ok(stopped) => stopped,
        // The core saw through the false proof; nothing was touched.
        Err(Error::LiveElsewhere { .. }) if forgets(Embedder::StoppedWhileRunning) => return,
        Err(why) => panic!("unsaved state elsewhere: stopped task: {why:?}"),
    };
    task.ghost.judge(stopped.image().get(), "a stopped task's image");
    if write {
        stopped.make_memory_valid_write().image_mut().write(task.ghost.tracer_writes());
    } else {
        cover("read");
    }
}
