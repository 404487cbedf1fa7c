//! Where extended components lie in an area whose format is known at run time.

use crate::{
    components::{extended, one, Components},
    layout::{PlanPlaces, EXTENDED},
    origin::{ForeignLayout, Origin},
    plan::Plan,
    save_instruction::Format,
};

/// The places of one area.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Where<'a> {
    /// FXSAVE's format has none.
    Nowhere,
    /// The offsets that CPUID gives, of the plan's user components.
    Standard(&'a Plan),
    /// Computed.
    At(&'a PlanPlaces),
    /// The offsets of another machine's standard format.
    Elsewhere(&'a ForeignLayout),
    /// The compacted format of a set.
    Packed(Origin<'a>, Components),
}

impl Where<'_> {
    /// Offset and size.
    pub(crate) fn place(self, number: u32) -> Option<(usize, usize)> {
        match self {
            Self::Nowhere => None,
            Self::Standard(plan) => {
                let managed = plan.user_components().contains(one(number));
                standard(plan, number).filter(|_| managed)
            }
            Self::At(places) => {
                let slot = places.slot(number)?;
                Some((slot.offset as usize, slot.size as usize))
            }
            Self::Elsewhere(layout) => layout.standard(number),
            Self::Packed(origin, set) => origin.packed(set, number),
        }
    }
}

/// Offset and size by CPUID, whether or not the component is the plan's.
fn standard(plan: &Plan, number: u32) -> Option<(usize, usize)> {
    let described = plan.cpuid_info().described(number)?;
    Some((described.offset as usize, described.size as usize))
}

/// Bytes of the standard format of `set`.
pub(crate) fn standard_len(plan: &Plan, set: Components) -> usize {
    extended(set)
        .filter_map(|number| standard(plan, number))
        .fold(EXTENDED as usize, |len, (offset, size)| len.max(offset + size))
}

impl Plan {
    pub(crate) fn user_components(&self) -> Components {
        self.components().user_part()
    }

    /// Bytes of the standard format of this plan's user components: what
    /// [`Image::to_standard`](crate::Image::to_standard) writes.
    ///
    /// ```
    /// use fpu_core::RawFpu;
    /// use fpu_x86::{Components, Format, Plan};
    /// let plan = Plan::detect_user(Components::all())?;
    /// assert!(plan.standard_len() >= 576);
    /// assert!(plan.format() != Format::Standard || plan.standard_len() <= plan.area_len());
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn standard_len(&self) -> usize {
        standard_len(self, self.user_components())
    }

    /// Bytes of the standard format of all that XCR0 enables, and of PKRU where a kernel's tasks have it, with the
    /// header: a private buffer of this many suffices for a [`ForeignImage`](crate::ForeignImage) of this machine's.
    #[must_use]
    pub fn foreign_len(&self) -> usize {
        let rights = if self.carries_pkru() { Components::PKRU } else { Components::empty() };
        standard_len(self, self.xcr0().union(rights))
    }

    /// PKRU's place in the standard format, if XCR0 enables it.
    #[cfg(test)]
    pub(crate) fn pkru_place(&self) -> Option<(usize, usize)> {
        let number = Components::PKRU.number()?;
        standard(self, number).filter(|_| self.xcr0().contains(Components::PKRU))
    }

    /// Tells whether a task here has protection-key rights, and its images a place for them. In ring 3 that is so if
    /// the system has enabled them. In ring 0, where no plan enables them and the kernel switches them itself, that is
    /// so if the CPU has them.
    pub(crate) fn carries_pkru(&self) -> bool {
        self.format() != Format::Legacy && self.has_keys()
    }

    /// Tells whether tasks have protection-key rights, whatever the images' format.
    pub(crate) fn has_keys(&self) -> bool {
        let described = self.cpuid_info().described(9).is_some();
        let has =
            if self.is_for_kernel() { self.cpuid_info().supported_user() } else { self.xcr0() };
        described && has.contains(Components::PKRU)
    }
}
