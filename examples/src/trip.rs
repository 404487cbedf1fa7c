//! The assembly of the kernel's way to user mode and back, and the user mode itself.
//!
//! The restore is the last thing before the task's own code, and the save, where it is done on
//! entry, the first after it: nothing that the compiler made comes between.

use std::{
    arch::global_asm,
    ptr::{null, null_mut},
};

use fpu_core::UserSteps;
use fpu_hosted_test::real::RegFile;
use fpu_x86::SaveInstruction;

/// Leave the restore out although it is due.
pub const SKIP_RESTORE: u64 = 1;
/// Leave the save out, and store its commit.
pub const SKIP_SAVE: u64 = 2;
/// Do not store that the registers are the task's.
pub const SKIP_COMMIT: u64 = 4;

/// One trip: what to do on the way out, in user mode, and on the way back.
#[repr(C)]
pub struct Trip {
    /// 0: what `begin_user` said.
    pub steps: *const UserSteps,
    /// 8: where the task writes all its registers, first thing in user mode.
    pub seen: *mut RegFile,
    /// 16: what the task then loads into all its registers.
    pub next: *const RegFile,
    /// 24: whether entering the kernel begins with a save.
    pub save_on_entry: u64,
    /// 32: the instructions, as [`Instructions::of`] numbers them.
    pub instructions: Instructions,
    /// 48: time stamp after the restore and its commit.
    pub at_user: u64,
    /// 56: time stamp before the save on entry.
    pub at_entry: u64,
    /// 64: time stamp after the save on entry and its commit.
    pub at_saved: u64,
    /// 72: seeded faults.
    pub faults: u64,
    /// 80: seeded fault: an area to load instead of the right one.
    pub other_area: *const u8,
}

const _: () = assert!(std::mem::offset_of!(Trip, at_user) == 48);
const _: () = assert!(std::mem::offset_of!(Trip, other_area) == 80);

impl Trip {
    /// To nowhere, with these instructions.
    #[must_use]
    pub fn new(instructions: Instructions) -> Self {
        Self {
            steps: null(),
            seen: null_mut(),
            next: null(),
            save_on_entry: 0,
            instructions,
            at_user: 0,
            at_entry: 0,
            at_saved: 0,
            faults: 0,
            other_area: null(),
        }
    }
}

/// The save and restore instructions that the assembly executes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Instructions {
    /// 0 XRSTOR64, 1 FXRSTOR64.
    pub restore: u64,
    /// 0 XSAVEC64, 1 XSAVEOPT64, 2 XSAVE64, 3 FXSAVE64.
    pub save: u64,
}

impl Instructions {
    /// The instructions of a rung; `None` for those that user mode does not have (XSAVES).
    #[must_use]
    pub fn of(rung: SaveInstruction) -> Option<Self> {
        match rung {
            SaveInstruction::Xsavec => Some(Self { restore: 0, save: 0 }),
            SaveInstruction::Xsaveopt => Some(Self { restore: 0, save: 1 }),
            SaveInstruction::Xsave => Some(Self { restore: 0, save: 2 }),
            SaveInstruction::Fxsave => Some(Self { restore: 1, save: 3 }),
            _ => None,
        }
    }
}

