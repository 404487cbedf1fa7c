//! Foreign images against this CPU: what validation accepts is restored into the real registers, and
//! what they then hold is compared with the bytes, read here without the code under test.

use std::{arch::x86_64::__cpuid_count, ptr::NonNull};

use fpu_core::{RawFpu, RestoreFault};
use fpu_x86::{Components, ForeignError, ForeignImage, Format, Plan};

use super::{Classes, RealHarness, RegFile, Seen};
use crate::conformance::{Harness, Step};

const HEADER: usize = 512;
const LARGEST: usize = 16384;

/// Memory for an image of any plan.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Memory([u8; LARGEST]);

impl Memory {
    /// An initial image of the plan.
    pub(super) fn initial(plan: &Plan) -> Box<Self> {
        assert!(plan.area_len() <= LARGEST);
        let mut memory = Box::new(Self([0; LARGEST]));
        // SAFETY: C9: aligned, long enough, ours.
        unsafe { plan.write_initial(memory.base()) };
        memory
    }
    pub(super) fn base(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.0).cast()
    }
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// An image with something in every component.
pub(super) fn held(plan: &Plan) -> Box<Memory> {
    let mut memory = Memory::initial(plan);
    fill(plan, plan.components().bits(), &mut memory, |bytes| bytes.fill(0x55));
    memory
}

