//! A static for the plan: set once at boot, then read without a check.

use core::{
    cell::UnsafeCell,
    fmt,
    mem::MaybeUninit,
    sync::atomic::{AtomicU8, Ordering},
};

use super::Plan;
use fpu_core::TheBackend;

const EMPTY: u8 = 0;
/// One caller writes.
const TAKEN: u8 = 1;
/// It has been written, and never changes again.
const SET: u8 = 2;

/// The place of a kernel's one backend: a static that is empty until the kernel sets it, at boot and once.
///
/// The backend is a [`Plan`], or a type of the kernel's own that holds one.
///
/// A [`Pinned`](fpu_core::Pinned) witness is asked for the backend in every save and restore. A cell that
/// looks there whether it has been set costs a load, a compare and a path that panics each time. [`assume_set`] does
/// not look: it is the address of the static. `cargo suite --only object` counts the instructions of a switch through
/// it, which may not be more than through a plain reference.
///
/// Reading without a look is sound because the memory is written once, before anybody reads it:
///
/// * [`set`] takes the cell by a compare-and-swap that succeeds for one caller only. Nothing ever gives the cell back, so
///   that caller's write is the only one, and no `&mut` to the contents exists after it.
/// * [`set`] and [`get`] hand out a reference after that write: `set` has just done it, and `get` has seen, by an
///   acquiring load, what `set` stored with release.
/// * [`assume_set`] has no proof of its own. Its duty C25 says that the write comes before; a kernel that makes its
///   witnesses after the boot CPU has set the cell, and starts other CPUs after that, keeps that duty without more.
///
/// [`set`]: Self::set
/// [`get`]: Self::get
/// [`assume_set`]: Self::assume_set
///
/// ```
/// use core::marker::PhantomData;
/// use fpu_core::{CpuFpu, Pinned, TheBackend};
/// use fpu_x86::{Components, Plan, PlanCell};
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// static PLAN: PlanCell = PlanCell::new();
///
/// /// Interrupts are off. Made after the plan was set only.
/// struct IrqsOff(PhantomData<*mut ()>);
/// # static CPU: CpuFpu = CpuFpu::new();
/// # fn this_cpu_fpu() -> &'static CpuFpu { &CPU }
/// // SAFETY: K2, K3: as the type says. K4: `bring_up_boot_cpu` came first. K5: under the scheduler's lock. K6: NMIs
/// // have another type.
/// unsafe impl Pinned for IrqsOff {
///     type Backend = Plan;
///     type Words = CpuFpu;
///     fn backend(&self) -> &TheBackend<Plan> {
///         // SAFETY: C25: whoever made this value did it after the boot CPU had set the plan.
///         unsafe { PLAN.assume_set() }
///     }
///     fn words(&self) -> &CpuFpu { this_cpu_fpu() }
/// }
///
/// assert!(PLAN.get().is_none());
/// let made = Plan::detect_user(Components::all())?;
/// // SAFETY: K1: the one plan. The cell refuses a second.
/// let plan = PLAN.set(unsafe { TheBackend::new(made.clone()) })?;
/// assert!(core::ptr::eq(IrqsOff(PhantomData).backend(), plan));
/// // SAFETY: K1: never stored.
/// assert!(PLAN.set(unsafe { TheBackend::new(made) }).is_err());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PlanCell<B = TheBackend<Plan>> {
    state: AtomicU8,
    backend: UnsafeCell<MaybeUninit<B>>,
}

// SAFETY: rests on no duty. `Sync` of the contents: every CPU reads them by reference. `Send`: the CPU that sets them
// gives them to the others. `set` writes once, before there is a reference.
unsafe impl<B: Send + Sync> Sync for PlanCell<B> {}

impl<B> PlanCell<B> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), backend: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Sets it, once and for good.
    ///
    /// # Errors
    ///
    /// It was set before, or another CPU is setting it. It holds what it held, and the error carries `backend`.
    pub fn set(&self, backend: B) -> Result<&B, SetError<B>> {
        let taken = self.state.compare_exchange(EMPTY, TAKEN, Ordering::Relaxed, Ordering::Relaxed);
        if taken.is_err() {
            return Err(SetError { why: PlanAlreadySet, backend });
        }
        // SAFETY: rests on no duty: the cell was empty and no one else can take it any more. Nobody has a reference
        // before `SET` is stored (C25 for `assume_set`).
        unsafe { self.backend.get().cast::<B>().write(backend) };
        self.state.store(SET, Ordering::Release);
        // SAFETY: C25: just done.
        Ok(unsafe { self.assume_set() })
    }

    /// What was set. It looks, so it is for everything but the switching path.
    #[must_use]
    pub fn get(&self) -> Option<&B> {
        // SAFETY: C25: `set` stored this after it had written, and the load acquires what came before.
        (self.state.load(Ordering::Acquire) == SET).then(|| unsafe { self.assume_set() })
    }

    /// What was set, without a look: the address of the contents.
    ///
    /// # Safety
    ///
    /// * **C25** [`set`](Self::set) has returned `Ok` for this cell, and what the caller does is ordered after that: on
    ///   the same CPU, or by what started the caller's CPU or handed it the work.
    #[inline(always)]
    #[must_use]
    pub unsafe fn assume_set(&self) -> &B {
        // SAFETY: C25: initialised, and never written again.
        unsafe { &*self.backend.get().cast::<B>() }
    }
}

