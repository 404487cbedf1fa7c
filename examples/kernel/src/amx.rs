//! Tiles as this processor has them: what the test programs use, and what an emulator gets wrong about them. A kernel of
//! yours has no such file.

use core::{
    arch::{asm, global_asm},
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use fpu_x86::{Components, Plan};

/// Bits 17 and 18 of XCR0 and of XINUSE.
const TILECFG: u64 = Components::TILECFG.bits();
const TILEDATA: u64 = Components::TILEDATA.bits();
/// Bytes of a tile in an image, and of each of its rows.
const TILE: usize = 1024;
/// Tiles of palette 1.
pub const TILES: usize = 8;

/// XINUSE\[18\] says the opposite.
static INVERTED: AtomicBool = AtomicBool::new(false);

global_asm!(
    ".pushsection .text.kernel_regs,\"ax\",@progbits",
    ".p2align 4",
    ".globl kernel_regs_configure_tiles",
    "kernel_regs_configure_tiles:",
    "ldtilecfg [rdi]",
    "ret",
    ".globl kernel_regs_release_tiles",
    "kernel_regs_release_tiles:",
    "tilerelease",
    "ret",
    ".globl kernel_regs_store_tiles",
    "kernel_regs_store_tiles:",
    "mov esi, 64",
    ".irp n,0,1,2,3,4,5,6,7",
    "tilestored [rdi + rsi + 1024*\\n], tmm\\n",
    ".endr",
    "ret",
    ".popsection",
);

extern "C" {
    fn kernel_regs_configure_tiles(at: *const u8);
    fn kernel_regs_release_tiles();
    fn kernel_regs_store_tiles(to: *mut u8);
}

/// LDTILECFG.
///
/// # Safety
///
/// XCR0 enables AMX, the registers are those of the current task as if it had done it, and there are 64 bytes.
pub unsafe fn configure(at: *const u8) {
    // SAFETY: the caller's.
    unsafe { kernel_regs_configure_tiles(at) }
}

/// TILERELEASE.
///
/// # Safety
///
/// XCR0 enables AMX, and nobody needs the tiles.
pub unsafe fn release() {
    // SAFETY: the caller's.
    unsafe { kernel_regs_release_tiles() }
}

/// Finds out whether the processor calls initial tiles in use, as Bochs 3.0 does.
///
/// # Safety
///
/// The plan is in force, nobody needs what is in the registers, and the CPU's word is not open.
pub unsafe fn detect(plan: &Plan) {
    if plan.components().contains(Components::AMX) {
        // SAFETY: the caller's.
        unsafe { release() };
        INVERTED.store(xinuse() & TILEDATA != 0, Relaxed);
    }
}

/// XGETBV with ECX = 1, which processors with AMX have.
fn xinuse() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: asked only where a plan has AMX: CR4.OSXSAVE is set.
    unsafe {
        asm!("xgetbv", in("ecx") 1, out("eax") low, out("edx") high, options(nomem, nostack))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Tells whether TILEDATA is in use. XCR0 enables AMX.
pub fn in_use() -> bool {
    (xinuse() & TILEDATA != 0) != INVERTED.load(Relaxed)
}

/// Writes the tiles to an image that was just saved, where the processor saves them only if they are initial. The test
/// programs configure all tiles, or none.
///
/// # Safety
///
/// C9: an image of `plan`, whose TILEDATA has a place; C10: the registers are still those that were saved.
pub unsafe fn mend(plan: &Plan, area: NonNull<u8>) {
    let place = plan.place(Components::TILEDATA).filter(|_| INVERTED.load(Relaxed));
    let Some((offset, size)) = place.filter(|(_, size)| *size == TILES * TILE) else { return };
    let area = area.as_ptr();
    // SAFETY: the caller's: XSTATE_BV is at 512, and bit 18 is bit 2 of its third byte.
    let present = unsafe { &mut *area.add(512 + 2) };
    // Without a configuration the data are zeros.
    if in_use() && xinuse() & TILECFG != 0 {
        // SAFETY: the place of the component lies in the area; all tiles are configured.
        unsafe {
            area.add(offset).write_bytes(0, size);
            kernel_regs_store_tiles(area.add(offset));
        }
        *present |= 1 << 2;
    } else {
        *present &= !(1 << 2);
    }
}
