//! What a session and a reset hold: this CPU, closed to every other user of its registers.

use crate::{
    residency::{close, gate, reopen},
    Error, Pinned,
};

/// A CPU on which nobody else can use the registers, until drop. A forgotten one leaves the CPU
/// refusing with [`Error::Busy`], nothing worse.
pub(crate) struct ClosedCpu<'c, C: Pinned> {
    cpu: &'c mut C,
    /// The word to reopen with.
    pub(crate) resident: u64,
}

impl<'c, C: Pinned> ClosedCpu<'c, C> {
    #[inline]
    pub(crate) fn new(cpu: &'c mut C) -> Result<Self, Error> {
        let resident = close(cpu, gate::SESSION)?;
        Ok(Self { cpu, resident })
    }
    pub(crate) fn cpu(&self) -> &C {
        self.cpu
    }
    /// Opens, and gives the witness back.
    pub(crate) fn into_cpu(self) -> &'c mut C {
        reopen(self.cpu.words(), self.resident);
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: rests on no duty: moves the reference out of a value that is neither dropped nor used
        // again.
        unsafe { core::ptr::read(&this.cpu) }
    }
}

impl<C: Pinned> Drop for ClosedCpu<'_, C> {
    #[inline]
    fn drop(&mut self) {
        reopen(self.cpu.words(), self.resident);
    }
}
