//! Reading an image, by register.

use super::extended::Where;
use crate::{
    components::{one, Components},
    error::ImageError,
    fields::*,
    plan::Plan,
    save_instruction::Format,
    x87::X87,
};

/// A read-only view of an image, by register.
///
/// Where a component is absent from the image, its registers read as their initial value. Getters of
/// registers that do not exist, or that the plan does not switch, return `None`.
///
/// ```
/// use core::ptr::NonNull;
/// use fpu_core::{Area, RawFpu, SaveArea};
/// use fpu_x86::{Components, Plan};
/// let plan = Plan::detect_user(Components::all())?;
/// let area = Area::<16384>::new();
/// assert!(plan.area_len() <= area.len());
/// // SAFETY: C9, C11: the area is our own, large enough, and holds an image from the first line on.
/// let image = unsafe {
///     plan.write_initial(area.base());
///     plan.image(area.base())
/// };
/// assert_eq!((image.fcw(), image.mxcsr(), image.xmm(15)), (0x37F, 0x1F80, Some([0; 16])));
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Image<'a> {
    bytes: &'a [u8],
    plan: &'a Plan,
    /// The plan's own, or that of foreign bytes which the plan has validated.
    format: Format,
    places: Where<'a>,
}

impl core::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Image").field("present", &self.present()).finish_non_exhaustive()
    }
}

