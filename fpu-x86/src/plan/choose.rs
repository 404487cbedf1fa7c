//! Makes a plan: which components, by which instruction, from CPUID's words and from what other code found out.
//!
//! A machine that describes itself badly gets fewer components, and a [`Quirk`] says which. A plan is refused
//! only if registers would be lost: components that tasks can use and no save would hold, and components that
//! the kernel requires.

use super::{
    quirk::{Quirk, Quirks},
    validate, Plan,
};
use crate::{
    components::{one, Components, SWITCHED},
    cpuid::{CpuidInfo, Leaf},
    error::{LeftOut, PlanError},
    layout::PlanPlaces,
    save_instruction::{RestoreBy, SaveInstruction},
};

/// The mask of CPUs that leave the field 0 (SDM vol. 1, 11.6.6); every 64-bit CPU has these bits.
const OLDEST_MXCSR_MASK: u32 = 0xFFBF;

/// All bits that any CPU has: DAZ, and AMD's misaligned exception mask.
const KNOWN_MXCSR_MASK: u32 = 0x2_FFFF;

impl Plan {
    /// A plan before its components, instruction and layout are decided.
    fn blank(facts: CpuidInfo, mxcsr_mask: u32, ring0: bool) -> Self {
        Self {
            mask: Components::LEGACY.bits(),
            instruction: SaveInstruction::Fxsave,
            restore_by: RestoreBy::Fxrstor,
            xcr0: Components::LEGACY.bits(),
            area_len: 0,
            at_least: [0; 2],
            xsave: facts.xsave(),
            ring0,
            writes_xss: facts.xsaves(),
            writes_xfd: facts.xfd(),
            required: Components::LEGACY,
            trusted: Components::empty(),
            trusts_mxcsr: false,
            mxcsr_mask: mxcsr_mask & KNOWN_MXCSR_MASK | OLDEST_MXCSR_MASK,
            layout: PlanPlaces::legacy(),
            quirks: Quirks::of(facts.leaf()),
            facts,
        }
    }

    /// The plan for ring 3 on a machine whose CPUID and XCR0 are given. It may be this machine, by another reader, or
    /// another machine whose images are to be read.
    ///
    /// `mxcsr_mask` is the field of that name in an image that FXSAVE wrote there, or 0 where it is not known.
    /// See [`detect_user`](Self::detect_user) for the rest. As a backend the plan is for that machine. A caller
    /// that uses it as a backend here promises (K4 of [`fpu_core::Pinned`]) that the facts are this machine's, XCR0
    /// included.
    ///
    /// # Errors
    ///
    /// As for [`detect_user`](Self::detect_user), and [`PlanError::UnknownXcr0`] if the facts lack
    /// [XCR0](CpuidInfo::with_xcr0) although the system has enabled XSAVE.
    ///
    /// ```
    /// use fpu_x86::{Components, CpuidInfo, Plan, SaveInstruction};
    /// # use raw_cpuid::CpuIdResult;
    /// // Recorded words, here of an EPYC 7763.
    /// # let words = |leaf, sub| match (leaf, sub) {
    /// #     (0, _) => CpuIdResult { eax: 16, ebx: 0x6874_7541, ecx: 0x444D_4163, edx: 0x6974_6E65 },
    /// #     (1, _) => CpuIdResult { eax: 0xA0_0F11, ebx: 0, ecx: 3 << 26, edx: 3 << 24 },
    /// #     (0xD, 0) => CpuIdResult { eax: 0x207, ebx: 832, ecx: 2440, edx: 0 },
    /// #     (0xD, 1) => CpuIdResult { eax: 15, ebx: 832, ecx: 0, edx: 0 },
    /// #     (0xD, 2) => CpuIdResult { eax: 256, ebx: 576, ecx: 0, edx: 0 },
    /// #     (0xD, 9) => CpuIdResult { eax: 8, ebx: 2432, ecx: 0, edx: 0 },
    /// #     _ => CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
    /// # };
    /// let xcr0 = Components::LEGACY | Components::AVX;
    /// let facts = CpuidInfo::from_cpuid(words)?.with_xcr0(xcr0);
    /// let plan = Plan::for_user(facts, 0x2_FFFF, Components::all())?;
    /// assert_eq!((plan.components(), plan.save_instruction()), (xcr0, SaveInstruction::Xsavec));
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    pub fn for_user(
        facts: CpuidInfo,
        mxcsr_mask: u32,
        wanted: Components,
    ) -> Result<Self, PlanError> {
        Self::user(facts, mxcsr_mask, wanted, Components::empty())
    }

