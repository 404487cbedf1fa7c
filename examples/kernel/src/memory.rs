//! Memory that is given away by its address.

use core::{cell::UnsafeCell, ptr::NonNull};

/// Bytes for a stack or an area.
#[repr(C, align(64))]
pub struct Memory<const N: usize>(UnsafeCell<[u8; N]>);
// SAFETY: who may use it is its owner's matter.
unsafe impl<const N: usize> Sync for Memory<N> {}

impl<const N: usize> Memory<N> {
    pub const fn new() -> Self {
        Self(UnsafeCell::new([0; N]))
    }
    pub fn base(&self) -> NonNull<u8> {
        NonNull::from(&self.0).cast()
    }
}
