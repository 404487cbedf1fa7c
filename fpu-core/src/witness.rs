//! The traits that a kernel implements: two words a CPU, and witnesses of what the kernel has locked.
//!
//! Every trait here is *trusted*: an `unsafe trait` with numbered duties that the proofs in this
//! crate cite. A kernel writes each `impl` once.

use core::cell::Cell;

use crate::{
    backend::{RawFpu, TheBackend},
    observe::Event,
};

/// CPUs that can be told apart: numbers 0 to 16,381.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let mut cpu = offline_cpu();
/// // SAFETY: K15, K16: the only CPU, its words new.
/// let refused = unsafe { cpu.fpu_online(fpu_core::MAX_CPUS) };
/// assert_eq!(refused, Err(fpu_core::Error::InvalidCpu));
/// # Ok::<(), fpu_core::Error>(())
/// ```
pub const MAX_CPUS: u32 = (1 << 14) - 2;

/// One CPU's two words, initially 0, as get and set: a `Cell` in the CPU's own block (on x86: behind GS), an OSTD
/// `cpu_local_cell!`, a static indexed by CPU. [`CpuFpu`](crate::CpuFpu) is one ready made.
///
/// # Safety
///
/// The implementer promises:
///
/// * **K13** a get returns what the last set on this CPU stored, or 0 if there was none; the words
///   survive while the CPU is offline.
/// * **K14** each access is a single load or store with regard to interrupts on this CPU.
///
/// ```
/// use core::cell::Cell;
/// struct PerCpu { fpu_resident: Cell<u64>, fpu_gate: Cell<u64> }
/// // SAFETY: K13, K14: plain cells of 8 bytes in this CPU's own block.
/// unsafe impl fpu_core::CpuWords for PerCpu {
///     fn resident(&self) -> u64 { self.fpu_resident.get() }
///     unsafe fn set_resident(&self, word: u64) { self.fpu_resident.set(word) }
///     fn gate(&self) -> u64 { self.fpu_gate.get() }
///     unsafe fn set_gate(&self, word: u64) { self.fpu_gate.set(word) }
/// }
/// ```
pub unsafe trait CpuWords {
    /// The word that says which context the registers hold.
    #[must_use]
    fn resident(&self) -> u64;
    /// Stores the word that says which context the registers hold.
    ///
    /// # Safety
    ///
    /// For this crate only: any other word can make stale registers look valid.
    unsafe fn set_resident(&self, word: u64);
    /// The word that says whether a section or session is open.
    #[must_use]
    fn gate(&self) -> u64;
    /// Stores the word that says whether a section or session is open.
    ///
    /// # Safety
    ///
    /// For this crate only, as [`set_resident`](Self::set_resident).
    unsafe fn set_gate(&self, word: u64);
}

/// Proof that the code is on one CPU and stays there. The kernel builds the value from what it
/// holds (interrupts off, a preemption guard, a lock level).
///
/// # Safety
///
/// The implementer promises that, while a value lives:
///
/// * **K2** wherever it is used, its holder is on one CPU and is not preempted by another task. Neither a value
///   nor anything borrowed from it (a session and the views of its image, a section, a `Pending` value) is alive over
///   a switch of stacks. Code that resumes makes a new value.
/// * **K3** [`words`](Self::words) are that CPU's own. No two values of one CPU are in use at once,
///   except those of code that has interrupted the other's.
/// * **K4** what the [`backend`](Self::backend) manages is enabled on that CPU. (That it is the same everywhere
///   is one backend (K1) of [`TheBackend`].)
/// * **K5** a context is handed to methods with this value only by the CPU on which its task is
///   current, or is being switched in or out (for a persistent context: by the one CPU that uses it
///   now; for a virtual CPU's: by the CPU on which the thread is current that runs it); or by whoever holds it
///   exclusively: no other code uses the context meanwhile, and its task neither runs nor
///   is switched, except in the holder's own calls. `&mut TaskFpu` proves that, and so does the lock that gives it
///   out. Whatever passes a task from one CPU to the next, or the exclusive hold of it (a
///   run-queue lock), orders what the first did before what the second does. The crate reports the violations that it
///   can see ([`Error::LiveElsewhere`](crate::Error::LiveElsewhere)), and cannot see all.
/// * **K6** [`level`](Self::level) is [`Level::Nmi`] where the code may have interrupted code that has
///   interrupts off.
/// * **K7** [`observe`](Self::observe) does not use the crate with this CPU.
/// * **K21** [`unchanged`](Self::unchanged) is `true` only if no task could tell what is in the context's area from what a
///   save would write there now.
///
/// K2 (pinned), K3 (own words) and K5 (current here) are about how values are made and used, so the function that makes
/// one should be `unsafe`, or take the kernel's guard, which proves the promise.
///
/// ```
/// use fpu_core::{CpuFpu, Pinned, TheBackend};
/// # use fpu_hosted_test::doc::{Backend, the_backend, this_cpu_fpu};
/// struct PreemptOff(core::marker::PhantomData<*mut ()>); // a token: `!Send`
/// // SAFETY: K2: made while preemption is off. K3: per-CPU data. K4: each CPU enables it when it starts.
/// // K5: run-queue locks. K6: NMI handlers use another type.
/// unsafe impl Pinned for PreemptOff {
///     type Backend = Backend;
///     type Words = CpuFpu;
///     fn backend(&self) -> &TheBackend<Backend> { the_backend() }
///     fn words(&self) -> &CpuFpu { this_cpu_fpu() }
/// }
/// # let _ = PreemptOff(core::marker::PhantomData);
/// ```
#[doc(alias = "fpregs_lock")]
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "`{Self}` does not prove that this code stays on its CPU",
        label = "not a proof of being pinned",
        note = "disable preemption first and pass the kernel's token, for whose type it implements `fpu_core::Pinned`"
    )
)]
pub unsafe trait Pinned {
    /// The kernel's backend.
    type Backend: RawFpu;
    /// The kernel's per-CPU words.
    type Words: CpuWords;

