//! An image of any machine, by the library's reader of foreign images.
//!
//! The library reads for a plan. Here nothing is restored, so the plan is one that has every component of ring 3: what this
//! machine lacks is shown, not refused.

use std::{borrow::Cow, sync::OnceLock};

use fpu_x86::{
    Beyond, Components, CpuidInfo, ForeignError, ForeignImage, ForeignLayout, ForeignRules,
    FrameKind, Image, LegacyOnly, Plan, SignalFrame, ValidImage,
};

use super::{
    bytes::{u16_at, u32_at, u64_at, Malformed, COMPACTED, EXTENDED, LEGACY, XCOMP_BV, XCR0},
    whose::{self, By, Bytes, Told, Whose},
    words::{component, numbers, Words, LEAF},
};

/// Of an image no more is read: no machine that is known has as much.
pub const MOST: usize = 1 << 16;
/// FSAVE's image and a word more, in front of a 32-bit frame.
const FRONT: usize = 112;
/// The offset of the components that software names in a frame.
const XFEATURES: usize = 472;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// All MXCSR bits that any CPU has: AMD's misaligned mode is the highest.
pub const MXCSR_MASK: u32 = 0x2_FFFF;

/// The kinds of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// FXSAVE's image, without a header.
    Fxsave,
    /// Each component at its fixed offset.
    Standard,
    /// Components packed.
    Compacted,
    /// In the standard format, in a signal frame.
    Frame,
    /// In the standard format, in a 32-bit program's frame.
    Frame32,
}

impl Kind {
    /// The kind of these bytes; only a file by itself can be a frame.
    fn of(bytes: &[u8], whole: usize, file: bool) -> Self {
        let magic = |at| u32_at(bytes, at) == Some(FP_XSTATE_MAGIC1);
        if file && magic(XCR0) {
            Self::Frame
        } else if file && (is_fsave(bytes) || magic(FRONT + XCR0)) {
            Self::Frame32
        } else if whole == LEGACY {
            Self::Fxsave
        } else if u64_at(bytes, XCOMP_BV).is_some_and(|word| word & COMPACTED != 0) {
            Self::Compacted
        } else {
            Self::Standard
        }
    }

    /// For programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fxsave => "fxsave",
            Self::Standard => "standard",
            Self::Compacted => "compacted",
            Self::Frame => "frame",
            Self::Frame32 => "frame-32",
        }
    }
}

/// FSAVE stores ones in the upper halves of its first words. A frame repeats the status word behind the image, and says
/// in the word after that that another image follows.
fn is_fsave(bytes: &[u8]) -> bool {
    [2, 6, 10].into_iter().all(|at| u16_at(bytes, at) == Some(0xFFFF))
        && u16_at(bytes, 108) == u16_at(bytes, 4)
        && u16_at(bytes, 110) == Some(0)
        && bytes.len() >= FRONT + LEGACY
}

/// Software's words of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of all.
    pub extended_size: u32,
    /// Bytes of the image.
    pub xstate_size: u32,
    /// Why only x87 and SSE count, if that is so.
    pub legacy: Option<LegacyOnly>,
}

/// The bytes of a component that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The bytes.
    Bytes(Cow<'a, [u8]>),
    /// All zero, its initial value.
    Zero,
    /// This layout has no place for it.
    Unplaced,
}

enum Valid<'a> {
    Image(ValidImage<'a>),
    Frame(SignalFrame<'a>),
}

/// A well-formed image.
pub struct Reading<'a> {
    /// The kind.
    pub kind: Kind,
    /// XSTATE_BV; x87 and SSE for FXSAVE.
    pub present: u64,
    /// Components that it has room for, by XCOMP_BV or by the software bytes.
    pub room: u64,
    /// The components that software says are enabled.
    pub xcr0: Option<u64>,
    /// Software's words of a frame.
    pub frame: Option<Frame>,
    /// The source of its layout, if it needs one.
    pub by: Option<By>,
    /// Bytes, as far as its components reach.
    pub len: usize,
    /// Bytes behind that.
    pub rest: u64,
    layout: &'a ForeignLayout,
    valid: Valid<'a>,
}

