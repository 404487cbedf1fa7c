# Entries into the kernel, the way back to user mode, and the switch of stacks. No vector registers here.
#
# Every entry leaves a `Frame` (trap.rs) at RSP. The GS base is this CPU's block while in the kernel, and
# zero, which no user program can change, while not.

.set FRAME_CS, 17 * 8 + 8

.macro push_general
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
.endm

.macro pop_general
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
.endm

.pushsection .text.traps,"ax",@progbits

# Exceptions without an error code, the timer, and spurious interrupts.
.irp v,0,1,3,4,5,6,7,9,16,18,19,20,32,255
.p2align 4
trap_\v:
    push 0
    push \v
    jmp trap_common
.endr
# Exceptions with one.
.irp v,10,11,12,13,14,17,21
.p2align 4
trap_\v:
    push \v
    jmp trap_common
.endr

.p2align 4
.globl trap_common
trap_common:
    test byte ptr [rsp + 24], 3
    jz 1f
    swapgs
1:  push_general
    mov rdi, rsp
    call trap_dispatch
    # Kernel code was interrupted: what came from user mode does not return here.
    pop_general
    add rsp, 16
    iretq

# RDI = a frame of user mode, at the top of its task's kernel stack.
.p2align 4
.globl trap_resume
trap_resume:
    mov rsp, rdi
    pop_general
    add rsp, 16
    swapgs
    iretq

# Interrupts that come with interrupts off, on stacks of their own: the GS base says who was interrupted.
.macro paranoid vector, dispatch
    push 0
    push \vector
    push_general
    mov ecx, 0xC0000101
    rdmsr
    or eax, edx
    setz bl
    jnz 1f
    swapgs
1:  mov rdi, rsp
    call \dispatch
    test bl, bl
    jz 2f
    swapgs
2:  pop_general
    add rsp, 16
    iretq
.endm

.p2align 4
.globl trap_2
trap_2:
    paranoid 2, nmi_dispatch
.p2align 4
.globl trap_8
trap_8:
    # The processor has pushed an error code of zero.
    add rsp, 8
    paranoid 8, double_fault

.p2align 4
.globl syscall_entry
syscall_entry:
    swapgs
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{kernel_rsp}]
    push {user_ss}
    push qword ptr gs:[{user_rsp}]
    push r11
    push {user_cs}
    push rcx
    push 0
    push 256
    push_general
    mov rdi, rsp
    call syscall_dispatch
    ud2

# RDI = where to keep this stack's pointer, RSI = the other's.
.p2align 4
.globl switch_stacks
switch_stacks:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rdi], rsp
    mov rsp, rsi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

# What a new stack returns to; `task_begin` does not come back.
.p2align 4
.globl task_entry
task_entry:
    call task_begin
    ud2

.popsection

.pushsection .rodata.traps,"a",@progbits
.p2align 3
.globl trap_table
trap_table:
.irp v,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,16,17,18,19,20,21,32,255
    .quad \v, trap_\v
.endr
    .quad -1, 0
.popsection
