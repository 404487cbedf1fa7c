// error: E0499
// expect: cannot borrow `*cpu` as mutable more than once at a time
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn checksum(cpu: &mut IrqOff) -> Result<(), Error> {
    let outer = cpu.kernel_fpu(None, KernelUnits::ALL)?;
    let inner = cpu.kernel_fpu(None, KernelUnits::ALL)?;
    drop((inner, outer));
    Ok(())
}
