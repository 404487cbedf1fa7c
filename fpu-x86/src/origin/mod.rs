//! Where components lie in images that another machine wrote, and what its software wrote beside them.

mod software;

pub(crate) use software::{
    software, EXTENDED_SIZE, MAGIC1, SOFTWARE, XCR0, XFEATURES, XSTATE_SIZE,
};

use crate::{
    components::{extended, Components, NUMBERS},
    cpuid::{CpuidInfo, Described},
    layout::EXTENDED,
    plan::Plan,
};

/// The places of the standard format on one machine, which need not be this one: AMD's CPUs with AVX-512 have K0
/// to K7 at offset 832, Intel's at 1088.
///
/// ```
/// use fpu_x86::{Components, ForeignLayout};
/// let amd = ForeignLayout::told_by(Components::from_bits_retain(0x2E7), 2440).ok_or("not told")?;
/// let intel = ForeignLayout::told_by(Components::from_bits_retain(0x2E7), 2696).ok_or("not told")?;
/// assert_eq!(amd.place(Components::OPMASK), Some((832, 64)));
/// assert_eq!(intel.place(Components::OPMASK), Some((1088, 64)));
/// assert_eq!(ForeignLayout::told_by(Components::from_bits_retain(0x2E7), 4096), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignLayout {
    pub(crate) described: [Described; NUMBERS],
}

impl ForeignLayout {
    pub(crate) const EMPTY: Self = Self {
        described: [Described { size: 0, offset: 0, supervisor: false, align: false, xfd: false };
            NUMBERS],
    };

    /// The layout of the machine that a plan is for.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self::from_cpuid_info(plan.cpuid_info())
    }

    /// The layout of the machine whose words these are; recorded ones of leaf 0xD suffice.
    #[must_use]
    pub fn from_cpuid_info(facts: &CpuidInfo) -> Self {
        let mut layout = Self::EMPTY;
        for (number, slot) in (0..).zip(&mut layout.described).skip(2) {
            *slot = facts.described(number).unwrap_or_default();
        }
        layout
    }

    /// The known layout in which an image with this XCR0 has exactly this length, as gdb tells the makers' layouts
    /// apart. It serves core files without a layout note. `None` where XCR0 and length fit no known layout, or several.
    #[must_use]
    pub fn told_by(xcr0: Components, len: usize) -> Option<Self> {
        exactly(xcr0, len).cloned()
    }

    /// Offset and size of one extended user component in the standard format.
    #[must_use]
    pub fn place(&self, component: Components) -> Option<(usize, usize)> {
        self.standard(component.number()?)
    }

    /// Offset and size of one component in the compacted format of a set, supervisor components included. Where this
    /// layout lacks a component, its registers fix the size, if they do.
    ///
    /// ```
    /// use fpu_x86::{Components, ForeignLayout};
    /// let zen2 = ForeignLayout::told_by(Components::from_bits_retain(0x207), 896).ok_or("not told")?;
    /// let set = Components::LEGACY | Components::AVX | Components::AVX512;
    /// assert_eq!(zen2.place_compacted(set, Components::OPMASK), Some((832, 64)));
    /// assert_eq!(zen2.place_compacted(set, Components::PKRU), None, "it is not in the set");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn place_compacted(
        &self,
        set: Components,
        component: Components,
    ) -> Option<(usize, usize)> {
        Origin::Elsewhere(self).packed(set, component.number()?)
    }

    pub(crate) fn standard(&self, number: u32) -> Option<(usize, usize)> {
        let described = self.described(number).filter(|it| !it.supervisor)?;
        Some((described.offset as usize, described.size as usize))
    }

    pub(crate) fn described(&self, number: u32) -> Option<Described> {
        self.described.get(number as usize).copied().filter(|it| it.size != 0)
    }

    /// Bytes of the standard format of a set, if all of it is described.
    fn standard_len(&self, set: Components) -> Option<usize> {
        standard_len(set, |number| self.standard(number))
    }

    const fn with(mut self, number: usize, offset: u32, size: u32) -> Self {
        let align = number == 17 || number == 18;
        self.described[number] =
            Described { size, offset, supervisor: false, align, xfd: number == 18 };
        self
    }
}

fn standard_len(set: Components, place: impl Fn(u32) -> Option<(usize, usize)>) -> Option<usize> {
    let mut len = EXTENDED as usize;
    for number in extended(set) {
        let (offset, size) = place(number)?;
        len = len.max(offset + size);
    }
    Some(len)
}

