//! The assembly: one switch of stacks and registers, by the steps that it was handed.

use std::{
    arch::global_asm,
    mem::offset_of,
    ptr::{null, null_mut},
};

use fpu_core::SwitchSteps;
use fpu_hosted_test::real::{Classes, RegFile};
use fpu_x86::Routines;

use super::faults::Fault;

/// The frame of one call of [`switch`]. Each task has one, which is kept as long as the task's stack waits.
#[repr(C)]
pub struct Frame {
    /// What the task that leaves holds in all its registers, or null: they are loaded last before its save.
    pub load: *const RegFile,
    /// Where a task dumps all its registers, first thing when it goes on, or null.
    pub seen: *mut RegFile,
    /// The steps: what is to be saved and restored.
    pub steps: SwitchSteps,
    /// Where the stack pointer of whoever leaves goes.
    pub from: *mut usize,
    /// Where that of whoever comes is; it may be the same place.
    pub to: *const usize,
    /// The instructions.
    pub routines: Routines,
    /// The vector of a restore that faulted, or 0.
    pub fault: u32,
    /// The registers that there are.
    pub classes: Classes,
    /// The step that a seeded fault leaves out.
    pub leaves_out: u64,
}

/// Nothing to save and nothing to load.
pub const NO_STEPS: SwitchSteps = SwitchSteps {
    save_to: null_mut(),
    save_word: null_mut(),
    saved: 0,
    restore_from: null(),
    restore_word: null_mut(),
    live: 0,
    mask: 0,
};

const STEPS: usize = offset_of!(Frame, steps);

global_asm!(
    ".pushsection .text.fpu_cooperative,\"ax\",@progbits",
    // rdi = frame of whoever leaves.
    ".p2align 4",
    ".globl fpu_cooperative_switch",
    ".type fpu_cooperative_switch,@function",
    "fpu_cooperative_switch:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "mov rbx, rdi",
    "mov r12, [rbx + {leaves_out}]",
    // The registers are the task's own until the save.
    "mov rdi, [rbx + {load}]",
    "test rdi, rdi",
    "jz 2f",
    "call fpu_real_load",
    "2:",
    "test r12, {computes}",
    "jz 2f",
    "pcmpeqd xmm3, xmm3", // what compiled code could do here
    "2:",
    "mov rdi, [rbx + {save_to}]",
    "test rdi, rdi",
    "jz 3f",
    "test r12, {skip_save}",
    "jnz 2f",
    "mov rsi, [rbx + {mask}]",
    "call [rbx + {save}]",
    "2:",
    "test r12, {skip_saved}",
    "jnz 3f",
    "mov rcx, [rbx + {save_word}]",
    "mov rax, [rbx + {saved}]",
    "mov [rcx], rax",
    "3:",
    // The other stack.
    "mov rax, [rbx + {from}]",
    "mov [rax], rsp",
    "mov rax, [rbx + {to}]",
    "mov rsp, [rax]",
    "xor eax, eax",
    "mov rdi, [rbx + {restore_from}]",
    "test rdi, rdi",
    "jz 3f",
    "test r12, {skip_restore}",
    "jnz 2f",
    "mov rsi, [rbx + {mask}]",
    "call [rbx + {restore}]",
    "test eax, eax",
    "jnz 3f",
    "2:",
    "test r12, {skip_live}",
    "jnz 3f",
    "mov rcx, [rbx + {restore_word}]",
    "mov rdx, [rbx + {live}]",
    "mov [rcx], rdx",
    "3:",
    // The registers are those of whoever has come.
    "pop rbx",
    "mov [rbx + {fault}], eax",
    "mov rdi, [rbx + {seen}]",
    "test rdi, rdi",
    "jz 2f",
    "call fpu_real_dump",
    "2:",
    "mov edi, [rbx + {classes}]",
    "call fpu_real_sane",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".size fpu_cooperative_switch, . - fpu_cooperative_switch",
    // Where a new task's stack returns to: r12(rbx, rbp).
    ".p2align 4",
    ".globl fpu_cooperative_start",
    ".type fpu_cooperative_start,@function",
    "fpu_cooperative_start:",
    "mov rdi, rbx",
    "mov rsi, rbp",
    "call r12",
    "ud2",
    ".size fpu_cooperative_start, . - fpu_cooperative_start",
    ".popsection",
    load = const offset_of!(Frame, load),
    seen = const offset_of!(Frame, seen),
    from = const offset_of!(Frame, from),
    to = const offset_of!(Frame, to),
    save = const offset_of!(Frame, routines) + offset_of!(Routines, save),
    restore = const offset_of!(Frame, routines) + offset_of!(Routines, restore),
    fault = const offset_of!(Frame, fault),
    classes = const offset_of!(Frame, classes),
    leaves_out = const offset_of!(Frame, leaves_out),
    save_to = const STEPS + offset_of!(SwitchSteps, save_to),
    save_word = const STEPS + offset_of!(SwitchSteps, save_word),
    saved = const STEPS + offset_of!(SwitchSteps, saved),
    restore_from = const STEPS + offset_of!(SwitchSteps, restore_from),
    restore_word = const STEPS + offset_of!(SwitchSteps, restore_word),
    live = const STEPS + offset_of!(SwitchSteps, live),
    mask = const STEPS + offset_of!(SwitchSteps, mask),
    computes = const Fault::ComputesFirst.bit(),
    skip_save = const Fault::SkipSave.bit(),
    skip_saved = const Fault::SkipSaved.bit(),
    skip_restore = const Fault::SkipRestore.bit(),
    skip_live = const Fault::SkipLive.bit(),
);

extern "C" {
    /// Leaves this stack, and returns when another switch resumes it.
    ///
    /// # Safety
    ///
    /// * **C41** the frame is as its fields say, and stays where it is until this returns; its steps were planned for
    ///   the two whose stacks are switched, and nothing has been called in between (C39, C40).
    #[link_name = "fpu_cooperative_switch"]
    pub fn switch(frame: *mut Frame);

    #[link_name = "fpu_cooperative_start"]
    fn start();
}

/// Lays out a new stack on which [`switch`] begins `body(kernel, task)`; its stack pointer.
pub fn begin(
    stack: &mut [u64],
    frame: *mut Frame,
    body: extern "C" fn(usize, usize) -> !,
    kernel: usize,
    task: usize,
) -> usize {
    // As `switch` pops it; behind the return address the stack is aligned as at every call.
    let words =
        [frame as usize, 0, 0, 0, body as usize, task, kernel, start as *const () as usize, 0, 0];
    let aligned = (stack.as_ptr_range().end as usize & !15) - size_of_val(&words);
    let first = (aligned - stack.as_ptr() as usize) / 8;
    for (place, word) in stack[first..].iter_mut().zip(words) {
        *place = word as u64;
    }
    aligned
}
