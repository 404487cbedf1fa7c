//! The instructions. Nothing else in this crate is assembly.
//!
//! Always the 64-bit forms: the others truncate the x87 instruction and operand pointers (SDM vol. 1,
//! 10.5.1 and 13.5.1). All are inline, except the [`routines`] for assembly. Saves fault only if the caller broke a duty. The CPU can
//! refuse a restore because of what is in the image. Behind each restore stand bytes that mark it,
//! which [`fixup`] looks for.

mod initial;
mod pkru;
mod ring0;
mod routines;

use core::arch::asm;

pub(crate) use initial::*;
pub(crate) use pkru::*;
pub(crate) use ring0::*;
pub use routines::{RestoreRoutine, Routines, SaveRoutine};

/// What follows an instruction that may fault: a XOR, which a handler skips, and an 8-byte NOP whose
/// displacement is our mark. Compiled code has no such sequence.
///
/// The register that the XOR clears is not 0 before the instruction, so that 0 means done whatever a handler does
/// but skip the XOR. Where the instruction's own EAX is such, the components of a plan, the XOR is of EAX; where it
/// can be 0, a value to be written, it is of R8D.
static XORS: [&[u8]; 2] = [&[0x31, 0xC0], &[0x45, 0x31, 0xC0]];
const MARK: [u8; 8] = [0x0F, 0x1F, 0x84, 0x00, b'F', b'P', b'U', 0x86];
/// The value for RAX, with the vector in the lowest byte, for handlers that can set RAX. No plan has such components.
const TOLD: u32 = 0x4650_5500;
/// The vector, where a handler did not set RAX.
pub(crate) const NOT_TOLD: u32 = 255;

/// The vector of a fault, by the EAX behind it; never 0.
pub(crate) fn vector_of(eax: u32) -> u32 {
    match eax ^ TOLD {
        vector @ 1..=31 => vector,
        _ => NOT_TOLD,
    }
}
/// XRSTOR64, FXRSTOR64 and XRSTORS64 of [RDI], XSETBV, WRMSR; RDMSR, MOV to CR4 from RAX; XSAVE64, XSAVEOPT64,
/// FXSAVE64, XSAVEC64 and XSAVES64 to [RSI].
static MAY_FAULT: [&[u8]; 12] = [
    &[0x48, 0x0F, 0xAE, 0x2F],
    &[0x48, 0x0F, 0xAE, 0x0F],
    &[0x48, 0x0F, 0xC7, 0x1F],
    &[0x0F, 0x01, 0xD1],
    &[0x0F, 0x30],
    &[0x0F, 0x32],
    &[0x0F, 0x22, 0xE0],
    &[0x48, 0x0F, 0xAE, 0x26],
    &[0x48, 0x0F, 0xAE, 0x36],
    &[0x48, 0x0F, 0xAE, 0x06],
    &[0x48, 0x0F, 0xC7, 0x26],
    &[0x48, 0x0F, 0xC7, 0x2E],
];

/// Asks for the lines of so many bytes, at least one.
#[inline(always)]
pub(crate) fn prefetch(area: *const u8, len: usize) {
    // SAFETY: rests on no duty: PREFETCHT0 is a hint for any address, and never faults (SDM vol. 2, PREFETCHh).
    unsafe {
        asm!(
            "2: prefetcht0 [{at}]",
            "add {at}, 64",
            "cmp {at}, {end}",
            "jb 2b",
            at = inout(reg) area => _, end = in(reg) area.wrapping_add(len),
            options(nostack, readonly)
        );
    }
}

/// The faults, not traps or interrupts, that they can raise (SDM vol. 2): #UD, #NM, #SS, #GP, #PF, #AC.
const VECTORS: [u8; 6] = [6, 7, 12, 13, 14, 17];

/// What a fault handler does to the interrupted registers for a refused instruction to return its error.
///
/// ```
/// // SAFETY: the address of code of this program, which is readable.
/// let fixup = unsafe { fpu_x86::fixup(str::len as *const () as usize, 13) };
/// assert!(fixup.is_none()); // not a restore
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixup {
    /// The new instruction pointer, which is enough for the restore to return an error.
    pub rip: usize,
    /// The new RAX, by which the error has the vector. A handler that cannot set it, as those of the type
    /// `extern "x86-interrupt"` cannot, leaves it: then the vector is 255.
    pub rax: usize,
}

