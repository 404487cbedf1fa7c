//! The saves and restores as functions for assembly: general registers only, and no stack beyond the return address.
//!
//! Compiled code around an instruction may use vector registers. Here is none: the functions are assembly to the last
//! byte, so they are for the switch paths of kernels that are compiled with vector instructions. Behind each restore stands
//! the mark of the inline ones.

use core::arch::global_asm;

use super::{EMPTY, NOT_TOLD, TOLD};
use crate::save_instruction::{RestoreBy, SaveInstruction};

/// A plan's save, for assembly: RDI the area, RSI the components. It changes RAX, RDX and the flags, and reads and writes
/// no stack.
///
/// # Safety
///
/// N1: the CPU is one that the plan is for, and `area` a context's ([`SwitchSteps::save_to`](fpu_core::SwitchSteps::save_to)
/// and its like) with the `mask` of the same steps.
pub type SaveRoutine = unsafe extern "C" fn(area: *mut u8, mask: u64);

/// A plan's restore, for assembly: RDI the area, RSI the components; EAX is 0, or the vector of the fault by
/// [`fixup`](crate::fixup) (255 where the handler did not tell it), with the registers then undefined. It changes RAX, RCX,
/// RDX, the flags and what it loads, and reads and writes no stack.
///
/// # Safety
///
/// Instruction and area (N1) as for [`SaveRoutine`], and N2: what calls it is assembly, or keeps nothing in the
/// registers that are loaded. MXCSR and the x87 control word are among them, which compiled code expects a function to
/// leave alone.
pub type RestoreRoutine = unsafe extern "C" fn(area: *const u8, mask: u64) -> u32;

/// The functions of a plan ([`Plan::routines`](crate::Plan::routines)), at fixed offsets.
///
/// ```
/// use fpu_x86::Routines;
/// assert_eq!(core::mem::offset_of!(Routines, restore), 8);
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Routines {
    /// Offset 0: saves.
    pub save: SaveRoutine,
    /// Offset 8: restores.
    pub restore: RestoreRoutine,
}

macro_rules! routine {
    ($name:literal: $($line:expr),+ $(; $($operands:tt)*)?) => {
        global_asm!(
            concat!(".pushsection .text.", $name, ",\"ax\",@progbits"),
            ".p2align 4",
            concat!(".globl ", $name),
            concat!(".hidden ", $name),
            concat!(".type ", $name, ",@function"),
            concat!($name, ":"),
            "endbr64", // it is called by its address
            $($line),+,
            concat!(".size ", $name, ", . - ", $name),
            ".popsection",
            $($($operands)*)?
        );
    };
}

macro_rules! saves {
    ($($name:literal $insn:literal),*) => {$(
        routine!(
            $name:
            "mov rax, rsi",
            "mov rdx, rsi",
            "shr rdx, 32",
            concat!($insn, " [rdi]"),
            "ret"
        );
    )*};
}
saves!(
    "fpu_x86_fxsave" "fxsave64",
    "fpu_x86_xsave" "xsave64",
    "fpu_x86_xsaveopt" "xsaveopt64",
    "fpu_x86_xsavec" "xsavec64",
    "fpu_x86_xsaves" "xsaves64"
);

// The EAX of FXRSTOR is not 0, as that of the others is not: behind the mark, 0 means done.
macro_rules! restores {
    ($($name:literal $scrubbing:literal $insn:literal $eax:literal),*) => {$(
        routine!(
            $scrubbing:
            "fnclex",
            "emms",
            "fild dword ptr [rip + {empty}]",
            "fldenv [rip + {empty}]",
            "ldmxcsr dword ptr [rip + {empty} + 28]",
            concat!("jmp ", $name);
            empty = sym EMPTY,
        );
        routine!(
            $name:
            concat!("mov eax, ", $eax),
            "mov rdx, rsi",
            "shr rdx, 32",
            concat!($insn, " [rdi]"),
            "xor eax, eax",
            ".byte 0x0f, 0x1f, 0x84, 0x00, 0x46, 0x50, 0x55, 0x86",
            "test eax, eax",
            "jz 2f",
            // As `vector_of`.
            "xor eax, {told}",
            "lea ecx, [rax - 1]",
            "cmp ecx, 31",
            "jb 2f",
            "mov eax, {not_told}",
            "2: ret";
            told = const TOLD,
            not_told = const NOT_TOLD,
        );
    )*};
}
restores!(
    "fpu_x86_fxrstor" "fpu_x86_scrub_fxrstor" "fxrstor64" "1",
    "fpu_x86_xrstor" "fpu_x86_scrub_xrstor" "xrstor64" "esi",
    "fpu_x86_xrstors" "fpu_x86_scrub_xrstors" "xrstors64" "esi"
);

extern "C" {
    fn fpu_x86_fxsave(area: *mut u8, mask: u64);
    fn fpu_x86_xsave(area: *mut u8, mask: u64);
    fn fpu_x86_xsaveopt(area: *mut u8, mask: u64);
    fn fpu_x86_xsavec(area: *mut u8, mask: u64);
    fn fpu_x86_xsaves(area: *mut u8, mask: u64);
    fn fpu_x86_fxrstor(area: *const u8, mask: u64) -> u32;
    fn fpu_x86_xrstor(area: *const u8, mask: u64) -> u32;
    fn fpu_x86_xrstors(area: *const u8, mask: u64) -> u32;
    fn fpu_x86_scrub_fxrstor(area: *const u8, mask: u64) -> u32;
    fn fpu_x86_scrub_xrstor(area: *const u8, mask: u64) -> u32;
    fn fpu_x86_scrub_xrstors(area: *const u8, mask: u64) -> u32;
}

impl Routines {
    /// The routines of a plan with that instruction.
    pub(crate) fn of(instruction: SaveInstruction, by: RestoreBy) -> Self {
        let scrubs = by == RestoreBy::Scrubbing;
        let pick = |restore: RestoreRoutine, scrubbing| if scrubs { scrubbing } else { restore };
        let (save, restore): (SaveRoutine, _) = match instruction {
            SaveInstruction::Fxsave => {
                (fpu_x86_fxsave, pick(fpu_x86_fxrstor, fpu_x86_scrub_fxrstor))
            }
            SaveInstruction::Xsave => (fpu_x86_xsave, pick(fpu_x86_xrstor, fpu_x86_scrub_xrstor)),
            SaveInstruction::Xsaveopt => {
                (fpu_x86_xsaveopt, pick(fpu_x86_xrstor, fpu_x86_scrub_xrstor))
            }
            SaveInstruction::Xsavec => (fpu_x86_xsavec, pick(fpu_x86_xrstor, fpu_x86_scrub_xrstor)),
            SaveInstruction::Xsaves => {
                (fpu_x86_xsaves, pick(fpu_x86_xrstors, fpu_x86_scrub_xrstors))
            }
        };
        Self { save, restore }
    }
}
