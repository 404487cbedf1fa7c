//! Writing an image, by register.

use super::{
    read::Image,
    validity::{first_illegal, CHECKED, CHECKED_LEN, PLAIN},
};
use crate::{
    components::Components, error::ImageError, fields::*, plan::Plan, save_instruction::Format,
    x87::X87,
};

/// A view of an image through which it can be changed, only into what a restore accepts.
///
/// The first write to a component that is absent makes it present, the rest of it initial.
///
/// ```
/// use fpu_core::{Area, RawFpu, SaveArea};
/// use fpu_x86::{Components, ImageError, Plan};
/// let plan = Plan::detect_user(Components::all())?;
/// let area = Area::<16384>::new();
/// assert!(plan.area_len() <= area.len());
/// // SAFETY: C9, C11: the area is our own, large enough, and holds an image from the first line on.
/// let mut image = unsafe {
///     plan.write_initial(area.base());
///     plan.image_mut(area.base())
/// };
/// image.set_xmm(3, [7; 16])?;
/// assert_eq!(image.as_image().xmm(3), Some([7; 16]));
/// assert!(matches!(image.set_mxcsr(1 << 31), Err(ImageError::ReservedMxcsr { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ImageMut<'a> {
    pub(super) bytes: &'a mut [u8],
    pub(super) plan: &'a Plan,
}

impl core::fmt::Debug for ImageMut<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ImageMut")
            .field("present", &self.as_image().present())
            .finish_non_exhaustive()
    }
}

impl<'a> ImageMut<'a> {
    pub(crate) fn new(bytes: &'a mut [u8], plan: &'a Plan) -> Self {
        Self { bytes, plan }
    }
    /// Writes the bytes that software owns (`dynamic::room`).
    pub(crate) fn set_room(&mut self, write: impl FnOnce(&mut [u8])) {
        write(self.bytes);
    }
}

