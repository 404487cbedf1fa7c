// error: E0505
// expect: cannot move out of `cpu` because it is borrowed
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

type Slots = BoundCpu<Xsave, Area<64>, [BoundSlot<Xsave, Area<64>>; 2]>;

// The slot that a context is in stays where it is for as long as the context has a handle.
fn hot_unplug(cpu: Box<Slots>, task: Task, irq: &mut IrqOff) -> Result<(), Error> {
    let slots: &BoundCpu<Xsave, Area<64>> = &*cpu;
    let task = slots.bind(task, irq)?;
    drop(cpu);
    task.switch_in(irq)
}
