//! Images for the fuzz tests: some legal, most damaged in one or a few places.

use fpu_x86::{Components, Plan};

use crate::random::Random;

const HEADER: usize = 512;

/// An image, legal or not, for a task of `plan`; the same for the same seed.
///
/// ```
/// use fpu_hosted_test::{real::random_image, Random};
/// use fpu_x86::{Components, Plan};
/// let plan = Plan::detect_user(Components::all())?;
/// let (mut one, mut two) = (Vec::new(), Vec::new());
/// random_image(&plan, &mut Random::new(1), &mut one);
/// random_image(&plan, &mut Random::new(1), &mut two);
/// assert_eq!(one, two);
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
pub fn random_image(plan: &Plan, random: &mut Random, image: &mut Vec<u8>) {
    let most = plan.foreign_len();
    image.clear();
    image.resize(most, 0);
    legal(plan, random, image);
    // A third stays legal.
    for _ in 0..random.below(3) {
        damage(plan, random, image);
    }
}

fn set(image: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = image.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn flip(image: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = image.get_mut(at) {
        *byte ^= bits;
    }
}

/// Random registers of a random set of components.
fn legal(plan: &Plan, random: &mut Random, image: &mut Vec<u8>) {
    random.fill(image);
    let mxcsr = match random.below(4) {
        0 => 0x1F80,
        _ => random.word() as u32 & plan.mxcsr_mask(),
    };
    set(image, 24, &mxcsr.to_le_bytes());
    if random.below(8) == 0 {
        image.truncate(HEADER);
        return;
    }
    let user = plan.components().difference(Components::SUPERVISOR).bits();
    let present = match random.below(4) {
        0 => 0,
        1 => user,
        _ => random.word() & user,
    };
    set(image, HEADER, &present.to_le_bytes());
    set(image, HEADER + 8, &[0; 56]);
}

/// One damage; it may be none.
fn damage(plan: &Plan, random: &mut Random, image: &mut Vec<u8>) {
    let (most, len) = (plan.foreign_len(), image.len());
    let bit = 1u8 << random.below(8);
    match random.below(12) {
        0 => set(image, 24, &(random.word() as u32).to_le_bytes()),
        1 => flip(image, 24 + random.below(4), bit),
        2 => flip(image, HEADER + random.below(8), bit),
        3 => flip(image, HEADER + 8 + random.below(8), bit),
        4 => flip(image, HEADER + 16 + random.below(48), bit),
        5 if len >= HEADER + 8 => {
            let one = 1u64 << random.below(64);
            let present = u64::from_le_bytes(std::array::from_fn(|n| image[HEADER + n]));
            set(image, HEADER, &(present | one).to_le_bytes());
        }
        6 => {
            // Ends where something ends, or anywhere.
            let ends = [0, 1, 24, 511, 512, 513, 575, 576, 577, 832, most - 1];
            let to = match random.below(16) {
                n if n < ends.len() => ends[n],
                _ => random.below(most),
            };
            image.truncate(to);
        }
        7 => {
            let more = if random.below(2) == 0 { 1 } else { random.below(4096) };
            image.resize(most + more, 0);
        }
        8 => random.fill(image),
        9 if len >= HEADER + 64 => random.fill(&mut image[HEADER..HEADER + 64]),
        // Anywhere, which is mostly in registers.
        _ => flip(image, random.below(len.max(1)), bit),
    }
}
