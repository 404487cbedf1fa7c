//! Random signal frames: good ones, of smaller and larger machines, and damaged ones.

use fpu_x86::{Components, Plan};

use super::random_image;
use crate::random::Random;

const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
const HEADER: usize = 512;
const EXTENDED: usize = 576;
/// The length of the largest frame here.
pub const LARGEST_FRAME: usize = 16380;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// The FPU part of a frame, legal or not, for a task of `plan`; the same for the same words.
///
/// Every PKRU in a frame lets the program go on: key 0, which all of its memory has, stays usable.
///
/// ```
/// use fpu_hosted_test::{real::random_frame, Random};
/// use fpu_x86::{Components, Plan};
/// let plan = Plan::detect_user(Components::all())?;
/// let (mut one, mut two) = (Vec::new(), Vec::new());
/// random_frame(&plan, &mut Random::new(1), &mut one);
/// random_frame(&plan, &mut Random::new(1), &mut two);
/// assert_eq!(one, two);
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
pub fn random_frame(plan: &Plan, words: &mut Random, frame: &mut Vec<u8>) {
    random_image(plan, words, frame);
    let own = plan.user_format().frame_len();
    let pkru = plan.user_format().components().contains(Components::PKRU);
    if own == HEADER {
        frame.resize(HEADER, 0);
        if words.below(2) == 0 {
            frame[464..512].fill(0);
        }
        return;
    }
    let (own, features) = (own - 4, plan.user_format().components() & !Components::TILEDATA);
    frame.resize(own.max(EXTENDED), 0);
    let mut size = own;
    let mut named = features.bits();
    let mut magics = (MAGIC1, MAGIC2);
    match words.below(16) {
        // Everything that this machine has.
        0..=5 => {}
        // What a program writes that asks for less.
        6 | 7 => named &= words.word(),
        // A machine with fewer components.
        8 | 9 => {
            named &= [0b11, 0b111, 0b1_1111, 0xE7][words.below(4)];
            let places = fpu_x86::ForeignLayout::of(plan);
            let end = |it: Components| places.place(it).map_or(0, |(offset, size)| offset + size);
            size = Components::from_bits_retain(named).iter().map(end).fold(EXTENDED, usize::max);
        }
        // A larger one.
        10 | 11 => size = own + 64 * words.below((LARGEST_FRAME - own) / 64),
        12 => magics.0 = 0,
        13 => magics.1 = 0,
        14 => named = words.word(),
        _ => size = words.below(LARGEST_FRAME),
    }
    frame.resize((size + 4).max(own + 4), 0);
    put(frame, size, &magics.1.to_le_bytes());
    put(frame, 464, &[0; 48]);
    put(frame, 464, &magics.0.to_le_bytes());
    put(frame, 468, &(size as u32 + 4).to_le_bytes());
    put(frame, 472, &named.to_le_bytes());
    put(frame, 480, &(size as u32).to_le_bytes());
    if words.below(4) == 0 {
        // One bit of software's words.
        let (at, bit) = (464 + words.below(20), words.below(8));
        frame[at] ^= 1 << bit;
    }
    if let Some((at, _)) = pkru_place(plan).filter(|_| pkru) {
        if let Some(rights) = frame.get_mut(at) {
            *rights &= !3;
        }
    }
}

/// By CPUID.
fn pkru_place(plan: &Plan) -> Option<(usize, usize)> {
    let described = plan.cpuid_info().described(9)?;
    Some((described.offset as usize, described.size as usize))
}
