// error: E0133
// expect: call to unsafe function
// expect: set_resident
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn forge(cpu: &CpuFpu) {
    cpu.set_resident(2);
}
