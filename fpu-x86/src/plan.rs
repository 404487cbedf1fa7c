//! Which registers are switched, by which instruction, to where.

use crate::{
    cpuid::Facts,
    layout::{check_described, check_sizes, Layout, Slot},
    Components, PlanError,
};

/// The instruction that saves; its restore and its initial image belong to it. Better ones compare
/// greater.
///
/// ```
/// use fpu_x86::{Format, Rung};
/// assert!(Rung::Xsavec > Rung::Xsaveopt);
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
}

impl Rung {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::Xsavec, Self::Xsaveopt, Self::Xsave, Self::Fxsave];

    /// The format that its images have.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Self::Fxsave => Format::Legacy,
            Self::Xsave | Self::Xsaveopt => Format::Standard,
            Self::Xsavec => Format::Compacted,
        }
    }
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
    pub(crate) layout: Layout,
    facts: Facts,
}

impl Plan {
    /// What ring 3 can know and do: components enabled in XCR0, minus PKRU, minus `left_out`.
    pub(crate) fn user(
        facts: Facts,
        wanted: Components,
        left_out: Components,
    ) -> Result<Self, PlanError> {
        let enabled = Components::from_bits_retain(facts.xcr0);
        let unknown = enabled.difference(Components::all());
        if !unknown.is_empty() {
            return Err(PlanError::Unsupported(unknown));
        }
        if !enabled.is_legal_xcr0() {
            return Err(PlanError::IllegalXcr0(enabled));
        }
        let not_listed = enabled.difference(Components::from_bits_retain(facts.xcr0_supported));
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
        if facts.xsave {
            check_described(enabled, &facts)?;
            check_sizes(enabled, &facts)?;
        }
        let best = Rung::ALL.into_iter().find(|rung| facts.offers(*rung)).unwrap_or(Rung::Fxsave);
        let layout = Layout::new(best.format(), due, &facts.described);
        Ok(Self { mask: due.bits(), rung: best, layout, facts })
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
    /// [`PlanError::Unavailable`], or [`PlanError::TooNarrow`] where FXSAVE would leave registers of
    /// one task to the next.
    pub fn with_rung(self, rung: Rung) -> Result<Self, PlanError> {
        if !self.facts.offers(rung) {
            return Err(PlanError::Unavailable(rung));
        }
        let missing = self.components().difference(Components::LEGACY);
        if rung == Rung::Fxsave && !missing.is_empty() {
            return Err(PlanError::TooNarrow { missing });
        }
        let layout = Layout::new(rung.format(), self.components(), &self.facts.described);
        Ok(Self { rung, layout, ..self })
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
        self.layout.len as usize
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
        let Slot { offset, size } = *self.layout.slots.get(number as usize)?;
        (size != 0).then_some((offset as usize, size as usize))
    }

    /// The MXCSR bits that may be set on this CPU.
    #[doc(alias = "MXCSR_MASK")]
    #[must_use]
    pub fn mxcsr_mask(&self) -> u32 {
        self.facts.mxcsr_mask
    }
}

impl Facts {
    fn offers(&self, rung: Rung) -> bool {
        match rung {
            Rung::Fxsave => true,
            Rung::Xsave => self.xsave,
            Rung::Xsaveopt => self.xsave && self.xsaveopt,
            Rung::Xsavec => self.xsave && self.xsavec,
        }
    }
}
