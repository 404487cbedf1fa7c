//! The registers of one simulated CPU, and the backend over them.

mod moves;
mod trap;

use super::{
    layout::{get, put, ALL, AVX, FORMAT, FORMAT_VALUE, HEADER_WORDS, PRESENT, TILE},
    line::Line,
    Flaw, Registers, SimImage, SimImageMut, AREA_ALIGN, AREA_LEN, COMPONENTS, LAYOUT,
};
use crate::random::Random;
use core::ptr::NonNull;
use fpu_core::{
    verify::{CompareFpu, Difference},
    IdleFpu, KernelUnits, RawFpu, RestoreFault, StepsFpu,
};
use fpu_x86::units::{SIMD, X87};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// The number of the fault for an illegal image (x86: general protection).
pub(super) const ILLEGAL: RestoreFault = RestoreFault(13);
/// The number of an injected fault (x86: page fault).
pub(super) const INJECTED: RestoreFault = RestoreFault(14);
/// The number of the fault of a restore while the trap is armed (x86: device not available).
pub(super) const TRAPPED: RestoreFault = RestoreFault(7);

/// One CPU's registers. The layout is the same for all values, so any of them is "the backend".
///
/// ```
/// use fpu_hosted_test::sim::{Registers, SimFpu};
/// assert_eq!(SimFpu::new().registers(), Registers::initial());
/// ```
pub struct SimFpu {
    registers: RefCell<Registers>,
    /// XINUSE.
    in_use: Cell<u64>,
    /// XMODIFIED: written since the last restore, whatever was written.
    modified: Cell<u64>,
    /// XRSTOR_INFO: where that restore came from, 0 if it failed.
    restored_from: Cell<usize>,
    fail_in: Cell<Option<u64>>,
    /// `unchanged` compares, and does not always say no.
    tells: Cell<bool>,
    flaw: Option<Flaw>,
    broken: Cell<bool>,
    /// The units of a beginning without an end, or of an end without a beginning.
    pub(super) section: Cell<Option<KernelUnits>>,
    calls: Cell<usize>,
    fetched: Cell<usize>,
    /// CR0.TS.
    armed: Cell<bool>,
    /// Instructions of the kernel that met it.
    kernel_traps: Cell<u64>,
    pub(super) line: Rc<Line>,
}

impl Default for SimFpu {
    fn default() -> Self {
        Self::new()
    }
}

