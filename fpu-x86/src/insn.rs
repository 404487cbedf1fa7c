//! The instructions. Nothing else in this crate is assembly.
//!
//! Always the 64-bit forms: the others truncate the x87 instruction and operand pointers (SDM vol. 1,
//! 10.5.1 and 13.5.1). Saves are inline: they fault only if the caller broke a duty. Restores can be
//! refused by the CPU because of what is in the image, so each is a small function with one
//! instruction that may fault, at an address known to [`fixup`].

use core::arch::{asm, global_asm};

// The name has the version in it, so that two versions can be linked into one kernel.
//
// In: RDI = area, EDX:EAX = mask. Out: EAX = 0, or the vector. The stack is not touched between entry
// and the fault, so a landing pad returns to the caller as the function itself would.
global_asm!(
    ".pushsection .text.fpu_x86_restore, \"ax\", @progbits",
    ".globl fpu_x86_0_1_xrstor",
    ".hidden fpu_x86_0_1_xrstor",
    ".type fpu_x86_0_1_xrstor, @function",
    ".balign 32",
    "fpu_x86_0_1_xrstor:",
    "xrstor64 [rdi]",
    "xor eax, eax",
    "ret",
    ".size fpu_x86_0_1_xrstor, . - fpu_x86_0_1_xrstor",
    ".globl fpu_x86_0_1_fxrstor",
    ".hidden fpu_x86_0_1_fxrstor",
    ".type fpu_x86_0_1_fxrstor, @function",
    ".balign 32",
    "fpu_x86_0_1_fxrstor:",
    "fxrstor64 [rdi]",
    "xor eax, eax",
    "ret",
    ".size fpu_x86_0_1_fxrstor, . - fpu_x86_0_1_fxrstor",
    ".globl fpu_x86_0_1_xrstors",
    ".hidden fpu_x86_0_1_xrstors",
    ".type fpu_x86_0_1_xrstors, @function",
    ".balign 32",
    "fpu_x86_0_1_xrstors:",
    "xrstors64 [rdi]",
    "xor eax, eax",
    "ret",
    ".size fpu_x86_0_1_xrstors, . - fpu_x86_0_1_xrstors",
    // One pad of 8 bytes for each vector.
    ".globl fpu_x86_0_1_pads",
    ".hidden fpu_x86_0_1_pads",
    ".type fpu_x86_0_1_pads, @function",
    ".balign 32",
    "fpu_x86_0_1_pads:",
    ".set fpu_x86_0_1_vector, 0",
    ".rept 18",
    "mov eax, fpu_x86_0_1_vector",
    "ret",
    ".balign 8, 0xcc",
    ".set fpu_x86_0_1_vector, fpu_x86_0_1_vector + 1",
    ".endr",
    ".size fpu_x86_0_1_pads, . - fpu_x86_0_1_pads",
    ".popsection",
);

// Called from assembly only; for compiled code they are places.
extern "C" {
    fn fpu_x86_0_1_xrstor();
    fn fpu_x86_0_1_fxrstor();
    fn fpu_x86_0_1_xrstors();
    fn fpu_x86_0_1_pads();
}

/// The instructions that may fault: the first of each function.
fn faulting() -> [usize; 3] {
    [
        fpu_x86_0_1_xrstor as *const () as usize,
        fpu_x86_0_1_fxrstor as *const () as usize,
        fpu_x86_0_1_xrstors as *const () as usize,
    ]
}

const PAD: usize = 8;
/// The faults, not traps or interrupts, that XRSTOR64, XRSTORS64 and FXRSTOR64 can raise (SDM vol. 2): #UD, #NM,
/// #SS, #GP, #PF, #AC.
const VECTORS: [u8; 6] = [6, 7, 12, 13, 14, 17];

/// Where to continue after a fault at `ip`, if that is a restore of this crate.
///
/// A kernel asks this in its handlers of #GP, #PF, #SS, #NM, #UD and #AC, for faults in kernel mode
/// that it cannot resolve otherwise, and replaces the saved instruction pointer with the answer; the
/// restore then returns [`fpu_core::RestoreFault`] with the vector. No other register has to be changed.
/// A hosted program does the same in a handler of SIGSEGV. `None`: the fault is not one of ours.
///
/// It is a comparison with three addresses: there is no table to be kept by the linker script.
///
/// ```
/// struct TrapFrame { rip: usize }
/// fn general_protection(frame: &mut TrapFrame) -> bool {
///     match fpu_x86::fixup(frame.rip, 13) {
///         Some(ip) => { frame.rip = ip; true }
///         None => false, // a bug of the kernel's own
///     }
/// }
/// assert!(!general_protection(&mut TrapFrame { rip: 0xDEAD }));
/// ```
#[doc(alias = "fixup_exception")]
#[doc(alias = "_ASM_EXTABLE")]
#[must_use]
pub fn fixup(ip: usize, vector: u8) -> Option<usize> {
    let pads = fpu_x86_0_1_pads as *const () as usize;
    (faulting().contains(&ip) && VECTORS.contains(&vector))
        .then(|| pads + PAD * usize::from(vector))
}

macro_rules! save {
    ($($name:ident $insn:literal),*) => {$(
        /// Saves the components in `mask` to `area`.
        ///
        /// # Safety
        ///
        /// * **N1** the CPU and its operating system offer the instruction; `area` is writable, for
        ///   as many bytes as it uses, and aligned to 64.
        ///
        /// The registers stay as they are. Bytes of the area may be read and left as they are, so the
        /// memory is both input and output.
        #[inline(always)]
        pub(crate) unsafe fn $name(area: *mut u8, mask: u64) {
            // SAFETY: N1. The default clobbers say that memory changes.
            unsafe {
                asm!(
                    concat!($insn, " [{area}]"),
                    area = in(reg) area,
                    in("eax") mask as u32,
                    in("edx") (mask >> 32) as u32,
                    options(nostack, preserves_flags),
                );
            }
        }
    )*};
}
save!(xsave "xsave64", xsaveopt "xsaveopt64", xsavec "xsavec64", xsaves "xsaves64");

