//! Ring 0: puts a plan into force on a CPU, and reads the control registers back.

use core::fmt;

use raw_cpuid::CpuIdReaderNative;

use super::control::{ControlMismatch, ControlState};
use crate::{
    cpuid::CpuidInfo,
    error::{Measured, PlanError},
    fields::INITIAL_MXCSR,
    image, insn,
    plan::{mxcsr_mask, CpuMismatch, Plan},
    registers::{
        ControlRegister, CR0_OURS, CR0_SET, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE, CR4_OURS,
    },
    save_instruction::SaveInstruction,
};

pub(crate) const IA32_XFD: u32 = 0x1C4;
pub(crate) const IA32_XFD_ERR: u32 = 0x1C5;
pub(crate) const IA32_XSS: u32 = 0xDA0;

/// Why a CPU was not set up. CR0, CR4, XCR0, IA32_XSS and IA32_XFD are as before; the contents of the FPU's
/// registers are not.
///
/// ```
/// use fpu_x86::EnableError;
/// assert_eq!(EnableError::WrongRing(3).to_string(), "in ring 3, not in ring 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnableError {
    /// This is not ring 0.
    WrongRing(u8),
    /// The plan is one for ring 3.
    UserPlan,
    /// No plan can be made from this CPU's CPUID, or what is left of the plan lacks what the kernel requires.
    Plan(PlanError),
    /// This CPU is not like the plan's.
    Cpu(CpuMismatch),
    /// The CPU, or a hypervisor, refused a value that CPUID promises.
    Refused {
        /// The register.
        register: ControlRegister,
        /// The vector of the exception.
        vector: u32,
    },
    /// The CPU refused to load the initial state.
    InitialState {
        /// The vector of the exception.
        vector: u32,
    },
    /// The CPU's restore leaves MXCSR as it is where the image has no SSE state, so that a task would find
    /// another task's. No known CPU does, an emulator might. Use [`Plan::scrubbing`] on all CPUs.
    KeepsMxcsr,
    /// A register does not hold what was written.
    Verify(ControlMismatch),
    /// The CPU does not save what the plan says where the plan says.
    Measured(Measured),
}

impl fmt::Display for EnableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongRing(ring) => write!(f, "in ring {ring}, not in ring 0"),
            Self::UserPlan => f.write_str("the plan is one for ring 3"),
            Self::Plan(why) => why.fmt(f),
            Self::Cpu(why) => why.fmt(f),
            Self::Refused { register, vector } => {
                write!(f, "{register} was refused with exception {vector}")
            }
            Self::InitialState { vector } => {
                write!(f, "the initial state was refused with exception {vector}")
            }
            Self::KeepsMxcsr => f.write_str("restores keep MXCSR where SSE state is absent"),
            Self::Verify(why) => why.fmt(f),
            Self::Measured(why) => write!(f, "measured: {why}"),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for EnableError {}

fn refused(register: ControlRegister, vector: u32) -> Result<(), EnableError> {
    match vector {
        0 => Ok(()),
        vector => Err(EnableError::Refused { register, vector }),
    }
}

