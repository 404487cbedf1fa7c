//! What ring 3 runs, and the block of memory that each of its tasks has.

use core::{
    arch::global_asm,
    mem::{offset_of, size_of},
    ops::Range,
    ptr::addr_of,
};

use crate::regs::{Classes, RegFile, CLASSES, FX, MASKS};

/// The first system call of a task: [`UserBlock::seen`] is what it was born with.
pub const SYS_BORN: u32 = 1;
/// The system call after each round: [`UserBlock::seen`] is what became of [`UserBlock::want`].
pub const SYS_CHECK: u32 = 2;
/// No system call: in [`UserBlock::action`] it tells the second program to look at its registers.
pub const LOOK: u32 = 3;

/// No system call: in [`UserBlock::action`] it tells the first program to raise an unmasked x87 error, which it does
/// not survive.
pub const RAISE: u32 = 4;

/// The system call at the end of the signal handler; RDI is the address of the frame.
pub const SYS_SIGRETURN: u32 = 5;

/// What [`UserBlock::handler_does`] tells the signal handler, one bit each. What it changes in the frame it changes in what
/// the program expects, if the program's registers are in place.
pub mod does {
    /// Changes MXCSR, XMM5 and, where that is in the frame, the upper half of YMM5.
    pub const EDIT: u32 = 1;
    /// Takes PKRU out of the frame, so that it becomes 0.
    pub const CLEAR_PKRU: u32 = 2;
    /// Sets a reserved bit of MXCSR in the frame.
    pub const RESERVED: u32 = 4;
    /// Returns with a frame that is not in the task's memory.
    pub const ASTRAY: u32 = 8;
    /// Says in the frame's header that it has a component that there is not.
    pub const UNKNOWN: u32 = 16;
}
/// What the edit turns: MXCSR's rounding, and a word of each register.
pub const TURNS_MXCSR: u32 = 0x6000;
const TURNS: u32 = 0x5A5A_5A5A;

/// Bytes of a [`UserBlock`]: seven pages.
pub const BLOCK_BYTES: usize = 7 * 4096;
const STACK_BYTES: usize = BLOCK_BYTES - 4 * size_of::<RegFile>() - 48 - 8 * (8 + 2 * 64);

/// A task's memory, readable and writable in ring 3, at the address that RBX has at its start. RSP is
/// its end. The kernel makes both files ([`RegFile::initial`] and so on) before the task's first
/// instruction: they say which registers to move. It changes the rest while it serves the task's
/// [`SYS_BORN`] and [`SYS_CHECK`].
#[repr(C, align(64))]
pub struct UserBlock {
    /// Loaded at the start of a round.
    pub want: RegFile,
    /// Dumped at its end.
    pub seen: RegFile,
    /// Dumped at the start of a signal handler.
    pub handler_seen: RegFile,
    /// Then loaded by it.
    pub handler_loads: RegFile,
    /// PKRU of the round, which must leave protection key 0 usable: the block has it.
    pub pkru_want: u32,
    /// PKRU at its end.
    pub pkru_seen: u32,
    /// Not 0 if CR4.PKE is set: PKRU is written and read.
    pub has_pkru: u32,
    /// Between: the number of a system call, [`RAISE`], or 0 to spin.
    pub action: u32,
    /// How often to go round when spinning.
    pub spin: u64,
    /// PKRU at the start of a signal handler.
    pub handler_pkru: u32,
    /// See [`does`].
    pub handler_does: u32,
    /// Edits of frames in this round.
    pub edits: u32,
    /// Where frames have the upper half of YMM0; 0 for nowhere.
    pub avx_at: u32,
    /// What a handler puts into PKRU. Key 0 stays usable.
    pub handler_puts: u32,
    /// Not 0 if the program uses tiles in this round.
    pub tiles: u32,
    /// Loaded by LDTILECFG.
    pub tilecfg: [u64; 8],
    /// Loaded into the tiles, up to 8 rows of up to 8 bytes each.
    pub tiles_want: [u64; 64],
    /// Stored from the tiles at the end of the round.
    pub tiles_seen: [u64; 64],
    /// A little of it is the program's: some return addresses. Signal frames take the most.
    pub stack: [u8; STACK_BYTES],
}

