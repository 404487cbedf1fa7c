//! A save area in memory: its format, what is in it, and where.

use fpu_x86::{Components, CpuidInfo};

use super::{
    bytes::{array, u16_at, u32_at, u64_at, Malformed},
    layouts::{Layouts, Region},
    words::{component, numbers},
};

/// The legacy area alone is an FXSAVE image.
pub const LEGACY: usize = 512;
/// The header ends here.
pub const EXTENDED: usize = 576;
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;
const RESERVED: usize = 528;
const SOFTWARE: usize = 464;
const MXCSR: usize = 24;
/// XCOMP_BV's bit that says "compacted".
const COMPACTED: u64 = 1 << 63;
/// All MXCSR bits that any CPU has: AMD's misaligned mode is the highest.
const ALL_MASK: u32 = 0x2_FFFF;
/// In the first software word of a Linux signal frame.
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;

/// How it is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// FXSAVE: no header.
    Legacy,
    /// Each component at its fixed offset.
    Standard,
    /// Components packed.
    Compacted,
}

/// What is in bytes 464 to 511, which the CPU leaves to software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Software {
    /// Zeros, or nothing that is known.
    None,
    /// A kernel's dump: the components enabled.
    Enabled(u64),
    /// A Linux signal frame.
    Frame {
        /// Bytes of area and final magic number.
        extended_size: u32,
        /// Components enabled.
        enabled: u64,
        /// Bytes of the area.
        size: u32,
    },
}

/// A well-formed area.
#[derive(Clone, Debug)]
pub struct Area<'a> {
    bytes: &'a [u8],
    /// Its format.
    pub kind: Kind,
    /// XSTATE_BV; x87 and SSE for FXSAVE.
    pub present: u64,
    /// Components that it has room for, by XCOMP_BV or by the software bytes.
    pub room: u64,
    /// Where the extended ones are.
    pub region: Region,
    /// What software left there.
    pub software: Software,
}

