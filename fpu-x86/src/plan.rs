//! Which registers are switched, by which instruction, to where.

use crate::{
    check::{check_described, check_enabled_sizes, check_supported_size},
    components::SWITCHED,
    layout::Places,
    Components, Facts, PlanError,
};

/// The instruction that saves; its restore and its initial image belong to it. Better ones compare
/// greater.
///
/// ```
/// use fpu_x86::{Format, Rung};
/// assert!(Rung::Xsaves > Rung::Xsavec && Rung::Xsavec > Rung::Xsaveopt);
/// assert_eq!(Rung::Xsavec.format(), Format::Compacted);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rung {
    /// FXSAVE64: x87 and SSE only, always all of it.
    Fxsave,
    /// XSAVE64: every component in every save.
    Xsave,
    /// XSAVEOPT64: leaves out what is initial, and what has not changed since the restore from the
    /// same address.
    Xsaveopt,
    /// XSAVEC64: leaves out what is initial, in an area without gaps.
    Xsavec,
    /// XSAVES64, in ring 0 only: as XSAVEC64, and also leaves out what has not changed since the
    /// restore from the same address; saves supervisor components.
    Xsaves,
}

impl Rung {
    /// All of them, the best first.
    pub const ALL: [Self; 5] =
        [Self::Xsaves, Self::Xsavec, Self::Xsaveopt, Self::Xsave, Self::Fxsave];

    /// The format that its images have.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Self::Fxsave => Format::Legacy,
            Self::Xsave | Self::Xsaveopt => Format::Standard,
            Self::Xsavec | Self::Xsaves => Format::Compacted,
        }
    }
}

/// How a restore is done: what the switching path asks, most frequent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RestoreBy {
    Xrstor,
    Xrstors,
    Fxrstor,
    /// By the rung's instruction, after the x87 pointers and MXCSR have been overwritten.
    Scrubbing,
}

/// How an image is laid out (SDM vol. 1, 10.5 and 13.4).
///
/// ```
/// assert_ne!(fpu_x86::Format::Standard, fpu_x86::Format::Compacted);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The 512 bytes of FXSAVE, without a header.
    Legacy,
    /// With a header; each component at its fixed offset.
    Standard,
    /// With a header; components packed.
    Compacted,
}

/// Everything decided once: the components that are switched, the instruction, and the layout.
///
/// It is the backend value: it implements [`fpu_core::RawFpu`]. A kernel makes it at boot and keeps it
/// in a static; the switching path reads the mask and the rung from it.
///
/// ```
/// use fpu_core::RawFpu;
/// use fpu_x86::{Components, Plan};
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// let plan = Plan::detect_user(Components::all())?;
/// assert!(plan.components().contains(Components::LEGACY));
/// assert!(plan.area_len() >= 512);
/// # }
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))] // what the switching path reads is in one cache line
pub struct Plan {
    pub(crate) mask: u64,
    pub(crate) rung: Rung,
    pub(crate) restore_by: RestoreBy,
    /// What XCR0 holds while this plan is in use.
    xcr0: u64,
    /// XSAVE and its kin may be used.
    xsave: bool,
    /// Made for ring 0, which sets XCR0 and IA32_XSS by it.
    ring0: bool,
    mxcsr_mask: u32,
    pub(crate) layout: Places,
    facts: Facts,
}

