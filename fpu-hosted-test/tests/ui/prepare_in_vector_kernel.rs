// error: E0277
// expect: `kernel::VectorKernel` does not promise that kernel code leaves the FPU registers alone
// expect: a kernel compiled with vector instructions executes steps (`begin_user`, `begin_switch_out`, `SwitchSteps`)
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn switch(task: &Task, cpu: &VectorKernel) -> Result<(), Error> {
    task.switch_prepare(cpu)
}