impl SimFpu {
    /// Registers in their initial state.
    #[must_use]
    pub fn new() -> Self {
        Self {
            registers: RefCell::new(Registers::initial()),
            in_use: Cell::new(0),
            modified: Cell::new(ALL),
            restored_from: Cell::new(0),
            fail_in: Cell::new(None),
            tells: Cell::new(false),
            flaw: None,
            broken: Cell::new(false),
            section: Cell::new(None),
            calls: Cell::new(0),
            fetched: Cell::new(0),
            armed: Cell::new(false),
            kernel_traps: Cell::new(0),
            line: Rc::default(),
        }
    }
    /// A backend that does one thing wrong. Only [`SimHarness`](super::SimHarness) has one: with some flaws a safe
    /// call would write outside an area.
    pub(super) fn with_flaw(flaw: Flaw) -> Self {
        Self { flaw: Some(flaw), ..Self::new() }
    }
    /// From now on the backend says where an area holds what the registers hold, so that no save is needed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// the_backend().tell_unchanged();
    /// drop(task.switch_return(&mut cpu)?);
    /// task.switch_prepare(&cpu)?;
    /// assert_eq!((cpu.totals().saved, cpu.totals().unchanged), (0, 1));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn tell_unchanged(&self) {
        self.tells.set(true);
    }
    /// What this backend does wrong.
    #[must_use]
    pub fn flaw(&self) -> Option<Flaw> {
        self.flaw
    }
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// The contents of the registers.
    #[must_use]
    pub fn registers(&self) -> Registers {
        self.registers.borrow().clone()
    }
    /// Code writes all registers. Components that it brings to their initial state are no longer in
    /// use, as after VZEROALL or TILERELEASE.
    pub fn load(&self, registers: &Registers) {
        *self.registers.borrow_mut() = registers.clone();
        self.in_use.set(registers.in_use());
        self.modified.set(ALL);
    }
    /// Code writes one word of one component and leaves everything else alone.
    pub fn write_one(&self, component: usize, word: usize, value: u64) {
        self.registers.borrow_mut().component_mut(component)[word] = value;
        self.in_use.set(self.in_use.get() | 1 << component);
        self.modified.set(self.modified.get() | 1 << component);
    }
    /// One register as an example of all: the first AVX word.
    #[must_use]
    pub fn avx0(&self) -> u64 {
        self.registers.borrow().component(AVX)[0]
    }
    /// Code writes the first AVX word.
    pub fn set_avx0(&self, value: u64) {
        self.write_one(AVX, 0, value);
    }
    /// One register that keeps the core awake: the first tile word.
    #[must_use]
    pub fn tile0(&self) -> u64 {
        self.registers.borrow().component(TILE)[0]
    }
    /// Code writes the first tile word.
    pub fn set_tile0(&self, value: u64) {
        self.write_one(TILE, 0, value);
    }
    /// Vector code: every register changes.
    pub fn scribble(&self, seed: u64) {
        self.load(&Registers::pattern(!seed, ALL));
    }
    /// The area that was fetched last, by its address; asking forgets it.
    ///
    /// ```
    /// use fpu_core::RawFpu;
    /// use fpu_hosted_test::sim::SimFpu;
    /// let (fpu, area) = (SimFpu::new(), 0u64);
    /// fpu.prefetch(std::ptr::NonNull::from(&area).cast());
    /// assert_eq!(fpu.take_fetched(), Some(std::ptr::from_ref(&area) as usize));
    /// assert_eq!(fpu.take_fetched(), None);
    /// ```
    #[must_use]
    pub fn take_fetched(&self) -> Option<usize> {
        Some(self.fetched.take()).filter(|address| *address != 0)
    }
    /// The `nth` restore from now (1: the next) fails half way.
    pub fn fail_restore(&self, nth: u64) {
        self.fail_in.set(Some(nth));
    }
    /// Sleep states lose the registers, and what the CPU remembers of its last restore.
    pub fn lose_power(&self) {
        self.scribble(0x10_57);
        self.restored_from.set(0);
    }

    /// Registers that are neither what they were nor what the image holds.
    fn undefined(&self, seed: u64) {
        let mut all = self.registers.borrow_mut();
        let mut random = Random::new(seed ^ 0xBAD);
        for component in 1..COMPONENTS {
            all.component_mut(component).iter_mut().for_each(|word| {
                // Odd, and a sum: a second failure does not bring the first one's registers back.
                *word = word.wrapping_add(random.word() | 1);
            });
        }
        self.in_use.set(ALL);
        self.modified.set(ALL);
        self.restored_from.set(0);
    }
}

/// Writes what some flaws write.
impl SimFpu {
    /// Components that the image does not have get their initial bytes.
    ///
    /// # Safety
    ///
    /// Valid area (C9).
    unsafe fn clear_old_bytes(&self, area: NonNull<u8>) {
        let initial = Registers::initial();
        // SAFETY: the caller's valid area (C9); every component is inside the area.
        unsafe {
            let present = get(area, PRESENT);
            for (index, component) in LAYOUT.iter().enumerate() {
                for (nth, &value) in initial.component(index).iter().enumerate() {
                    if present >> index & 1 == 0 {
                        put(area, component.offset / 8 + nth, value);
                    }
                }
            }
        }
    }
    /// Does what a flawed restore does to the image.
    ///
    /// # Safety
    ///
    /// Valid area (C9).
    unsafe fn spoil_restored(&self, area: NonNull<u8>) {
        let completes = self.is(Flaw::RestoreCompletesImage);
        // SAFETY: the caller's valid area (C9); the header is inside the area.
        unsafe {
            if completes || self.is(Flaw::RestoreClearsOldBytes) {
                self.clear_old_bytes(area);
            }
            if completes || self.is(Flaw::RestoreMarksPresent) {
                put(area, PRESENT, ALL);
            }
        }
    }
}

