//! The CPU that boots: from a plan that CPUID suggests to one that works.
//!
//! The code puts the plan into force. Where the CPU refuses a part, the code removes that part and tries the plan
//! again. Each round takes components, an instruction or a register from the plan, so the rounds end, at the latest
//! with FXSAVE.

use raw_cpuid::CpuIdReaderNative;

use super::{
    control::ControlMismatch,
    enable::{Before, EnableError, IA32_XSS},
};
use crate::{
    components::Components,
    cpuid::CpuidInfo,
    error::{LeftOut, Measured, PlanError},
    insn,
    plan::Plan,
    registers::{ControlRegister, CR4_OSXSAVE},
    save_instruction::{RestoreBy, SaveInstruction},
};

impl Plan {
    /// Puts the plan into force on the CPU that boots as far as the plan works there, and takes the rest out of the
    /// plan. What is left is the plan for all CPUs and areas. A kernel logs its [quirks](Self::quirks).
    ///
    /// The call does what [`enable_on_this_cpu`](Self::enable_on_this_cpu) does, and changes the plan instead of
    /// failing: components that XCR0 or IA32_XSS refuses, or that are not saved where CPUID says, are left out with
    /// their group; the next best instruction replaces one that faults; a register that CPUID promises and that faults
    /// is left alone with what depends on it; where restores keep MXCSR, the plan scrubs. Afterwards CPUID's sizes are
    /// read, and areas are made larger if one of them says so.
    ///
    /// The kernel's handlers serve [`fixup`](crate::fixup) by now: at least those of #UD and #GP.
    ///
    /// # Errors
    ///
    /// [`EnableError::Plan`] with [`PlanError::Required`] if x87 and SSE, or what else is
    /// [required](Self::requiring), cannot be had; of the others, those for which nothing smaller exists. CR0, CR4,
    /// XCR0, IA32_XSS and IA32_XFD are then as before; the plan is what was left of it.
    ///
    /// # Safety
    ///
    /// C1 to C5 as for [`enable_on_this_cpu`](Self::enable_on_this_cpu); no area of the plan exists yet.
    ///
    /// ```no_run
    /// use fpu_x86::{Components, Plan};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut plan = Plan::detect_kernel(Components::USER | Components::CET_U)?;
    /// // SAFETY: C1 to C5: the CPU that boots, interrupts off, the handlers installed.
    /// unsafe { plan.settle_on_this_cpu() }?;
    /// for quirk in plan.quirks() {
    ///     println!("fpu: {quirk}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "fpu__init_system")]
    pub unsafe fn settle_on_this_cpu(&mut self) -> Result<(), EnableError> {
        self.check_ring()?;
        // SAFETY: what enabling asks for (C1 to C5).
        unsafe { self.settle_here_from() }.map(drop)
    }

    /// As [`settle_on_this_cpu`](Self::settle_on_this_cpu). Returns also what the control registers held before.
    ///
    /// # Safety
    ///
    /// As for [`settle_on_this_cpu`](Self::settle_on_this_cpu).
    pub(super) unsafe fn settle_here_from(&mut self) -> Result<Before, EnableError> {
        self.check_ring()?;
        let cpu = CpuidInfo::from_cpuid(CpuIdReaderNative).map_err(EnableError::Plan)?;
        // SAFETY: what enabling asks for (C1 to C5).
        let before = unsafe { self.settle_from(&cpu) }?;
        if let Ok(after) = CpuidInfo::from_cpuid(CpuIdReaderNative) {
            self.note_sizes(&after);
        }
        Ok(before)
    }

    /// As [`settle_on_this_cpu`](Self::settle_on_this_cpu), with given facts: the call executes no CPUID. It does not
    /// look at the sizes that CPUID would give afterwards; a kernel that can read these sizes passes them to
    /// [`with_sizes`](Self::with_sizes).
    ///
    /// # Errors
    ///
    /// As for [`settle_on_this_cpu`](Self::settle_on_this_cpu).
    ///
    /// # Safety
    ///
    /// As for [`settle_on_this_cpu`](Self::settle_on_this_cpu). The call does not rely on the facts being this CPU's:
    /// it tries what they promise.
    pub unsafe fn settle_given(&mut self, cpu: &CpuidInfo) -> Result<(), EnableError> {
        // SAFETY: what enabling asks for (C1 to C5).
        unsafe { self.settle_from(cpu) }.map(drop)
    }

