//! What only ring 0 does: control registers, and putting a plan into force.

#[cfg(fpu_instructions)]
mod bring_up;
mod control;
#[cfg(fpu_instructions)]
mod enable;
#[cfg(fpu_instructions)]
mod settle;
#[cfg(fpu_instructions)]
mod trap;

#[cfg(fpu_instructions)]
pub use bring_up::{bring_up_boot_cpu, bring_up_boot_cpu_given, BringUpError};
pub use control::{ControlMismatch, ControlState};
#[cfg(fpu_instructions)]
pub use enable::{enable_legacy_on_this_cpu, EnableError};
#[cfg(fpu_instructions)]
pub(crate) use enable::{IA32_XFD, IA32_XFD_ERR, IA32_XSS};
