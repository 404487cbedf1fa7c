//! All registers of one CPU, in memory.

use core::fmt;

use super::{Classes, Random, RegisterName};

/// Offsets that the assembly uses.
pub(super) const FX: usize = 2048;
pub(super) const MASKS: usize = FX + 512;
pub(super) const CLASSES: usize = MASKS + 64;

/// Words in the order in which [`RegFile::quiet_first_difference`] numbers them.
const VECTOR_WORDS: u32 = 256;
const MASK0: u32 = VECTOR_WORDS;
const X87_0: u32 = MASK0 + 8;
const FCW: u32 = X87_0 + 8;
const FSW: u32 = FCW + 1;
const FTW: u32 = FSW + 1;
const MXCSR: u32 = FTW + 1;
const NONE: u32 = u32::MAX;

/// Every register that a task can hold on this CPU, except PKRU.
///
/// ```
/// use fpu_hosted_test::real::{Classes, RegFile};
/// let one = RegFile::pattern(1, Classes::BASE);
/// let other = RegFile::pattern(2, Classes::BASE);
/// assert_eq!(one.first_difference(&one), None);
/// assert_eq!(one.first_difference(&other).unwrap().to_string(), "xmm0[0]");
/// ```
#[repr(C, align(64))]
#[derive(Clone)]
pub struct RegFile {
    vectors: [[u64; 8]; 32],
    /// An FXSAVE64 image, of which the x87 half and MXCSR are used.
    fx: [u64; 64],
    masks: [u64; 8],
    classes: Classes,
}

// The assembly knows these.
const _: () = assert!(core::mem::offset_of!(RegFile, fx) == FX);
const _: () = assert!(core::mem::offset_of!(RegFile, masks) == MASKS);
const _: () = assert!(core::mem::offset_of!(RegFile, classes) == CLASSES);

#[inline(always)]
fn get(word: &u64) -> u64 {
    // SAFETY: a reference to a live word. Volatile, so that the compiler neither joins nor widens the
    // accesses into vector instructions.
    unsafe { (word as *const u64).read_volatile() }
}
#[inline(always)]
fn set(word: &mut u64, value: u64) {
    // SAFETY: as in `get`.
    unsafe { (word as *mut u64).write_volatile(value) }
}
impl RegFile {
    /// The architectural initial state (SDM vol. 1, 13.6): zero, except for the two control words.
    #[must_use]
    pub fn initial(classes: Classes) -> Self {
        let mut file = Self { vectors: [[0; 8]; 32], fx: [0; 64], masks: [0; 8], classes };
        file.fx[0] = 0x037F;
        file.fx[3] = 0x1F80;
        file
    }

    /// Legal values, different in every register and for every seed; all exceptions are masked.
    #[must_use]
    pub fn pattern(seed: u64, classes: Classes) -> Self {
        let mut file = Self::initial(classes);
        file.quiet_set_pattern(seed);
        file
    }

    /// Makes this the [`pattern`](Self::pattern) of `seed`, by scalar stores only.
    #[inline]
    pub fn quiet_set_pattern(&mut self, seed: u64) {
        let classes = self.classes;
        // Far apart, so that neighbouring seeds have no words in common.
        let start = seed.wrapping_mul(0xD1B5_4A32_D192_ED03) ^ 0x5EED;
        let mut words = Random::new(Random::new(start).word());
        for vector in self.vectors.iter_mut().take(classes.vectors()) {
            for word in vector.iter_mut().take(classes.vector_words()) {
                set(word, words.word());
            }
        }
        for mask in &mut self.masks {
            set(mask, words.word() & classes.mask_bits());
        }
        for slot in 0..8 {
            // Normal numbers: the integer bit set, exponents around 1.0.
            let random = words.word();
            set(&mut self.fx[4 + 2 * slot], words.word() | 1 << 63);
            let exponent = (0x3F80 + (random & 0xFF)) | (random & 0x8000);
            set(&mut self.fx[5 + 2 * slot], exponent);
        }
        let random = words.word();
        // Exceptions masked, the reserved bit 6 set; rounding; precision 0, 2 or 3 (1 is reserved).
        let precision = [0, 2, 3, 3][(random & 3) as usize];
        let fcw = 0x007F | precision << 8 | (random >> 2 & 3) << 10;
        // The top of the stack and the condition codes, no exception flags.
        let fsw = (random >> 8) & 0x7F00;
        let ftw = (random >> 32 & 0xFF) | 1;
        set(&mut self.fx[0], fcw | fsw << 16 | ftw << 32);
        // Exceptions masked; rounding, flush to zero and the sticky flags.
        set(&mut self.fx[3], 0x1F80 | (random >> 40 & 0xE03F));
    }

