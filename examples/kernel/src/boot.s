# From power-on to `kernel_main`, and from a start-up message to `ap_main`.
#
# Nothing here touches SSE or x87 registers, nor the control bits that switch them on: those belong to
# the library.

.set LOAD, 0x7c00                       # where firmware puts the boot record
.set LOW, 0x10000                       # where the boot record collects the image
.set CHUNK, 64                          # sectors a read: 32 KiB, within one segment
.set IMAGE, 0x100000                    # where the image runs
.set COM1, 0x3f8

.set CODE64, 0x08
.set DATA, 0x10
.set CODE32, 0x18

# ---------------------------------------------------------------- the boot record
# Linked at IMAGE but run at LOAD, so every address of its own is counted from `mbr`.

.section .boot.mbr, "awx"
.code16
.globl mbr
mbr:
    cli
    cld
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, LOAD
    .byte 0xea                          # far jump: firmware may have come as 07c0:0000
    .word mbr_here - mbr + LOAD, 0
mbr_here:
    mov byte ptr [MBR_DRIVE], dl
    sti
mbr_read:
    mov ax, word ptr [MBR_LEFT]
    test ax, ax
    jz mbr_loaded
    cmp ax, CHUNK
    jbe mbr_last
    mov ax, CHUNK
mbr_last:
    mov word ptr [MBR_COUNT], ax
    sub word ptr [MBR_LEFT], ax
    mov ah, 0x42
    mov dl, byte ptr [MBR_DRIVE]
    lea si, [MBR_PACKET]
    int 0x13
    jc mbr_failed
    add word ptr [MBR_LBA], CHUNK
    add word ptr [MBR_SEGMENT], CHUNK * 512 / 16
    jmp mbr_read

mbr_failed:                             # one letter is all there is room for
    mov dx, COM1 + 3
    mov al, 3
    out dx, al
    mov dx, COM1
    mov al, 'E'
    out dx, al
mbr_halt:
    cli
    hlt
    jmp mbr_halt

mbr_loaded:
    cli
    in al, 0x92                         # the A20 line; bit 0 would reset the machine
    or al, 2
    and al, 0xfe
    out 0x92, al
    lgdt [MBR_GDT_POINTER]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea                    # far jump with a 32-bit offset
    .long mbr_protected - mbr + LOAD
    .word CODE32

.code32
mbr_protected:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esi, LOW
    mov edi, IMAGE
    movzx ecx, word ptr [MBR_SECTORS]
    shl ecx, 7
    rep movsd
    xor ebx, ebx                        # no PVH information
    mov eax, offset pvh_start
    jmp eax

.balign 4
mbr_gdt_pointer:
    .word mbr_gdt_end - mbr_gdt - 1
    .long mbr_gdt - mbr + LOAD
.balign 8
mbr_gdt:
    .quad 0
    .quad 0
    .quad 0x00cf93000000ffff            # DATA
    .quad 0x00cf9b000000ffff            # CODE32
mbr_gdt_end:
mbr_packet:
    .byte 16, 0
mbr_count:
    .word 0                             # sectors of this read
    .word 0                             # offset in the segment
mbr_segment:
    .word LOW / 16
mbr_lba:
    .quad 0
mbr_sectors:
    .word __image_sectors
mbr_left:
    .word __image_sectors
mbr_drive:
    .byte 0

.org 510
    .byte 0x55, 0xaa

.set MBR_GDT_POINTER, mbr_gdt_pointer - mbr + LOAD
.set MBR_PACKET, mbr_packet - mbr + LOAD
.set MBR_COUNT, mbr_count - mbr + LOAD
.set MBR_SEGMENT, mbr_segment - mbr + LOAD
.set MBR_LBA, mbr_lba - mbr + LOAD
.set MBR_SECTORS, mbr_sectors - mbr + LOAD
.set MBR_LEFT, mbr_left - mbr + LOAD
.set MBR_DRIVE, mbr_drive - mbr + LOAD

# ---------------------------------------------------------------- what a PVH loader looks for

.section .note.pvh, "a", @note
.balign 4
    .long 4                             # length of the name
    .long 8                             # length of the value
    .long 18                            # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

# ---------------------------------------------------------------- the entry of the first CPU
# Flat 32-bit protected mode, paging off. EBX: the loader's start information, or 0.

