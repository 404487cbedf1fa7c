//! The x87 unit by itself, and its two layouts in memory: FXSAVE's and FSAVE's.
//!
//! FXSAVE has one tag bit for each physical register, "not empty", and its registers are in stack order.
//! FSAVE has two tag bits for each physical register, which say what kind of number is in it. Code
//! that has only FXSAVE's image finds the kind from the number itself (SDM vol. 1, 8.1.7 and
//! 10.5.1.1).

use crate::fields::{array, put, u16_at, u32_at, FCW, FDP, FIP, FOP, FSW, ST, TAG};

/// Bytes of FSTENV's environment in its 32-bit protected-mode layout.
const ENVIRONMENT: usize = 28;
/// Bytes of FSAVE's image: the environment, and eight registers of ten bytes.
const FSAVE: usize = ENVIRONMENT + 8 * 10;

/// The x87 registers.
///
/// ```
/// use fpu_x86::X87;
/// let mut x87 = X87::INITIAL;
/// assert_eq!((x87.fcw, x87.tag_word()), (0x37F, 0xFFFF));
/// // FLD1: the top moves down to register 7.
/// x87.fsw = 7 << 11;
/// x87.tags = 1 << 7;
/// x87.st[0] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x3F];
/// assert_eq!(x87.tag_word(), 0x3FFF, "valid in register 7, the rest empty");
/// let image = x87.to_fsave(fpu_x86::Selectors::default());
/// assert_eq!(X87::from_fsave(&image).0, x87);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87 {
    /// The control word.
    pub fcw: u16,
    /// The status word; bits 11 to 13 are the top of the stack.
    pub fsw: u16,
    /// The abridged tag word: one bit for each physical register, set if it is not empty.
    pub tags: u8,
    /// The opcode of the last instruction, 11 bits.
    pub fop: u16,
    /// The address of the last instruction.
    pub fip: u64,
    /// The address of its memory operand.
    pub fdp: u64,
    /// ST(0) to ST(7).
    pub st: [[u8; 10]; 8],
}

/// The segments of the last instruction and its operand. 64-bit FXSAVE does not hold them, and current
/// CPUs store zeros (CPUID.7.0:EBX\[13\]).
///
/// ```
/// assert_eq!(fpu_x86::Selectors::default().instruction, 0);
/// ```
#[doc(alias = "FCS")]
#[doc(alias = "FDS")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// FCS.
    pub instruction: u16,
    /// FDS.
    pub operand: u16,
}

const VALID: u16 = 0;
const ZERO: u16 = 1;
const SPECIAL: u16 = 2;
const EMPTY: u16 = 3;

/// The class that FSAVE's tag word gives a register that is not empty.
fn class(register: &[u8; 10]) -> u16 {
    let significand = array(register, 0).map_or(0, u64::from_le_bytes);
    let exponent = u16_at(register, 8) & 0x7FFF;
    match (exponent, significand) {
        (0, 0) => ZERO,
        (0 | 0x7FFF, _) => SPECIAL,
        // Without its integer bit it is no number that the CPU makes.
        (_, significand) if significand >> 63 == 0 => SPECIAL,
        _ => VALID,
    }
}

impl X87 {
    /// The state after FNINIT, with zeros in the registers.
    pub const INITIAL: Self =
        Self { fcw: 0x37F, fsw: 0, tags: 0, fop: 0, fip: 0, fdp: 0, st: [[0; 10]; 8] };

    /// The physical register that is ST(0).
    #[must_use]
    pub const fn top(&self) -> usize {
        (self.fsw >> 11 & 7) as usize
    }

    /// The full tag word: two bits for each physical register. 0 is valid, 1 zero, 2 special, 3 empty.
    #[doc(alias = "twd_fxsr_to_i387")]
    #[must_use]
    pub fn tag_word(&self) -> u16 {
        let mut word = 0;
        for (index, register) in self.st.iter().enumerate() {
            let physical = (self.top() + index) & 7;
            let empty = self.tags >> physical & 1 == 0;
            let tag = if empty { EMPTY } else { class(register) };
            word |= tag << (2 * physical);
        }
        word
    }

    /// The abridged form of a full tag word.
    ///
    /// ```
    /// assert_eq!(fpu_x86::X87::abridge(0xFFFF), 0);
    /// assert_eq!(fpu_x86::X87::abridge(0b1011_1111_1111_0100), 0b1000_0011);
    /// ```
    #[doc(alias = "twd_i387_to_fxsr")]
    #[must_use]
    pub fn abridge(tag_word: u16) -> u8 {
        (0..8).filter(|n| tag_word >> (2 * n) & 3 != EMPTY).fold(0, |tags, n| tags | 1 << n)
    }

