//! What the control registers hold while a plan is in use, and which CPUs a plan is for. Nothing here is
//! privileged: it is arithmetic on words, so that it can be tried on any.

use core::fmt;

use crate::{Components, Described, Facts, Plan, Rung};

pub(crate) const CR0_MP: u64 = 1 << 1;
pub(crate) const CR0_EM: u64 = 1 << 2;
pub(crate) const CR0_TS: u64 = 1 << 3;
pub(crate) const CR0_NE: u64 = 1 << 5;
/// The bits of CR0 that this crate decides.
pub(crate) const CR0_OURS: u64 = CR0_MP | CR0_EM | CR0_TS | CR0_NE;
/// WAIT looks at TS, the x87 unit is there, x87 errors raise #MF. TS stays clear for ever: registers are
/// never withheld to be loaded on #NM, which leaks them to speculation (CVE-2018-3665).
pub(crate) const CR0_SET: u64 = CR0_MP | CR0_NE;

pub(crate) const CR4_OSFXSR: u64 = 1 << 9;
pub(crate) const CR4_OSXMMEXCPT: u64 = 1 << 10;
pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
/// The bits of CR4 that this crate decides.
pub(crate) const CR4_OURS: u64 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;

/// The control registers of one CPU, as far as they decide over the FPU's state.
///
/// ```
/// use fpu_x86::{Components, ControlState, Plan};
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// let plan = Plan::detect_kernel(Components::USER)?;
/// let mut state = ControlState::of(&plan);
/// assert_eq!(state.verify(&plan), Ok(()));
/// state.cr0 |= 1 << 3; // someone sets TS
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

/// A register in a [`ControlMismatch`].
///
/// ```
/// assert_ne!(fpu_x86::ControlRegister::Cr0, fpu_x86::ControlRegister::Xcr0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlRegister {
    /// MP, EM, TS, NE.
    Cr0,
    /// OSFXSR, OSXMMEXCPT, OSXSAVE.
    Cr4,
    /// What tasks can use.
    Xcr0,
    /// IA32_XSS.
    Xss,
    /// IA32_XFD.
    Xfd,
}

