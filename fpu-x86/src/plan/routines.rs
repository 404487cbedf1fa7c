//! A plan's save and restore, as functions for assembly.

use super::Plan;
use crate::insn::Routines;

impl Plan {
    /// The save and the restore of this plan as functions in assembly, [scrubbing](Self::scrubs) if the plan does: for the
    /// switch paths of kernels compiled with vector instructions, which call them with the fields of
    /// [`SwitchSteps`](fpu_core::SwitchSteps), [`UserSteps`](fpu_core::UserSteps) or [`SaveSteps`](fpu_core::SaveSteps).
    /// They use general registers only ([`SaveRoutine`](crate::SaveRoutine),
    /// [`RestoreRoutine`](crate::RestoreRoutine) say which). A kernel keeps them where its assembly finds them.
    ///
    /// ```
    /// use fpu_core::RawFpu;
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// #[repr(align(64))]
    /// struct Area([u8; 16384]);
    /// let mut area = Area([0; 16384]);
    /// assert!(plan.area_len() <= 16384);
    /// let routines = plan.routines();
    /// // SAFETY: N1: this CPU's plan, memory of our own, large enough and aligned.
    /// unsafe { (routines.save)(area.0.as_mut_ptr(), plan.plan_word()) };
    /// // SAFETY: N1: the area that was just written, by the same plan. N2: the registers are what they were a moment
    /// // ago.
    /// let fault = unsafe { (routines.restore)(area.0.as_ptr(), plan.plan_word()) };
    /// assert_eq!(fault, 0);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn routines(&self) -> Routines {
        Routines::of(self.instruction, self.restore_by)
    }
}
