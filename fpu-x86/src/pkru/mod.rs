//! PKRU: the rights of a task, and of the kernel on its behalf, to user memory of each protection key.
//!
//! The CPU applies PKRU to every access to a user page, the kernel's own included (SDM vol. 3, 4.6.2). So the register
//! must be right before the kernel's first access, not before user mode: a kernel switches PKRU eagerly, beside the deferred
//! scheme of `fpu-core`, and no plan for ring 0 has it. User mode writes PKRU without the kernel, so only the register
//! has a running task's value.
//!
//! [`Pkru`] is the value, [`TaskPkru`] holds what the kernel keeps of a thread, [`ProtectionKeys`] has the calls.

#[cfg(fpu_instructions)]
mod keys;
// Without instructions nothing moves a value.
#[cfg_attr(not(fpu_instructions), allow(dead_code))]
mod register;
mod task;
mod value;

#[cfg(test)]
#[path = "../tests/pkru.rs"]
mod tests;

#[cfg(fpu_instructions)]
pub use keys::{PkruError, ProtectionKeys};
pub use task::TaskPkru;
pub use value::{KeyRights, Pkru, ProtectionKey};
