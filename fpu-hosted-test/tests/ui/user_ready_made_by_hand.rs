// error: E0451
// expect: of struct `fpu_core::UserReady` are private
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn exit_path(cpu: &mut IrqOff) {
    enter_user(UserReady { _cpu: cpu, not_send: core::marker::PhantomData });
}
