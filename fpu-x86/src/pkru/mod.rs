//! PKRU: what a task may do with user memory of each protection key, and so what the kernel may do for it.
//!
//! The CPU applies PKRU to every access to a user page, the kernel's own included (SDM vol. 3, 4.6.2). So the register
//! must be right before the kernel's first access, not before user mode: a kernel switches PKRU eagerly, beside the deferred
//! scheme of `fpu-core`, and no plan for ring 0 has it. User mode writes PKRU without the kernel, so no word of the kernel
//! can say what a running task's value is: it is in the register.
//!
//! [`Pkru`] is the value, [`TaskPkru`] what the kernel keeps of a thread, [`ProtectionKeys`] what it does.

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
