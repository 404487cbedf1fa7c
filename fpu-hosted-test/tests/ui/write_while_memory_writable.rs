// error: E0277
// expect: memory is the task's only copy: it can be written as it is
// expect: leave this call out
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn set_register(session: Session<'_, IrqOff, MemoryWritable>) {
    *session.make_memory_valid_write().image_mut() = 1;
}
