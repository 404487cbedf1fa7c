//! The backend on the hot path, alone in functions, for the object-code check of the suite: a save is
//! one inline instruction of the rung, a restore one call of the assembly function, and neither has a
//! lock prefix or a way to panic.
//!
//! ```text
//! cargo build --release -p fpu-x86 --example x86_probe
//! objdump -d --no-show-raw-insn target/release/examples/x86_probe --disassemble=probe_save
//! ```
#![allow(missing_docs)]

use core::ptr::NonNull;
use fpu_core::{KernelUnits, RawFpu};
use fpu_x86::Plan;

/// # Safety
///
/// Never run.
#[no_mangle]
pub unsafe extern "C" fn probe_save(plan: &Plan, area: NonNull<u8>) {
    // SAFETY: never run.
    unsafe { plan.save(area) }
}

/// # Safety
///
/// Never run.
#[no_mangle]
pub unsafe extern "C" fn probe_restore(plan: &Plan, area: NonNull<u8>) -> u32 {
    // SAFETY: never run.
    match unsafe { plan.restore(area) } {
        Ok(()) => 0,
        Err(fault) => fault.0,
    }
}

/// # Safety
///
/// Never run.
#[no_mangle]
pub unsafe extern "C" fn probe_kernel_defaults(plan: &Plan) {
    // SAFETY: never run.
    unsafe { plan.kernel_defaults(KernelUnits::ALL) }
}

fn main() {
    let probes = [
        probe_save as *const () as usize,
        probe_restore as *const () as usize,
        probe_kernel_defaults as *const () as usize,
    ];
    println!("{probes:?} are for objdump, not for running");
}
