// error: E0277
// expect: memory holds this task's state already: there is nothing to save
// expect: leave this call out
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn leave(session: Session<'_, IrqOff, MemoryOnly>) {
    session.switch_prepare();
}
