//! The harness with the areas and seeds of one check, and how a check ends.

use super::{memory::Memory, Harness, Outcome, Step};
use alloc::{format, string::String, vec::Vec};
use core::ptr::NonNull;
use fpu_core::RawFpu;

pub(super) type Answer = Result<(), String>;

/// Why a check did not pass.
pub(super) enum Why {
    Failed(String),
    Skipped(&'static str),
}
impl From<String> for Why {
    fn from(why: String) -> Self {
        Why::Failed(why)
    }
}

/// The harness with the areas and seeds of one check.
pub(super) struct Bench<'h, H: Harness> {
    pub(super) harness: &'h mut H,
    seed: u64,
    pub(super) len: usize,
    pub(super) align: usize,
}

impl<'h, H: Harness> Bench<'h, H> {
    pub(super) fn new(harness: &'h mut H, seed: u64) -> Self {
        let (len, align) = (harness.fpu().area_len(), harness.fpu().area_align());
        Self { harness, seed, len, align }
    }
    pub(super) fn seed(&mut self) -> u64 {
        self.seed += 1;
        self.seed
    }
    pub(super) fn every(&self) -> u64 {
        (1 << self.harness.components()) - 1
    }
    /// Component sets worth trying: all of them if they are few, else none, all, each one, all but one.
    pub(super) fn sets(&self) -> Vec<u64> {
        let every = self.every();
        if self.harness.components() <= 4 {
            return (0..=every).collect();
        }
        let each = (0..self.harness.components()).flat_map(|c| [1 << c, every & !(1 << c)]);
        [0, every].into_iter().chain(each).collect()
    }
    pub(super) fn memory(&self, poison: u8) -> Memory {
        Memory::new(self.len, self.align, poison)
    }
    /// An area with the initial image.
    pub(super) fn fresh(&self) -> Memory {
        let mut memory = self.memory(0x5A);
        // SAFETY: C9: `Memory` is long enough, aligned and ours.
        unsafe { self.harness.fpu().write_initial(memory.base()) };
        memory
    }
    pub(super) fn pattern(&mut self, present: u64) -> H::Registers {
        let seed = self.seed();
        self.harness.pattern(seed, present)
    }
    /// Executes steps whose areas are all of `Memory` with an image in them.
    pub(super) fn run(&mut self, steps: &[Step<'_, H::Registers>]) -> Outcome<H::Registers> {
        // SAFETY: C9: the areas are as described.
        unsafe { self.harness.run(steps) }
    }
    /// An area with this image, saved.
    pub(super) fn saved(&mut self, registers: &H::Registers) -> Memory {
        let mut memory = self.fresh();
        self.run(&[Step::Load(registers), Step::Save(memory.base())]);
        memory
    }
    /// The registers after a restore over other contents.
    pub(super) fn restored(&mut self, area: NonNull<u8>) -> Result<H::Registers, String> {
        let other = self.pattern(self.every());
        let Outcome { restored, registers } = self.run(&[Step::Load(&other), Step::Restore(area)]);
        match restored {
            Ok(()) => Ok(registers),
            Err(why) => Err(format!("an image of the backend's own was refused: {why}")),
        }
    }
    /// Checks that a restore gives these registers.
    pub(super) fn restores(
        &mut self,
        area: NonNull<u8>,
        expect: &H::Registers,
        what: &str,
    ) -> Answer {
        same(&self.restored(area)?, expect, what)
    }
    /// A child's image, over anything.
    pub(super) fn child(&mut self, parent: &mut Memory) -> Memory {
        let mut child = self.memory(0xFF);
        // SAFETY: valid area (C9) for both, which are two values.
        unsafe { self.harness.fpu().copy_for_child(parent.base(), child.base()) };
        child
    }
    pub(super) fn view(&self, memory: &mut Memory) -> Option<H::Registers> {
        // SAFETY: valid area (C9) as in `fresh`, and an image is in it; C11: no other code has the memory.
        self.harness.view(unsafe { self.harness.fpu().image(memory.base()) })
    }
    pub(super) fn write(&self, memory: &mut Memory, registers: &H::Registers) -> bool {
        // SAFETY: as in `view`.
        self.harness.write(unsafe { self.harness.fpu().image_mut(memory.base()) }, registers)
    }
}

pub(super) fn same<R: PartialEq + core::fmt::Debug>(got: &R, expect: &R, what: &str) -> Answer {
    if got == expect {
        return Ok(());
    }
    Err(format!("{what}: got {got:?}, expected {expect:?}"))
}