/// Turns on the control bits that FXSAVE and SSE need, on a CPU whose firmware left them off, so that
/// [`Plan::detect_kernel`] can ask for the MXCSR mask: CR0.MP and NE set, EM and TS clear, CR4.OSFXSR and
/// OSXMMEXCPT set. [`Plan::enable_on_this_cpu`] does it too.
///
/// # Safety
///
/// * **C1** in ring 0, and nothing moves the caller to another CPU or interrupts it until the call has
///   returned.
/// * **C4** the kernel has handlers of #MF and #XM, or no x87 or SIMD exception can be unmasked; no code
///   relies on #NM from CR0.TS; code that keeps copies of CR0 and CR4 reads them again.
///
/// ```no_run
/// // SAFETY: C1, C4: early in boot, interrupts are off, the IDT is loaded.
/// unsafe { fpu_x86::enable_legacy_on_this_cpu() };
/// ```
pub unsafe fn enable_legacy_on_this_cpu() {
    // SAFETY: N4, N5: undisturbed in ring 0 (C1), handlers (C4). The other bits are kept.
    unsafe {
        insn::set_cr0(insn::cr0() & !CR0_OURS | CR0_SET);
        insn::set_cr4(insn::cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    }
}

impl ControlState {
    /// Reads the registers of this CPU, as far as CPUID says that it has them. After a plan was settled,
    /// [`read_given`](Self::read_given) is the one to call: the plan knows which registers fault although
    /// CPUID promises them ([`Quirk::LeftAlone`](crate::Quirk::LeftAlone)).
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1) as for [`enable_legacy_on_this_cpu`], and IA32_XSS and IA32_XFD can be read where
    /// CPUID promises them: no [`fixup`](crate::fixup) serves these reads.
    ///
    /// ```no_run
    /// # use fpu_x86::{Components, ControlState, Plan};
    /// # let plan = Plan::detect_kernel(Components::USER).unwrap();
    /// // SAFETY: C1: in ring 0, interrupts are off; CPUID is the CPU's own.
    /// let state = unsafe { ControlState::read() };
    /// state.verify(&plan).expect("other code changed the FPU's control registers");
    /// ```
    #[must_use]
    pub unsafe fn read() -> Self {
        let facts = CpuidInfo::from_cpuid(CpuIdReaderNative);
        let (xss, xfd) = facts.map_or((false, false), |facts| (facts.xsaves(), facts.xfd()));
        // SAFETY: undisturbed in ring 0 (C1).
        unsafe { Self::read_these(xss, xfd) }
    }

    /// As [`read`](Self::read), without CPUID: IA32_XSS and IA32_XFD are read if the plan writes them.
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1) as for [`enable_legacy_on_this_cpu`], on a CPU on which the plan was put into force.
    #[must_use]
    pub unsafe fn read_given(plan: &Plan) -> Self {
        // SAFETY: undisturbed in ring 0 (C1). The plan's registers could be written.
        unsafe { Self::read_these(plan.writes_xss, plan.writes_xfd) }
    }

    /// A register that is promised and faults is absent.
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1).
    unsafe fn read_these(xss: bool, xfd: bool) -> Self {
        // SAFETY: N4: undisturbed in ring 0 (C1).
        let (cr0, cr4) = unsafe { (insn::cr0(), insn::cr4()) };
        let mut state = Self { cr0, cr4, xcr0: None, xss: None, xfd: None };
        if cr4 & CR4_OSXSAVE == 0 {
            return state;
        }
        // SAFETY: N3: OSXSAVE is set.
        state.xcr0 = Some(unsafe { insn::xgetbv0() });
        // SAFETY: N4: undisturbed in ring 0 (C1). N6: it has just been tried. So for both.
        unsafe {
            let read = |number| (insn::rdmsr_fault(number) == 0).then(|| insn::rdmsr(number));
            state.xss = xss.then(|| read(IA32_XSS)).flatten();
            state.xfd = xfd.then(|| read(IA32_XFD)).flatten();
        }
        state
    }
}

/// The values of the control registers before, to be put back.
pub(super) struct Before {
    cr0: u64,
    cr4: u64,
    xcr0: Option<u64>,
    xss: Option<u64>,
    xfd: Option<u64>,
}

impl Before {
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1).
    pub(super) unsafe fn read() -> Self {
        // SAFETY: N4: undisturbed in ring 0 (C1).
        let (cr0, cr4) = unsafe { (insn::cr0(), insn::cr4()) };
        Self { cr0, cr4, xcr0: None, xss: None, xfd: None }
    }

    /// Adds the registers that were changed later; CR0 and CR4 are those of `self`.
    pub(super) fn and_those_of(&mut self, later: Self) {
        (self.xcr0, self.xss, self.xfd) = (later.xcr0, later.xss, later.xfd);
    }

    /// Puts back every register that was changed.
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1).
    pub(super) unsafe fn put_back(&self) {
        // SAFETY: N4: undisturbed in ring 0 (C1). N5: the values of before. A value that could be written before can be
        // written again; a fault here has no other answer. N3: XCR0 was read, so OSXSAVE is set.
        unsafe {
            if let Some(xfd) = self.xfd {
                let _refused = insn::wrmsr(IA32_XFD, xfd);
            }
            if let Some(xss) = self.xss {
                let _refused = insn::wrmsr(IA32_XSS, xss);
            }
            if let Some(xcr0) = self.xcr0 {
                let _refused = insn::xsetbv0(xcr0);
            }
            insn::set_cr4(self.cr4);
            insn::set_cr0(self.cr0);
        }
    }
}

