//! What CPUID says to the library: this CPU's words, or recorded ones that the boot parameters give.
//!
//! A kernel of yours says `raw_cpuid::CpuIdReaderNative`. With recorded words the library meets here what
//! hypervisors were seen to say, on a CPU that may not have what they promise. The rest of this kernel asks
//! the CPU itself: its test programs are no part of the lie.

use core::arch::x86_64::__cpuid_count;

use raw_cpuid::{CpuIdReader, CpuIdResult};
use spin::Once;
use x86_64::registers::{
    control::{Cr4, Cr4Flags},
    model_specific::Msr,
    xcontrol::XCr0,
};

use crate::{faults::Fault, sizes};

/// The leaf that describes XSAVE.
const LEAF: u32 = 0xD;
/// All subleaves of it, and some leaves more.
const MOST: usize = 80;
const IA32_XSS: u32 = 0xDA0;
/// CPUID.1:ECX, which follows CR4.
const OSXSAVE: u32 = 1 << 27;

/// The words of one subleaf.
#[derive(Clone, Copy)]
struct Entry {
    leaf: u32,
    subleaf: u32,
    words: [u32; 4],
    /// EBX is computed from what is enabled, as a CPU does it.
    follows: bool,
}

struct Recorded {
    entries: [Entry; MOST],
    len: usize,
    /// What is not recorded is asked of this CPU; else it is zero.
    partly: bool,
}

static RECORDED: Once<Recorded> = Once::new();

impl Recorded {
    const fn new(partly: bool) -> Self {
        let none = Entry { leaf: 0, subleaf: 0, words: [0; 4], follows: false };
        Self { entries: [none; MOST], len: 0, partly }
    }

    fn push(&mut self, entry: Entry) -> Option<()> {
        *self.entries.get_mut(self.len)? = entry;
        self.len += 1;
        Some(())
    }

    fn find(&self, leaf: u32, subleaf: u32) -> Option<&Entry> {
        let entries = self.entries.get(..self.len)?;
        entries.iter().find(|entry| (entry.leaf, entry.subleaf) == (leaf, subleaf))
    }

    /// The words as they stand there.
    fn plain(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        match self.find(leaf, subleaf) {
            Some(entry) => entry.words,
            None if self.partly => native(leaf, subleaf),
            None => [0; 4],
        }
    }

    /// The words as they are now.
    fn read(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let mut words = self.plain(leaf, subleaf);
        if leaf == 1 {
            let on = Cr4::read().contains(Cr4Flags::OSXSAVE);
            words[2] = words[2] & !OSXSAVE | if on { OSXSAVE } else { 0 };
        }
        if self.find(leaf, subleaf).is_some_and(|entry| entry.follows) {
            let (xcr0, xss) = enabled();
            let of = |number| self.plain(LEAF, number);
            words[1] = match subleaf {
                0 => sizes::standard(xcr0, of),
                _ => sizes::compacted(xcr0, xss, of),
            };
        }
        words
    }
}

fn native(leaf: u32, subleaf: u32) -> [u32; 4] {
    let words = __cpuid_count(leaf, subleaf);
    [words.eax, words.ebx, words.ecx, words.edx]
}

/// XCR0 and IA32_XSS of this CPU. XCR0 cannot be read while CR4.OSXSAVE is clear; 1 is what reset leaves.
fn enabled() -> (u64, u64) {
    if !Cr4::read().contains(Cr4Flags::OSXSAVE) {
        return (1, 0);
    }
    let xsaves = native(0, 0)[0] >= LEAF && native(LEAF, 1)[0] & 1 << 3 != 0;
    // SAFETY: CPUID(0xD,1).EAX[3] of this CPU itself says that there is the register.
    let xss = if xsaves { unsafe { Msr::new(IA32_XSS).read() } } else { 0 };
    (XCr0::read_raw(), xss)
}

/// Takes `LEAF.SUBLEAF:EAX,EBX,ECX,EDX/...` for CPUID's words, all in hexadecimal but the subleaf; `~` for an
/// EBX that follows what is enabled. Once, before the library asks. The error is what could not be read.
pub fn record(text: &'static str) -> Result<(), &'static str> {
    let mut recorded = Recorded::new(false);
    for part in text.split('/') {
        recorded.push(entry(part).ok_or(part)?).ok_or(part)?;
    }
    RECORDED.call_once(|| recorded);
    Ok(())
}

fn entry(text: &str) -> Option<Entry> {
    let (place, four) = text.split_once(':')?;
    let (leaf, subleaf) = place.split_once('.')?;
    let (leaf, subleaf) = (u32::from_str_radix(leaf, 16).ok()?, subleaf.parse().ok()?);
    let follows = matches!((leaf, subleaf), (LEAF, 0 | 1)) && four.split(',').nth(1) == Some("~");
    let mut words = [0; 4];
    let mut texts = four.split(',');
    for (at, word) in words.iter_mut().enumerate() {
        let text = texts.next()?;
        if !(follows && at == 1) {
            *word = u32::from_str_radix(text, 16).ok()?;
        }
    }
    texts.next().is_none().then_some(Entry { leaf, subleaf, words, follows })
}

/// Gives the library this CPU's words with the places of some components changed, as the fault says.
pub fn seed(fault: Fault) {
    let places: &[(u32, u32)] = match fault {
        // AVX-512 behind AVX, which ends at 832, without the gap that CPUs leave for MPX: the area ends 256 bytes
        // before the CPU stops to write.
        Fault::ShortArea => &[(5, 832), (6, 896), (7, 1408)],
        // AVX lies at 576.
        Fault::MovedComponent => &[(2, 640)],
        _ => return,
    };
    let mut recorded = Recorded::new(true);
    let sizes = [0, 1].map(|subleaf| (subleaf, native(LEAF, subleaf), true));
    let moved = places.iter().map(|&(number, offset)| {
        let [size, _, flags, reserved] = native(LEAF, number);
        (number, [size, offset, flags, reserved], false)
    });
    for (subleaf, words, follows) in sizes.into_iter().chain(moved) {
        // There is room for more.
        let _pushed = recorded.push(Entry { leaf: LEAF, subleaf, words, follows });
    }
    RECORDED.call_once(|| recorded);
}

/// Gives the library this CPU's words, and IA32_XFD for AMX's tiles: CPUID(0xD,1).EAX\[4\] and (0xD,18).ECX\[2\].
pub fn add_xfd() {
    let mut recorded = Recorded::new(true);
    for (subleaf, register, bit) in [(0, 0, 0), (1, 0, 1 << 4), (18, 2, 1 << 2)] {
        let mut words = native(LEAF, subleaf);
        words[register] |= bit;
        // There is room for more.
        let _pushed = recorded.push(Entry { leaf: LEAF, subleaf, words, follows: subleaf < 2 });
    }
    RECORDED.call_once(|| recorded);
}

/// CPUID as the library is to see it.
#[derive(Clone, Copy)]
pub struct Reader;

impl CpuIdReader for Reader {
    fn cpuid2(&self, leaf: u32, subleaf: u32) -> CpuIdResult {
        let [eax, ebx, ecx, edx] = match RECORDED.get() {
            Some(recorded) => recorded.read(leaf, subleaf),
            None => native(leaf, subleaf),
        };
        CpuIdResult { eax, ebx, ecx, edx }
    }
}
