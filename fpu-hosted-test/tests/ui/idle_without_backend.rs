// error: E0277
// expect: the backend `Xsave` cannot give up registers before a core sleeps
// expect: implement `fpu_core::IdleFpu` for it
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn idle_loop(cpu: &mut IrqOff) -> bool {
    cpu.fpu_idle().is_ok()
}