/// Reads a register before it is written.
///
/// # Safety
///
/// Undisturbed in ring 0 (C1).
unsafe fn read_msr(register: ControlRegister, number: u32) -> Result<Option<u64>, EnableError> {
    // SAFETY: N4: undisturbed in ring 0 (C1).
    refused(register, unsafe { insn::rdmsr_fault(number) })?;
    // SAFETY: N4: undisturbed in ring 0 (C1). N6: just tried.
    Ok(Some(unsafe { insn::rdmsr(number) }))
}

impl Plan {
    /// Puts the plan into force on this CPU: before it goes online, and again after a suspend that lost the control
    /// registers. The kernel calls this before it opens the CPU's word of `fpu-core`: a CPU goes offline
    /// (`fpu_offline`) before such a suspend, and online again (`fpu_online`) after this call. On the
    /// CPU that boots,
    /// [`settle_on_this_cpu`](Self::settle_on_this_cpu) comes first, and makes of the plan one that works.
    ///
    /// In this order: this CPU is compared with the plan's, and refused before anything changes if it is
    /// not alike; CR0.MP and NE are set, EM and TS cleared; CR4.OSFXSR and OSXMMEXCPT are set, OSXSAVE too
    /// unless the plan is for FXSAVE; XCR0, IA32_XSS and IA32_XFD are written; all of them are read back and
    /// compared; every register that the plan switches is loaded with its initial state, which must have taken away
    /// what was in MXCSR; and the plan is [measured](Self::measure).
    ///
    /// # Errors
    ///
    /// See [`EnableError`]. Faults become errors if the kernel's handlers serve [`fixup`](crate::fixup).
    ///
    /// # Safety
    ///
    /// * Undisturbed in ring 0 (C1) as for [`enable_legacy_on_this_cpu`]; in other rings it is refused.
    /// * Registers not needed (C2) as for [`measure`](Self::measure), and the CPU claims no context: its word is not open.
    /// * **C3** all CPUs of the system use this plan; no area of another one is ever loaded on them.
    /// * Handlers (C4) as for [`enable_legacy_on_this_cpu`].
    /// * **C5** until the CPU goes offline, nothing else changes those bits of CR0 and CR4, or XCR0,
    ///   IA32_XSS and IA32_XFD, but for a guest's values from [`GuestControls::enter`](crate::GuestControls::enter) until
    ///   its exit; and EFER.FFXSR is clear, as after reset (with it AMD CPUs leave XMM out of
    ///   FXSAVE and FXRSTOR in ring 0).
    ///
    /// ```no_run
    /// use fpu_x86::{Components, Plan};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let plan = Plan::detect_kernel(Components::USER | Components::CET_U)?;
    /// // SAFETY: C1 to C5: a CPU of this kernel that goes online, interrupts off, no task has run on it.
    /// let state = unsafe { plan.enable_on_this_cpu() }?; // on each CPU
    /// println!("XCR0 is {:#x?}", state.xcr0);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "fpu__init_cpu")]
    #[doc(alias = "fpu__resume_cpu")]
    pub unsafe fn enable_on_this_cpu(&self) -> Result<ControlState, EnableError> {
        self.check_ring()?;
        let cpu = CpuidInfo::from_cpuid(CpuIdReaderNative).map_err(EnableError::Plan)?;
        // SAFETY: what enabling asks for (C1 to C5).
        unsafe { self.enable_given(&cpu) }
    }

    /// As [`enable_on_this_cpu`](Self::enable_on_this_cpu), with given facts: the call executes no CPUID, and needs no
    /// word that depends on what is enabled.
    ///
    /// # Errors
    ///
    /// As for [`enable_on_this_cpu`](Self::enable_on_this_cpu).
    ///
    /// # Safety
    ///
    /// C1 to C5 as for [`enable_on_this_cpu`](Self::enable_on_this_cpu). The call does not rely on the facts
    /// being this CPU's: it tries what they promise.
    ///
    /// ```no_run
    /// use fpu_x86::{Components, CpuidInfo, Plan};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let table = |_, _| raw_cpuid::CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    /// let facts = CpuidInfo::from_cpuid(table)?; // for instance, the CPUID page of an SEV-SNP guest
    /// let mut plan = Plan::detect_kernel_given(facts.clone(), Components::USER)?;
    /// // SAFETY: C1 to C5: the CPU that boots, interrupts off, the handlers installed.
    /// unsafe { plan.settle_given(&facts) }?;
    /// // SAFETY: C1 to C5: another CPU that goes online.
    /// unsafe { plan.enable_given(&facts) }?;
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn enable_given(&self, cpu: &CpuidInfo) -> Result<ControlState, EnableError> {
        // SAFETY: what enabling asks for (C1 to C5).
        unsafe { self.enable_from(cpu) }.map(|(state, _)| state)
    }

