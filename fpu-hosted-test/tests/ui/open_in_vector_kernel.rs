// error: E0277
// expect: `kernel::VectorKernel` does not promise that kernel code leaves the FPU registers alone
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn signal_frame(task: &Task, cpu: &mut VectorKernel) -> Result<(), Error> {
    drop(task.open(cpu)?);
    Ok(())
}