// SAFETY: B1: constants; the layout ends at `AREA_LEN`, which a test checks. B2, B3: every component is
// either moved or counted as initial. B4: an illegal image is refused before anything is read from it,
// and none is written by a restore. B5: the checks of `illegal` are what saves, initial images, copies
// and `SimImageMut` keep. B6: cells and copies; stepping calls a test's handler, which is an
// interrupt. B7: `modified` is set by every write of a register and cleared only by a restore, and
// counts only for the address of the last one. B17: all words are compared. With a `Flaw` one of them is broken, for tests that
// expect it.
unsafe impl RawFpu for SimFpu {
    type Image<'a> = SimImage<'a>;
    type ImageMut<'a> = SimImageMut<'a>;

    fn area_len(&self) -> usize {
        if self.is(Flaw::LengthGrows) {
            self.calls.set(self.calls.get() + 8);
        }
        AREA_LEN + self.calls.get()
    }
    fn area_align(&self) -> usize {
        if self.is(Flaw::OddAlignment) {
            return 48;
        }
        AREA_ALIGN
    }
    fn plan_word(&self) -> u64 {
        ALL
    }

    fn prefetch(&self, area: NonNull<u8>) {
        self.fetched.set(area.as_ptr() as usize);
    }
    unsafe fn write_initial(&self, area: NonNull<u8>) {
        self.line.step();
        let zero_control = self.is(Flaw::InitialZeroControl);
        // SAFETY: the caller's valid area (C9); the header, and what is written for a flaw, is inside the area, except
        // for `WritesBefore`, whose test has room there.
        unsafe {
            if !self.is(Flaw::InitialKeepsHeader) {
                put(area, PRESENT, u64::from(zero_control));
            }
            if zero_control {
                put(area, LAYOUT[0].offset / 8, 0);
            }
            if self.is(Flaw::WritesBefore) {
                put(area, 0usize.wrapping_sub(1), 0);
            }
            put(area, FORMAT, FORMAT_VALUE);
            (2..HEADER_WORDS).for_each(|reserved| put(area, reserved, 0));
        }
        self.line.step();
    }

    unsafe fn save(&self, area: NonNull<u8>) {
        // SAFETY: the caller's valid area (C9): with places for all.
        unsafe { self.save_these(area, ALL, 0) }
    }

    unsafe fn unchanged(&self, area: NonNull<u8>) -> bool {
        self.line.step();
        if self.is(Flaw::UnchangedClobbers) {
            self.write_one(2, 1, 0);
        }
        let untouched = self.modified.get() == 0 && self.restored_from.get() != 0;
        if self.is(Flaw::UnchangedGuesses) || untouched && self.is(Flaw::UnchangedForgetsAdoption) {
            return true;
        }
        // SAFETY: the caller's valid area (C9) and no other writer (C11).
        let image = unsafe { self.image(area) };
        let (present, image, registers) = (image.present(), image.registers(), self.registers());
        let compared = COMPONENTS - usize::from(self.is(Flaw::UnchangedSkipsComponent));
        let same = (0..compared).all(|index| {
            self.line.step();
            let initial = self.is(Flaw::UnchangedAsksHeader) && present >> index & 1 == 0;
            initial || image.component(index) == registers.component(index)
        });
        self.tells.get() && same
    }

    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        // SAFETY: the caller's valid area (C9): with places for all.
        unsafe { self.restore_these(area, ALL) }
    }

    unsafe fn kernel_defaults(&self, units: KernelUnits) {
        self.line.step();
        if self.kernel_met_trap() {
            return;
        }
        self.section.set(Some(units));
        if self.is(Flaw::DefaultsMissing) {
            return;
        }
        let initial = Registers::initial();
        if units.contains(X87) || self.is(Flaw::DefaultsForAll) {
            for (nth, &value) in initial.component(0).iter().enumerate() {
                self.write_one(0, nth, value);
            }
        }
        if units.contains(SIMD) {
            self.write_one(1, 0, initial.component(1)[0]);
        }
        self.line.step();
    }

    unsafe fn section_end(&self, units: KernelUnits) {
        self.line.step();
        let _met = self.kernel_met_trap();
        self.section.set((self.section.get() != Some(units)).then_some(units));
        self.broken.set(self.broken.get() || self.is(Flaw::EndBreaksRestores));
    }
    unsafe fn copy_for_child(&self, from: NonNull<u8>, to: NonNull<u8>) {
        self.line.step();
        let words = if self.is(Flaw::ChildGetsHeaderOnly) { HEADER_WORDS } else { AREA_LEN / 8 };
        let kept = LAYOUT
            .iter()
            .enumerate()
            .filter(|(_, component)| component.inherited || self.is(Flaw::ChildInheritsAll))
            .fold(0, |set, (index, _)| set | 1 << index);
        // SAFETY: the caller's valid area (C9) for both, which do not overlap.
        unsafe {
            (0..words).for_each(|index| put(to, index, get(from, index)));
            put(to, PRESENT, get(from, PRESENT) & kept);
            if self.is(Flaw::ChildTakesFromParent) {
                put(from, PRESENT, get(from, PRESENT) & kept);
            }
            if self.is(Flaw::ChildClearsOldBytes) {
                self.clear_old_bytes(from);
            }
        }
        self.line.step();
    }

    unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> SimImage<'a> {
        SimImage::new(area, self.flaw)
    }
    unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> SimImageMut<'a> {
        SimImageMut::new(SimImage::new(area, self.flaw))
    }
}

