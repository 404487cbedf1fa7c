//! Ring 0: putting a plan into force on a CPU, and reading back what it holds.

use core::fmt;

use raw_cpuid::CpuIdReaderNative;

use crate::{
    backend,
    control::{
        ControlMismatch, CpuMismatch, CR0_OURS, CR0_SET, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE,
        CR4_OURS,
    },
    image, insn, ControlRegister, ControlState, Facts, Plan, PlanError, Rung,
};

const IA32_XFD: u32 = 0x1C4;
const IA32_XFD_ERR: u32 = 0x1C5;
const IA32_XSS: u32 = 0xDA0;

/// Why a CPU was not set up.
///
/// ```
/// use fpu_x86::EnableError;
/// assert_eq!(EnableError::WrongRing(3).to_string(), "in ring 3, not in ring 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnableError {
    /// This is not ring 0. Nothing has changed.
    WrongRing(u8),
    /// The plan is one for ring 3. Nothing has changed.
    UserPlan,
    /// This CPU's CPUID is not one to make a plan from. Nothing has changed.
    Cpuid(PlanError),
    /// This CPU is not like the plan's. Nothing has changed.
    Cpu(CpuMismatch),
    /// The CPU, or a hypervisor, refused a value that CPUID promises. The CPU is half set up and must
    /// not run tasks.
    Refused {
        /// Which register.
        register: ControlRegister,
        /// The exception.
        vector: u32,
    },
    /// The CPU refused to load the initial state. It must not run tasks.
    InitialState {
        /// The exception.
        vector: u32,
    },
    /// The CPU's restore leaves MXCSR as it is where the image has no SSE state, so that a task would find
    /// another's: no CPU does, an emulator might. Use [`Plan::scrubbing`] on all CPUs.
    KeepsMxcsr,
    /// A register reads otherwise than it was written. The CPU must not run tasks.
    Verify(ControlMismatch),
}

impl fmt::Display for EnableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongRing(ring) => write!(f, "in ring {ring}, not in ring 0"),
            Self::UserPlan => f.write_str("the plan is one for ring 3"),
            Self::Cpuid(why) => why.fmt(f),
            Self::Cpu(why) => why.fmt(f),
            Self::Refused { register, vector } => {
                write!(f, "{register:?} was refused with exception {vector}")
            }
            Self::InitialState { vector } => {
                write!(f, "the initial state was refused with exception {vector}")
            }
            Self::KeepsMxcsr => f.write_str("restores keep MXCSR where SSE state is absent"),
            Self::Verify(why) => why.fmt(f),
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

