//! Typed views of an image in memory.
//!
//! A component whose XSTATE_BV bit is clear is in its initial state, whatever bytes lie in its place
//! (SDM vol. 1, 13.8): reading gives the initial value, and a write first puts the initial value
//! there and then sets the bit. The rest of the header cannot be reached.

use crate::{layout::HEADER, Components, Format, ImageError, Plan};

const FCW: usize = 0;
const FSW: usize = 2;
const TAG: usize = 4;
const FIP: usize = 8;
const FDP: usize = 16;
const MXCSR: usize = 24;
pub(crate) const MXCSR_MASK: usize = 28;
const ST: usize = 32;
const XMM: usize = 160;
const XMM_END: usize = 416;
const XSTATE_BV: usize = HEADER;
const XCOMP_BV: usize = HEADER + 8;
/// XCOMP_BV's bit that says "compacted".
const COMPACTED: u64 = 1 << 63;

const INITIAL_FCW: u16 = 0x37F;
pub(crate) const INITIAL_MXCSR: u32 = 0x1F80;

const AVX: usize = 2;
const OPMASK: usize = 5;
const ZMM_HI256: usize = 6;
const HI16_ZMM: usize = 7;

/// Components any bytes of which a restore accepts: plain data registers.
const PLAIN: Components = Components::AVX.union(Components::AVX512);

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.get(..N)?.try_into().ok()
}
fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Result<(), ImageError> {
    let place = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len()));
    place.ok_or(ImageError::OutOfRange)?.copy_from_slice(value);
    Ok(())
}
fn clear(bytes: &mut [u8], from: usize, to: usize) {
    if let Some(bytes) = bytes.get_mut(from..to) {
        bytes.fill(0);
    }
}
/// Every area has the places that are asked for here, so 0 stands for nothing.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    array(bytes, at).map_or(0, u64::from_le_bytes)
}
fn set<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    let done = put(bytes, at, &value);
    debug_assert!(done.is_ok(), "every area has its fixed fields");
}

/// The initial state into zeroed bytes.
///
/// A standard-format XRSTOR loads MXCSR from memory even if XSTATE_BV says that SSE is initial (SDM
/// vol. 1, 13.8.1), so it is written in every format.
pub(crate) fn write_initial(zeroed: &mut [u8], plan: &Plan) {
    set(zeroed, FCW, INITIAL_FCW.to_le_bytes());
    set(zeroed, MXCSR, INITIAL_MXCSR.to_le_bytes());
    set(zeroed, MXCSR_MASK, plan.mxcsr_mask().to_le_bytes());
    if plan.format() == Format::Compacted {
        set(zeroed, XCOMP_BV, (COMPACTED | plan.mask).to_le_bytes());
    }
}

/// A child starts without its parent's tiles, as on Linux.
pub(crate) fn disinherit(bytes: &mut [u8], plan: &Plan) {
    if plan.format() != Format::Legacy {
        let kept = u64_at(bytes, XSTATE_BV) & !Components::AMX.bits();
        set(bytes, XSTATE_BV, kept.to_le_bytes());
    }
}

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
/// // SAFETY: S1, S3: the area is our own, large enough, and holds an image from the first line on.
/// let image = unsafe {
///     plan.write_initial(area.base());
///     plan.image(area.base())
/// };
/// assert_eq!((image.fcw(), image.mxcsr(), image.xmm(15)), (0x37F, 0x1F80, Some([0; 16])));
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Image<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) plan: &'a Plan,
}

impl core::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Image").field("present", &self.present()).finish_non_exhaustive()
    }
}

impl<'a> Image<'a> {
    /// The components that are in the image; the others are initial. FXSAVE's images have all.
    #[doc(alias = "XSTATE_BV")]
    #[must_use]
    pub fn present(&self) -> Components {
        let bits = match self.plan.format() {
            Format::Legacy => self.plan.mask,
            _ => u64_at(self.bytes, XSTATE_BV) & self.plan.mask,
        };
        Components::from_bits_retain(bits)
    }

    fn has(&self, what: Components) -> bool {
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

    /// MXCSR. The standard format keeps it apart from the SSE component: it is always loaded from
    /// memory. In the compacted one it is initial with it (SDM vol. 1, 13.8.1 and 13.8.2).
    #[must_use]
    pub fn mxcsr(&self) -> u32 {
        if self.plan.format() == Format::Compacted && !self.has(Components::SSE) {
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

    fn element<const N: usize>(
        &self,
        number: usize,
        index: usize,
        count: usize,
    ) -> Option<[u8; N]> {
        let component = Components::from_bits_retain(1 << number);
        if index >= count || !self.plan.components().contains(component) {
            return None;
        }
        if !self.has(component) {
            return Some([0; N]);
        }
        let (offset, size) = self.plan.place(component)?;
        let end = N * (index + 1);
        if end > size {
            return None;
        }
        array(self.bytes, offset + N * index)
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
        let (offset, size) = self.plan.place(component).ok_or(ImageError::NotManaged)?;
        let from = self.bytes.get(offset..offset + size).and_then(|all| all.get(at..));
        let from = from.and_then(|rest| rest.get(..out.len())).ok_or(ImageError::OutOfRange)?;
        if self.has(component) {
            out.copy_from_slice(from);
        } else {
            out.fill(0);
        }
        Ok(())
    }
}

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
/// // SAFETY: S1, S3: the area is our own, large enough, and holds an image from the first line on.
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
    pub(crate) bytes: &'a mut [u8],
    pub(crate) plan: &'a Plan,
}

impl core::fmt::Debug for ImageMut<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ImageMut")
            .field("present", &self.as_image().present())
            .finish_non_exhaustive()
    }
}

