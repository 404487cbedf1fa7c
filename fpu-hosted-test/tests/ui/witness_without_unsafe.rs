// error: each impl begins with
// expect: `unsafe impl Pinned` or `unsafe impl Stopped`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

pub struct Guard;
fpu_core::witness! {
    impl Pinned for Guard {
        backend: Xsave = |_| IrqOff::new().backend(),
        words: CpuFpu = |_| unreachable!(),
    }
}
