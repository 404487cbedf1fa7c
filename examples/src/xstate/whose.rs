//! Finds the layout of an image: in the standard format the offset of K0 to K7 depends on the machine that wrote the
//! image.

use fpu_x86::{Components, CpuidInfo, ForeignLayout};

use super::{
    bytes::{u64_at, Malformed, EXTENDED, LEGACY, XCR0},
    words::numbers,
};

/// Makers by the names that `--layout` takes, with an XCR0 and a length that tell each.
const MAKERS: [(&str, &str, u64, usize); 3] = [
    ("intel", "Intel's", 0x2E7, 2696),
    ("amd", "AMD's with AVX-512", 0x2E7, 2440),
    ("zen2", "AMD's Zen 2", 0x207, 896),
];

/// The source of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The command line says so.
    Order,
    /// The core file has a note.
    Note,
    /// XCR0 and the length tell the maker, who is named.
    Length(&'static str),
    /// Only the layout of the maker who is named fits the bytes.
    Contents(&'static str),
    /// In all that fit the bytes, what is present is the same.
    Alike,
    /// It is this machine's, by XCR0 and the length.
    Here,
    /// The bytes say nothing, so this machine's is taken.
    Nothing,
}

impl By {
    /// The text of the source.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Order => "as on the command line".into(),
            Self::Note => "by the file's own note NT_X86_XSAVE_LAYOUT".into(),
            Self::Length(whose) => format!("{whose}, by XCR0 and the length"),
            Self::Contents(whose) => format!("{whose}: no other fits the bytes"),
            Self::Alike => "the same in every layout that fits the bytes".into(),
            Self::Here => "this machine's, by XCR0 and the length".into(),
            Self::Nothing => "this machine's, for the bytes do not say whose (--layout)".into(),
        }
    }
}

/// A layout, and how it is known to be the right one.
#[derive(Clone, Debug)]
pub struct Told {
    /// The layout.
    pub layout: ForeignLayout,
    /// The source.
    pub by: By,
}

/// The bytes whose layout is to be found.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// The image, as far as it has been read.
    pub image: &'a [u8],
    /// The length of the image.
    pub len: usize,
    /// The offset of the image in the file.
    pub base: u64,
    /// The offset at which software has left the enabled components.
    pub claim_at: usize,
    /// Whether it is known that software has written there.
    pub written: bool,
}

/// The layout of this name, if there is one.
#[must_use]
pub fn named(name: &str) -> Option<ForeignLayout> {
    let (_, _, xcr0, len) = MAKERS.into_iter().find(|(known, ..)| *known == name)?;
    ForeignLayout::told_by(Components::from_bits_retain(xcr0), len)
}

/// The facts that are known besides the bytes.
#[derive(Clone, Debug)]
pub struct Whose {
    here: ForeignLayout,
    given: Option<ForeignLayout>,
}

impl Whose {
    /// On a machine with these words; `given` is what the command line says.
    #[must_use]
    pub fn new(here: &CpuidInfo, given: Option<ForeignLayout>) -> Self {
        Self { here: ForeignLayout::from_cpuid_info(here), given }
    }

    /// This machine's.
    #[must_use]
    pub fn here(&self) -> Told {
        Told { layout: self.here.clone(), by: By::Nothing }
    }

    /// Of a compacted image, in which only the sizes are a matter of the machine.
    #[must_use]
    pub fn compacted(&self) -> Told {
        match &self.given {
            Some(layout) => Told { layout: layout.clone(), by: By::Order },
            None => self.here(),
        }
    }

    /// Of an image in the standard format; `note` is the layout note of its core file.
    ///
    /// # Errors
    ///
    /// XCR0, if the bytes are no layout's, or could be several makers'.
    pub fn standard(
        &self,
        bytes: &Bytes<'_>,
        note: Option<&ForeignLayout>,
    ) -> Result<Told, Malformed> {
        let told = |layout: &ForeignLayout, by| Ok(Told { layout: layout.clone(), by });
        if let Some(layout) = &self.given {
            return told(layout, By::Order);
        }
        if let Some(layout) = note {
            return told(layout, By::Note);
        }
        let claim = u64_at(bytes.image, bytes.claim_at).unwrap_or_default();
        let xcr0 = Components::from_bits_retain(claim);
        let plausible = plausible(xcr0);
        if plausible && len_of(&self.here, claim) == Some(bytes.len) {
            return told(&self.here, By::Here);
        }
        if let Some(layout) = ForeignLayout::told_by(xcr0, bytes.len).filter(|_| plausible) {
            let mut places = numbers(claim & !0b11).filter_map(Components::of_number);
            let by = match places.all(|one| layout.place(one) == self.here.place(one)) {
                true => By::Here,
                false => By::Length(maker(&layout)),
            };
            return Ok(Told { layout, by });
        }
        let present = u64_at(bytes.image, LEGACY).unwrap_or_default();
        if !bytes.written && !plausible || present & !0b11 == 0 {
            return Ok(self.here());
        }
        self.by_contents(bytes, claim)
    }

