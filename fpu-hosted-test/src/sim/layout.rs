//! The register file and where an image keeps it.

use crate::random::Random;
use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};
use std::fmt;

/// One part of the register file that is present in an image or absent, as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// Its name.
    pub name: &'static str,
    /// Words of 8 bytes.
    pub words: usize,
    /// Where it is in an image, in bytes.
    pub offset: usize,
    /// Its first word in the initial state; the others are 0.
    pub first: u64,
    /// Bits of the first word that may be set.
    pub legal: u64,
    /// Does a child task inherit it?
    pub inherited: bool,
    /// Does it keep the core from sleeping deeply while it is in use?
    pub keeps_awake: bool,
}

/// How many components there are.
pub const COMPONENTS: usize = 4;
/// Bytes of an image.
pub const AREA_LEN: usize = 512;
/// Bytes of an image that has no place for the last component.
pub const BASE_LEN: usize = 256;
/// Alignment of an image.
pub const AREA_ALIGN: usize = 64;

/// The components. The header is the first 64 bytes: which are present, the format, zeros.
pub const LAYOUT: [Component; COMPONENTS] = [
    component("x87", 6, 64, 0x037F, ORDINARY),
    component("sse", 8, 192, 0x1F80, ORDINARY),
    component("avx", 8, 128, 0, ORDINARY),
    component("tile", 32, 256, 0, !ORDINARY),
];

/// A child inherits it, and a core sleeps with it.
const ORDINARY: bool = true;

const fn component(
    name: &'static str,
    words: usize,
    offset: usize,
    first: u64,
    ordinary: bool,
) -> Component {
    let legal = if first == 0 { u64::MAX } else { 0xFFFF };
    let (inherited, keeps_awake) = (ordinary, !ordinary);
    Component { name, words, offset, first, legal, inherited, keeps_awake }
}

pub(super) const AVX: usize = 2;
pub(super) const TILE: usize = 3;
/// Which components are present.
pub(super) const PRESENT: usize = 0;
/// What XCOMP_BV is to XSAVEC.
pub(super) const FORMAT: usize = 1;
pub(super) const FORMAT_VALUE: u64 = format_of(ALL);
/// Of an image with places for these components.
pub(super) const fn format_of(components: u64) -> u64 {
    1 << 63 | components
}
pub(super) const HEADER_WORDS: usize = 8;
pub(super) const ALL: u64 = (1 << COMPONENTS) - 1;
const MOST_WORDS: usize = 32;

/// The contents of all registers.
///
/// ```
/// use fpu_hosted_test::sim::Registers;
/// assert_eq!(Registers::pattern(5, 0), Registers::initial());
/// assert_ne!(Registers::pattern(5, 1), Registers::pattern(6, 1));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Registers([[u64; MOST_WORDS]; COMPONENTS]);

impl Registers {
    /// The architectural initial state.
    #[must_use]
    pub fn initial() -> Self {
        let mut all = [[0; MOST_WORDS]; COMPONENTS];
        for (words, component) in all.iter_mut().zip(&LAYOUT) {
            words[0] = component.first;
        }
        Self(all)
    }
    /// The components in `present` hold what only this seed gives, the others are initial.
    #[must_use]
    pub fn pattern(seed: u64, present: u64) -> Self {
        let mut all = Self::initial();
        let mut random = Random::new(seed);
        for (index, component) in LAYOUT.iter().enumerate() {
            for word in all.component_mut(index) {
                let value = random.word();
                if present >> index & 1 != 0 {
                    *word = value;
                }
            }
            if present >> index & 1 != 0 {
                // Legal, and never the initial value.
                let first = &mut all.0[index][0];
                *first = (*first & component.legal) ^ (seed & component.legal);
                all.0[index][1] |= 1;
            }
        }
        all
    }
    /// One component's words.
    #[must_use]
    pub fn component(&self, index: usize) -> &[u64] {
        &self.0[index][..LAYOUT[index].words]
    }
    /// One component's words, to be changed.
    #[must_use]
    pub fn component_mut(&mut self, index: usize) -> &mut [u64] {
        &mut self.0[index][..LAYOUT[index].words]
    }
    /// The components that are not in their initial state.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        let initial = Self::initial();
        (0..COMPONENTS)
            .filter(|&c| self.component(c) != initial.component(c))
            .fold(0, |set, c| set | 1 << c)
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let initial = Self::initial();
        let mut map = f.debug_map();
        for (index, component) in LAYOUT.iter().enumerate() {
            let words = self.component(index);
            if words == initial.component(index) {
                map.entry(&component.name, &"initial");
            } else {
                map.entry(&component.name, &format_args!("{:x?}..", &words[..2]));
            }
        }
        map.finish()
    }
}

/// A word of an image. The memory of images is accessed atomically, so that a simulated kernel that
/// breaks K5 (one task on two CPUs, even on two threads) sees wrong values and nothing worse.
///
/// # Safety
///
/// Valid area (C9), and `index` inside the area.
unsafe fn word<'a>(area: NonNull<u8>, index: usize) -> &'a AtomicU64 {
    let word = area.cast::<u64>().as_ptr().wrapping_add(index);
    // SAFETY: the caller's C9: valid while the caller uses it, aligned to 64; all accesses are atomic.
    unsafe { AtomicU64::from_ptr(word) }
}
/// # Safety
///
/// As for `word`.
pub(super) unsafe fn get(area: NonNull<u8>, index: usize) -> u64 {
    // SAFETY: the caller's.
    unsafe { word(area, index) }.load(Ordering::Relaxed)
}
/// # Safety
///
/// As for `word`.
pub(super) unsafe fn put(area: NonNull<u8>, index: usize, value: u64) {
    // SAFETY: the caller's.
    unsafe { word(area, index) }.store(value, Ordering::Relaxed);
}