    /// The first register in which `seen` differs from `self`, by scalar loads only, as a number to be
    /// given to [`register_of`](Self::register_of).
    #[must_use]
    #[inline]
    pub fn quiet_first_difference(&self, seen: &Self) -> u32 {
        let classes = self.classes;
        let mut at = 0;
        for (ours, theirs) in self.vectors.iter().zip(&seen.vectors).take(classes.vectors()) {
            for word in 0..classes.vector_words() {
                if get(&ours[word]) != get(&theirs[word]) {
                    return at + word as u32;
                }
            }
            at += 8;
        }
        for n in 0..8 {
            if (get(&self.masks[n]) ^ get(&seen.masks[n])) & classes.mask_bits() != 0 {
                return MASK0 + n as u32;
            }
        }
        let control = get(&self.fx[0]) ^ get(&seen.fx[0]);
        for n in 0..8 {
            let differ = (get(&self.fx[4 + 2 * n]) ^ get(&seen.fx[4 + 2 * n]))
                | ((get(&self.fx[5 + 2 * n]) ^ get(&seen.fx[5 + 2 * n])) & 0xFFFF);
            if differ != 0 {
                return X87_0 + n as u32;
            }
        }
        if control & 0xFFFF != 0 {
            return FCW;
        }
        if control >> 16 & 0xFFFF != 0 {
            return FSW;
        }
        if control >> 32 & 0xFF != 0 {
            return FTW;
        }
        if (get(&self.fx[3]) ^ get(&seen.fx[3])) & 0xFFFF_FFFF != 0 {
            return MXCSR;
        }
        NONE
    }

    /// The register of that number; `None` for "no difference".
    #[must_use]
    pub fn register_of(difference: u32) -> Option<RegisterName> {
        match difference {
            n @ 0..=255 => {
                Some(RegisterName::Vector { register: (n / 8) as u8, word: (n % 8) as u8 })
            }
            n @ MASK0..=263 => Some(RegisterName::Mask((n - MASK0) as u8)),
            n @ X87_0..=271 => Some(RegisterName::X87((n - X87_0) as u8)),
            FCW => Some(RegisterName::Fcw),
            FSW => Some(RegisterName::Fsw),
            FTW => Some(RegisterName::Ftw),
            MXCSR => Some(RegisterName::Mxcsr),
            _ => None,
        }
    }

    /// The first register in which `seen` differs from `self`, which is what was expected.
    #[must_use]
    pub fn first_difference(&self, seen: &Self) -> Option<RegisterName> {
        Self::register_of(self.quiet_first_difference(seen))
    }

    /// The classes that the file holds; registers outside are neither loaded, nor dumped, nor compared.
    #[must_use]
    pub fn classes(&self) -> Classes {
        self.classes
    }
    /// A vector register, 0 to 31.
    #[must_use]
    pub fn vector(&self, n: usize) -> &[u64; 8] {
        &self.vectors[n]
    }
    /// The register, to be changed.
    #[must_use]
    pub fn vector_mut(&mut self, n: usize) -> &mut [u64; 8] {
        &mut self.vectors[n]
    }
    /// A mask register.
    #[must_use]
    pub fn mask(&self, n: usize) -> u64 {
        self.masks[n]
    }
    /// The register, to be changed.
    #[must_use]
    pub fn mask_mut(&mut self, n: usize) -> &mut u64 {
        &mut self.masks[n]
    }
    /// ST(n): the significand, and the sign with the exponent.
    #[must_use]
    pub fn x87(&self, n: usize) -> (u64, u16) {
        (self.fx[4 + 2 * n], self.fx[5 + 2 * n] as u16)
    }
    /// Sets ST(n).
    pub fn set_x87(&mut self, n: usize, significand: u64, sign_and_exponent: u16) {
        self.fx[4 + 2 * n] = significand;
        self.fx[5 + 2 * n] = sign_and_exponent.into();
    }
    /// The x87 control word.
    #[must_use]
    pub fn fcw(&self) -> u16 {
        self.fx[0] as u16
    }
    /// Sets it.
    pub fn set_fcw(&mut self, fcw: u16) {
        self.fx[0] = self.fx[0] & !0xFFFF | u64::from(fcw);
    }
    /// The x87 status word.
    #[must_use]
    pub fn fsw(&self) -> u16 {
        (self.fx[0] >> 16) as u16
    }
    /// Sets it.
    pub fn set_fsw(&mut self, fsw: u16) {
        self.fx[0] = self.fx[0] & !0xFFFF_0000 | u64::from(fsw) << 16;
    }
    /// The x87 tag byte, in the abridged form.
    #[must_use]
    pub fn ftw(&self) -> u8 {
        (self.fx[0] >> 32) as u8
    }
    /// Sets it.
    pub fn set_ftw(&mut self, ftw: u8) {
        self.fx[0] = self.fx[0] & !(0xFF << 32) | u64::from(ftw) << 32;
    }
    /// Sets the addresses of the last x87 instruction and its operand, and its opcode. Restores load these fields. No
    /// comparison looks at them: some CPUs hold them only while an exception is pending.
    pub fn set_x87_pointers(&mut self, fip: u64, fdp: u64, fop: u16) {
        (self.fx[1], self.fx[2]) = (fip, fdp);
        self.fx[0] = self.fx[0] & !(0xFFFF << 48) | u64::from(fop) << 48;
    }
    /// The SIMD control and status word.
    #[must_use]
    pub fn mxcsr(&self) -> u32 {
        self.fx[3] as u32
    }
    /// Sets it.
    pub fn set_mxcsr(&mut self, mxcsr: u32) {
        self.fx[3] = self.fx[3] & !0xFFFF_FFFF | u64::from(mxcsr);
    }
}

