//! The CPU that the output is about: this one, or a recorded one.

use std::path::Path;

use fpu_x86::{Components, CpuidInfo, Plan, PlanError, Quirk, SaveInstruction};

use super::{
    encode::Machine,
    layouts::{explain, Layouts},
    reading::MXCSR_MASK,
    request::{self, Recorded},
    words::{numbers, Words},
};

/// A CPU, and what is enabled on it.
#[derive(Debug)]
pub struct Subject {
    /// The name.
    pub title: String,
    /// The origin of the words.
    pub source: &'static str,
    /// CPUID's words.
    pub facts: CpuidInfo,
    /// What is enabled: XCR0, and of another CPU perhaps IA32_XSS too.
    pub enabled: u64,
    /// The plan with which tasks would be switched here.
    pub plan: Option<Result<Plan, PlanError>>,
    /// The plan with which a kernel would switch them, if the words say enough: all user components and CET_U.
    pub ring0: Option<Result<Plan, PlanError>>,
}

/// The components that a kernel asks for.
const KERNEL: Components = Components::USER.union(Components::CET_U);

impl Subject {
    /// This machine.
    ///
    /// # Errors
    ///
    /// It has not even FXSAVE, or CPUID contradicts itself.
    pub fn this_machine() -> Result<Self, String> {
        let facts = CpuidInfo::from_cpuid(Words::of_this_cpu()).map_err(|why| explain(&why))?;
        let plan = Plan::detect_user(Components::all());
        let enabled = plan.as_ref().map_or(facts.supported_user(), Plan::xcr0).bits();
        Ok(Self {
            title: crate::report::cpu_name(),
            source: "this machine, in user mode",
            facts,
            enabled,
            plan: Some(plan),
            ring0: Some(Plan::detect_kernel(KERNEL)),
        })
    }

    /// The CPU whose words are in a file.
    ///
    /// # Errors
    ///
    /// What is wrong with the file.
    pub fn recorded(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|why| why.to_string());
        let text = text.and_then(|text| String::from_utf8(text).map_err(|why| why.to_string()));
        let read = text.and_then(|text| request::read_cpu(&text));
        let read = read.and_then(|Recorded { words, bitmap, brand }| {
            let whole = words.get(1, 0).is_some();
            let facts = match whole {
                true => CpuidInfo::from_cpuid(words),
                false => CpuidInfo::from_xsave_leaf(words),
            };
            let facts = facts.map_err(|why| explain(&why))?;
            let ring0 = whole.then(|| Plan::for_kernel(facts.clone(), 0, KERNEL));
            let enabled = bitmap.unwrap_or(facts.supported_user().bits());
            if facts.xsave() {
                Layouts::new(&facts, enabled)?;
            }
            let title = brand.unwrap_or_else(|| path.display().to_string());
            Ok(Self { title, source: "recorded words", facts, enabled, plan: None, ring0 })
        });
        read.map_err(|why| format!("{}: {why}", path.display()))
    }

    /// For which `encode` makes bytes.
    #[must_use]
    pub fn machine(&self) -> Machine<'_> {
        // Of another machine the bits of MXCSR are not known, so all are taken that any has.
        let plan = self.plan.as_ref().and_then(|plan| plan.as_ref().ok());
        let user = Components::from_bits_retain(self.enabled) & self.facts.supported_user();
        Machine {
            facts: &self.facts,
            mxcsr_mask: plan.map_or(MXCSR_MASK, Plan::mxcsr_mask),
            enabled: user.difference(Components::LWP),
        }
    }

    /// Both layouts of what is enabled.
    ///
    /// # Errors
    ///
    /// CPUID contradicts itself.
    pub fn layouts(&self) -> Result<Layouts, String> {
        Layouts::new(&self.facts, self.enabled)
    }

    /// The quirks of the plans, each once.
    #[must_use]
    pub fn quirks(&self) -> Vec<Quirk> {
        let facts = self.facts.clone().with_xcr0(Components::from_bits_retain(self.enabled));
        // With the sizes of what is enabled, which ring 0 has not decided yet.
        let ring3 = Some(Plan::for_user(facts, 0, Components::all()));
        let plans = [&ring3, &self.ring0].into_iter().flatten().flatten();
        let mut all = Vec::new();
        for quirk in plans.flat_map(Plan::quirks) {
            if !all.contains(&quirk) {
                all.push(quirk);
            }
        }
        all
    }

    /// Every component that the CPU has, enabled or not.
    #[must_use]
    pub fn supported(&self) -> u64 {
        (self.facts.supported_user() | self.facts.supported_supervisor()).bits()
    }

    /// The instructions that save, the best first, with whether the CPU has them.
    #[must_use]
    pub fn rungs(&self) -> Vec<(SaveInstruction, bool)> {
        let has = |rung| match rung {
            SaveInstruction::Xsaves => self.facts.xsaves(),
            SaveInstruction::Xsavec => self.facts.xsavec(),
            SaveInstruction::Xsaveopt => self.facts.xsaveopt(),
            SaveInstruction::Xsave => self.facts.xsave(),
            _ => true,
        };
        SaveInstruction::ALL.into_iter().map(|rung| (rung, has(rung))).collect()
    }

    /// The supervisor components, together with what is enabled, that give CPUID's own compacted size;
    /// ring 3 cannot read IA32_XSS. `None` if it is not clear.
    #[must_use]
    pub fn supervisor_enabled(&self) -> Option<u64> {
        let known = self.facts.supported_supervisor().bits() & !self.enabled;
        let count = numbers(known).count();
        // No CPU has as many; recorded words can say anything.
        if count > 12 {
            return None;
        }
        let mut fits = None;
        // All subsets of a mask, from the empty one up.
        let mut subset = 0u64;
        for _ in 0..1u32 << count {
            let size = Layouts::new(&self.facts, self.enabled | subset).ok()?.compacted.len;
            if size == self.facts.compacted_enabled() {
                if fits.is_some() {
                    return None;
                }
                fits = Some(subset);
            }
            subset = subset.wrapping_sub(known) & known;
        }
        fits
    }
}
