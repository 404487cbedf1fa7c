//! Registers compared with memory: the core finds what is wrong, and raises no false alarm.

use fpu_core_loom::verify::{Scratch, Verified, VerifyError};
use std::sync::Arc;

use super::{
    backend::Image,
    cover,
    ghost::{Regs, KERNEL_DATA},
    must, Cpu, Model, Task,
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

/// Where a kernel keeps its duties no check fails, wherever an interrupt that uses vector code comes. Before the
/// core has closed the CPU, the interrupt ends the claim; after that the core refuses the interrupt. So the check
/// never compares the interrupt's registers (I3, I5).
pub const RIGHT: Model = Model::new("verified_before_every_return", "I3 I5, no false alarm")
    .interrupted()
    .explores(2000)
    .comes_to(&[
        "agreed",
        "registers only",
        "memory only",
        "interrupt ran a section",
        "interrupt refused",
        "migrated",
    ])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        for round in 0..2 {
            let Some(task) = slot.take() else { continue };
            if cpu.number == 0 && round == 0 {
                cpu.arm(Cpu::irq);
            }
            cpu.users_only_look(round == 1);
            verified_run(cpu, &task);
            in_order(cpu, &task);
            cpu.leave(&task);
            verified_run(cpu, &task);
            cpu.hand_over(task, slot);
        }
    });

fn verified_run(cpu: &Cpu, task: &Arc<Task>) {
    in_order(cpu, task);
    cpu.run(task);
}

/// The core finds that a kernel has written registers outside a section, all of them or one part. The task runs with
/// what was saved, here or on the other CPU (I1, I11).
pub const BROKEN: Model = Model::new("wrong_kernel_found_by_verify", "I1 I11")
    .explores(100)
    .comes_to(&["found", "memory only", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        if cpu.number == 1 {
            return cpu.turns([slot; 2]);
        }
        for part in [Part::High, Part::All] {
            let Some(task) = slot.take() else { continue };
            in_order(cpu, &task);
            cpu.run_once(&task);
            scribbles(cpu, part);
            match verify(cpu, &task) {
                Err(VerifyError::Disagreement(_)) => cover("found"),
                other => panic!("not found: registers that the kernel wrote: {other:?}"),
            }
            cpu.run_once(&task);
            slot.put(task);
        }
    });

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