global_asm!(
    ".pushsection .text.fpu_demo,\"ax\",@progbits",
    // rdi = area, rsi = mask, rdx = which save. No register but rax, rdx and the flags changes.
    ".p2align 4",
    ".globl fpu_demo_save",
    ".type fpu_demo_save,@function",
    "fpu_demo_save:",
    "mov rcx, rdx",
    "mov rax, rsi",
    "mov rdx, rsi",
    "shr rdx, 32",
    "cmp rcx, 1",
    "jb 1f",
    "je 2f",
    "cmp rcx, 3",
    "je 3f",
    "xsave64 [rdi]",
    "ret",
    "1: xsavec64 [rdi]",
    "ret",
    "2: xsaveopt64 [rdi]",
    "ret",
    "3: fxsave64 [rdi]",
    "ret",
    ".size fpu_demo_save, . - fpu_demo_save",
    // rdi = area, rsi = mask, rdx = which restore.
    ".p2align 4",
    ".globl fpu_demo_restore",
    ".type fpu_demo_restore,@function",
    "fpu_demo_restore:",
    "mov rcx, rdx",
    "mov rax, rsi",
    "mov rdx, rsi",
    "shr rdx, 32",
    "test rcx, rcx",
    "jnz 1f",
    "xrstor64 [rdi]",
    "ret",
    "1: fxrstor64 [rdi]",
    "ret",
    ".size fpu_demo_restore, . - fpu_demo_restore",
    // rdi = trip.
    ".p2align 4",
    ".globl fpu_demo_user_trip",
    ".type fpu_demo_user_trip,@function",
    "fpu_demo_user_trip:",
    "push rbx",
    "push r12",
    "push r13",
    "mov rbx, rdi",
    "mov r12, [rbx]",         // steps
    "mov rdi, [r12]",         // restore_from
    "mov r13, [rbx + 72]",    // seeded faults
    "test rdi, rdi",
    "jz 1f",
    "test r13, {skip_restore}",
    "jnz 1f",
    "mov rax, [rbx + 80]",
    "test rax, rax",
    "cmovnz rdi, rax",
    "mov rsi, [r12 + 16]",
    "mov rdx, [rbx + 32]",
    "call fpu_demo_restore",
    "1:",
    "test r13, {skip_commit}",
    "jnz 2f",
    "mov rcx, [r12 + 24]",
    "mov rax, [r12 + 32]",
    "mov [rcx], rax",         // the task's word: live
    "2:",
    "lfence",
    "rdtsc",
    "mov [rbx + 48], eax",
    "mov [rbx + 52], edx",
    // User mode: look at every register, then change every register.
    "mov rdi, [rbx + 8]",
    "call fpu_real_dump",
    "mov rdi, [rbx + 16]",
    "call fpu_real_load",
    // Kernel entry.
    "cmp qword ptr [rbx + 24], 0",
    "je 4f",
    "lfence",
    "rdtsc",
    "lfence",
    "mov [rbx + 56], eax",
    "mov [rbx + 60], edx",
    "test r13, {skip_save}",
    "jnz 3f",
    "mov rdi, [r12 + 8]",
    "mov rsi, [r12 + 16]",
    "mov rdx, [rbx + 40]",
    "call fpu_demo_save",
    "3:",
    "mov rcx, [r12 + 24]",
    "mov rax, [r12 + 40]",
    "mov [rcx], rax",         // the task's word: saved
    "lfence",
    "rdtsc",
    "mov [rbx + 64], eax",
    "mov [rbx + 68], edx",
    "4:",
    "pop r13",
    "pop r12",
    "pop rbx",
    "ret",
    ".size fpu_demo_user_trip, . - fpu_demo_user_trip",
    ".popsection",
    skip_restore = const SKIP_RESTORE,
    skip_save = const SKIP_SAVE,
    skip_commit = const SKIP_COMMIT,
);

extern "C" {
    /// Makes the trip.
    ///
    /// # Safety
    ///
    /// * **C27** what `trip` points to is as its fields say, and the areas hold images of this backend.
    /// * **C28** until `sane_registers` is called, only scalar code runs: the registers are the task's.
    #[link_name = "fpu_demo_user_trip"]
    pub fn user_trip(trip: *mut Trip);

    /// Executes the save of [`Instructions::save`].
    ///
    /// # Safety
    ///
    /// Trip as described (C27) of `area`.
    #[link_name = "fpu_demo_save"]
    pub fn save(area: *mut u8, mask: u64, which: u64);

    /// Executes the restore of [`Instructions::restore`].
    ///
    /// # Safety
    ///
    /// Trip as described (C27) of `area`, and scalar code (C28).
    #[link_name = "fpu_demo_restore"]
    pub fn restore(area: *const u8, mask: u64, which: u64);
}