    /// The backend, the same everywhere.
    #[must_use]
    fn backend(&self) -> &TheBackend<Self::Backend>;
    /// This CPU's words.
    #[must_use]
    fn words(&self) -> &Self::Words;

    /// Saves the [bound](crate::BoundCpu) context that this CPU's registers are the only copy of, if there is one. Every call
    /// that is about to give the registers to other code asks this first. A kernel without bound contexts leaves it out, and
    /// the calls vanish; one with them calls [`BoundCpu::settle_due`](crate::BoundCpu::settle_due), as the `bound` line of
    /// [`witness!`](crate::witness) does, in each of its witnesses.
    #[inline(always)]
    fn settle(&self, due: Settle<'_>) {
        let _ = due;
    }

    /// The level at which the code runs. Every call except the hot path asks for it.
    #[must_use]
    fn level(&self) -> Level {
        Level::Task
    }

    /// Tells that a save of the context at this address ([`Event::context`]) can be left out, because no register has
    /// changed since this CPU last saved it, or restored it. Asked, before the backend's
    /// [`unchanged`](RawFpu::unchanged), where the registers are the context's only copy and a save is due.
    ///
    /// For architectures that tell it in the trap frame, as `sstatus.FS` does on RISC-V. A trap frame says it of its own
    /// task and of no other context: of the guest that the task runs by [`run_guest`](crate::KernelFpu::run_guest), say, it
    /// says nothing. And of registers that the task has by [`adopt`](crate::TaskFpu::adopt) the answer is `false`
    /// until they have been saved: they were never in its area (K21).
    ///
    /// ```
    /// # use fpu_core::{CpuFpu, Pinned, TheBackend};
    /// # use fpu_hosted_test::doc::{Backend, the_backend, this_cpu_fpu};
    /// # #[derive(PartialEq)]
    /// # enum Fs { Clean, Dirty }
    /// struct TrapFrame { fs: Fs, /* .. */ }
    /// struct IrqsOff<'t> { current: usize, frame: &'t TrapFrame }
    /// fpu_core::witness! {
    ///     // SAFETY: K2-K6: as for any witness. K21: the kernel sets the frame's bits to Clean behind each call that restores or
    ///     // saves the task; the CPU sets Dirty with the first write.
    ///     unsafe impl Pinned for IrqsOff<'_> {
    ///         backend: Backend = |_| the_backend(),
    ///         words: CpuFpu = |_| this_cpu_fpu(),
    ///         unchanged: |cpu, context| context == cpu.current && cpu.frame.fs == Fs::Clean,
    ///     }
    /// }
    /// # let cpu = IrqsOff { current: 0x1000, frame: &TrapFrame { fs: Fs::Clean } };
    /// assert!(cpu.unchanged(0x1000));
    /// assert!(!cpu.unchanged(0x2000));
    /// # let cpu = IrqsOff { current: 0x1000, frame: &TrapFrame { fs: Fs::Dirty } };
    /// # assert!(!cpu.unchanged(0x1000));
    /// ```
    #[doc(alias = "sstatus.FS")]
    #[inline(always)]
    #[must_use]
    fn unchanged(&self, context: usize) -> bool {
        let _ = context;
        false
    }

