// error: E0499
// expect: cannot borrow `*proof` as mutable more than once at a time
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn peek_and_poke(task: &Task, proof: &mut Debugger) -> Result<(), Error> {
    let reader = task.stopped(proof)?;
    let writer = task.stopped(proof)?.make_memory_valid_write();
    assert_eq!(reader.image(), writer.image());
    Ok(())
}
