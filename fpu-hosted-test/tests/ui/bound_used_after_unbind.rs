// error: E0382
// expect: borrow of moved value: `bound`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

// What another CPU may load is no longer bound.
fn pushes(bound: BoundFpu<'_, Xsave, Area<64>>, irq: &mut IrqOff) -> Result<Task, Error> {
    let task = bound.unbind(irq).map_err(|refused| refused.why)?;
    bound.switch_in(irq)?;
    Ok(task)
}
