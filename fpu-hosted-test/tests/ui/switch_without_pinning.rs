// error: E0277
// expect: `()` does not prove that this code stays on its CPU
// expect: disable preemption first and pass the kernel's token
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn is_here(task: &Task) -> bool {
    task.registers_valid(&())
}