// SAFETY: B16: what `doc` executes for assembly are these two.
unsafe impl StepsFpu for SimFpu {}

// SAFETY: B8: the views read words of the area, and nothing is written. B9, B10: all words of all components
// are compared, an absent one as its initial value. A `Flaw` breaks one of them on purpose.
unsafe impl CompareFpu for SimFpu {
    unsafe fn same_state(&self, one: NonNull<u8>, other: NonNull<u8>) -> Result<(), Difference> {
        self.line.step();
        // SAFETY: the caller's valid area (C9) and no other writer (C11), for both.
        let (ours, theirs) = unsafe { (self.image(one), self.image(other)) };
        let present = ours.present() ^ theirs.present();
        let old_bytes = self.is(Flaw::CompareSeesOldBytes);
        let (ours, theirs) = (ours.with_old_bytes(old_bytes), theirs.with_old_bytes(old_bytes));
        let compared = COMPONENTS - usize::from(self.is(Flaw::CompareSkipsComponent));
        if self.is(Flaw::CompareWrites) {
            // SAFETY: the caller's valid area (C9) of both, except for the writing: inside the area.
            unsafe { (0..AREA_LEN / 8).for_each(|word| put(one, word, get(other, word))) };
        }
        for (index, component) in LAYOUT.iter().enumerate().take(compared) {
            self.line.step();
            let (ours, theirs) = (ours.component(index), theirs.component(index));
            let by_header = self.is(Flaw::CompareAsksHeader) && present >> index & 1 != 0;
            let nth = ours.iter().zip(theirs).position(|(a, b)| a != b);
            if let Some(nth) = nth.or(by_header.then_some(0)) {
                let offset = (component.offset + 8 * nth) as u32;
                return Err(Difference { component: index as u32, offset });
            }
        }
        Ok(())
    }
}

// SAFETY: B11: reads a cell; what is not in use is initial. B12: the components that keep the core awake, and all of
// each. A `Flaw` breaks one of them on purpose.
unsafe impl IdleFpu for SimFpu {
    unsafe fn keeps_awake(&self) -> bool {
        self.line.step();
        let awake = LAYOUT.iter().enumerate().filter(|(_, component)| component.keeps_awake);
        let awake = awake.fold(0, |set, (index, _)| set | 1 << index);
        self.in_use.get() & awake != 0 && !self.is(Flaw::NeverKeepsAwake)
    }
    unsafe fn release(&self) {
        self.line.step();
        let _met = self.kernel_met_trap();
        let clobbers = self.is(Flaw::ReleaseClobbers);
        let given_up = |component: &super::Component| component.keeps_awake || clobbers;
        for (index, _) in LAYOUT.iter().enumerate().filter(|(_, c)| given_up(c)) {
            self.line.step();
            if !self.is(Flaw::ReleaseKeeps) {
                let torn = usize::from(self.is(Flaw::ReleaseTears));
                let initial = Registers::initial();
                let mut all = self.registers.borrow_mut();
                all.component_mut(index)[torn..].copy_from_slice(&initial.component(index)[torn..]);
                self.in_use.set(self.in_use.get() & !(1 << index));
                self.modified.set(self.modified.get() | 1 << index);
            }
        }
        self.line.step();
    }
}
