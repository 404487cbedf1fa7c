//! Kernel FPU sections: in task context, in interrupts, and with a persistent context.

use fpu_core_loom::{session::TaskState, CpuLifecycle, Error, KernelFpu};
use std::{rc::Rc, sync::Arc};

use super::{cover, must, read, told, Cpu, Model, Task};

/// Any number of sections in one entry to the kernel cost one save and one restore, and leave nothing
/// in the registers that the task could see (I1, I5, I11).
pub const TASK: Model = Model::new("kernel_section_in_task_context", "I1 I5 I11")
    .explores(500)
    .comes_to(&["saved once", "migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        for round in 0..3 {
            let slot = &machine.slots[(cpu.number as usize + round) % 2];
            let Some(task) = slot.take() else { continue };
            cpu.run(&task);
            let before = cpu.counters.totals();
            cpu.section();
            cpu.section();
            cpu.run(&task);
            let after = cpu.counters.totals();
            let (saved, restored) = (after.saved - before.saved, after.restored - before.restored);
            assert_eq!((saved, restored), (1, 1), "more than one save for two sections");
            cover("saved once");
            cpu.leave(&task);
            // As a kernel thread: the task is in memory already.
            cpu.section();
            slot.put(task);
        }
    });

/// The core refuses an interrupt's vector code, or that code is harmless, wherever the interrupt comes: in
/// sessions, sections, persistent runs, and between them (I3, I5).
pub const INTERRUPT: Model = Model::new("interrupt_at_every_step", "I3 I5")
    .interrupted()
    .explores(3000)
    .comes_to(&["interrupt ran a section", "interrupt refused", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        if cpu.number == 1 {
            return cpu.turns([slot; 2]);
        }
        let Some(task) = slot.take() else { return };
        let guest = Task::new(6);
        cpu.arm(Cpu::irq);
        cpu.run(&task);
        drop(read(&task, &mut cpu.pinned()));
        cpu.run(&task);
        cpu.section();
        cpu.run(&task);
        writes(cpu, &task);
        cpu.run(&task);
        guest_runs(cpu, &guest);
        guest_runs(cpu, &guest);
        cpu.run(&task);
        cpu.hand_over(task, slot);
        cpu.turn(slot);
    });

fn writes(cpu: &Cpu, task: &Task) {
    let mut pin = cpu.pinned();
    let mut session = must(task.fpu.open(&mut pin), "session").make_memory_valid_write();
    task.ghost.judge(session.image().get(), "a session's image");
    session.image_mut().write(task.ghost.tracer_writes());
    must(session.make_registers_valid().map(drop), "reload");
}

/// The same for everything that changes a claim: fork, exec, resume, offline, online (I2, I3, I5).
pub const LIFECYCLE: Model = Model::new("interrupt_in_lifecycle_calls", "I2 I3 I5")
    .interrupted()
    .explores(2500)
    .comes_to(&["interrupt ran a section", "interrupt refused", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        if cpu.number == 1 {
            return cpu.turns([slot; 2]);
        }
        let Some(task) = slot.take() else { return };
        cpu.arm(Cpu::irq);
        cpu.run(&task);
        let mut child = Task::new(5);
        cpu.fork(&task, &mut child);

        cpu.run(&task);
        cpu.exec(&task);
        cpu.run_once(&task);
        must(cpu.pinned().invalidate_registers(), "invalidation");
        cpu.power_off();
        assert_eq!(cpu.enter(&task), Err(Error::CpuOffline), "offline CPU used");
        cpu.set_current(None);
        cpu.power_on();
        let child = Arc::new(child);
        cpu.run_once(&child);
        slot.put(task);
        cpu.turn(slot);
    });

/// The core refuses a non-maskable interrupt wherever it comes, in the middle of a switch too (I5).
pub const NMI: Model = Model::new("nmi_at_every_step", "I5")
    .interrupted()
    .explores(4000)
    .comes_to(&["NMI refused", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        if cpu.number == 1 {
            return cpu.turns([slot; 2]);
        }
        let Some(task) = slot.take() else { return };
        cpu.arm_nmi(Cpu::nmi);
        cpu.run_once(&task);
        cpu.run(&task);
        cpu.section();
        cpu.run(&task);
        cpu.hand_over(task, slot);
        cpu.turn(slot);
    });