/// Tells how to continue after a fault at `ip`, if an instruction of this crate that may be refused stands there: a
/// restore, a write to XCR0, CR4 or an MSR, or an instruction that is tried when a CPU is set up.
///
/// A kernel asks this in its handlers of #GP, #PF, #SS, #NM, #UD and #AC, for faults in kernel mode
/// that it cannot resolve otherwise, and replaces the saved RIP with the answer's; the restore then
/// returns [`fpu_core::RestoreFault`]. If it replaces RAX too, the error has the vector. No other register has to be
/// changed. A hosted program does the same in a handler of SIGSEGV. `None`: the fault is not one of this crate's.
///
/// `fixup` knows the instruction by the bytes at `ip` and behind it. So the instruction can be inline,
/// and the linker script keeps no table.
///
/// # Safety
///
/// * **N7** `ip` is the saved instruction pointer of a fault that code of the same privilege as the caller
///   raised by executing an instruction there (not by fetching it), so the bytes of that
///   instruction are readable.
///
/// ```
/// struct TrapFrame { rip: usize, rax: usize }
/// fn general_protection(frame: &mut TrapFrame) -> bool {
///     // SAFETY: N7: #GP in kernel mode, and the kernel's code is readable.
///     match unsafe { fpu_x86::fixup(frame.rip, 13) } {
///         Some(fixup) => { (frame.rip, frame.rax) = (fixup.rip, fixup.rax); true }
///         None => false, // a bug of the kernel's own
///     }
/// }
/// # let mut frame = TrapFrame { rip: general_protection as *const () as usize, rax: 0 };
/// # assert!(!general_protection(&mut frame));
/// ```
#[doc(alias = "fixup_exception")]
#[doc(alias = "_ASM_EXTABLE")]
#[must_use]
pub unsafe fn fixup(ip: usize, vector: u8) -> Option<Fixup> {
    let code = ip as *const u8;
    // One byte after the other: behind another instruction there may be no more memory. Opcodes are
    // prefix-free, so a byte that differs from the instruction is noticed within the instruction that
    // is there; and if it is one of these, code follows, at least to the first byte that differs.
    let is = |at: usize, byte: u8| {
        // SAFETY: readable instruction (N7), and as just said.
        unsafe { code.wrapping_add(at).read() == byte }
    };
    let all = |from: usize, bytes: &[u8]| bytes.iter().enumerate().all(|(i, b)| is(from + i, *b));
    if !VECTORS.contains(&vector) {
        return None;
    }
    let instruction = MAY_FAULT.iter().find(|instruction| all(0, instruction))?;
    let xor = XORS.iter().find(|xor| all(instruction.len(), xor))?;
    let behind = instruction.len() + xor.len();
    let rax = (TOLD | u32::from(vector)) as usize;
    all(behind, &MARK).then(|| Fixup { rip: ip.wrapping_add(behind), rax })
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
            // SAFETY: instruction and area (N1). The default clobbers say that memory changes.
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
/// Instruction and area (N1), with 512 bytes and an alignment of 16.
#[inline(always)]
pub(crate) unsafe fn fxsave(area: *mut u8) {
    // SAFETY: instruction and area (N1).
    unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) }
}

// The registers that a restore loads, as far as the compiler could have something in them. Without SSE
// it cannot; with AVX-512 there are more than can be named on every compiler, and the calling
// convention's list, which costs integer registers too, has them all.
cfg_if::cfg_if! {
    if #[cfg(not(target_feature = "sse"))] {
        macro_rules! loading {
            ($($asm:tt)*) => { asm!($($asm)* options(nostack)) };
        }
    } else if #[cfg(not(target_feature = "avx512f"))] {
        macro_rules! loading {
            ($($asm:tt)*) => {
                asm!(
                    $($asm)*
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                    out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
                    out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    options(nostack),
                )
            };
        }
    } else {
        macro_rules! loading {
            ($($asm:tt)*) => { asm!($($asm)* clobber_abi("sysv64"), options(nostack)) };
        }
    }
}

