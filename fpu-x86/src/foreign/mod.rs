//! Images from elsewhere: signal frames, debuggers, core files, checkpoints, migrated guests.
//!
//! Bytes that a kernel did not save itself can make a restore fault, or carry state that the task may
//! not have. Such bytes reach an image in one way only:
//! [`ForeignImage`] -> [`validate`](ForeignImage::validate) -> [`ValidImage`] ->
//! [`ImageMut::replace_with`](crate::ImageMut::replace_with), on a private copy, so the owner of the
//! original cannot change what has been checked.
//!
//! An image is refused for what it contains, not for its length: a signal frame ends in four bytes of software's, and
//! KVM's buffers are whole pages. What lies behind the last component that is present does not matter.
//!
//! Offsets of the standard format are a machine's own. Bytes are read with those of the machine that wrote them: by
//! its [`ForeignLayout`](crate::ForeignLayout), or where the XCR0 in the bytes and their length tell the maker, or else, where nothing speaks
//! against it, with this machine's.

mod check;
mod error;
#[cfg(test)]
#[path = "../tests/inputs.rs"]
mod inputs;
mod rules;
#[cfg(test)]
#[path = "../tests/foreign.rs"]
mod tests;

pub(crate) use check::{Reading, Way};
pub use error::ForeignError;
pub use rules::{Beyond, ForeignRules};

use core::fmt;

use crate::{
    components::{extended, one, Components},
    error::ImageError,
    fields::{set, INITIAL_MXCSR, MXCSR, XSTATE_BV},
    image::{Image, ImageMut, Where},
    layout::HEADER,
    opened::InMemory,
    origin::Origin,
    plan::Plan,
    save_instruction::Format,
};
use check::{check, Found};

/// Bytes from outside, in a copy that no other code can change: standard format, or FXSAVE's 512 bytes.
///
/// ```
/// use core::ptr::NonNull;
/// use fpu_core::{Area, RawFpu, SaveArea};
/// use fpu_x86::{Components, ForeignError, ForeignImage, Plan};
/// let plan = Plan::detect_user(Components::all())?;
/// let area = Area::<16384>::new();
/// // SAFETY: C9, C11: the area is our own, large enough, and holds an image from the first line on.
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
    private: &'b mut [u8],
    /// The number of bytes that there were.
    len: usize,
}

impl<'b> ForeignImage<'b> {
    /// Copies the bytes, once, into a buffer that is the caller's own, as far as they fit. A component that is present and
    /// lies in what has not been copied is refused; a buffer of [`Plan::foreign_len`] bytes takes everything that a plan
    /// can hold of this machine's bytes, one of 16 KiB those of all machines that are known.
    ///
    /// # Errors
    ///
    /// [`ForeignError::Truncated`]: the buffer does not even take the 512 bytes that every image has.
    pub fn copy(bytes: &[u8], private: &'b mut [u8]) -> Result<Self, ForeignError> {
        let (len, room) = (bytes.len(), private.len());
        if room < len.min(HEADER) {
            return Err(ForeignError::Truncated { len: room, need: HEADER });
        }
        let private = private.get_mut(..len.min(room)).unwrap_or_default();
        for (to, from) in private.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(Self { private, len })
    }

    /// Takes bytes that have been copied already, for instance from user memory, by a function that
    /// can fail. Borrowed exclusively, they do not change until the last use of the valid image.
    pub fn in_private(private: &'b mut [u8]) -> Self {
        let len = private.len();
        Self { private, len }
    }

    /// Takes the first bytes of an image of `len` bytes, where these tell the machine that wrote it.
    pub fn first_of(len: usize, private: &'b mut [u8]) -> Self {
        Self { len: len.max(private.len()), private }
    }

    /// Checks everything that a restore could refuse, and that nothing is there which a task of this
    /// plan may not have, by the rules of [`ForeignRules::new`].
    ///
    /// Tiles are refused: this crate cannot see whether the task has permission to use them. See
    /// [`validate_with_tiles`](Self::validate_with_tiles).
    ///
    /// # Errors
    ///
    /// The first thing that is wrong. Nothing has been changed anywhere.
    pub fn validate(self, plan: &'b Plan) -> Result<ValidImage<'b>, ForeignError> {
        self.validate_by(&ForeignRules::new(), plan)
    }

    /// As [`validate`](Self::validate), for a task that may use tiles.
    ///
    /// # Safety
    ///
    /// * **C24** whenever an image into which this one is put is restored, IA32_XFD lets tiles be
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
        // SAFETY: C24: the caller's.
        unsafe { self.validate_with_tiles_by(&ForeignRules::new(), plan) }
    }

    /// As [`validate`](Self::validate), by other rules.
    ///
    /// # Errors
    ///
    /// As for [`validate`](Self::validate).
    pub fn validate_by(
        self,
        rules: &ForeignRules<'b>,
        plan: &'b Plan,
    ) -> Result<ValidImage<'b>, ForeignError> {
        self.checked(plan, &Reading::of(rules, Components::TILEDATA))
    }

    /// As [`validate_with_tiles`](Self::validate_with_tiles), by other rules.
    ///
    /// # Safety
    ///
    /// Tiles allowed (C24).
    ///
    /// # Errors
    ///
    /// As for [`validate`](Self::validate).
    pub unsafe fn validate_with_tiles_by(
        self,
        rules: &ForeignRules<'b>,
        plan: &'b Plan,
    ) -> Result<ValidImage<'b>, ForeignError> {
        self.checked(plan, &Reading::of(rules, Components::empty()))
    }

    pub(crate) fn checked(
        self,
        plan: &'b Plan,
        reading: &Reading<'b>,
    ) -> Result<ValidImage<'b>, ForeignError> {
        let found = check(self.private, plan, reading, self.len)?;
        Ok(ValidImage::of(self.private, plan, found, reading.rules.beyond))
    }
}

