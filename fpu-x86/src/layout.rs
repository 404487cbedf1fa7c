//! Computes where each component lies in an area, from the set, the format and CPUID.
//!
//! SDM vol. 1, 13.4: 512 bytes legacy area, 64 bytes header, extended region. In the standard format
//! each component has a fixed place; in the compacted one they follow one another in the order of
//! their numbers, some aligned to 64.

use core::{fmt, marker::PhantomData};

use crate::{
    components::{extended, one, Components, MANAGED, NUMBERS},
    cpuid::{CpuidInfo, Described},
    error::PlanError,
    save_instruction::Format,
};

/// The header follows the legacy area.
pub(crate) const HEADER: usize = 512;
/// The extended region follows the header.
pub(crate) const EXTENDED: u32 = 576;
/// 512 bytes need only 16; the header and everything behind it wants 64.
pub(crate) const ALIGN: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: u32,
    pub(crate) size: u32,
}

/// The places of a format that is known only at run time, of the components with numbers below `N`. The module keeps
/// the type within the crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places<const N: usize = NUMBERS> {
    slots: [Slot; N],
    len: u32,
}

/// The places of a plan, which holds no components with higher numbers.
pub(crate) type PlanPlaces = Places<MANAGED>;

impl<const N: usize> Places<N> {
    pub(crate) const fn legacy() -> Self {
        Self { slots: [Slot { offset: 0, size: 0 }; N], len: HEADER as u32 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(crate) fn slot(&self, number: u32) -> Option<Slot> {
        let slot = *self.slots.get(number as usize)?;
        (slot.size != 0).then_some(slot)
    }

    /// Moves a component, as a CPU that describes itself wrongly does.
    #[cfg(test)]
    pub(crate) fn place_for_test(&mut self, number: u32, slot: Slot) {
        self.slots[number as usize] = slot;
        self.len = self.slots.iter().map(|it| it.offset + it.size).fold(EXTENDED, u32::max);
    }
}

impl PlanPlaces {
    /// Computes the places of components that a plan holds.
    pub(crate) fn of(
        format: Format,
        set: Components,
        facts: &CpuidInfo,
    ) -> Result<Self, PlanError> {
        let all = Places::new(format, set, facts)?;
        let mut places = Self { len: all.len, ..Self::legacy() };
        for (slot, from) in places.slots.iter_mut().zip(all.slots) {
            *slot = from;
        }
        Ok(places)
    }
}

impl Places {
    pub(crate) fn new(
        format: Format,
        set: Components,
        facts: &CpuidInfo,
    ) -> Result<Self, PlanError> {
        match format {
            Format::Legacy => Ok(Self::legacy()),
            Format::Standard => Layout::<Standard>::new(facts, set).map(|layout| layout.places),
            Format::Compacted => Layout::<Compacted>::new(facts, set).map(|layout| layout.places),
        }
    }

    /// Gives a component its place, within 32 bits, as the CPU reports sizes.
    fn put(&mut self, component: u32, offset: u32, size: u32) -> Result<(), PlanError> {
        let wrong = PlanError::WrongSize { component: one(component), size };
        let end = offset.checked_add(size).ok_or(wrong)?;
        if let Some(slot) = self.slots.get_mut(component as usize) {
            *slot = Slot { offset, size };
        }
        self.len = self.len.max(end);
        Ok(())
    }
}

mod sealed {
    use super::{Components, CpuidInfo, Places, PlanError};

    pub trait Sealed {
        fn places(facts: &CpuidInfo, set: Components) -> Result<Places, PlanError>;
    }
}

/// A format that has extended components, as a type. There are two.
pub trait LayoutFormat: sealed::Sealed + Copy + fmt::Debug + PartialEq + Eq {
    /// The format as a value.
    const FORMAT: Format;
}

/// The format of XSAVE and XSAVEOPT, and of images that leave the kernel: fixed offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard;

/// The format of XSAVEC and XSAVES: no gaps except for alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted;

impl LayoutFormat for Standard {
    const FORMAT: Format = Format::Standard;
}
impl LayoutFormat for Compacted {
    const FORMAT: Format = Format::Compacted;
}

/// Checks that the CPU has every component of the set and describes each as what its mask says.
fn describe(facts: &CpuidInfo, set: Components, number: u32) -> Result<Described, PlanError> {
    let user = facts.supported_user().contains(one(number));
    match facts.described(number) {
        Some(described) if described.supervisor != user => Ok(described),
        _ => Err(PlanError::Undescribed(one(number).intersection(set))),
    }
}

impl sealed::Sealed for Standard {
    fn places(facts: &CpuidInfo, set: Components) -> Result<Places, PlanError> {
        let supervisor = set.difference(facts.supported_user());
        if !supervisor.is_empty() {
            return Err(PlanError::SupervisorOnly(supervisor));
        }
        let mut places = Places { len: EXTENDED, ..Places::legacy() };
        for number in extended(set) {
            let Described { size, offset, .. } = describe(facts, set, number)?;
            let misplaced = PlanError::Misplaced { component: one(number), offset };
            if offset < EXTENDED {
                return Err(misplaced);
            }
            let end = u64::from(offset) + u64::from(size);
            for other in extended(set).take_while(|other| *other < number) {
                let Slot { offset: from, size } = places.slots[other as usize];
                if u64::from(from) < end && offset < from + size {
                    return Err(misplaced);
                }
            }
            places.put(number, offset, size)?;
        }
        Ok(places)
    }
}

impl sealed::Sealed for Compacted {
    fn places(facts: &CpuidInfo, set: Components) -> Result<Places, PlanError> {
        let mut places = Places { len: EXTENDED, ..Places::legacy() };
        for number in extended(set) {
            let Described { size, align, .. } = describe(facts, set, number)?;
            let next =
                if align { places.len.checked_next_multiple_of(64) } else { Some(places.len) };
            let wrong = PlanError::WrongSize { component: one(number), size };
            places.put(number, next.ok_or(wrong)?, size)?;
        }
        Ok(places)
    }
}

/// The places of a set of components in one format.
///
/// The format is a type, and so is that of a [`Place`]: an offset of one format is not accepted where
/// the other is meant.
///
/// ```
/// use fpu_x86::{Compacted, Components, CpuidInfo, Layout, PlanError, Standard};
/// # use raw_cpuid::CpuIdResult;
/// # let words = |leaf, sub| match (leaf, sub) {
/// #     (0xD, 0) => CpuIdResult { eax: 0x207, ebx: 2440, ecx: 2440, edx: 0 },
/// #     (0xD, 1) => CpuIdResult { eax: 15, ebx: 840, ecx: 0, edx: 0 },
/// #     (0xD, 2) => CpuIdResult { eax: 256, ebx: 576, ecx: 0, edx: 0 },
/// #     (0xD, 9) => CpuIdResult { eax: 8, ebx: 2432, ecx: 0, edx: 0 },
/// #     _ => CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
/// # };
/// let facts = CpuidInfo::from_xsave_leaf(words)?; // here, of an EPYC 7763
/// let set = Components::LEGACY | Components::AVX | Components::PKRU;
/// let standard = Layout::<Standard>::new(&facts, set)?;
/// let compacted = Layout::<Compacted>::new(&facts, set)?;
/// assert_eq!((standard.len(), compacted.len()), (2440, 840));
/// let area = [0; 2440];
/// let pkru = standard.place(9).ok_or(PlanError::NoXsaveLeaf)?;
/// assert_eq!((pkru.offset(), pkru.size()), (2432, 8));
/// assert_eq!(standard.bytes(pkru, &area), Some(&[0; 8][..]));
/// # Ok::<(), PlanError>(())
/// ```
///
/// ```compile_fail,E0308
/// use fpu_x86::{Compacted, Layout, Standard};
/// fn read<'a>(to: &Layout<Standard>, from: &Layout<Compacted>, area: &'a [u8]) -> Option<&'a [u8]> {
///     // A place in the compacted format, used on an image in the standard one.
///     to.bytes(from.place(2)?, area)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout<F> {
    places: Places,
    components: Components,
    format: PhantomData<F>,
}

#[allow(clippy::len_without_is_empty)] // never empty: the legacy area and the header are always there
impl<F: LayoutFormat> Layout<F> {
    /// The places of `components`: in the standard format user components only, in the compacted one
    /// supervisor components too. All 63 numbers are allowed, named or not; so are sets that XCR0 could
    /// not hold, as any subset can be saved.
    ///
    /// # Errors
    ///
    /// [`PlanError::NotEnumerated`], [`PlanError::SupervisorOnly`], [`PlanError::Undescribed`];
    /// [`PlanError::Misplaced`] if the standard format's offsets lie in the header or in one another;
    /// [`PlanError::WrongSize`] if the area would not fit 32 bits.
    pub fn new(facts: &CpuidInfo, components: Components) -> Result<Self, PlanError> {
        let supported = facts.supported_user().union(facts.supported_supervisor());
        let missing = components.difference(supported);
        if !missing.is_empty() {
            return Err(PlanError::NotEnumerated(missing));
        }
        Ok(Self { places: F::places(facts, components)?, components, format: PhantomData })
    }

