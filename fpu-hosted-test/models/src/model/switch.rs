//! Switching, migration, and switches to a thread without a context.

use std::rc::Rc;

use super::{cover, Cpu, Machine, Model};

const ROUNDS: usize = 4;

/// A task finds in the registers what it left there, wherever and whenever it runs again (I1, I2, I3).
///
/// Two CPUs take two tasks in opposite order. In the second turn user code only looks, so that the backend leaves
/// out the save.
pub const SWITCH: Model = Model::new("switch_migrate_return", "I1 I2 I3")
    .explores(8000)
    .comes_to(&["migrated", "restore skipped"])
    .on_cpus(2, 2, |cpu, machine| {
        for round in 0..ROUNDS {
            cpu.users_only_look(round == 1);
            cpu.turn(&machine.slots[(cpu.number as usize + round) % 2]);
        }
    });

/// The same where the backend says that an area holds already what the registers hold, and no save is needed (I1, I2).
pub const UNCHANGED: Model = Model::new("switch_without_save", "I1 I2")
    .explores(8000)
    .comes_to(&["save left out", "migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        cpu.registers.tell_unchanged();
        for round in 0..ROUNDS {
            cpu.users_only_look(round % 2 == 1);
            let before = cpu.counters.totals();
            cpu.turn(&machine.slots[(cpu.number as usize + round) % 2]);
            let after = cpu.counters.totals();
            if after.unchanged > before.unchanged {
                assert_eq!(after.saved, before.saved, "saved and left out");
                cover("save left out");
            }
        }
    });

/// The same with a third CPU.
pub const THREE_CPUS: Model = Model::new("three_cpus", "I1 I2 I3")
    .bounded(3)
    .explores(5000)
    .comes_to(&["migrated"])
    .on_cpus(3, 2, |cpu, machine| {
        for round in 0..3 {
            cpu.turn(&machine.slots[(cpu.number as usize + round) % 2]);
        }
    });

/// Two tasks that alternate on one CPU, without going through the queue, keep apart (I1, I11).
pub const ALTERNATE: Model = Model::new("two_tasks_alternate", "I1 I11")
    .explores(12000)
    .comes_to(&["migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        let [first, second] = &machine.slots[..] else { return };
        if cpu.number == 1 {
            return cpu.turns([second, first, second, first]);
        }
        let Some(a) = first.take() else { return };
        cpu.run(&a);
        match second.take() {
            Some(b) => {
                cpu.switch(&a, &b);
                cpu.switch(&b, &a);
                second.put(b);
            }
            None => cpu.run(&a),
        }
        cpu.hand_over(a, first);
        cpu.turn(second);
        cpu.turn(first);
    });

/// Idle and a kernel thread in between cost no save and no restore. When the task resumes, the core notices that
/// another CPU has run it meanwhile (I1, I2).
pub const BOUNCE: Model = Model::new("idle_and_kernel_thread_bounce", "I1 I2")
    .explores(800)
    .comes_to(&["skipped over idle", "migrated"])
    .on_cpus(2, 2, bounce);

fn bounce(cpu: &Rc<Cpu>, machine: &Machine) {
    let [first, second] = &machine.slots[..] else { return };
    if cpu.number == 1 {
        return cpu.turns([first, second, first]);
    }
    let Some(task) = first.take() else { return };
    cpu.run(&task);
    for _idle_or_kernel_thread in 0..2 {
        let before = cpu.counters.totals();
        cpu.leave(&task);
        cpu.run(&task);
        let after = cpu.counters.totals();
        assert_eq!(after.restored, before.restored, "restore not skipped over idle");
        cover("skipped over idle");
    }
    cpu.hand_over(task, first);
    cpu.turns([second, first]);
}
