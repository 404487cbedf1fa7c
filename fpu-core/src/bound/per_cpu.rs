//! A CPU's bound contexts, and the save that was deferred.

use core::{cell::Cell, fmt, marker::PhantomData, ptr};

use super::slot::BoundSlot;

use crate::{
    area::SaveArea,
    backend::RawFpu,
    error::Error,
    observe::EventKind,
    protocol::{
        closed::refuse_unless_open,
        cpu_word::Stamp,
        steps::{self, FpuRef},
        word::Word,
    },
    sync::{Ordering, Own},
    witness::{Asked, Exclusive, Pinned, Settle, SoftFloat},
};

/// One CPU's bound contexts, which it owns: contexts of tasks that never leave this CPU (of a unikernel, of a kernel with a
/// scheduler for each core, of a pinned thread).
///
/// A [`TaskFpu`](crate::TaskFpu) is saved each time its task leaves the CPU, because another CPU may want it next. A [`BoundFpu`](crate::BoundFpu)
/// is not: the task leaves without a call, and its registers stay as they are. Whatever needs the
/// registers on this CPU saves the context first: another context's load, bound or not; a section; a
/// [persistent context](crate::KernelFpu::run_guest); [`fpu_offline`](crate::CpuLifecycle::fpu_offline);
/// [`fpu_idle`](crate::CpuLifecycle::fpu_idle) with registers to give up; a [session](crate::BoundFpu::open);
/// [`unbind`](crate::BoundFpu::unbind). A task that comes back before any of these finds its registers, by one comparison, and
/// nothing is moved.
///
/// *Who should use it:* kernels whose tasks cannot move at all. A task that is to run on another CPU must first be unbound by a
/// call on this CPU; if that takes an interrupt to this CPU, a few of a hundred wakes suffice to lose more than the save
/// costs. What comes between should have no context, or be [trapped](crate::trap): another bound context takes the registers even if
/// its task never computes.
///
/// # The witness names it
///
/// Each witness type of the kernel has the `bound` line in [`witness!`](crate::witness), or
/// [`Pinned::settle`] written by hand. [`bind`](Self::bind) refuses a witness that does not
/// ([`Error::NotNamed`]). Under a witness without it a call saves no bound context; a context that was live then reports
/// [`Error::Lost`] at its next use, never another's registers.
///
/// Calls that may come *after* the registers have changed do not save, as the save would store what replaced them:
/// [`invalidate_registers`](crate::CpuLifecycle::invalidate_registers), [`fpu_resume`](crate::CpuLifecycle::fpu_resume),
/// [`adopt`](crate::TaskFpu::adopt). Before what these calls are about, firmware for example, the kernel calls
/// [`settle`](Self::settle). So it does before the functions of [`raw`](crate::raw), which get no witness.
///
/// A kernel with [trapped](crate::trap) contexts calls nothing that could carry out a save while the trap is armed (K23).
///
/// A context stays bound to the CPU's number. Before the kernel gives the CPU another number ([`Error::Exhausted`]), it
/// [unbinds](crate::BoundFpu::unbind) its contexts; later no call reaches them.
///
/// # Memory
///
/// The array is inline, as many [slots](BoundSlot) as the kernel chooses; the parameter `S` is their array, and `&BoundCpu<B, A>` is
/// what `&BoundCpu<B, A, [BoundSlot<B, A>; N]>` coerces to. All calls but [`new`](Self::new) are methods of the first, and a method call
/// does not coerce: `CPU0.bind(..)` finds no method, so the kernel has a function that returns the first. The value is not moved while a context is
/// bound, as that context borrows it. It is `Sync`, so that it can be a static; calls with another CPU's witness are
/// refused with [`Error::BoundElsewhere`]. It is aligned to 64 bytes, so that in an array of all CPUs' no two share a cache line.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::{BoundCpu, BoundSlot};
/// // One for each CPU number.
/// static CPU0: BoundCpu<Backend, Area, [BoundSlot<Backend, Area>; 4]> = BoundCpu::new(0);
/// # let _ = &CPU0;
/// # let mut cpu = online_cpu();
/// let bound = this_cpu_bound(); // what the witness names
/// let task = bound.bind(new_task(), &mut cpu).map_err(|refused| refused.why)?;
/// drop(task.switch_return(&mut cpu)?); // loads
/// cpu.set_avx0(7);                     // user mode
/// drop(task.switch_return(&mut cpu)?); // idle ran meanwhile: one comparison
/// assert_eq!((cpu.totals().saved, cpu.totals().restored), (0, 1));
///
/// cpu.with_kernel_fpu(None, KernelUnits::ALL, || ())?; // saves it first
/// drop(task.switch_return(&mut cpu)?);                 // loads
/// assert_eq!((cpu.avx0(), cpu.totals().saved, cpu.totals().restored), (7, 1, 2));
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[doc(alias = "fpu_owner_task")]
#[doc(alias = "fpu_lazy_restore")]
#[repr(C, align(64))]
pub struct BoundCpu<B, A, S: ?Sized = [BoundSlot<B, A>]> {
    /// The slot of the context that was loaded last. Stored on this CPU only.
    pub(super) last: Own,
    pub(super) number: u32,
    contexts: PhantomData<fn(&B) -> A>,
    slots: S,
}

