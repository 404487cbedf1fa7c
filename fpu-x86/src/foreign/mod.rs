//! Images from elsewhere: signal frames, debuggers, core files, checkpoints, migrated guests.
//!
//! Bytes that a kernel did not save itself can make a restore fault, or carry state that the task may
//! not have. Such bytes reach an image in one way only:
//! [`ForeignImage`] -> [`validate`](ForeignImage::validate) -> [`ValidImage`] ->
//! [`ImageMut::replace_with`](crate::ImageMut::replace_with), on a private copy, so the owner of the
//! original cannot change what has been checked.

mod error;
#[cfg(test)]
#[path = "../tests/foreign.rs"]
mod tests;

pub use error::ForeignError;

use core::fmt;

use crate::{
    components::{extended, one, Components},
    error::ImageError,
    fields::{u32_at, u64_at, MXCSR, XCOMP_BV, XSTATE_BV},
    image::{first_illegal, Image, ImageMut, Where},
    layout::{EXTENDED, HEADER},
    plan::Plan,
};

const RESERVED: usize = HEADER + 16;

/// Bytes from outside, in a copy that no other code can change: standard format, or FXSAVE's 512 bytes.
///
/// ```
/// use core::ptr::NonNull;
/// use fpu_core::{Area, RawFpu, SaveArea};
/// use fpu_x86::{Components, ForeignError, ForeignImage, Plan};
/// let plan = Plan::detect_user(Components::all())?;
/// let area = Area::<16384>::new();
/// // SAFETY: S1, S3: the area is our own, large enough, and holds an image from the first line on.
/// let mut image = unsafe {
///     plan.write_initial(area.base());
///     plan.image_mut(area.base())
/// };
/// let mut frame = [0; 512];
/// frame[..2].copy_from_slice(&0x27Fu16.to_le_bytes());
/// frame[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
/// let mut private = [0; 16384];
/// let valid = ForeignImage::copy(&frame, &mut private)?.validate(&plan)?;
/// image.replace_with(&valid)?;
/// assert_eq!(image.as_image().fcw(), 0x27F);
///
/// frame[27] = 0x80;
/// let refused = ForeignImage::copy(&frame, &mut private)?.validate(&plan);
/// assert_eq!(refused.unwrap_err(), ForeignError::ReservedMxcsr { bits: 1 << 31 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing has been checked yet"]
pub struct ForeignImage<'b> {
    private: &'b [u8],
}

impl<'b> ForeignImage<'b> {
    /// Copies the bytes, once, into a buffer that is the caller's own.
    ///
    /// # Errors
    ///
    /// [`ForeignError::Oversized`]: they do not fit.
    pub fn copy(bytes: &[u8], private: &'b mut [u8]) -> Result<Self, ForeignError> {
        let (len, most) = (bytes.len(), private.len());
        let Some(private) = private.get_mut(..len) else {
            return Err(ForeignError::Oversized { len, most });
        };
        private.copy_from_slice(bytes);
        Ok(Self { private })
    }

    /// Takes bytes that have been copied already, for instance from user memory, by a function that
    /// can fail. Borrowed exclusively, they do not change until the last use of the valid image.
    pub fn in_private(private: &'b mut [u8]) -> Self {
        Self { private }
    }

    /// Checks everything that a restore could refuse, and that nothing is there which a task of this
    /// plan may not have.
    ///
    /// Tiles are refused: this crate cannot see whether the task has permission to use them. See
    /// [`validate_with_tiles`](Self::validate_with_tiles).
    ///
    /// # Errors
    ///
    /// The first thing that is wrong. Nothing has been changed anywhere.
    pub fn validate(self, plan: &'b Plan) -> Result<ValidImage<'b>, ForeignError> {
        check(self.private, plan, Components::TILEDATA)?;
        Ok(ValidImage { private: self.private, plan })
    }

    /// The same for a task that may use tiles.
    ///
    /// # Safety
    ///
    /// * **X2** whenever an image into which this one is put is restored, IA32_XFD lets tiles be
    ///   loaded: the task has been given permission to use them, and the kernel has its IA32_XFD in
    ///   force before the restore.
    ///
    /// # Errors
    ///
    /// As for [`validate`](Self::validate).
    pub unsafe fn validate_with_tiles(
        self,
        plan: &'b Plan,
    ) -> Result<ValidImage<'b>, ForeignError> {
        check(self.private, plan, Components::empty())?;
        Ok(ValidImage { private: self.private, plan })
    }
}

impl fmt::Debug for ForeignImage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignImage").field("len", &self.private.len()).finish_non_exhaustive()
    }
}

/// Foreign bytes that a restore accepts, in the private copy in which they were checked.
///
/// See [`ForeignImage`].
pub struct ValidImage<'b> {
    private: &'b [u8],
    plan: &'b Plan,
}

