//! What only ring 0 does: control registers, and putting a plan into force.

mod control;
#[cfg(fpu_instructions)]
mod enable;
#[cfg(fpu_instructions)]
mod settle;

pub use control::{ControlMismatch, ControlState};
#[cfg(fpu_instructions)]
pub use enable::{enable_legacy_on_this_cpu, EnableError};