/// The origin of an image.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The thread of a core file, counted from 1.
    pub thread: Option<usize>,
    /// The system's number of the thread.
    pub id: Option<u32>,
    /// The owner of its note, and its type.
    pub note: Option<(String, u32)>,
    /// Where the image begins in the file.
    pub at: u64,
}

/// Bytes of a file that hold one image.
#[derive(Debug)]
pub struct Raw {
    /// As many as are looked at.
    pub bytes: Vec<u8>,
    /// The number of bytes that there are.
    pub whole: usize,
    /// The offset of the bytes in the file.
    pub base: u64,
    /// Whether the bytes are a file by themselves, not a note.
    pub file: bool,
}

impl Raw {
    fn kind(&self) -> Kind {
        Kind::of(&self.bytes, self.whole, self.file)
    }

    /// Where the image begins in the bytes.
    fn front(&self) -> usize {
        if self.kind() == Kind::Frame32 {
            FRONT
        } else {
            0
        }
    }

    fn image(&self) -> &[u8] {
        self.bytes.get(self.front()..).unwrap_or_default()
    }

    /// The layout that the image has.
    ///
    /// # Errors
    ///
    /// See [`Whose::standard`].
    pub fn tell(&self, whose: &Whose, note: Option<&ForeignLayout>) -> Result<Told, Malformed> {
        let (image, front) = (self.image(), self.front());
        let bytes = |claim_at, len| Bytes {
            image: image.get(..len).unwrap_or(image),
            len,
            base: self.base + front as u64,
            claim_at,
            written: !self.file || claim_at == XFEATURES,
        };
        match self.kind() {
            Kind::Compacted => Ok(whose.compacted()),
            Kind::Standard if image.len() >= EXTENDED => {
                whose.standard(&bytes(XCR0, self.whole), note)
            }
            Kind::Frame | Kind::Frame32 => {
                let size = u32_at(image, XCR0 + 16).unwrap_or_default() as usize;
                // Of another size, or of one that is not there, only x87 and SSE count, or it is refused.
                match (EXTENDED..=image.len()).contains(&size) {
                    true => whose.standard(&bytes(XFEATURES, size), note),
                    false => Ok(whose.here()),
                }
            }
            _ => Ok(whose.here()),
        }
    }

    /// Checks what a restore would check, and that everything present is there.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn read<'a>(&'a mut self, told: &'a Told) -> Result<Reading<'a>, Malformed> {
        let (kind, front, whole) = (self.kind(), self.front(), self.whole);
        let base = self.base.saturating_add(front as u64);
        let image = self.image();
        let (said, word) = (
            |at| u64_at(image, at).unwrap_or_default(),
            |at| u32_at(image, at).unwrap_or_default(),
        );
        let (bits, packed) = match kind {
            Kind::Fxsave => (0b11, 0),
            _ => (said(LEGACY), said(XCOMP_BV) & !COMPACTED),
        };
        let (claim, features) = (said(XCR0), said(XFEATURES));
        let (extended_size, xstate_size) = (word(XCR0 + 4), word(XCR0 + 16));
        let layout = &told.layout;
        let rules = ForeignRules::new().layout(layout).beyond(Beyond::Report);
        let plan = plan(bits | packed);
        let refused = |why: ForeignError| match why {
            // Of a 32-bit frame that is shorter than both images, all bytes are counted.
            ForeignError::Truncated { len, .. } if len == whole => {
                Malformed::foreign(&why, self.base)
            }
            _ => Malformed::foreign(&why, base),
        };
        let (valid, len) = match kind {
            Kind::Frame | Kind::Frame32 => {
                let format = plan.user_format();
                let valid = match kind {
                    Kind::Frame => format.read_frame_by(&rules, &mut self.bytes),
                    _ => format.read_frame_32_by(&rules, &mut self.bytes),
                };
                (Valid::Frame(valid.map_err(refused)?), whole - front)
            }
            _ => {
                let image = ForeignImage::first_of(whole, &mut self.bytes);
                let valid = image.validate_by(&rules.compacted(), plan).map_err(refused)?;
                (Valid::Image(valid), whole)
            }
        };
        let mut reading = Reading {
            kind,
            present: bits,
            room: bits | packed,
            xcr0: None,
            frame: None,
            by: Some(told.by).filter(|_| kind != Kind::Fxsave),
            len: LEGACY,
            rest: 0,
            layout,
            valid,
        };
        let limit = match &reading.valid {
            Valid::Image(_) => {
                // The CPU leaves these bytes alone, so they may be anything. x87 is always enabled.
                let known = Components::from_bits(claim).filter(|_| kind != Kind::Fxsave);
                reading.xcr0 = known.filter(|it| it.contains(Components::X87)).map(|it| it.bits());
                len
            }
            Valid::Frame(frame) => match frame.kind() {
                FrameKind::Full(only) => {
                    let sizes = Frame { extended_size, xstate_size, legacy: None };
                    (reading.xcr0, reading.frame) = (Some(features), Some(sizes));
                    reading.present &= only.bits();
                    reading.room = reading.present;
                    xstate_size as usize
                }
                FrameKind::Legacy(why) => {
                    reading.frame = Some(Frame { extended_size, xstate_size, legacy: Some(why) });
                    (reading.present, reading.room, reading.by) = (0b11, 0b11, None);
                    LEGACY
                }
            },
        };
        reading.place_all(limit, len, base)?;
        Ok(reading)
    }
}

