//! The CPUs that a plan is for. This module only compares words, so tests run it on any CPU.

use core::fmt;

use super::Plan;
use crate::{
    components::Components,
    cpuid::{CpuidInfo, Described},
    save_instruction::SaveInstruction,
};

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
    /// The CPU does not have the plan's save instruction, or has one that must not be used.
    NoInstruction(SaveInstruction),
    /// The CPU does not have all components of the plan.
    Missing(Components),
    /// The CPU describes a component otherwise, so an image of one CPU would be misread on the other.
    Described {
        /// The component.
        component: Components,
        /// The description on the plan's CPU.
        expected: Option<Described>,
        /// The description on this CPU.
        found: Option<Described>,
    },
    /// One of the two CPUs has the feature and the other has not: XSAVEC, XSAVES, IA32_XFD, or XGETBV with ECX
    /// = 1. Each of these features brings registers and sizes that are written and read back, or an instruction that an
    /// idle CPU executes.
    OnOneOnly(&'static str),
    /// The CPU's restores leave the previous task's x87 pointers in place, and the plan does not overwrite the
    /// pointers.
    KeepsX87Pointers,
    /// The CPU's XCR0 is not that of a plan for ring 3, or is not known. Components that are enabled there and not in
    /// the plan would not be saved.
    Xcr0 {
        /// The plan's XCR0.
        expected: Components,
        /// The CPU's XCR0, if the facts have it.
        found: Option<Components>,
    },
    /// The CPU lacks MXCSR bits, and would refuse an image that has one of them set.
    MxcsrMask {
        /// The bits that the CPU lacks.
        missing: u32,
    },
}

impl fmt::Display for CpuMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInstruction(instruction) => write!(f, "the CPU does not offer {instruction:?}"),
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
impl core::error::Error for CpuMismatch {}

impl Plan {
    /// Tells whether a CPU with these facts can run tasks of this plan. Components that the CPU has and a plan for
    /// ring 0 has not stay off. For a plan for ring 3, the facts must have [XCR0](CpuidInfo::with_xcr0), and it must
    /// be the
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
    /// assert_eq!(plan.check_cpu(plan.cpuid_info()), Ok(()));
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    pub fn check_cpu(&self, cpu: &CpuidInfo) -> Result<(), CpuMismatch> {
        if !self.offered_by(cpu) {
            return Err(CpuMismatch::NoInstruction(self.save_instruction()));
        }
        if !self.is_for_kernel() {
            if self.save_instruction() != SaveInstruction::Fxsave && !cpu.osxsave() {
                return Err(CpuMismatch::NoInstruction(self.save_instruction()));
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
        if self.save_instruction() == SaveInstruction::Fxsave {
            return Ok(());
        }
        let supported = cpu.supported_user() | cpu.supported_supervisor();
        let missing = self.components().difference(supported);
        if !missing.is_empty() {
            return Err(CpuMismatch::Missing(missing));
        }
        for number in self.components().numbers() {
            let (expected, found) = (self.cpuid_info().described(number), cpu.described(number));
            if expected != found {
                let component = Components::from_bits_retain(1 << number);
                return Err(CpuMismatch::Described { component, expected, found });
            }
        }
        for (what, has) in [
            ("XSAVEC", CpuidInfo::xsavec as fn(&CpuidInfo) -> bool),
            ("XSAVES", CpuidInfo::xsaves),
            ("XGETBV with ECX = 1", CpuidInfo::xgetbv1),
            ("IA32_XFD", CpuidInfo::xfd),
        ] {
            if has(cpu) != has(self.cpuid_info()) {
                return Err(CpuMismatch::OnOneOnly(what));
            }
        }
        Ok(())
    }

    /// Compares the MXCSR mask, which is not in CPUID. A mask with more bits is accepted.
    pub(crate) fn check_mxcsr_mask(&self, mask: u32) -> Result<(), CpuMismatch> {
        match self.mxcsr_mask() & !mask {
            0 => Ok(()),
            missing => Err(CpuMismatch::MxcsrMask { missing }),
        }
    }
}
