#![doc = include_str!("../README.md")]
#![no_std]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(test)]
extern crate std;

// What a kernel calls.
mod cpu;
mod deferred;
pub mod raw;
mod section;
mod session;
mod stopped;
mod task;
mod verify;

// How it is done.
mod protocol;

// What it is said in: what a kernel proves, what an architecture supplies, what is answered and told.
mod area;
mod backend;
mod error;
mod observe;
mod sync;
mod witness;

pub use area::{Area, RawArea, SaveArea};
pub use backend::{IdleFpu, KernelUnits, RawFpu, RestoreFault};
pub use cpu::{CpuFpu, CpuLifecycle};
pub use deferred::{OutPlan, SaveSteps, UserPlan, UserSteps};
pub use error::{AreaError, Error};
pub use observe::{Counters, Event, EventKind, Totals};
pub use protocol::steps::FpuRef;
pub use section::{KernelFpu, Section};
pub use session::open::{ReadSession, TaskState};
pub use session::state::{
    Both, BothValid, MemoryOnly, MemoryStale, MemoryValid, MemoryWritable, RegistersOnly,
    RegistersStale, State, Unclaimed,
};
pub use session::Session;
pub use stopped::{Stopped, StoppedImageMut, StoppedTask};
pub use task::{TaskFpu, UserReady};
pub use verify::{CompareFpu, Difference, Scratch, Verified, VerifyError};
pub use witness::{CpuWords, Exclusive, Level, Pinned, SoftFloat, MAX_CPUS};
