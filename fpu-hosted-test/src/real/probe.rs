//! Probes, by bare instructions, whether this CPU keeps promises of the architecture.
//!
//! Emulators of user mode break some promises: QEMU's accepts reserved bits of MXCSR and drops the x87 pointers. A test
//! that needs such a promise asks here, and prints `SKIP` where the CPU breaks it. The probes use no code under test.

use std::arch::asm;

/// An image and what may be behind it.
#[repr(C, align(64))]
struct Image([u8; 16384]);

impl Image {
    fn of(bytes: &[u8]) -> Box<Self> {
        let mut image = Box::new(Self([0; 16384]));
        let len = bytes.len().min(image.0.len());
        image.0[..len].copy_from_slice(&bytes[..len]);
        image
    }
}

/// The reason for a skip where [`keeps_x87_pointers`] returns false.
pub const NO_POINTERS: &str = "this CPU keeps no x87 pointers, even with an exception pending";
/// The reason for a skip where [`refuses_reserved_mxcsr`] returns false.
pub const ANY_MXCSR: &str = "this CPU accepts reserved bits of MXCSR";

/// Tells whether FXRSTOR and FXSAVE keep the x87 instruction pointer, data pointer and opcode of a pending exception
/// (SDM vol. 1, 8.1.8 and 10.5.1).
///
/// ```
/// println!("{}", fpu_hosted_test::real::keeps_x87_pointers());
/// ```
#[must_use]
pub fn keeps_x87_pointers() -> bool {
    let mut image = Image::of(&[]);
    // Division by zero is not masked, and has been raised.
    image.0[..4].copy_from_slice(&[0x7B, 0x03, 0x84, 0x80]);
    image.0[6..8].copy_from_slice(&0x5EAu16.to_le_bytes());
    image.0[8..16].copy_from_slice(&0x7654_3210_FEDCu64.to_le_bytes());
    image.0[16..24].copy_from_slice(&0x1234_5678_9ABCu64.to_le_bytes());
    image.0[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
    let (mut kept, mut seen) = (Image::of(&[]), Image::of(&[]));
    // SAFETY: every 64-bit CPU has the instructions; the areas are larger than what they move; all that is
    // changed in the registers is put back, and nothing between waits for the exception.
    unsafe {
        asm!(
            "fxsave64 [{kept}]",
            "fxrstor64 [{image}]",
            "fxsave64 [{seen}]",
            "fxrstor64 [{kept}]",
            kept = in(reg) kept.0.as_mut_ptr(),
            image = in(reg) image.0.as_ptr(),
            seen = in(reg) seen.0.as_mut_ptr(),
        );
    }
    seen.0[6..24] == image.0[6..24]
}

/// Tells whether FXRSTOR refuses an MXCSR with a bit that no CPU has (SDM vol. 1, 10.5.1.2).
///
/// ```
/// println!("{}", fpu_hosted_test::real::refuses_reserved_mxcsr());
/// ```
///
/// # Panics
///
/// If no child process can be made.
#[must_use]
pub fn refuses_reserved_mxcsr() -> bool {
    let mut image = [0; 512];
    image[27] = 0x80;
    refuses(&image, false)
}

/// Tells whether the CPU itself refuses this image, given to XRSTOR (with all components asked for) or FXRSTOR. A child
/// process tries, and the fault ends it.
///
/// ```
/// let mut image = [0; 512];
/// image[24..26].copy_from_slice(&0x1F80u16.to_le_bytes());
/// assert!(!fpu_hosted_test::real::refuses(&image, false));
/// ```
///
/// # Panics
///
/// If no child process can be made.
#[must_use]
pub fn refuses(bytes: &[u8], by_xrstor: bool) -> bool {
    let image = Image::of(bytes);
    // SAFETY: the child does only what is safe after fork: a few system calls, and the instruction.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: `signal` is safe after fork; without the default handlers another could let the child live.
            // XRSTOR is there where the caller has an image for it. No code looks at what the registers hold
            // afterwards.
            unsafe {
                for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_CORE, &none);
                if by_xrstor {
                    asm!(
                        "xrstor64 [{}]",
                        in(reg) image.0.as_ptr(),
                        in("eax") u32::MAX,
                        in("edx") u32::MAX,
                        clobber_abi("sysv64"),
                    );
                } else {
                    asm!("fxrstor64 [{}]", in(reg) image.0.as_ptr(), clobber_abi("sysv64"));
                }
                libc::_exit(0)
            }
        }
        child => {
            assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
            let mut status = 0;
            // SAFETY: our child; the status is a local.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            libc::WIFSIGNALED(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legal_image_is_not_refused() {
        let mut image = [0; 512];
        image[24..26].copy_from_slice(&0x1F80u16.to_le_bytes());
        assert!(!refuses(&image, false));
    }
}