    /// As [`enable_given`](Self::enable_given). Returns also what the control registers held before.
    ///
    /// # Safety
    ///
    /// C1 to C5 as for [`enable_on_this_cpu`](Self::enable_on_this_cpu).
    pub(super) unsafe fn enable_from(
        &self,
        cpu: &CpuidInfo,
    ) -> Result<(ControlState, Before), EnableError> {
        self.check_ring()?;
        self.check_cpu(cpu).map_err(EnableError::Cpu)?;
        // SAFETY: undisturbed in ring 0 (C1).
        let mut before = unsafe { Before::read() };
        // SAFETY: what enabling asks for (C1 to C5).
        match unsafe { self.put_into_force(&mut before) } {
            Ok(state) => Ok((state, before)),
            Err(why) => {
                // SAFETY: undisturbed in ring 0 (C1).
                unsafe { before.put_back() };
                Err(why)
            }
        }
    }

    pub(crate) fn check_ring(&self) -> Result<(), EnableError> {
        match insn::ring() {
            0 if self.is_for_kernel() => Ok(()),
            0 => Err(EnableError::UserPlan),
            ring => Err(EnableError::WrongRing(ring)),
        }
    }

    /// # Safety
    ///
    /// C1 to C5 as for [`enable_on_this_cpu`](Self::enable_on_this_cpu), in ring 0.
    unsafe fn put_into_force(&self, before: &mut Before) -> Result<ControlState, EnableError> {
        let should = ControlState::of(self);
        // SAFETY: undisturbed in ring 0 (C1), handlers (C4). After this FXSAVE works, which the next line needs.
        unsafe { enable_legacy_on_this_cpu() };
        self.check_mxcsr_mask(mxcsr_mask()).map_err(EnableError::Cpu)?;
        if should.cr4 & CR4_OSXSAVE == 0 {
            // SAFETY: N4: undisturbed in ring 0 (C1). N5: C4: one bit less.
            unsafe { insn::set_cr4(insn::cr4() & !CR4_OURS | should.cr4) };
        } else {
            // SAFETY: N4: undisturbed in ring 0 (C1). N5: handlers (C4).
            let vector = unsafe { insn::try_set_cr4(insn::cr4() & !CR4_OURS | should.cr4) };
            refused(ControlRegister::Cr4, vector)?;
            // SAFETY: N4: undisturbed in ring 0 (C1).
            let found = unsafe { insn::cr4() } & CR4_OURS;
            if found != should.cr4 {
                let (register, expected) = (ControlRegister::Cr4, Some(should.cr4));
                let why = ControlMismatch { register, expected, found: Some(found) };
                return Err(EnableError::Verify(why));
            }
        }

        // XCR0 first: with a component still off there, the others have nothing to act on.
        if let Some(xcr0) = should.xcr0 {
            // SAFETY: N3: OSXSAVE is set.
            before.xcr0 = Some(unsafe { insn::xgetbv0() });
            // SAFETY: N3: OSXSAVE is set. N4: undisturbed in ring 0 (C1). N5: bits stay (C5).
            refused(ControlRegister::Xcr0, unsafe { insn::xsetbv0(xcr0) })?;
        }
        if let Some(xss) = should.xss {
            // SAFETY: undisturbed in ring 0 (C1).
            before.xss = unsafe { read_msr(ControlRegister::Xss, IA32_XSS) }?;
            // SAFETY: N4: undisturbed in ring 0 (C1). N5: bits stay (C5).
            refused(ControlRegister::Xss, unsafe { insn::wrmsr(IA32_XSS, xss) })?;
        }
        if let Some(xfd) = should.xfd {
            // SAFETY: undisturbed in ring 0 (C1).
            before.xfd = unsafe { read_msr(ControlRegister::Xfd, IA32_XFD) }?;
            // SAFETY: N4: undisturbed in ring 0 (C1). N5: bits stay (C5).
            refused(ControlRegister::Xfd, unsafe { insn::wrmsr(IA32_XFD, xfd) })?;
            // SAFETY: N4: undisturbed in ring 0 (C1). N5: 0 is legal, and bits stay (C5).
            refused(ControlRegister::Xfd, unsafe { insn::wrmsr(IA32_XFD_ERR, 0) })?;
        }
        // Before a restore, which a component that XCR0 did not keep would fault.
        // SAFETY: undisturbed in ring 0 (C1).
        let state = unsafe { ControlState::read_given(self) };
        state.verify(self).map_err(EnableError::Verify)?;
        // SAFETY: undisturbed in ring 0 (C1), registers not needed (C2), and all components of the plan are on.
        unsafe { self.load_initial_registers() }?;
        // SAFETY: C26: undisturbed in ring 0 (C1). Registers not needed (C2). C6: just verified.
        unsafe { self.measure() }.map_err(EnableError::Measured)?;
        Ok(state)
    }