    /// The plan that ring 3 can make: components enabled in XCR0, minus PKRU, minus `left_out`.
    pub(crate) fn user(
        facts: CpuidInfo,
        mxcsr_mask: u32,
        wanted: Components,
        left_out: Components,
    ) -> Result<Self, PlanError> {
        let enabled = match facts.xcr0() {
            Some(xcr0) if facts.osxsave() => xcr0,
            None if facts.osxsave() => return Err(PlanError::UnknownXcr0),
            _ => Components::LEGACY,
        };
        let known = SWITCHED.user_part().union(Components::PKRU);
        let unknown = enabled.difference(known);
        if !unknown.is_empty() {
            return Err(PlanError::Unsupported(unknown));
        }
        if !enabled.is_legal_xcr0() {
            return Err(PlanError::IllegalXcr0(enabled));
        }
        // SSE instructions do not ask XCR0, so tasks hold XMM registers whether XSAVE may save them
        // or not.
        let missing = Components::LEGACY.difference(enabled.difference(left_out));
        if !missing.is_empty() {
            return Err(PlanError::Uncovered { missing });
        }
        let due = enabled.difference(Components::PKRU).difference(left_out);
        let missing = due.difference(wanted);
        if !missing.is_empty() {
            return Err(PlanError::Uncovered { missing });
        }
        let mut plan = Self::blank(facts, mxcsr_mask, false);
        plan.xsave = plan.facts.xsave() && plan.facts.osxsave();
        (plan.mask, plan.xcr0, plan.required) = (due.bits(), enabled.bits(), due);
        if !plan.xsave {
            let missing = due.difference(Components::LEGACY);
            match plan.facts.leaf() {
                _ if missing.is_empty() => plan.take_best_instruction(SaveInstruction::Xsaves)?,
                // Tasks can use components that no known instruction saves.
                Some(Leaf::None { .. }) => return Err(PlanError::NoXsaveLeaf),
                _ => return Err(PlanError::EmptyXsaveLeaf),
            }
            return Ok(plan);
        }
        let not_listed = due.difference(plan.facts.supported_user());
        if !not_listed.is_empty() {
            return Err(PlanError::NotEnumerated(not_listed));
        }
        plan.check_enabled(due)?;
        plan.note_sizes_of_ring_3(enabled);
        plan.take_best_instruction(SaveInstruction::Xsaves)?;
        Ok(plan)
    }

    /// Everything that is enabled must be described. PKRU, which is not saved, may lack a place.
    fn check_enabled(&mut self, due: Components) -> Result<(), PlanError> {
        let mut taken = Components::LEGACY;
        for number in due.difference(Components::LEGACY).numbers() {
            let component = one(number);
            if let Err(word) = validate::check(number, &self.facts, taken) {
                return Err(PlanError::Required { component, why: LeftOut::Word(word) });
            }
            taken |= component;
        }
        self.check_rights(self.xcr0());
        Ok(())
    }

    /// PKRU's place, of which frames and regsets have 4 bytes: apart from the plan's components, or nowhere.
    fn check_rights(&mut self, listed: Components) {
        for number in listed.intersection(Components::PKRU).numbers() {
            if let Err(word) = validate::check(number, &self.facts, self.components()) {
                self.facts.forget(number);
                self.quirks.leave_out(Components::PKRU, LeftOut::Word(word));
            }
        }
    }

