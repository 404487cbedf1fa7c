# The program of ring 3, copied to a page of its own at boot. RBX is its block (`UserBlock`), RSP the
# top of the stack in it. It is position-independent: its jumps and calls stay within it and go to
# labels that are not global, so the assembler itself resolves them and leaves no relocation behind.
#
# Between the load and the dump there is nothing but WRPKRU and the action, so what the dump finds is
# what the kernel kept. A system call changes RAX, RCX and R11 only.

    .pushsection .rodata.user,"a",@progbits
    .p2align 6
    .globl user_start
user_start:
    # What a new task finds, before it has touched anything.
    call user_see
    mov eax, {born}
    syscall
user_loop:
    lea rdi, [rbx + {want}]
    call user_load
    cmp dword ptr [rbx + {tiles}], 0
    je user_no_tiles
    # The first use of tiles, if the task has none: LDTILECFG may be executed without room for tiles.
    ldtilecfg [rbx + {tilecfg}]
    lea rdi, [rbx + {tiles_want}]
    mov esi, 8
    .irp n,0,1,2,3,4,5,6,7
    tileloadd tmm\n, [rdi + rsi + 64*\n]
    .endr
user_no_tiles:
    cmp dword ptr [rbx + {has_pkru}], 0
    je user_act
    mov eax, [rbx + {pkru_want}]
    xor ecx, ecx
    xor edx, edx
    wrpkru
    .globl user_holds
user_holds:
user_act:
    mov eax, [rbx + {action}]
    test eax, eax
    jz user_spin
    cmp eax, {raise}
    je user_raise
    syscall
    jmp user_done
user_spin:
    mov rcx, [rbx + {spin}]
    test rcx, rcx
    jz user_done
user_spin_on:
    dec rcx
    jnz user_spin_on
    .globl user_looks
user_looks:
user_done:
    call user_see
    cmp dword ptr [rbx + {tiles}], 0
    je user_looked
    lea rdi, [rbx + {tiles_seen}]
    mov esi, 8
    .irp n,0,1,2,3,4,5,6,7
    tilestored [rdi + rsi + 64*\n], tmm\n
    .endr
user_looked:
    mov eax, {check}
    syscall
    jmp user_loop
    # One divided by zero, which is not masked, is pending until the next x87 instruction that waits.
user_raise:
    fninit
    push 0x37B
    fldcw [rsp]
    fld1
    fldz
    fdivp
    mov rcx, [rbx + {spin}]
    inc rcx
user_pending:
    dec rcx
    jnz user_pending
    fwait
    ud2

    # A signal handler: it has initial registers, loads others, and maybe edits the frame. From `user_act` to `user_done`
    # the program's registers are what it expects, so there it expects what the frame has then.
    .globl user_handler
user_handler:
    push rsi
    push rdi
    lea rdi, [rbx + {handler_seen}]
    call user_dump
    lea rdi, [rbx + {handler_loads}]
    call user_load
    cmp dword ptr [rbx + {has_pkru}], 0
    je user_handled
    xor ecx, ecx
    rdpkru
    mov [rbx + {handler_pkru}], eax
    mov eax, [rbx + {handler_puts}]
    xor edx, edx
    wrpkru
user_handled:
    pop rdi
    pop rsi
    mov eax, [rbx + {handler_does}]
    lea rcx, [rip + user_act]
    cmp rsi, rcx
    jb user_return
    lea rcx, [rip + user_done]
    cmp rsi, rcx
    jae user_return
    test eax, {edit}
    jz user_edited
    # MXCSR is at 24, XMM5 at 240, XSTATE_BV at 512, and AVX is bit 2 of that.
    xor dword ptr [rdi + 24], {turns_mxcsr}
    xor dword ptr [rbx + {want} + {fx} + 24], {turns_mxcsr}
    xor dword ptr [rdi + 240], {turns}
    xor dword ptr [rbx + {want} + 5*64], {turns}
    inc dword ptr [rbx + {edits}]
    mov edx, [rbx + {avx_at}]
    test edx, edx
    jz user_edited
    test byte ptr [rdi + 512], 4
    jz user_edited
    xor dword ptr [rdi + rdx + 5*16], {turns}
    xor dword ptr [rbx + {want} + 5*64 + 16], {turns}
user_edited:
    test eax, {clear_pkru}
    jz user_return
    and dword ptr [rdi + 512], 0xFFFFFDFF
    mov dword ptr [rbx + {pkru_want}], 0
user_return:
    test eax, {reserved}
    jz user_sound
    or dword ptr [rdi + 24], 0x80000000
user_sound:
    test eax, {unknown}
    jz user_known
    or byte ptr [rdi + 512 + 7], 0x40
user_known:
    test eax, {astray}
    jz user_sigreturn
    lea rdi, [rdi + 0x100000]
user_sigreturn:
    mov eax, {sigreturn}
    syscall
    ud2

    # The program of a task that leaves the FPU alone: it spins and calls, and now and then only looks.
    .globl user_quiet
user_quiet:
    mov eax, {check}
    syscall
    mov eax, [rbx + {action}]
    cmp eax, {look}
    jne user_quiet_act
    call user_see
    jmp user_quiet
user_quiet_act:
    test eax, eax
    jz user_quiet_spin
    syscall
    jmp user_quiet
user_quiet_spin:
    mov rcx, [rbx + {spin}]
    test rcx, rcx
    jz user_quiet
user_quiet_spin_on:
    dec rcx
    jnz user_quiet_spin_on
    jmp user_quiet

    # All registers and PKRU into the block.
user_see:
    lea rdi, [rbx + {seen}]
    call user_dump
    cmp dword ptr [rbx + {has_pkru}], 0
    je user_seen
    xor ecx, ecx
    rdpkru
    mov [rbx + {pkru_seen}], eax
user_seen:
    ret

user_load:
    fpu_load_registers
    ret
user_dump:
    fpu_dump_registers
    ret
    .globl user_end
user_end:
    .popsection
