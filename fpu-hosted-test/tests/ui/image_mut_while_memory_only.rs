// error: E0277
// expect: registers may still hold this task's state, of this CPU or another
// expect: `make_memory_valid_write()` is missing before this
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn set_register(mut session: Session<'_, IrqOff, MemoryOnly>) {
    *session.image_mut() = 1;
}