    /// Loads the initial state into every register that the plan switches.
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1) and registers not needed (C2), on a CPU where all of the plan's components are on.
    unsafe fn load_initial_registers(&self) -> Result<(), EnableError> {
        /// The legacy area and the header: of absent components a restore reads nothing else.
        #[repr(C, align(64))]
        struct Initial([u8; 576]);
        let mut initial = Initial([0; 576]);
        image::write_initial(&mut initial.0, self);
        let area = initial.0.as_ptr();
        // SAFETY: N2: registers not needed (C2). Flags of exceptions, all of them masked, which the restore has to take
        // away.
        unsafe {
            insn::fninit();
            insn::ldmxcsr(INITIAL_MXCSR | 0x3F);
            if self.scrubs() {
                insn::scrub();
            }
        }
        let answer = match self.save_instruction() {
            // SAFETY: N1: a local of at least 512 bytes, aligned. N2: registers not needed (C2).
            SaveInstruction::Fxsave => unsafe { insn::fxrstor(area) },
            // SAFETY: N1: the plan's components are on, undisturbed in ring 0 (C1); XSTATE_BV is 0, so nothing behind
            // the header is read. N2: registers not needed (C2).
            SaveInstruction::Xsaves => unsafe { insn::xrstors(area, self.mask) },
            // SAFETY: N1: the plan's components are on; XSTATE_BV is 0, so nothing behind the header is read. N2:
            // registers not needed (C2).
            _ => unsafe { insn::xrstor(area, self.mask) },
        };
        // SAFETY: N2: registers not needed (C2).
        match (answer, unsafe { insn::stmxcsr() }) {
            (0, INITIAL_MXCSR) => Ok(()),
            (0, _) if self.trusts_mxcsr => {
                // SAFETY: N2: registers not needed (C2).
                unsafe { insn::ldmxcsr(INITIAL_MXCSR) };
                Ok(())
            }
            (0, _) => Err(EnableError::KeepsMxcsr),
            (answer, _) => Err(EnableError::InitialState { vector: insn::vector_of(answer) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::Components;

    #[test]
    fn ring_3_is_refused_before_anything_is_touched() {
        let plan = Plan::detect_kernel(Components::USER).unwrap();
        let facts = plan.cpuid_info();
        // SAFETY: C1 (undisturbed in ring 0) does not hold, which is refused by name; nothing after that runs.
        unsafe {
            assert_eq!(plan.enable_on_this_cpu(), Err(EnableError::WrongRing(3)));
            assert_eq!(plan.enable_given(facts), Err(EnableError::WrongRing(3)));
            assert_eq!(plan.clone().settle_on_this_cpu(), Err(EnableError::WrongRing(3)));
            assert_eq!(plan.clone().settle_given(facts), Err(EnableError::WrongRing(3)));
        }
    }

    #[test]
    fn the_initial_registers_load_in_every_rung_of_ring_3() {
        for instruction in [
            SaveInstruction::Xsavec,
            SaveInstruction::Xsaveopt,
            SaveInstruction::Xsave,
            SaveInstruction::Fxsave,
        ] {
            let wanted = if instruction == SaveInstruction::Fxsave {
                Components::LEGACY
            } else {
                Components::USER
            };
            // What the system of this test has enabled may be less than what the CPU has.
            let Ok(user) = Plan::detect_user(Components::all()) else { continue };
            let wanted = wanted.intersection(user.components());
            match Plan::detect_kernel(wanted)
                .and_then(|plan| plan.with_save_instruction(instruction))
            {
                // SAFETY: C2: no vector register holds anything across the call, by its clobbers.
                Ok(plan) => assert_eq!(unsafe { plan.load_initial_registers() }, Ok(())),
                Err(why) => assert_eq!(why, PlanError::Unavailable(instruction)),
            }
        }
    }
}