impl<'a> Image<'a> {
    /// An image in the plan's own format.
    pub(crate) fn new(bytes: &'a [u8], plan: &'a Plan) -> Self {
        let places = match plan.format() {
            Format::Legacy => Where::Nowhere,
            _ => Where::At(&plan.layout),
        };
        Self { bytes, plan, format: plan.format(), places }
    }
    /// Foreign bytes that were validated, possibly ending behind the last component present.
    pub(crate) fn elsewhere(
        bytes: &'a [u8],
        plan: &'a Plan,
        format: Format,
        places: Where<'a>,
    ) -> Self {
        Self { bytes, plan, format, places }
    }
    /// Offset and size of an extended component of the plan.
    pub(super) fn place(&self, number: u32) -> Option<(usize, usize)> {
        self.places.place(number)
    }
    /// The bytes of an extended component, if it is present.
    pub(super) fn component(&self, number: u32) -> Option<&'a [u8]> {
        let (offset, size) = self.place(number)?;
        if self.has(one(number)) {
            part(self.bytes, offset, size)
        } else {
            None
        }
    }
    /// Is an extended component absent, or all zero, which is the initial value of them all?
    pub(crate) fn is_initial(&self, number: u32) -> bool {
        self.component(number).map_or(true, |bytes| bytes.iter().all(|byte| *byte == 0))
    }
    /// The fixed part that all formats have.
    pub(super) fn legacy(&self) -> &'a [u8] {
        part(self.bytes, 0, XSTATE_BV).unwrap_or_default()
    }
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    pub(crate) fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// The components that are in the image; the others are initial. FXSAVE's images have all.
    #[doc(alias = "XSTATE_BV")]
    #[must_use]
    pub fn present(&self) -> Components {
        let bits = match self.format {
            Format::Legacy => Components::LEGACY.bits(),
            _ => u64_at(self.bytes, XSTATE_BV) & self.plan.mask,
        };
        Components::from_bits_retain(bits)
    }

    pub(super) fn has(&self, what: Components) -> bool {
        self.present().contains(what)
    }

    /// The x87 control word.
    #[must_use]
    pub fn fcw(&self) -> u16 {
        if self.has(Components::X87) {
            u16_at(self.bytes, FCW)
        } else {
            INITIAL_FCW
        }
    }

    /// The x87 status word.
    #[must_use]
    pub fn fsw(&self) -> u16 {
        if self.has(Components::X87) {
            u16_at(self.bytes, FSW)
        } else {
            0
        }
    }

    /// The abridged x87 tag word: one bit for each physical register, set if it is not empty.
    #[must_use]
    pub fn tags(&self) -> u8 {
        if self.has(Components::X87) {
            u16_at(self.bytes, TAG) as u8
        } else {
            0
        }
    }

    /// The opcode of the last x87 instruction: 11 bits.
    #[must_use]
    pub fn fop(&self) -> u16 {
        if self.has(Components::X87) {
            u16_at(self.bytes, FOP)
        } else {
            0
        }
    }

    /// The address of the last x87 instruction, all 64 bits of it.
    #[must_use]
    pub fn fip(&self) -> u64 {
        if self.has(Components::X87) {
            u64_at(self.bytes, FIP)
        } else {
            0
        }
    }

    /// The address of the last x87 memory operand.
    #[must_use]
    pub fn fdp(&self) -> u64 {
        if self.has(Components::X87) {
            u64_at(self.bytes, FDP)
        } else {
            0
        }
    }

    /// ST(`index`), 0 to 7: 80 bits, whether or not its tag says that it is empty.
    #[must_use]
    pub fn st(&self, index: usize) -> Option<[u8; 10]> {
        if index >= 8 {
            return None;
        }
        if !self.has(Components::X87) {
            return Some([0; 10]);
        }
        array(self.bytes, ST + 16 * index)
    }

    /// All of the x87 unit.
    #[must_use]
    pub fn x87(&self) -> X87 {
        let mut x87 = X87 {
            fcw: self.fcw(),
            fsw: self.fsw(),
            tags: self.tags(),
            fop: self.fop(),
            fip: self.fip(),
            fdp: self.fdp(),
            ..X87::INITIAL
        };
        for (index, register) in x87.st.iter_mut().enumerate() {
            *register = self.st(index).unwrap_or_default();
        }
        x87
    }

    /// MXCSR. The standard format keeps it apart from the SSE component: it is always loaded from
    /// memory. In the compacted one it is initial with it (SDM vol. 1, 13.8.1 and 13.8.2).
    #[must_use]
    pub fn mxcsr(&self) -> u32 {
        if self.format == Format::Compacted && !self.has(Components::SSE) {
            return INITIAL_MXCSR;
        }
        u32_at(self.bytes, MXCSR)
    }

    /// XMM`index`, 0 to 15.
    #[must_use]
    pub fn xmm(&self, index: usize) -> Option<[u8; 16]> {
        if index >= 16 {
            return None;
        }
        if !self.has(Components::SSE) {
            return Some([0; 16]);
        }
        array(self.bytes, XMM + 16 * index)
    }

    fn element<const N: usize>(&self, number: u32, index: usize, count: usize) -> Option<[u8; N]> {
        if index >= count || !self.plan.components().contains(one(number)) {
            return None;
        }
        match self.component(number) {
            Some(bytes) => array(bytes, N * index),
            None => Some([0; N]),
        }
    }

    /// The upper half of YMM`index`, 0 to 15.
    #[must_use]
    pub fn ymm_hi(&self, index: usize) -> Option<[u8; 16]> {
        self.element(AVX, index, 16)
    }
    /// K`index`, 0 to 7.
    #[must_use]
    pub fn opmask(&self, index: usize) -> Option<u64> {
        self.element(OPMASK, index, 8).map(u64::from_le_bytes)
    }
    /// The upper half of ZMM`index`, 0 to 15.
    #[must_use]
    pub fn zmm_hi256(&self, index: usize) -> Option<[u8; 32]> {
        self.element(ZMM_HI256, index, 16)
    }
    /// ZMM`index`, 16 to 31.
    #[must_use]
    pub fn zmm_hi16(&self, index: usize) -> Option<[u8; 64]> {
        self.element(HI16_ZMM, index.checked_sub(16)?, 16)
    }

    /// Copies bytes of one extended component (number 2 and up), from offset `at` within it; zeros if
    /// it is absent, which is the initial value of them all.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotManaged`], [`ImageError::OutOfRange`]: `out` is unchanged.
    #[doc(alias = "get_xsave_field_ptr")]
    pub fn read(&self, component: Components, at: usize, out: &mut [u8]) -> Result<(), ImageError> {
        let unknown = ImageError::NotManaged { component };
        let number = component.number().ok_or(unknown)?;
        let (_, size) = self.place(number).ok_or(unknown)?;
        let outside = ImageError::OutOfRange { component, at, len: out.len() };
        if at.checked_add(out.len()).map_or(true, |end| end > size) {
            return Err(outside);
        }
        match self.component(number) {
            Some(bytes) => out.copy_from_slice(part(bytes, at, out.len()).ok_or(outside)?),
            None => out.fill(0),
        }
        Ok(())
    }
}
