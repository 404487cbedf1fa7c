// error: unused_must_use
// expect: the CPU is closed to other users of the registers until this is dropped
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

#[deny(unused_must_use)]
fn forgotten(task: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    task.open(cpu)?;
    Ok(())
}
