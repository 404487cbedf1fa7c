// error: E0277
// expect: cannot be sent between threads safely
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn is_send<T: Send>(_: T) {}
fn hand_over(session: Session<'_, IrqOff, MemoryOnly>) {
    is_send(session);
}
