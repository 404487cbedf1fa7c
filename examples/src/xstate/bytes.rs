//! Reading numbers out of bytes that may end anywhere, and saying where something is wrong.

use std::fmt;

use fpu_x86::ForeignError;

/// FXSAVE's image ends here, and the header begins with XSTATE_BV.
pub const LEGACY: usize = 512;
/// Its second word.
pub const XCOMP_BV: usize = 520;
/// It ends here.
pub const EXTENDED: usize = 576;
/// Where software leaves what is enabled.
pub const XCR0: usize = 464;
/// XCOMP_BV's bit that says "compacted".
pub const COMPACTED: u64 = 1 << 63;

/// Why bytes cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The field.
    pub field: String,
    /// Where it is in the file.
    pub offset: u64,
    /// What it holds; of a length, how many bytes there are.
    pub value: u64,
    /// What is wrong with it.
    pub why: String,
}

impl Malformed {
    /// Of one field.
    pub fn new(
        field: impl Into<String>,
        offset: u64,
        value: impl Into<u64>,
        why: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), offset, value: value.into(), why: why.into() }
    }

    /// What the library says of an image that begins at `base` of the file.
    #[must_use]
    pub fn foreign(why: &ForeignError, base: u64) -> Self {
        let offset = base.saturating_add(why.offset() as u64);
        // The library counts from the beginning of the image.
        Self::new(why.field(), offset, why.value(), format!("in the image, {why}"))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {} is {:#x}: {}", self.field, self.offset, self.value, self.why)
    }
}

/// `N` bytes from `at`, if they are there.
#[must_use]
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.get(..N)?.try_into().ok()
}
/// Little-endian, as is everything here.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}
/// As above.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}
/// As above.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}
