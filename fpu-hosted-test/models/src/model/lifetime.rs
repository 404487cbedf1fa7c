//! Exit, fork and exec: the beginnings and ends of contexts.

use std::{rc::Rc, sync::Arc};

use super::{
    backend::Image,
    cover,
    fault::{forgets, Embedder},
    ghost::INITIAL,
    must, on_cpus, Cpu, Machine, Model, Slot, Task,
};

/// A new task in the memory of one that exited finds the initial state, although another CPU's
/// registers still hold the old one (I2, I8, I11).
pub const REUSE: Model = Model {
    name: "exit_and_reuse",
    guards: "I2 I8 I11",
    bound: None,
    interrupts: false,
    floor: 2800,
    covers: &["reused while another CPU holds the old task", "migrated"],
    body: || {
        on_cpus(&Machine::new(2, 2), 2, |cpu, machine| {
            let [first, second] = &machine.slots[..] else { return };
            if cpu.number == 0 {
                for slot in [first, second, first, first] {
                    cpu.turn(slot);
                }
                return;
            }
            for id in [7, 8] {
                reap(first, id);
                cpu.turn(first);
            }
        });
    },
};

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
pub const FORK: Model = Model {
    name: "fork",
    guards: "I2 I13",
    bound: None,
    interrupts: false,
    floor: 700,
    covers: &["forked from registers", "migrated"],
    body: || {
        on_cpus(&Machine::new(2, 1), 2, |cpu, machine| {
            let slot = &machine.slots[0];
            if cpu.number == 1 {
                for _ in 0..3 {
                    cpu.turn(slot);
                }
                return;
            }
            let Some(parent) = slot.take() else { return };
            cpu.run(&parent);
            cpu.run(&parent); // twice: an even state has both components
            let mut child = Task::new(5);
            must(parent.fpu.fork_into(&mut cpu.pinned(), &mut child.fpu), "fork");
            cover("forked from registers");
            child.ghost.expect(parent.ghost.expected());
            let child = Arc::new(child);
            cpu.run(&parent);
            cpu.hand_over(parent, slot);
            cpu.run(&child);
            // On to where the parent was, if the other CPU has it.
            cpu.leave(&child);
            if let Some(parent) = slot.take() {
                cpu.run(&parent);
                cpu.switch(&parent, &child);
                cpu.leave(&child);
                slot.put(child);
                cpu.turn(slot);
            }
        });
    },
};

/// A child made in a context that was used before does not find what its predecessor left in some
/// CPU's registers (I2, I13).
pub const RECYCLED: Model = Model {
    name: "fork_into_used_context",
    guards: "I2 I13",
    bound: None,
    interrupts: false,
    floor: 1000,
    covers: &["forked into what the other CPU holds", "migrated"],
    body: || {
        on_cpus(&Machine::new(2, 2), 2, |cpu, machine| {
            let [pool, slot] = &machine.slots[..] else { return };
            if cpu.number == 1 {
                for _ in 0..3 {
                    cpu.turn(pool);
                }
                return;
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
    },
};

fn fork_into_used(cpu: &Cpu, parent: &Task, child: &mut Arc<Task>) {
    if child.last_cpu() == 1 {
        cover("forked into what the other CPU holds");
    }
    let Some(child) = Arc::get_mut(child) else { panic!("the child is not new") };
    must(parent.fpu.fork_into(&mut cpu.pinned(), &mut child.fpu), "fork");
    child.ghost.expect(parent.ghost.expected());
}

/// A task whose context gets a larger area goes on with what it held, on whichever CPU, where what it has room for
/// now is allowed (I1, I2, I10).
pub const GROW: Model = Model {
    name: "area_grows",
    guards: "I1 I2 I10",
    bound: None,
    interrupts: false,
    floor: 1500,
    covers: &["grown from registers", "grown where the other CPU holds it", "migrated"],
    body: || {
        on_cpus(&Machine::new(2, 1), 2, |cpu, machine| {
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
    },
};

/// A task that runs here is held by this CPU alone, which has interrupts off.
fn grow(cpu: &Cpu, task: &mut Arc<Task>) {
    cpu.set_current(None);
    let Some(task) = Arc::get_mut(task) else { panic!("the task is not this CPU's alone") };
    match task.fpu.replace_area(&mut cpu.pinned(), Image::new(), true) {
        Ok(_) if task.fpu.room(&cpu.pinned()) => {}
        other => panic!("not grown: {other:?}"),
    }
}

/// After exec a task runs from the initial state, on whichever CPU (I1, I13).
pub const EXEC: Model = Model {
    name: "exec_reset",
    guards: "I1 I13",
    bound: None,
    interrupts: false,
    floor: 1000,
    covers: &["reset with the state in registers", "migrated"],
    body: || {
        on_cpus(&Machine::new(2, 1), 2, |cpu, machine| {
            let slot = &machine.slots[0];
            if cpu.number == 1 {
                for _ in 0..3 {
                    cpu.turn(slot);
                }
                return;
            }
            for _ in 0..3 {
                let Some(task) = slot.take() else { continue };
                cpu.run(&task);
                exec(cpu, &task);
                cpu.run(&task);
                cpu.leave(&task);
                exec(cpu, &task);
                slot.put(task);
            }
        });
    },
};

fn exec(cpu: &Rc<Cpu>, task: &Task) {
    if !forgets(Embedder::NoReset) {
        must(task.fpu.reset(&mut cpu.pinned()), "exec");
        cover("reset with the state in registers");
    }
    task.ghost.expect(INITIAL);
}
