// error: E0277
// expect: `kernel::VectorKernel` does not promise that kernel code leaves the FPU registers alone
#[path = "support/kernel.rs"]
mod kernel;
use core::ptr::NonNull;
use fpu_core::*;
use fpu_core::verify::*;
use kernel::*;

// SAFETY: never run.
unsafe impl CompareFpu for Xsave {
    unsafe fn same_state(&self, _: NonNull<u8>, _: NonNull<u8>) -> Result<(), Difference> {
        Ok(())
    }
}

// Its own code has been in the registers since: there is no claim to check.
fn check(task: &Task, cpu: &mut VectorKernel, scratch: &mut Scratch<Xsave, Area<64>>) -> bool {
    task.verify_registers(cpu, scratch).is_ok()
}
