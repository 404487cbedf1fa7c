//! A signal handler that does for a refused restore what a kernel's exception handlers do.

use std::{
    arch::global_asm,
    ffi::{c_int, c_void},
    mem, ptr,
    sync::Once,
};

/// The signals that Linux makes of #GP, #PF, #SS, #AC and #UD.
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL];

/// Installs, once for the process, a handler that lets a refused restore of `fpu-x86` return its
/// error. Any other fault ends the process, as it would without.
///
/// ```
/// fpu_hosted_test::real::serve_fixups();
/// ```
pub fn serve_fixups() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all-zero is a valid `sigaction`: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = aligned_on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in SIGNALS {
            // SAFETY: the handler has the form that SA_SIGINFO asks for and calls nothing that is not
            // safe in a signal handler.
            let done = unsafe { libc::sigaction(signal, &action, ptr::null_mut()) };
            assert_eq!(done, 0, "sigaction({signal})");
        }
    });
}

// `on_fault` on a stack that is aligned as the ABI says: QEMU's emulator of user mode starts a handler 8 bytes
// off, where compiled code may fault once more.
global_asm!(
    ".pushsection .text.fpu_real_on_fault,\"ax\",@progbits",
    ".p2align 4",
    ".globl fpu_real_on_fault",
    ".type fpu_real_on_fault,@function",
    "fpu_real_on_fault:",
    "push rbp",
    "mov rbp, rsp",
    "and rsp, -16",
    "call {on_fault}",
    "mov rsp, rbp",
    "pop rbp",
    "ret",
    ".size fpu_real_on_fault, . - fpu_real_on_fault",
    ".popsection",
    on_fault = sym on_fault,
);

extern "C" {
    #[link_name = "fpu_real_on_fault"]
    fn aligned_on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void);
}

/// Linux starts handlers with the registers in their initial state, so compiled code is fine here
/// although the fault came from the middle of a restore.
unsafe extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the third argument is the interrupted context, ours to change.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let ip = registers[libc::REG_RIP as usize] as usize;
    // SAFETY: with SA_SIGINFO the second argument describes the signal.
    let code = unsafe { (*info).si_code };
    let vector = vector(registers[libc::REG_TRAPNO as usize], signal, code);
    // A jump to nowhere faults while fetching, with its own address in CR2.
    let fetching = vector == 14 && registers[libc::REG_CR2 as usize] as usize == ip;
    let ask = || {
        // SAFETY: N7: an instruction was executed, and this program's code is readable.
        unsafe { fpu_x86::fixup(ip, vector) }
    };
    match if fetching { None } else { ask() } {
        Some(fixup) => {
            registers[libc::REG_RIP as usize] = fixup.rip as i64;
            registers[libc::REG_RAX as usize] = fixup.rax as i64;
        }
        // Not one of the crate's: the same instruction faults again, and then as without this handler.
        // SAFETY: async-signal-safe.
        None => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}

/// The exception behind a signal: as the frame tells it, or, where an emulator of user mode leaves that
/// out (QEMU writes -1), by the signal and its code (sigaction(2)).
fn vector(told: i64, signal: c_int, code: c_int) -> u8 {
    /// `SI_KERNEL`: no address goes with it.
    const GENERAL: c_int = 0x80;
    const ALIGNMENT: c_int = 1;
    match (u8::try_from(told), signal) {
        (Ok(vector), _) => vector,
        (Err(_), libc::SIGILL) => 6,
        (Err(_), libc::SIGBUS) if code == ALIGNMENT => 17,
        (Err(_), libc::SIGBUS) => 12,
        (Err(_), _) if code == GENERAL => 13,
        (Err(_), _) => 14,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_a_vector_is_told_by_its_signal() {
        for told in [6, 12, 13, 14, 17] {
            assert_eq!(i64::from(vector(told, libc::SIGSEGV, 1)), told);
        }
        for (signal, code, expect) in [
            (libc::SIGSEGV, 1, 14),
            (libc::SIGSEGV, 2, 14),
            (libc::SIGSEGV, 0x80, 13),
            (libc::SIGBUS, 0x80, 12),
            (libc::SIGBUS, 1, 17),
            (libc::SIGILL, 2, 6),
        ] {
            assert_eq!(vector(-1, signal, code), expect, "signal {signal}, code {code}");
        }
    }
}