macro_rules! restore {
    ($($(#[$doc:meta])* $name:ident $insn:literal),*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) unsafe fn $name(area: *const u8, mask: u64) -> u32 {
            let answer: u32;
            // SAFETY: instruction and area (N1), registers unused (N2). A fault continues behind the XOR, with the mask
            // in EAX or what the handler put there.
            unsafe {
                loading!(
                    concat!($insn, " [rdi]"),
                    "xor eax, eax",
                    ".byte 0x0f, 0x1f, 0x84, 0x00, 0x46, 0x50, 0x55, 0x86",
                    in("rdi") area,
                    inlateout("eax") mask as u32 => answer,
                    in("edx") (mask >> 32) as u32,
                );
            }
            answer
        }
    )*};
}
restore!(
    /// Loads the components in `mask`, of which there are some in its low half, from `area`, in the format that
    /// its header names. Returns 0, or what [`vector_of`] knows, with the registers then undefined.
    ///
    /// # Safety
    ///
    /// Instruction and area (N1), reading, and
    ///
    /// * **N2** the code around keeps nothing in the registers that the instruction loads.
    xrstor "xrstor64",
    /// As [`xrstor`], from the compacted format, supervisor components too.
    ///
    /// # Safety
    ///
    /// Instruction and area (N1), reading, and registers unused (N2); in ring 0.
    xrstors "xrstors64"
);

/// Loads x87 and SSE from `area`; as [`xrstor`].
///
/// # Safety
///
/// Instruction and area (N1) as for [`fxsave`], reading, and registers unused (N2).
#[inline(always)]
pub(crate) unsafe fn fxrstor(area: *const u8) -> u32 {
    let answer: u32;
    // SAFETY: instruction and area (N1), registers unused (N2). A fault continues behind the XOR, with 1 in EAX or what
    // the handler put there.
    unsafe {
        loading!(
            "fxrstor64 [rdi]",
            "xor eax, eax",
            ".byte 0x0f, 0x1f, 0x84, 0x00, 0x46, 0x50, 0x55, 0x86",
            in("rdi") area,
            inlateout("eax") 1u32 => answer,
        );
    }
    answer
}

macro_rules! round {
    ($($name:ident $restore:literal $save:literal),*) => {$(
        /// Loads the components in `mask` from `from` and saves them to `to`, with no other instruction between
        /// that could change a register. Returns 0, or what [`vector_of`] knows, and 1 if it was the save's. x87 and
        /// MXCSR are in their initial state afterwards, as compiled code wants them.
        ///
        /// # Safety
        ///
        /// Registers unused (N2), and instruction and area (N1) for both, except that the CPU need not offer the
        /// instructions, which is what the call tries.
        pub(crate) unsafe fn $name(from: *const u8, to: *mut u8, mask: u64) -> (u32, u32) {
            let (answer, stage): (u32, u32);
            let mxcsr = 0x1F80u32;
            // SAFETY: instruction and area (N1), registers unused (N2), of the function; MXCSR is loaded from a local.
            // A fault continues behind the XOR with the mask in EAX or what the handler put there. The default clobbers
            // say that memory changes.
            unsafe {
                loading!(
                    concat!($restore, " [rdi]"),
                    "xor eax, eax",
                    ".byte 0x0f, 0x1f, 0x84, 0x00, 0x46, 0x50, 0x55, 0x86",
                    "xor ecx, ecx",
                    "test eax, eax",
                    "jnz 2f",
                    "mov eax, r8d",
                    "mov ecx, 1",
                    concat!($save, " [rsi]"),
                    "xor eax, eax",
                    ".byte 0x0f, 0x1f, 0x84, 0x00, 0x46, 0x50, 0x55, 0x86",
                    "2:",
                    "fninit",
                    "ldmxcsr dword ptr [r9]",
                    in("rdi") from,
                    in("rsi") to,
                    in("r8") mask,
                    in("r9") &mxcsr,
                    inlateout("eax") mask as u32 => answer,
                    in("edx") (mask >> 32) as u32,
                    lateout("ecx") stage,
                );
            }
            (answer, stage)
        }
    )*};
}
round!(
    fxrstor_fxsave "fxrstor64" "fxsave64",
    xrstor_xsave "xrstor64" "xsave64",
    xrstor_xsaveopt "xrstor64" "xsaveopt64",
    xrstor_xsavec "xrstor64" "xsavec64",
    xrstors_xsaves "xrstors64" "xsaves64"
);

/// FCW, FSW, the full tag word (all empty), and no pointers; MXCSR. For [`scrub`].
static EMPTY: [u32; 8] = [0x37F, 0, 0xFFFF, 0, 0, 0, 0, 0x1F80];

