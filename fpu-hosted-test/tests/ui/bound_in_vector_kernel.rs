// error: E0277
// expect: `Vector` does not promise that kernel code leaves the FPU registers alone
#[path = "support/kernel.rs"]
mod kernel;
use fpu_core::*;
use kernel::*;

struct Vector(CpuFpu, BoundCpu<Xsave, Area<64>, [BoundSlot<Xsave, Area<64>>; 1]>);

// Its own code is in the registers when a save is due.
witness! {
    // SAFETY: never run.
    unsafe impl Pinned + Exclusive for Vector {
        backend: Xsave = |_| the_backend(),
        words: CpuFpu = |cpu| &cpu.0,
        bound: |cpu| &cpu.1 as &BoundCpu<Xsave, Area<64>>,
    }
}
