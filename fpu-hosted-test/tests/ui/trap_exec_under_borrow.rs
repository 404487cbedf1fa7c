// error: E0502
// expect: cannot borrow `*task` as mutable
#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/trap.rs"]
mod trap;
use fpu_core::{trap::Trapped, *};
use kernel::*;

// A context that traps again must not be known as one like any other.
fn exec(task: &mut Trapped<TaskFpu<Xsave, Area<4096>>>, cpu: &mut IrqOff) -> Result<(), Error> {
    let current = task.used(cpu)?.context();
    task.reset(cpu)?;
    cpu.with_kernel_fpu(Some(current), KernelUnits::ALL, || ())
}