impl fmt::Debug for ForeignImage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignImage").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Foreign bytes that a restore accepts, in the private copy in which they were checked.
///
/// See [`ForeignImage`].
pub struct ValidImage<'b> {
    private: &'b [u8],
    plan: &'b Plan,
    format: Format,
    places: Where<'b>,
    beyond: Components,
    pkru: Option<u32>,
}

impl<'b> ValidImage<'b> {
    /// The header of the copy becomes what was found, so that nothing has to be remembered beside it.
    fn of(private: &'b mut [u8], plan: &'b Plan, found: Found<'b>, beyond: Beyond) -> Self {
        let Found { format, places, taken, beyond: left_out, pkru, mxcsr } = found;
        if format != Format::Legacy {
            set(private, XSTATE_BV, taken.bits().to_le_bytes());
        }
        if !mxcsr {
            set(private, MXCSR, INITIAL_MXCSR.to_le_bytes());
        }
        let beyond = if beyond == Beyond::Report { left_out } else { Components::empty() };
        Self { private, plan, format, places, beyond, pkru }
    }

    /// The bytes by register. An absent component has its initial value. MXCSR is what the bytes say even if SSE is
    /// absent, as for XRSTOR; from a debugger or a 32-bit frame MXCSR is initial then.
    #[must_use]
    pub fn image(&self) -> Image<'b> {
        Image::elsewhere(self.private, self.plan, self.format, self.places)
    }

    /// The protection-key rights, where this CPU has them and the kernel can switch them (a plan for ring 3: where the
    /// system does), and the bytes are not FXSAVE's: 0 where the component is absent. No plan has these rights; the
    /// kernel decides whether to take them over, by WRPKRU.
    #[must_use]
    pub fn pkru(&self) -> Option<u32> {
        self.pkru
    }

    /// Puts the state into a task's image, whatever plan that has, or says why it cannot be there. On an error nothing
    /// has changed, the claims of registers included.
    pub(crate) fn put_into(&self, task: impl InMemory) -> Result<(), ForeignError> {
        self.put_part_into(task, Components::all())
    }

    /// As [`put_into`](Self::put_into), for the components `only`.
    pub(crate) fn put_part_into(
        &self,
        task: impl InMemory,
        only: Components,
    ) -> Result<(), ForeignError> {
        self.fits(task.user_image().plan(), only)?;
        let done = task.change(|mut image| image.merge(self, only));
        debug_assert!(done.is_ok(), "`fits` has looked at what `merge` looks at");
        Ok(())
    }

    /// Tells why an image of that plan does not take these components. An image of the plan that has validated them
    /// does.
    fn fits(&self, plan: &Plan, only: Components) -> Result<(), ForeignError> {
        let image = self.image();
        let bits = image.mxcsr() & !plan.mxcsr_mask();
        if bits != 0 {
            return Err(ForeignError::ReservedMxcsr { bits });
        }
        let present = image.present().intersection(only);
        let bits = present.difference(plan.components()).bits();
        if bits != 0 {
            return Err(ForeignError::NotEnabled { bits });
        }
        for number in extended(present) {
            let component = one(number);
            let here = plan.layout.slot(number).map(|slot| slot.size as usize);
            match self.places.place(number) {
                Some((_, size)) if here == Some(size) => {}
                Some((offset, size)) => {
                    return Err(ForeignError::OtherSize { component, offset, size });
                }
                None => return Err(ForeignError::NotEnabled { bits: component.bits() }),
            }
        }
        Ok(())
    }

    /// The components that were left out, under [`Beyond::Report`].
    #[must_use]
    pub fn beyond(&self) -> Components {
        self.beyond
    }

    /// The bytes of one component that was left out, if the layout has a place for it.
    #[must_use]
    pub fn bytes_beyond(&self, component: Components) -> Option<&'b [u8]> {
        let number = component.number().filter(|_| self.beyond.contains(component))?;
        let (offset, size) = match self.places {
            Where::Nowhere | Where::At(_) => None,
            Where::Standard(plan) => Origin::Here(plan).standard(number),
            Where::Elsewhere(layout) => layout.standard(number),
            Where::Packed(origin, set) => origin.packed(set, number),
        }?;
        self.private.get(offset..offset.checked_add(size)?)
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

    /// As [`replace_with`](Self::replace_with), for the components `only`; the others stay as they are. A debugger that
    /// sets the FXSAVE part of a task uses [`Components::LEGACY`].
    ///
    /// # Errors
    ///
    /// As for [`replace_with`](Self::replace_with).
    pub fn merge(&mut self, valid: &ValidImage<'_>, only: Components) -> Result<(), ImageError> {
        let user = only.user_part();
        self.import(&valid.image(), only, user)
    }
}
