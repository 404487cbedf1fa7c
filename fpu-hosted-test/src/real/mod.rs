//! The real registers of the CPU this runs on: files of them, and assembly that moves them.
//!
//! Compiled Rust uses vector registers as it likes, so nothing can be said about them between two
//! statements. Everything that needs them to hold still is therefore one assembly sequence, or code
//! that is made of scalar accesses only (names beginning with `quiet_`, whose object code can be
//! checked), and the result is looked at afterwards in memory.

// A kernel includes these three, `../random.rs` and `registers.s` by their paths: no `std` but in their tests, and
// paths through `super` only.
mod classes;
mod name;
mod regfile;

use crate::random::Random;

mod detect;

pub use classes::Classes;
pub use name::RegisterName;
pub use regfile::RegFile;

#[cfg(target_arch = "x86_64")]
mod asm;
#[cfg(target_arch = "x86_64")]
pub use asm::{
    call_preserving, dump_registers, load_registers, run_between, sane_registers, Thunk,
};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod compat;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod dumped;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod fault;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod foreign;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod frames;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod fuzz;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod harness;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod havoc;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod mutate;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod probe;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod ptrace;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod signal;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use {
    compat::Compat,
    dumped::{Dumped, THREADS},
    fault::serve_fixups,
    foreign::{decode, fuzz_foreign, settled, ForeignBench},
    frames::{random_frame, LARGEST_FRAME},
    fuzz::{variant, Entry, Subject},
    harness::{RealHarness, Seen},
    havoc::fuzz_input,
    mutate::random_image,
    probe::{keeps_x87_pointers, refuses, refuses_reserved_mxcsr, ANY_MXCSR, NO_POINTERS},
    ptrace::{Tracee, NT_PRFPREG, NT_PRXFPREG, NT_X86_XSTATE},
    signal::{
        deliver, fate, frame_extent, frames_are_linuxs, registers_of, set_registers, Delivered,
        Edit, FrameBuffer, Nested, ROOM,
    },
};
