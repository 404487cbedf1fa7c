//! Idle CPUs that give up what would keep them awake.

use fpu_core_loom::{CpuLifecycle, Error, KernelFpu, Level};

use super::{cover, must, told, Cpu, Model};

/// The idle loop, before it lets the core sleep.
fn idles(cpu: &Cpu) {
    if must(cpu.pinned().fpu_idle(), "idle") {
        cover("given up");
    } else {
        cover("nothing to give up");
    }
}

/// No CPU claims registers that an idle CPU gave up, here or on the CPU where the task resumes. Where the idle CPU
/// gives up nothing, the claim survives (I1, I2).
pub const BETWEEN: Model = Model::new("idle_between_tasks", "I1 I2")
    .explores(1600)
    .comes_to(&["given up", "nothing to give up", "restore skipped", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        for _ in 0..3 {
            let Some(task) = slot.take() else { continue };
            cpu.run_once(&task);
            idles(cpu);
            cpu.run(&task);
            cpu.hand_over(task, slot);
            idles(cpu);
        }
    });

/// An interrupt loads a context (a virtual CPU's), wherever it comes: the idle CPU gives up nothing under the new
/// claim (I2, I3).
pub const INTERRUPT: Model = Model::new("idle_interrupted_at_every_step", "I2 I3")
    .interrupted()
    .explores(1300)
    .comes_to(&["given up", "interrupt ran the guest", "interrupt refused", "migrated"])
    // Slot 0: a task. Slot 1: the guest.
    .on_cpus(2, 2, |cpu, machine| {
        let [slot, guests] = &machine.slots[..] else { return };
        if cpu.number == 1 {
            cpu.turn(slot);
            return;
        }
        let Some(task) = slot.take() else { return };
        guest_interrupts(cpu);
        cpu.run(&task);
        cpu.run(&task);
        cpu.arm(guest_interrupts);
        cpu.hand_over(task, slot);
        idles(cpu);
        idles(cpu);
        guest_interrupts(cpu);
        cpu.turn(slot);
        assert!(guests.take().is_some());
    });

fn guest_interrupts(cpu: &Cpu) {
    let guests = &cpu.machine().slots[1];
    let Some(guest) = guests.take() else { return };
    let current = cpu.current();
    let mut pin = cpu.pinned_at(Level::HardIrq);
    match pin.run_guest(guest.fpu.context(), told(current.as_ref()), || cpu.user(&guest)) {
        Ok(()) => cover("interrupt ran the guest"),
        Err(Error::Busy) => cover("interrupt refused"),
        Err(why) => panic!("wrong error: an interrupt's guest was refused with {why:?}"),
    }
    guests.put(guest);
}
