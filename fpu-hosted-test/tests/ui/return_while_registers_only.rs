// error: E0277
// expect: the registers are the task's only copy: nothing is to be loaded in this session
// expect: end the session, then go to user mode by `TaskFpu::switch_return`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn leave(session: Session<'_, IrqOff, RegistersOnly>) {
    enter_user(session.switch_return());
}
