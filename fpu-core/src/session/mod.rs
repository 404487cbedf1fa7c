//! The typestate session: one task's state, with this CPU closed to all other code.
//!
//! [`TaskFpu::open`](crate::TaskFpu::open) gives a [`TaskState`], one [`Session`] for each state in which a task can
//! be. The states ([`RegistersOnly`], [`Both`], [`MemoryOnly`], [`MemoryWritable`]) and what is asked of them
//! ([`MemoryValid`] and its like, which carry the compiler's messages) are seldom written by name.

pub(crate) mod messages;
pub(crate) mod open;
pub(crate) mod state;
pub(crate) mod typed;

pub use self::{
    open::{ReadSession, TaskState},
    state::{
        Both, BothValid, MemoryOnly, MemoryStale, MemoryValid, MemoryWritable, RegistersOnly,
        RegistersStale, State, Unclaimed,
    },
    typed::Session,
};
