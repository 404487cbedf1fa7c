// error: E0271
// expect: type mismatch resolving `<IrqOff as Pinned>::Backend == Fxsave`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn switch(task: &TaskFpu<Fxsave, Area<64>>, cpu: &IrqOff) -> Result<(), Error> {
    task.switch_prepare(cpu)
}
