// error: no attribute or doc comment
// expect: put `#[cfg]` on the whole `witness!`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

pub struct Guard;
fpu_core::witness! {
    /// Interrupts are off.
    unsafe impl Pinned for Guard {
        backend: Xsave = |_| IrqOff::new().backend(),
        words: CpuFpu = |_| unreachable!(),
    }
}
