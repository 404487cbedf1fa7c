//! Inputs of the fuzzer: legal ones, and changes of them that know where the words are.

use fpu_x86::Plan;

use super::{fuzz::RECORD, Entry, Subject};
use crate::random::Random;

const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// Where words stand that decide something: FSAVE's and FXSAVE's, software's, the header's.
const PLACES: [usize; 20] =
    [0, 2, 4, 8, 24, 26, 28, 110, 464, 468, 472, 476, 480, 484, 512, 514, 520, 527, 528, 575];
/// What is often a limit.
const LIMITS: [u64; 18] = [
    0,
    1,
    3,
    7,
    0xE7,
    511,
    512,
    575,
    576,
    832,
    16380,
    16384,
    16385,
    MAGIC1 as u64,
    MAGIC2 as u64,
    0x7FFF_FFFF,
    u32::MAX as u64,
    u64::MAX,
];

/// An input for one way in: legal registers of a task, or one of the `seeds`, changed in none to a few places.
///
/// ```
/// use fpu_hosted_test::{real::{fuzz_input, Entry, Subject}, Random};
/// let mut subject = Subject::of_this_cpu().remove(0);
/// let mut input = |seed| fuzz_input(&mut subject, Entry::Frame, &[], &mut Random::new(seed));
/// assert_eq!(input(1), input(1));
/// ```
pub fn fuzz_input(
    subject: &mut Subject,
    entry: Entry,
    seeds: &[Vec<u8>],
    words: &mut Random,
) -> Vec<u8> {
    let own = subject.legal(entry, words);
    let seed = (!seeds.is_empty()).then(|| &seeds[words.below(seeds.len())]);
    let mut bytes = match seed {
        Some(seed) if words.below(4) == 0 => seed.clone(),
        _ => own.clone(),
    };
    let other = seed.map_or(&own[..], |seed| seed);
    // A fifth stays legal.
    for _ in 0..words.below(5) {
        let front = front(entry, &bytes);
        change(subject.plan(), entry, front, &mut bytes, other, words);
    }
    bytes
}

/// What comes before the image.
fn front(entry: Entry, bytes: &[u8]) -> usize {
    match entry {
        Entry::Frame32 => 112,
        Entry::ByNote => 1 + RECORD * bytes.first().map_or(0, |records| usize::from(*records)),
        _ => 0,
    }
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |word| u64::from_le_bytes(std::array::from_fn(|n| word[n])))
}

/// A range of this many bytes; it may be empty.
fn range(len: usize, words: &mut Random) -> std::ops::Range<usize> {
    let (one, other) = (words.below(len + 1), words.below(len + 1));
    one.min(other)..one.max(other)
}

