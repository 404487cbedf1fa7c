// error: E0277
// expect: `kernel::PreemptOff` does not exclude interrupts, which may use the FPU
// expect: disable interrupts and pass the kernel's token
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn exit_path(session: Session<'_, PreemptOff, Both>) {
    drop(session.switch_return());
}
