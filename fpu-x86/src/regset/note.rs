//! The layout note of a core file.

use super::UserFormat;
use crate::{
    foreign::RECORD,
    image::{one, put, set},
    ImageError,
};

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
            let Some(described) = self.plan.facts().described(number) else {
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
    pub fn shadow_stack(&self, image: &crate::Image<'_>) -> Option<[u8; 8]> {
        const ENABLED: u8 = 1 << 0;
        let mut state = [0; 16];
        image.read(crate::Components::CET_U, 0, &mut state).ok()?;
        let [first, ..] = state;
        if first & ENABLED == 0 {
            return None;
        }
        let mut pointer = [0; 8];
        put(&mut pointer, 0, state.get(8..)?).ok()?;
        Some(pointer)
    }
}
