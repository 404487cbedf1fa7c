//! A debugger on one CPU, and the task waking up on the same or another one.

use fpu_core_loom::Error;

use super::{
    cover,
    fault::{forgets, Embedder},
    scenario::on_cpus,
    Cpu, Machine, Model, Proof, Slot, Task,
};

/// A task runs next with what a debugger wrote, even on the CPU whose registers still hold the old state
/// (I1, no lost write).
pub const WRITE: Model = Model::new("stopped_write_against_wakeup", "I1, no lost write")
    .explores(2800)
    .comes_to(&["woke where the registers held the old state", "migrated"])
    .plays(|| {
        on_cpus(&Machine::with_shared_tasks(2, 2), 2, |cpu, machine| play(cpu, machine, true))
    });

/// A debugger reads what the task left, and that costs the task nothing: the registers stay valid (I1).
pub const READ: Model = Model::new("stopped_read_against_wakeup", "I1")
    .explores(2800)
    .comes_to(&["read", "restore skipped", "migrated"])
    .plays(|| {
        on_cpus(&Machine::with_shared_tasks(2, 2), 2, |cpu, machine| play(cpu, machine, false))
    });

/// CPU 0 runs two tasks. CPU 1 stops the first one, runs it, and stops it again.
fn play(cpu: &Cpu, machine: &Machine, write: bool) {
    let [first, second] = &machine.slots[..] else { return };
    if cpu.number == 0 {
        return wake(cpu, [first, first, second, first]);
    }
    for _ in 0..2 {
        stop(cpu, machine, first, write);
        wake(cpu, [first]);
    }
}

/// The tasks in these slots wake up, one after the other.
pub(super) fn wake<const N: usize>(cpu: &Cpu, slots: [&Slot; N]) {
    for slot in slots {
        let Some(task) = slot.take() else { continue };
        if task.last_cpu() == cpu.number && task.ghost.written_by_tracer() {
            cover("woke where the registers held the old state");
        }
        cpu.run(&task);
        cpu.hand_over(task, slot);
    }
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
        // The core has noticed the false proof, and has touched nothing.
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