// Why a restore accepts what these write (B5). XRSTOR refuses: reserved MXCSR bits; XSTATE_BV bits
// outside XCR0 or, compacted, outside XCOMP_BV; a header that is not zero elsewhere (SDM vol. 1, 13.8);
// and illegal values of a few components. Here MXCSR is checked, bits are set only of components of the
// plan, the rest of the header is not written, and of the components only x87 and SSE are, and those
// of `PLAIN`, which have no illegal values, and of `CHECKED`, where they are refused. Of CET_U only the pointer is
// written, where it is present, and only with a value that a restore takes.
impl ImageMut<'_> {
    /// A read-only view of this image.
    #[must_use]
    pub fn as_image(&self) -> Image<'_> {
        Image::new(self.bytes, self.plan)
    }

    /// Sets the shadow-stack pointer of an image that has CET_U: a multiple of 8 below 2^47, which a restore takes.
    pub(crate) fn set_shadow_stack(&mut self, pointer: [u8; 8]) {
        if let Some((offset, _)) = self.plan.place(Components::CET_U) {
            set(self.bytes, offset + 8, pointer);
        }
    }

    /// Makes one managed component present; it then holds its initial value if it was absent.
    fn provide(&mut self, component: Components) {
        if self.plan.format() == Format::Legacy || self.as_image().has(component) {
            return;
        }
        if component == Components::X87 {
            for (from, to) in X87_PARTS {
                clear(self.bytes, from, to);
            }
            set(self.bytes, FCW, INITIAL_FCW.to_le_bytes());
        } else if component == Components::SSE {
            let mxcsr = self.as_image().mxcsr();
            clear(self.bytes, XMM, XMM_END);
            set(self.bytes, MXCSR, mxcsr.to_le_bytes());
        } else if let Some((offset, size)) = self.plan.place(component) {
            clear(self.bytes, offset, offset + size);
        }
        let present = u64_at(self.bytes, XSTATE_BV) | component.bits();
        set(self.bytes, XSTATE_BV, present.to_le_bytes());
    }

    /// Sets the x87 control word.
    pub fn set_fcw(&mut self, value: u16) {
        self.provide(Components::X87);
        set(self.bytes, FCW, value.to_le_bytes());
    }

    /// Sets the x87 status word. It holds the top of the stack, so this comes before
    /// [`set_st`](Self::set_st). An exception flag whose mask is clear is reported by the next waiting
    /// x87 instruction, not by the restore.
    pub fn set_fsw(&mut self, value: u16) {
        self.provide(Components::X87);
        set(self.bytes, FSW, value.to_le_bytes());
    }

    /// Sets the abridged x87 tag word: one bit for each physical register that is not empty.
    pub fn set_tags(&mut self, value: u8) {
        self.provide(Components::X87);
        set(self.bytes, TAG, u16::from(value).to_le_bytes());
    }

    /// Sets ST(`index`), 0 to 7, and marks it as not empty.
    ///
    /// # Errors
    ///
    /// [`ImageError::NoRegister`].
    pub fn set_st(&mut self, index: usize, value: [u8; 10]) -> Result<(), ImageError> {
        if index >= 8 {
            return Err(ImageError::NoRegister { component: Components::X87, index });
        }
        self.provide(Components::X87);
        // The slots are in stack order, the tags in that of the physical registers.
        let top = usize::from(self.as_image().fsw() >> 11 & 7);
        let tags = self.as_image().tags() | 1 << ((top + index) & 7);
        set(self.bytes, TAG, u16::from(tags).to_le_bytes());
        let mut slot = [0; 16];
        for (to, from) in slot.iter_mut().zip(value) {
            *to = from;
        }
        put(self.bytes, ST + 16 * index, &slot)
    }

    /// Sets the addresses of the last x87 instruction and its memory operand, and its opcode.
    ///
    /// AMD CPUs load and save them only while an unmasked exception is pending in the status word.
    pub fn set_x87_pointers(&mut self, fip: u64, fdp: u64, fop: u16) {
        self.provide(Components::X87);
        set(self.bytes, FOP, (fop & 0x7FF).to_le_bytes());
        set(self.bytes, FIP, fip.to_le_bytes());
        set(self.bytes, FDP, fdp.to_le_bytes());
    }

    /// Sets all of the x87 unit.
    pub fn set_x87(&mut self, x87: &X87) {
        self.set_fcw(x87.fcw);
        self.set_fsw(x87.fsw);
        self.set_x87_pointers(x87.fip, x87.fdp, x87.fop);
        for (index, register) in x87.st.iter().enumerate() {
            // The unit has eight registers.
            self.set_st(index, *register).unwrap_or_default();
        }
        self.set_tags(x87.tags);
    }

    /// Sets MXCSR.
    ///
    /// # Errors
    ///
    /// [`ImageError::ReservedMxcsr`]: the CPU would refuse the image.
    pub fn set_mxcsr(&mut self, value: u32) -> Result<(), ImageError> {
        let bits = value & !self.plan.mxcsr_mask();
        if bits != 0 {
            return Err(ImageError::ReservedMxcsr { bits });
        }
        self.provide(Components::SSE);
        set(self.bytes, MXCSR, value.to_le_bytes());
        Ok(())
    }

    /// Sets XMM`index`, 0 to 15.
    ///
    /// # Errors
    ///
    /// [`ImageError::NoRegister`].
    pub fn set_xmm(&mut self, index: usize, value: [u8; 16]) -> Result<(), ImageError> {
        if index >= 16 {
            return Err(ImageError::NoRegister { component: Components::SSE, index });
        }
        self.provide(Components::SSE);
        put(self.bytes, XMM + 16 * index, &value)
    }

    /// Register `index`, of which the component has `count` from `first` on.
    fn set_element<const N: usize>(
        &mut self,
        number: u32,
        index: usize,
        (first, count): (usize, usize),
        value: [u8; N],
    ) -> Result<(), ImageError> {
        let component = Components::from_bits_retain(1 << number);
        match index.checked_sub(first).filter(|index| *index < count) {
            Some(index) => self.write(component, N * index, &value),
            None => Err(ImageError::NoRegister { component, index }),
        }
    }

    /// Sets the upper half of YMM`index`, 0 to 15.
    ///
    /// # Errors
    ///
    /// [`ImageError::NoRegister`], [`ImageError::NotManaged`]; so for all that follow.
    pub fn set_ymm_hi(&mut self, index: usize, value: [u8; 16]) -> Result<(), ImageError> {
        self.set_element(AVX, index, (0, 16), value)
    }
    /// Sets K`index`, 0 to 7.
    ///
    /// # Errors
    ///
    /// As for [`set_ymm_hi`](Self::set_ymm_hi).
    pub fn set_opmask(&mut self, index: usize, value: u64) -> Result<(), ImageError> {
        self.set_element(OPMASK, index, (0, 8), value.to_le_bytes())
    }
    /// Sets the upper half of ZMM`index`, 0 to 15.
    ///
    /// # Errors
    ///
    /// As for [`set_ymm_hi`](Self::set_ymm_hi).
    pub fn set_zmm_hi256(&mut self, index: usize, value: [u8; 32]) -> Result<(), ImageError> {
        self.set_element(ZMM_HI256, index, (0, 16), value)
    }
    /// Sets ZMM`index`, 16 to 31.
    ///
    /// # Errors
    ///
    /// As for [`set_ymm_hi`](Self::set_ymm_hi).
    pub fn set_zmm_hi16(&mut self, index: usize, value: [u8; 64]) -> Result<(), ImageError> {
        self.set_element(HI16_ZMM, index, (16, 16), value)
    }

    /// Writes bytes of one extended component, at offset `at` within it.
    ///
    /// # Errors
    ///
    /// [`ImageError::IllegalValue`] for bytes of BNDCSR or TILECFG that are no legal value of theirs: write
    /// such a component as a whole; [`ImageError::NotWritable`] for tiles, which a restore refuses where
    /// the system has not given permission, and for x87 and SSE, which have setters;
    /// [`ImageError::NotManaged`]; [`ImageError::OutOfRange`].
    pub fn write(
        &mut self,
        component: Components,
        at: usize,
        value: &[u8],
    ) -> Result<(), ImageError> {
        if component.number().is_none() || !PLAIN.union(CHECKED).contains(component) {
            return Err(ImageError::NotWritable { component });
        }
        let unknown = ImageError::NotManaged { component };
        let (offset, size) = self.plan.place(component).ok_or(unknown)?;
        if at.checked_add(value.len()).map_or(true, |end| end > size) {
            return Err(ImageError::OutOfRange { component, at, len: value.len() });
        }
        if CHECKED.contains(component) {
            let mut whole = [0; CHECKED_LEN];
            let whole = whole.get_mut(..size).ok_or(ImageError::NotWritable { component })?;
            self.as_image().read(component, 0, whole)?;
            put(whole, at, value)?;
            if let Some(at) = first_illegal(component, whole) {
                let value = whole.get(at).copied().unwrap_or_default();
                return Err(ImageError::IllegalValue { component, at, value });
            }
        }
        self.provide(component);
        put(self.bytes, offset + at, value)
    }
}
