//! Contexts that are bound to a CPU, and whose save is deferred until other code needs the registers.
//!
//! A context is named by its place in the CPU's own array, so the CPU knows whom to save without a pointer.

mod context;
mod per_cpu;
mod slot;

pub use context::BoundFpu;
pub use per_cpu::BoundCpu;
pub use slot::BoundSlot;
