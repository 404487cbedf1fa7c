// error: E0502
// expect: because it is also borrowed as immutable
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn debug(mut traced: Task, mut other: Task) -> Result<(), Error> {
    let mut proof = Debugger(&traced);
    core::mem::swap(&mut traced, &mut other);
    *other.stopped(&mut proof)?.make_memory_valid_write().image_mut() = 1;
    Ok(())
}
