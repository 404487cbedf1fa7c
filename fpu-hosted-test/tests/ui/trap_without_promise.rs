// error: E0133
// expect: call to unsafe function
#[path = "support/kernel.rs"]
mod kernel;
#[path = "support/trap.rs"]
mod trap;
use fpu_core::{trap::Trapped, *};
use kernel::*;

// All tasks must be allowed to read each other.
fn new(context: TaskFpu<Xsave, Area<4096>>, backend: &TheBackend<Xsave>) -> bool {
    Trapped::new(context, backend).is_ok()
}
