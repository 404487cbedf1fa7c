//! Images for the fuzz tests: some legal, most damaged in one or a few places.

use fpu_x86::{Components, Plan};

/// A generator of random words: SplitMix64.
#[derive(Clone, Debug)]
pub struct Words(pub u64);

impl Words {
    /// The next one.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// A number less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }
    fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            let word = self.word().to_le_bytes();
            eight.copy_from_slice(&word[..eight.len()]);
        }
    }
}

const HEADER: usize = 512;

/// An image, legal or not, for a task of `plan`; the same for the same words.
///
/// ```
/// use fpu_hosted_test::real::{random_image, Words};
/// use fpu_x86::{Components, Plan};
/// let plan = Plan::detect_user(Components::all())?;
/// let (mut one, mut two) = (Vec::new(), Vec::new());
/// random_image(&plan, &mut Words(1), &mut one);
/// random_image(&plan, &mut Words(1), &mut two);
/// assert_eq!(one, two);
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
pub fn random_image(plan: &Plan, words: &mut Words, image: &mut Vec<u8>) {
    let most = plan.foreign_len();
    image.clear();
    image.resize(most, 0);
    legal(plan, words, image);
    // A third stays legal.
    for _ in 0..words.below(3) {
        damage(plan, words, image);
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
fn legal(plan: &Plan, words: &mut Words, image: &mut Vec<u8>) {
    words.fill(image);
    let mxcsr = match words.below(4) {
        0 => 0x1F80,
        _ => words.word() as u32 & plan.mxcsr_mask(),
    };
    set(image, 24, &mxcsr.to_le_bytes());
    if words.below(8) == 0 {
        image.truncate(HEADER);
        return;
    }
    let user = plan.components().difference(Components::SUPERVISOR).bits();
    let present = match words.below(4) {
        0 => 0,
        1 => user,
        _ => words.word() & user,
    };
    set(image, HEADER, &present.to_le_bytes());
    set(image, HEADER + 8, &[0; 56]);
}

/// One damage; it may be none.
fn damage(plan: &Plan, words: &mut Words, image: &mut Vec<u8>) {
    let (most, len) = (plan.foreign_len(), image.len());
    let bit = 1u8 << words.below(8);
    match words.below(12) {
        0 => set(image, 24, &(words.word() as u32).to_le_bytes()),
        1 => flip(image, 24 + words.below(4), bit),
        2 => flip(image, HEADER + words.below(8), bit),
        3 => flip(image, HEADER + 8 + words.below(8), bit),
        4 => flip(image, HEADER + 16 + words.below(48), bit),
        5 if len >= HEADER + 8 => {
            let one = 1u64 << words.below(64);
            let present = u64::from_le_bytes(std::array::from_fn(|n| image[HEADER + n]));
            set(image, HEADER, &(present | one).to_le_bytes());
        }
        6 => {
            // Ends where something ends, or anywhere.
            let ends = [0, 1, 24, 511, 512, 513, 575, 576, 577, 832, most - 1];
            let to = match words.below(16) {
                n if n < ends.len() => ends[n],
                _ => words.below(most),
            };
            image.truncate(to);
        }
        7 => {
            let more = if words.below(2) == 0 { 1 } else { words.below(4096) };
            image.resize(most + more, 0);
        }
        8 => words.fill(image),
        9 if len >= HEADER + 64 => words.fill(&mut image[HEADER..HEADER + 64]),
        // Anywhere, which is mostly in registers.
        _ => flip(image, words.below(len.max(1)), bit),
    }
}
