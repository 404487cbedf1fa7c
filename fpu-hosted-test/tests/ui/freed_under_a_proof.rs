// error: E0505
// expect: cannot move out of `traced` because it is borrowed
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn debug(traced: Task, other: Task) -> Result<(), Error> {
    let mut proof = Debugger(&traced);
    drop(traced);
    *other.stopped(&mut proof)?.make_memory_valid_write().image_mut() = 1;
    Ok(())
}
