//! Where each component lies in an area: a function of the set, the format and CPUID.
//!
//! SDM vol. 1, 13.4: 512 bytes legacy area, 64 bytes header, extended region. In the standard format
//! each component has a fixed place; in the compacted one they follow one another in the order of
//! their numbers, some aligned to 64.

use crate::{
    components::SLOTS,
    cpuid::{Described, Facts},
    Components, Format, PlanError,
};

/// The header follows the legacy area.
pub(crate) const HEADER: usize = 512;
/// The extended region follows the header.
pub(crate) const EXTENDED: u32 = 576;
/// 512 bytes need only 16; the header and everything behind it wants 64.
pub(crate) const ALIGN: usize = 64;
/// No component set of any CPU comes near; keeps sums of malformed words from overflowing.
const LIMIT: u32 = 1 << 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) slots: [Slot; SLOTS],
    pub(crate) len: u32,
}

/// The extended components of a set, in the order of their numbers.
fn extended(set: Components) -> impl Iterator<Item = usize> {
    (2..SLOTS).filter(move |number| set.bits() >> number & 1 != 0)
}

fn one(number: usize) -> Components {
    Components::from_bits_retain(1 << number)
}

impl Layout {
    /// The places of `set`, which is described (see [`check_described`]).
    pub(crate) fn new(format: Format, set: Components, described: &[Described; SLOTS]) -> Self {
        let mut layout = Self {
            slots: [Slot::default(); SLOTS],
            len: if format == Format::Legacy { HEADER as u32 } else { EXTENDED },
        };
        for number in extended(set) {
            let Described { size, offset, align, .. } = described[number];
            let offset = match format {
                Format::Legacy => continue,
                Format::Standard => offset,
                Format::Compacted if align => (layout.len + 63) & !63,
                Format::Compacted => layout.len,
            };
            layout.slots[number] = Slot { offset, size };
            layout.len = layout.len.max(offset + size);
        }
        layout
    }
}

/// Every extended component of `set` is described as user state of a sane size, at a sane place.
pub(crate) fn check_described(set: Components, facts: &Facts) -> Result<(), PlanError> {
    let mut total = 0;
    for number in extended(set) {
        let Described { size, offset, supervisor, align } = facts.described[number];
        let component = one(number);
        if size == 0 || supervisor {
            return Err(PlanError::Undescribed(component));
        }
        let fixed = Components::fixed_size(number);
        if size > LIMIT || fixed.is_some_and(|fixed| fixed != size) {
            return Err(PlanError::WrongSize { component, size });
        }
        let misplaced = Err(PlanError::Misplaced { component, offset });
        if !(EXTENDED..=LIMIT).contains(&offset) || (align && offset % 64 != 0) {
            return misplaced;
        }
        for other in extended(set).take_while(|other| *other < number) {
            let before = facts.described[other];
            if offset < before.offset + before.size && before.offset < offset + size {
                return misplaced;
            }
        }
        total += size;
        if total > LIMIT {
            return Err(PlanError::WrongSize { component, size });
        }
    }
    Ok(())
}

/// The CPU's own sizes agree with the sum of the components that are enabled.
///
/// `enabled` is XCR0, not the plan's set: that is what CPUID's sizes are about. In the compacted
/// format they include supervisor components, of which ring 3 cannot know which are enabled, so the
/// size is confined between none of them and all.
pub(crate) fn check_sizes(enabled: Components, facts: &Facts) -> Result<(), PlanError> {
    let format = Format::Standard;
    let computed = Layout::new(format, enabled, &facts.described).len;
    if computed != facts.standard_size {
        return Err(PlanError::SizeMismatch { format, computed, reported: facts.standard_size });
    }
    if !facts.xsavec {
        return Ok(());
    }
    let format = Format::Compacted;
    let least = Layout::new(format, enabled, &facts.described).len;
    let reported = facts.compacted_size;
    let mut most = least;
    // Without XSAVES there is no IA32_XSS. Sizes of supervisor components are not yet checked;
    // saturating, as the words may be anything.
    if facts.xsaves {
        let supervisor = facts.xss_supported & !facts.xcr0_supported;
        for number in extended(Components::from_bits_retain(supervisor)) {
            let Described { size, align, .. } = facts.described[number];
            most = most.saturating_add(size).saturating_add(if align { 63 } else { 0 });
        }
        // A component more can push later ones to the next multiple of 64.
        for number in extended(enabled) {
            if most != least && facts.described[number].align {
                most = most.saturating_add(63);
            }
        }
        // Supervisor components beyond the table are not described here.
        if supervisor >> SLOTS != 0 {
            most = u32::MAX;
        }
    }
    if !(least..=most).contains(&reported) {
        return Err(PlanError::SizeMismatch { format, computed: least, reported });
    }
    Ok(())
}
