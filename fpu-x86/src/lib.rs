#![doc = include_str!("../README.md")]
#![no_std]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
// Without instructions there is nobody to detect a plan.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

#[cfg(test)]
extern crate std;

mod choose;
mod components;
mod control;
#[cfg(test)]
mod corpus;
mod cpuid;
mod describe;
mod error;
mod exception;
mod foreign;
mod image;
mod layout;
#[cfg(all(test, target_arch = "x86_64"))]
mod literal;
mod measured;
#[cfg(test)]
mod oddities;
mod plan;
mod quirk;
#[cfg(test)]
mod random;
mod regset;
mod signal;
#[cfg(test)]
mod spoilt;
#[cfg(test)]
mod words;
mod x87;

pub use components::Components;
pub use control::{ControlMismatch, ControlRegister, ControlState, CpuMismatch};
pub use cpuid::{Described, Facts};
pub use error::{ImageError, PlanError};
pub use exception::FpError;
pub use foreign::{Beyond, ForeignError, ForeignImage, ForeignLayout, ForeignRules, ValidImage};
pub use image::{Image, ImageMut};
pub use layout::{Compacted, Layout, LayoutFormat, Place, Standard};
pub use measured::Measured;
pub use plan::{Format, Plan, Rung};
pub use quirk::{CpuidRegister, Expected, LeftOut, Quirk, SizeWord, WrongWord};
pub use regset::UserFormat;
pub use signal::{FrameKind, LegacyOnly, SignalFrame};
pub use x87::{Selectors, X87};

cfg_if::cfg_if! {
    // The assembly is for ELF: every kernel target, and Linux and BSD hosts. Elsewhere the crate
    // builds without instructions: bits, layouts and image views.
    if #[cfg(all(
        target_arch = "x86_64",
        target_pointer_width = "64",
        not(any(windows, target_os = "uefi", target_vendor = "apple"))
    ))] {
        mod backend;
        mod enable;
        mod insn;
        mod measure;
        mod settle;
        pub use enable::{enable_legacy_on_this_cpu, EnableError};
        pub use insn::{fixup, Fixup};
    }
}
