// error: E0277
// expect: Sealed
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

struct Fresh;
impl State for Fresh {
    const NAME: &'static str = "fresh";
}
