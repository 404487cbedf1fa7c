//! Code in single steps: a trap after each of its instructions, whose handler others have.

use core::arch::asm;

/// Runs `code` with a trap after each instruction. Interrupts are off.
pub fn stepped(code: impl FnOnce()) {
    // SAFETY: sets TF, and clears it again; the traps have a handler.
    unsafe { asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq") };
    code();
    stop_stepping();
}

/// The end of it, also where `code` ends the run.
pub fn stop_stepping() {
    // SAFETY: clears TF.
    unsafe { asm!("pushfq", "and dword ptr [rsp], 0xfffffeff", "popfq") };
}
