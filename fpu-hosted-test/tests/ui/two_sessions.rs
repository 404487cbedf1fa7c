// error: E0499
// expect: cannot borrow `*cpu` as mutable more than once at a time
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn both(a: &Task, b: &Task, cpu: &mut IrqOff) -> Result<(), Error> {
    let first = a.open(cpu)?;
    let second = b.open(cpu)?;
    drop((first, second));
    Ok(())
}
