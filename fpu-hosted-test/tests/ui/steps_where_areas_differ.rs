// error: E0277
// expect: assembly cannot save or restore for the backend
// expect: use the calls of `TaskFpu`, or `fpu_x86::Plan`
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

fn enter<C: Exclusive + Pinned<Backend = Fxsave>>(task: &TaskFpu<Fxsave, Area<64>>, cpu: &mut C) -> bool {
    task.begin_user(cpu).is_ok()
}
