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

pub mod align;
mod area;
mod backend;
mod closed;
mod cpu;
mod error;
#[cfg(all(doc, not(doctest)))]
pub mod guide;
#[cfg(feature = "alloc")]
mod heap_area;
mod hints;
mod idle;
mod kernel;
mod kernel_fpu;
mod macros;
pub mod observe;
mod opened;
mod plan;
pub mod raw;
mod residency;
pub mod session;
mod state;
mod stopped;
mod sync;
mod task;
pub mod verify;

pub use area::{Area, RawArea, SaveArea};
pub use backend::{KernelUnits, RawFpu, RestoreFault, TheBackend};
pub use cpu::{CpuFpu, CpuLifecycle};
pub use error::{AreaError, Error, NewError};
#[cfg(feature = "alloc")]
pub use heap_area::HeapArea;
pub use idle::IdleFpu;
pub use kernel::{CpuWords, Exclusive, Level, Pinned, SoftFloat, Stopped};
pub use kernel_fpu::{KernelFpu, Section};
pub use plan::{OutPlan, SaveSteps, UserPlan, UserSteps};
pub use residency::MAX_CPUS;
pub use stopped::{StoppedImageMut, StoppedTask};
pub use task::{FpuRef, TaskFpu, UserReady};