const _: () = assert!(size_of::<UserBlock>() == BLOCK_BYTES);
// RSP is the block's end.
const _: () = assert!(offset_of!(UserBlock, stack) + STACK_BYTES == BLOCK_BYTES);

global_asm!(
    include_str!("../../../fpu-hosted-test/src/real/registers.s"),
    include_str!("user.s"),
    ".purgem fpu_load_registers",
    ".purgem fpu_dump_registers",
    fx = const FX,
    masks = const MASKS,
    classes = const CLASSES,
    avx = const Classes::AVX.bits(),
    avx512 = const Classes::AVX512.bits(),
    wide = const Classes::WIDE_MASKS.bits(),
    born = const SYS_BORN,
    check = const SYS_CHECK,
    look = const LOOK,
    raise = const RAISE,
    want = const offset_of!(UserBlock, want),
    seen = const offset_of!(UserBlock, seen),
    pkru_want = const offset_of!(UserBlock, pkru_want),
    pkru_seen = const offset_of!(UserBlock, pkru_seen),
    has_pkru = const offset_of!(UserBlock, has_pkru),
    action = const offset_of!(UserBlock, action),
    sigreturn = const SYS_SIGRETURN,
    handler_seen = const offset_of!(UserBlock, handler_seen),
    handler_loads = const offset_of!(UserBlock, handler_loads),
    handler_pkru = const offset_of!(UserBlock, handler_pkru),
    handler_puts = const offset_of!(UserBlock, handler_puts),
    handler_does = const offset_of!(UserBlock, handler_does),
    edits = const offset_of!(UserBlock, edits),
    avx_at = const offset_of!(UserBlock, avx_at),
    edit = const does::EDIT,
    clear_pkru = const does::CLEAR_PKRU,
    reserved = const does::RESERVED,
    astray = const does::ASTRAY,
    unknown = const does::UNKNOWN,
    turns = const TURNS,
    turns_mxcsr = const TURNS_MXCSR,
    spin = const offset_of!(UserBlock, spin),
    tiles = const offset_of!(UserBlock, tiles),
    tilecfg = const offset_of!(UserBlock, tilecfg),
    tiles_want = const offset_of!(UserBlock, tiles_want),
    tiles_seen = const offset_of!(UserBlock, tiles_seen),
);

extern "C" {
    static user_start: u8;
    static user_end: u8;
    static user_quiet: u8;
    static user_handler: u8;
    static user_holds: u8;
    static user_looks: u8;
}

/// Where in the [`blob`] the program of a task begins that leaves the FPU alone: it makes [`SYS_CHECK`]
/// before each round, and dumps its registers only for [`LOOK`].
pub fn quiet_entry() -> usize {
    addr_of!(user_quiet) as usize - addr_of!(user_start) as usize
}

/// Where in the [`blob`] the signal handler begins. It needs the block in RBX, the frame in RDI, and in RSI where the
/// program was interrupted.
pub fn handler_entry() -> usize {
    addr_of!(user_handler) as usize - addr_of!(user_start) as usize
}

/// Where in the [`blob`] the registers are what [`UserBlock::want`] says.
pub fn holds() -> Range<usize> {
    let start = addr_of!(user_start) as usize;
    addr_of!(user_holds) as usize - start..addr_of!(user_looks) as usize - start
}

/// The program, to be copied to where ring 3 executes it: anywhere, its first byte is its entry. It is
/// less than a page, and lies in `.rodata.user`, since the kernel never executes it.
pub fn blob() -> &'static [u8] {
    // SAFETY: two labels of one section, the second after the first; nothing writes between them.
    unsafe {
        let start = addr_of!(user_start);
        let bytes = addr_of!(user_end) as usize - start as usize;
        core::slice::from_raw_parts(start, bytes)
    }
}