/// A persistent context keeps its registers between two runs if no other code used them. Otherwise the core
/// loads it again, and so it does the task around the runs (I1, I2, I11).
pub const PERSISTENT: Model = Model::new("persistent_contexts", "I1 I2 I11")
    .explores(950)
    .comes_to(&["persistent context still in the registers", "persistent context moved"])
    // Slot 0: a task. Slots 1 and 2: virtual CPUs.
    .on_cpus(2, 3, |cpu, machine| {
        let [user, first, second] = &machine.slots[..] else { return };
        if cpu.number == 1 {
            for slot in [first, second, first] {
                if let Some(guest) = slot.take() {
                    guest_runs(cpu, &guest);
                    slot.put(guest);
                }
            }
            return;
        }
        let Some(task) = user.take() else { return };
        cpu.run(&task);
        for slot in [first, second, first] {
            let Some(guest) = slot.take() else { continue };
            guest_runs(cpu, &guest);
            guest_runs(cpu, &guest);
            slot.put(guest);
        }
        cpu.run(&task);
        cpu.hand_over(task, user);
    });

fn guest_runs(cpu: &Rc<Cpu>, guest: &Task) {
    let current = cpu.current();
    let skipped = cpu.counters.totals().skipped;
    let ran = cpu.pinned().run_guest(guest.fpu.context(), told(current.as_ref()), || {
        let before = guest.last_cpu();
        cpu.user(guest);
        if before != guest.last_cpu() && guest.ghost.serial() > 1 {
            cover("persistent context moved");
        }
    });
    must(ran, "persistent context");
    if cpu.counters.totals().skipped > skipped {
        cover("persistent context still in the registers");
    }
}

/// A session finds a task in each of the three states. It reads the current state; the task runs next with what
/// it writes; and a reload takes the registers from the context that had them (I1, no lost write).
pub const SESSION: Model = Model::new("session_write", "I1, no lost write")
    .explores(180)
    .comes_to(&["registers only", "both", "memory only"])
    .on_cpus(2, 2, |cpu, machine| {
        let [first, second] = &machine.slots[..] else { return };
        if cpu.number == 1 {
            return cpu.turns([first; 3]);
        }
        let (Some(task), Some(other)) = (first.take(), second.take()) else { return };
        cpu.run(&task);
        rewrites(cpu, &task); // registers only
        cpu.run_once(&task);
        rewrites(cpu, &task); // both
        cpu.run(&task);
        cpu.switch(&task, &other);
        cpu.leave(&other);
        reloads(cpu, &task); // memory only
        cpu.leave(&task);
        cpu.run(&other);
        cpu.switch(&other, &task);
        leaves(cpu, &task);
        cpu.run_once(&other);
        loads(cpu, &task);
        let loaded = cpu.counters.totals().restored;
        cpu.run(&task);
        assert_eq!(cpu.counters.totals().restored, loaded, "loaded twice");
        cpu.hand_over(task, first);
        cpu.turn(first);
    });

fn rewrites(cpu: &Cpu, task: &Task) {
    let mut pin = cpu.pinned();
    let state = must(task.fpu.open(&mut pin), "session");
    cover(state.name());
    let session = state.make_memory_valid_read();
    task.ghost.judge(session.image().get(), "a session's image");
    let mut session = session.make_memory_valid_write();
    session.image_mut().write(task.ghost.tracer_writes());
}

/// Switches out from a session.
pub(super) fn leaves(cpu: &Cpu, task: &Task) {
    let mut pin = cpu.pinned();
    let state = must(task.fpu.open(&mut pin), "session");
    let TaskState::RegistersOnly(session) = state else { panic!("the task was running") };
    session.switch_prepare();
    cpu.set_current(None);
}

/// Loads in the kernel, ahead of the return.
fn loads(cpu: &Cpu, task: &Task) {
    let before = cpu.counters.totals().restored;
    let mut pin = cpu.pinned();
    must(must(task.fpu.open(&mut pin), "session").make_registers_valid(), "load");
    task.ghost.judge(cpu.registers.get(), "the registers after a load");
    assert_eq!(cpu.counters.totals().restored, before + 1);
}

/// A signal frame on the way to user mode: the session writes it, loads it, and enters user mode.
fn reloads(cpu: &Cpu, task: &Arc<Task>) {
    cpu.set_current(Some(task));
    let mut pin = cpu.irq_off();
    let state = must(task.fpu.open(&mut pin), "session");
    cover(state.name());
    let TaskState::MemoryOnly(session) = state else { panic!("the registers hold another task") };
    let mut session = session.make_memory_valid_write();
    session.image_mut().write(task.ghost.tracer_writes());
    let ready = must(session.switch_return(), "return from a session");
    cpu.user(task);
    drop(ready);
}