/// The layouts that are known to be in use. Of APX and MPX, which share a place, no XCR0 has both.
static KNOWN: [ForeignLayout; 3] = [INTEL, AMD, ZEN2];
const INTEL: ForeignLayout = ForeignLayout::EMPTY
    .with(2, 576, 256)
    .with(3, 960, 64)
    .with(4, 1024, 64)
    .with(5, 1088, 64)
    .with(6, 1152, 512)
    .with(7, 1664, 1024)
    .with(9, 2688, 8)
    .with(17, 2752, 64)
    .with(18, 2816, 8192)
    .with(19, 960, 128);
const AMD: ForeignLayout = ForeignLayout::EMPTY
    .with(2, 576, 256)
    .with(5, 832, 64)
    .with(6, 896, 512)
    .with(7, 1408, 1024)
    .with(9, 2432, 8);
const ZEN2: ForeignLayout = ForeignLayout::EMPTY.with(2, 576, 256).with(9, 832, 64);

/// Supervisor components have a place in the compacted format only. Each has the same size, and no alignment, on all CPUs that
/// have it and are recorded.
fn supervisors(number: u32) -> Option<Described> {
    let size = match number {
        8 => 128,
        10 | 13 | 16 => 8,
        11 => 16,
        12 => 24,
        14 => 48,
        15 => 808,
        _ => return None,
    };
    Some(Described { size, offset: 0, supervisor: true, align: false, xfd: false })
}

/// The one known layout in which this set has exactly this length.
fn exactly(xcr0: Components, len: usize) -> Option<&'static ForeignLayout> {
    let mut found = KNOWN.iter().filter(|layout| layout.standard_len(xcr0) == Some(len));
    let first = found.next()?;
    let same = |other: &ForeignLayout| {
        extended(xcr0).all(|number| other.standard(number) == first.standard(number))
    };
    found.all(same).then_some(first)
}

/// The machine whose offsets an image has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// The offsets of the machine that the plan is for.
    Here(&'a Plan),
    /// The offsets of another machine.
    Elsewhere(&'a ForeignLayout),
}

impl<'a> Origin<'a> {
    /// Offset and size in the standard format, whether or not the component is the plan's.
    pub(crate) fn standard(self, number: u32) -> Option<(usize, usize)> {
        match self {
            Self::Here(plan) => {
                let described = plan.cpuid_info().described(number).filter(|it| !it.supervisor)?;
                Some((described.offset as usize, described.size as usize))
            }
            Self::Elsewhere(layout) => layout.standard(number),
        }
    }

    /// Offset and size in the compacted format of a set. Where this machine lacks a component, its registers fix the
    /// size, and those of supervisor state are the same everywhere.
    pub(crate) fn packed(self, set: Components, number: u32) -> Option<(usize, usize)> {
        let mut end = EXTENDED as usize;
        for at in extended(set).take_while(|at| *at <= number) {
            let Described { size, align, .. } = match self {
                Self::Here(plan) => plan.cpuid_info().described(at),
                Self::Elsewhere(layout) => layout.described(at),
            }
            .or_else(|| INTEL.described(at))
            .or_else(|| supervisors(at))?;
            let start = if align { end.checked_next_multiple_of(64)? } else { end };
            end = start.checked_add(size as usize)?;
            if at == number {
                return Some((start, size as usize));
            }
        }
        None
    }

    /// Finds the layout by what the bytes say: XCR0, which software writes into the legacy area, and the image's
    /// length.
    ///
    /// A value of zero, or one that XCR0 cannot hold, says nothing: software may keep anything there. Where the length
    /// is not that of any layout, `padded` says that buffers of this kind are longer than their images.
    pub(crate) fn told(
        plan: &'a Plan,
        claim: u64,
        len: usize,
        padded: bool,
    ) -> Result<Self, Components> {
        let xcr0 = Components::from_bits_retain(claim);
        let known = Components::all().difference(Components::SUPERVISOR);
        // Linux gives a task without permission a frame with the tiles' configuration and without them.
        let tiles = if xcr0.contains(Components::TILECFG) { Components::AMX } else { xcr0 };
        let plausible = (xcr0 | tiles).is_legal_xcr0() && known.contains(xcr0);
        let here = standard_len(xcr0, |number| Self::Here(plan).standard(number));
        if !plausible || here == Some(len) {
            return Ok(Self::Here(plan));
        }
        if let Some(layout) = exactly(xcr0, len) {
            return Ok(Self::Elsewhere(layout));
        }
        if here.is_some() || !padded {
            return Ok(Self::Here(plan));
        }
        // This machine cannot have written it.
        let mut fitting =
            KNOWN.iter().filter(|it| it.standard_len(xcr0).is_some_and(|need| need <= len));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(Self::Elsewhere(only)),
            _ => Err(xcr0),
        }
    }
}