    /// Gets every event of registers and images; without an override the calls vanish. The crate
    /// calls `observe` when words, registers and memory agree. `observe` must not call into the
    /// crate with the same CPU (K7).
    #[inline(always)]
    fn observe(&self, event: Event) {
        let _ = event;
    }
}

/// What the crate asks of [`Pinned::settle`]. Only the crate makes one, at the moments at which a save is right.
///
/// ```
/// fn passes_it_on(cpu: &fpu_hosted_test::doc::Cpu, due: fpu_core::Settle<'_>) {
///     fpu_hosted_test::doc::this_cpu_bound().settle_due(cpu, due);
/// }
/// # let _ = passes_it_on;
/// ```
#[derive(Debug)]
pub struct Settle<'a>(pub(crate) Asked<'a>);

/// What is asked.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    /// A save, if the context is live under the CPU's own word, which is open.
    Now,
    /// A save, if the context is live under this stamp, with which the CPU, closed now, is opened again.
    Under(u64),
    /// No save, but where the state is that the witness names.
    Which(&'a Cell<*const ()>),
}

impl Settle<'static> {
    pub(crate) const NOW: Self = Self(Asked::Now);
}

/// Further proof: no kernel FPU section can begin on this CPU while the value lives. Interrupts are
/// off, or this kernel never uses the FPU in interrupts.
///
/// Needed where a decision must hold until the instruction that relies on it: a save, and the way to
/// user mode.
///
/// # Safety
///
/// * **K8** while a value lives, no code on this CPU except its holder calls into this crate, apart
///   from a non-maskable interrupt that says so (K6) and is refused. A type whose level can be
///   [`Level::Nmi`] is not `Exclusive`: the hot path does not ask.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// fn on_the_way_to_user<C: fpu_core::Exclusive>(_cpu: &mut C) {}
/// on_the_way_to_user(&mut cpu);
/// # let _ = task;
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "`{Self}` does not exclude interrupts, which may use the FPU",
        label = "a kernel FPU section could begin between the decision and its use",
        note = "disable interrupts and pass the kernel's token, for whose type it implements `fpu_core::Exclusive`"
    )
)]
pub unsafe trait Exclusive: Pinned {}

/// Further proof: the kernel's own code leaves the registers alone outside kernel FPU sections (it is
/// compiled soft-float, or its disassembly is checked).
///
/// A kernel compiled *with* vector instructions, and any hosted program, cannot promise this. It uses
/// the [steps form](crate::PendingUser), whose instructions its assembly executes.
///
/// # Safety
///
/// * **K9** between any two calls into this crate on a CPU, outside a section, only the task's own code (in user
///   mode; in a kernel without it, what runs as that task; of a virtual CPU, its guest from entry to exit) reads
///   or writes the registers that the backend manages: no code of the kernel, no firmware, no loss of
///   power. (What the ABI of system calls takes from a task, the entry of a system call may discard before the first
///   call into this crate: what is left is the task's state.) Where that has to happen, [`invalidate_registers`](crate::CpuLifecycle::invalidate_registers),
///   [`fpu_resume`](crate::CpuLifecycle::fpu_resume) or [`adopt`](crate::TaskFpu::adopt) belongs to it, before or after: from the first register that
///   is overwritten to that call, or from that call to the last register, nothing else on this CPU calls
///   into this crate, interrupts included.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// fn uses_sections<C: fpu_core::SoftFloat>(_cpu: &mut C) {}
/// uses_sections(&mut cpu);
/// # let _ = task;
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "`{Self}` does not promise that kernel code leaves the FPU registers alone",
        label = "registers could be changed by compiled code before or after this call",
        note = "a kernel compiled with vector instructions executes steps (`begin_user`, `begin_switch_out`, `SwitchSteps`) and reads by `open_saved`; a soft-float one implements `fpu_core::SoftFloat`"
    )
)]
pub unsafe trait SoftFloat: Pinned {}

/// Where kernel code runs that wants to use the FPU.
///
/// | level | a section here |
/// |---|---|
/// | `Task`, `SoftIrq`, `HardIrq` | allowed unless one, or a session, is open: then `Busy` |
/// | `Nmi` | always refused |
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let cpu = online_cpu();
/// use fpu_core::{Level, Pinned};
/// assert_eq!(cpu.level(), Level::Task);
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A task, or the idle loop.
    Task,
    /// Deferred interrupt work.
    SoftIrq,
    /// An interrupt handler.
    HardIrq,
    /// A non-maskable interrupt, a machine check: anything that comes with interrupts off.
    Nmi,
}
