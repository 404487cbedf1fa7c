// error: E0505
// expect: cannot move out of `cpu` because it is borrowed
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn checksum(mut cpu: IrqOff) -> Result<(), Error> {
    let section = cpu.kernel_fpu(None, KernelUnits::ALL)?;
    drop(cpu);
    drop(section);
    Ok(())
}
