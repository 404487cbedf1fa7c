//! Whole images from one format to another, and into a task's image.

use super::{extended::Where, initial::write_initial, read::Image, write::ImageMut};
use crate::{
    components::{extended, one, Components},
    error::ImageError,
    fields::*,
    layout::{PlanPlaces, EXTENDED},
    plan::Plan,
    save_instruction::Format,
};

/// All components, named or not.
const EVERY: Components = Components::from_bits_retain(u64::MAX);

/// An area to be filled, its format, and the places of its extended components.
struct Target<'a> {
    bytes: &'a mut [u8],
    format: Format,
    set: Components,
    places: Where<'a>,
}

impl<'a> Target<'a> {
    /// A save area of a plan.
    fn of(plan: &'a Plan, bytes: &'a mut [u8]) -> Self {
        let places = match plan.format() {
            Format::Legacy => Where::Nowhere,
            _ => Where::At(&plan.layout),
        };
        Self { bytes, format: plan.format(), set: plan.components(), places }
    }

    /// Checks that the area can take these components. Nothing is written.
    fn check(&self, from: &Image<'_>, only: Components) -> Result<(), ImageError> {
        let present = from.present().intersection(only);
        if !self.set.contains(present) {
            return Err(ImageError::NotManaged { component: present.difference(self.set) });
        }
        for number in extended(present) {
            let size = from.component(number).map(<[u8]>::len);
            if size.is_none() || size != self.places.place(number).map(|(_, size)| size) {
                let (component, size) = (one(number), size.unwrap_or_default());
                return Err(ImageError::OtherSize { component, size });
            }
        }
        Ok(())
    }

    /// Makes the components `only` what they are in `from`. What is absent there becomes absent, and its
    /// bytes initial; only bytes of components that the header of `from` marks as present are copied.
    fn take(&mut self, from: &Image<'_>, only: Components) {
        let only = only.intersection(self.set);
        let mut present = from.present().intersection(only);
        if only.contains(Components::X87) {
            self.take_x87(from);
        }
        if only.contains(Components::SSE) {
            let mxcsr = from.mxcsr();
            self.take_sse(from, mxcsr);
            // The standard format has MXCSR whether SSE is present or not, the compacted one only with it.
            if self.format == Format::Compacted && mxcsr != INITIAL_MXCSR {
                present |= Components::SSE;
            }
        }
        for number in extended(only) {
            let Some((offset, size)) = self.places.place(number) else { continue };
            match from.component(number) {
                Some(bytes) => {
                    let done = put(self.bytes, offset, bytes);
                    debug_assert!(done.is_ok(), "`check` has compared the sizes");
                }
                None => clear(self.bytes, offset, offset + size),
            }
        }
        if self.format != Format::Legacy {
            let kept = u64_at(self.bytes, XSTATE_BV) & !only.bits();
            set(self.bytes, XSTATE_BV, (kept | present.bits()).to_le_bytes());
        }
    }

    fn take_x87(&mut self, from: &Image<'_>) {
        if !from.has(Components::X87) {
            for (start, end) in X87_PARTS {
                clear(self.bytes, start, end);
            }
            return set(self.bytes, FCW, INITIAL_FCW.to_le_bytes());
        }
        for (start, end) in X87_PARTS {
            let bytes = part(from.legacy(), start, end - start).unwrap_or_default();
            let done = put(self.bytes, start, bytes);
            debug_assert!(done.is_ok(), "every area has its fixed fields");
        }
    }

    fn take_sse(&mut self, from: &Image<'_>, mxcsr: u32) {
        if from.has(Components::SSE) {
            let bytes = part(from.legacy(), XMM, XMM_END - XMM).unwrap_or_default();
            let done = put(self.bytes, XMM, bytes);
            debug_assert!(done.is_ok(), "every area has its fixed fields");
        } else {
            clear(self.bytes, XMM, XMM_END);
        }
        set(self.bytes, MXCSR, mxcsr.to_le_bytes());
    }
}

