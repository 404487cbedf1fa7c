// error: E0277
// expect: the registers still hold this task's state
// expect: `make_memory_valid_write()` or `invalidate_registers()` is missing before this
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn set_register(mut session: Session<'_, IrqOff, Both>) {
    *session.image_mut() = 1;
}
