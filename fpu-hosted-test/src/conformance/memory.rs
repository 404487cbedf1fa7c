//! Memory around and under an image, so that every byte that should not change can be looked at.

use alloc::{format, string::String, vec, vec::Vec};
use core::ptr::NonNull;

/// Bytes looked at on either side.
const MARGIN: usize = 512;
const CANARY: u8 = 0xC5;

/// An area aligned to what is asked for and not to twice that, with canaries around it.
pub(super) struct Memory {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Memory {
    /// `len` bytes of `poison`.
    pub(super) fn new(len: usize, align: usize, poison: u8) -> Self {
        let align = align.max(8);
        let mut bytes = vec![CANARY; len + 2 * MARGIN + 4 * align];
        let address = bytes.as_ptr() as usize + MARGIN;
        let odd = address.next_multiple_of(2 * align) + align;
        let start = odd - bytes.as_ptr() as usize;
        bytes[start..start + len].fill(poison);
        Self { bytes, start, len }
    }
    pub(super) fn base(&mut self) -> NonNull<u8> {
        let base = self.bytes.as_mut_ptr().wrapping_add(self.start);
        // A pointer into a vector that is not empty.
        NonNull::new(base).unwrap_or(NonNull::dangling())
    }
    pub(super) fn image(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
    /// Checks that every byte outside the area is as it was.
    pub(super) fn canaries(&self) -> Result<(), String> {
        let outside = |at: usize| at < self.start || at >= self.start + self.len;
        match (0..self.bytes.len()).find(|&at| outside(at) && self.bytes[at] != CANARY) {
            None => Ok(()),
            Some(at) if at < self.start => {
                Err(format!("a byte {} before the area was written", self.start - at))
            }
            Some(at) => Err(format!("byte {} of {} was written", at - self.start, self.len)),
        }
    }
}
