// error: E0277
// expect: `u32` does not prove that the task is stopped
// expect: stop the task first and pass the guard type
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn peek(task: &Task, mut pid: u32) -> Result<u64, Error> {
    Ok(*task.stopped(&mut pid)?.image())
}