impl Image<'_> {
    /// `need` bytes of `out` become this image's components that are in `set`.
    pub(crate) fn export(
        &self,
        out: &mut [u8],
        need: usize,
        format: Format,
        set: Components,
        places: Where<'_>,
    ) -> Result<usize, ImageError> {
        let bytes = out.get_mut(..need).ok_or(ImageError::TooShort { need })?;
        let mut target = Target { bytes, format, set, places };
        target.check(self, set)?;
        target.bytes.fill(0);
        crate::fields::set(target.bytes, MXCSR, INITIAL_MXCSR.to_le_bytes());
        crate::fields::set(target.bytes, MXCSR_MASK, self.plan().mxcsr_mask().to_le_bytes());
        if format == Format::Compacted {
            crate::fields::set(target.bytes, XCOMP_BV, (COMPACTED | set.bits()).to_le_bytes());
        }
        target.take(self, set);
        Ok(need)
    }

    /// Writes the same state in the standard format, which is what signal frames, core files and
    /// debuggers use, and returns the number of bytes: [`Plan::standard_len`].
    ///
    /// Absent components stay absent and their bytes are initial; gaps and reserved bytes are zero, so
    /// the copy has no byte of what lay in the area before.
    ///
    /// # Errors
    ///
    /// [`ImageError::TooShort`]; `out` is unchanged.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use fpu_core::{Area, RawFpu, SaveArea};
    /// use fpu_x86::{Components, Plan};
    /// let plan = Plan::detect_user(Components::all())?;
    /// let area = Area::<16384>::new();
    /// // SAFETY: C9, C11: the area is our own, large enough, and holds an image from the first line on.
    /// let image = unsafe {
    ///     plan.write_initial(area.base());
    ///     plan.image(area.base())
    /// };
    /// let mut frame = vec![0xAA; plan.standard_len()];
    /// assert_eq!(image.to_standard(&mut frame), Ok(frame.len()));
    /// assert_eq!((&frame[..2], &frame[24..28]), (&[0x7F, 0x03][..], &[0x80, 0x1F, 0, 0][..]));
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[doc(alias = "copy_xstate_to_uabi_buf")]
    pub fn to_standard(&self, out: &mut [u8]) -> Result<usize, ImageError> {
        let plan = self.plan();
        let places = Where::Standard(plan);
        self.export(out, plan.standard_len(), Format::Standard, plan.user_components(), places)
    }

    /// Writes the same state in the compacted format of [`Plan::components`], and returns the number of
    /// bytes.
    ///
    /// # Errors
    ///
    /// [`ImageError::TooShort`]; `out` is unchanged.
    pub fn to_compacted(&self, out: &mut [u8]) -> Result<usize, ImageError> {
        let set = self.plan().components();
        let places = PlanPlaces::of(Format::Compacted, set, self.plan().cpuid_info());
        let places = places.map_err(|_| ImageError::NotManaged { component: set })?;
        self.export(out, places.len(), Format::Compacted, set, Where::At(&places))
    }

    /// Writes the same state as a save area of another plan has it, in that plan's own format, and returns the number of
    /// bytes: its [`area_len`](Plan::area_len). For a task, a guest or a checkpoint that goes to another machine, whose plan
    /// is made from its words ([`Plan::for_kernel`], [`Plan::for_user`]), and for a kernel that changes its plan.
    ///
    /// The other machine takes the bytes by [`ForeignImage`](crate::ForeignImage) with the rules
    /// [`compacted`](crate::ForeignRules::compacted), which asks whether the task may use tiles, and takes no
    /// supervisor components; `to_plan` copies them too.
    ///
    /// # Errors
    ///
    /// [`ImageError::TooShort`]; as for [`ImageMut::copy_from`], what `there` cannot hold: [`ImageError::NotManaged`],
    /// [`ImageError::OtherSize`], [`ImageError::ReservedMxcsr`]. `out` is unchanged.
    ///
    /// ```
    /// use fpu_core::{Area, RawFpu, SaveArea};
    /// use fpu_x86::{Components, ForeignImage, ForeignLayout, ForeignRules, Plan, SaveInstruction};
    /// let here = Plan::detect_user(Components::all())?;
    /// let area = Area::<16384>::new();
    /// // SAFETY: C9, C11: the area is our own, large enough, and holds an image from the first line on.
    /// let mut image = unsafe {
    ///     here.write_initial(area.base());
    ///     here.image_mut(area.base())
    /// };
    /// image.set_xmm(3, [7; 16])?;
    /// // Another machine.
    /// # let there = here.clone();
    /// # #[cfg(any())]
    /// let there = Plan::for_user(its_words, its_mxcsr_mask, Components::all())?;
    /// let mut bytes = vec![0; there.area_len()];
    /// image.as_image().to_plan(&there, &mut bytes)?;
    /// // There:
    /// let layout = ForeignLayout::of(&there);
    /// let rules = ForeignRules::new().compacted().layout(&layout);
    /// let valid = ForeignImage::in_private(&mut bytes).validate_by(&rules, &there)?;
    /// assert_eq!(valid.image().xmm(3), Some([7; 16]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "convert")]
    #[doc(alias = "migrate")]
    pub fn to_plan(&self, there: &Plan, out: &mut [u8]) -> Result<usize, ImageError> {
        let need = there.area_len();
        let bytes = out.get_mut(..need).ok_or(ImageError::TooShort { need })?;
        let bits = self.mxcsr() & !there.mxcsr_mask();
        if bits != 0 {
            return Err(ImageError::ReservedMxcsr { bits });
        }
        let mut target = Target::of(there, bytes);
        target.check(self, EVERY)?;
        target.bytes.fill(0);
        write_initial(target.bytes, there);
        target.take(self, EVERY);
        Ok(need)
    }

    /// Writes x87 and SSE as FXSAVE64 does, absent ones as their initial values, and returns which
    /// present components did not fit.
    #[doc(alias = "FXSAVE")]
    pub fn to_fxsave(&self, out: &mut [u8; 512]) -> Components {
        out.fill(0);
        put(out, MXCSR_MASK, &self.plan().mxcsr_mask().to_le_bytes()).unwrap_or_default();
        let (format, set) = (Format::Legacy, Components::LEGACY);
        Target { bytes: out, format, set, places: Where::Nowhere }.take(self, set);
        self.present().difference(set)
    }
}

