//! What was tried for less cost, and is not in the library: measured beside it, so that it can be tried again.

use fpu_core::{Area, RawFpu, TheBackend};
use fpu_x86::Plan;

use crate::ways::{restore, save, Make, Tasks, Way};

/// With the word, exactly a page: the areas stand at one place of their pages, so that their addresses differ in bits
/// that a CPU may leave out when it looks for a store before a load.
pub type PageApart = Area<4032>;
impl Make for PageApart {
    fn make(_: &TheBackend<Plan>) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self::new())
    }
}
const _: () = assert!(size_of::<fpu_core::TaskFpu<Plan, PageApart>>() == 4096);

/// The instructions alone, asked for the components that the tasks have in use and no others.
pub struct Trimmed<const SAVE: u8>(pub Tasks, pub u64);

// SAFETY: one instruction each.
unsafe impl<const SAVE: u8> Way for Trimmed<SAVE> {
    /// What is never asked for later is initial from here on.
    #[inline(always)]
    fn unknown(&self, _: usize) {
        restore::<SAVE>(self.0.area(0), self.0.plan.plan_word());
    }
    #[inline(always)]
    fn leave(&self, _: usize, task: usize) {
        save::<SAVE>(self.0.area(task), self.1);
    }
    #[inline(always)]
    fn enter(&self, _: usize, task: usize) {
        restore::<SAVE>(self.0.area(task), self.1);
    }
    #[inline(always)]
    fn section(&self, cpu: usize, task: usize) {
        self.leave(cpu, task);
        self.enter(cpu, task);
    }
}
