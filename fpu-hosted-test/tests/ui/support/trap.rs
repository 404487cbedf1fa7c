//! A trap for the other file's backend.

use super::kernel::Xsave;
use fpu_core::trap::TrapFpu;

// SAFETY: never run.
unsafe impl TrapFpu for Xsave {
    fn traps(&self) -> bool {
        true
    }
    unsafe fn arm(&self) {}
    unsafe fn disarm(&self) {}
}