impl<'a> Area<'a> {
    /// Checks what a restore would check, and that everything present is there. The area begins at
    /// `base` of its file.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn new(bytes: &'a [u8], base: usize, facts: &CpuidInfo) -> Result<Self, Malformed> {
        let wrong =
            |field: &str, at: usize, why: String| Err(Malformed::new(field, base + at, why));
        if bytes.len() < LEGACY {
            return wrong("legacy area", 0, format!("{} bytes, not {LEGACY}", bytes.len()));
        }
        let mut area = Area {
            bytes,
            kind: Kind::Legacy,
            present: 0b11,
            room: 0b11,
            region: Region { len: LEGACY as u32, ..Region::default() },
            software: software(bytes),
        };
        if bytes.len() == LEGACY {
            return area.with_mxcsr(base);
        }
        let (Some(present), Some(compaction), Some(reserved)) =
            (u64_at(bytes, XSTATE_BV), u64_at(bytes, XCOMP_BV), bytes.get(RESERVED..EXTENDED))
        else {
            let why = format!("{} of its 64 bytes are there", bytes.len() - LEGACY);
            return wrong("header", LEGACY, why);
        };
        if let Some(at) = reserved.iter().position(|byte| *byte != 0) {
            let why = format!("{:#04x}, must be 0", reserved[at]);
            return wrong("reserved header byte", RESERVED + at, why);
        }
        area.present = present;
        if compaction & COMPACTED != 0 {
            area.kind = Kind::Compacted;
            area.room = compaction & !COMPACTED;
            let surplus = present & !area.room;
            if surplus != 0 {
                let why = format!("{:#x} is present but not in XCOMP_BV", surplus);
                return wrong("XSTATE_BV", XSTATE_BV, why);
            }
            match Layouts::new(facts, area.room) {
                Ok(layouts) => area.region = layouts.compacted,
                Err(why) => return wrong("XCOMP_BV", XCOMP_BV, why),
            }
        } else if compaction != 0 {
            let why = format!("{compaction:#x}, must be 0 in the standard format");
            return wrong("XCOMP_BV", XCOMP_BV, why);
        } else {
            area.kind = Kind::Standard;
            match standard(facts, present) {
                Ok(region) => area.region = region,
                Err(why) => return wrong("XSTATE_BV", XSTATE_BV, why),
            }
        }
        for number in numbers(present) {
            let Some((offset, size)) = area.region.places.get(&number) else { continue };
            if (*offset as usize).saturating_add(*size as usize) > bytes.len() {
                let why = format!("{size} bytes, but the area ends at {}", base + bytes.len());
                return wrong(&component(number), *offset as usize, why);
            }
        }
        if area.kind == Kind::Standard {
            area.make_room(facts);
        }
        area.with_mxcsr(base)
    }

    /// The standard format does not say which components are absent and which not enabled. Software
    /// may; else it is those that the file has room for.
    fn make_room(&mut self, facts: &CpuidInfo) {
        let said = match self.software {
            Software::Enabled(enabled) | Software::Frame { enabled, .. } => enabled,
            Software::None => facts.supported_user().bits(),
        };
        self.room = self.present | said & 0b11;
        for number in numbers(said & !self.room & !COMPACTED) {
            let Ok(region) = standard(facts, self.room | 1 << number) else { continue };
            if region.len as usize <= self.bytes.len() {
                self.room |= 1 << number;
                self.region = region;
            }
        }
    }

    /// MXCSR is loaded unless the format says that it is initial. The mask beside it says what the
    /// CPU that wrote the area would take; a restore does not look at it.
    fn with_mxcsr(self, base: usize) -> Result<Self, Malformed> {
        match self.mxcsr() {
            Some(value) if value & !ALL_MASK != 0 => {
                let why = format!("{value:#010x}: bits {:#x} are reserved", value & !ALL_MASK);
                Err(Malformed::new("MXCSR", base + MXCSR, why))
            }
            _ => Ok(self),
        }
    }

    /// Is the component in the area? Otherwise it is initial.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        self.present >> number & 1 != 0
    }

    /// Bytes behind the area.
    #[must_use]
    pub fn rest(&self) -> usize {
        self.bytes.len().saturating_sub(self.region.len as usize)
    }

    /// MXCSR, unless it is initial.
    #[must_use]
    pub fn mxcsr(&self) -> Option<u32> {
        let loaded = self.kind != Kind::Compacted || self.has(1);
        u32_at(self.bytes, MXCSR).filter(|_| loaded)
    }

    /// A word of the legacy area; there are 512 bytes, so the default is never taken.
    #[must_use]
    pub fn word(&self, at: usize) -> u16 {
        u16_at(self.bytes, at).unwrap_or_default()
    }

    /// Eight bytes of the legacy area.
    #[must_use]
    pub fn pointer(&self, at: usize) -> u64 {
        u64_at(self.bytes, at).unwrap_or_default()
    }

    /// ST(`index`).
    #[must_use]
    pub fn st(&self, index: usize) -> [u8; 10] {
        array(self.bytes, 32 + 16 * index).unwrap_or_default()
    }

    /// The bytes of an extended component that is present.
    #[must_use]
    pub fn bytes(&self, number: u32) -> Option<&'a [u8]> {
        let (offset, size) = self.region.places.get(&number).filter(|_| self.has(number))?;
        self.bytes.get(*offset as usize..)?.get(..*size as usize)
    }

    /// Vector register `index`, 0 to 31, the lowest byte first, put together from up to three
    /// components; what is absent is zero.
    #[must_use]
    pub fn vector(&self, index: usize) -> [u8; 64] {
        let mut register = [0; 64];
        let mut put = |at: usize, from: Option<&[u8]>| {
            if let Some(from) = from {
                register[at..at + from.len()].copy_from_slice(from);
            }
        };
        let part = |number, size: usize, index: usize| {
            self.bytes(number).and_then(|bytes| bytes.get(size * index..)?.get(..size))
        };
        if index < 16 {
            put(
                0,
                self.bytes
                    .get(160 + 16 * index..)
                    .and_then(|b| b.get(..16))
                    .filter(|_| self.has(1)),
            );
            put(16, part(2, 16, index));
            put(32, part(6, 32, index));
        } else {
            put(0, part(7, 64, index - 16));
        }
        register
    }
}

fn standard(facts: &CpuidInfo, set: u64) -> Result<Region, String> {
    let layouts = Layouts::new(facts, set)?;
    let supervisor = numbers(set & !0b11).find(|n| !layouts.standard.places.contains_key(n));
    match supervisor {
        Some(number) => Err(format!(
            "{} is a supervisor component, which the standard format cannot hold",
            component(number)
        )),
        None => Ok(layouts.standard),
    }
}

fn software(bytes: &[u8]) -> Software {
    let word = |at| u32_at(bytes, SOFTWARE + at).unwrap_or_default();
    let long = |at| u64_at(bytes, SOFTWARE + at).unwrap_or_default();
    if word(0) == FP_XSTATE_MAGIC1 {
        return Software::Frame { extended_size: word(4), enabled: long(8), size: word(16) };
    }
    // The CPU leaves these bytes alone, so they may be anything. x87 is always enabled.
    let enabled = Components::from_bits(long(0));
    match enabled.filter(|enabled| enabled.contains(Components::X87)) {
        Some(enabled) => Software::Enabled(enabled.bits()),
        None => Software::None,
    }
}
