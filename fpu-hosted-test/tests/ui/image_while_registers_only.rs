// error: E0277
// expect: the image in memory is stale: the task's state is in the registers only
// expect: `make_memory_valid_read()` is missing before this
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn signal_frame(session: Session<'_, IrqOff, RegistersOnly>) -> u64 {
    *session.image()
}
