// error: E0499
// expect: cannot borrow `*cpu` as mutable more than once at a time
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn exit_path(task: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    let ready = task.switch_return(cpu)?;
    drop(cpu.kernel_fpu(None, KernelUnits::ALL)?);
    enter_user(ready);
    Ok(())
}