    /// A layout is not the right one if it has no place for a component that is present, or if that is not in the image.
    /// In a regset kernels write zeros between components and in the place of those that are absent, so no other byte
    /// lies outside of those that are present. (Into a frame the CPU writes, which leaves there what was on the stack.)
    fn by_contents(&self, bytes: &Bytes<'_>, claim: u64) -> Result<Told, Malformed> {
        let present = u64_at(bytes.image, LEGACY).unwrap_or_default();
        let makers = MAKERS.into_iter().filter_map(|(name, whose, ..)| {
            let layout = named(name)?;
            let mut enabled = numbers(claim & !0b11).filter_map(Components::of_number);
            let same = enabled.all(|one| layout.place(one) == self.here.place(one));
            (!same).then_some((By::Contents(whose), layout))
        });
        let mut fitting: Vec<(By, ForeignLayout, Vec<&[u8]>)> = Vec::new();
        for (by, layout) in std::iter::once((By::Here, self.here.clone())).chain(makers) {
            let zeros = bytes.claim_at == XCR0;
            let Some(parts) = parts(bytes.image, present, &layout, zeros) else { continue };
            // What both read alike is no matter.
            match fitting.iter_mut().find(|(.., other)| *other == parts) {
                Some((by, ..)) => *by = By::Alike,
                None => fitting.push((by, layout, parts)),
            }
        }
        let refuse = |why: String| {
            let at = bytes.base.saturating_add(bytes.claim_at as u64);
            Err(Malformed::new("XCR0", at, claim, why))
        };
        match fitting.len() {
            0 => refuse(format!(
                "with {} bytes of no layout that is known (--cpuid, --layout)",
                bytes.len
            )),
            1 => match fitting.swap_remove(0) {
                (By::Here, layout, _) => Ok(Told { layout, by: By::Contents("this machine's") }),
                (by, layout, _) => Ok(Told { layout, by }),
            },
            several => refuse(format!(
                "with {} bytes of {several} makers' layouts, in which registers differ (--cpuid, --layout)",
                bytes.len
            )),
        }
    }
}

/// Tells whether XCR0 could hold this value. Linux gives a task without permission a frame with the tiles'
/// configuration and without them.
fn plausible(xcr0: Components) -> bool {
    let tiles = if xcr0.contains(Components::TILECFG) { Components::AMX } else { xcr0 };
    let user = Components::all().difference(Components::SUPERVISOR);
    (xcr0 | tiles).is_legal_xcr0() && user.contains(xcr0)
}

/// Bytes of the standard format of these components, if all have a place.
fn len_of(layout: &ForeignLayout, components: u64) -> Option<usize> {
    let mut len = EXTENDED;
    for number in numbers(components & !0b11) {
        let (offset, size) = layout.place(Components::of_number(number)?)?;
        len = len.max(offset.checked_add(size)?);
    }
    Some(len)
}

/// The components that are present, if all are there; with `zeros` if no byte outside of them is another one.
fn parts<'a>(
    image: &'a [u8],
    present: u64,
    layout: &ForeignLayout,
    zeros: bool,
) -> Option<Vec<&'a [u8]>> {
    let mut places = Vec::new();
    for number in numbers(present & !0b11) {
        places.push(layout.place(Components::of_number(number)?)?);
    }
    let parts = places.iter().map(|(offset, size)| image.get(*offset..)?.get(..*size));
    let parts = parts.collect::<Option<Vec<_>>>()?;
    places.sort_unstable();
    let mut at = EXTENDED;
    for (offset, size) in places.into_iter().chain([(image.len(), 0)]) {
        let between = image.get(at..offset).unwrap_or_default();
        if zeros && between.iter().any(|byte| *byte != 0) {
            return None;
        }
        at = at.max(offset + size);
    }
    Some(parts)
}

fn maker(layout: &ForeignLayout) -> &'static str {
    let known = MAKERS.into_iter().find(|(name, ..)| named(name).as_ref() == Some(layout));
    known.map_or("another maker's", |(_, whose, ..)| whose)
}
