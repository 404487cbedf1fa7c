// error: E0277
// expect: `kernel::VectorKernel` does not promise that kernel code leaves the FPU registers alone
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

// SAFETY: never run.
unsafe impl IdleFpu for Xsave {
    unsafe fn keeps_awake(&self) -> bool {
        false
    }
    unsafe fn release(&self) {}
}

// Its own code has been in the registers since: there is no claim to keep.
fn idle_loop(cpu: &mut VectorKernel) -> bool {
    cpu.fpu_idle().is_ok()
}
