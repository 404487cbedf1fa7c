//! The registers by name, as `decode` writes them for `encode` and for programs.

use std::fmt;

use fpu_x86::Components;

use super::{
    reading::{Part, Reading},
    words::numbers,
};

/// A register, or a part of one that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// x87's control word.
    Fcw,
    /// x87's status word.
    Fsw,
    /// x87's tags, one bit each.
    Ftw,
    /// The opcode of the last instruction.
    Fop,
    /// The address of the last instruction.
    Fip,
    /// The address of the last operand.
    Fdp,
    /// ST(n).
    St(usize),
    /// SSE's control and status.
    Mxcsr,
    /// The lowest bytes of a vector register: 16, 32 or 64, and its number.
    Vector(usize, usize),
    /// A mask register.
    Mask(usize),
    /// The rights of protection keys.
    Pkru,
    /// A bound register: the lower bound, and behind it the complement of the upper one.
    Bound(usize),
    /// The configuration of bounds.
    BoundConfig,
    /// The status of bounds.
    BoundStatus,
    /// The tile configuration.
    TileConfig,
    /// A row of a tile.
    Tile(usize, usize),
    /// R16 to R31.
    General(usize),
}

use Register as R;

/// Rows of a tile, each of 64 bytes.
const ROWS: usize = 16;

impl Register {
    /// All, in the order in which they are written; of a vector register the widest name.
    pub fn all() -> impl Iterator<Item = Self> {
        let fixed = [R::Fcw, R::Fsw, R::Ftw, R::Fop, R::Fip, R::Fdp];
        let bounds = [R::BoundConfig, R::BoundStatus, R::TileConfig];
        let tiles = (0..8).flat_map(|tile| (0..ROWS).map(move |row| R::Tile(tile, row)));
        fixed
            .into_iter()
            .chain((0..8).map(R::St))
            .chain([R::Mxcsr])
            .chain((0..32).map(|n| R::Vector(64, n)))
            .chain((0..8).map(R::Mask))
            .chain([R::Pkru])
            .chain((0..4).map(R::Bound))
            .chain(bounds)
            .chain(tiles)
            .chain((16..32).map(R::General))
    }

    /// The register of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let fixed = [
            R::Fcw,
            R::Fsw,
            R::Ftw,
            R::Fop,
            R::Fip,
            R::Fdp,
            R::Mxcsr,
            R::Pkru,
            R::BoundConfig,
            R::BoundStatus,
            R::TileConfig,
        ];
        if let Some(one) = fixed.into_iter().find(|one| one.to_string() == name) {
            return Some(one);
        }
        let number = |prefix: &str, range: std::ops::Range<usize>| {
            let digits = name.strip_prefix(prefix)?;
            let number: usize = digits.parse().ok()?;
            (range.contains(&number) && number.to_string() == digits).then_some(number)
        };
        if let Some((tile, row)) = name.strip_prefix("tmm").and_then(|rest| rest.split_once('.')) {
            let (tile, row) = (tile.parse().ok()?, row.parse().ok()?);
            return Some(R::Tile(tile, row))
                .filter(|one| tile < 8 && row < ROWS && one.to_string() == name);
        }
        number("st", 0..8)
            .map(R::St)
            .or_else(|| number("xmm", 0..32).map(|n| R::Vector(16, n)))
            .or_else(|| number("ymm", 0..32).map(|n| R::Vector(32, n)))
            .or_else(|| number("zmm", 0..32).map(|n| R::Vector(64, n)))
            .or_else(|| number("k", 0..8).map(R::Mask))
            .or_else(|| number("bnd", 0..4).map(R::Bound))
            .or_else(|| number("r", 16..32).map(R::General))
    }

    /// The number of its bits.
    #[must_use]
    pub fn bits(self) -> usize {
        match self {
            R::Ftw => 8,
            R::Fop => 11,
            R::Fcw | R::Fsw => 16,
            R::Mxcsr | R::Pkru => 32,
            R::Fip | R::Fdp | R::Mask(_) | R::BoundConfig | R::BoundStatus | R::General(_) => 64,
            R::St(_) => 80,
            R::Bound(_) => 128,
            R::Vector(bytes, _) => 8 * bytes,
            R::TileConfig | R::Tile(..) => 512,
        }
    }

    /// Bytes of its value.
    #[must_use]
    pub fn size(self) -> usize {
        self.bits().div_ceil(8)
    }

    /// The components that hold it.
    #[must_use]
    pub fn components(self) -> Components {
        use Components as C;
        match self {
            R::Fcw | R::Fsw | R::Ftw | R::Fop | R::Fip | R::Fdp | R::St(_) => C::X87,
            R::Mxcsr => C::SSE,
            R::Vector(_, 16..) => C::HI16_ZMM,
            R::Vector(16, _) => C::SSE,
            R::Vector(32, _) => C::SSE | C::AVX,
            R::Vector(..) => C::SSE | C::AVX | C::ZMM_HI256,
            R::Mask(_) => C::OPMASK,
            R::Pkru => C::PKRU,
            R::Bound(_) => C::BNDREGS,
            R::BoundConfig | R::BoundStatus => C::BNDCSR,
            R::TileConfig => C::TILECFG,
            R::Tile(..) => C::TILEDATA,
            R::General(_) => C::APX,
        }
    }

    /// Where it begins in the one extended component that holds it.
    #[must_use]
    pub fn offset(self) -> usize {
        match self {
            R::Mask(n) => 8 * n,
            R::Bound(n) => 16 * n,
            R::BoundStatus => 8,
            R::Tile(tile, row) => 1024 * tile + 64 * row,
            R::General(n) => 8 * (n - 16),
            _ => 0,
        }
    }

    /// A value as it is written, the highest digit first: in groups of sixteen digits where it has more than 64 bits.
    #[must_use]
    pub fn hex(self, value: &[u8]) -> String {
        let digits: String = value.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        if self.bits() <= 64 {
            let short = digits.trim_start_matches('0');
            return format!("0x{}", if short.is_empty() { "0" } else { short });
        }
        let Some(groups) = digits.len().is_multiple_of(16).then_some(digits.len() / 16) else {
            return digits;
        };
        (0..groups).map(|n| &digits[16 * n..16 * (n + 1)]).collect::<Vec<_>>().join("_")
    }

    /// The value in an image; `None` if the component that holds it is absent. A vector register has 64 bytes, zero
    /// where a component is absent.
    fn value(self, reading: &Reading<'_>) -> Option<Vec<u8>> {
        let image = reading.image();
        if let R::Mxcsr = self {
            return reading.mxcsr().map(|word| word.to_le_bytes().into());
        }
        if let R::Vector(_, n) = self {
            return Some(reading.vector(n).into());
        }
        let component = self.components().number()?;
        if !reading.has(component) {
            return None;
        }
        Some(match self {
            R::Fcw => image.fcw().to_le_bytes().into(),
            R::Fsw => image.fsw().to_le_bytes().into(),
            R::Ftw => vec![image.tags()],
            R::Fop => (image.fop() & 0x7FF).to_le_bytes().into(),
            R::Fip => image.fip().to_le_bytes().into(),
            R::Fdp => image.fdp().to_le_bytes().into(),
            R::St(n) => image.st(n)?.into(),
            _ => match reading.part(component) {
                Part::Bytes(bytes) => bytes.get(self.offset()..)?.get(..self.size())?.into(),
                Part::Zero => vec![0; self.size()],
                Part::Unplaced => return None,
            },
        })
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            R::Fcw => f.write_str("fcw"),
            R::Fsw => f.write_str("fsw"),
            R::Ftw => f.write_str("ftw"),
            R::Fop => f.write_str("fop"),
            R::Fip => f.write_str("fip"),
            R::Fdp => f.write_str("fdp"),
            R::St(n) => write!(f, "st{n}"),
            R::Mxcsr => f.write_str("mxcsr"),
            R::Vector(16, n) => write!(f, "xmm{n}"),
            R::Vector(32, n) => write!(f, "ymm{n}"),
            R::Vector(_, n) => write!(f, "zmm{n}"),
            R::Mask(n) => write!(f, "k{n}"),
            R::Pkru => f.write_str("pkru"),
            R::Bound(n) => write!(f, "bnd{n}"),
            R::BoundConfig => f.write_str("bndcfgu"),
            R::BoundStatus => f.write_str("bndstatus"),
            R::TileConfig => f.write_str("tilecfg"),
            R::Tile(tile, row) => write!(f, "tmm{tile}.{row}"),
            R::General(n) => write!(f, "r{n}"),
        }
    }
}

