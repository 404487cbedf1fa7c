# All registers from a file of them, and all registers to one: two macros for every program that
# needs them. RDI is the file (`RegFile`). Both read from it which classes to move, so no instruction
# is executed that the CPU does not have, and change the flags and no other general register.
#
# An including `global_asm!` gives the operands fx, masks, classes, avx, avx512 and wide, and ends
# with `.purgem` of both: assembly of one crate may be joined, and a macro is defined only once.

# The x87 half and MXCSR come first; also XMM0-15, which the vectors' own part then overwrites.
.macro fpu_load_registers
    fxrstor64 [rdi + {fx}]
    test dword ptr [rdi + {classes}], {avx512}
    jnz .Lfpu_load_zmm\@
    test dword ptr [rdi + {classes}], {avx}
    jnz .Lfpu_load_ymm\@
    .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movdqa xmm\n, [rdi + 64*\n]
    .endr
    jmp .Lfpu_loaded\@
.Lfpu_load_ymm\@:
    .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqa ymm\n, [rdi + 64*\n]
    .endr
    jmp .Lfpu_loaded\@
.Lfpu_load_zmm\@:
    .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovdqa64 zmm\n, [rdi + 64*\n]
    .endr
    test dword ptr [rdi + {classes}], {wide}
    jnz .Lfpu_load_wide\@
    .irp n,0,1,2,3,4,5,6,7
    kmovw k\n, [rdi + {masks} + 8*\n]
    .endr
    jmp .Lfpu_loaded\@
.Lfpu_load_wide\@:
    .irp n,0,1,2,3,4,5,6,7
    kmovq k\n, [rdi + {masks} + 8*\n]
    .endr
.Lfpu_loaded\@:
.endm

.macro fpu_dump_registers
    fxsave64 [rdi + {fx}]
    test dword ptr [rdi + {classes}], {avx512}
    jnz .Lfpu_dump_zmm\@
    test dword ptr [rdi + {classes}], {avx}
    jnz .Lfpu_dump_ymm\@
    .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movdqa [rdi + 64*\n], xmm\n
    .endr
    jmp .Lfpu_dumped\@
.Lfpu_dump_ymm\@:
    .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    vmovdqa [rdi + 64*\n], ymm\n
    .endr
    jmp .Lfpu_dumped\@
.Lfpu_dump_zmm\@:
    .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vmovdqa64 [rdi + 64*\n], zmm\n
    .endr
    test dword ptr [rdi + {classes}], {wide}
    jnz .Lfpu_dump_wide\@
    .irp n,0,1,2,3,4,5,6,7
    kmovw [rdi + {masks} + 8*\n], k\n
    .endr
    jmp .Lfpu_dumped\@
.Lfpu_dump_wide\@:
    .irp n,0,1,2,3,4,5,6,7
    kmovq [rdi + {masks} + 8*\n], k\n
    .endr
.Lfpu_dumped\@:
.endm