// Why a restore accepts what these write (B5). XRSTOR refuses: reserved MXCSR bits; XSTATE_BV bits
// outside XCR0 or, compacted, outside XCOMP_BV; a header that is not zero elsewhere (SDM vol. 1, 13.8);
// and illegal values of a few components. Here MXCSR is checked, bits are set only of components of the
// plan, the rest of the header is not written, and only x87, SSE and `PLAIN` components are, which have
// no illegal values.
impl ImageMut<'_> {
    /// The same image, for reading.
    #[must_use]
    pub fn as_image(&self) -> Image<'_> {
        Image { bytes: self.bytes, plan: self.plan }
    }

    /// Makes one managed component present; it then holds its initial value if it was absent.
    fn provide(&mut self, component: Components) {
        if self.plan.format() == Format::Legacy || self.as_image().has(component) {
            return;
        }
        if component == Components::X87 {
            clear(self.bytes, FCW, MXCSR);
            clear(self.bytes, ST, XMM);
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
    /// [`ImageError::OutOfRange`].
    pub fn set_st(&mut self, index: usize, value: [u8; 10]) -> Result<(), ImageError> {
        if index >= 8 {
            return Err(ImageError::OutOfRange);
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
    /// [`ImageError::OutOfRange`].
    pub fn set_xmm(&mut self, index: usize, value: [u8; 16]) -> Result<(), ImageError> {
        if index >= 16 {
            return Err(ImageError::OutOfRange);
        }
        self.provide(Components::SSE);
        put(self.bytes, XMM + 16 * index, &value)
    }

    fn set_element<const N: usize>(
        &mut self,
        number: usize,
        index: Option<usize>,
        value: [u8; N],
    ) -> Result<(), ImageError> {
        let at = index.and_then(|index| index.checked_mul(N)).ok_or(ImageError::OutOfRange)?;
        self.write(Components::from_bits_retain(1 << number), at, &value)
    }

    /// Sets the upper half of YMM`index`, 0 to 15.
    ///
    /// # Errors
    ///
    /// [`ImageError::OutOfRange`], [`ImageError::NotManaged`]; so for all that follow.
    pub fn set_ymm_hi(&mut self, index: usize, value: [u8; 16]) -> Result<(), ImageError> {
        self.set_element(AVX, Some(index), value)
    }
    /// Sets K`index`, 0 to 7.
    ///
    /// # Errors
    ///
    /// As for [`set_ymm_hi`](Self::set_ymm_hi).
    pub fn set_opmask(&mut self, index: usize, value: u64) -> Result<(), ImageError> {
        self.set_element(OPMASK, Some(index), value.to_le_bytes())
    }
    /// Sets the upper half of ZMM`index`, 0 to 15.
    ///
    /// # Errors
    ///
    /// As for [`set_ymm_hi`](Self::set_ymm_hi).
    pub fn set_zmm_hi256(&mut self, index: usize, value: [u8; 32]) -> Result<(), ImageError> {
        self.set_element(ZMM_HI256, Some(index), value)
    }
    /// Sets ZMM`index`, 16 to 31.
    ///
    /// # Errors
    ///
    /// As for [`set_ymm_hi`](Self::set_ymm_hi).
    pub fn set_zmm_hi16(&mut self, index: usize, value: [u8; 64]) -> Result<(), ImageError> {
        self.set_element(HI16_ZMM, index.checked_sub(16), value)
    }

    /// Writes bytes of one component of vector or mask registers, at offset `at` within it.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotWritable`] for components with values that a restore refuses, and for x87 and
    /// SSE, which have setters; [`ImageError::NotManaged`]; [`ImageError::OutOfRange`].
    pub fn write(
        &mut self,
        component: Components,
        at: usize,
        value: &[u8],
    ) -> Result<(), ImageError> {
        if component.number().is_none() || !PLAIN.contains(component) {
            return Err(ImageError::NotWritable);
        }
        let (offset, size) = self.plan.place(component).ok_or(ImageError::NotManaged)?;
        if at.checked_add(value.len()).map_or(true, |end| end > size) {
            return Err(ImageError::OutOfRange);
        }
        self.provide(component);
        put(self.bytes, offset + at, value)
    }
}
