// error: E0277
// expect: cannot be sent between threads safely
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn is_send<T: Send>(_: T) {}
// Another CPU's scheduler cannot get it: it is unbound first, on its own CPU.
fn migrate(task: BoundFpu<'static, Xsave, Area<64>>) {
    is_send(task);
}
