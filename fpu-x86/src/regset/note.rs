//! The layout note of a core file, written and read; the regset of the shadow stack.

use super::UserFormat;
use crate::{
    components::{one, Components, NUMBERS},
    cpuid::Described,
    error::ImageError,
    fields::{put, set, u32_at},
    foreign::ForeignError,
    image::{Image, ImageMut},
    layout::EXTENDED,
    origin::ForeignLayout,
};

/// Bytes of one record of `NT_X86_XSAVE_LAYOUT`: type, size, offset and flags, four bytes each.
const RECORD: usize = 16;
/// In a record's flags, as in CPUID(0xD, i).ECX.
const SUPERVISOR: u32 = 1 << 0;
const ALIGN: u32 = 1 << 1;
const XFD: u32 = 1 << 2;

impl UserFormat<'_> {
    /// Bytes of `NT_X86_XSAVE_LAYOUT`: 16 for each extended component.
    #[must_use]
    pub fn layout_len(&self) -> usize {
        RECORD * self.extended().count()
    }

    /// Writes `NT_X86_XSAVE_LAYOUT` (0x205), of which a core file has one, and returns its length: for each extended
    /// component its number, size, offset and flags. [`ForeignLayout::from_note`](crate::ForeignLayout::from_note) reads
    /// it on another machine.
    ///
    /// # Errors
    ///
    /// [`ImageError::TooShort`]; `out` is unchanged.
    ///
    /// ```
    /// use fpu_x86::{Components, ForeignLayout, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// let mut note = vec![0; plan.user_format().layout_len()];
    /// plan.user_format().write_layout(&mut note)?;
    /// let read = ForeignLayout::from_note(&note)?;
    /// for component in plan.components().iter().filter(|it| it.number() >= Some(2)) {
    ///     assert_eq!(read.place(component), ForeignLayout::of(&plan).place(component));
    /// }
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "NT_X86_XSAVE_LAYOUT")]
    pub fn write_layout(&self, out: &mut [u8]) -> Result<usize, ImageError> {
        let need = self.layout_len();
        let out = out.get_mut(..need).ok_or(ImageError::TooShort { need })?;
        for (record, number) in out.chunks_exact_mut(RECORD).zip(self.extended()) {
            let Some(described) = self.plan.cpuid_info().described(number) else {
                debug_assert!(false, "{:?} is in a plan and not described", one(number));
                continue;
            };
            let flags = u32::from(described.align) << 1 | u32::from(described.xfd) << 2;
            let words = [number, described.size, described.offset, flags];
            for (at, word) in words.into_iter().enumerate() {
                set(record, 4 * at, word.to_le_bytes());
            }
        }
        Ok(need)
    }

    /// Writes `NT_X86_SHSTK` (0x204): the shadow-stack pointer of a task whose image has one, 8 bytes. `None` where the
    /// task has no shadow stack, by the enable bit of its IA32_U_CET: there is no such regset then.
    #[doc(alias = "NT_X86_SHSTK")]
    #[must_use]
    pub fn shadow_stack(&self, image: &Image<'_>) -> Option<[u8; 8]> {
        const ENABLED: u8 = 1 << 0;
        let mut state = [0; 16];
        image.read(Components::CET_U, 0, &mut state).ok()?;
        let [first, ..] = state;
        if first & ENABLED == 0 {
            return None;
        }
        let mut pointer = [0; 8];
        put(&mut pointer, 0, state.get(8..)?).ok()?;
        Some(pointer)
    }

    /// Sets `NT_X86_SHSTK`: a stopped task's shadow-stack pointer, where the task has a shadow stack. Which memory is a
    /// shadow stack is the kernel's to know: the processor checks it at the task's next return.
    ///
    /// # Errors
    ///
    /// `image` is unchanged. [`ImageError::NotManaged`]: the task has no shadow stack, as for
    /// [`shadow_stack`](Self::shadow_stack). [`ImageError::OutOfRange`]: the regset is 8 bytes long.
    /// [`ImageError::IllegalValue`]: the pointer is no multiple of 8, or no address below 2<sup>47</sup>; a restore refuses
    /// some of those (SDM vol. 1, 13.8).
    ///
    /// ```
    /// use fpu_x86::{ImageError, ImageMut, UserFormat};
    /// fn set(format: UserFormat<'_>, image: &mut ImageMut<'_>, regset: &[u8]) -> Result<(), ImageError> {
    ///     format.set_shadow_stack(image, regset)
    /// }
    /// ```
    pub fn set_shadow_stack(
        &self,
        image: &mut ImageMut<'_>,
        regset: &[u8],
    ) -> Result<(), ImageError> {
        const POINTER: usize = 8;
        let component = Components::CET_U;
        if self.shadow_stack(&image.as_image()).is_none() {
            return Err(ImageError::NotManaged { component });
        }
        let len = regset.len();
        let wrong = ImageError::OutOfRange { component, at: POINTER, len };
        let pointer = <[u8; 8]>::try_from(regset).map_err(|_| wrong)?;
        let address = u64::from_le_bytes(pointer);
        let bad = match address {
            _ if address & 7 != 0 => Some(0),
            _ if address >> 47 != 0 => pointer.iter().rposition(|byte| *byte != 0),
            _ => None,
        };
        if let Some(byte) = bad {
            let value = pointer.get(byte).copied().unwrap_or_default();
            return Err(ImageError::IllegalValue { component, at: POINTER + byte, value });
        }
        image.set_shadow_stack(pointer);
        Ok(())
    }
}

