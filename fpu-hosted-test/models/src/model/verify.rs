//! Registers compared with memory: what is wrong is found, and what is right is never accused.

use fpu_core_loom::verify::{Scratch, Verified, VerifyError};
use std::sync::Arc;

use super::{
    arm,
    backend::Image,
    cover,
    ghost::{Regs, KERNEL_DATA},
    must, on_cpus, Cpu, Machine, Model, Task,
};

fn verify(cpu: &Cpu, task: &Task) -> Result<Verified, VerifyError> {
    let mut pin = cpu.pinned();
    let mut scratch = match Scratch::new(cpu.registers.the_backend(), Image::new()) {
        Ok(scratch) => scratch,
        Err(why) => panic!("{why}"),
    };
    task.fpu.verify_registers(&mut pin, &mut scratch)
}

/// For kernels that keep their duties.
fn in_order(cpu: &Cpu, task: &Task) {
    match verify(cpu, task) {
        Ok(Verified::Agreed) => cover("agreed"),
        Ok(Verified::RegistersOnly) => cover("registers only"),
        Ok(Verified::MemoryOnly) => cover("memory only"),
        Err(VerifyError::Refused(why)) => must(Err(why), "check of the registers"),
        Err(why) => panic!("false alarm: {why}"),
    }
}

/// Where duties are kept no check fails, wherever an interrupt that uses vector code comes: before the CPU
/// is closed it takes the claim away, and after that it is refused, so that no registers of its own are
/// compared (I3, I5).
pub const RIGHT: Model = Model {
    name: "verified_before_every_return",
    guards: "I3 I5, no false alarm",
    bound: None,
    interrupts: true,
    floor: 2000,
    covers: &[
        "agreed",
        "registers only",
        "memory only",
        "interrupt ran a section",
        "interrupt refused",
        "migrated",
    ],
    body: || {
        on_cpus(&Machine::new(2, 1), 2, |cpu, machine| {
            let slot = &machine.slots[0];
            for round in 0..2 {
                let Some(task) = slot.take() else { continue };
                if cpu.number == 0 && round == 0 {
                    arm(cpu, Cpu::irq);
                }
                cpu.users_only_look(round == 1);
                verified_run(cpu, &task);
                in_order(cpu, &task);
                cpu.leave(&task);
                verified_run(cpu, &task);
                cpu.hand_over(task, slot);
            }
        });
    },
};

fn verified_run(cpu: &Cpu, task: &Arc<Task>) {
    in_order(cpu, task);
    cpu.run(task);
}

/// A kernel that writes registers behind the crate's back, all of them or one part, is found out, and what
/// the task runs with is what was saved, here or on the other CPU (I1, I11).
pub const BROKEN: Model = Model {
    name: "wrong_kernel_found_by_verify",
    guards: "I1 I11",
    bound: None,
    interrupts: false,
    floor: 100,
    covers: &["found", "memory only", "migrated"],
    body: || {
        on_cpus(&Machine::new(2, 1), 2, |cpu, machine| {
            let slot = &machine.slots[0];
            if cpu.number == 1 {
                cpu.turn(slot);
                cpu.turn(slot);
                return;
            }
            for part in [Part::High, Part::All] {
                let Some(task) = slot.take() else { continue };
                in_order(cpu, &task);
                cpu.run(&task);
                cpu.leave(&task);
                scribbles(cpu, part);
                match verify(cpu, &task) {
                    Err(VerifyError::Disagreement(_)) => cover("found"),
                    other => panic!("not found: registers that the kernel wrote: {other:?}"),
                }
                cpu.run(&task);
                cpu.leave(&task);
                slot.put(task);
            }
        });
    },
};

#[derive(Clone, Copy)]
enum Part {
    High,
    All,
}

fn scribbles(cpu: &Cpu, part: Part) {
    match part {
        Part::All => cpu.registers.fill(KERNEL_DATA),
        Part::High => {
            let Regs { low, high } = cpu.registers.get();
            cpu.registers.set(Regs { low, high: high ^ KERNEL_DATA });
        }
    }
}
