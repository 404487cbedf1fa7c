// error: E0277
// expect: the backend `kernel::Xsave` cannot trap the first use of its registers
// expect: implements `fpu_core::trap::TrapFpu`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::{trap::Trapped, *};
use kernel::*;

fn new(context: TaskFpu<Xsave, Area<4096>>, backend: &TheBackend<Xsave>) -> bool {
    // SAFETY: never run.
    unsafe { Trapped::new(context, backend) }.is_ok()
}
