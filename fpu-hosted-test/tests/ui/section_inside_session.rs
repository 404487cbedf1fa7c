// error: E0499
// expect: cannot borrow `*cpu` as mutable more than once at a time
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn checksum(task: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    let session = task.open(cpu)?;
    drop(cpu.kernel_fpu(None, KernelUnits::ALL)?);
    drop(session);
    Ok(())
}
