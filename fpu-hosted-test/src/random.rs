//! Pseudo-random numbers, the same in every run.

/// The SplitMix64 generator.
///
/// ```
/// use fpu_hosted_test::Random;
/// assert_eq!(Random::new(7).below(10), Random::new(7).below(10));
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    #[must_use]
    #[inline(always)]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }
    /// The next 64 bits; the first words of two seeds differ. The function is always inlined, because code uses it
    /// while registers hold tasks.
    #[inline(always)]
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.word() % limit as u64) as usize
    }
    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            eight.copy_from_slice(&word[..eight.len()]);
        }
    }
}
