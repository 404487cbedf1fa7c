//! `fpu-core`, copied by `../core/build.rs`, with the atomics of `../sync.rs`: the same text otherwise.
// The lints ask of the text in `fpu-core` itself.
#![allow(warnings)]

include!(concat!(env!("OUT_DIR"), "/src/lib.rs"));
pub use sync::{at_each_access, AtomicU64 as ReportedU64};
