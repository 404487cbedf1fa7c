//! For kernels that restore inside the switch: those without user mode, and those whose return to it is assembly.
//! Also a thread that ran before there were contexts, and gets one.

use crate::{
    area::SaveArea,
    backend::RawFpu,
    error::{Error, SwitchError},
    observe::EventKind,
    protocol::{
        closed::Closed,
        cpu_word::gate,
        steps::{self, FpuRef},
    },
    task::TaskFpu,
    witness::{Exclusive, Pinned, SoftFloat},
};

impl<B: RawFpu, A: SaveArea> TaskFpu<B, A> {
    /// [`switch_return`](Self::switch_return) inside the switch: loads this task's registers, unless the CPU still
    /// holds them. For kernels whose return to user mode is assembly, or that have no user mode
    /// ([`switch`](crate::switch()) does both halves).
    ///
    /// The registers are the task's until other code uses them: a section, a persistent context, another task, a session
    /// that writes the image. A section in an interrupt is enough. Such code saves the task and ends its claim,
    /// and does not load it again. So one of two things holds:
    ///
    /// * from this call to the task's next instruction interrupts stay off, and nothing on this CPU calls into the crate; or
    /// * the last step before the task's next instruction, interrupts off, is this call once more. Where nothing
    ///   came between, it loads two words, compares them, and moves no registers. A kernel without user
    ///   mode does so at the end of each interrupt. There [`Error::Busy`] says that the interrupt has struck inside another
    ///   call into this crate: nothing is loaded, and the handler returns to that call.
    ///
    /// [`switch_return`](Self::switch_return) says the same by its value, which `enter_user` takes. Use that one
    /// wherever the way to user mode can carry a value.
    ///
    /// # Errors
    ///
    /// As for [`switch_return`](Self::switch_return). After any of them the task must not run, but for `Busy` at the end of an
    /// interrupt (above).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// task.switch_in(&mut cpu)?;          // in the switch: loads
    /// cpu.with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || ())?; // an interrupt's section
    /// task.switch_in(&mut cpu)?;          // on the return path, interrupts off: loads again
    /// task.switch_in(&mut cpu)?;          // nothing came between: moves nothing
    /// assert_eq!((cpu.totals().saved, cpu.totals().restored), (1, 2));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "switch_fpu_finish")]
    #[inline]
    pub fn switch_in<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        steps::enter(self.context(), cpu, drop)
    }

    /// Takes this CPU's registers, as they are, for the state of this context (state 1). For a thread that has run
    /// without a context until now, as the boot thread has.
    ///
    /// The context is current here from now on, and is saved when it is switched out. Whatever its memory held is
    /// given up, and so is every earlier claim on it and on these registers.
    ///
    /// # Errors
    ///
    /// [`Error::CpuOffline`], [`Error::Busy`], [`Error::Exhausted`]: nothing has changed.
    /// [`Error::RestoreFailed`]: the backend could not [make the registers this context's](RawFpu::adopt), and they are unowned.
    ///
    /// # Safety
    ///
    /// * **C37** what the registers hold is the state of this context's task, and is no other context's state unless
    ///   that one has been saved.
    /// * **C38** if an image was restored on this CPU from this context's area, the last such restore loaded what is
    ///   in memory now, and the area stays at its address until it has been saved to: that save may leave out what has not changed
    ///   since a restore from its address (B7). An area from which this CPU has restored nothing, under this context or an
    ///   earlier owner, meets the first half.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, boot) = cpu_and_task();
    /// cpu.set_avx0(7); // the thread that boots computes
    /// // SAFETY: C37: no context has been loaded here. C38: nor from this area.
    /// unsafe { boot.adopt(&mut cpu)? };
    /// boot.switch_prepare(&cpu)?;               // to another thread, which
    /// new_task().switch_in(&mut cpu)?;          // uses the registers
    /// boot.switch_in(&mut cpu)?;
    /// assert_eq!(cpu.avx0(), 7);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub unsafe fn adopt<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Exclusive + Pinned<Backend = B>,
    {
        let mut closed = Closed::new(cpu, gate::SESSION)?;
        // The context whose state the registers held no longer matches; by C37 its state is saved.
        closed.drop_claims();
        // SAFETY: C9: checked in `new`; current here (K5). C10: pinned (K2), this CPU is closed, and what is in the
        // registers is this context's (C37).
        if let Err(why) = unsafe { closed.cpu().backend().adopt(self.base()) } {
            return Err(Error::RestoreFailed(why));
        }
        self.word.mark_live(closed.stamp());
        self.tell(closed.cpu(), EventKind::Loaded);
        Ok(())
    }
}

/// A whole switch, for kernels that have both tasks at hand: saves `prev` if that is due, and makes the registers
/// `next`'s. `None` is a thread that does not use the registers, as idle: then nothing is saved, or nothing is loaded
/// and the registers keep `prev`'s claim.
///
/// It is [`switch_prepare`](TaskFpu::switch_prepare) of `prev` and [`switch_in`](TaskFpu::switch_in) of `next`, with
/// what is said there of the time until `next` runs. If both are one context, nothing is saved. The kernel calls
/// it before it switches stacks, drops the witness, and makes a new one where `next` goes on (K2).
///
/// # Errors
///
/// [`SwitchError::Prev`]: nothing has changed, and `next` was not looked at. [`SwitchError::Next`]: `prev` is
/// switched out, and `next` must not run. The kernel can go on with `prev`: `switch(None, prev, cpu)`.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::switch;
/// # let (mut cpu, a) = cpu_and_task();
/// # let b = new_task();
/// switch(None, Some(a.context()), &mut cpu)?;                 // loads a
/// switch(Some(a.context()), Some(b.context()), &mut cpu)?;    // saves a, loads b
/// switch(Some(b.context()), None, &mut cpu)?;                 // to idle: saves b
/// switch(None, Some(b.context()), &mut cpu)?;                 // the registers still hold b
/// assert_eq!((cpu.totals().saved, cpu.totals().restored, cpu.totals().skipped), (2, 2, 1));
/// # Ok::<(), fpu_core::SwitchError>(())
/// ```
#[doc(alias = "switch_fpu")]
#[doc(alias = "__switch_to")]
#[inline]
pub fn switch<C>(
    prev: Option<FpuRef<'_, C::Backend>>,
    next: Option<FpuRef<'_, C::Backend>>,
    cpu: &mut C,
) -> Result<(), SwitchError>
where
    C: Exclusive + SoftFloat,
{
    let stays = |prev: &FpuRef<'_, C::Backend>| {
        next.is_some_and(|next| core::ptr::eq(next.word, prev.word))
    };
    if let Some(prev) = prev.filter(|prev| !stays(prev)) {
        steps::leave(prev, cpu).map_err(SwitchError::Prev)?;
    }
    if let Some(next) = next {
        steps::enter(next, cpu, drop).map_err(SwitchError::Next)?;
    }
    Ok(())
}