/// The registers that an image holds, each with its value as it is written: of x87 the fixed words, MXCSR, PKRU, and
/// all that is not zero. A vector register has the name of the shortest part that has everything.
#[must_use]
pub fn of_image(reading: &Reading<'_>) -> Vec<(Register, String)> {
    let mut all = Vec::new();
    for register in Register::all() {
        let Some(value) = register.value(reading) else { continue };
        let fixed = register <= R::Fdp || matches!(register, R::Mxcsr | R::Pkru);
        let Some(last) = value.iter().rposition(|byte| *byte != 0).or(fixed.then_some(0)) else {
            continue;
        };
        let (register, value) = match register {
            R::Vector(_, n) => {
                let len = (last + 1).next_power_of_two().clamp(16, 64);
                (R::Vector(len, n), &value[..len])
            }
            _ => (register, &value[..]),
        };
        all.push((register, register.hex(value)));
    }
    all
}

/// Components that are present and have no registers with names, or no place.
pub fn nameless<'a>(reading: &'a Reading<'_>) -> impl Iterator<Item = (u32, Part<'a>)> {
    let named = Register::all().fold(Components::empty(), |all, one| all | one.components());
    numbers(reading.present).filter(|number| *number >= 2).filter_map(move |number| {
        let part = reading.part(number);
        (named.bits() >> number & 1 == 0 || part == Part::Unplaced).then_some((number, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_has_the_name_that_names_it() {
        let mut count = 0;
        for register in Register::all() {
            assert_eq!(Register::named(&register.to_string()), Some(register));
            count += 1;
        }
        assert_eq!(count, 6 + 8 + 1 + 32 + 8 + 1 + 4 + 3 + 128 + 16);
        for name in [
            "", "st8", "st", "st01", "xmm32", "zmm-1", "k8", "r15", "r32", "tmm8.0", "tmm0.16",
            "bnd4",
        ] {
            assert_eq!(Register::named(name), None, "{name}");
        }
    }

    #[test]
    fn values_are_numbers() {
        assert_eq!(R::Fcw.hex(&[0x7F, 3]), "0x37f");
        assert_eq!(R::Mask(0).hex(&[0; 8]), "0x0");
        assert_eq!(R::St(0).hex(&[1, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x3F]), "3fff8000000000000001");
        assert_eq!(R::Vector(16, 0).hex(&[7; 16]), "0707070707070707_0707070707070707");
    }
}
