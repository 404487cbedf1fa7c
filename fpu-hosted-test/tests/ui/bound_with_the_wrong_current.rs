// error: E0599
// expect: no method named `context` found
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

// The CPU knows whom to save: `None` stands for a bound task.
fn checksum(bound: &BoundFpu<'_, Xsave, Area<64>>, pin: &mut PreemptOff) -> Result<(), Error> {
    pin.with_kernel_fpu(Some(bound.context()), KernelUnits::ALL, || ())
}
