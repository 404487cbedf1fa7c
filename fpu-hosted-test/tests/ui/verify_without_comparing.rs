// error: E0277
// expect: the backend `kernel::Xsave` cannot compare two images
// expect: implement `fpu_core::verify::CompareFpu` for it
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use fpu_core::verify::*;
use kernel::*;

fn check(task: &Task, cpu: &mut IrqOff, scratch: &mut Scratch<Xsave, Area<64>>) -> bool {
    task.verify_registers(cpu, scratch).is_ok()
}