    /// As [`settle_given`](Self::settle_given). Returns also what the control registers held before.
    ///
    /// # Safety
    ///
    /// As for [`settle_on_this_cpu`](Self::settle_on_this_cpu).
    pub(super) unsafe fn settle_from(&mut self, cpu: &CpuidInfo) -> Result<Before, EnableError> {
        loop {
            // SAFETY: what enabling asks for (C1 to C5).
            let why = match unsafe { self.enable_from(cpu) } {
                Ok((_, before)) => return Ok(before),
                Err(why) => why,
            };
            // SAFETY: undisturbed in ring 0 (C1), for both; what `enable_from` has changed is as before.
            let xcr0 = |plan: &Self| unsafe { plan.accepted_by_xcr0() };
            // SAFETY: undisturbed in ring 0 (C1); what `enable_given` has changed is as before.
            let xss = |plan: &Self| unsafe { plan.accepted_by_xss() };
            self.shrink(why, xcr0, xss)?;
        }
    }

    /// Removes from the plan what was refused, or returns an error. `xcr0` and `xss` try
    /// which components those registers accept.
    fn shrink(
        &mut self,
        why: EnableError,
        xcr0: impl FnOnce(&Self) -> Components,
        xss: impl FnOnce(&Self) -> Option<Components>,
    ) -> Result<(), EnableError> {
        use ControlRegister as R;
        let result = match why {
            EnableError::Refused { register: R::Cr4, vector } => {
                self.use_fxsave(LeftOut::Refused { register: R::Cr4, vector })
            }
            EnableError::Refused { register: R::Xcr0, vector } => {
                let accepted = xcr0(self);
                self.keep_only(accepted, LeftOut::Refused { register: R::Xcr0, vector })
            }
            EnableError::Refused { register: R::Xss, vector } => {
                let why = LeftOut::Refused { register: R::Xss, vector };
                match xss(self) {
                    Some(accepted) if !accepted.contains(self.xss()) => {
                        self.keep_only(accepted | !Components::SUPERVISOR, why)
                    }
                    // None of them, or each but not all: then none.
                    _ => self.leave_alone(R::Xss, why),
                }
            }
            EnableError::Refused { register: R::Xfd, vector } => {
                self.leave_alone(R::Xfd, LeftOut::Refused { register: R::Xfd, vector })
            }
            EnableError::Verify(ControlMismatch { register, found: Some(kept), .. }) => {
                match self.keep_what_it_kept(register, Components::from_bits_retain(kept)) {
                    Some(result) => result,
                    None => return Err(why),
                }
            }
            EnableError::InitialState { vector } => {
                let present = Components::empty();
                self.take_a_lesser_instruction(Measured::RestoreFault { vector, present })
            }
            EnableError::Measured(found) => self.leave_out_what_was_measured(found),
            EnableError::KeepsMxcsr if !self.scrubs() => {
                self.restore_by = RestoreBy::Scrubbing;
                self.quirks.keep_mxcsr();
                Ok(())
            }
            _ => return Err(why),
        };
        result.map_err(EnableError::Plan)
    }

