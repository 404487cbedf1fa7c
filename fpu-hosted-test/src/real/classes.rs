//! The registers that this CPU and its operating system let a program use.

/// The register classes that a [`RegFile`](super::RegFile) holds and that the assembly moves.
///
/// ```
/// use fpu_hosted_test::real::Classes;
/// let all = Classes::detect();
/// assert!(all.contains(Classes::BASE));
/// assert!(!Classes::BASE.contains(Classes::AVX));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Classes(u32);

impl Classes {
    /// x87, MXCSR and XMM0-15: what FXSAVE knows; every x86-64 CPU has it.
    pub const BASE: Self = Self(1);
    /// The upper halves of YMM0-15.
    pub const AVX: Self = Self(2);
    /// The upper halves of ZMM0-15, ZMM16-31, and 16 bits of K0-7.
    pub const AVX512: Self = Self(4);
    /// All 64 bits of K0-7 (AVX-512BW).
    pub const WIDE_MASKS: Self = Self(8);

    /// The classes of both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// The classes that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// Tells whether `self` has all classes of `other`.
    #[must_use]
    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// The bits that the assembly tests.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }
    /// Vector registers that exist: 16, or 32 with AVX-512.
    #[must_use]
    #[inline(always)]
    pub const fn vectors(self) -> usize {
        if self.contains(Self::AVX512) {
            32
        } else {
            16
        }
    }
    /// 8-byte words of each vector register.
    #[must_use]
    #[inline(always)]
    pub const fn vector_words(self) -> usize {
        if self.contains(Self::AVX512) {
            8
        } else if self.contains(Self::AVX) {
            4
        } else {
            2
        }
    }
    /// The bits of a mask register that exist.
    #[must_use]
    #[inline(always)]
    pub const fn mask_bits(self) -> u64 {
        if self.contains(Self::WIDE_MASKS) {
            u64::MAX
        } else if self.contains(Self::AVX512) {
            0xFFFF
        } else {
            0
        }
    }
    /// For people: `x87, MXCSR, xmm0-15` and so on.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        if self.contains(Self::AVX512) {
            "x87 stack and control, MXCSR, zmm0-31, k0-7"
        } else if self.contains(Self::AVX) {
            "x87 stack and control, MXCSR, ymm0-15"
        } else {
            "x87 stack and control, MXCSR, xmm0-15"
        }
    }
}
