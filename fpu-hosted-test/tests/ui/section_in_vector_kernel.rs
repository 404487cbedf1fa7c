// error: E0277
// expect: `kernel::VectorKernel` does not promise that kernel code leaves the FPU registers alone
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn checksum(cpu: &mut VectorKernel) -> Result<(), Error> {
    drop(cpu.kernel_fpu(None, KernelUnits::ALL)?);
    Ok(())
}
