//! The words that software writes into bytes 464 to 511 of an image, which FXSAVE and XSAVE leave alone.

use crate::fields::{u32_at, u64_at};

/// The offset at which debuggers look for XCR0 in an image that software has written.
pub(crate) const XCR0: usize = 464;

/// In a signal frame: the first magic number, the size of all, the components, the size of the image.
pub(crate) const SOFTWARE: usize = 464;
pub(crate) const MAGIC1: u32 = 0x4650_5853;
pub(crate) const EXTENDED_SIZE: usize = SOFTWARE + 4;
pub(crate) const XFEATURES: usize = SOFTWARE + 8;
pub(crate) const XSTATE_SIZE: usize = SOFTWARE + 16;

/// Software's words in a frame.
pub(crate) struct Software {
    /// Where [`xfeatures`](Self::xfeatures) stands.
    pub(crate) at: usize,
    pub(crate) xfeatures: u64,
    pub(crate) xstate_size: u32,
}

/// Software's words of a frame, if it has them.
pub(crate) fn software(bytes: &[u8]) -> Option<Software> {
    let (xfeatures, xstate_size) = (u64_at(bytes, XFEATURES), u32_at(bytes, XSTATE_SIZE));
    (u32_at(bytes, SOFTWARE) == MAGIC1).then_some(Software {
        at: XFEATURES,
        xfeatures,
        xstate_size,
    })
}
