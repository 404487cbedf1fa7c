//! The typed views of an image.

use super::{
    layout::{get, put, ALL, AVX, FORMAT, PRESENT},
    Flaw, Registers, COMPONENTS, LAYOUT,
};
use core::{marker::PhantomData, ptr::NonNull};

/// Reads an image: a component that is absent has its initial value, whatever the bytes say.
///
/// ```
/// use fpu_core::TaskFpu;
/// use fpu_hosted_test::sim::{Registers, SimArea, SimCpu};
/// let cpu = SimCpu::online(0);
/// let task = TaskFpu::new(cpu.fpu(), SimArea::new())?;
/// let mut pinned = cpu.preempt_off();
/// let session = task.open(&mut pinned)?.make_memory_valid_read();
/// assert_eq!(session.image().registers(), Registers::initial());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct SimImage<'a> {
    area: NonNull<u8>,
    flaw: Option<Flaw>,
    borrowed: PhantomData<&'a ()>,
}

impl SimImage<'_> {
    /// The caller has C9 and C11 for the lifetime.
    pub(super) fn new(area: NonNull<u8>, flaw: Option<Flaw>) -> Self {
        Self { area, flaw, borrowed: PhantomData }
    }
    fn word(&self, index: usize) -> u64 {
        // SAFETY: valid area (C9) of `image`: an aligned word inside the area.
        unsafe { get(self.area, index) }
    }
    /// The components that are present.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.word(PRESENT)
    }
    /// One register as an example of all: the first AVX word.
    #[must_use]
    pub fn avx0(&self) -> u64 {
        self.registers().component(AVX)[0]
    }
    /// All registers.
    #[must_use]
    pub fn registers(&self) -> Registers {
        self.with_old_bytes(self.flaw == Some(Flaw::ImageShowsOldBytes))
    }
    /// The same; with `old_bytes` whatever lies where a component is absent, too.
    pub(super) fn with_old_bytes(&self, old_bytes: bool) -> Registers {
        let mut all = Registers::initial();
        let shown = if old_bytes { ALL } else { self.present() };
        for (index, component) in LAYOUT.iter().enumerate().filter(|(c, _)| shown >> c & 1 != 0) {
            for (nth, word) in all.component_mut(index).iter_mut().enumerate() {
                *word = self.word(component.offset / 8 + nth);
            }
        }
        all
    }
}

/// Changes an image, only into one that can be loaded.
///
/// ```
/// use fpu_core::TaskFpu;
/// use fpu_hosted_test::sim::{Registers, SimArea, SimCpu};
/// let cpu = SimCpu::online(0);
/// let task = TaskFpu::new(cpu.fpu(), SimArea::new())?;
/// let wanted = Registers::pattern(3, 0b0110);
/// task.open(&mut cpu.preempt_off())?.make_memory_valid_write().image_mut().set(&wanted);
/// task.switch_return(&mut cpu.irqs_off())?;
/// assert_eq!(cpu.fpu().registers(), wanted);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SimImageMut<'a>(SimImage<'a>);

impl<'a> SimImageMut<'a> {
    pub(super) fn new(image: SimImage<'a>) -> Self {
        Self(image)
    }
    /// For reading.
    #[must_use]
    pub fn as_image(&self) -> SimImage<'_> {
        self.0
    }
    fn put(&mut self, index: usize, value: u64) {
        // SAFETY: valid area (C9) of `image_mut`: an aligned word inside the area.
        unsafe { put(self.0.area, index, value) }
    }
    /// Gives one component these words (illegal bits of control words are cleared); shorter slices
    /// leave the rest as it was. One that has no place in the image stays as it is.
    pub fn set_component(&mut self, index: usize, words: &[u64]) {
        let Some(component) = LAYOUT.get(index) else { return };
        if self.0.word(FORMAT) >> index & 1 == 0 {
            return; // it has no place here
        }
        let now = self.0.registers();
        for (nth, &old) in now.component(index).iter().enumerate() {
            let value = words.get(nth).copied().unwrap_or(old);
            let legal = if nth == 0 { component.legal } else { u64::MAX };
            self.put(component.offset / 8 + nth, value & legal);
        }
        if self.0.flaw != Some(Flaw::ImageWriteForgetsHeader) {
            self.put(PRESENT, self.0.present() | 1 << index);
        }
    }
    /// Gives the first AVX word a value.
    pub fn set_avx0(&mut self, value: u64) {
        self.set_component(AVX, &[value]);
    }
    /// Gives all components these values; those that are initial become absent.
    pub fn set(&mut self, registers: &Registers) {
        for index in 0..COMPONENTS {
            if registers.in_use() >> index & 1 != 0 {
                self.set_component(index, registers.component(index));
            } else {
                self.put(PRESENT, self.0.present() & !(1 << index));
            }
        }
    }
}
