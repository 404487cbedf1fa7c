//! What a plan demands of CPUID's words beyond what a layout does.

use crate::{
    layout::{one, EXTENDED},
    Compacted, Components, Facts, Format, Layout, PlanError, Standard,
};

/// No component set of any CPU comes near.
const LIMIT: u32 = 1 << 20;

/// Every extended component of `set` is described, with a sane size, that of its registers where views
/// depend on it, at a sane place.
pub(crate) fn check_described(set: Components, facts: &Facts) -> Result<(), PlanError> {
    let mut total = 0;
    for number in set.difference(Components::LEGACY).numbers() {
        let component = one(number);
        let described = facts.described(number).ok_or(PlanError::Undescribed(component))?;
        let (size, offset) = (described.size, described.offset);
        let fixed = Components::fixed_size(number);
        if size > LIMIT || fixed.is_some_and(|fixed| fixed != size) {
            return Err(PlanError::WrongSize { component, size });
        }
        let placed = (EXTENDED..=LIMIT).contains(&offset) && !(described.align && offset % 64 != 0);
        if !described.supervisor && !placed {
            return Err(PlanError::Misplaced { component, offset });
        }
        total += size;
        if total > LIMIT {
            return Err(PlanError::WrongSize { component, size });
        }
    }
    Ok(())
}

fn same(format: Format, computed: usize, reported: u32) -> Result<(), PlanError> {
    let computed = computed as u32; // a layout's length fits 32 bits
    if computed == reported {
        Ok(())
    } else {
        Err(PlanError::SizeMismatch { format, computed, reported })
    }
}

/// The CPU's own sizes agree with the sum of the components that are enabled.
///
/// `enabled` is XCR0, not the plan's set: that is what CPUID's sizes are about. In the compacted
/// format they include supervisor components, of which ring 3 cannot know which are enabled, so the
/// size is confined between none of them and all.
pub(crate) fn check_enabled_sizes(enabled: Components, facts: &Facts) -> Result<(), PlanError> {
    let standard = Layout::<Standard>::new(facts, enabled)?;
    same(Format::Standard, standard.len(), facts.standard_enabled())?;
    if !facts.xsavec() {
        return Ok(());
    }
    let least = Layout::<Compacted>::new(facts, enabled)?.len();
    let reported = facts.compacted_enabled();
    let mut most = least;
    // Without XSAVES there is no IA32_XSS.
    if facts.xsaves() {
        let possible = facts
            .supported_supervisor()
            .difference(facts.supported_user())
            .numbers()
            .filter(|number| facts.described(*number).is_some_and(|one| one.supervisor))
            .fold(enabled, |set, number| set | one(number));
        most = Layout::<Compacted>::new(facts, possible)?.len();
    }
    if (least..=most).contains(&(reported as usize)) {
        Ok(())
    } else {
        same(Format::Compacted, least, reported)
    }
}

/// The standard format's size for all that XCR0 can enable is what CPUID says. It does not depend on what
/// is enabled, so it can be asked before anything is.
pub(crate) fn check_supported_size(facts: &Facts) -> Result<(), PlanError> {
    let all = Layout::<Standard>::new(facts, facts.supported_user())?;
    same(Format::Standard, all.len(), facts.standard_supported())
}
