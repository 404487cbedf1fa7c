// error: in this order
// expect: each with a comma: `backend: B = |w| ..`, `words: W = |w| ..`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

pub struct Guard;
fpu_core::witness! {
    unsafe impl Pinned + Exclusive for Guard {
        words: CpuFpu = |_| unreachable!(),
        backend: Xsave = |_| IrqOff::new().backend(),
    }
}
