//! The CPU that boots, from what firmware left to a CPU that runs tasks, in one call.

use core::fmt;

use fpu_core::{CpuLifecycle, Error, Pinned};

use super::enable::{enable_legacy_on_this_cpu, Before, EnableError};
use crate::{cpuid::CpuidInfo, error::PlanError, insn, plan::Plan};

/// Why the CPU that boots does not run tasks. CR0, CR4, XCR0, IA32_XSS and IA32_XFD are as before. `E` is the kernel's
/// reason not to keep the plan.
///
/// ```
/// use fpu_x86::{BringUpError, EnableError, PlanAlreadySet};
/// let why = BringUpError::<PlanAlreadySet>::from(EnableError::WrongRing(3));
/// assert_eq!(why.to_string(), "in ring 3, not in ring 0");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BringUpError<E> {
    /// There is no plan for it, or it could not be set up as the plan wants it.
    Enable(EnableError),
    /// The kernel did not keep the plan: it has one, or its areas are too small.
    Kept(E),
    /// `fpu-core` refused to let it come online. The kernel has kept the plan, which is not in force.
    Online(Error),
}

impl<E: fmt::Display> fmt::Display for BringUpError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enable(why) => why.fmt(f),
            Self::Kept(why) => why.fmt(f),
            Self::Online(why) => why.fmt(f),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl<E: core::error::Error> core::error::Error for BringUpError<E> {}

impl<E> From<PlanError> for BringUpError<E> {
    fn from(why: PlanError) -> Self {
        Self::Enable(EnableError::Plan(why))
    }
}
impl<E> From<EnableError> for BringUpError<E> {
    fn from(why: EnableError) -> Self {
        Self::Enable(why)
    }
}
impl<E> From<Error> for BringUpError<E> {
    fn from(why: Error) -> Self {
        Self::Online(why)
    }
}

/// Sets up the CPU that boots to run tasks, under `number`. The call does all that a kernel otherwise does in four
/// steps.
///
/// 1. [`enable_legacy_on_this_cpu`], so that FXSAVE works.
/// 2. `choose` makes the plan: [`Plan::detect_kernel`], and what changes a plan before it is tried
///    ([`requiring`](Plan::requiring), [`with_save_instruction`](Plan::with_save_instruction)).
/// 3. [`Plan::settle_on_this_cpu`] puts it into force, and leaves out what does not work.
/// 4. `keep` gets the plan that works, puts it where the kernel's witnesses find it (a
///    [`PlanCell`](crate::PlanCell)), and makes the first witness. With that the CPU comes online
///    ([`fpu_online`](CpuLifecycle::fpu_online)).
///
/// The witness is returned. Every other CPU then needs [`Plan::enable_on_this_cpu`] and `fpu_online`, in this order.
///
/// The kernel's handlers serve [`fixup`](crate::fixup) by now: at least those of #UD and #GP.
///
/// # Errors
///
/// After any [`BringUpError`] the control registers are as before.
///
/// # Safety
///
/// The call changes CR0, CR4, XCR0, IA32_XSS, IA32_XFD and IA32_XFD_ERR of this CPU, every register of its FPU, and the
/// two words that the witness has. So:
///
/// * C1 to C5 as for [`Plan::enable_on_this_cpu`]: in ring 0 with interrupts off, no code needs the registers, all CPUs
///   will use this plan, there are handlers of #MF and #XM, and nothing else changes those control registers. No area
///   of a plan exists yet, as for [`Plan::settle_on_this_cpu`].
/// * Own number (K15) and words as left (K16) of [`fpu_online`](CpuLifecycle::fpu_online): no other CPU has, or ever
///   had, this number, and if this one did, its words are as they were left.
///
/// That the backend of the witness is the plan which `keep` got is promised by K4 (enabled here) of [`Pinned`].
///
/// ```no_run
/// # use core::marker::PhantomData;
/// # use fpu_core::{CpuFpu, Pinned, TheBackend};
/// use fpu_x86::{bring_up_boot_cpu, Components, Plan, PlanCell};
///
/// static PLAN: PlanCell = PlanCell::new();
/// # struct IrqsOff(PhantomData<*mut ()>);
/// # impl IrqsOff { unsafe fn new() -> Self { Self(PhantomData) } }
/// # static CPU: CpuFpu = CpuFpu::new();
/// # // SAFETY: K2 to K6: never run.
/// # unsafe impl Pinned for IrqsOff {
/// #     type Backend = Plan;
/// #     type Words = CpuFpu;
/// #     // SAFETY: C25: made in `keep`, after the set.
/// #     fn backend(&self) -> &TheBackend<Plan> { unsafe { PLAN.assume_set() } }
/// #     fn words(&self) -> &CpuFpu { &CPU }
/// # }
/// # fn main() -> Result<(), fpu_x86::BringUpError<fpu_x86::PlanAlreadySet>> {
/// // SAFETY: C1 to C5: early in boot, interrupts are off, the IDT is loaded and its handlers serve `fixup`; no other CPU
/// // has been started, and there are no areas. K15, K16: the first CPU, its words new.
/// let _irqs_off = unsafe {
///     bring_up_boot_cpu(
///         0,
///         || Plan::detect_kernel(Components::USER),
///         |plan| {
///             let plan = PLAN.set(TheBackend::new(plan))?; // K1: the one plan
///             for quirk in plan.quirks() {
///                 println!("fpu: {quirk}");
///             }
///             Ok(IrqsOff::new()) // the kernel's witness, for which it implements `Pinned`
///         },
///     )
/// }?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "fpu__init_system")]
pub unsafe fn bring_up_boot_cpu<C: Pinned, E>(
    number: u32,
    choose: impl FnOnce() -> Result<Plan, PlanError>,
    keep: impl FnOnce(Plan) -> Result<C, E>,
) -> Result<C, BringUpError<E>> {
    // SAFETY: what enabling asks for (C1 to C5).
    let settle = |plan: &mut Plan| unsafe { plan.settle_here_from() };
    // SAFETY: what enabling asks for (C1 to C5), own number (K15), words as left (K16).
    unsafe { bring_up(number, choose, settle, keep) }
}

