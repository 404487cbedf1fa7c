//! `fpu-core`, copied by `build.rs`: the same text, or with the edits of the fault that `FPU_FAULT` names.
// What the text should be like is asked where it stands.
#![allow(warnings)]

include!(concat!(env!("OUT_DIR"), "/src/lib.rs"));

/// The fault whose edits this copy has; empty if none.
pub const FAULT: &str = env!("FPU_SEEDED");
