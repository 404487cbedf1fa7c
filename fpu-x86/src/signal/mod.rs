//! The FPU part of a signal frame.
//!
//! The format is Linux's, and no Linux is needed. A frame is an image in the standard format, 64-byte aligned, with
//! software's words in bytes 464 to 511 of it: a first magic number at 464, at 468 the size of all, at 472 the components
//! that are in it, at 480 the size of the image, `xstate_size`; at offset `xstate_size` stands a second magic number.
//! Without them only the first 512 bytes count. In a frame of a 32-bit program FSAVE's image comes first.
//!
//! Nothing here knows what lies around that part, nor reads a program's memory: the kernel copies the bytes, which
//! may fail, and tries again after it has made the page present. [`deliver`](UserFormat::deliver) and
//! [`sigreturn`](UserFormat::sigreturn) do all of it on a task's opened state, or nothing; the other functions work on an
//! image and on bytes.

mod deliver;
mod fsave;
#[cfg(test)]
#[path = "../tests/signal.rs"]
mod tests;

pub use deliver::{DeliverError, Returned, SigreturnError};

use core::fmt;

use crate::{
    components::Components,
    error::ImageError,
    fields::{put, set, u32_at, u64_at, XSTATE_BV},
    foreign::{ForeignError, ForeignImage, ForeignRules, Reading, ValidImage, Way},
    image::Image,
    layout::{EXTENDED, HEADER},
    origin::{software, EXTENDED_SIZE, MAGIC1, SOFTWARE, XFEATURES, XSTATE_SIZE},
    regset::UserFormat,
};

const MAGIC2: u32 = 0x4650_5845;
const MAGIC2_LEN: usize = 4;
/// No machine that is known has an image of more.
const LARGEST: usize = 16384;

/// How much of a frame counts.
///
/// ```
/// use fpu_x86::{Components, FrameKind, LegacyOnly};
/// assert_ne!(FrameKind::Full(Components::LEGACY), FrameKind::Legacy(LegacyOnly::Software));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Everything; these components are in it. What is not, becomes initial.
    Full(Components),
    /// x87 and SSE; everything else becomes initial.
    Legacy(LegacyOnly),
}

/// Why of a frame only x87 and SSE count.
///
/// ```
/// use fpu_x86::LegacyOnly;
/// let why = LegacyOnly::Magic2 { offset: 832, value: 0 };
/// assert_eq!(why.to_string(), "the second magic number at offset 832 is 0x0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LegacyOnly {
    /// This machine's frames, on a CPU without XSAVE, have no more, and the frame says no more.
    Software,
    /// The first magic number is not there.
    Magic1 {
        /// What is there, at offset 464.
        value: u32,
    },
    /// The size of the image, at offset 480, is less than that of its header, or more than any machine's.
    XstateSize {
        /// It.
        value: u32,
    },
    /// The size of all, at offset 468, is less than that of the image.
    ExtendedSize {
        /// It.
        value: u32,
    },
    /// The second magic number is not there: a program has copied the first 512 bytes only.
    Magic2 {
        /// Where it would stand.
        offset: usize,
        /// What is there.
        value: u32,
    },
}

impl fmt::Display for LegacyOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Software => f.write_str("there are no words of software's at offset 464"),
            Self::Magic1 { value } => {
                write!(f, "the first magic number at offset {SOFTWARE} is {value:#x}")
            }
            Self::XstateSize { value } => {
                write!(f, "the image's size at offset {XSTATE_SIZE} is {value}")
            }
            Self::ExtendedSize { value } => {
                write!(f, "the size of all at offset {EXTENDED_SIZE} is {value}")
            }
            Self::Magic2 { offset, value } => {
                write!(f, "the second magic number at offset {offset} is {value:#x}")
            }
        }
    }
}

/// The FPU part of a signal frame, checked, in a private copy.
///
/// ```
/// use fpu_x86::{ForeignError, ImageMut, Plan};
/// // `copied` has been copied from user memory, which could fail.
/// fn sigreturn(plan: &Plan, image: &mut ImageMut<'_>, copied: &mut [u8]) -> Result<(), ForeignError> {
///     let frame = plan.user_format().read_frame(copied)?;
///     image.replace_with(frame.valid()).expect("validated with the same plan");
///     if let Some(pkru) = frame.pkru() {
///         // The kernel's own switch of PKRU.
///         # drop(pkru);
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct SignalFrame<'b> {
    valid: ValidImage<'b>,
    kind: FrameKind,
    pkru: Option<u32>,
}

