#![doc = include_str!("../README.md")]
#![no_std]
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
// Without instructions no code detects a plan.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]

#[cfg(test)]
extern crate std;

// From the bottom up: each uses only those above it here, by their paths (the suite's step `hygiene`).
mod components;
mod registers;
mod save_instruction;

mod error;

mod cpuid;

#[cfg(all(doc, not(doctest)))]
pub mod guide;

mod layout;

// What has a fixed place in every image. Not part of `image`, whose views are of a plan: x87 state is converted, and
// MXCSR's mask is read, where there is none yet.
mod fields;

pub mod units;

#[cfg(fpu_instructions)]
mod insn;
mod x87;

mod plan;

// The layouts of other machines' images. Below `image`, whose views may be of such bytes.
mod origin;

mod image;

mod exception;

mod opened;

mod foreign;

mod regset;

mod signal;

mod pkru;

mod ring0;

#[cfg(fpu_instructions)]
mod guest;

#[cfg(fpu_instructions)]
mod backend;

#[cfg(fpu_instructions)]
mod dynamic;

#[cfg(test)]
mod tests;

pub use components::Components;
pub use cpuid::{CpuidInfo, Described};
#[cfg(fpu_instructions)]
pub use dynamic::{
    Answer, DynamicPlan, FirstUse, FirstUseError, PermissionError, Permissions, Room, Whose,
    XfdCopy,
};
pub use error::{CpuidRegister, Expected, ImageError, LeftOut, Measured, PlanError, WrongWord};
pub use exception::{FpError, Spurious};
pub use foreign::{Beyond, ForeignError, ForeignImage, ForeignRules, ValidImage};
#[cfg(fpu_instructions)]
pub use guest::{GuestControls, GuestError, GuestFormat, GuestRefused, InGuest, XcrsError};
pub use image::{Image, ImageMut};
#[cfg(fpu_instructions)]
pub use insn::{fixup, Fixup, RestoreRoutine, Routines, SaveRoutine};
pub use layout::{Compacted, Layout, LayoutFormat, Place, Standard};
pub use opened::{InMemory, XsaveImages};
pub use origin::ForeignLayout;
pub use pkru::{KeyRights, Pkru, ProtectionKey, TaskPkru};
#[cfg(fpu_instructions)]
pub use pkru::{PkruError, ProtectionKeys};
pub use plan::{CpuMismatch, Plan, PlanAlreadySet, PlanCell, Quirk, SetError, SizeWord};
pub use registers::ControlRegister;
pub use regset::UserFormat;
#[cfg(fpu_instructions)]
pub use ring0::{
    bring_up_boot_cpu, bring_up_boot_cpu_given, enable_legacy_on_this_cpu, BringUpError,
    EnableError,
};
pub use ring0::{ControlMismatch, ControlState};
pub use save_instruction::{Format, SaveInstruction};
pub use signal::{DeliverError, FrameKind, LegacyOnly, Returned, SignalFrame, SigreturnError};
pub use x87::{Selectors, X87};
