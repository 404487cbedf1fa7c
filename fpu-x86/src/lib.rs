#![doc = include_str!("../README.md")]
#![no_std]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
// Without instructions there is nobody to detect a plan.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

#[cfg(test)]
extern crate std;

mod check;
mod components;
mod cpuid;
mod error;
mod image;
mod layout;
mod plan;
#[cfg(test)]
mod words;

pub use components::Components;
pub use cpuid::{Described, Facts};
pub use error::{ImageError, PlanError};
pub use image::{Image, ImageMut};
pub use layout::{Compacted, Layout, LayoutFormat, Place, Standard};
pub use plan::{Format, Plan, Rung};

cfg_if::cfg_if! {
    // The assembly is for ELF: every kernel target, and Linux and BSD hosts. Elsewhere the crate
    // builds without instructions: bits, layouts and image views.
    if #[cfg(all(
        target_arch = "x86_64",
        target_pointer_width = "64",
        not(any(windows, target_os = "uefi", target_vendor = "apple"))
    ))] {
        mod backend;
        mod insn;
        pub use insn::fixup;
    }
}
