// error: E0451
// expect: of struct `fpu_core::session::Session` are private
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::session::*;
use kernel::*;

fn steal(task: FpuRef<'_, Xsave>) {
    let _: Session<'_, IrqOff, MemoryOnly> = Session { task, ..another() };
}

fn another() -> Session<'static, IrqOff, MemoryOnly> {
    loop {}
}
