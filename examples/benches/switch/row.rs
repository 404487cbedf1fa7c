//! A row: many calls of one step between two time stamps, in assembly, while registers hold tasks.

use std::{
    arch::{asm, global_asm},
    ffi::c_void,
};

use fpu_hosted_test::real::{run_between, RegFile};

/// One step of a scenario, scalar code.
pub type Step = unsafe extern "C" fn(*mut c_void);

/// What the assembly executes.
#[repr(C)]
pub struct Row {
    /// 0: what every step gets.
    pub arg: *mut c_void,
    /// 8: before the first stamp.
    pub begin: Step,
    /// 16: measured.
    pub step: Step,
    /// 24: after the second stamp.
    pub end: Step,
    /// 32: so many steps.
    pub steps: u64,
    /// 40: ticks of the time-stamp counter.
    pub ticks: u64,
}

global_asm!(
    ".pushsection .text.fpu_bench,\"ax\",@progbits",
    ".p2align 6",
    ".globl fpu_bench_row",
    ".type fpu_bench_row,@function",
    "fpu_bench_row:",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rbx, rdi",
    "mov r12, [rbx]",
    "mov r13, [rbx + 16]",
    "mov r14, [rbx + 32]",
    "mov rdi, r12",
    "call [rbx + 8]",
    "mov rdi, r12",
    "call r13", // once before it counts: the paths, and the lines of both areas
    "lfence",
    "rdtsc",
    "lfence",
    "shl rdx, 32",
    "lea r15, [rax + rdx]",
    ".p2align 6",
    "2: mov rdi, r12",
    "call r13",
    "dec r14",
    "jnz 2b",
    "lfence",
    "rdtsc",
    "lfence",
    "shl rdx, 32",
    "add rax, rdx",
    "sub rax, r15",
    "mov [rbx + 40], rax",
    "mov rdi, r12",
    "call [rbx + 24]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "ret",
    ".size fpu_bench_row, . - fpu_bench_row",
    ".popsection",
);

extern "C" {
    fn fpu_bench_row(row: *mut c_void);
}

impl Row {
    /// Runs the row. The registers begin as `before`; what they hold after `end` is dumped to `after`.
    ///
    /// # Safety
    ///
    /// The steps may be called with `arg`, and are scalar code. `before` and `after` are files of this CPU's classes.
    pub unsafe fn run(&mut self, before: &RegFile, after: &mut RegFile) {
        // SAFETY: C31: files of this CPU by the caller. The thunk is assembly, and calls scalar code only.
        unsafe { run_between(before, fpu_bench_row, std::ptr::from_mut(self).cast(), after) };
    }
}

/// A time stamp that waits for what came before.
#[inline(always)]
pub fn quiet_ticks() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads the counter; every x86-64 CPU has these instructions.
    unsafe {
        asm!("lfence", "rdtsc", "lfence", out("rax") low, out("rdx") high, options(nomem, nostack, preserves_flags));
    }
    high << 32 | low
}
