// error: in this order
// expect: `backend: B = |w| ..`, `context: |w| ..`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

pub struct Traced(Task);
fpu_core::witness! {
    unsafe impl Stopped for Traced {
        backend: Xsave = |_| unreachable!(),
        context: |proof| proof.0.context()
    }
}