.section .boot, "awx"
.code32
.globl pvh_start
pvh_start:
    cli
    cld
    lgdt [boot_gdt_pointer]
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax

    mov edi, offset __bss_start         # the stack is in there: no push before this
    mov ecx, offset __bss_end
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd
    mov esp, offset boot_stack_top

    # One table of level 4, one of level 3, four of level 2: 2048 pages of 2 MiB, each at its own address.
    # The first entry of the upper levels allows user access, because two pages below it do.
    mov dword ptr [boot_pml4], offset boot_pdpt + 7
    mov dword ptr [boot_pdpt + 0], offset boot_pd + 7
    mov dword ptr [boot_pdpt + 8], offset boot_pd + 0x1000 + 3
    mov dword ptr [boot_pdpt + 16], offset boot_pd + 0x2000 + 3
    mov dword ptr [boot_pdpt + 24], offset boot_pd + 0x3000 + 3
    mov edi, offset boot_pd
    mov eax, 0x83                       # present, writable, 2 MiB
    mov ecx, 4 * 512
map_page:
    mov dword ptr [edi], eax
    add edi, 8
    add eax, 0x200000
    dec ecx
    jnz map_page
    or dword ptr [boot_pd + 2 * 8], 4   # 0x400000: the page of user code
    or dword ptr [boot_pd + 3 * 8], 4   # 0x600000: user memory with protection key 5, which counts with CR4.PKE
    or dword ptr [boot_pd + 3 * 8 + 4], 5 << 27
    or dword ptr [boot_pd + (0xfec00000 >> 21) * 8], 0x10   # interrupt controllers: uncached
    or dword ptr [boot_pd + (0xfee00000 >> 21) * 8], 0x10

    mov ebp, offset bsp_long
    # fall through

# Long mode on, then to EBP. Uses the stack, EAX, ECX and EDX.
long_mode:
    mov eax, offset boot_pml4
    mov cr3, eax
    mov eax, cr4
    or eax, 1 << 5                      # PAE
    mov cr4, eax
    mov ecx, 0xc0000080                 # EFER
    rdmsr
    or eax, 1 << 8                      # LME
    wrmsr
    mov eax, cr0
    and eax, 0x9fffffff                 # the caches, off after reset
    or eax, 0x80010000                  # PG, WP
    mov cr0, eax
    push CODE64
    push ebp
    retf

.code64
bsp_long:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov esp, offset boot_stack_top

    # A loader's command line goes where a disk has its parameters: its own memory may be overwritten.
    mov ebx, ebx                        # the upper half is undefined after the switch
    test ebx, ebx
    jz have_params
    cmp dword ptr [rbx], 0x336ec578
    jne have_params
    mov rsi, qword ptr [rbx + 24]       # cmdline_paddr
    test rsi, rsi
    jz have_params
    mov rax, rsi
    shr rax, 32                         # not mapped
    jnz have_params
    mov edi, offset boot_params
    mov ecx, offset boot_params_size - 1
copy_param:
    lodsb
    stosb
    test al, al
    jz have_params
    dec ecx
    jnz copy_param
    mov byte ptr [rdi], 0
have_params:
    mov edi, offset boot_params
    xor ebp, ebp
    call kernel_main
    ud2

# ---------------------------------------------------------------- the entry of another CPU
# Copied to TRAMPOLINE, where the start-up message sends the CPU in real mode.

.set TRAMPOLINE, 0x8000

.code16
.globl ap_trampoline
ap_trampoline:
    cli
    cld
    xor ax, ax
    mov ds, ax
    lgdt [AP_GDT_POINTER]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea                    # far jump with a 32-bit offset, out of the copy
    .long ap_protected
    .word CODE32
.balign 4
ap_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
.globl ap_trampoline_end
ap_trampoline_end:
.set AP_GDT_POINTER, ap_gdt_pointer - ap_trampoline + TRAMPOLINE

.code32
ap_protected:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, dword ptr [ap_stack]
    mov ebp, offset ap_long
    jmp long_mode

.code64
ap_long:
    mov eax, DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, qword ptr [rip + ap_stack]
    mov edi, dword ptr [rip + ap_number]
    xor ebp, ebp
    call ap_main
    ud2

.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # CODE64
    .quad 0x00cf93000000ffff            # DATA
    .quad 0x00cf9b000000ffff            # CODE32
boot_gdt_end:
.globl ap_stack
ap_stack:
    .quad 0
.globl ap_number
ap_number:
    .long 0
.balign 4
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

# ---------------------------------------------------------------- memory that is zero at the start

.section .boot.bss, "aw", @nobits
.balign 4096
boot_pml4:
    .skip 0x1000
boot_pdpt:
    .skip 0x1000
boot_pd:
    .skip 0x4000
boot_stack:
    .skip 0x10000
.globl boot_stack_top
boot_stack_top:
