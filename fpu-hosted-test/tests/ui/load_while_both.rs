// error: E0277
// expect: the registers still hold this task's state
// expect: missing before this
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn load(session: Session<'_, IrqOff, Both>) {
    drop(session.make_registers_valid());
}
