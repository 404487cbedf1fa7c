//! Tells whether CPUID describes a component so that a plan can hold it. Words that contradict each
//! other cost the component, not the plan.

use crate::{
    components::{one, Components},
    cpuid::{CpuidInfo, Described},
    error::{CpuidRegister, Expected, LeftOut, WrongWord},
    layout::{Layout, Standard, EXTENDED},
};

/// A size in bytes that no CPU's components come near, all of them together.
pub(crate) const LIMIT: u32 = 1 << 20;

/// CPUID's description of a component that the plan can hold, or the word because of which the plan cannot hold it. The
/// component must have a size, that of its registers where views depend on it. It must be of the kind that the mask
/// which lists it says. It must lie behind the header, and apart from the components of `taken`. (CPUID's alignment is
/// about the compacted format.)
pub(crate) fn check(number: u32, facts: &CpuidInfo, taken: Components) -> Result<(), WrongWord> {
    let described = facts.described(number).unwrap_or_default();
    let Described { size, offset, .. } = described;
    let wrong =
        |register, found, expected| Err(WrongWord { subleaf: number, register, found, expected });
    use CpuidRegister::{Eax, Ebx, Ecx};
    if let Some(fixed) = Components::fixed_size(number) {
        if size != fixed {
            return wrong(Eax, size, Expected::Exactly(fixed));
        }
    }
    let least = Components::least_size(number);
    if size < least {
        return wrong(Eax, size, Expected::AtLeast(least));
    }
    if size > LIMIT {
        return wrong(Eax, size, Expected::AtMost(LIMIT));
    }
    // All of them together: an area must not become as large as several components can claim.
    let taken_sizes = taken.numbers().filter_map(|other| facts.described(other));
    let sum = taken_sizes.fold(0u32, |sum, other| sum.saturating_add(other.size));
    let room = LIMIT.saturating_sub(sum);
    if size > room {
        return wrong(Eax, size, Expected::AtMost(room));
    }
    let user = facts.supported_user().contains(one(number));
    if described.supervisor == user {
        let found = u32::from(described.supervisor);
        return wrong(Ecx, found, Expected::Bits(1, u16::from(!user)));
    }
    if !user {
        return Ok(()); // It has no place in the standard format.
    }
    if offset < EXTENDED {
        return wrong(Ebx, offset, Expected::AtLeast(EXTENDED));
    }
    if offset > LIMIT {
        return wrong(Ebx, offset, Expected::AtMost(LIMIT));
    }
    if offset > LIMIT - size {
        return wrong(Ebx, offset, Expected::AtMost(LIMIT - size));
    }
    for other in taken.user_part().difference(Components::LEGACY).numbers() {
        let Some(there) = facts.described(other) else { continue };
        let end = there.offset.saturating_add(there.size);
        if offset < end && there.offset < offset.saturating_add(size) {
            return wrong(Ebx, offset, Expected::AtLeast(end));
        }
    }
    Ok(())
}

/// Of the components that are `asked` for, those of `listed` that can be enabled together and are
/// described well. The others go to `left_out` by group.
pub(crate) fn usable(
    asked: Components,
    listed: Components,
    facts: &CpuidInfo,
    mut left_out: impl FnMut(Components, LeftOut),
) -> Components {
    let mut taken = Components::LEGACY;
    for group in Components::GROUPS {
        let members = group.intersection(asked).intersection(listed);
        if group == Components::LEGACY || members.is_empty() {
            continue;
        }
        match joins(group.intersection(asked), members, taken, facts) {
            Ok(()) => taken |= members,
            Err(why) => left_out(members, why),
        }
    }
    taken
}

/// Tells why `members`, the components of a group that the CPU lists and the kernel asks for, cannot be enabled beside
/// `taken`.
fn joins(
    asked: Components,
    members: Components,
    taken: Components,
    facts: &CpuidInfo,
) -> Result<(), LeftOut> {
    let mut missing = asked.difference(members).intersection(Components::WHOLE);
    if members.intersects(Components::AVX512) {
        missing |= Components::AVX.difference(taken);
    }
    if !missing.is_empty() {
        return Err(LeftOut::Incomplete { missing });
    }
    if members.intersects(Components::MPX) && taken.intersects(Components::APX) {
        return Err(LeftOut::Excluded { by: Components::APX });
    }
    let mut with = taken;
    for number in members.numbers() {
        check(number, facts, with).map_err(LeftOut::Word)?;
        with |= one(number);
    }
    Ok(())
}

/// Bytes of the standard format for all that XCR0 can enable, if all of it is described.
pub(crate) fn supported_len(facts: &CpuidInfo) -> Option<u32> {
    let all = Layout::<Standard>::new(facts, facts.supported_user());
    all.ok().map(|layout| layout.len() as u32) // a layout's length fits 32 bits
}
