//! Frames of 32-bit programs: FSAVE's image in front, then the part that 64-bit frames have.

use super::SignalFrame;
use crate::{
    error::ImageError,
    fields::{array, put},
    foreign::{ForeignError, ForeignRules, Way},
    image::Image,
    layout::HEADER,
    origin::{software, EXTENDED_SIZE},
    regset::UserFormat,
    x87::{Selectors, X87},
};

/// FSAVE's image, the status word once more, and a number that says what follows.
pub(super) const FRONT: usize = 112;
const FSAVE: usize = 108;
/// The number that says that an image of FXSAVE or XSAVE follows.
const FOLLOWED: u16 = 0;

impl<'p> UserFormat<'p> {
    /// Bytes of the FPU part of a 32-bit program's frame. The image in the part, at byte 112, begins at a multiple of
    /// 64.
    #[must_use]
    pub fn frame_len_32(&self) -> usize {
        FRONT + self.frame_len()
    }

    /// Writes the FPU part of a 32-bit program's frame: as [`write_frame`](Self::write_frame), with FSAVE's image in
    /// front, for which 64-bit images hold no segments.
    ///
    /// # Errors
    ///
    /// As for [`write_frame`](Self::write_frame).
    pub fn write_frame_32(
        &self,
        image: &Image<'_>,
        selectors: Selectors,
        pkru: Option<u32>,
        out: &mut [u8],
    ) -> Result<usize, ImageError> {
        let need = self.frame_len_32();
        let out = out.get_mut(..need).ok_or(ImageError::TooShort { need })?;
        let (front, rest) = out.split_at_mut(FRONT);
        self.write_frame(image, pkru, rest)?;
        if software(rest).is_some() {
            // Of all, this part included.
            put(rest, EXTENDED_SIZE, &(need as u32).to_le_bytes())?; // an image fits 32 bits
        }
        let x87 = image.x87();
        put(front, 0, &x87.to_fsave(selectors))?;
        put(front, FSAVE, &x87.fsw.to_le_bytes())?;
        put(front, FSAVE + 2, &FOLLOWED.to_le_bytes())?;
        Ok(need)
    }

    /// Checks the FPU part of a 32-bit program's frame in a private copy: x87, if it is present, is what FSAVE's image says,
    /// the rest what follows it. Where SSE is absent MXCSR becomes initial with it.
    ///
    /// # Errors
    ///
    /// As for [`read_frame`](Self::read_frame), with offsets that begin behind FSAVE's image.
    pub fn read_frame_32(self, private: &'p mut [u8]) -> Result<SignalFrame<'p>, ForeignError> {
        self.read_frame_32_by(&ForeignRules::new(), private)
    }

    /// As [`read_frame_32`](Self::read_frame_32), by other rules, as [`read_frame_by`](Self::read_frame_by).
    ///
    /// # Errors
    ///
    /// As for [`read_frame_32`](Self::read_frame_32).
    pub fn read_frame_32_by(
        self,
        rules: &ForeignRules<'p>,
        private: &'p mut [u8],
    ) -> Result<SignalFrame<'p>, ForeignError> {
        let len = private.len();
        let Some(front) = array::<FSAVE>(private, 0).filter(|_| len >= FRONT + HEADER) else {
            return Err(ForeignError::Truncated { len, need: FRONT + HEADER });
        };
        let (_, rest) = private.split_at_mut(FRONT);
        let (x87, _) = X87::from_fsave(&front);
        if let Some(mut legacy) = array::<HEADER>(rest, 0) {
            x87.to_fxsave(&mut legacy);
            let done = put(rest, 0, &legacy);
            debug_assert!(done.is_ok(), "its length has been looked at");
        }
        self.read(rules, Way::Copied, rest)
    }
}
