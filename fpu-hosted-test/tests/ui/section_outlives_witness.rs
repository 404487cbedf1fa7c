// error: E0597
// expect: `cpu` does not live long enough
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn begin() -> Result<(), Error> {
    let section;
    {
        let mut cpu = IrqOff::new();
        section = cpu.kernel_fpu(None, KernelUnits::ALL)?;
    }
    drop(section);
    Ok(())
}
