// error: E0505
// expect: cannot move out of `session` because it is borrowed
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn set_register(mut session: Session<'_, IrqOff, MemoryWritable>) {
    let image = session.image_mut();
    drop(session);
    *image = 1;
}