/// Turns on what FXSAVE and SSE need, on a CPU whose firmware left it off, so that
/// [`Plan::detect_kernel`] can ask for the MXCSR mask: CR0.MP and NE set, EM and TS clear, CR4.OSFXSR and
/// OSXMMEXCPT set. [`Plan::enable_on_this_cpu`] does it too.
///
/// # Safety
///
/// * **C1** in ring 0, and nothing moves the caller to another CPU or interrupts it until the call has
///   returned.
/// * **C4** the kernel has handlers of #MF and #XM, or no x87 or SIMD exception can be unmasked; nothing
///   relies on #NM from CR0.TS; whoever keeps copies of CR0 and CR4 reads them again.
///
/// ```no_run
/// // SAFETY: C1, C4: early in boot, interrupts are off, the IDT is loaded.
/// unsafe { fpu_x86::enable_legacy_on_this_cpu() };
/// ```
pub unsafe fn enable_legacy_on_this_cpu() {
    // SAFETY: N4, N5: C1, C4. The other bits are kept.
    unsafe {
        insn::set_cr0(insn::cr0() & !CR0_OURS | CR0_SET);
        insn::set_cr4(insn::cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    }
}

impl ControlState {
    /// Reads the registers of this CPU.
    ///
    /// # Safety
    ///
    /// C1 as for [`enable_legacy_on_this_cpu`].
    ///
    /// ```no_run
    /// # use fpu_x86::{Components, ControlState, Plan};
    /// # let plan = Plan::detect_kernel(Components::USER).unwrap();
    /// // SAFETY: C1: in ring 0, interrupts are off.
    /// let state = unsafe { ControlState::read() };
    /// state.verify(&plan).expect("somebody changed the FPU's control registers");
    /// ```
    #[must_use]
    pub unsafe fn read() -> Self {
        // SAFETY: N4: C1.
        let (cr0, cr4) = unsafe { (insn::cr0(), insn::cr4()) };
        let mut state = Self {
            cr0,
            cr4,
            xcr0: None,
            xss: None,
            xfd: None,
            standard_len: None,
            compacted_len: None,
        };
        if cr4 & CR4_OSXSAVE == 0 {
            return state;
        }
        // SAFETY: N3: OSXSAVE is set.
        state.xcr0 = Some(unsafe { insn::xgetbv0() });
        if let Ok(facts) = Facts::from_cpuid(CpuIdReaderNative) {
            state.standard_len = Some(facts.standard_enabled());
            if facts.xsavec() {
                state.compacted_len = Some(facts.compacted_enabled());
            }
            if facts.xsaves() {
                // SAFETY: N4: C1. N6: XSAVES comes with the register.
                state.xss = Some(unsafe { insn::rdmsr(IA32_XSS) });
            }
            if facts.xfd() {
                // SAFETY: N4: C1. N6: CPUID says so.
                state.xfd = Some(unsafe { insn::rdmsr(IA32_XFD) });
            }
        }
        state
    }
}

impl Plan {
    /// Puts the plan into force on this CPU: when it comes online, and again on resume, as the control
    /// registers are lost with the power. Before the CPU's word of `fpu-core` is opened.
    ///
    /// In this order: this CPU is compared with the plan's, and refused before anything changes if it is
    /// not alike; CR0.MP and NE are set, EM and TS cleared; CR4.OSFXSR and OSXMMEXCPT are set, OSXSAVE too
    /// unless the plan is for FXSAVE; XCR0, IA32_XSS and IA32_XFD are written; every register that
    /// the plan switches is loaded with its initial state, which must have taken away what was in MXCSR; and all
    /// that is read back and compared, CPUID's sizes with the plan's layouts too.
    ///
    /// # Errors
    ///
    /// See [`EnableError`]. Faults of XSETBV, WRMSR and the restore become errors if the kernel's handlers
    /// serve [`fixup`](crate::fixup).
    ///
    /// # Safety
    ///
    /// * **C1** as for [`enable_legacy_on_this_cpu`]; in other rings it is refused.
    /// * **C2** nobody needs what this CPU's registers hold, and no task's registers are claimed to be on
    ///   it: the CPU's word is not open.
    /// * **C3** all CPUs of the system use this plan; no area of another one is ever loaded on them.
    /// * **C4** as for [`enable_legacy_on_this_cpu`].
    /// * **C5** until the CPU goes offline, nothing else changes those bits of CR0 and CR4, or XCR0,
    ///   IA32_XSS and IA32_XFD; and EFER.FFXSR is clear, as after reset (with it AMD CPUs leave XMM out of
    ///   FXSAVE and FXRSTOR in ring 0).
    ///
    /// ```no_run
    /// use fpu_x86::{Components, Plan};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let plan = Plan::detect_kernel(Components::USER | Components::CET_U)?; // once
    /// // SAFETY: C1 to C5: a CPU of ours that comes online, interrupts off, nothing run on it yet.
    /// let state = unsafe { plan.enable_on_this_cpu() }?; // on each CPU
    /// println!("XCR0 is {:#x?}", state.xcr0);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "fpu__init_cpu")]
    #[doc(alias = "fpu__resume_cpu")]
    pub unsafe fn enable_on_this_cpu(&self) -> Result<ControlState, EnableError> {
        let ring = insn::ring();
        if ring != 0 {
            return Err(EnableError::WrongRing(ring));
        }
        if !self.is_for_kernel() {
            return Err(EnableError::UserPlan);
        }
        let cpu = Facts::from_cpuid(CpuIdReaderNative).map_err(EnableError::Cpuid)?;
        self.check_cpu(&cpu).map_err(EnableError::Cpu)?;
        let should = ControlState::of(self).map_err(EnableError::Cpuid)?;

        // SAFETY: N4: C1.
        let (cr0, cr4) = unsafe { (insn::cr0(), insn::cr4()) };
        // SAFETY: C1, C4. After this FXSAVE works, which the next line needs.
        unsafe { enable_legacy_on_this_cpu() };
        if let Err(why) = self.check_mxcsr_mask(backend::mxcsr_mask()) {
            // SAFETY: N4, N5: the values of before.
            unsafe {
                insn::set_cr4(cr4);
                insn::set_cr0(cr0);
            }
            return Err(EnableError::Cpu(why));
        }
        // SAFETY: N4: C1. N5: C4, and OSXSAVE only where the CPU has XSAVE (`check_cpu`).
        unsafe { insn::set_cr4(insn::cr4() & !CR4_OURS | should.cr4) };

        // XCR0 first: with a component still off there, the others have nothing to act on.
        if let Some(xcr0) = should.xcr0 {
            // SAFETY: N3: OSXSAVE is set. N4: C1.
            refused(ControlRegister::Xcr0, unsafe { insn::xsetbv0(xcr0) })?;
        }
        if let Some(xss) = should.xss {
            // SAFETY: N4: C1. N5: C5.
            refused(ControlRegister::Xss, unsafe { insn::wrmsr(IA32_XSS, xss) })?;
        }
        if let Some(xfd) = should.xfd {
            // SAFETY: N4: C1. N5: C5.
            refused(ControlRegister::Xfd, unsafe { insn::wrmsr(IA32_XFD, xfd) })?;
            // SAFETY: as above.
            refused(ControlRegister::Xfd, unsafe { insn::wrmsr(IA32_XFD_ERR, 0) })?;
        }
        // SAFETY: C2, and all components of the plan are on.
        unsafe { self.load_initial_registers() }?;
        // SAFETY: C1.
        let state = unsafe { ControlState::read() };
        state.verify(self).map_err(EnableError::Verify)?;
        Ok(state)
    }

    /// Loads the initial state into every register that the plan switches.
    ///
    /// # Safety
    ///
    /// C2, on a CPU where all of the plan's components are on.
    unsafe fn load_initial_registers(&self) -> Result<(), EnableError> {
        /// The legacy area and the header: of absent components a restore reads nothing else.
        #[repr(C, align(64))]
        struct Initial([u8; 576]);
        let mut initial = Initial([0; 576]);
        image::write_initial(&mut initial.0, self);
        let area = initial.0.as_ptr();
        // SAFETY: N2: C2. Flags of exceptions, all of them masked, which the restore has to take away.
        unsafe {
            insn::fninit();
            insn::ldmxcsr(image::INITIAL_MXCSR | 0x3F);
            if self.scrubs() {
                insn::scrub();
            }
        }
        let vector = match self.rung() {
            // SAFETY: N1: a local of at least 512 bytes, aligned. N2: C2. So for all three.
            Rung::Fxsave => unsafe { insn::fxrstor(area) },
            // SAFETY: as above, in ring 0 (C1); XSTATE_BV is 0, so nothing behind the header is read.
            Rung::Xsaves => unsafe { insn::xrstors(area, self.mask) },
            // SAFETY: as above.
            _ => unsafe { insn::xrstor(area, self.mask) },
        };
        // SAFETY: N2: C2.
        match (vector, unsafe { insn::stmxcsr() }) {
            (0, image::INITIAL_MXCSR) => Ok(()),
            (0, _) => Err(EnableError::KeepsMxcsr),
            (vector, _) => Err(EnableError::InitialState { vector }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Components;

    #[test]
    fn ring_3_is_refused_before_anything_is_touched() {
        let plan = Plan::detect_kernel(Components::USER).unwrap();
        // SAFETY: C1 does not hold, which is refused by name; nothing after that runs.
        let answer = unsafe { plan.enable_on_this_cpu() };
        assert_eq!(answer, Err(EnableError::WrongRing(3)));
    }

    #[test]
    fn the_initial_registers_load_in_every_rung_of_ring_3() {
        for rung in [Rung::Xsavec, Rung::Xsaveopt, Rung::Xsave, Rung::Fxsave] {
            let wanted = if rung == Rung::Fxsave { Components::LEGACY } else { Components::USER };
            // What the system of this test has enabled may be less than what the CPU has.
            let Ok(user) = Plan::detect_user(Components::all()) else { continue };
            let wanted = wanted.intersection(user.components());
            match Plan::detect_kernel(wanted).and_then(|plan| plan.with_rung(rung)) {
                // SAFETY: C2: no vector register holds anything across the call, by its clobbers.
                Ok(plan) => assert_eq!(unsafe { plan.load_initial_registers() }, Ok(())),
                Err(why) => assert_eq!(why, PlanError::Unavailable(rung)),
            }
        }
    }
}
