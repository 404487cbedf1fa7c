//! CPUID's sizes, beside the sums of the components. Only a larger one counts, and only for areas.

use super::{
    quirk::SizeWord,
    validate::{self, LIMIT},
    Plan,
};
use crate::{
    components::{one, Components},
    cpuid::CpuidInfo,
    layout::{Compacted, Layout, Standard},
    save_instruction::{Format, SaveInstruction},
};

/// Where the format's size is in [`Plan::at_least`].
const STANDARD: usize = 0;
const COMPACTED: usize = 1;

impl Plan {
    /// CPUID's sizes, which in ring 3 are of what is enabled already. In the compacted format they include
    /// supervisor components, of which ring 3 cannot know which are enabled.
    pub(super) fn note_sizes_of_ring_3(&mut self, enabled: Components) {
        let facts = &self.facts;
        let placed = |number: &u32| *number < 2 || facts.described(*number).is_some();
        let known =
            enabled.numbers().filter(placed).fold(Components::empty(), |set, n| set | one(n));
        let standard =
            Layout::<Standard>::new(facts, known).map_or(0, |layout| layout.len() as u32);
        let least = Layout::<Compacted>::new(facts, known).map_or(0, |layout| layout.len() as u32);
        let possible = facts
            .supported_supervisor()
            .difference(facts.supported_user())
            .numbers()
            .filter(|number| facts.described(*number).is_some_and(|one| one.supervisor))
            .fold(known, |set, number| set | one(number));
        let most = match Layout::<Compacted>::new(facts, possible) {
            // Without XSAVES there is no IA32_XSS.
            Ok(layout) if facts.xsaves() => layout.len() as u32,
            _ => least,
        };
        let (reported, compacted) = (facts.standard_enabled(), facts.compacted_enabled());
        self.note_size(SizeWord::Standard, standard, reported);
        if self.facts.xsavec() && !(least..=most).contains(&compacted) {
            self.note_size(SizeWord::Compacted, least, compacted);
        }
        self.note_supported_size();
    }

    /// CPUID(0xD,0).ECX, which does not depend on what is enabled. No decision depends on this word.
    pub(super) fn note_supported_size(&mut self) {
        if let Some(computed) = validate::supported_len(&self.facts) {
            let reported = self.facts.standard_supported();
            self.note_size(SizeWord::Supported, computed, reported);
        }
    }

    /// A size that CPUID gives beside the sum of the components.
    fn note_size(&mut self, word: SizeWord, computed: u32, reported: u32) {
        let larger = if reported > computed && reported <= LIMIT { reported } else { 0 };
        match word {
            SizeWord::Standard => self.at_least[STANDARD] = larger,
            SizeWord::Compacted => self.at_least[COMPACTED] = larger,
            SizeWord::Supported => {}
        }
        self.quirks.set_size(word, computed, reported);
    }

    /// Applies the sizes that CPUID gives after the plan has been put into force, by the same reader as the plan's
    /// facts. A size larger than the sum of the components makes areas as large. A smaller size, or 0, changes
    /// nothing. Either is a [`Quirk`](crate::Quirk). `settle_on_this_cpu` calls this itself.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_kernel(Components::LEGACY)?;
    /// let facts = plan.cpuid_info().clone();
    /// assert!(plan.clone().with_sizes(&facts).area_len() >= plan.area_len());
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn with_sizes(mut self, after: &CpuidInfo) -> Self {
        self.note_sizes(after);
        self
    }

    /// As [`with_sizes`](Self::with_sizes).
    pub(crate) fn note_sizes(&mut self, after: &CpuidInfo) {
        if self.instruction == SaveInstruction::Fxsave {
            return;
        }
        let (xcr0, all) = (self.xcr0(), self.components());
        if let Ok(layout) = Layout::<Standard>::new(&self.facts, xcr0) {
            self.note_size(SizeWord::Standard, layout.len() as u32, after.standard_enabled());
        }
        match Layout::<Compacted>::new(&self.facts, all) {
            Ok(layout) if self.facts.xsavec() => {
                self.note_size(SizeWord::Compacted, layout.len() as u32, after.compacted_enabled());
            }
            _ => {}
        }
        self.area_len = self.needed();
    }

    /// Bytes of an area: the components', or what CPUID says where that is more.
    pub(super) fn needed(&self) -> u32 {
        let len = self.layout.len() as u32; // a layout's length fits 32 bits
        match self.instruction.format() {
            Format::Legacy => len,
            Format::Standard => len.max(self.at_least[STANDARD]),
            Format::Compacted => len.max(self.at_least[COMPACTED]),
        }
    }
}
