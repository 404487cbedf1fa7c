#![doc = include_str!("../README.md")]
#![no_std]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

#[cfg(not(target_has_atomic = "64"))]
compile_error!(
    "fpu-core needs 64-bit atomic loads and stores: a task's word and a CPU's are 8 bytes each"
);

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(all(doc, not(doctest)))]
pub mod guide;

// The calls of a kernel.
mod bound;
mod cpu;
mod deferred;
pub mod grow;
pub mod raw;
mod section;
pub mod session;
mod stopped;
mod switch;
mod task;
pub mod trap;
pub mod verify;

// The protocol behind the calls.
mod protocol;

// The types in between: what a kernel proves, what an architecture supplies, errors and events.
pub mod align;
mod area;
mod backend;
mod error;
#[cfg(feature = "alloc")]
mod heap_area;
mod macros;
pub mod observe;
mod sync;
mod witness;

pub use area::{Area, RawArea, SaveArea};
pub use backend::{IdleFpu, KernelUnits, RawFpu, RestoreFault, TheBackend};
pub use bound::{BoundCpu, BoundFpu, BoundSlot};
pub use cpu::{CpuFpu, CpuLifecycle};
pub use deferred::{
    GuestSteps, PendingGuest, PendingSave, PendingSection, PendingUser, SaveSteps, StepsFpu,
    SwitchSteps, UserSteps,
};
pub use error::{AreaError, BoundError, Error, NewError, SwitchError};
#[cfg(feature = "alloc")]
pub use heap_area::HeapArea;
pub use protocol::steps::FpuRef;
pub use section::{KernelFpu, Section};
pub use stopped::{Stopped, StoppedImageMut, StoppedTask};
pub use switch::switch;
pub use task::{TaskFpu, UserReady};
pub use witness::{CpuWords, Exclusive, Level, Pinned, Settle, SoftFloat, MAX_CPUS};
