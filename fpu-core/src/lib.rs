#![doc = include_str!("../README.md")]
#![no_std]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(any(fpu_loom, fpu_seeded, test))]
extern crate std;

mod area;
mod backend;
mod closed;
mod cpu;
mod error;
#[cfg(all(doc, not(doctest)))]
pub mod guide;
mod hints;
mod idle;
mod kernel;
mod kernel_fpu;
mod observer;
mod opened;
mod plan;
pub mod raw;
mod residency;
mod session;
mod state;
mod stopped;
mod sync;
mod task;
mod verify;

pub use area::{Area, RawArea, SaveArea};
pub use backend::{KernelUnits, RawFpu, RestoreFault};
pub use cpu::{CpuFpu, CpuLifecycle};
pub use error::{AreaError, Error};
pub use idle::IdleFpu;
pub use kernel::{CpuWords, Exclusive, Level, Pinned, SoftFloat, Stopped};
pub use kernel_fpu::{KernelFpu, Section};
pub use observer::{Counters, Event, EventKind, Totals};
pub use opened::{ReadSession, TaskState};
pub use plan::{OutPlan, SaveSteps, UserPlan, UserSteps};
pub use residency::MAX_CPUS;
pub use session::Session;
pub use state::{
    Both, BothValid, MemoryOnly, MemoryStale, MemoryValid, MemoryWritable, RegistersOnly,
    RegistersStale, State, Unclaimed,
};
pub use stopped::{StoppedImageMut, StoppedTask};
pub use task::{FpuRef, TaskFpu, UserReady};
pub use verify::{CompareFpu, Difference, Scratch, Verified, VerifyError};

#[cfg(any(fpu_loom, fpu_seeded))]
#[doc(hidden)]
pub use sync::seam;
