//! The CPU that boots: from a plan that CPUID suggests to one that works.
//!
//! The plan is put into force. Where that is refused, the plan becomes smaller by what was refused, and is tried
//! again: each time it loses components, an instruction or a register, so that this ends, with FXSAVE if with
//! nothing else.

use raw_cpuid::CpuIdReaderNative;

use crate::{
    control::CR4_OSXSAVE,
    enable::{self, EnableError},
    insn, Components, ControlMismatch, ControlRegister, Facts, LeftOut, Measured, Plan, PlanError,
    Quirk, Rung,
};

impl Plan {
    /// On the CPU that boots: puts the plan into force as far as it works there, and returns what does. That plan
    /// is the one for all CPUs and areas; its [quirks](Self::quirks) are what a kernel logs.
    ///
    /// It does what [`enable_on_this_cpu`](Self::enable_on_this_cpu) does, and takes an answer instead of an error:
    /// components that XCR0 or IA32_XSS refuses, or that are not saved where CPUID says, are left out with
    /// their group; an instruction that faults makes room for the next best; a register that CPUID promises and
    /// that faults is left alone with what depends on it; where restores keep MXCSR, the plan scrubs.
    /// Afterwards CPUID's sizes are read, and areas are made larger if one of them says so.
    ///
    /// The kernel's handlers serve [`fixup`](crate::fixup) by now: at least those of #UD and #GP.
    ///
    /// # Errors
    ///
    /// [`EnableError::Plan`] with [`PlanError::Required`] if x87 and SSE, or what else is
    /// [required](Self::requiring), cannot be had; of the others, those for which nothing smaller exists. CR0, CR4,
    /// XCR0, IA32_XSS and IA32_XFD are then as before.
    ///
    /// # Safety
    ///
    /// C1 to C5 as for [`enable_on_this_cpu`](Self::enable_on_this_cpu); no area of the plan exists yet.
    ///
    /// ```no_run
    /// use fpu_x86::{Components, Plan};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let plan = Plan::detect_kernel(Components::USER | Components::CET_U)?;
    /// // SAFETY: C1 to C5: the CPU that boots, interrupts off, the handlers installed.
    /// let plan = unsafe { plan.settle_on_this_cpu() }?;
    /// for quirk in plan.quirks() {
    ///     println!("fpu: {quirk}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "fpu__init_system")]
    pub unsafe fn settle_on_this_cpu(self) -> Result<Self, EnableError> {
        self.check_ring()?;
        let cpu = Facts::from_cpuid(CpuIdReaderNative).map_err(EnableError::Plan)?;
        // SAFETY: C1 to C5.
        let plan = unsafe { self.settle_given(&cpu) }?;
        Ok(match Facts::from_cpuid(CpuIdReaderNative) {
            Ok(after) => plan.with_sizes(&after),
            Err(_) => plan,
        })
    }

    /// The same on a CPU whose CPUID is given: none is executed. Sizes that CPUID would give afterwards are not
    /// looked at; a kernel that can read them passes them to [`with_sizes`](Self::with_sizes).
    ///
    /// # Errors
    ///
    /// As for [`settle_on_this_cpu`](Self::settle_on_this_cpu).
    ///
    /// # Safety
    ///
    /// As for [`settle_on_this_cpu`](Self::settle_on_this_cpu). That the facts are this CPU's is not relied on:
    /// what they promise is tried.
    pub unsafe fn settle_given(self, cpu: &Facts) -> Result<Self, EnableError> {
        let mut plan = self;
        loop {
            // SAFETY: C1 to C5.
            match unsafe { plan.enable_given(cpu) } {
                Ok(_) => return Ok(plan),
                // SAFETY: C1; what `enable_given` has changed is as before.
                Err(why) => plan = unsafe { plan.smaller(why) }?,
            }
        }
    }

    /// What is left of the plan after a refusal: less than before.
    ///
    /// # Safety
    ///
    /// C1 as for [`enable_on_this_cpu`](Self::enable_on_this_cpu).
    unsafe fn smaller(self, why: EnableError) -> Result<Self, EnableError> {
        use ControlRegister as R;
        let rest = match why {
            EnableError::Refused { register: R::Cr4, vector } => {
                self.without_xsave(LeftOut::Refused { register: R::Cr4, vector })
            }
            EnableError::Refused { register: R::Xcr0, vector } => {
                let why = LeftOut::Refused { register: R::Xcr0, vector };
                // SAFETY: C1.
                let accepted = unsafe { self.accepted_by_xcr0() };
                self.only(accepted, why)
            }
            EnableError::Refused { register: R::Xss, vector } => {
                let why = LeftOut::Refused { register: R::Xss, vector };
                // SAFETY: C1.
                match unsafe { self.accepted_by_xss() } {
                    Some(accepted) => self.only(accepted | !Components::SUPERVISOR, why),
                    None => self.leaving_alone(R::Xss, vector),
                }
            }
            EnableError::Refused { register: R::Xfd, vector } => self.leaving_alone(R::Xfd, vector),
            EnableError::Verify(ControlMismatch { register, found: Some(kept), .. }) => {
                self.keeping(register, Components::from_bits_retain(kept)).ok_or(why)?
            }
            EnableError::InitialState { vector } => {
                let present = Components::empty();
                self.by_a_lesser_instruction(Measured::RestoreFault { vector, present })
            }
            EnableError::Measured(found) => self.without_what_was_measured(found),
            EnableError::KeepsMxcsr if !self.scrubs() => {
                let mut plan = self.scrubbing();
                plan.quirks.add(Quirk::KeepsMxcsr);
                Ok(plan)
            }
            _ => return Err(why),
        };
        rest.map_err(EnableError::Plan)
    }