impl Plan {
    /// What ring 3 can know and do: components enabled in XCR0, minus PKRU, minus `left_out`.
    pub(crate) fn user(
        facts: Facts,
        xcr0: u64,
        mxcsr_mask: u32,
        wanted: Components,
        left_out: Components,
    ) -> Result<Self, PlanError> {
        let xsave = facts.xsave() && facts.osxsave();
        let enabled = if xsave { Components::from_bits_retain(xcr0) } else { Components::LEGACY };
        let known = SWITCHED.intersection(Components::USER).union(Components::PKRU);
        let unknown = enabled.difference(known);
        if !unknown.is_empty() {
            return Err(PlanError::Unsupported(unknown));
        }
        if !enabled.is_legal_xcr0() {
            return Err(PlanError::IllegalXcr0(enabled));
        }
        let not_listed = enabled.difference(facts.supported_user());
        if !not_listed.is_empty() {
            return Err(PlanError::NotEnumerated(not_listed));
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
        if xsave {
            check_described(enabled, &facts)?;
            check_enabled_sizes(enabled, &facts)?;
        }
        Self::with_best_rung(Self {
            mask: due.bits(),
            rung: Rung::Fxsave,
            restore_by: RestoreBy::Fxrstor,
            xcr0: enabled.bits(),
            xsave,
            ring0: false,
            mxcsr_mask,
            layout: Places::legacy(),
            facts,
        })
    }

    /// What ring 0 can do: of `wanted`, all that the CPU has.
    pub(crate) fn kernel(
        facts: Facts,
        mxcsr_mask: u32,
        wanted: Components,
    ) -> Result<Self, PlanError> {
        let unknown = wanted.difference(Components::all());
        if !unknown.is_empty() {
            return Err(PlanError::Unsupported(unknown));
        }
        let wanted = wanted.intersection(SWITCHED);
        let user = wanted.intersection(facts.supported_user()).intersection(Components::USER);
        if !user.is_legal_xcr0() {
            return Err(PlanError::IllegalXcr0(user));
        }
        let missing = Components::LEGACY.difference(user);
        if !missing.is_empty() {
            return Err(PlanError::Uncovered { missing });
        }
        let mut supervisor = Components::empty();
        if facts.offers_xsaves() {
            supervisor = wanted
                .intersection(facts.supported_supervisor())
                .intersection(Components::SUPERVISOR);
        }
        let due = user | supervisor;
        if facts.xsave() {
            check_described(due, &facts)?;
            check_supported_size(&facts)?;
        }
        Self::with_best_rung(Self {
            mask: due.bits(),
            rung: Rung::Fxsave,
            restore_by: RestoreBy::Fxrstor,
            xcr0: user.bits(),
            xsave: facts.xsave(),
            ring0: true,
            mxcsr_mask,
            layout: Places::legacy(),
            facts,
        })
    }

    fn with_best_rung(self) -> Result<Self, PlanError> {
        let best = Rung::ALL.into_iter().find(|rung| self.offers(*rung)).unwrap_or(Rung::Fxsave);
        self.with_rung(best)
    }

    fn offers(&self, rung: Rung) -> bool {
        self.facts.offers(rung)
            && (rung == Rung::Fxsave || self.xsave)
            && (rung != Rung::Xsaves || self.ring0)
    }

    /// Does a CPU with these facts have this plan's instruction?
    pub(crate) fn offered_by(&self, cpu: &Facts) -> bool {
        cpu.offers(self.rung)
    }

    /// The same plan with another instruction, for tests and measurements.
    ///
    /// Images made with one rung are not for another: make the plan before the first area.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan, PlanError, Rung};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// match plan.with_rung(Rung::Xsave) {
    ///     Ok(plan) => assert_eq!(plan.rung(), Rung::Xsave),
    ///     Err(why) => assert_eq!(why, PlanError::Unavailable(Rung::Xsave)),
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
    pub fn with_rung(self, rung: Rung) -> Result<Self, PlanError> {
        if !self.offers(rung) {
            return Err(PlanError::Unavailable(rung));
        }
        let held = match rung {
            Rung::Fxsave => Components::LEGACY,
            Rung::Xsave | Rung::Xsaveopt | Rung::Xsavec => !Components::SUPERVISOR,
            Rung::Xsaves => !Components::empty(),
        };
        let missing = self.components().difference(held);
        if !missing.is_empty() {
            return Err(PlanError::TooNarrow { missing });
        }
        let layout = Places::new(rung.format(), self.components(), &self.facts)?;
        let restore_by = match rung {
            _ if self.scrubs() || self.facts.keeps_x87_pointers() => RestoreBy::Scrubbing,
            Rung::Xsave | Rung::Xsaveopt | Rung::Xsavec => RestoreBy::Xrstor,
            Rung::Xsaves => RestoreBy::Xrstors,
            Rung::Fxsave => RestoreBy::Fxrstor,
        };
        Ok(Self { rung, restore_by, layout, ..self })
    }

    /// The same plan with the x87 pointers and MXCSR overwritten before every restore, for processors whose
    /// restore leaves one of them to the next task:
    ///
    /// * the pointers, on AMD CPUs without the fix; where [CPUID says so](Facts::keeps_x87_pointers) a plan
    ///   scrubs by itself, and this is for a kernel that does not believe its hypervisor;
    /// * MXCSR, where an image in the compacted format has no SSE state. By SDM vol. 1, 13.8.2, a restore
    ///   initialises MXCSR then, and every CPU that is known here does; Bochs 3.0 does not.
    ///   `enable_on_this_cpu` notices, and refuses such a processor unless the plan scrubs
    ///   ([`EnableError::KeepsMxcsr`](crate::EnableError::KeepsMxcsr)).
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?.scrubbing();
    /// assert!(plan.scrubs());
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn scrubbing(self) -> Self {
        Self { restore_by: RestoreBy::Scrubbing, ..self }
    }

    /// Does every restore scrub the x87 pointers, and MXCSR?
    #[must_use]
    pub fn scrubs(&self) -> bool {
        self.restore_by == RestoreBy::Scrubbing
    }

    /// The components that are saved and restored: the requested-feature bitmap.
    #[must_use]
    pub fn components(&self) -> Components {
        Components::from_bits_retain(self.mask)
    }

    /// The instruction that saves.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// How its images are laid out.
    #[must_use]
    pub fn format(&self) -> Format {
        self.rung.format()
    }

    /// Bytes an area must have.
    #[must_use]
    pub fn area_len(&self) -> usize {
        self.layout.len()
    }

    /// Offset and size in bytes of one extended component (number 2 and up) within an image.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// if plan.components().contains(Components::AVX) {
    ///     assert_eq!(plan.place(Components::AVX), Some((576, 256)));
    /// }
    /// assert_eq!(plan.place(Components::PKRU), None);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn place(&self, component: Components) -> Option<(usize, usize)> {
        let number = component.number()?;
        let slot = self.layout.slot(number)?;
        Some((slot.offset as usize, slot.size as usize))
    }

    /// The MXCSR bits that may be set on this CPU.
    #[doc(alias = "MXCSR_MASK")]
    #[must_use]
    pub fn mxcsr_mask(&self) -> u32 {
        self.mxcsr_mask
    }

    /// What CPUID said when the plan was made; layouts of either format come from here.
    ///
    /// ```
    /// use fpu_x86::{Components, Layout, Plan, Standard};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// let leaving = Layout::<Standard>::new(plan.facts(), plan.components())?;
    /// assert!(leaving.len() >= 576);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What XCR0 holds while the plan is in use. In ring 3 that is more than the plan's
    /// [components](Self::components) where PKRU is enabled or something was left out; in ring 0, where
    /// the plan decides it, exactly its user components.
    #[must_use]
    pub fn xcr0(&self) -> Components {
        Components::from_bits_retain(self.xcr0)
    }

    /// What IA32_XSS holds while a plan for ring 0 is in use: its supervisor components.
    #[must_use]
    pub fn xss(&self) -> Components {
        self.components().intersection(Components::SUPERVISOR)
    }

    /// Was it made for ring 0, by [`detect_kernel`](Self::detect_kernel)?
    #[must_use]
    pub fn is_for_kernel(&self) -> bool {
        self.ring0
    }
}
