//! The published crate `xsave`: one XSAVE and one XRSTOR of all components that are enabled, and no record of owners.

use std::{arch::asm, cell::UnsafeCell};

use fpu_x86::Plan;
use xsave::XSave;

use crate::{
    peers::Bare,
    ways::{Tasks, Way, TASKS, XSAVE},
    Failure,
};

/// Areas of that crate beside tasks of ours, from which they get their images.
pub struct Published {
    pub bare: Bare<XSAVE>,
    areas: [UnsafeCell<XSave>; TASKS],
}

impl Published {
    /// With a plan that saves by XSAVE; `None`: the crate's area is too small for what is enabled on this CPU.
    pub fn new(plan: Plan) -> Result<Option<Self>, Failure> {
        // The crate asks for all components, and its area has one size.
        let enabled = raw_cpuid::CpuId::new().get_extended_state_info();
        let needs = enabled.map_or(u32::MAX, |info| info.xsave_area_size_enabled_features());
        if needs as usize > size_of::<XSave>() {
            return Ok(None);
        }
        let areas = std::array::from_fn(|_| UnsafeCell::default());
        Ok(Some(Self { bare: Bare(Tasks::new(plan)?.checked()?), areas }))
    }
}

// SAFETY: one instruction each, and copies of bytes without vector registers. One thread uses the areas.
unsafe impl Way for Published {
    /// The images are those of the tasks.
    #[inline(always)]
    fn unknown(&self, _: usize) {
        for task in 0..TASKS {
            let (from, to) = (self.bare.0.area(task), self.areas[task].get());
            let bytes = size_of::<XSave>();
            // SAFETY: a task's area has 4096 bytes, the crate's as many as are copied; nothing else uses them meanwhile.
            unsafe {
                asm!("rep movsb", inout("rcx") bytes => _, inout("rsi") from => _, inout("rdi") to => _, options(nostack, preserves_flags));
            }
        }
    }
    #[inline(always)]
    fn leave(&self, _: usize, task: usize) {
        // SAFETY: one thread uses the areas, in one call at a time.
        unsafe { (*self.areas[task].get()).save() }
    }
    #[inline(always)]
    fn enter(&self, _: usize, task: usize) {
        // SAFETY: one thread uses the areas, in one call at a time.
        unsafe { (*self.areas[task].get()).load() }
    }
    #[inline(always)]
    fn section(&self, cpu: usize, task: usize) {
        self.leave(cpu, task);
        self.enter(cpu, task);
    }
    #[inline(always)]
    fn guest(&self, cpu: usize, task: usize) {
        self.leave(cpu, task);
        self.enter(cpu, crate::ways::GUEST);
        self.leave(cpu, crate::ways::GUEST);
        self.enter(cpu, task);
    }
}
