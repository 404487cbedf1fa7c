// error: E0277
// expect: the areas of the backend `Xsave` are all of one size
// expect: implements `fpu_core::grow::GrowFpu`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn grow<R>(task: &mut Task, cpu: &mut IrqOff, room: R) -> bool {
    task.replace_area(cpu, Area::new(), room).is_ok()
}
