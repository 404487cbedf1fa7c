//! The checks: everything that a restore could refuse, and everything that a task may not have.

use super::{Beyond, ForeignError, ForeignRules};
use crate::{
    components::{extended, one, Components},
    fields::{u32_at, u64_at, COMPACTED, MXCSR, XCOMP_BV, XSTATE_BV},
    image::{first_illegal, Where},
    layout::{EXTENDED, HEADER},
    origin::{software, Origin, XCR0},
    plan::Plan,
    save_instruction::Format,
};

const RESERVED: usize = HEADER + 16;

/// How the bytes get into the task, which decides when MXCSR counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// XRSTOR might read them where they are: it loads MXCSR whether SSE is present or not.
    Restored,
    /// Component by component into an image, in which MXCSR is a part of SSE: a debugger's, and 32-bit frames.
    Copied,
}

/// How a kind of bytes is read.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'l> {
    pub(crate) rules: ForeignRules<'l>,
    /// Components that the task may not have.
    pub(crate) without: Components,
    /// The components that are taken; the plan's others become initial.
    pub(crate) only: Components,
    /// Whether such bytes may be longer than their image.
    pub(crate) padded: bool,
    pub(crate) way: Way,
}

impl<'l> Reading<'l> {
    /// An image by itself, for a task that may not have some components.
    pub(crate) fn of(rules: &ForeignRules<'l>, without: Components) -> Self {
        let only = Components::from_bits_retain(u64::MAX);
        Self { rules: *rules, without, only, padded: true, way: Way::Restored }
    }
}

/// What the checks have found.
pub(super) struct Found<'b> {
    pub(super) format: Format,
    pub(super) places: Where<'b>,
    /// The plan's components that are present.
    pub(super) taken: Components,
    /// Others that are, and are left out.
    pub(super) beyond: Components,
    pub(super) pkru: Option<u32>,
    /// Whether MXCSR is what the bytes say.
    pub(super) mxcsr: bool,
}

// Why a restore accepts what passes (B5): see `ImageMut`. MXCSR has only bits of the plan's mask, whether
// SSE is present or not, because a standard-format XRSTOR loads it in any case. XSTATE_BV and XCOMP_BV
// are not taken over but written anew; the components taken over are the plan's, complete, and
// legal where they can be illegal. Tiles are the caller's C24.
/// Checks the bytes that have been copied, of `whole` bytes that there were.
pub(super) fn check<'b>(
    bytes: &[u8],
    plan: &'b Plan,
    reading: &Reading<'b>,
    whole: usize,
) -> Result<Found<'b>, ForeignError> {
    let len = bytes.len();
    let truncated = |need| Err(ForeignError::Truncated { len, need });
    if len < HEADER {
        return truncated(HEADER);
    }
    if whole == HEADER {
        check_mxcsr(bytes, plan)?;
        return Ok(Found {
            format: Format::Legacy,
            places: Where::Nowhere,
            taken: Components::LEGACY,
            beyond: Components::empty(),
            pkru: None,
            mxcsr: true,
        });
    }
    if len < EXTENDED as usize {
        return truncated(EXTENDED as usize);
    }
    let xcomp_bv = u64_at(bytes, XCOMP_BV);
    let format = match xcomp_bv {
        0 => Format::Standard,
        _ if xcomp_bv & COMPACTED != 0 && reading.rules.compacted => Format::Compacted,
        _ => return Err(ForeignError::NotStandard { xcomp_bv }),
    };
    let reserved = bytes.get(RESERVED..EXTENDED as usize).unwrap_or_default();
    if let Some((at, value)) = reserved.iter().enumerate().find(|(_, byte)| **byte != 0) {
        return Err(ForeignError::ReservedHeader { offset: RESERVED + at, value: *value });
    }
    let origin = origin(bytes, plan, reading, format, whole)?;
    let places = match (format, origin) {
        (Format::Compacted, _) => {
            let set = Components::from_bits_retain(xcomp_bv & !COMPACTED);
            let absent = u64_at(bytes, XSTATE_BV) & !set.bits();
            if absent != 0 {
                return Err(ForeignError::NotInFormat { bits: absent });
            }
            let last = each(set).last();
            if last.is_some_and(|(number, _)| origin.packed(set, number).is_none()) {
                return Err(ForeignError::NotStandard { xcomp_bv });
            }
            Where::Packed(origin, set)
        }
        (_, Origin::Here(plan)) => Where::Standard(plan),
        (_, Origin::Elsewhere(layout)) => Where::Elsewhere(layout),
    };
    let mut found = components(bytes, plan, reading, origin, format, places)?;
    let (sse, vectors) = (Components::SSE, Components::SSE | Components::AVX);
    // XRSTOR looks at MXCSR where SSE or AVX is asked for; in the compacted format, where SSE is present. A component
    // that is not asked for becomes initial, and MXCSR is SSE's.
    let (looked_at, taken) = match (format, reading.way) {
        (Format::Compacted, _) => (found.taken.contains(sse), found.taken.contains(sse)),
        (_, Way::Restored) => (reading.only.intersects(vectors), reading.only.contains(sse)),
        (_, Way::Copied) => {
            let present = Components::from_bits_retain(u64_at(bytes, XSTATE_BV));
            (present.intersects(vectors | Components::X87), found.taken.contains(sse))
        }
    };
    if looked_at {
        check_mxcsr(bytes, plan)?;
    }
    found.mxcsr = taken;
    Ok(found)
}