impl<'b> ValidImage<'b> {
    /// By register. An absent component has its initial value, except MXCSR, which is what the bytes say
    /// even if SSE is absent, as for XRSTOR.
    #[must_use]
    pub fn image(&self) -> Image<'b> {
        Image::uncompacted(self.private, self.plan)
    }

    /// The protection-key rights, if this CPU has them enabled and the bytes are not FXSAVE's: 0 where
    /// the component is absent. They are no part of a plan; whether to take them over, by WRPKRU, is
    /// the kernel's decision.
    #[must_use]
    pub fn pkru(&self) -> Option<u32> {
        let (offset, _) = self.plan.pkru_place()?;
        if self.private.len() <= HEADER {
            return None;
        }
        let present = u64_at(self.private, XSTATE_BV) & Components::PKRU.bits() != 0;
        Some(if present { u32_at(self.private, offset) } else { 0 })
    }
}

impl fmt::Debug for ValidImage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidImage")
            .field("present", &self.image().present())
            .finish_non_exhaustive()
    }
}

impl ImageMut<'_> {
    /// Makes the user components of this image what a foreign one says: those that it does not have
    /// become initial. Supervisor components are not touched.
    ///
    /// # Errors
    ///
    /// As for [`copy_from`](Self::copy_from), and only if it was validated with another plan. The image
    /// is unchanged.
    pub fn replace_with(&mut self, valid: &ValidImage<'_>) -> Result<(), ImageError> {
        self.merge(valid, Components::all())
    }

    /// The same for some components; the others stay as they are. A debugger that sets the FXSAVE part
    /// of a task means [`Components::LEGACY`].
    ///
    /// # Errors
    ///
    /// As for [`replace_with`](Self::replace_with).
    pub fn merge(&mut self, valid: &ValidImage<'_>, only: Components) -> Result<(), ImageError> {
        let user = only.user_part();
        self.import(&valid.image(), only, user)
    }
}

// Why a restore accepts what passes (B5): see `ImageMut`. MXCSR has only bits of the plan's mask, whether
// SSE is present or not, because a standard-format XRSTOR loads it in any case. XSTATE_BV and XCOMP_BV
// are not taken over but written anew; the components taken over are the plan's, complete, and
// legal where they can be illegal. Tiles are the caller's X2.
fn check(bytes: &[u8], plan: &Plan, without: Components) -> Result<(), ForeignError> {
    let len = bytes.len();
    let truncated = |need| Err(ForeignError::Truncated { len, need });
    if len < HEADER {
        return truncated(HEADER);
    }
    let most = plan.foreign_len();
    if len > most {
        return Err(ForeignError::Oversized { len, most });
    }
    if len > HEADER {
        if len < EXTENDED as usize {
            return truncated(EXTENDED as usize);
        }
        let xcomp_bv = u64_at(bytes, XCOMP_BV);
        if xcomp_bv != 0 {
            return Err(ForeignError::NotStandard { xcomp_bv });
        }
        let reserved = bytes.get(RESERVED..EXTENDED as usize).unwrap_or_default();
        if let Some(at) = reserved.iter().position(|byte| *byte != 0) {
            return Err(ForeignError::ReservedHeader { offset: RESERVED + at });
        }
        check_components(bytes, plan, without)?;
    }
    match u32_at(bytes, MXCSR) & !plan.mxcsr_mask() {
        0 => Ok(()),
        bits => Err(ForeignError::ReservedMxcsr { bits }),
    }
}

fn check_components(bytes: &[u8], plan: &Plan, without: Components) -> Result<(), ForeignError> {
    let present = Components::from_bits_retain(u64_at(bytes, XSTATE_BV));
    let refused = |set: Components| {
        let bits = present.intersection(set).bits();
        (bits != 0).then_some(bits)
    };
    let mut there = plan.user_components();
    if plan.pkru_place().is_some() {
        there |= Components::PKRU;
    }
    if let Some(bits) = refused(Components::SUPERVISOR) {
        return Err(ForeignError::Supervisor { bits });
    }
    if let Some(bits) = refused(Components::from_bits_retain(!Components::all().bits())) {
        return Err(ForeignError::Unknown { bits });
    }
    if let Some(bits) = refused(Components::from_bits_retain(!there.bits())) {
        return Err(ForeignError::NotEnabled { bits });
    }
    if let Some(bits) = refused(without) {
        return Err(ForeignError::NotPermitted { bits });
    }
    for number in extended(present) {
        let component = one(number);
        let place = match component {
            Components::PKRU => plan.pkru_place(),
            _ => Where::Standard(plan).place(number),
        };
        let Some((offset, size)) = place else {
            return Err(ForeignError::NotEnabled { bits: component.bits() });
        };
        let Some(part) = bytes.get(offset..offset + size) else {
            return Err(ForeignError::Truncated { len: bytes.len(), need: offset + size });
        };
        if let Some(at) = first_illegal(component, part) {
            return Err(ForeignError::IllegalValue { component, offset: offset + at });
        }
    }
    Ok(())
}
