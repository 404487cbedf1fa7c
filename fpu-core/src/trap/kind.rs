//! The calls that [`Trapped`](super::Trapped) makes on the context that it holds.

use crate::{
    area::SaveArea,
    backend::{KernelUnits, RawFpu, TheBackend},
    bound::BoundFpu,
    error::Error,
    protocol::{closed::Closed, cpu_word::gate, steps},
    section::{decide, saved, Section},
    task::TaskFpu,
    witness::{Exclusive, Pinned, SoftFloat},
};

/// A type of contexts, as [`Trapped`](super::Trapped) drives it. Outside this crate nothing can name it.
pub trait Steps: Sized {
    /// The kernel's backend.
    type Backend: RawFpu;

    /// Makes it a context in the initial state, in memory only, whatever it was.
    fn begin_anew(&mut self, backend: &TheBackend<Self::Backend>);
    /// Switches the context out.
    fn leave<C>(&self, cpu: &C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = Self::Backend>;
    /// Makes the registers the context's.
    fn enter<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = Self::Backend>;
    /// Begins a section. Once the CPU is closed, and before the first instruction that moves registers, `is_held` says
    /// whether the context is to be saved as the current one, or has no registers.
    fn section<'c, C>(
        &self,
        cpu: &'c mut C,
        units: KernelUnits,
        is_held: impl FnOnce(&C) -> Result<bool, Error>,
    ) -> Result<Section<'c, C>, Error>
    where
        C: SoftFloat + Pinned<Backend = Self::Backend>;
    /// Back to the initial state, in memory only.
    fn reset<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Pinned<Backend = Self::Backend>;
}

impl<B: RawFpu, A: SaveArea> Steps for TaskFpu<B, A> {
    type Backend = B;

    fn begin_anew(&mut self, backend: &TheBackend<B>) {
        self.word.mark_nowhere();
        // SAFETY: C9: checked in `TaskFpu::new` against this backend (K1), and the context is borrowed exclusively.
        unsafe { backend.write_initial(self.base()) };
    }

    #[inline(always)]
    fn leave<C>(&self, cpu: &C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        steps::leave(self.context(), cpu)
    }

    #[inline(always)]
    fn enter<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        steps::enter(self.context(), cpu, drop)
    }

    fn section<'c, C>(
        &self,
        cpu: &'c mut C,
        units: KernelUnits,
        is_held: impl FnOnce(&C) -> Result<bool, Error>,
    ) -> Result<Section<'c, C>, Error>
    where
        C: SoftFloat + Pinned<Backend = B>,
    {
        let closed = Closed::new(cpu, gate::SECTION)?;
        let current = is_held(closed.cpu())?.then(|| self.context());
        let closed = saved(decide(closed, current)?);
        // SAFETY: soft-float (K9); the context has been saved just now, if a save was due.
        Ok(unsafe { Section::begin(closed, units) })
    }

    fn reset<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Pinned<Backend = B>,
    {
        TaskFpu::reset(self, cpu)
    }
}

impl<B: RawFpu, A: SaveArea> Steps for BoundFpu<'_, B, A> {
    type Backend = B;

    fn begin_anew(&mut self, backend: &TheBackend<B>) {
        let (context, _) = self.parts();
        // From here on no deferred save to the area is due.
        context.word.mark_nowhere();
        // SAFETY: C9: checked in `TaskFpu::new` against this backend (K1). The handle, which stays on its CPU, is borrowed
        // exclusively; the CPU saves only a context that is live, and no save of this one is under way (K23).
        unsafe { backend.write_initial(context.base()) };
    }

    #[inline(always)]
    fn leave<C>(&self, _: &C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        // Its save is deferred.
        Ok(())
    }

    #[inline(always)]
    fn enter<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        self.switch_in(cpu)
    }

    fn section<'c, C>(
        &self,
        cpu: &'c mut C,
        units: KernelUnits,
        is_held: impl FnOnce(&C) -> Result<bool, Error>,
    ) -> Result<Section<'c, C>, Error>
    where
        C: SoftFloat + Pinned<Backend = B>,
    {
        let closed = Closed::new(cpu, gate::SECTION)?;
        let (_, number) = self.parts();
        if !closed.stamp().is_of(number) {
            return Err(Error::BoundElsewhere { cpu: number });
        }
        // Held or not: the section saves whichever bound context the registers hold.
        is_held(closed.cpu())?;
        // SAFETY: soft-float (K9); a bound context has no other save.
        Ok(unsafe { Section::begin(closed, units) })
    }

    fn reset<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Pinned<Backend = B>,
    {
        BoundFpu::reset(self, cpu)
    }
}
