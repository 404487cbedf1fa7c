//! Kernels that restore inside the switch, registers that become a context, and contexts held exclusively.

use fpu_core_loom::{switch, Error};
use std::{rc::Rc, sync::Arc};

use super::{cover, irq::tick, must, read, stopped::wake, told, Cpu, Machine, Model, Task};

/// A thread without a context computes where a task's claim still stands, and gets a context. The thread finds its
/// registers again wherever it runs, and the core loads the task again (I1, I2).
pub const ADOPT: Model = Model::new("adopted_registers", "I1 I2")
    .explores(900)
    .comes_to(&["adopted", "migrated"])
    .on_cpus(2, 2, adopts);

fn adopts(cpu: &Rc<Cpu>, machine: &Machine) {
    let [first, second] = &machine.slots[..] else { return };
    if cpu.number == 1 {
        return cpu.turns([second, first, first]);
    }
    let Some(earlier) = first.take() else { return };
    cpu.run_once(&earlier);
    let thread = Arc::new(Task::new(5));
    cpu.registers.fill(thread.ghost.user_writes());
    // SAFETY: C37: the thread's own, and the task has been saved. C38: the area is new.
    must(unsafe { thread.fpu.adopt(&mut cpu.irq_off()) }, "adoption");
    cover("adopted");
    cpu.set_current(Some(&thread));
    cpu.user(&thread);
    cpu.leave(&thread);
    cpu.run_once(&earlier);
    first.put(thread);
    cpu.turn(second);
    cpu.turn(first);
}

/// One call switches from a task to the next, to itself, to idle and from idle. Each task finds what it left, and the
/// core does not save a task that stays (I1, I2, I11).
pub const SWITCH: Model = Model::new("one_call_for_both_tasks", "I1 I2 I11")
    .explores(2500)
    .comes_to(&["from one to the other", "stayed", "migrated"])
    .on_cpus(2, 2, switches);

fn switches(cpu: &Rc<Cpu>, machine: &Machine) {
    let [first, second] = &machine.slots[..] else { return };
    if cpu.number == 1 {
        return cpu.turns([second, first, second]);
    }
    let Some(a) = first.take() else { return };
    both(cpu, None, Some(&a));
    if let Some(b) = second.take() {
        both(cpu, Some(&a), Some(&b));
        cover("from one to the other");
        both(cpu, Some(&b), Some(&a));
        second.put(b);
    }
    let saved = cpu.counters.totals().saved;
    both(cpu, Some(&a), Some(&a));
    assert_eq!(cpu.counters.totals().saved, saved, "a task that stays is saved");
    cover("stayed");
    both(cpu, Some(&a), None);
    first.put(a);
    cpu.turn(second);
    cpu.turn(first);
}

fn both(cpu: &Cpu, prev: Option<&Arc<Task>>, next: Option<&Arc<Task>>) {
    let mut off = cpu.irq_off();
    must(switch(told(prev), told(next), &mut off).map_err(Error::from), "switch");
    cpu.set_current(next);
    if let Some(next) = next {
        cpu.user(next);
    }
}

/// A kernel restores inside the switch, and has interrupts on until the return path calls again: the task never sees
/// what a section in between has left (I3, I11).
pub const RETURN: Model = Model::new("restored_inside_the_switch", "I3 I11")
    .interrupted()
    .explores(500)
    .comes_to(&["interrupt ran a section", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        if cpu.number == 1 {
            return cpu.turns([slot; 2]);
        }
        let Some(task) = slot.take() else { return };
        cpu.arm(Cpu::irq);
        for _ in 0..2 {
            cpu.set_current(Some(&task));
            must(task.fpu.switch_in(&mut cpu.irq_off()), "restore inside the switch");
            tick();
            let mut off = cpu.irq_off();
            must(task.fpu.switch_in(&mut off), "return path");
            cpu.user(&task);
            drop(off);
            tick();
            cpu.leave(&task);
        }
        slot.put(task);
        cpu.turn(slot);
    });

/// Code that holds a context exclusively reads and writes it on any CPU, wherever its task was. The task runs next with
/// what was written, even on the CPU whose registers still hold the old state (I1, no lost write).
pub const HELD: Model = Model::new("exclusive_access_against_wakeup", "I1, no lost write")
    .explores(3500)
    .comes_to(&["woke where the registers held the old state", "migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        let [first, second] = &machine.slots[..] else { return };
        if cpu.number == 0 {
            return wake(cpu, [first, first, second, first]);
        }
        for _ in 0..2 {
            if let Some(mut task) = first.take() {
                match Arc::get_mut(&mut task) {
                    Some(task) => pokes(cpu, task),
                    None => panic!("the task is not held exclusively"),
                }
                first.put(task);
            }
            wake(cpu, [first]);
        }
    });

fn pokes(cpu: &Cpu, task: &mut Task) {
    let mut pin = cpu.pinned();
    let mut session = read(task, &mut pin).make_memory_valid_write();
    session.image_mut().write(task.ghost.tracer_writes());
}
