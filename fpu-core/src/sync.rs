//! The only file that names atomics, so that the models can put others in their place: they work on a copy of this
//! crate with a `sync.rs` of their own (`fpu-hosted-test/models` in the repository).

pub(crate) use core::sync::atomic::{compiler_fence, fence, AtomicU64, Ordering};

/// A CPU's own, or a mark that no image follows, so the models keep the real type.
pub(crate) use core::sync::atomic::AtomicU64 as Own;

/// Counts events and decides nothing, so the models keep the real type.
pub(crate) use core::sync::atomic::AtomicU64 as Count;
