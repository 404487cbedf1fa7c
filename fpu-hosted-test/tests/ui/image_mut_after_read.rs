// error: E0277
// expect: this session can only read: registers may still hold the task's state
// expect: `make_memory_valid_write()` is missing before this
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn set_register(task: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    let mut session = task.open(cpu)?.make_memory_valid_read();
    *session.image_mut() = 1;
    Ok(())
}
