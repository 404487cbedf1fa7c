//! The saves and restores as functions for assembly: what the inline ones do, general registers only.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{arch::global_asm, ffi::c_void, ptr::addr_of_mut};

use fpu_core::RawFpu;
use fpu_hosted_test::{
    conformance::Harness,
    real::{refuses, run_between, serve_fixups, RealHarness, RegFile},
};
use fpu_x86::{Format, Plan, Routines};

#[path = "support/real.rs"]
mod support;
use support::*;

/// One call, and what it did to the general registers and to the stack below it.
#[repr(C)]
struct Call {
    /// 0
    routine: usize,
    /// 8
    area: *mut u8,
    /// 16
    mask: u64,
    /// 24
    answer: u64,
    /// 32: RBX, RBP, RSI, RDI, R8 to R15.
    after: [u64; 12],
    /// 128: words below the return address that have changed.
    stack: u64,
}

global_asm!(
    ".pushsection .text.fpu_test_call,\"ax\",@progbits",
    ".globl fpu_test_call",
    ".type fpu_test_call,@function",
    "fpu_test_call:",
    ".irp r, rbx, rbp, r12, r13, r14, r15, rdi",
    "push \\r",
    ".endr",
    // What is below the return address: 64 words.
    "mov rcx, 64",
    "lea rdx, [rsp - 8 - 64 * 8]",
    "2: mov [rdx + rcx * 8 - 8], rcx",
    "loop 2b",
    "mov rax, [rdi]",
    "mov rsi, [rdi + 16]",
    "mov rdi, [rdi + 8]",
    "mov ebx, 101",
    "mov ebp, 102",
    ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov r\\n, 0x100 + \\n",
    ".endr",
    "call rax",
    "mov rcx, [rsp]",
    "mov [rcx + 24], eax",
    "mov [rcx + 32], rbx",
    "mov [rcx + 40], rbp",
    "mov [rcx + 48], rsi",
    "mov [rcx + 56], rdi",
    ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
    "mov [rcx + 8 * \\n], r\\n",
    ".endr",
    "mov rdi, rcx",
    "mov rcx, 64",
    "lea rdx, [rsp - 8 - 64 * 8]",
    "3: cmp [rdx + rcx * 8 - 8], rcx",
    "je 4f",
    "inc qword ptr [rdi + 128]",
    "4: loop 3b",
    ".irp r, rdi, r15, r14, r13, r12, rbp, rbx",
    "pop \\r",
    ".endr",
    "ret",
    ".size fpu_test_call, . - fpu_test_call",
    ".popsection",
);

extern "C" {
    fn fpu_test_call(call: *mut c_void);
}

/// Calls it with the registers holding `load`; what they hold afterwards, and the answer. With nothing faulting no word
/// of the stack below the return address may have changed.
fn call(
    routine: usize,
    memory: &mut Memory,
    plan: &Plan,
    load: &RegFile,
    faults: bool,
) -> (RegFile, u32) {
    let (area, mask) = (memory.base().as_ptr(), plan.plan_word());
    let mut call = Call { routine, area, mask, answer: 0, after: [0; 12], stack: 0 };
    let mut dump = load.clone();
    // SAFETY: C31: files of this CPU's classes. C33: the assembly calls a routine of the plan on memory that is large
    // enough (N1), and uses general registers only (N2).
    unsafe { run_between(load, fpu_test_call, addr_of_mut!(call).cast(), &mut dump) };
    let mut expect = [101, 102, mask, area as u64, 0, 0, 0, 0, 0, 0, 0, 0];
    for (n, register) in expect.iter_mut().enumerate().skip(4) {
        *register = 0x104 + n as u64;
    }
    assert_eq!(call.after, expect, "{:?}: a general register has changed", plan.save_instruction());
    if !faults {
        assert_eq!(call.stack, 0, "{:?}: the stack was used", plan.save_instruction());
    }
    (dump, call.answer as u32)
}

/// As the plan says, and scrubbing.
fn each(mut test: impl FnMut(&mut RealHarness, Plan, Routines)) {
    for_each_rung(|h| {
        for plan in [h.fpu().clone(), h.fpu().clone().scrubbing()] {
            let routines = plan.routines();
            test(h, plan, routines);
        }
    });
}

#[test]
fn what_is_saved_is_what_is_restored_and_no_other_register_changes() {
    each(|h, plan, Routines { save, restore }| {
        for seed in 0..20 {
            let (one, two) = (h.pattern(seed, every(h)).0, h.pattern(seed + 100, every(h)).0);
            let mut memory = Memory::new(&plan);
            let what = format!("{:?}, scrubs: {}", plan.save_instruction(), plan.scrubs());
            let (after, _) = call(save as usize, &mut memory, &plan, &one, false);
            same(&after, &one, &format!("{what}: after a save"));
            let (after, answer) = call(restore as usize, &mut memory, &plan, &two, false);
            assert_eq!(answer, 0, "{what}");
            same(&after, &one, &format!("{what}: after a restore"));
        }
    });
}

#[test]
fn a_restore_that_is_refused_returns_the_vector() {
    serve_fixups();
    each(|h, plan, Routines { save, restore }| {
        let one = h.pattern(3, every(h)).0;
        let mut memory = Memory::new(&plan);
        let what = format!("{:?}, scrubs: {}", plan.save_instruction(), plan.scrubs());
        let _ = call(save as usize, &mut memory, &plan, &one, false);
        memory.0[27] |= 0x80; // a reserved bit of MXCSR
        if !refuses(&memory.0, plan.format() != Format::Legacy) {
            println!("SKIP: {what}: this CPU accepts a reserved bit of MXCSR");
            return;
        }
        let (_, answer) = call(restore as usize, &mut memory, &plan, &one, true);
        assert_eq!(answer, 13, "{what}");
        memory.0[27] &= 0x7F;
        let (after, answer) = call(restore as usize, &mut memory, &plan, &one, false);
        assert_eq!(answer, 0, "{what}");
        same(&after, &one, &format!("{what}: after a fault"));
    });
}
