//! Reading numbers out of bytes that may end anywhere, and saying where something is wrong.

use std::fmt;

/// Why bytes cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The field.
    pub field: String,
    /// Where it is in the file.
    pub offset: usize,
    /// What is wrong with it.
    pub why: String,
}

impl Malformed {
    /// Of one field.
    pub fn new(field: impl Into<String>, offset: usize, why: impl Into<String>) -> Self {
        Self { field: field.into(), offset, why: why.into() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}: {}", self.field, self.offset, self.why)
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
