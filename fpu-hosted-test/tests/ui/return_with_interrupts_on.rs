// error: E0277
// expect: `kernel::PreemptOff` does not exclude interrupts, which may use the FPU
// expect: a kernel FPU section could begin between the decision and its use
// expect: disable interrupts and pass the kernel's token
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn exit_path(task: &Task, cpu: &mut PreemptOff) -> Result<(), Error> {
    drop(task.switch_return(cpu)?);
    Ok(())
}
