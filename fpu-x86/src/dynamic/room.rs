//! What an area has room for, written in the area.
//!
//! Bytes 464 to 511 of an image are software's: no instruction of the XSAVE feature set, nor FXSAVE or FXRSTOR, reads or
//! writes them (SDM vol. 1, 10.5.1 and 13.4.1). An area is one with room if it says so there by a word that is nothing else;
//! what else may lie there, zeros among it, means the least room, so that no save writes too far.

use core::ptr::NonNull;

/// Where the word is.
const AT: usize = 496;
/// What it says of an area with room for everything.
const FULL: u64 = u64::from_le_bytes(*b"fpu room");

/// What an area has room for.
///
/// ```
/// assert_ne!(fpu_x86::Room::Base, fpu_x86::Room::Full);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All components but those on demand.
    Base,
    /// All components.
    Full,
}

impl Room {
    /// That of an area.
    ///
    /// # Safety
    ///
    /// Valid area (C9), which holds an image.
    #[inline(always)]
    pub(super) unsafe fn of(area: NonNull<u8>) -> Self {
        // SAFETY: valid area (C9): the legacy region is 512 bytes, and the word is aligned as 496 is.
        let word = unsafe { area.as_ptr().add(AT).cast::<u64>().read() };
        if word == FULL {
            Self::Full
        } else {
            Self::Base
        }
    }

    /// Into an area.
    pub(super) fn write(self, bytes: &mut [u8]) {
        let word: u64 = match self {
            Self::Base => 0,
            Self::Full => FULL,
        };
        crate::fields::set(bytes, AT, word.to_le_bytes());
    }
}
