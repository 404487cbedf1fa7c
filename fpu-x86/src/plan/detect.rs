//! Plans of the machine that the code runs on: CPUID, and FXSAVE for the mask of MXCSR.

use raw_cpuid::CpuIdReaderNative;

use super::Plan;
use crate::{
    components::Components,
    cpuid::CpuidInfo,
    error::PlanError,
    fields::{u32_at, MXCSR_MASK},
    insn,
    registers::{CR0_EM, CR0_TS, CR4_OSFXSR},
};

/// Reads the MXCSR mask, which only FXSAVE tells. Some CPUs leave the field 0. In ring 0 FXSAVE may be off: see
/// `detect_kernel`.
pub(crate) fn mxcsr_mask() -> u32 {
    #[repr(C, align(64))]
    struct Legacy([u8; 512]);
    let mut area = Legacy([0; 512]);
    // SAFETY: N1: every 64-bit CPU has FXSAVE, and the area is a local of the right size.
    unsafe { insn::fxsave(area.0.as_mut_ptr()) };
    u32_at(&area.0, MXCSR_MASK)
}

impl CpuidInfo {
    /// The facts of this CPU, with XCR0 as the system has it. A plan for ring 3 is made from these facts, and
    /// compared with them after a move to another machine.
    ///
    /// # Errors
    ///
    /// As for [`from_cpuid`](Self::from_cpuid).
    ///
    /// ```
    /// use fpu_x86::{Components, CpuidInfo, Plan};
    /// let plan = Plan::detect_user(Components::all())?;
    /// assert_eq!(plan.check_cpu(&CpuidInfo::of_this_cpu()?), Ok(()));
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    pub fn of_this_cpu() -> Result<Self, PlanError> {
        let facts = Self::from_cpuid(CpuIdReaderNative)?;
        if !facts.osxsave() {
            return Ok(facts);
        }
        // SAFETY: N3: OSXSAVE is set.
        let xcr0 = unsafe { insn::xgetbv0() };
        Ok(facts.with_xcr0(Components::from_bits_retain(xcr0)))
    }
}

fn user(wanted: Components, left_out: Components) -> Result<Plan, PlanError> {
    Plan::user(CpuidInfo::of_this_cpu()?, mxcsr_mask(), wanted, left_out)
}

impl Plan {
    /// The plan for ring 3 on this machine: the components that the operating system has enabled,
    /// with the best instruction.
    ///
    /// Every enabled component that a task can hold is saved (B2), so `wanted` has to cover them;
    /// pass [`Components::all`] if in doubt. PKRU is the exception: PKRU governs the kernel's own
    /// accesses to user memory, and a kernel switches it eagerly. A plan neither saves nor restores
    /// PKRU.
    ///
    /// AMX is included where enabled, although tiles are of no use before the process has asked its
    /// system for permission. A plan cannot see whether the process will ask, and saving tiles that are
    /// initial costs memory, not time. [`detect_user_without`](Self::detect_user_without) leaves it
    /// out.
    ///
    /// # Errors
    ///
    /// Any of [`PlanError`] except `Unavailable` and `TooNarrow`.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan, PlanError};
    /// assert!(Plan::detect_user(Components::all()).is_ok());
    /// assert!(matches!(Plan::detect_user(Components::X87), Err(PlanError::Uncovered { .. })));
    /// ```
    pub fn detect_user(wanted: Components) -> Result<Self, PlanError> {
        user(wanted, Components::empty())
    }

    /// As [`detect_user`](Self::detect_user), for programs that know that some components stay unused. The area is
    /// smaller, and a plan of x87 and SSE alone can use FXSAVE
    /// ([`with_save_instruction`](Self::with_save_instruction)).
    ///
    /// # Safety
    ///
    /// * **C23** while contexts of this plan are in use, no code on the CPUs concerned changes the
    ///   components in `left_out` from their initial state, or the code that does puts them back
    ///   before another task runs.
    ///
    /// # Errors
    ///
    /// As for [`detect_user`](Self::detect_user).
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// // SAFETY: C23: this program never asks for permission to use tiles.
    /// let plan = unsafe { Plan::detect_user_without(Components::AMX) }?;
    /// assert!(!plan.components().intersects(Components::AMX));
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    pub unsafe fn detect_user_without(left_out: Components) -> Result<Self, PlanError> {
        user(Components::all(), left_out)
    }

    /// The plan for ring 0: of `wanted`, every component that the CPU has and describes well, with the
    /// best instruction. The plan's [quirks](Self::quirks) list what bad words leave out.
    ///
    /// The plan *decides* XCR0 and IA32_XSS instead of reading them, so that enabling a component and
    /// having room for it are one decision. This call changes no register. A kernel makes the plan once,
    /// on the CPU that boots, where [`settle_on_this_cpu`](Self::settle_on_this_cpu) then tries it.
    ///
    /// `wanted` is [`Components::USER`], or that and what the kernel has a use for: those supervisor components
    /// that it programs for each task, such as [`CET_U`](Components::CET_U), which need XSAVES and are left out
    /// without; [`MPX`](Components::MPX). PKRU, LWP, PT, UINTR, LBR, HDC and HWP are in no plan, wanted or not:
    /// XCR0 does not enable PKRU either: RDPKRU and WRPKRU do not need it, and no XSAVE of other code then
    /// saves or restores PKRU unnoticed.
    ///
    /// The call works in ring 3 too, to show the plan. Such a plan must not be used there (its
    /// restore would be refused with a fault).
    ///
    /// # Errors
    ///
    /// As for [`for_kernel`](Self::for_kernel); [`PlanError::NoFxsave`], [`PlanError::FpuOff`].
    ///
    /// ```
    /// use fpu_x86::{Components, Plan, PlanError};
    /// let plan = Plan::detect_kernel(Components::USER)?;
    /// assert_eq!(plan.xcr0(), plan.components());
    /// assert!(plan.xss().is_empty());
    /// assert!(matches!(Plan::detect_kernel(Components::X87), Err(PlanError::Uncovered { .. })));
    /// # Ok::<(), PlanError>(())
    /// ```
    pub fn detect_kernel(wanted: Components) -> Result<Self, PlanError> {
        Self::detect_kernel_given(CpuidInfo::from_cpuid(CpuIdReaderNative)?, wanted)
    }

    /// As [`detect_kernel`](Self::detect_kernel), with given facts: the call executes no CPUID, only FXSAVE for the
    /// MXCSR mask.
    ///
    /// # Errors
    ///
    /// As for [`detect_kernel`](Self::detect_kernel).
    ///
    /// ```
    /// use fpu_x86::{Components, CpuidInfo, Plan};
    /// let facts = CpuidInfo::from_cpuid(raw_cpuid::CpuIdReaderNative)?;
    /// let plan = Plan::detect_kernel_given(facts, Components::USER)?;
    /// assert_eq!(Plan::detect_kernel(Components::USER), Ok(plan));
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    pub fn detect_kernel_given(facts: CpuidInfo, wanted: Components) -> Result<Self, PlanError> {
        if insn::ring() == 0 {
            // SAFETY: N4: ring 0.
            let (cr0, cr4) = unsafe { (insn::cr0(), insn::cr4()) };
            if cr0 & (CR0_EM | CR0_TS) != 0 || cr4 & CR4_OSFXSR == 0 {
                return Err(PlanError::FpuOff);
            }
        }
        Self::for_kernel(facts, mxcsr_mask(), wanted)
    }
}
