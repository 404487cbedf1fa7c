// error: E0308
// expect: expected `UserReady<
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn exit_path(task: &Task, cpu: &mut IrqOff) {
    enter_user(task.switch_return(cpu));
}