impl<B> Default for PlanCell<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: fmt::Debug> fmt::Debug for PlanCell<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PlanCell").field(&self.get()).finish()
    }
}

/// A [`PlanCell`] is set once: the plan decides which registers every area holds, so a second one would lose some.
/// [`SetError`] carries what was refused too.
///
/// ```
/// assert_eq!(fpu_x86::PlanAlreadySet.to_string(), "the plan has been set before");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanAlreadySet;

impl fmt::Display for PlanAlreadySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the plan has been set before")
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for PlanAlreadySet {}

/// Why a [`PlanCell`] was not set, with the backend that was refused.
///
/// `?` turns it into a [`PlanAlreadySet`], which drops the backend, or into a boxed error.
///
/// ```
/// use fpu_x86::{PlanAlreadySet, PlanCell, SetError};
/// fn twice(cell: &PlanCell<u64>) -> Result<(), PlanAlreadySet> {
///     cell.set(1)?;
///     cell.set(2)?;
///     Ok(())
/// }
/// let cell = PlanCell::new();
/// assert_eq!(twice(&cell), Err(PlanAlreadySet));
/// // Or with what was refused:
/// if let Err(SetError { why, backend }) = cell.set(3) {
///     println!("{why}");
///     assert_eq!((backend, cell.get()), (3, Some(&1)));
/// }
/// ```
pub struct SetError<B> {
    /// What is wrong: there is one reason.
    pub why: PlanAlreadySet,
    /// The backend, unused.
    pub backend: B,
}

// Whatever the backend is: errors are printed, backends are not.
impl<B> fmt::Debug for SetError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetError").field("why", &self.why).finish_non_exhaustive()
    }
}

impl<B> fmt::Display for SetError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl<B> From<SetError<B>> for PlanAlreadySet {
    fn from(refused: SetError<B>) -> Self {
        refused.why
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl<B> core::error::Error for SetError<B> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, ptr, sync::Barrier, thread, vec::Vec};

    #[test]
    fn it_is_set_once_and_keeps_what_it_was_given() {
        let cell = PlanCell::new();
        assert_eq!((cell.get(), format!("{cell:?}")), (None, "PlanCell(None)".into()));
        assert!(cell.set([7u64; 8]).is_ok_and(|set| *set == [7; 8]));
        let refused = cell.set([8; 8]).expect_err("it was set");
        assert_eq!((refused.why, refused.backend), (PlanAlreadySet, [8; 8]));
        assert_eq!(cell.get(), Some(&[7; 8]));
        // SAFETY: C25: set above.
        let assumed = unsafe { cell.assume_set() };
        assert!(cell.get().is_some_and(|got| ptr::eq(got, assumed)), "one place");
    }

    /// Of CPUs that set it at once one succeeds, and whoever sees a value sees all of it, and that one.
    #[test]
    fn of_several_one_sets_it() {
        const CPUS: usize = 4;
        for _ in 0..200 {
            let (cell, start) = (PlanCell::new(), Barrier::new(CPUS));
            let set = thread::scope(|scope| {
                let threads: Vec<_> = (0..CPUS)
                    .map(|number| {
                        let (cell, start) = (&cell, &start);
                        scope.spawn(move || {
                            start.wait();
                            let mine = [number; 64];
                            let done = cell.set(mine);
                            match &done {
                                Ok(set) => assert_eq!(**set, mine),
                                Err(refused) => assert_eq!(refused.backend, mine),
                            }
                            if let Some(seen) = cell.get() {
                                assert!(seen.iter().all(|it| *it == seen[0]), "torn: {seen:?}");
                            }
                            done.is_ok()
                        })
                    })
                    .collect();
                let done = threads.into_iter().map(|one| one.join().unwrap());
                done.enumerate().filter(|(_, ok)| *ok).map(|(n, _)| n).collect::<Vec<_>>()
            });
            assert_eq!(set.len(), 1);
            assert_eq!(cell.get(), Some(&[set[0]; 64]));
        }
    }
}
