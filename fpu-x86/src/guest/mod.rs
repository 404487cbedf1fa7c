//! What a virtual CPU has of its own in the registers that govern the FPU's state: XCR0, IA32_XSS, IA32_XFD and
//! IA32_XFD_ERR, PKRU.
//!
//! A guest's registers are a context like a task's (`fpu-core`), saved and restored with all components of the host's plan
//! whatever the guest has enabled. What it has enabled counts while it runs only: the last thing before the entry is to
//! load its values, the first after the exit to load the host's. So every save and restore happens under the host's set,
//! of which a guest's is a part.
//!
//! [`GuestControls`] is what a virtual CPU has, and asks whether a value that the guest wants is legal;
//! [`GuestControls::enter`] loads it, and [`InGuest`] gives the host its own back. [`GuestFormat`] moves a virtual CPU's
//! state out and in, in the form of KVM's calls.

mod controls;
mod enter;
mod format;
mod moves;

#[cfg(test)]
#[path = "../tests/guest.rs"]
mod tests;
#[cfg(test)]
#[path = "../tests/guest_xfd.rs"]
mod xfd_tests;

pub use controls::{GuestControls, GuestError};
pub use enter::InGuest;
pub use format::{GuestFormat, XcrsError};
pub use moves::GuestRefused;
