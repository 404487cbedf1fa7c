//! The values of the control registers while a plan is in use. This module only compares words, so tests run it on any
//! CPU.

use core::fmt;

use crate::{
    components::Components,
    plan::Plan,
    registers::{
        ControlRegister, CR0_OURS, CR0_SET, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE, CR4_OURS,
    },
    save_instruction::SaveInstruction,
};

/// The control registers of one CPU that govern the FPU's state.
///
/// ```
/// use fpu_x86::{Components, ControlState, Plan};
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// let plan = Plan::detect_kernel(Components::USER)?;
/// let mut state = ControlState::of(&plan);
/// assert_eq!(state.verify(&plan), Ok(()));
/// state.cr0 |= 1 << 3; // other code sets TS
/// assert!(state.verify(&plan).is_err());
/// # }
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlState {
    /// CR0; only MP, EM, TS and NE are looked at.
    pub cr0: u64,
    /// CR4; only OSFXSR, OSXMMEXCPT and OSXSAVE are looked at.
    pub cr4: u64,
    /// XCR0, where CR4.OSXSAVE is set.
    pub xcr0: Option<u64>,
    /// IA32_XSS, where there is XSAVES.
    pub xss: Option<u64>,
    /// IA32_XFD, where there is one.
    pub xfd: Option<u64>,
}

/// A control register does not hold what the plan needs.
///
/// ```
/// use fpu_x86::{ControlMismatch, ControlRegister};
/// let why = ControlMismatch { register: ControlRegister::Xcr0, expected: Some(7), found: Some(3) };
/// assert_eq!(why.to_string(), "XCR0 should be 0x7 and is 0x3");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlMismatch {
    /// The register.
    pub register: ControlRegister,
    /// The plan's value; `None` if the register should not be readable.
    pub expected: Option<u64>,
    /// The CPU's value; of CR0 and CR4 only the bits that are looked at.
    pub found: Option<u64>,
}

impl fmt::Display for ControlMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |f: &mut fmt::Formatter<'_>, value| match value {
            Some(value) => write!(f, "{value:#x}"),
            None => f.write_str("absent"),
        };
        write!(f, "{} should be ", self.register)?;
        part(f, self.expected)?;
        f.write_str(" and is ")?;
        part(f, self.found)
    }
}

impl ControlState {
    /// The values of the registers while a plan for ring 0 is in use.
    ///
    /// XCR0 and IA32_XSS are the plan's components. IA32_XFD disables components that are enabled and not in the plan's
    /// areas. No component is like that, so IA32_XFD is 0. A plan with FXSAVE keeps CR4.OSXSAVE clear, so that AVX,
    /// which FXSAVE does not save, cannot be used.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let xsave = plan.save_instruction() != SaveInstruction::Fxsave;
        let mut state = Self {
            cr0: CR0_SET,
            cr4: CR4_OSFXSR | CR4_OSXMMEXCPT,
            xcr0: None,
            xss: None,
            xfd: None,
        };
        if xsave {
            state.cr4 |= CR4_OSXSAVE;
            state.xcr0 = Some(plan.xcr0().bits());
            state.xss = plan.writes_xss.then(|| plan.xss().bits());
            state.xfd = plan.writes_xfd.then(|| plan.xfd().bits());
        }
        state
    }

    /// Compares this CPU's control registers with the values that [`Plan::enable_on_this_cpu`] wrote:
    /// after bring-up, after a resume, and whenever in doubt.
    ///
    /// # Errors
    ///
    /// The first register that differs. Find the code that changed it: tasks may have used components
    /// that no save holds.
    #[doc(alias = "fpu__init_check_bugs")]
    pub fn verify(&self, plan: &Plan) -> Result<(), ControlMismatch> {
        use ControlRegister as R;
        let should = Self::of(plan);
        // Registers that the plan leaves alone may hold anything.
        let left_alone = |there: bool, writes: bool| there && !writes;
        let xss = self.xss.filter(|_| !left_alone(plan.cpuid_info().xsaves(), plan.writes_xss));
        let xfd = self.xfd.filter(|_| !left_alone(plan.cpuid_info().xfd(), plan.writes_xfd));
        let pairs = [
            (R::Cr0, Some(should.cr0), Some(self.cr0 & CR0_OURS)),
            (R::Cr4, Some(should.cr4), Some(self.cr4 & CR4_OURS)),
            (R::Xcr0, should.xcr0, self.xcr0),
            (R::Xss, should.xss, xss),
            (R::Xfd, should.xfd, xfd),
        ];
        for (register, expected, found) in pairs {
            if expected != found {
                return Err(ControlMismatch { register, expected, found });
            }
        }
        Ok(())
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for ControlMismatch {}

impl Plan {
    /// Components that IA32_XFD disables while the plan is in use: enabled in XCR0, able to be disabled, and
    /// not in the plan's areas. A plan for ring 0 has no such component.
    #[must_use]
    pub fn xfd(&self) -> Components {
        self.xcr0()
            .difference(self.components())
            .numbers()
            .filter(|number| self.cpuid_info().described(*number).is_some_and(|one| one.xfd))
            .filter_map(Components::of_number)
            .fold(Components::empty(), Components::union)
    }
}