impl ForeignLayout {
    /// The layout that a note of type `NT_X86_XSAVE_LAYOUT` (0x205) describes, which Linux puts into core files
    /// since 6.12. A note without records describes a machine without extended components.
    ///
    /// # Errors
    ///
    /// [`ForeignError::LayoutNote`] with the field of the record that cannot be: a number of no extended component, a
    /// second record for one, no size, or a place that lies in the header, in another component's or beyond 1 MiB;
    /// [`ForeignError::WrongLength`] where the note is no list of records, or is longer than 61 of them.
    ///
    /// ```
    /// use fpu_x86::{Components, ForeignError, ForeignLayout};
    /// let mut note = [0; 16];
    /// (note[0], note[5], note[8], note[9]) = (2, 1, 0x40, 2);
    /// let layout = ForeignLayout::from_note(&note)?;
    /// assert_eq!(layout.place(Components::AVX), Some((576, 256)));
    /// note[9] = 1; // at 320, in the legacy area
    /// let refused = ForeignLayout::from_note(&note);
    /// assert_eq!(refused, Err(ForeignError::LayoutNote { offset: 8, value: 320 }));
    /// # Ok::<(), ForeignError>(())
    /// ```
    #[doc(alias = "NT_X86_XSAVE_LAYOUT")]
    pub fn from_note(note: &[u8]) -> Result<Self, ForeignError> {
        const MOST: usize = (NUMBERS - 2) * RECORD;
        const LIMIT: u32 = 1 << 20;
        let len = note.len();
        if len > MOST || len % RECORD != 0 {
            let need = (len - len % RECORD).min(MOST);
            return Err(ForeignError::WrongLength { len, need });
        }
        let mut layout = Self::EMPTY;
        for (index, record) in note.chunks_exact(RECORD).enumerate() {
            let word = |at| u32_at(record, at);
            let wrong =
                |at| Err(ForeignError::LayoutNote { offset: RECORD * index + at, value: word(at) });
            let (number, size, offset, flags) = (word(0), word(4), word(8), word(12));
            let supervisor = flags & SUPERVISOR != 0;
            if number < 2 || layout.described.get(number as usize).map_or(true, |it| it.size != 0) {
                return wrong(0);
            }
            if size == 0 || size > LIMIT {
                return wrong(4);
            }
            if !supervisor {
                let taken = layout.described.iter().any(|it| {
                    let from = u64::from(it.offset);
                    let within = u64::from(offset) < from + u64::from(it.size);
                    let reaches = from < u64::from(offset) + u64::from(size);
                    it.size != 0 && !it.supervisor && within && reaches
                });
                if !(EXTENDED..=LIMIT).contains(&offset) || taken {
                    return wrong(8);
                }
            }
            let (align, xfd) = (flags & ALIGN != 0, flags & XFD != 0);
            if let Some(slot) = layout.described.get_mut(number as usize) {
                *slot = Described { size, offset, supervisor, align, xfd };
            }
        }
        Ok(layout)
    }
}