/// Saves x87 and SSE to `area`.
///
/// # Safety
///
/// N1, with 512 bytes and an alignment of 16.
#[inline(always)]
pub(crate) unsafe fn fxsave(area: *mut u8) {
    // SAFETY: N1.
    unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) }
}

macro_rules! restore {
    ($($(#[$doc:meta])* $name:ident $function:ident),*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) unsafe fn $name(area: *const u8, mask: u64) -> u32 {
            let vector;
            // SAFETY: N1, N2. A direct call, whatever the relocation model; by `clobber_abi` the
            // compiler keeps nothing in vector registers across it.
            unsafe {
                asm!(
                    "call {restore}",
                    restore = sym $function,
                    in("rdi") area,
                    inlateout("eax") mask as u32 => vector,
                    in("edx") (mask >> 32) as u32,
                    clobber_abi("sysv64"),
                );
            }
            vector
        }
    )*};
}
restore!(
    /// Loads the components in `mask` from `area`, in the format that its header names. Returns 0, or
    /// the vector of the fault, with the registers then undefined.
    ///
    /// # Safety
    ///
    /// N1, reading, and
    ///
    /// * **N2** the code around keeps nothing in the registers that the instruction loads.
    xrstor fpu_x86_0_1_xrstor,
    /// As [`xrstor`], from the compacted format, supervisor components too.
    ///
    /// # Safety
    ///
    /// N1, reading, and N2; in ring 0.
    xrstors fpu_x86_0_1_xrstors
);

/// Loads x87 and SSE from `area`; as [`xrstor`].
///
/// # Safety
///
/// N1 as for [`fxsave`], reading, and N2.
#[inline(always)]
pub(crate) unsafe fn fxrstor(area: *const u8) -> u32 {
    let vector;
    // SAFETY: N1, N2; as above.
    unsafe {
        asm!(
            "call {restore}",
            restore = sym fpu_x86_0_1_fxrstor,
            in("rdi") area,
            lateout("eax") vector,
            clobber_abi("sysv64"),
        );
    }
    vector
}

/// Empties the x87 unit and sets its default control word.
///
/// # Safety
///
/// N2.
#[inline(always)]
pub(crate) unsafe fn fninit() {
    // SAFETY: N2; no memory, no fault (it does not look at pending exceptions).
    unsafe { asm!("fninit", options(nomem, nostack, preserves_flags)) }
}

/// Loads MXCSR.
///
/// # Safety
///
/// N2, and no reserved bit of `value` is set.
#[inline(always)]
pub(crate) unsafe fn ldmxcsr(value: u32) {
    // SAFETY: N2; the operand is a local.
    unsafe {
        asm!("ldmxcsr dword ptr [{}]", in(reg) &value, options(readonly, nostack, preserves_flags));
    }
}

/// Reads XCR0. Slow in a virtual machine and never on a switching path.
///
/// # Safety
///
/// * **N3** CPUID.1:ECX.OSXSAVE is set.
pub(crate) unsafe fn xgetbv0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: N3.
    unsafe {
        asm!(
            "xgetbv",
            in("ecx") 0,
            out("eax") low,
            out("edx") high,
            options(nomem, nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

pub(crate) const CR0_EM: u64 = 1 << 2;
pub(crate) const CR0_TS: u64 = 1 << 3;
pub(crate) const CR4_OSFXSR: u64 = 1 << 9;

/// The ring that this runs in.
pub(crate) fn ring() -> u8 {
    let selector: u16;
    // SAFETY: the code segment's selector can be read in every ring; its low bits are the ring.
    unsafe {
        asm!("mov {:x}, cs", out(reg) selector, options(nomem, nostack, preserves_flags));
    }
    selector as u8 & 3
}

macro_rules! control_register {
    ($($name:ident $source:literal),*) => {$(
        /// Reads a control register.
        ///
        /// # Safety
        ///
        /// * **N4** in ring 0.
        pub(crate) unsafe fn $name() -> u64 {
            let value;
            // SAFETY: N4. Not `nomem`, so that it is not moved across a write of the register.
            unsafe {
                asm!(
                    concat!("mov {}, ", $source),
                    out(reg) value,
                    options(nostack, preserves_flags),
                );
            }
            value
        }
    )*};
}
control_register!(cr0 "cr0", cr4 "cr4");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_restores_and_only_faults_are_fixed_up() {
        for ip in faulting() {
            let mut pads = VECTORS.map(|vector| fixup(ip, vector).unwrap());
            pads.sort_unstable();
            assert!(pads.windows(2).all(|pair| pair[1] >= pair[0] + PAD));
            for other in (0..=255).filter(|vector| !VECTORS.contains(vector)) {
                assert_eq!(fixup(ip, other), None, "vector {other}");
            }
            assert_eq!(fixup(ip + 1, 13), None);
            assert_eq!(fixup(ip - 1, 13), None);
        }
    }

    #[test]
    fn each_pad_returns_its_vector() {
        for vector in VECTORS {
            let ip = faulting()[0];
            let pad = fixup(ip, vector).unwrap();
            // SAFETY: a pad is `mov eax, imm32; ret`, a function without arguments.
            let pad: extern "sysv64" fn() -> u32 = unsafe { core::mem::transmute(pad) };
            assert_eq!(pad(), u32::from(vector));
        }
    }
}
