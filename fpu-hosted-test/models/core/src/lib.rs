//! `fpu-core`, copied by `build.rs`: the same text, or with the edits of the fault that `FPU_FAULT` names.
// The lints ask of the text in `fpu-core` itself.
#![allow(warnings)]

include!(concat!(env!("OUT_DIR"), "/src/lib.rs"));

/// The fault whose edits this copy has; empty if none.
pub const FAULT: &str = env!("FPU_SEEDED");