impl<'a> Reading<'a> {
    /// Finds the places of all that there is room for, in the first `limit` bytes of `len`.
    fn place_all(&mut self, limit: usize, len: usize, base: u64) -> Result<(), Malformed> {
        if self.present & COMPACTED != 0 {
            let why = "bit 63 is no component";
            return Err(Malformed::new("XSTATE_BV", base + LEGACY as u64, self.present, why));
        }
        for number in numbers(self.present & !0b11) {
            let Some((offset, size)) = self.place(number) else { continue };
            if offset.saturating_add(size) > limit.min(MOST) {
                let why = format!("{size} bytes, but the image has {limit}");
                let at = base.saturating_add(offset as u64);
                return Err(Malformed::new(component(number), at, offset as u64, why));
            }
        }
        if matches!(self.kind, Kind::Standard | Kind::Frame | Kind::Frame32) {
            // The standard format does not say which components are absent and which not enabled. Software may; else it
            // is those that the image has room for.
            let said = match self.by {
                Some(By::Alike) => 0b11,
                _ => self.xcr0.unwrap_or(u64::MAX >> 1),
            };
            self.room |= said & 0b11;
            for number in numbers(said & !self.room & !COMPACTED) {
                let place = self.place(number).filter(|(offset, size)| offset + size <= limit);
                self.room |= u64::from(place.is_some()) << number;
            }
        }
        let least = if limit >= EXTENDED { EXTENDED } else { LEGACY };
        self.len = self.places().fold(least, |len, (_, offset, size)| len.max(offset + size));
        let used = match self.frame {
            Some(Frame { legacy: None, xstate_size, .. }) => xstate_size as usize + 4,
            _ => self.len,
        };
        self.rest = len.saturating_sub(used) as u64;
        Ok(())
    }

    fn place(&self, number: u32) -> Option<(usize, usize)> {
        let component = Components::of_number(number)?;
        match self.kind {
            Kind::Fxsave => None,
            Kind::Compacted => {
                let set = Components::from_bits_retain(self.room);
                self.layout.place_compacted(set, component)
            }
            _ => self.layout.place(component),
        }
    }

