// error: E0502
// expect: cannot borrow `*cpu` as immutable because it is also borrowed as mutable
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn exit_path(task: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    let ready = task.switch_return(cpu)?;
    task.switch_prepare(cpu)?;
    enter_user(ready);
    Ok(())
}
