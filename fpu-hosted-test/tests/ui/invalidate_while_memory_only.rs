// error: E0277
// expect: the registers' claim can be dropped only while memory holds the same state
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn forget(session: Session<'_, IrqOff, MemoryOnly>) {
    drop(session.invalidate_registers());
}
