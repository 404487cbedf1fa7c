// error: unused_must_use
// expect: enter user mode with it
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

#[deny(unused_must_use)]
fn exit_path(task: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    task.switch_return(cpu)?;
    Ok(())
}
