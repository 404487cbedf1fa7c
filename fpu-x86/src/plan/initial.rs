//! Plans that leave out the save and the restore of contexts whose registers are all initial.
//!
//! A task that never touched the registers has an image in which every component is absent, and registers that are all in
//! their initial state. XGETBV with ECX = 1 says so of the registers in the time of a few instructions on most CPUs; on some
//! it takes nearly as long as the save that it spares.

use super::Plan;
#[cfg(fpu_instructions)]
use crate::insn;
use crate::{
    components::Components,
    save_instruction::{RestoreBy, SaveInstruction},
};

/// Of so many tries the fastest counts.
#[cfg(fpu_instructions)]
const TRIES: u32 = 32;
/// Instructions of one try.
#[cfg(fpu_instructions)]
const IN_A_ROW: u32 = 8;

/// Tells whether asking is worth it: a switch asks twice, once before the restore and once before the save.
fn pays(asking: u64, save: u64) -> bool {
    asking > 0 && asking.saturating_mul(2) < save
}

impl Plan {
    /// This plan, which saves and restores nothing of a context that is initial in memory and in the registers.
    ///
    /// Before each save and each restore the plan looks whether the image has no component. Only then does it ask the CPU
    /// whether registers are in use (XGETBV with ECX = 1, and MXCSR), so tasks that use registers pay for a comparison.
    /// `docs/performance.md` has what that gains.
    ///
    /// It stays as it is where that is not possible: without that XGETBV, with FXSAVE, with supervisor components (of which
    /// XGETBV says nothing), and with [`scrubbing`](Self::scrubbing). A [`DynamicPlan`](crate::DynamicPlan) does
    /// not skip. Images, areas and other CPUs' plans have nothing to do with it.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// assert!(!plan.skips_initial());
    /// let can = plan.cpuid_info().xgetbv1() && !plan.scrubs();
    /// assert_eq!(plan.skipping_initial().skips_initial(), can);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn skipping_initial(mut self) -> Self {
        if self.can_skip_initial(self.instruction) {
            self.restore_by = RestoreBy::UnlessInitial;
        }
        self
    }

    /// This plan, which saves and restores every context.
    pub(crate) fn never_skipping_initial(mut self) -> Self {
        if self.skips_initial() {
            self.restore_by = match self.instruction {
                SaveInstruction::Xsaves => RestoreBy::Xrstors,
                _ => RestoreBy::Xrstor,
            };
        }
        self
    }

    /// Tells whether nothing is saved and restored of contexts that are initial.
    #[must_use]
    pub fn skips_initial(&self) -> bool {
        self.restore_by == RestoreBy::UnlessInitial
    }

    pub(super) fn can_skip_initial(&self, instruction: SaveInstruction) -> bool {
        self.facts.xgetbv1()
            && !self.scrubs()
            && !self.facts.keeps_x87_pointers()
            && instruction != SaveInstruction::Fxsave
            && !self.components().intersects(Components::SUPERVISOR)
    }
}

#[cfg(fpu_instructions)]
impl Plan {
    /// As [`skipping_initial`](Self::skipping_initial), if asking twice takes less time on this CPU than the plan's save of x87
    /// and SSE, both measured now by the time-stamp counter. Without a counter, or with one that stands still, the plan stays
    /// as it is. No register changes.
    ///
    /// A kernel calls this once, on the CPU that boots, with the plan that has been settled: in `keep` of
    /// [`bring_up_boot_cpu`](crate::bring_up_boot_cpu). The others then go by the same plan; on a CPU whose XGETBV is slower
    /// that is as right.
    ///
    /// # Safety
    ///
    /// Components on (C6) of [`measure`](Self::measure). In ring 3 the system lets programs read the counter (N12: CR4.TSD is
    /// clear).
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// // SAFETY: C6: the system has enabled them. N12: it lets programs read the counter.
    /// let plan = unsafe { plan.skipping_initial_if_cheaper() };
    /// println!("tasks without registers in use cost nothing: {}", plan.skips_initial());
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub unsafe fn skipping_initial_if_cheaper(self) -> Self {
        if !self.facts.tsc() || !self.can_skip_initial(self.instruction) {
            return self;
        }
        // SAFETY: components on (C6), counter readable (N12) by the caller, and the facts have both.
        let (asking, save) = unsafe { self.cost_of_asking_and_of_a_save() };
        if pays(asking, save) {
            self.skipping_initial()
        } else {
            self
        }
    }

    /// # Safety
    ///
    /// As for [`skipping_initial_if_cheaper`](Self::skipping_initial_if_cheaper), of a plan that can skip.
    unsafe fn cost_of_asking_and_of_a_save(&self) -> (u64, u64) {
        /// x87, SSE and the header.
        #[repr(C, align(64))]
        struct Memory([u8; 576]);
        let mut memory = Memory([0; 576]);
        let area = memory.0.as_mut_ptr();
        let legacy = Components::LEGACY.bits();
        let fastest = |step: &mut dyn FnMut()| {
            (0..TRIES).fold(u64::MAX, |least, _| {
                // SAFETY: counter readable (N12) by the caller.
                let from = unsafe { insn::ticks() };
                (0..IN_A_ROW).for_each(|_| step());
                // SAFETY: counter readable (N12) by the caller.
                least.min(unsafe { insn::ticks() }.wrapping_sub(from))
            })
        };
        let asking = fastest(&mut || {
            // SAFETY: N3, N8: a plan that can skip has XSAVE enabled (C6) and this XGETBV. N2: MXCSR is only read.
            unsafe { insn::are_initial(u64::MAX) };
        });
        let save = fastest(&mut || {
            // SAFETY: N1: the plan's instruction, components on (C6), memory of this function's own.
            unsafe {
                match self.instruction {
                    SaveInstruction::Xsaves => insn::xsaves(area, legacy),
                    SaveInstruction::Xsavec => insn::xsavec(area, legacy),
                    SaveInstruction::Xsaveopt => insn::xsaveopt(area, legacy),
                    _ => insn::xsave(area, legacy),
                }
            }
        });
        (asking, save)
    }
}

#[cfg(test)]
#[path = "../tests/skip_initial.rs"]
mod tests;