    /// The plan for ring 0 on a machine whose CPUID is given: of `wanted`, every component that the machine has.
    ///
    /// For a kernel that must not execute CPUID, a hypervisor that makes plans for others, and tests.
    /// `mxcsr_mask` is the field of that name in an image that FXSAVE wrote there, or 0 where it is not known.
    /// See [`detect_kernel`](Self::detect_kernel) for the rest. As a backend it is for that machine, on which it must
    /// have been [put into force](Self::enable_on_this_cpu).
    ///
    /// # Errors
    ///
    /// [`PlanError::Unsupported`] for components without a name here, [`PlanError::Uncovered`] and
    /// [`PlanError::IllegalXcr0`] for sets that no CPU accepts: without x87 and SSE, AVX-512 without AVX, or a
    /// part of AVX-512, MPX or AMX.
    ///
    /// ```
    /// use fpu_x86::{Components, CpuidInfo, Plan, SaveInstruction};
    /// # use raw_cpuid::CpuIdResult;
    /// // Words of a virtual machine that says XSAVE, and has no leaf 0xD.
    /// # let words = |leaf, _| match leaf {
    /// #     0 => CpuIdResult { eax: 3, ebx: 0, ecx: 0, edx: 0 },
    /// #     1 => CpuIdResult { eax: 0, ebx: 0, ecx: 1 << 26, edx: 3 << 24 },
    /// #     _ => CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
    /// # };
    /// let plan = Plan::for_kernel(CpuidInfo::from_cpuid(words)?, 0, Components::USER)?;
    /// assert_eq!((plan.save_instruction(), plan.area_len()), (SaveInstruction::Fxsave, 512));
    /// assert_eq!(plan.quirks().count(), 1);
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    pub fn for_kernel(
        facts: CpuidInfo,
        mxcsr_mask: u32,
        wanted: Components,
    ) -> Result<Self, PlanError> {
        let unknown = wanted.difference(Components::all());
        if !unknown.is_empty() {
            return Err(PlanError::Unsupported(unknown));
        }
        let asked = wanted.intersection(SWITCHED);
        let missing = Components::LEGACY.difference(asked);
        if !missing.is_empty() {
            return Err(PlanError::Uncovered { missing });
        }
        if !asked.user_part().is_whole() {
            return Err(PlanError::IllegalXcr0(asked.user_part()));
        }
        let mut plan = Self::blank(facts, mxcsr_mask, true);
        if plan.xsave {
            let facts = &plan.facts;
            let mut listed = facts.supported_user().user_part();
            if facts.offers_xsaves() {
                listed |= facts.supported_supervisor().intersection(Components::SUPERVISOR);
            }
            let quirks = &mut plan.quirks;
            let usable = validate::usable(asked, listed, facts, |components, why| {
                quirks.leave_out(components, why);
            });
            plan.mask = usable.bits();
            plan.xcr0 = usable.user_part().bits();
            plan.check_rights(plan.facts.supported_user());
            plan.note_supported_size();
        }
        plan.take_best_instruction(SaveInstruction::Xsaves)?;
        Ok(plan)
    }

    /// This plan, if it has these components, which the kernel cannot do without, beyond x87 and SSE. A
    /// required component is not left out later either, when the plan is tried on the CPU.
    ///
    /// # Errors
    ///
    /// [`PlanError::Required`] with the reason for which one was left out; [`PlanError::NotEnumerated`] if the
    /// CPU does not list it, or it was not asked for.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan, PlanError};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_kernel(Components::USER)?.requiring(Components::LEGACY)?;
    /// let why = plan.requiring(Components::HWP); // in no plan
    /// assert_eq!(why, Err(PlanError::NotEnumerated(Components::HWP)));
    /// # }
    /// # Ok::<(), PlanError>(())
    /// ```
    pub fn requiring(mut self, required: Components) -> Result<Self, PlanError> {
        let missing = required.difference(self.components());
        if missing.is_empty() {
            self.required |= required;
            return Ok(self);
        }
        let reason = self.quirks().find_map(|quirk| match quirk {
            Quirk::LeftOut { components, why } if components.intersects(missing) => {
                Some(PlanError::Required { component: components.intersection(missing), why })
            }
            _ => None,
        });
        Err(reason.unwrap_or(PlanError::NotEnumerated(missing)))
    }

    /// Leaves components out, and those that need them.
    pub(crate) fn leave_out(
        &mut self,
        unusable: Components,
        why: LeftOut,
    ) -> Result<(), PlanError> {
        self.remove(unusable, why)?;
        self.take_best_instruction(self.instruction)
    }

    /// As [`leave_out`](Self::leave_out), before an instruction is chosen. If a component is required, nothing has
    /// changed.
    fn remove(&mut self, unusable: Components, why: LeftOut) -> Result<(), PlanError> {
        let lost = unusable.with_dependents().intersection(self.components());
        let component = lost.intersection(self.required);
        if !component.is_empty() {
            return Err(PlanError::Required { component, why });
        }
        self.mask &= !lost.bits();
        self.xcr0 &= !lost.bits();
        self.at_least = [0; 2];
        self.quirks.leave_out(lost, why);
        Ok(())
    }

    /// Drops the present instruction, which does not work, and the components that the next best cannot save.
    pub(crate) fn bar_instruction(&mut self, why: LeftOut) -> Result<(), PlanError> {
        self.quirks.bar(self.instruction, why);
        self.keep_what_can_be_saved(why)
    }