/// As [`bring_up_boot_cpu`], on a CPU whose CPUID is given. The call executes no CPUID, and does not look at the sizes
/// that CPUID would give afterwards. A kernel that can read them passes them to [`Plan::with_sizes`] in `keep`.
///
/// # Errors
///
/// As for [`bring_up_boot_cpu`].
///
/// # Safety
///
/// As for [`bring_up_boot_cpu`]. The call does not rely on the facts being this CPU's: it tries what they promise.
pub unsafe fn bring_up_boot_cpu_given<C: Pinned, E>(
    cpu: &CpuidInfo,
    number: u32,
    choose: impl FnOnce() -> Result<Plan, PlanError>,
    keep: impl FnOnce(Plan) -> Result<C, E>,
) -> Result<C, BringUpError<E>> {
    // SAFETY: what enabling asks for (C1 to C5).
    let settle = |plan: &mut Plan| unsafe { plan.settle_from(cpu) };
    // SAFETY: what enabling asks for (C1 to C5), own number (K15), words as left (K16).
    unsafe { bring_up(number, choose, settle, keep) }
}

/// # Safety
///
/// As for [`bring_up_boot_cpu`].
unsafe fn bring_up<C: Pinned, E>(
    number: u32,
    choose: impl FnOnce() -> Result<Plan, PlanError>,
    settle: impl FnOnce(&mut Plan) -> Result<Before, EnableError>,
    keep: impl FnOnce(Plan) -> Result<C, E>,
) -> Result<C, BringUpError<E>> {
    match insn::ring() {
        0 => {}
        ring => return Err(EnableError::WrongRing(ring).into()),
    }
    // SAFETY: undisturbed in ring 0 (C1).
    let mut before = unsafe { Before::read() };
    // SAFETY: undisturbed in ring 0 (C1), handlers (C4).
    unsafe { enable_legacy_on_this_cpu() };
    let result = choose().map_err(BringUpError::from).and_then(|mut plan| {
        let later = settle(&mut plan)?;
        before.and_those_of(later);
        let mut cpu = keep(plan).map_err(BringUpError::Kept)?;
        // SAFETY: own number (K15), words as left (K16).
        unsafe { cpu.fpu_online(number) }?;
        Ok(cpu)
    });
    if result.is_err() {
        // SAFETY: undisturbed in ring 0 (C1). A plan that is not in force any more has put back what it changed.
        unsafe { before.put_back() };
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::Components;
    use fpu_core::{CpuFpu, TheBackend};

    struct Never(TheBackend<Plan>, CpuFpu);
    // SAFETY: K2 to K6: none is made.
    unsafe impl Pinned for Never {
        type Backend = Plan;
        type Words = CpuFpu;
        fn backend(&self) -> &TheBackend<Plan> {
            &self.0
        }
        fn words(&self) -> &CpuFpu {
            &self.1
        }
    }

    #[test]
    fn ring_3_is_refused_before_anything_is_touched_or_asked() {
        let facts = CpuidInfo::of_this_cpu().unwrap();
        let choose = || -> Result<Plan, PlanError> { panic!("no plan was asked for") };
        // SAFETY: K1: never called.
        let keep = |plan| Ok(Never(unsafe { TheBackend::new(plan) }, CpuFpu::new()));
        // SAFETY: C1 (undisturbed in ring 0) does not hold, which is refused by name; nothing after that runs.
        let (own, given) = unsafe {
            (bring_up_boot_cpu(0, choose, keep), bring_up_boot_cpu_given(&facts, 0, choose, keep))
        };
        for result in [own, given] {
            let expected: BringUpError<()> = EnableError::WrongRing(3).into();
            assert_eq!(result.err(), Some(expected));
        }
        let why = Plan::detect_kernel(Components::X87).map(drop).map_err(BringUpError::<()>::from);
        let missing = Components::SSE;
        let expected = EnableError::Plan(PlanError::Uncovered { missing });
        assert_eq!(why, Err(BringUpError::Enable(expected)));
    }
}