impl fmt::Debug for RegFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RegFile {{ {}, fcw: {:#x}, mxcsr: {:#x}, xmm0: {:#x?} .. }}",
            self.classes.describe(),
            self.fcw(),
            self.mxcsr(),
            &self.vectors[0][..2]
        )
    }
}

impl RegisterName {
    /// The value that a file has for it: of ST(n), the significand.
    #[must_use]
    pub fn value(self, file: &RegFile) -> u64 {
        match self {
            Self::Vector { register, word } => file.vector(register.into())[usize::from(word)],
            Self::Mask(n) => file.mask(n.into()),
            Self::X87(n) => file.x87(n.into()).0,
            Self::Fcw => file.fcw().into(),
            Self::Fsw => file.fsw().into(),
            Self::Ftw => file.ftw().into(),
            Self::Mxcsr => file.mxcsr().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const ALL: Classes =
        Classes::BASE.with(Classes::AVX).with(Classes::AVX512).with(Classes::WIDE_MASKS);

    #[test]
    fn every_register_of_a_pattern_is_distinct_and_legal() {
        for seed in 0..500 {
            let file = RegFile::pattern(seed, ALL);
            let mut words: Vec<u64> = file.vectors.iter().flatten().copied().collect();
            words.extend(file.masks);
            words.extend((0..8).map(|n| file.x87(n).0));
            assert_eq!(words.iter().collect::<HashSet<_>>().len(), 256 + 8 + 8);
            assert!((0..8).all(|n| file.x87(n).0 >> 63 == 1));
            assert!((0..8).all(|n| (0x3F80..0x4080).contains(&(file.x87(n).1 & 0x7FFF))));
            assert_eq!(file.fcw() & 0x7F, 0x7F);
            assert_ne!(file.fcw() >> 8 & 3, 1, "reserved precision");
            assert_eq!(file.fsw() & 0x80FF, 0, "no exception is pending");
            assert_eq!(file.mxcsr() & 0x1F80, 0x1F80);
            assert_eq!(
                file.mxcsr() & 0xFFFF_0040,
                0,
                "reserved bits, and DAZ, which old CPUs lack"
            );
        }
        let seeds = 0..500;
        let controls = |f: &dyn Fn(RegFile) -> u32| {
            seeds.clone().map(|s| f(RegFile::pattern(s, ALL))).collect::<HashSet<_>>().len()
        };
        assert!(controls(&|f| f.mxcsr()) > 200);
        assert_eq!(controls(&|f| f.fcw().into()), 12);
    }

    #[test]
    fn a_change_of_any_register_is_named() {
        let expected = RegFile::pattern(3, ALL);
        let named = |change: &dyn Fn(&mut RegFile)| {
            let mut seen = expected.clone();
            change(&mut seen);
            expected.first_difference(&seen).map(|r| r.to_string())
        };
        assert_eq!(named(&|_| ()), None);
        for n in 0..32 {
            for word in 0..8 {
                let got = named(&|f| f.vectors[n][word] ^= 1 << 63).unwrap();
                assert_eq!(&got[1..], format!("mm{n}[{word}]"));
            }
        }
        for n in 0..8 {
            assert_eq!(named(&|f| f.masks[n] ^= 1), Some(format!("k{n}")));
            assert_eq!(named(&|f| f.fx[4 + 2 * n] ^= 1), Some(format!("st{n}")));
            assert_eq!(named(&|f| f.fx[5 + 2 * n] ^= 0x8000), Some(format!("st{n}")));
            assert_eq!(named(&|f| f.fx[5 + 2 * n] ^= 0x1_0000), None, "beyond 80 bits");
        }
        assert_eq!(named(&|f| f.set_fcw(f.fcw() ^ 0x400)).unwrap(), "fcw");
        assert_eq!(named(&|f| f.fx[0] ^= 1 << 27).unwrap(), "fsw");
        assert_eq!(named(&|f| f.fx[0] ^= 1 << 39).unwrap(), "ftw");
        assert_eq!(named(&|f| f.set_mxcsr(f.mxcsr() ^ 1)).unwrap(), "mxcsr");
        assert_eq!(
            named(&|f| f.fx[1] ^= 1),
            None,
            "the last instruction's address is not compared"
        );
    }

    #[test]
    fn classes_that_are_not_there_are_not_compared() {
        let expected = RegFile::pattern(3, Classes::BASE);
        let mut seen = expected.clone();
        seen.vectors[0][2] ^= 1;
        seen.vectors[16][0] ^= 1;
        seen.masks[1] ^= 1;
        assert_eq!(expected.first_difference(&seen), None);
        seen.vectors[15][1] ^= 1;
        assert_eq!(expected.first_difference(&seen).unwrap().to_string(), "xmm15[1]");
    }
}
