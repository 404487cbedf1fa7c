// error: E0277
// expect: cannot be sent between threads safely
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn is_send<T: Send>(_: T) {}
fn hand_over(section: Section<'_, IrqOff>) {
    is_send(section);
}