/// Values for these components, a fixed one where not every value is legal, in an area that then holds an image.
pub(super) fn fill(
    plan: &Plan,
    present: u64,
    memory: &mut Memory,
    mut value: impl FnMut(&mut [u8]),
) {
    // SAFETY: C9: aligned, long enough, ours.
    unsafe { plan.write_initial(memory.base()) };
    let places: Vec<_> = plan
        .components()
        .iter()
        .filter_map(|component| plan.place(component).map(|place| (component, place)))
        .filter(|(_, (offset, _))| *offset >= HEADER)
        .collect();
    let bytes = memory.bytes();
    value(&mut bytes[..24]);
    value(&mut bytes[32..416]);
    let mut mxcsr = [0; 4];
    value(&mut mxcsr);
    bytes[24..28].copy_from_slice(&(u32::from_le_bytes(mxcsr) & plan.mxcsr_mask()).to_le_bytes());
    for (component, (offset, size)) in places {
        let place = &mut bytes[offset..offset + size];
        match component {
            // Enabled, and where the directory lies; what the last fault was.
            Components::BNDCSR => (place[0], place[1], place[8]) = (3, 0x70, 1),
            // One tile of 16 rows of 64 bytes.
            Components::TILECFG => (place[0], place[16], place[48]) = (1, 64, 16),
            Components::TILEDATA => {}
            _ => value(place),
        }
    }
    if plan.format() != Format::Legacy {
        // Of tiles a task has only the configuration.
        let present = present & !Components::TILEDATA.bits();
        bytes[HEADER..HEADER + 8].copy_from_slice(&present.to_le_bytes());
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

/// What the registers are to hold after a restore of `bytes`, which are in the standard format or
/// FXSAVE's, by the SDM and CPUID's own offsets.
///
/// ```
/// use fpu_hosted_test::real::{decode, Classes};
/// let mut fxsave = [0; 512];
/// fxsave[160] = 7;
/// assert_eq!(decode(&fxsave, Classes::BASE).vector(0)[0], 7);
/// ```
#[must_use]
pub fn decode(bytes: &[u8], classes: Classes) -> RegFile {
    let mut file = RegFile::initial(classes);
    let present = if bytes.len() > HEADER { word(bytes, HEADER) } else { 0b11 };
    // Loaded whatever XSTATE_BV says.
    file.set_mxcsr(word(bytes, 24) as u32);
    if present & 1 != 0 {
        let first = word(bytes, 0);
        file.set_fcw(first as u16);
        file.set_fsw((first >> 16) as u16);
        file.set_ftw((first >> 32) as u8);
        for n in 0..8 {
            let at = 32 + 16 * n;
            file.set_x87(n, word(bytes, at), word(bytes, at + 8) as u16);
        }
    }
    // Component, first register, registers, first word and words of each.
    let parts = [(1, 0, 16, 0, 2), (2, 0, 16, 2, 2), (6, 0, 16, 4, 4), (7, 16, 16, 0, 8)];
    for (component, first, registers, from, words) in parts {
        if present >> component & 1 == 0 {
            continue;
        }
        let start = place(component);
        for n in 0..registers {
            for w in 0..words {
                file.vector_mut(first + n)[from + w] = word(bytes, start + 8 * (n * words + w));
            }
        }
    }
    if present >> 5 & 1 != 0 {
        for n in 0..8 {
            *file.mask_mut(n) = word(bytes, place(5) + 8 * n);
        }
    }
    file
}

/// Where a component begins in the standard format.
fn place(component: u32) -> usize {
    match component {
        1 => 160,
        // The instruction is there; SSE2 has it. Unsafe in older compilers.
        #[allow(unused_unsafe)]
        // SAFETY: every 64-bit CPU has CPUID.
        number => unsafe { __cpuid_count(0xD, number) }.ebx as usize,
    }
}

/// The bits of the x87 control and status words that hold anything: some CPUs fix the others, and the
/// summary bits are computed (SDM vol. 1, 8.1.3 and 8.1.5).
///
/// ```
/// use fpu_hosted_test::real::{settled, Classes, RegFile};
/// let mut file = RegFile::initial(Classes::BASE);
/// file.set_fsw(0x8080);
/// assert_eq!(settled(file).fsw(), 0);
/// ```
#[must_use]
pub fn settled(mut file: RegFile) -> RegFile {
    file.set_fcw(file.fcw() & 0x1F3F);
    file.set_fsw(file.fsw() & !0x8080);
    file
}

/// Validation and the registers, for the plan of one rung.
#[derive(Debug)]
pub struct ForeignBench {
    harness: RealHarness,
    other: Seen,
    private: Vec<u8>,
    target: Box<Memory>,
    before: Box<Memory>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl ForeignBench {
    /// A bench for every rung that this CPU offers.
    ///
    /// ```
    /// use fpu_hosted_test::real::ForeignBench;
    /// let benches = ForeignBench::all();
    /// assert!(!benches.is_empty());
    /// ```
    #[must_use]
    pub fn all() -> Vec<Self> {
        RealHarness::rungs().0.into_iter().map(Self::new).collect()
    }

    fn new(mut harness: RealHarness) -> Self {
        assert!(harness.fpu().area_len() <= LARGEST);
        let every = (1 << harness.components()) - 1;
        let (held, other) = (harness.pattern(71, every), harness.pattern(72, every));
        let mut target = Box::new(Memory([0; LARGEST]));
        // SAFETY: C9: aligned, long enough, ours.
        unsafe { harness.fpu().write_initial(target.base()) };
        // SAFETY: valid area (C9).
        unsafe { harness.run(&[Step::Load(&held), Step::Save(target.base())]) };
        let before = Box::new(Memory(target.0));
        let private = vec![0; harness.fpu().foreign_len()];
        Self { harness, other, private, target, before }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.harness.fpu()
    }

    /// Puts foreign bytes into an image that held something else, and the image into the registers.
    ///
    /// # Errors
    ///
    /// The bytes were refused; the image still holds what it held.
    ///
    /// # Panics
    ///
    /// If accepted bytes made the restore fault, or the registers are not what the bytes say; or if
    /// refused bytes changed the image.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), ForeignError> {
        let len = self.harness.fpu().area_len();
        self.target.0[..len].copy_from_slice(&self.before.0[..len]);
        if let Err(why) = self.replace(bytes) {
            assert!(self.target.0[..len] == self.before.0[..len], "{why}: the image was changed");
            return Err(why);
        }
        let area = self.target.base();
        let steps = [Step::Load(&self.other), Step::Restore(area)];
        // SAFETY: C9: the target.
        let outcome = unsafe { self.harness.run(&steps) };
        assert_eq!(
            outcome.restored,
            Ok(()),
            "{:?} refused accepted bytes",
            self.plan().save_instruction()
        );
        let expected = settled(decode(bytes, self.harness.classes()));
        let got = settled(outcome.registers.0);
        if let Some(register) = expected.first_difference(&got) {
            let (expected, got) = (register.value(&expected), register.value(&got));
            panic!(
                "{:?}: {register} is {got:#x}, not {expected:#x}",
                self.plan().save_instruction()
            );
        }
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), ForeignError> {
        let plan = self.harness.fpu();
        let valid = ForeignImage::copy(bytes, &mut self.private)?.validate(plan)?;
        // SAFETY: C9, C11: the target is ours and holds an image.
        let mut image = unsafe { plan.image_mut(self.target.base()) };
        image.replace_with(&valid).expect("validated with this plan");
        let (from, to) = (valid.image(), image.as_image());
        assert_eq!((from.x87(), from.mxcsr()), (to.x87(), to.mxcsr()));
        Ok(())
    }

    /// What the CPU itself says to the same bytes, given to it without a check.
    ///
    /// # Errors
    ///
    /// It refuses them.
    pub fn ask_the_cpu(&mut self, bytes: &[u8]) -> Result<(), RestoreFault> {
        let mut memory = Box::new(Memory([0; LARGEST]));
        let len = bytes.len().min(LARGEST);
        memory.0[..len].copy_from_slice(&bytes[..len]);
        // SAFETY: C9: aligned, long enough, ours. What the backend did not write may be refused, which is
        // asked here.
        unsafe { self.harness.run(&[Step::Restore(memory.base())]) }.restored
    }
}

/// What the fuzzer does with an input: it is an image, for the plan of every rung. Returns how many accept
/// it.
///
/// ```
/// use fpu_hosted_test::real::{fuzz_foreign, ForeignBench};
/// assert_eq!(fuzz_foreign(&mut ForeignBench::all(), &[1, 2, 3]), 0);
/// ```
///
/// # Panics
///
/// As [`ForeignBench::check`].
pub fn fuzz_foreign(benches: &mut [ForeignBench], bytes: &[u8]) -> usize {
    benches.iter_mut().filter_map(|bench| bench.check(bytes).ok()).count()
}
