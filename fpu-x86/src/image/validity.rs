//! Which bytes of a component a restore may refuse.
//!
//! Vector, mask, bound and general registers take any bits. Control registers do not. The SDM names
//! what their own instructions refuse (vol. 2, LDTILECFG; vol. 1, 17.3 for BNDCFGU) more clearly than
//! what XRSTOR does with such bytes, so this crate writes and accepts only what those instructions
//! accept. What XRSTOR does with other values does not matter then.

use crate::{components::Components, fields::u64_at};

/// Components of which any bytes are legal.
pub(crate) const PLAIN: Components =
    Components::AVX.union(Components::AVX512).union(Components::BNDREGS).union(Components::APX);
/// Components of which some bytes are legal; [`first_illegal`] finds the others.
pub(crate) const CHECKED: Components = Components::BNDCSR.union(Components::TILECFG);
/// Bytes of the components in [`CHECKED`], of which each has this size.
pub(crate) const CHECKED_LEN: usize = 64;

/// The offset, within the component, of the first field that is not legal.
pub(crate) fn first_illegal(component: Components, bytes: &[u8]) -> Option<usize> {
    match component {
        Components::BNDCSR => illegal_bounds(bytes),
        Components::TILECFG => illegal_tiles(bytes),
        _ => None,
    }
}

fn first_not_zero(bytes: &[u8], from: usize, to: usize) -> Option<usize> {
    let at = bytes.get(from..to)?.iter().position(|byte| *byte != 0)?;
    Some(from + at)
}

/// With four-level paging; with five, fewer are refused, and programs do not get those by themselves.
fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// BNDCFGU: enable, preserve, ten reserved bits, the address of the directory's page. BNDSTATUS: a code
/// from 0 to 2 and an address. The rest is reserved.
fn illegal_bounds(bytes: &[u8]) -> Option<usize> {
    let (config, status) = (u64_at(bytes, 0), u64_at(bytes, 8));
    if config & 0xFFC != 0 || !canonical(config) {
        return Some(0);
    }
    if status & 3 == 3 || !canonical(status) {
        return Some(8);
    }
    first_not_zero(bytes, 16, bytes.len())
}

const TILES: usize = 8;
const MOST_ROWS: u8 = 16;
const MOST_COLUMN_BYTES: u8 = 64;
const COLUMN_BYTES: usize = 16;
const ROWS: usize = 48;

/// Palette 0 is the initial configuration, all zero. Palette 1 has eight tiles of up to 16 rows of 64
/// bytes, each with both a height and a width or with neither.
fn illegal_tiles(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        0 => return first_not_zero(bytes, 1, bytes.len()),
        1 => {}
        _ => return Some(0),
    }
    if *bytes.get(1)? >= MOST_ROWS {
        return Some(1);
    }
    if let Some(at) = first_not_zero(bytes, 2, COLUMN_BYTES) {
        return Some(at);
    }
    for tile in 0..TILES {
        let wide_at = COLUMN_BYTES + 2 * tile;
        let [low, high, rows] =
            [*bytes.get(wide_at)?, *bytes.get(wide_at + 1)?, *bytes.get(ROWS + tile)?];
        if high != 0 || low > MOST_COLUMN_BYTES || (low == 0) != (rows == 0) {
            return Some(wide_at);
        }
        if rows > MOST_ROWS {
            return Some(ROWS + tile);
        }
    }
    first_not_zero(bytes, COLUMN_BYTES + 2 * TILES, ROWS)
        .or_else(|| first_not_zero(bytes, ROWS + TILES, bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(base: [u8; 64], changes: &[(usize, u8)]) -> [u8; 64] {
        let mut bytes = base;
        for (at, value) in changes {
            bytes[*at] = *value;
        }
        bytes
    }

    #[test]
    fn tile_configurations_are_those_that_the_instruction_takes() {
        let one = with([0; 64], &[(0, 1), (16, 64), (48, 16), (30, 4), (55, 1)]);
        for good in [[0; 64], with([0; 64], &[(0, 1)]), one, with(one, &[(1, 15)])] {
            assert_eq!(first_illegal(Components::TILECFG, &good), None);
        }
        for (changes, at) in [
            (&[(0, 0)][..], 16),
            (&[(0, 2)], 0),
            (&[(1, 16)], 1),
            (&[(2, 1)], 2),
            (&[(15, 0x80)], 15),
            (&[(16, 65)], 16),
            (&[(17, 1)], 16),
            (&[(48, 17)], 48),
            (&[(48, 0)], 16),
            (&[(20, 4)], 20),
            (&[(50, 4)], 20),
            (&[(32, 1)], 32),
            (&[(47, 1)], 47),
            (&[(56, 1)], 56),
            (&[(63, 1)], 63),
        ] {
            let bytes = with(one, changes);
            assert_eq!(first_illegal(Components::TILECFG, &bytes), Some(at), "{changes:?}");
        }
    }

    #[test]
    fn bound_configurations_are_canonical_and_without_reserved_bits() {
        let status = |config: u64, status: u64| {
            let mut bytes = [0; 64];
            bytes[..8].copy_from_slice(&config.to_le_bytes());
            bytes[8..16].copy_from_slice(&status.to_le_bytes());
            bytes
        };
        for (bytes, illegal) in [
            (status(0, 0), None),
            (status(0x7FFF_FFFF_F003, 0x7FFF_FFFF_FFFA), None),
            (status(0xFFFF_8000_0000_0001, 1), None),
            (status(1 << 2, 0), Some(0)),
            (status(1 << 11, 0), Some(0)),
            (status(0x0000_8000_0000_0001, 0), Some(0)),
            (status(0x7FFF_0000_0000_0001, 0), Some(0)),
            (status(1, 3), Some(8)),
            (status(1, 1 << 62), Some(8)),
            (with(status(1, 1), &[(16, 1)]), Some(16)),
            (with(status(1, 1), &[(63, 1)]), Some(63)),
        ] {
            assert_eq!(first_illegal(Components::BNDCSR, &bytes), illegal);
        }
    }

    #[test]
    fn data_registers_take_anything() {
        for component in PLAIN.iter() {
            assert_eq!(first_illegal(component, &[0xFF; 1024]), None);
        }
    }
}
