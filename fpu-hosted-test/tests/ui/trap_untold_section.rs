// error: E0599
// expect: no method named `context`
#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/trap.rs"]
mod trap;
use fpu_core::{trap::Trapped, *};
use kernel::*;

// The section's first instruction would meet the trap: `task.with_kernel_fpu(cpu, ..)` disarms it.
fn checksum(task: &Trapped<TaskFpu<Xsave, Area<4096>>>, cpu: &mut IrqOff) -> bool {
    cpu.with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || ()).is_ok()
}
