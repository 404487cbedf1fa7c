//! `fpu-core`, copied by `../core/build.rs`, with the atomics of `../sync.rs`: the same text otherwise, or with the
//! edits of the fault that `FPU_FAULT` names.
// The lints ask of the text in `fpu-core` itself.
#![allow(warnings)]

include!(concat!(env!("OUT_DIR"), "/src/lib.rs"));
pub use sync::at_each_access;

/// The fault whose edits this copy has; empty if none.
pub const FAULT: &str = env!("FPU_SEEDED");