fn check_mxcsr(bytes: &[u8], plan: &Plan) -> Result<(), ForeignError> {
    match u32_at(bytes, MXCSR) & !plan.mxcsr_mask() {
        0 => Ok(()),
        bits => Err(ForeignError::ReservedMxcsr { bits }),
    }
}

/// The machine whose layout the bytes have.
fn origin<'b>(
    bytes: &[u8],
    plan: &'b Plan,
    reading: &Reading<'b>,
    format: Format,
    whole: usize,
) -> Result<Origin<'b>, ForeignError> {
    if let Some(layout) = reading.rules.layout {
        return Ok(Origin::Elsewhere(layout));
    }
    if format == Format::Compacted {
        return Ok(Origin::Here(plan));
    }
    let (offset, claim, len) = match software(bytes) {
        Some(words) => (words.at, words.xfeatures, words.xstate_size as usize),
        None => (XCR0, u64_at(bytes, XCR0), whole),
    };
    Origin::told(plan, claim, len, reading.padded)
        .map_err(|xcr0| ForeignError::OtherLayout { offset, xcr0 })
}

fn components<'b>(
    bytes: &[u8],
    plan: &'b Plan,
    reading: &Reading<'b>,
    origin: Origin<'b>,
    format: Format,
    places: Where<'b>,
) -> Result<Found<'b>, ForeignError> {
    let present = Components::from_bits_retain(u64_at(bytes, XSTATE_BV));
    let refuse = reading.rules.beyond == Beyond::Refuse;
    let ours = plan.user_components();
    let place = |number| match places {
        Where::Packed(origin, set) => origin.packed(set, number),
        _ => origin.standard(number),
    };
    let bytes_of = |number| {
        let (offset, size) = place(number)?;
        bytes.get(offset..offset.checked_add(size)?)
    };

    let supervisor = present.intersection(Components::SUPERVISOR);
    if !supervisor.is_empty() && (refuse || format == Format::Standard) {
        return Err(ForeignError::Supervisor { bits: supervisor.bits() });
    }
    let unknown = present.difference(Components::all());
    if !unknown.is_empty() && refuse {
        return Err(ForeignError::Unknown { bits: unknown.bits() });
    }
    let mut beyond = supervisor | unknown;

    // Of the plan's own, what is asked for; of the others, what is not initial.
    let mut pkru = plan.carries_pkru().then_some(0);
    let others = present.difference(ours | Components::SUPERVISOR | unknown);
    for (number, component) in each(others) {
        let value = bytes_of(number);
        if component == Components::PKRU && pkru.is_some() && reading.only.contains(component) {
            let Some(value) = value else {
                let need = place(number).map_or(0, |(offset, size)| offset + size);
                return Err(ForeignError::Truncated { len: bytes.len(), need });
            };
            pkru = Some(u32_at(value, 0));
        } else if component != Components::PKRU || pkru.is_none() {
            beyond.set(component, !value.is_some_and(is_initial));
        }
    }
    let foreign = beyond.difference(Components::SUPERVISOR | unknown);
    if refuse && !foreign.is_empty() {
        return Err(ForeignError::NotEnabled { bits: foreign.bits() });
    }
    let mut taken = present.intersection(ours).intersection(reading.only);
    for (number, component) in each(taken.intersection(reading.without)) {
        if !bytes_of(number).is_some_and(is_initial) {
            if refuse {
                return Err(ForeignError::NotPermitted { bits: component.bits() });
            }
            beyond |= component;
        }
        taken.remove(component);
    }
    for (number, component) in each(taken) {
        let Some((offset, size)) = place(number) else {
            return Err(ForeignError::NotEnabled { bits: component.bits() });
        };
        let here = plan.cpuid_info().described(number).map(|it| it.size as usize);
        if here != Some(size) {
            return Err(ForeignError::OtherSize { component, offset, size });
        }
        let Some(part) = bytes_of(number) else {
            return Err(ForeignError::Truncated { len: bytes.len(), need: offset + size });
        };
        if let Some(at) = first_illegal(component, part) {
            let value = part.get(at).copied().unwrap_or_default();
            return Err(ForeignError::IllegalValue { component, offset: offset + at, value });
        }
    }
    Ok(Found { format, places, taken, beyond, pkru, mxcsr: true })
}

/// The bytes of a component, and its number, that are all zero: the initial value of every extended one.
fn is_initial(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Each component of the set as a set of its own, with its number.
fn each(set: Components) -> impl Iterator<Item = (u32, Components)> {
    extended(set).map(|number| (number, one(number)))
}