    /// Of the plan, by group, what XSETBV accepts together.
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1). CR4 and XCR0 are as before afterwards.
    unsafe fn accepted_by_xcr0(&self) -> Components {
        let mut accepted = Components::empty();
        // SAFETY: N4: undisturbed in ring 0 (C1). N5: the bit has been set before, and the value is put back. N3: it is
        // set.
        unsafe {
            let cr4 = insn::cr4();
            if insn::try_set_cr4(cr4 | CR4_OSXSAVE) != 0 {
                return accepted;
            }
            let before = insn::xgetbv0();
            for group in Components::GROUPS {
                let tried = accepted | group.intersection(self.xcr0());
                if tried != accepted && insn::xsetbv0(tried.bits()) == 0 {
                    accepted = tried;
                }
            }
            let _refused = insn::xsetbv0(before);
            insn::set_cr4(cr4);
        }
        // XCR0 does not enable supervisor components.
        accepted | Components::SUPERVISOR
    }

    /// Of the plan's supervisor components, those that IA32_XSS accepts, each alone; `None` if it accepts nothing.
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1). IA32_XSS is as before afterwards.
    unsafe fn accepted_by_xss(&self) -> Option<Components> {
        // SAFETY: N4: undisturbed in ring 0 (C1). N6: just tried. N5: the value is put back.
        unsafe {
            if insn::rdmsr_fault(IA32_XSS) != 0 {
                return None;
            }
            let before = insn::rdmsr(IA32_XSS);
            let accepts = |set: Components| insn::wrmsr(IA32_XSS, set.bits()) == 0;
            let found = accepts(Components::empty()).then(|| {
                let numbers = self.xss().numbers().filter_map(Components::of_number);
                numbers.filter(|one| accepts(*one)).fold(Components::empty(), Components::union)
            });
            let _refused = insn::wrmsr(IA32_XSS, before);
            found
        }
    }

    /// Leaves out what is not in `kept`, each group by itself. If that is nothing, the refusal was of all
    /// together: no XSAVE.
    fn keep_only(&mut self, kept: Components, why: LeftOut) -> Result<(), PlanError> {
        let lost = self.components().difference(kept);
        if lost.is_empty() || lost.intersects(Components::LEGACY) {
            return self.use_fxsave(why);
        }
        for group in Components::GROUPS {
            // What went with another one is not there any more.
            let lost = lost.intersection(group).intersection(self.components());
            if !lost.is_empty() {
                self.leave_out(lost, why)?;
            }
        }
        Ok(())
    }

    /// Makes the plan one for FXSAVE.
    fn use_fxsave(&mut self, why: LeftOut) -> Result<(), PlanError> {
        self.xsave = false;
        self.bar_instruction(why)
    }

    /// Removes from the plan a register, and what needs it: supervisor components need IA32_XSS; what IA32_XFD can
    /// disable may be disabled.
    fn leave_alone(&mut self, register: ControlRegister, why: LeftOut) -> Result<(), PlanError> {
        self.quirks.leave_alone(register, why);
        if register == ControlRegister::Xss {
            self.writes_xss = false;
            return self.keep_what_can_be_saved(why);
        }
        self.writes_xfd = false;
        let disabled = self
            .components()
            .numbers()
            .filter(|number| self.facts.described(*number).is_some_and(|one| one.xfd))
            .filter_map(Components::of_number)
            .fold(Components::empty(), Components::union);
        if disabled.is_empty() {
            return Ok(());
        }
        self.leave_out(disabled, why)
    }

    /// A register took the value without a fault, and holds another one. `None` if no smaller plan helps.
    fn keep_what_it_kept(
        &mut self,
        register: ControlRegister,
        kept: Components,
    ) -> Option<Result<(), PlanError>> {
        let why = LeftOut::NotKept { register };
        match register {
            ControlRegister::Xcr0 => Some(self.keep_only(kept | Components::SUPERVISOR, why)),
            ControlRegister::Xss if self.xss().difference(kept).is_empty() => {
                Some(self.leave_alone(register, why))
            }
            ControlRegister::Xss => Some(self.keep_only(kept | !Components::SUPERVISOR, why)),
            ControlRegister::Xfd => Some(self.leave_alone(register, why)),
            ControlRegister::Cr4 if self.save_instruction() != SaveInstruction::Fxsave => {
                Some(self.use_fxsave(why))
            }
            _ => None,
        }
    }

    fn leave_out_what_was_measured(&mut self, found: Measured) -> Result<(), PlanError> {
        let component = match found {
            Measured::Elsewhere { component, .. } | Measured::TooLarge { component } => component,
            Measured::Absent { missing } => missing,
            Measured::Outside { present, .. }
            | Measured::Header { present }
            | Measured::RestoreFault { present, .. } => present,
            Measured::SaveFault { .. } => Components::empty(),
        };
        let lost = component.difference(Components::LEGACY);
        // The instruction itself, if it cannot do x87 and SSE or anything.
        if lost.is_empty() || component.contains(Components::LEGACY) {
            return self.take_a_lesser_instruction(found);
        }
        self.leave_out(lost, LeftOut::Measured(found))
    }

    fn take_a_lesser_instruction(&mut self, found: Measured) -> Result<(), PlanError> {
        let why = LeftOut::Measured(found);
        if self.save_instruction() == SaveInstruction::Fxsave {
            return Err(PlanError::Required { component: Components::LEGACY, why });
        }
        self.bar_instruction(why)
    }
}

#[cfg(test)]
#[path = "../tests/settle.rs"]
mod tests;