/// Every component absent, in the standard format.
static INITIAL: [u8; EXTENDED as usize] = {
    let mut bytes = [0; EXTENDED as usize];
    let [low, high, ..] = INITIAL_MXCSR.to_le_bytes();
    (bytes[MXCSR], bytes[MXCSR + 1]) = (low, high);
    bytes
};

impl ImageMut<'_> {
    /// Makes the user components initial, as a signal handler starts with them. Supervisor components stay.
    ///
    /// ```
    /// use fpu_core::{Area, RawFpu, SaveArea};
    /// use fpu_x86::{Components, Plan};
    /// let plan = Plan::detect_user(Components::all())?;
    /// let area = Area::<16384>::new();
    /// // SAFETY: C9, C11: the area is our own, large enough, and holds an image from the first line on.
    /// let mut image = unsafe {
    ///     plan.write_initial(area.base());
    ///     plan.image_mut(area.base())
    /// };
    /// image.set_xmm(3, [7; 16])?;
    /// image.make_initial();
    /// assert_eq!(image.as_image().xmm(3), Some([0; 16]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "fpu__clear_user_states")]
    pub fn make_initial(&mut self) {
        let plan: &Plan = self.plan;
        let initial = Image::elsewhere(&INITIAL, plan, Format::Standard, Where::Nowhere);
        let done = self.import(&initial, EVERY, EVERY.user_part());
        debug_assert!(done.is_ok(), "nothing is present that a plan could lack");
    }

    /// The components `taken` become those of `from`, of which those that are `wanted` must have a place here.
    pub(crate) fn import(
        &mut self,
        from: &Image<'_>,
        wanted: Components,
        taken: Components,
    ) -> Result<(), ImageError> {
        let plan: &Plan = self.plan;
        let bits = from.mxcsr() & !plan.mxcsr_mask();
        if bits != 0 {
            return Err(ImageError::ReservedMxcsr { bits });
        }
        let mut target = Target::of(plan, self.bytes);
        target.check(from, wanted)?;
        target.take(from, taken);
        Ok(())
    }

    /// Makes this image hold the state of another one, whatever plan and format that has.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotManaged`]: `from` holds a component that this plan does not have.
    /// [`ImageError::OtherSize`]: a component of `from` has another size, so `from` is of another CPU.
    /// [`ImageError::ReservedMxcsr`]: `from` is of another CPU. [`ImageError::NotWritable`]: `from` holds tiles; see
    /// [`copy_with_tiles_from`](Self::copy_with_tiles_from). The image is unchanged.
    pub fn copy_from(&mut self, from: &Image<'_>) -> Result<(), ImageError> {
        if from.has(Components::TILEDATA) {
            return Err(ImageError::NotWritable { component: Components::TILEDATA });
        }
        self.import(from, EVERY, EVERY)
    }

    /// As [`copy_from`](Self::copy_from), tiles included.
    ///
    /// # Safety
    ///
    /// Tiles allowed (C24), as for [`ForeignImage::validate_with_tiles`](crate::ForeignImage::validate_with_tiles),
    /// whenever this image is restored.
    ///
    /// # Errors
    ///
    /// As for [`copy_from`](Self::copy_from), except for the tiles.
    pub unsafe fn copy_with_tiles_from(&mut self, from: &Image<'_>) -> Result<(), ImageError> {
        self.import(from, EVERY, EVERY)
    }
}
