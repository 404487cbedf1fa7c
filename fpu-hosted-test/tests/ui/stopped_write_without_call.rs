// error: E0277
// expect: the registers of some CPU may still hold the stopped task's state
// expect: `make_memory_valid_write()` is missing before this
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn poke(task: &Task, proof: &mut Debugger) -> Result<(), Error> {
    let mut stopped = task.stopped(proof)?;
    *stopped.image_mut() = 1;
    Ok(())
}