    /// Takes the best instruction that is left, and leaves out what it cannot save.
    pub(crate) fn keep_what_can_be_saved(&mut self, why: LeftOut) -> Result<(), PlanError> {
        let supervisor = self.components().intersection(Components::SUPERVISOR);
        if !supervisor.is_empty() && !self.offers(SaveInstruction::Xsaves) {
            self.remove(supervisor, why)?;
        }
        let extended = self.components().difference(Components::LEGACY);
        if !extended.is_empty()
            && self.best_instruction(self.instruction) == SaveInstruction::Fxsave
        {
            self.remove(extended, why)?;
        }
        self.take_best_instruction(self.instruction)
    }

    /// The best instruction that is no better than `most`. For x87 and SSE alone a kernel takes FXSAVE, which is faster
    /// where it was measured (docs/performance.md), unless the CPU has protection keys: a signal frame has no place for
    /// PKRU without XSAVE. A program does not take FXSAVE: signal frames and regsets have the system's shape, which has a
    /// header wherever OSXSAVE is set.
    fn best_instruction(&self, most: SaveInstruction) -> SaveInstruction {
        let legacy = self.components().difference(Components::LEGACY).is_empty();
        if self.ring0 && legacy && !self.has_keys() {
            return SaveInstruction::Fxsave;
        }
        let offered =
            |instruction: &SaveInstruction| *instruction <= most && self.offers(*instruction);
        SaveInstruction::ALL.into_iter().find(offered).unwrap_or(SaveInstruction::Fxsave)
    }

    pub(crate) fn offers(&self, instruction: SaveInstruction) -> bool {
        self.facts.offers(instruction)
            && !self.quirks.is_barred(instruction)
            && (instruction == SaveInstruction::Fxsave || self.xsave)
            && (instruction != SaveInstruction::Xsaves || (self.ring0 && self.writes_xss))
    }

    /// Tells whether a CPU with these facts has this plan's instruction.
    pub(crate) fn offered_by(&self, cpu: &CpuidInfo) -> bool {
        cpu.offers(self.instruction)
    }

    /// This plan with another instruction, for tests and measurements.
    ///
    /// Images made with one instruction are not for another: make the plan before the first area.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan, PlanError, SaveInstruction};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// match plan.with_save_instruction(SaveInstruction::Xsave) {
    ///     Ok(plan) => assert_eq!(plan.save_instruction(), SaveInstruction::Xsave),
    ///     Err(why) => assert_eq!(why, PlanError::Unavailable(SaveInstruction::Xsave)),
    /// }
    /// # }
    /// # Ok::<(), PlanError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PlanError::Unavailable`], or [`PlanError::TooNarrow`] where the instruction would leave
    /// registers of one task to the next: FXSAVE with more than x87 and SSE, any but XSAVES with
    /// supervisor components.
    #[doc(alias = "with_rung")]
    pub fn with_save_instruction(
        mut self,
        instruction: SaveInstruction,
    ) -> Result<Self, PlanError> {
        self.take_instruction(instruction)?;
        Ok(self)
    }

    /// The best instruction that is no better than `most`.
    fn take_best_instruction(&mut self, most: SaveInstruction) -> Result<(), PlanError> {
        self.take_instruction(self.best_instruction(most))
    }

    fn take_instruction(&mut self, instruction: SaveInstruction) -> Result<(), PlanError> {
        if !self.offers(instruction) {
            return Err(PlanError::Unavailable(instruction));
        }
        let held = match instruction {
            SaveInstruction::Fxsave => Components::LEGACY,
            SaveInstruction::Xsave | SaveInstruction::Xsaveopt | SaveInstruction::Xsavec => {
                !Components::SUPERVISOR
            }
            SaveInstruction::Xsaves => !Components::empty(),
        };
        let missing = self.components().difference(held);
        if !missing.is_empty() {
            return Err(PlanError::TooNarrow { missing });
        }
        self.layout = PlanPlaces::of(instruction.format(), self.components(), &self.facts)?;
        self.restore_by = match instruction {
            _ if self.scrubs() || self.facts.keeps_x87_pointers() => RestoreBy::Scrubbing,
            _ if self.skips_initial() && self.can_skip_initial(instruction) => {
                RestoreBy::UnlessInitial
            }
            SaveInstruction::Xsave | SaveInstruction::Xsaveopt | SaveInstruction::Xsavec => {
                RestoreBy::Xrstor
            }
            SaveInstruction::Xsaves => RestoreBy::Xrstors,
            SaveInstruction::Fxsave => RestoreBy::Fxrstor,
        };
        self.instruction = instruction;
        self.area_len = self.needed();
        Ok(())
    }
}