impl fmt::Display for ControlRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cr0 => "CR0",
            Self::Cr4 => "CR4",
            Self::Xcr0 => "XCR0",
            Self::Xss => "IA32_XSS",
            Self::Xfd => "IA32_XFD",
        })
    }
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
    /// Which.
    pub register: ControlRegister,
    /// By the plan; `None` if the register should not be readable.
    pub expected: Option<u64>,
    /// By the CPU; of CR0 and CR4 only the bits that are looked at.
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
    /// What the registers hold while a plan for ring 0 is in use.
    ///
    /// XCR0 and IA32_XSS are the plan's components. IA32_XFD is the shadow rule *enabled, and not in the
    /// plan's areas*: no component is like that, so it is 0. A plan with FXSAVE keeps CR4.OSXSAVE clear, so
    /// that AVX, which FXSAVE does not save, cannot be used.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let xsave = plan.rung() != Rung::Fxsave;
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

    /// Does this CPU still hold what [`Plan::enable_on_this_cpu`] put there? The check of shadows against
    /// hardware: after bring-up, after a resume, and whenever in doubt.
    ///
    /// # Errors
    ///
    /// The first register that differs. Code that changed it has to be found: tasks may by now have used
    /// what is not saved.
    #[doc(alias = "fpu__init_check_bugs")]
    pub fn verify(&self, plan: &Plan) -> Result<(), ControlMismatch> {
        use ControlRegister as R;
        let should = Self::of(plan);
        // Registers that the plan leaves alone may hold anything.
        let left_alone = |there: bool, writes: bool| there && !writes;
        let xss = self.xss.filter(|_| !left_alone(plan.facts().xsaves(), plan.writes_xss));
        let xfd = self.xfd.filter(|_| !left_alone(plan.facts().xfd(), plan.writes_xfd));
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

/// Why a CPU cannot run tasks of a plan that was made on another.
///
/// ```
/// use fpu_x86::{Components, CpuMismatch};
/// let why = CpuMismatch::Missing(Components::AVX512);
/// assert_eq!(why.to_string(), "the CPU lacks OPMASK, ZMM_HI256, HI16_ZMM");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CpuMismatch {
    /// It does not have the plan's save instruction, or only one that must not be used.
    NoInstruction(Rung),
    /// It does not have all components of the plan.
    Missing(Components),
    /// It describes a component otherwise, so an image of one CPU would be misread on the other.
    Described {
        /// The component.
        component: Components,
        /// On the plan's CPU.
        expected: Option<Described>,
        /// On this one.
        found: Option<Described>,
    },
    /// One of the two has it and the other has not: XSAVEC, XSAVES, IA32_XFD, or XGETBV with ECX = 1. With them
    /// come registers and sizes that are written and read back, and an instruction that an idle CPU executes.
    OnOneOnly(&'static str),
    /// Its restores leave the previous task's x87 pointers in place, and the plan's do not overwrite them.
    KeepsX87Pointers,
    /// Its XCR0 is another one than that of a plan for ring 3, or not known: what is enabled there and not in
    /// the plan would not be saved.
    Xcr0 {
        /// The plan's.
        expected: Components,
        /// That CPU's, if the facts have it.
        found: Option<Components>,
    },
    /// It has fewer MXCSR bits: an image with one of them set would be refused.
    MxcsrMask {
        /// Those it lacks.
        missing: u32,
    },
}

impl fmt::Display for CpuMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInstruction(rung) => write!(f, "the CPU does not offer {rung:?}"),
            Self::Missing(components) => write!(f, "the CPU lacks {}", components.list()),
            Self::Described { component, .. } => {
                write!(f, "the CPU describes {} differently", component.list())
            }
            Self::OnOneOnly(what) => write!(f, "only one of the CPUs has {what}"),
            Self::KeepsX87Pointers => f.write_str("the CPU's restores keep x87 pointers"),
            Self::Xcr0 { expected, found: Some(found) } => {
                write!(f, "XCR0 should be {:#x} and is {:#x}", expected.bits(), found.bits())
            }
            Self::Xcr0 { .. } => f.write_str("what XCR0 holds is not known"),
            Self::MxcsrMask { missing } => write!(f, "the CPU lacks MXCSR bits {missing:#x}"),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for ControlMismatch {}
#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl core::error::Error for CpuMismatch {}

impl Plan {
    /// Components that IA32_XFD disables while the plan is in use: enabled in XCR0, able to be disabled, and
    /// not in the plan's areas. Nothing is like that in a plan for ring 0.
    #[must_use]
    pub fn xfd(&self) -> Components {
        self.xcr0()
            .difference(self.components())
            .numbers()
            .filter(|number| self.facts().described(*number).is_some_and(|one| one.xfd))
            .filter_map(Components::of_number)
            .fold(Components::empty(), Components::union)
    }

    /// Can a CPU with these facts run tasks of this plan? It may have components that a plan for ring 0 has
    /// not; they stay off. For a plan for ring 3, the facts must have [XCR0](Facts::with_xcr0), and it must be the
    /// plan's: a process that was moved to a machine with more enabled would lose what its areas do not hold.
    ///
    /// CPUs of one system can differ: hybrid parts whose small cores lack AVX-512, boards with two
    /// steppings, firmware that updated one socket's microcode. A CPU that does not match
    /// must not come online with this plan.
    ///
    /// # Errors
    ///
    /// The first difference that matters.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_kernel(Components::USER)?;
    /// assert_eq!(plan.check_cpu(plan.facts()), Ok(()));
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    pub fn check_cpu(&self, cpu: &Facts) -> Result<(), CpuMismatch> {
        if !self.offered_by(cpu) {
            return Err(CpuMismatch::NoInstruction(self.rung()));
        }
        if !self.is_for_kernel() {
            if self.rung() != Rung::Fxsave && !cpu.osxsave() {
                return Err(CpuMismatch::NoInstruction(self.rung()));
            }
            let found = match cpu.xcr0() {
                Some(xcr0) if cpu.osxsave() => Some(xcr0),
                None if cpu.osxsave() => None,
                _ => Some(Components::LEGACY),
            };
            if found != Some(self.xcr0()) {
                return Err(CpuMismatch::Xcr0 { expected: self.xcr0(), found });
            }
        }
        if cpu.keeps_x87_pointers() && !self.scrubs() {
            return Err(CpuMismatch::KeepsX87Pointers);
        }
        if self.rung() == Rung::Fxsave {
            return Ok(());
        }
        let supported = cpu.supported_user() | cpu.supported_supervisor();
        let missing = self.components().difference(supported);
        if !missing.is_empty() {
            return Err(CpuMismatch::Missing(missing));
        }
        for number in self.components().numbers() {
            let (expected, found) = (self.facts().described(number), cpu.described(number));
            if expected != found {
                let component = Components::from_bits_retain(1 << number);
                return Err(CpuMismatch::Described { component, expected, found });
            }
        }
        for (what, has) in [
            ("XSAVEC", Facts::xsavec as fn(&Facts) -> bool),
            ("XSAVES", Facts::xsaves),
            ("XGETBV with ECX = 1", Facts::xgetbv1),
            ("IA32_XFD", Facts::xfd),
        ] {
            if has(cpu) != has(self.facts()) {
                return Err(CpuMismatch::OnOneOnly(what));
            }
        }
        Ok(())
    }

    /// The same for the MXCSR mask, which is not in CPUID. A mask with more bits is no hindrance.
    pub(crate) fn check_mxcsr_mask(&self, mask: u32) -> Result<(), CpuMismatch> {
        match self.mxcsr_mask() & !mask {
            0 => Ok(()),
            missing => Err(CpuMismatch::MxcsrMask { missing }),
        }
    }
}