    /// Of the plan, by group, what XSETBV accepts together.
    ///
    /// # Safety
    ///
    /// C1. CR4 and XCR0 are as before afterwards.
    unsafe fn accepted_by_xcr0(&self) -> Components {
        let mut accepted = Components::empty();
        // SAFETY: N4: C1. N5: the bit has been set before, and the value is put back. N3: it is set.
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
        // Supervisor components are not its business.
        accepted | Components::SUPERVISOR
    }

    /// Of the plan's supervisor components, those that IA32_XSS accepts, each alone; `None` if it accepts nothing.
    ///
    /// # Safety
    ///
    /// C1. IA32_XSS is as before afterwards.
    unsafe fn accepted_by_xss(&self) -> Option<Components> {
        // SAFETY: N4: C1. N6: just tried. N5: the value is put back.
        unsafe {
            if insn::rdmsr_fault(enable::IA32_XSS) != 0 {
                return None;
            }
            let before = insn::rdmsr(enable::IA32_XSS);
            let accepts = |set: Components| insn::wrmsr(enable::IA32_XSS, set.bits()) == 0;
            let found = accepts(Components::empty()).then(|| {
                let numbers = self.xss().numbers().filter_map(Components::of_number);
                numbers.filter(|one| accepts(*one)).fold(Components::empty(), Components::union)
            });
            let _refused = insn::wrmsr(enable::IA32_XSS, before);
            found
        }
    }

    /// Without what is not in `kept`. If that is nothing, the refusal was of all together: no XSAVE.
    fn only(self, kept: Components, why: LeftOut) -> Result<Self, PlanError> {
        let lost = self.components().difference(kept);
        if lost.is_empty() || lost.intersects(Components::LEGACY) {
            return self.without_xsave(why);
        }
        self.without(lost, why)
    }

    /// By FXSAVE, whatever else there may be.
    fn without_xsave(mut self, why: LeftOut) -> Result<Self, PlanError> {
        for rung in Rung::ALL.into_iter().filter(|rung| *rung != Rung::Fxsave) {
            self.barred |= 1 << rung as u8;
        }
        self.barring(why)
    }

    /// Without a register, and without what needs it: supervisor components need IA32_XSS; what IA32_XFD can
    /// disable may be disabled.
    fn leaving_alone(mut self, register: ControlRegister, vector: u32) -> Result<Self, PlanError> {
        self.quirks.add(Quirk::LeftAlone { register, vector });
        let why = LeftOut::Refused { register, vector };
        if register == ControlRegister::Xss {
            self.writes_xss = false;
            return self.for_what_is_left(why);
        }
        self.writes_xfd = false;
        let disabled = self
            .components()
            .numbers()
            .filter(|number| self.facts.described(*number).is_some_and(|one| one.xfd))
            .filter_map(Components::of_number)
            .fold(Components::empty(), Components::union);
        if disabled.is_empty() {
            return Ok(self);
        }
        self.without(disabled, why)
    }

    /// A register took the value without a fault, and holds another one. `None` if that cannot be helped.
    fn keeping(
        self,
        register: ControlRegister,
        kept: Components,
    ) -> Option<Result<Self, PlanError>> {
        let why = LeftOut::NotKept { register };
        match register {
            ControlRegister::Xcr0 => Some(self.only(kept | Components::SUPERVISOR, why)),
            ControlRegister::Xss if self.xss().difference(kept).is_empty() => {
                Some(self.leaving_alone(register, 0))
            }
            ControlRegister::Xss => Some(self.only(kept | !Components::SUPERVISOR, why)),
            ControlRegister::Xfd => Some(self.leaving_alone(register, 0)),
            _ => None,
        }
    }

    fn without_what_was_measured(self, found: Measured) -> Result<Self, PlanError> {
        let component = match found {
            Measured::Elsewhere { component, .. } | Measured::TooLarge { component } => component,
            Measured::Outside { present, .. }
            | Measured::Header { present }
            | Measured::RestoreFault { present, .. } => present,
            Measured::SaveFault { .. } => Components::empty(),
        };
        let lost = component.difference(Components::LEGACY);
        // The instruction itself, if it cannot do x87 and SSE or anything.
        if lost.is_empty() || component.contains(Components::LEGACY) {
            return self.by_a_lesser_instruction(found);
        }
        self.without(lost, LeftOut::Measured(found))
    }

    fn by_a_lesser_instruction(self, why: Measured) -> Result<Self, PlanError> {
        if self.rung() == Rung::Fxsave {
            return Err(PlanError::Required {
                component: Components::LEGACY,
                why: LeftOut::Measured(why),
            });
        }
        self.barring(LeftOut::Measured(why))
    }
}
