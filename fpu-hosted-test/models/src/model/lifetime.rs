//! Exit, fork and exec: the beginnings and ends of contexts.

use std::sync::Arc;

use super::{backend::Image, cover, Cpu, Model, Slot, Task};

/// A new task in the memory of one that exited finds the initial state, although another CPU's
/// registers still hold the old task (I2, I8, I11).
pub const REUSE: Model = Model::new("exit_and_reuse", "I2 I8 I11")
    .explores(2800)
    .comes_to(&["reused while another CPU holds the old task", "migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        let [first, second] = &machine.slots[..] else { return };
        if cpu.number == 0 {
            return cpu.turns([first, second, first, first]);
        }
        for id in [7, 8] {
            reap(first, id);
            cpu.turn(first);
        }
    });

fn reap(slot: &Slot, id: u64) {
    let Some(mut task) = slot.take() else { return };
    if task.last_cpu() == 0 {
        cover("reused while another CPU holds the old task");
    }
    match Arc::get_mut(&mut task) {
        Some(task) => task.reuse(id),
        None => panic!("the task is not stopped"),
    }
    slot.put(task);
}

/// A child begins with what its parent had at the fork, and neither ever sees the other's later
/// state (I2, I13).
pub const FORK: Model = Model::new("fork", "I2 I13")
    .explores(700)
    .comes_to(&["forked from registers", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        if cpu.number == 1 {
            return cpu.turns([slot; 3]);
        }
        let Some(parent) = slot.take() else { return };
        cpu.run(&parent);
        cpu.run(&parent); // twice: an even state has both components
        let mut child = Task::new(5);
        cpu.fork(&parent, &mut child);
        cover("forked from registers");
        let child = Arc::new(child);
        cpu.run(&parent);
        cpu.hand_over(parent, slot);
        cpu.run(&child);
        // On to where the parent was, if the other CPU has taken it.
        cpu.leave(&child);
        if let Some(parent) = slot.take() {
            cpu.run(&parent);
            cpu.switch(&parent, &child);
            cpu.leave(&child);
            slot.put(child);
            cpu.turn(slot);
        }
    });

/// A child made in a context that was used before does not find what its predecessor left in some
/// CPU's registers (I2, I13).
pub const RECYCLED: Model = Model::new("fork_into_used_context", "I2 I13")
    .explores(1000)
    .comes_to(&["forked into what the other CPU holds", "migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        let [pool, slot] = &machine.slots[..] else { return };
        if cpu.number == 1 {
            return cpu.turns([pool; 3]);
        }
        let Some(parent) = slot.take() else { return };
        for _ in 0..2 {
            cpu.run(&parent);
            if let Some(mut child) = pool.take() {
                fork_into_used(cpu, &parent, &mut child);
                pool.put(child);
            }
        }
        cpu.hand_over(parent, slot);
        cpu.turn(pool);
    });

fn fork_into_used(cpu: &Cpu, parent: &Task, child: &mut Arc<Task>) {
    if child.last_cpu() == 1 {
        cover("forked into what the other CPU holds");
    }
    let Some(child) = Arc::get_mut(child) else { panic!("the child is not new") };
    cpu.fork(parent, child);
}

/// A task whose context gets a larger area goes on with what it held, on whichever CPU, where what it has room for
/// now is allowed (I1, I2, I10).
pub const GROW: Model = Model::new("area_grows", "I1 I2 I10")
    .explores(1500)
    .comes_to(&["grown from registers", "grown where the other CPU holds it", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        for _ in 0..3 {
            let Some(mut task) = slot.take() else { continue };
            if cpu.number == 0 && task.last_cpu() == 1 {
                cover("grown where the other CPU holds it");
                grow(cpu, &mut task);
            }
            cpu.run(&task);
            if cpu.number == 0 {
                cover("grown from registers");
                grow(cpu, &mut task);
                cpu.run(&task);
            }
            cpu.hand_over(task, slot);
        }
    });

/// A task that runs here is held by this CPU alone, which has interrupts off.
fn grow(cpu: &Cpu, task: &mut Arc<Task>) {
    cpu.set_current(None);
    let Some(task) = Arc::get_mut(task) else { panic!("another CPU has the task") };
    match task.fpu.replace_area(&mut cpu.pinned(), Image::new(), true) {
        Ok(_) if task.fpu.room(&cpu.pinned()) => {}
        other => panic!("not grown: {other:?}"),
    }
}

/// After exec a task runs from the initial state, on whichever CPU (I1, I13).
pub const EXEC: Model = Model::new("exec_reset", "I1 I13")
    .explores(1000)
    .comes_to(&["reset with the state in registers", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        if cpu.number == 1 {
            return cpu.turns([slot; 3]);
        }
        for _ in 0..3 {
            let Some(task) = slot.take() else { continue };
            cpu.run(&task);
            cpu.exec(&task);
            cpu.run_once(&task);
            cpu.exec(&task);
            slot.put(task);
        }
    });