    /// Number, offset and size of all extended components that it has room for.
    pub fn places(&self) -> impl Iterator<Item = (u32, usize, usize)> + '_ {
        numbers(self.room & !0b11).filter_map(|number| {
            let (offset, size) = self.place(number)?;
            Some((number, offset, size))
        })
    }

    fn valid(&self) -> &ValidImage<'a> {
        match &self.valid {
            Valid::Image(valid) => valid,
            Valid::Frame(frame) => frame.valid(),
        }
    }

    /// The registers that the library has names for.
    #[must_use]
    pub fn image(&self) -> Image<'a> {
        self.valid().image()
    }

    /// Tells whether the component is in the image. Otherwise it is initial.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        self.present >> number & 1 != 0
    }

    /// MXCSR, unless it is initial because the format says so.
    #[must_use]
    pub fn mxcsr(&self) -> Option<u32> {
        let loaded = self.kind != Kind::Compacted || self.has(1);
        Some(self.image().mxcsr()).filter(|_| loaded)
    }

    /// The bytes of an extended component.
    #[must_use]
    pub fn part(&self, number: u32) -> Part<'a> {
        let (Some(one), true) = (Components::of_number(number), self.has(number)) else {
            return Part::Zero;
        };
        let Some((_, size)) = self.place(number) else { return Part::Unplaced };
        if let Some(bytes) = self.valid().bytes_beyond(one) {
            return Part::Bytes(bytes.into());
        }
        if !self.image().present().contains(one) {
            return Part::Zero;
        }
        // A component of the reader's plan: its registers fix the size.
        let mut bytes = vec![0; size];
        match self.image().read(one, 0, &mut bytes) {
            Ok(()) => Part::Bytes(bytes.into()),
            Err(_) => Part::Unplaced,
        }
    }

    /// Vector register `index`, 0 to 31, the lowest byte first; what is absent is zero.
    #[must_use]
    pub fn vector(&self, index: usize) -> [u8; 64] {
        let image = self.image();
        if let Some(whole) = image.zmm_hi16(index) {
            return whole;
        }
        let mut register = [0; 64];
        register[..16].copy_from_slice(&image.xmm(index).unwrap_or_default());
        register[16..32].copy_from_slice(&image.ymm_hi(index).unwrap_or_default());
        register[32..].copy_from_slice(&image.zmm_hi256(index).unwrap_or_default());
        register
    }
}

/// A plan for a machine with these and all other user components. PKRU is not among them, so that the library reports it
/// like everything that no plan has. Of MPX and APX, which share a place, it has one.
fn plan(bits: u64) -> &'static Plan {
    static WITH_APX: OnceLock<Plan> = OnceLock::new();
    static WITH_MPX: OnceLock<Plan> = OnceLock::new();
    let (cell, set) = match Components::from_bits_retain(bits).intersects(Components::MPX) {
        true => (&WITH_MPX, Components::MPX),
        false => (&WITH_APX, Components::APX),
    };
    cell.get_or_init(|| {
        let set = set | Components::LEGACY | Components::AVX | Components::AVX512 | Components::AMX;
        reader(set).unwrap_or_else(|why| unreachable!("the words are right: {why}"))
    })
}

fn reader(set: Components) -> Result<Plan, fpu_x86::PlanError> {
    let mut words = Words::default();
    words.set(LEAF, 0, [set.bits() as u32, EXTENDED as u32, EXTENDED as u32, 0]);
    words.set(LEAF, 1, [0b11, 0, 0, 0]);
    if let Some(layout) = whose::named("intel") {
        for one in set.difference(Components::LEGACY).iter() {
            let (Some(number), Some((offset, size))) = (one.number(), layout.place(one)) else {
                continue;
            };
            let align = u32::from(Components::AMX.contains(one)) << 1;
            words.set(LEAF, number, [size as u32, offset as u32, align, 0]);
        }
    }
    Plan::for_kernel(CpuidInfo::from_xsave_leaf(words)?, MXCSR_MASK, set)?.requiring(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_has_every_component_that_the_library_names_registers_of() {
        for (bits, one) in [(0, Components::APX), (1 << 3, Components::MPX)] {
            let set = plan(bits).components();
            assert!(set.contains(one | Components::AVX512 | Components::AMX), "{set:?}");
        }
    }
}
