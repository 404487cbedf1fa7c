# The VM entry, and the program of the guests. Neither is called from where vector registers may be used, and the
# program lies where the kernel never executes it.

    .pushsection .text.svm,"ax",@progbits
    # RDI: the VMCB, RSI: the guest's RBX, RCX, RDX and RDI; it uses no other general registers but RAX, which is in the
    # VMCB. Interrupts and GIF are off before and afterwards; those that come meanwhile end the guest's turn.
    .p2align 4
    .globl svm_run
    .type svm_run,@function
svm_run:
    push rbx
    push rsi
    mov rax, rdi
    mov rbx, [rsi]
    mov rcx, [rsi + 8]
    mov rdx, [rsi + 16]
    mov rdi, [rsi + 24]
    sti
    vmrun rax
    cli
    pop rsi
    mov [rsi], rbx
    mov [rsi + 8], rcx
    mov [rsi + 16], rdx
    mov [rsi + 24], rdi
    pop rbx
    ret
    .size svm_run, . - svm_run
    .popsection

# RBX is its block (`Block`). It writes XCR0 by VMMCALL, as QEMU 7.2 has no intercept of XSETBV. Between the load and the dump there is nothing but the action, so what the dump finds is
# what hypervisor and host kept.
    .pushsection .rodata.guest,"a",@progbits
    .p2align 6
    .globl guest_start
guest_start:
    lea rdi, [rbx + {seen}]
    fpu_dump_registers
    cmp dword ptr [rbx + {has_pkru}], 0
    je guest_seen
    xor ecx, ecx
    rdpkru
    mov [rbx + {pkru_seen}], eax
guest_seen:
    mov ecx, {round_call}
    vmmcall
    lea rdi, [rbx + {want}]
    fpu_load_registers
    cmp dword ptr [rbx + {has_pkru}], 0
    je guest_act
    mov eax, [rbx + {pkru_want}]
    xor ecx, ecx
    xor edx, edx
    wrpkru
guest_act:
    mov eax, [rbx + {action}]
    cmp eax, {halts}
    je guest_halts
    cmp eax, {asks}
    je guest_asks
    cmp eax, {narrows}
    je guest_narrows
    # The host answers without RBX.
    cpuid
    jmp guest_spin
guest_halts:
    hlt
    jmp guest_spin
guest_asks:
    mov eax, [rbx + {illegal}]
    mov ecx, {xcr0_call}
    vmmcall
guest_spin:
    mov rcx, [rbx + {spin}]
    inc rcx
guest_spin_on:
    dec rcx
    jnz guest_spin_on
    jmp guest_start
    # What XCR0 does not enable stays in the registers, as long as nobody else has them.
guest_narrows:
    mov eax, [rbx + {narrow}]
    mov ecx, {xcr0_call}
    vmmcall
    mov rcx, [rbx + {spin}]
    inc rcx
guest_narrow_on:
    dec rcx
    jnz guest_narrow_on
    hlt
    mov eax, [rbx + {wide}]
    mov ecx, {xcr0_call}
    vmmcall
    jmp guest_start
    .popsection
