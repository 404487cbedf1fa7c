//! Every order of calls, except for states that do not differ: a search over the states of the real core.
//!
//! The search puts a machine of a few CPUs, tasks and a guest (a persistent context) into a state, carries out one
//! operation of a right kernel on the real `fpu-core`, and compares what comes of it with a ghost. Registers and images
//! hold *symbols*. The search renumbers stamps by their distance from the CPU's own, and renames CPUs and tasks. So the
//! states are finitely many, and the search ends by itself. Then it has visited every order of the operations, of any
//! length.
//!
//! ```
//! use fpu_models::explore::{explore, Bounds};
//! let found = explore(Bounds { cpus: 1, tasks: 1, ..Bounds::SUITE });
//! assert!(found.closed && found.violation.is_none());
//! ```
//!
//! # What the search checks
//!
//! A context that enters user mode, a persistent run, or a view of an image finds what any writer wrote last for that
//! context. A CPU's registers have one claim at most; registers that are claimed hold what is claimed, and in 2a memory
//! does too. On a CPU that is open the core refuses nothing that a right kernel does. A refusal, inside sections, in
//! non-maskable interrupts, of a context that is live elsewhere, changes nothing. A CPU's count of stamps never goes
//! back. What `fpu_idle` answers is right when it opens the CPU again.
//!
//! # Why nothing is lost by renumbering
//!
//! The core compares a context's stamp with a CPU's word for equality only, and that word's count never goes back (the
//! search checks each store), so all past stamps are alike. A stamp that is still to come (a forgotten session) keeps
//! its distance. Of contents, code asks only whether they are the expected ones. The search plays a trace that it finds
//! again from the beginning, without renumbering.
//!
//! # What a pass does not say
//!
//! One operation runs at a time, with one interrupt or one operation of another CPU in it. The models try weak memory, and
//! two operations of which neither is whole inside the other. Contents are one symbol: the conformance suite tests the
//! parts of an image.
//!
//! # Who knows whom
//!
//! From below: what words, images and states say; operations as data; the line, whose steps an interrupt can strike; CPUs
//! on that line; the machine, and what must hold of it; one operation in its parts; the whole operation, and what
//! strikes it; the search. The line calls upwards at a step, through a trait of its own.

mod after;
mod apply;
mod backend;
mod bound;
mod bounds;
mod calls;
mod check;
mod deferred;
mod forms;
mod found;
mod grow;
mod holder;
mod image;
mod inside;
mod interrupt;
mod life;
mod line;
mod machine;
mod ops;
mod others;
mod search;
mod session;
mod state;
mod words;

pub use bounds::Bounds;
pub use calls::CALLS;
pub use found::{Found, Violation};
pub use ops::{on, Does, Form, Irq, Move, Of, Op, User};
pub use search::{explore, replay};
