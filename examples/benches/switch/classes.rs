//! Tasks by what of the registers is in use.

use fpu_hosted_test::Random;
use fpu_x86::{Components, ImageError, ImageMut};

use crate::owned::Owned;
use crate::ways::{Make, Tasks, TASKS};

/// What a task's registers hold; all else is initial, and said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Initial,
    /// A task of that kind, beside one with AVX in use.
    InitialBesideAvx,
    Sse,
    /// The same under a plan of x87 and SSE.
    SmallPlan,
    Avx,
    /// Once AVX-512: mask registers and ZMM16-31, as library functions with EVEX strings leave them.
    Once512,
    Avx512,
}

impl Class {
    pub const ALL: [Self; 7] = [
        Self::Initial,
        Self::InitialBesideAvx,
        Self::Sse,
        Self::SmallPlan,
        Self::Avx,
        Self::Once512,
        Self::Avx512,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Initial => "nothing",
            Self::InitialBesideAvx => "nothing beside AVX",
            Self::Sse => "SSE",
            Self::SmallPlan => "SSE in a small plan",
            Self::Avx => "AVX",
            Self::Once512 => "once AVX-512",
            Self::Avx512 => "AVX-512",
        }
    }
    /// What a plan must have for it.
    pub fn needs(self) -> Components {
        match self {
            Self::Initial | Self::Sse | Self::SmallPlan => Components::LEGACY,
            Self::Avx | Self::InitialBesideAvx => Components::LEGACY | Components::AVX,
            Self::Once512 | Self::Avx512 => {
                Components::LEGACY | Components::AVX | Components::AVX512
            }
        }
    }
    /// Makes the image of a task one of this class; the same values whatever the way.
    pub fn write(self, image: &mut ImageMut<'_>, task: usize) -> Result<(), ImageError> {
        let mut words = Random::new(1 + task as u64);
        let mut bytes = |n: usize| -> [u8; 64] {
            let mut all = [0; 64];
            for byte in &mut all[..n] {
                *byte = words.word() as u8 | 1;
            }
            all
        };
        let first = |all: [u8; 64]| <[u8; 16]>::try_from(&all[..16]).unwrap_or_default();
        if self == Self::Initial {
            return Ok(());
        }
        for n in 0..16 {
            image.set_xmm(n, first(bytes(16)))?;
            if matches!(self, Self::Avx | Self::Avx512) {
                image.set_ymm_hi(n, first(bytes(16)))?;
            }
        }
        if matches!(self, Self::Once512 | Self::Avx512) {
            for n in 0..8 {
                image.set_opmask(n, u64::from(bytes(1)[0]))?;
            }
            for n in 0..16 {
                image.set_zmm_hi16(16 + n, bytes(64))?;
                if self == Self::Avx512 {
                    let all = bytes(32);
                    image.set_zmm_hi256(n, <[u8; 32]>::try_from(&all[..32]).unwrap_or([1; 32]))?;
                }
            }
        }
        Ok(())
    }
    /// What of the two a task has.
    fn of(self, task: usize) -> Self {
        match self {
            Self::InitialBesideAvx if task == 1 => Self::Avx,
            Self::InitialBesideAvx => Self::Initial,
            _ => self,
        }
    }
    /// As [`give`](Self::give), for contexts that a CPU owns.
    pub fn give_owned(self, owned: &Owned) -> Result<(), Box<dyn std::error::Error>> {
        for (task, bound) in owned.bound.iter().enumerate() {
            bound.reset(&mut owned.cpu())?;
            let mut cpu = owned.cpu();
            let mut session = bound.open(&mut cpu)?.make_memory_valid_write();
            self.of(task).write(&mut session.image_mut(), task)?;
        }
        Ok(())
    }
    /// Makes the tasks' images of this class.
    pub fn give<A: Make>(self, tasks: &Tasks<A>) -> Result<(), Box<dyn std::error::Error>> {
        for task in 0..TASKS {
            let mut cpu = tasks.cpu(0);
            tasks.tasks[task].reset(&mut cpu)?;
            let session = tasks.tasks[task].open(&mut cpu)?;
            let mut session = session.make_memory_valid_write();
            let class = self.of(task);
            class.write(&mut session.image_mut(), task)?;
        }
        Ok(())
    }
}