impl<'b> SignalFrame<'b> {
    /// Its registers, to be put into a task's image by [`ImageMut::replace_with`](crate::ImageMut::replace_with):
    /// user components that the frame does not have become initial, supervisor components stay.
    #[must_use]
    pub fn valid(&self) -> &ValidImage<'b> {
        &self.valid
    }

    /// How much of it counts, and why.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The protection-key rights with which the task goes on, where the format has them: 0, their initial value, if
    /// the frame does not have them.
    #[must_use]
    pub fn pkru(&self) -> Option<u32> {
        self.pkru
    }
}

impl<'p> UserFormat<'p> {
    /// The components that a frame has: without permission no tiles.
    fn frame_components(&self) -> Components {
        self.components().difference(self.forbidden())
    }

    /// Bytes of a frame's FPU part, which begins at a multiple of 64.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        match self.has_header() {
            true => self.standard_len(self.frame_components()) + MAGIC2_LEN,
            false => HEADER,
        }
    }

    /// What a kernel tells programs in AT_MINSIGSTKSZ (auxiliary vector, type 51): bytes of the largest frame, `other` of
    /// them for all that is not the FPU's part, with room to align that to 64 and the whole to 16.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// let least = plan.user_format().min_signal_stack(440);
    /// assert!(least >= plan.user_format().frame_len() + 440 && least % 16 == 0);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[doc(alias = "AT_MINSIGSTKSZ")]
    #[must_use]
    pub fn min_signal_stack(&self, other: usize) -> usize {
        (self.frame_len() + 63 + 15).saturating_add(other).saturating_add(15) & !15
    }

    /// Writes a frame's FPU part, and returns its length, [`frame_len`](Self::frame_len); [`deliver`](Self::deliver) does
    /// more of what a signal takes. All of it is written, and
    /// nothing of what lay in the image or in `out` before comes along.
    ///
    /// `pkru` is the value that the interrupted task had, where the kernel switches it; without it the component is
    /// absent, which means 0. x87 and SSE are always marked as present, others as they are.
    ///
    /// # Errors
    ///
    /// As for [`write_xstate`](Self::write_xstate); [`ImageError::NotManaged`] also for tiles in the image of a task that may
    /// not use them. `out` is unchanged.
    ///
    /// ```
    /// use fpu_x86::{Image, ImageError, Plan};
    /// // A handler is to run. `buffer` is copied to its stack, which may fail: then the page is made present, and this
    /// // is done once more, for the task may have run meanwhile.
    /// fn deliver(plan: &Plan, image: &Image<'_>, buffer: &mut [u8]) -> Result<usize, ImageError> {
    ///     plan.user_format().without_pkru().write_frame(image, None, buffer)
    /// }
    /// ```
    #[doc(alias = "copy_fpstate_to_sigframe")]
    pub fn write_frame(
        &self,
        image: &Image<'_>,
        pkru: Option<u32>,
        out: &mut [u8],
    ) -> Result<usize, ImageError> {
        let need = self.frame_len();
        let out = out.get_mut(..need).ok_or(ImageError::TooShort { need })?;
        if !self.has_header() {
            return self.write_legacy(image, pkru, out);
        }
        let components = self.frame_components();
        let size = self.write(image, pkru, components, out)?;
        let present = u64_at(out, XSTATE_BV) | Components::LEGACY.bits();
        set(out, XSTATE_BV, present.to_le_bytes());
        set(out, SOFTWARE, MAGIC1.to_le_bytes());
        set(out, EXTENDED_SIZE, (need as u32).to_le_bytes()); // an image fits 32 bits
        set(out, XFEATURES, components.bits().to_le_bytes());
        set(out, XSTATE_SIZE, (size as u32).to_le_bytes());
        set(out, size, MAGIC2.to_le_bytes());
        Ok(need)
    }

    fn write_legacy(
        &self,
        image: &Image<'_>,
        pkru: Option<u32>,
        out: &mut [u8],
    ) -> Result<usize, ImageError> {
        let given = if pkru.is_some() { Components::PKRU } else { Components::empty() };
        let excess = image.present().user_part().union(given).difference(Components::LEGACY);
        if !excess.is_empty() {
            return Err(ImageError::NotManaged { component: excess });
        }
        let mut legacy = [0; HEADER];
        self.write_prfpreg(image, &mut legacy)?;
        put(out, 0, &legacy)?;
        Ok(HEADER)
    }

    /// How many bytes of a frame there are to be copied, by its first 512: those, or all that software's words say, up to
    /// `most`. What is read in the end is the copy, whatever the first look has said.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// assert_eq!(plan.user_format().frame_bytes(&[0; 512], 16388), 512);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn frame_bytes(&self, legacy: &[u8; HEADER], most: usize) -> usize {
        let said = software(legacy).map_or(0, |words| words.xstate_size as usize);
        if (EXTENDED as usize..=LARGEST).contains(&said) {
            (said + MAGIC2_LEN).clamp(HEADER, most.max(HEADER))
        } else {
            HEADER
        }
    }

    /// Checks a frame's FPU part in a private copy, in which bytes behind the frame do not matter;
    /// [`sigreturn`](Self::sigreturn) does more of what a return takes.
    ///
    /// Taken are full frames, of which only the components count that software's word at 472 names; frames of which only
    /// the legacy area counts, see [`LegacyOnly`]; and frames of machines with fewer or more components: where the second
    /// magic number stands is for the frame to say. One of another layout is read with that, if its components and its
    /// size tell it ([`ForeignLayout::told_by`](crate::ForeignLayout::told_by)).
    ///
    /// # Errors
    ///
    /// [`ForeignError::Truncated`] if the copy is shorter than the frame says; otherwise as for
    /// [`ForeignImage::validate`]. The kernel ends the task, or sends it SIGSEGV.
    #[doc(alias = "fpu__restore_sig")]
    pub fn read_frame(self, private: &'p mut [u8]) -> Result<SignalFrame<'p>, ForeignError> {
        self.read_frame_by(&ForeignRules::new(), private)
    }

    /// The same by other rules, for frames that came from another machine. The compacted format is refused
    /// under all.
    ///
    /// # Errors
    ///
    /// As for [`read_frame`](Self::read_frame).
    pub fn read_frame_by(
        self,
        rules: &ForeignRules<'p>,
        private: &'p mut [u8],
    ) -> Result<SignalFrame<'p>, ForeignError> {
        self.read(rules, Way::Restored, private)
    }

    fn read(
        self,
        rules: &ForeignRules<'p>,
        way: Way,
        private: &'p mut [u8],
    ) -> Result<SignalFrame<'p>, ForeignError> {
        let rules = ForeignRules { compacted: false, ..*rules };
        let kind = self.kind(private)?;
        let (len, only) = match kind {
            FrameKind::Full(only) => (u32_at(private, XSTATE_SIZE) as usize, only),
            FrameKind::Legacy(_) => (HEADER, Components::LEGACY),
        };
        let private = private.get_mut(..len).unwrap_or_default();
        let reading = Reading { only, padded: false, way, ..Reading::of(&rules, self.forbidden()) };
        let valid = ForeignImage::in_private(private).checked(self.plan, &reading)?;
        let has_pkru = self.components().contains(Components::PKRU);
        let pkru = has_pkru.then(|| valid.pkru().unwrap_or(0));
        Ok(SignalFrame { valid, kind, pkru })
    }

    fn kind(&self, bytes: &[u8]) -> Result<FrameKind, ForeignError> {
        let legacy = |why| Ok(FrameKind::Legacy(why));
        let len = bytes.len();
        if len < HEADER {
            return Err(ForeignError::Truncated { len, need: HEADER });
        }
        let Some(words) = software(bytes) else {
            return match u32_at(bytes, SOFTWARE) {
                0 if !self.has_header() => legacy(LegacyOnly::Software),
                value => legacy(LegacyOnly::Magic1 { value }),
            };
        };
        let (all, offset) = (u32_at(bytes, EXTENDED_SIZE), words.xstate_size as usize);
        if !(EXTENDED as usize..=LARGEST).contains(&offset) {
            return legacy(LegacyOnly::XstateSize { value: words.xstate_size });
        }
        if all < words.xstate_size {
            return legacy(LegacyOnly::ExtendedSize { value: all });
        }
        let need = offset + MAGIC2_LEN;
        if len < need {
            return Err(ForeignError::Truncated { len, need });
        }
        match u32_at(bytes, offset) {
            MAGIC2 => Ok(FrameKind::Full(Components::from_bits_retain(words.xfeatures))),
            value => legacy(LegacyOnly::Magic2 { offset, value }),
        }
    }
}