/// One change.
fn change(
    plan: &Plan,
    entry: Entry,
    front: usize,
    bytes: &mut Vec<u8>,
    other: &[u8],
    words: &mut Random,
) {
    let len = bytes.len();
    let parts: Vec<(usize, usize)> = (2..63)
        .filter_map(|number| plan.cpuid_info().described(number))
        .map(|it| (front + it.offset as usize, it.size as usize))
        .collect();
    let numbers = if words.below(4) == 0 { 64 } else { 20 };
    let bit = 1u64 << words.below(numbers);
    match words.below(20) {
        0 if len > 0 => bytes[words.below(len)] ^= 1 << words.below(8),
        1 => {
            let at = front + words.below(600);
            set(bytes, at, &[words.word() as u8]);
        }
        2 | 3 => {
            let at = front + PLACES[words.below(PLACES.len())];
            let value = match words.below(4) {
                0 => words.word(),
                1 => (len as u64).wrapping_add(words.below(9) as u64).wrapping_sub(4),
                _ => LIMITS[words.below(LIMITS.len())],
            };
            set(bytes, at, &value.to_le_bytes()[..1 << words.below(4)]);
        }
        4 | 5 => {
            let present = word(bytes, front + 512) ^ bit;
            set(bytes, front + 512, &present.to_le_bytes());
        }
        6 => {
            let xcomp_bv = match words.below(4) {
                0 => bit,
                1 => 1 << 63 | words.word(),
                _ => word(bytes, front + 520) ^ (1 << 63 | bit),
            };
            set(bytes, front + 520, &xcomp_bv.to_le_bytes());
        }
        7 => {
            let mxcsr = (bit as u32) << words.below(12) ^ word(bytes, front + 24) as u32;
            set(bytes, front + 24, &mxcsr.to_le_bytes());
        }
        8 => bytes.truncate(end(front, &parts, len, words)),
        9 => bytes.resize(len + 1 + words.below(4096), words.word() as u8),
        // Of two inputs: a part of one in the other, or one's beginning and the other's end.
        10 => {
            let range = range(len.min(other.len()), words);
            bytes[range.clone()].copy_from_slice(&other[range]);
        }
        11 => {
            bytes.truncate(words.below(len + 1));
            bytes.extend(&other[words.below(other.len() + 1)..]);
        }
        // A frame that ends elsewhere, and says so.
        12 | 13 => {
            let size = end(front, &parts, len, words).saturating_sub(front);
            bytes.resize(bytes.len().max(front + size + 4), 0);
            set(bytes, front + 464, &MAGIC1.to_le_bytes());
            // Seldom one byte less than the image.
            let short = if words.below(8) == 0 { 5 } else { 0 };
            let all = (size as u32 + 4).saturating_sub(short);
            set(bytes, front + 468, &all.to_le_bytes());
            set(bytes, front + 480, &(size as u32).to_le_bytes());
            set(bytes, front + size, &MAGIC2.to_le_bytes());
        }
        // What software says of the components: a frame's word, a debugger's.
        14 => {
            let at = front + if words.below(2) == 0 { 464 } else { 472 };
            let claims = [0, 3, 7, 0x1F, 0xE7, 0x2E7, 0x207, 0x6_02E7, 0x2_00E7, 0x8_00E7];
            let claim = match words.below(4) {
                0 => words.word(),
                _ => claims[words.below(claims.len())],
            };
            set(bytes, at, &claim.to_le_bytes());
        }
        // All of one component.
        15 if !parts.is_empty() => {
            let (at, size) = parts[words.below(parts.len())];
            let value = [0, 1, 0xFF, words.word() as u8][words.below(4)];
            if let Some(part) = bytes.get_mut(at..at + size) {
                let some = range(part.len(), words);
                part[some].fill(value);
            }
        }
        // One that is present, with any value.
        17 if !parts.is_empty() => {
            let number = [2, 3, 4, 9, 17, 18][words.below(6)];
            let Some(it) = plan.cpuid_info().described(number) else { return };
            let at = front + it.offset as usize;
            if let Some(part) = bytes.get_mut(at..at + it.size as usize) {
                words.fill(part);
            }
            // A frame's words name it too.
            let words =
                if word(bytes, front + 464) as u32 == MAGIC1 { &[472, 512][..] } else { &[512] };
            for at in words {
                let present = word(bytes, front + at) | 1 << number;
                set(bytes, front + at, &present.to_le_bytes());
            }
        }
        // Bytes come in between, or go.
        16 => {
            let range = range(len, words);
            let few = range.start..range.end.min(range.start + words.below(65));
            match words.below(2) {
                0 => drop(bytes.drain(few)),
                _ => drop(
                    bytes.splice(few.start..few.start, few.map(|n| n as u8).collect::<Vec<_>>()),
                ),
            }
        }
        // A word of a note.
        _ if entry == Entry::ByNote && front > RECORD && len >= front => {
            let at = 1 + 4 * words.below((front - 1) / 4);
            let value = match words.below(3) {
                0 => words.word() as u32,
                1 => word(bytes, at) as u32 ^ bit as u32,
                // Often the size or place of something.
                _ => words.below(64) as u32 * [1, 8, 64][words.below(3)],
            };
            set(bytes, at, &value.to_le_bytes());
        }
        _ => {
            // An abridged frame.
            bytes.truncate(front + 512);
        }
    }
}

/// Where something ends, or next to that, or anywhere.
fn end(front: usize, parts: &[(usize, usize)], len: usize, words: &mut Random) -> usize {
    let exact = match words.below(5) {
        0 => words.below(len + 1),
        1 => front + LIMITS[words.below(13)] as usize,
        2 | 3 if !parts.is_empty() => {
            let (at, size) = parts[words.below(parts.len())];
            at + size
        }
        _ => len.saturating_sub(4),
    };
    (exact + words.below(3)).saturating_sub(1).min(20_000)
}
