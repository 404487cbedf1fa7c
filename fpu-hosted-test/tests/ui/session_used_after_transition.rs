// error: E0382
// expect: use of moved value: `session`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn read_and_write(session: Session<'_, IrqOff, RegistersOnly>) -> u64 {
    let readable = session.make_memory_valid_read();
    drop(session.make_memory_valid_write());
    *readable.image()
}