    /// Bytes of the area, not rounded: the last component ends here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The components that have places here; x87 and SSE, if they are in it, lie in the legacy area.
    #[must_use]
    pub fn components(&self) -> Components {
        self.components
    }

    /// Where one extended component (number 2 to 62) lies, if it is in the set.
    #[must_use]
    pub fn place(&self, number: u32) -> Option<Place<F>> {
        let Slot { offset, size } = self.places.slot(number)?;
        Some(Place { offset, size, format: PhantomData })
    }

    /// The bytes of a place in an area of this format; `None` if the area is too short.
    #[must_use]
    pub fn bytes<'a>(&self, place: Place<F>, area: &'a [u8]) -> Option<&'a [u8]> {
        area.get(place.offset()..place.end())
    }

    /// The bytes of a place in an area of this format, for writing; `None` if the area is too short.
    #[must_use]
    pub fn bytes_mut<'a>(&self, place: Place<F>, area: &'a mut [u8]) -> Option<&'a mut [u8]> {
        area.get_mut(place.offset()..place.end())
    }
}

/// Where one component lies in areas of the format `F`.
///
/// ```
/// use fpu_x86::{Layout, Place, Standard};
/// fn end_of_avx(layout: &Layout<Standard>) -> Option<usize> {
///     let avx: Place<Standard> = layout.place(2)?;
///     Some(avx.offset() + avx.size())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<F> {
    offset: u32,
    size: u32,
    format: PhantomData<F>,
}

impl<F: LayoutFormat> Place<F> {
    /// Offset in bytes from the beginning of the area.
    #[must_use]
    pub fn offset(self) -> usize {
        self.offset as usize
    }

    /// Size in bytes, not rounded.
    #[must_use]
    pub fn size(self) -> usize {
        self.size as usize
    }

    /// The first byte behind it.
    #[must_use]
    pub fn end(self) -> usize {
        self.offset() + self.size()
    }
}