/// Overwrites the addresses of the last x87 instruction and operand, and its opcode; and MXCSR. The unit is
/// empty afterwards, and both have their default control words.
///
/// FNCLEX and EMMS let FILD neither fault nor overflow; FILD is an instruction of this crate with an
/// operand of this crate, so all 64 bits of the pointers are too; FLDENV makes the lower 32 bits zero, so
/// that no task learns the address of this code.
///
/// # Safety
///
/// Registers unused (N2).
#[inline(always)]
pub(crate) unsafe fn scrub() {
    // SAFETY: registers unused (N2); the operand is a static of the 28 bytes that FLDENV reads, and the 4 of LDMXCSR,
    // in which no reserved bit is set.
    unsafe {
        asm!(
            "fnclex",
            "emms",
            "fild dword ptr [{empty}]",
            "fldenv [{empty}]",
            "ldmxcsr dword ptr [{empty} + 28]",
            empty = in(reg) &EMPTY,
            options(readonly, nostack, preserves_flags),
        );
    }
}

/// Empties the x87 unit and sets its default control word.
///
/// # Safety
///
/// Registers unused (N2).
#[inline(always)]
pub(crate) unsafe fn fninit() {
    // SAFETY: registers unused (N2); no memory, no fault (it does not look at pending exceptions).
    unsafe { asm!("fninit", options(nomem, nostack, preserves_flags)) }
}

/// Reads x87's control and status words.
#[inline(always)]
pub(crate) fn x87_words() -> (u16, u16) {
    let (mut fcw, mut fsw) = (0_u16, 0_u16);
    // SAFETY: the operands are locals; the stores wait for no exception and change no register.
    unsafe {
        asm!(
            "fnstcw word ptr [{}]",
            "fnstsw word ptr [{}]",
            in(reg) &mut fcw,
            in(reg) &mut fsw,
            options(nostack, preserves_flags),
        );
    }
    (fcw, fsw)
}

/// Loads MXCSR.
///
/// # Safety
///
/// Registers unused (N2), and no reserved bit of `value` is set.
#[inline(always)]
pub(crate) unsafe fn ldmxcsr(value: u32) {
    // SAFETY: registers unused (N2); the operand is a local.
    unsafe {
        asm!("ldmxcsr dword ptr [{}]", in(reg) &value, options(readonly, nostack, preserves_flags));
    }
}

/// Reads MXCSR.
///
/// # Safety
///
/// N2: it is not the caller's own.
#[inline(always)]
pub(crate) unsafe fn stmxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: the operand is a local.
    unsafe {
        asm!("stmxcsr dword ptr [{}]", in(reg) &mut value, options(nostack, preserves_flags))
    };
    value
}

/// Reads XCR0. Slow in a virtual machine and never on a switching path.
///
/// # Safety
///
/// * **N3** CPUID.1:ECX.OSXSAVE is set.
pub(crate) unsafe fn xgetbv0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE set (N3).
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

/// Reads XINUSE, as far as XCR0 enables it. On a switching path only for tasks that are likely to have nothing in use.
///
/// # Safety
///
/// OSXSAVE set (N3), and
///
/// * **N8** CPUID(0xD,1).EAX\[2\] is set.
#[inline(always)]
pub(crate) unsafe fn xgetbv1() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE set (N3), XINUSE readable (N8). Not `nomem`: what is in use changes with every restore.
    unsafe {
        asm!(
            "xgetbv",
            in("ecx") 1,
            out("eax") low,
            out("edx") high,
            options(nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// TILERELEASE: the tiles and their configuration are in their initial state afterwards. As bytes, for
/// assemblers that do not know it.
///
/// # Safety
///
/// Registers unused (N2), and
///
/// * **N9** XCR0\[18:17\] is 3, and IA32_XFD does not disable the tiles.
#[inline(always)]
pub(crate) unsafe fn tilerelease() {
    // SAFETY: registers unused (N2), tiles on (N9). Not `nomem`, so that it stays where it is among saves and restores.
    unsafe { asm!(".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0", options(nostack, preserves_flags)) }
}

/// The ring that the caller runs in.
pub(crate) fn ring() -> u8 {
    let selector: u16;
    // SAFETY: the code segment's selector can be read in every ring; its low bits are the ring.
    unsafe {
        asm!("mov {:x}, cs", out(reg) selector, options(nomem, nostack, preserves_flags));
    }
    selector as u8 & 3
}

#[cfg(test)]
#[path = "tests/insn.rs"]
mod tests;
