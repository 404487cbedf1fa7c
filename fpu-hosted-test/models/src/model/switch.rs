//! Switching, migration, and switches to a thread without a context.

use super::{on_cpus, Cpu, Machine, Model};

const ROUNDS: usize = 4;

/// A task finds in the registers what it left there, wherever and whenever it runs again (I1, I2, I3).
///
/// Two CPUs take two tasks in opposite order, three turns each. In the second turn user code only
/// looks, so that the save is left out.
pub const SWITCH: Model = Model {
    name: "switch_migrate_return",
    guards: "I1 I2 I3",
    bound: None,
    interrupts: false,
    floor: 8000,
    covers: &["migrated", "restore skipped"],
    body: || {
        on_cpus(&Machine::new(2, 2), 2, |cpu, machine| {
            for round in 0..ROUNDS {
                cpu.users_only_look(round == 1);
                cpu.turn(&machine.slots[(cpu.number as usize + round) % 2]);
            }
        });
    },
};

/// The same with a third CPU, two turns each.
pub const THREE_CPUS: Model = Model {
    name: "three_cpus",
    guards: "I1 I2 I3",
    bound: Some(3),
    interrupts: false,
    floor: 5000,
    covers: &["migrated"],
    body: || {
        on_cpus(&Machine::new(3, 2), 3, |cpu, machine| {
            for round in 0..3 {
                cpu.turn(&machine.slots[(cpu.number as usize + round) % 2]);
            }
        });
    },
};

/// Two tasks that alternate on one CPU, without going through the queue, keep apart (I1, I11).
pub const ALTERNATE: Model = Model {
    name: "two_tasks_alternate",
    guards: "I1 I11",
    bound: None,
    interrupts: false,
    floor: 12000,
    covers: &["migrated"],
    body: || {
        on_cpus(&Machine::new(2, 2), 2, |cpu, machine| {
            let [first, second] = &machine.slots[..] else { return };
            if cpu.number == 1 {
                for slot in [second, first, second, first] {
                    cpu.turn(slot);
                }
                return;
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
    },
};

/// Idle and a kernel thread in between cost no save and no restore, and a task that is stolen
/// meanwhile is noticed when the task resumes (I1, I2).
pub const BOUNCE: Model = Model {
    name: "idle_and_kernel_thread_bounce",
    guards: "I1 I2",
    bound: None,
    interrupts: false,
    floor: 800,
    covers: &["skipped over idle", "migrated"],
    body: || {
        on_cpus(&Machine::new(2, 2), 2, bounce);
    },
};

fn bounce(cpu: &std::rc::Rc<Cpu>, machine: &Machine) {
    let [first, second] = &machine.slots[..] else { return };
    if cpu.number == 1 {
        for slot in [first, second, first] {
            cpu.turn(slot);
        }
        return;
    }
    let Some(task) = first.take() else { return };
    cpu.run(&task);
    for _idle_or_kernel_thread in 0..2 {
        let before = cpu.counters.totals();
        cpu.leave(&task);
        cpu.run(&task);
        let after = cpu.counters.totals();
        assert_eq!(after.restored, before.restored, "restore not skipped over idle");
        super::cover("skipped over idle");
    }
    cpu.hand_over(task, first);
    for slot in [second, first] {
        cpu.turn(slot);
    }
}
