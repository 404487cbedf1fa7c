// error: E0505
// expect: cannot move out of `task` because it is borrowed
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn exit(task: Task, cpu: &mut IrqOff) -> Result<(), Error> {
    let session = task.open(cpu)?;
    drop(task);
    drop(session);
    Ok(())
}
