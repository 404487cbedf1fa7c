// error: E0308
// expect: expected `UserReady<
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn exit_path(cpu: &mut IrqOff) {
    enter_user(cpu);
}
