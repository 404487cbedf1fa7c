//! What tasks hold in their tiles: a configuration, patterns, and the comparison with what came of them.

use fpu_x86::{Components, Image};

use crate::{amx::TILES, fpu, task::Task, user::UserBlock, verdict};

/// 8-byte rows of a tile in a program's memory.
const ROWS: usize = 8;
/// Bytes of a tile and of a row in an image (palette 1).
const IN_IMAGE: usize = 1024;
const ROW_IN_IMAGE: usize = 64;

const NAMES: [&str; TILES] = ["tmm0", "tmm1", "tmm2", "tmm3", "tmm4", "tmm5", "tmm6", "tmm7"];

/// Rows of each tile of this round, and bytes of each row. Bochs 3.0 exchanges the two in a save, and moves 8 rows.
fn side(block: &UserBlock) -> usize {
    (block.tilecfg[2] & 0xFF) as usize
}

/// Chooses the next round's: whether the program uses tiles, and what it loads.
pub fn choose(block: &mut UserBlock, seed: u64, uses: bool) {
    block.tiles = u32::from(uses);
    let side = if seed & 1 == 0 { 8 } else { 4 };
    // Palette 1; 16-bit words of bytes in a row from byte 16 on, bytes of rows from byte 48 on.
    block.tilecfg = [1, 0, side * 0x0001_0001_0001_0001, side * 0x0001_0001_0001_0001, 0, 0, 0, 0];
    block.tilecfg[6] = side * 0x0101_0101_0101_0101;
    let words = block.tiles_want.iter_mut().zip(&mut block.tiles_seen).zip(1..);
    for ((want, seen), number) in words {
        *want = (seed << 8 | number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 << 56 | 1;
        *seen = !*want;
    }
}

/// The rows that are configured: names, places and values, and the bits that count.
fn rows(block: &UserBlock, mut each: impl FnMut(usize, usize, u64, u64)) {
    let side = side(block);
    let mask = u64::MAX >> (64 - 8 * side.clamp(1, 8));
    for tile in 0..TILES {
        for row in 0..side.min(ROWS) {
            each(tile, row, block.tiles_want[ROWS * tile + row] & mask, mask);
        }
    }
}

/// The program has looked at its tiles.
pub fn compare(task: &Task, block: &UserBlock) {
    rows(block, |tile, row, want, mask| {
        verdict::word(task, NAMES[tile], want, block.tiles_seen[ROWS * tile + row] & mask);
    });
}

/// What memory has of them is what the program expects.
pub fn compare_image(task: &Task, block: &UserBlock, image: &Image<'_>) {
    if block.tiles == 0 {
        return;
    }
    rows(block, |tile, row, want, mask| {
        let mut bytes = [0; 8];
        let at = IN_IMAGE * tile + ROW_IN_IMAGE * row;
        if let Err(why) = image.read(Components::TILEDATA, at, &mut bytes) {
            verdict::fail(format_args!("task {} has used tiles without room: {why}", task.slot));
        }
        verdict::word(task, "tmm in memory", want, u64::from_le_bytes(bytes) & mask);
    });
}

/// Where a debugger finds the rows, in bytes of the standard format.
pub fn in_standard_format(block: &UserBlock, mut each: impl FnMut(usize, usize, u64)) {
    let described = fpu::plan().cpuid_info().described(18);
    let Some(tiles) = described.filter(|_| block.tiles != 0) else { return };
    let bytes = side(block);
    rows(block, |tile, row, want, _| {
        each(tiles.offset as usize + IN_IMAGE * tile + ROW_IN_IMAGE * row, bytes, want);
    });
}