    /// FSTENV's image: 28 bytes, with the lower 32 bits of the two addresses.
    #[doc(alias = "FNSTENV")]
    #[must_use]
    pub fn to_environment(&self, selectors: Selectors) -> [u8; ENVIRONMENT] {
        let high = |word: u16| 0xFFFF_0000 | u32::from(word);
        let opcode = u32::from(self.fop & 0x7FF) << 16;
        let words = [
            high(self.fcw),
            high(self.fsw),
            high(self.tag_word()),
            self.fip as u32,
            opcode | u32::from(selectors.instruction),
            self.fdp as u32,
            high(selectors.operand),
        ];
        let mut bytes = [0; ENVIRONMENT];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// FSAVE's image in its 32-bit protected-mode layout: the environment and the registers.
    #[doc(alias = "FNSAVE")]
    #[doc(alias = "convert_from_fxsr")]
    #[must_use]
    pub fn to_fsave(&self, selectors: Selectors) -> [u8; FSAVE] {
        let mut bytes = [0; FSAVE];
        let (environment, registers) = bytes.split_at_mut(ENVIRONMENT);
        environment.copy_from_slice(&self.to_environment(selectors));
        for (place, register) in registers.chunks_exact_mut(10).zip(&self.st) {
            place.copy_from_slice(register);
        }
        bytes
    }

    /// Reads FSAVE's image. Like FRSTOR, the call takes from the tag word only whether a register is empty, not the
    /// kind of number in it.
    #[doc(alias = "FRSTOR")]
    #[doc(alias = "convert_to_fxsr")]
    #[must_use]
    pub fn from_fsave(bytes: &[u8; FSAVE]) -> (Self, Selectors) {
        let mut x87 = Self {
            fcw: u16_at(bytes, 0),
            fsw: u16_at(bytes, 4),
            tags: Self::abridge(u16_at(bytes, 8)),
            fop: u16_at(bytes, 18) & 0x7FF,
            fip: u32_at(bytes, 12).into(),
            fdp: u32_at(bytes, 20).into(),
            ..Self::INITIAL
        };
        for (index, register) in x87.st.iter_mut().enumerate() {
            *register = array(bytes, ENVIRONMENT + 10 * index).unwrap_or_default();
        }
        (x87, Selectors { instruction: u16_at(bytes, 16), operand: u16_at(bytes, 24) })
    }

    /// Reads the x87 part of FXSAVE64's image.
    #[must_use]
    pub fn from_fxsave(bytes: &[u8; 512]) -> Self {
        let mut x87 = Self {
            fcw: u16_at(bytes, FCW),
            fsw: u16_at(bytes, FSW),
            tags: u16_at(bytes, TAG) as u8,
            fop: u16_at(bytes, FOP) & 0x7FF,
            fip: array(bytes, FIP).map_or(0, u64::from_le_bytes),
            fdp: array(bytes, FDP).map_or(0, u64::from_le_bytes),
            ..Self::INITIAL
        };
        for (index, register) in x87.st.iter_mut().enumerate() {
            *register = array(bytes, ST + 16 * index).unwrap_or_default();
        }
        x87
    }

    /// Writes the x87 part of FXSAVE64's image; the rest is unchanged.
    pub fn to_fxsave(&self, bytes: &mut [u8; 512]) {
        let mut fixed = [0; 24];
        for (at, value) in [
            (FCW, &self.fcw.to_le_bytes()[..]),
            (FSW, &self.fsw.to_le_bytes()),
            (TAG, &[self.tags]),
            (FOP, &(self.fop & 0x7FF).to_le_bytes()),
            (FIP, &self.fip.to_le_bytes()),
            (FDP, &self.fdp.to_le_bytes()),
        ] {
            put(&mut fixed, at, value).unwrap_or_default();
        }
        put(bytes, FCW, &fixed).unwrap_or_default();
        for (index, register) in self.st.iter().enumerate() {
            let mut slot = [0; 16];
            put(&mut slot, 0, register).unwrap_or_default();
            put(bytes, ST + 16 * index, &slot).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample::Random;

    const KINDS: [(u16, [u8; 10]); 7] = [
        (ZERO, [0; 10]),
        (ZERO, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]),
        // One; infinity; a denormal; a pseudo-denormal; an unnormal.
        (VALID, [0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x3F]),
        (SPECIAL, [0, 0, 0, 0, 0, 0, 0, 0x80, 0xFF, 0x7F]),
        (SPECIAL, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (SPECIAL, [0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0]),
        (SPECIAL, [0, 0, 0, 0, 0, 0, 0, 0x40, 0xFF, 0x3F]),
    ];

    /// All abridged tag words, all tops, and in every register every kind of number.
    #[test]
    fn tags_of_every_stack() {
        for tags in 0..=255 {
            for top in 0..8 {
                for shift in 0..KINDS.len() {
                    let kind = |index: usize| KINDS[(index + shift) % KINDS.len()];
                    let st = core::array::from_fn(|index| kind(index).1);
                    let x87 = X87 { tags, fsw: top << 11, st, ..X87::INITIAL };
                    let word = x87.tag_word();
                    for physical in 0..8 {
                        let index = (physical + 8 - usize::from(top)) % 8;
                        let empty = tags & 1 << physical == 0;
                        let expect = if empty { EMPTY } else { kind(index).0 };
                        assert_eq!(
                            word >> (2 * physical) & 3,
                            expect,
                            "{tags:#x} {top} {physical}"
                        );
                    }
                    assert_eq!(X87::abridge(word), tags);
                }
            }
        }
    }

    #[test]
    fn full_tag_words_abridge_to_what_is_not_empty() {
        for word in 0..=u16::MAX {
            let tags = X87::abridge(word);
            for n in 0..8 {
                assert_eq!(tags & 1 << n == 0, word >> (2 * n) & 3 == EMPTY);
            }
        }
    }

    #[test]
    fn fsave_and_fxsave_hold_the_same() {
        let mut random = Random(4);
        for _ in 0..10_000 {
            let mut bytes = [0; 512];
            random.fill(&mut bytes);
            let x87 = X87::from_fxsave(&bytes);
            let mut again = [0; 512];
            x87.to_fxsave(&mut again);
            assert_eq!(X87::from_fxsave(&again), x87);
            let word = random.word();
            let selectors = Selectors { instruction: word as u16, operand: (word >> 16) as u16 };
            let short = x87.to_fsave(selectors);
            let (back, segments) = X87::from_fsave(&short);
            let narrow = |address: u64| address & 0xFFFF_FFFF;
            let expect = X87 { fip: narrow(x87.fip), fdp: narrow(x87.fdp), ..x87 };
            assert_eq!((back, segments), (expect, selectors));
            assert_eq!(short[..28], x87.to_environment(selectors));
            assert_eq!(back.to_fsave(segments), short);
        }
    }
}
