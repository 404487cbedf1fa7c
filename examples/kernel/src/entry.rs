//! What an entry into the kernel leaves, the table of the entries, and the way back to user mode.

use core::mem::{offset_of, size_of};

use x86_64::{
    structures::idt::{EntryOptions, InterruptDescriptorTable},
    VirtAddr,
};

/// Vector of the local timer.
pub const TIMER: u8 = 32;
/// Vector of interrupts that were none.
pub const SPURIOUS: u8 = 255;
/// Stacks in the TSS, for interrupts that come with interrupts off.
pub const IST_NMI: u16 = 0;
pub const IST_DOUBLE_FAULT: u16 = 1;

/// What an entry into the kernel leaves on the stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}
// The assembly pushes 15 registers, 2 words, and the processor's 5.
const _: () = assert!(size_of::<Frame>() == 22 * 8 && offset_of!(Frame, vector) == 15 * 8);

impl Frame {
    /// Was user mode interrupted?
    pub fn is_user(&self) -> bool {
        self.cs & 3 == 3
    }
}

extern "C" {
    fn trap_resume(frame: *mut Frame) -> !;
    /// (vector, entry) pairs, up to vector -1.
    static trap_table: [u64; 0];
}

/// Enters user mode.
///
/// # Safety
///
/// Interrupts are off; `frame` is one of user mode at the top of the current task's kernel stack; the
/// registers hold that task.
pub unsafe fn resume(frame: *mut Frame) -> ! {
    // SAFETY: the caller's.
    unsafe { trap_resume(frame) }
}

/// Fills the table that all CPUs share. Without a stack of their own, NMIs push to wherever RSP points.
pub fn fill(idt: &mut InterruptDescriptorTable, nmi_on_ist: bool) {
    let mut at = (&raw const trap_table).cast::<u64>();
    loop {
        // SAFETY: pairs up to vector -1, in the assembly.
        let (vector, entry) = unsafe { (at.read(), at.add(1).read()) };
        let Ok(vector) = u8::try_from(vector) else { return };
        let entry = VirtAddr::new_truncate(entry);
        set(idt, vector, entry);
        if vector == 2 && !nmi_on_ist {
            // SAFETY: the entry is for this vector; that it may come where RSP is no stack is what the fault is for.
            unsafe { idt.non_maskable_interrupt.set_handler_addr(entry) };
        }
        // SAFETY: the table ends with vector -1, which this pair is not.
        at = unsafe { at.add(2) };
    }
}

fn set(idt: &mut InterruptDescriptorTable, vector: u8, entry: VirtAddr) {
    // SAFETY: each entry of the assembly is for the vector that stands before it.
    unsafe {
        match vector {
            0 => idt.divide_error.set_handler_addr(entry),
            1 => idt.debug.set_handler_addr(entry),
            2 => on_stack(idt.non_maskable_interrupt.set_handler_addr(entry), IST_NMI),
            3 => idt.breakpoint.set_handler_addr(entry),
            4 => idt.overflow.set_handler_addr(entry),
            5 => idt.bound_range_exceeded.set_handler_addr(entry),
            6 => idt.invalid_opcode.set_handler_addr(entry),
            7 => idt.device_not_available.set_handler_addr(entry),
            8 => on_stack(idt.double_fault.set_handler_addr(entry), IST_DOUBLE_FAULT),
            10 => idt.invalid_tss.set_handler_addr(entry),
            11 => idt.segment_not_present.set_handler_addr(entry),
            12 => idt.stack_segment_fault.set_handler_addr(entry),
            13 => idt.general_protection_fault.set_handler_addr(entry),
            14 => idt.page_fault.set_handler_addr(entry),
            16 => idt.x87_floating_point.set_handler_addr(entry),
            17 => idt.alignment_check.set_handler_addr(entry),
            18 => idt.machine_check.set_handler_addr(entry),
            19 => idt.simd_floating_point.set_handler_addr(entry),
            20 => idt.virtualization.set_handler_addr(entry),
            21 => idt.cp_protection_exception.set_handler_addr(entry),
            32.. => idt[vector].set_handler_addr(entry),
            _ => return,
        };
    }
}

/// # Safety
///
/// The TSS has a stack of that number.
unsafe fn on_stack(options: &mut EntryOptions, stack: u16) -> &mut EntryOptions {
    // SAFETY: the caller's.
    unsafe { options.set_stack_index(stack) }
}