impl<B, A, const N: usize> BoundCpu<B, A, [BoundSlot<B, A>; N]> {
    /// That of the CPU with this [number](crate::CpuLifecycle::fpu_online), without a context.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::{Area, Backend};
    /// use fpu_core::{BoundCpu, BoundSlot};
    /// static CPU3: BoundCpu<Backend, Area, [BoundSlot<Backend, Area>; 2]> = BoundCpu::new(3);
    /// let any_number_of_slots: &BoundCpu<Backend, Area> = &CPU3;
    /// # let _ = any_number_of_slots;
    /// ```
    #[must_use]
    pub const fn new(number: u32) -> Self {
        let slots = [BoundSlot::<B, A>::EMPTY; N];
        Self { last: Own::new(0), number, contexts: PhantomData, slots }
    }
}

impl<B: RawFpu, A: SaveArea> BoundCpu<B, A> {
    /// A slot for another context on this CPU, which is this array's, and whose witness names the array.
    pub(super) fn free_slot<C>(&self, cpu: &C) -> Result<(u64, &BoundSlot<B, A>), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        refuse_unless_open(cpu.words(), self.number)?;
        let named = Cell::new(ptr::null());
        cpu.settle(Settle(Asked::Which(&named)));
        if !ptr::eq(named.get(), self.address()) {
            return Err(Error::NotNamed);
        }
        let mut slots = (0..).zip(self.slots.iter());
        slots.find(|(_, slot)| !slot.is_taken()).ok_or(Error::NoSlot)
    }

    /// Saves the context whose save is deferred, if there is one: before code that is not this crate's takes the registers, or
    /// before they lose their contents.
    ///
    /// # Errors
    ///
    /// [`Error::BoundElsewhere`], [`Error::CpuOffline`], [`Error::Busy`]: nothing was saved.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = online_cpu();
    /// let task = this_cpu_bound().bind(new_task(), &mut cpu).map_err(|refused| refused.why)?;
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// this_cpu_bound().settle(&mut cpu)?;
    /// cpu.invalidate_registers()?; // firmware uses them now
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 7);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu_flush_owner")]
    pub fn settle<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = B>,
    {
        refuse_unless_open(cpu.words(), self.number)?;
        self.settle_due(cpu, Settle::NOW);
        Ok(())
    }

    /// Answers [`Pinned::settle`], which passes its argument on. Nothing else can call it, as only the crate makes that
    /// argument.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// fn passes_it_on(cpu: &Cpu, due: fpu_core::Settle<'_>) {
    ///     this_cpu_bound().settle_due(cpu, due);
    /// }
    /// # let _ = passes_it_on;
    /// ```
    #[inline]
    pub fn settle_due<C>(&self, cpu: &C, due: Settle<'_>)
    where
        C: SoftFloat + Pinned<Backend = B>,
    {
        let stamp = match due.0 {
            Asked::Now => Stamp::of(cpu.words()),
            Asked::Under(bits) => Stamp::from_bits(bits),
            Asked::Which(asks) => return asks.set(self.address()),
        };
        // Another CPU's slots are not for this one to look at.
        if !stamp.is_of(self.number) {
            return;
        }
        let Some(context) = self.loaded_last() else { return };
        if context.word.peek().is_live_under(stamp) {
            // SAFETY: C19: checked in `TaskFpu::new`; bound to this CPU, whose number the stamp has. C20: the CPU is closed and
            // has kept this stamp since (`Under`), or is open and exclusive (K8) (`Now`). C21: compared just now.
            unsafe { steps::save(context, cpu, Word::both(stamp)) };
            context.tell(cpu, EventKind::Unloaded);
        }
    }

    /// The only context of this array that this CPU's registers can be the only copy of, if it still has a handle.
    #[inline]
    fn loaded_last(&self) -> Option<FpuRef<'_, B>> {
        let slot = self.slots.get(self.last.load(Ordering::Relaxed) as usize)?;
        if !slot.is_taken() {
            return None;
        }
        // SAFETY: rests on own array: the slot is taken, so it has a context. A slot is emptied only by calls on this CPU
        // that refuse a closed one and are `Exclusive`, so none comes before the caller is done.
        Some(unsafe { slot.task() }.context())
    }

    fn address(&self) -> *const () {
        ptr::addr_of!(self.last).cast()
    }
}

impl<B, A, S: ?Sized> fmt::Debug for BoundCpu<B, A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoundCpu {{ number: {} }}", self.number)
    }
}
