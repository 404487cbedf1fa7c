//! The models: every interleaving of the protocol, over CPUs whose registers are a ghost.
//!
//! A CPU is a loom thread with two ghost registers. A task knows what its registers must hold. Memory images are
//! loom's cells, so that loom reports an access that is not ordered. [`ghost::Ghost::judge`] reports everything else
//! under the name of what was violated ("stale registers", "lost write", "another task's residue", ...). Loom's
//! threads have no interrupts: [`irq`] calls the handler at one step after the other.
//!
//! A [`Model`] is one claim. Its scenario is small, so that loom can try all interleavings. [`check`] also requires
//! that a model explores so many executions and comes to its interesting cases. No model has a budget of time or
//! executions, because a budget that runs out looks like success. [`fault`] has what can be taken away, and
//! [`table`] which model must notice.
//!
//! # Who knows whom
//!
//! From below: contents, faults, cases and interrupts; the backend; what CPUs share; a CPU, and what a kernel does
//! on it; scenarios; the models; the table; the run. [`irq`] calls a CPU at a step, through a trait of its own.
//!
//! # What a pass does not say
//!
//! Loom treats sequentially consistent accesses as acquire-release and does not model the compiler's
//! reordering (`compiler_fence` is empty here) or load buffering. One thread only accesses a CPU's words, in program
//! order; the fences and duty K14 make an interrupt see them so. One interrupt comes in an execution, not two. The
//! scenarios have two CPUs, [three once](switch::THREE_CPUS), and up to four tasks.
//!
//! # When a model fails
//!
//! ```text
//! cargo test --release -p fpu-models --test loom_switch -- --nocapture --exact two_tasks_alternate
//! ```
//!
//! prints the violation and `model NAME: failed in execution N` (to see how that looks, set `FPU_FAULT` to
//! one of the names in docs/faults.md). For a model with interrupts it also
//! prints `FPU_STEP=K`, the step at which the interrupt came; set that variable to begin there.
//!
//! To see that one execution, let loom store the path to it, then replay it from there with a log:
//!
//! ```text
//! export LOOM_CHECKPOINT_FILE=/tmp/path.json LOOM_CHECKPOINT_INTERVAL=1
//! cargo test --release -p fpu-models --features loom/checkpoint --test ... -- --exact ...
//! LOOM_LOG=trace LOOM_LOCATION=1 cargo test ... the same again ...
//! ```
//!
//! The first run leaves the file at the failing execution, and the second begins there. Remove the file
//! before any other run. With `LOOM_LOG` set a bounded model takes its bound from
//! `LOOM_MAX_PREEMPTIONS`.
// Loom's cells are not `Sync`: its threads take turns on one.
#![allow(clippy::arc_with_non_send_sync)]

pub mod backend;
pub mod bound;
pub mod cover;
pub mod cpu;
pub mod explore;
pub mod fault;
pub mod ghost;
pub mod idle;
pub mod inside;
pub mod irq;
pub mod kernel;
pub mod lifetime;
pub mod machine;
pub mod migrate;
pub mod power;
pub mod restore;
pub mod scenario;
pub mod section;
pub mod stopped;
pub mod switch;
pub mod table;
pub mod verify;
pub mod wrong;

use cover::cover;
use cpu::{Cpu, Proof};
use kernel::{must, read};
use machine::{told, Machine, Slot, Task};

pub use explore::{check, violation, MOST_PREEMPTIONS};
pub use scenario::Model;
