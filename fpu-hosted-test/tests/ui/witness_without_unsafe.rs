// error: no rules expected
// expect: no rules expected
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
