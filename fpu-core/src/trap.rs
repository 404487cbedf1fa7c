//! Contexts without registers of their own until their task's first use of one, for kernels that are one trust domain.
//!
//! In a unikernel most tasks are scalar: they never use a vector register. A [`TaskFpu`] of such a task is saved and
//! restored all the same, whenever the task is switched. A [`Trapped`] context costs a scalar task nothing of that: the
//! task runs with the registers as another task left them, and the hardware refuses each instruction that would use
//! one (on x86: CR0.TS, #NM). The first such instruction is a fault, whose handler calls [`Trapped::first_use`]. From then
//! on the context is one like any other, and never traps again.
//!
//! # Who must not
//!
//! The registers of the task before can be read by speculation although the fault comes first (CVE-2018-3665). So
//! [`Trapped::new`] is unsafe: all tasks must be allowed to read each other. A kernel with users, guests or sandboxes
//! stays with [`TaskFpu`].
//!
//! # When the trap is armed
//!
//! | from | to |
//! |---|---|
//! | `switch_return`, `switch_in` or [`switch`] of a context that was never used | its `switch_prepare`, a [`switch`] to a context that is used, or its first use |
//!
//! and not in the sections in between. It is never armed while another context is current, so a kernel can have `TaskFpu`s
//! beside, and they know nothing of it. A call that saves or loads registers while the trap is armed would fault in the
//! kernel. Where a [bound](crate::BoundCpu) context's save is deferred, a debugger's session of it is such a call: the kernel
//! calls `switch_prepare` of the current context before, and `switch_in` after (K23).
//!
//! A context that was never used hands out no [`FpuRef`](crate::FpuRef). So `cpu.with_kernel_fpu(Some(..))` cannot be told
//! of it: [`Trapped::with_kernel_fpu`] disarms the trap for the section. A section that is told of no task, although such a
//! task is current, raises the trap in kernel mode at its first instruction, and [`Trapped::first_use`] refuses it with
//! [`Error::Busy`].
//!
//! ```
//! # use fpu_hosted_test::doc::*;
//! use fpu_core::trap::Trapped;
//! # let mut cpu = online_cpu();
//! // SAFETY: K22: a unikernel: one program, all its tasks its own. K23: sections of these tasks go by `Trapped`.
//! let [scalar, vector] = [(); 2].map(|()| unsafe { Trapped::new(new_task(), the_backend()) }.unwrap());
//!
//! vector.switch_in(&mut cpu)?;
//! vector.first_use(&mut cpu)?;        // the handler of the trap: loads the initial state
//! cpu.set_avx0(7);
//! for _ in 0..1000 {
//!     vector.switch_prepare(&cpu)?;   // saves
//!     scalar.switch_in(&mut cpu)?;    // arms the trap
//!     assert!(cpu.trap_is_armed());
//!     scalar.switch_prepare(&cpu)?;   // disarms it
//!     vector.switch_in(&mut cpu)?;    // the registers still hold it
//! }
//! assert_eq!(cpu.avx0(), 7);
//! assert_eq!((cpu.totals().saved, cpu.totals().restored, cpu.totals().skipped), (1000, 1, 1000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`TaskFpu`]: crate::TaskFpu

mod backend;
mod error;
mod kind;
mod switch;

pub use backend::TrapFpu;
pub use error::{NotTrapped, TrapError};
pub use switch::switch;

use core::marker::PhantomData;

use crate::{
    area::SaveArea,
    backend::{KernelUnits, TheBackend},
    error::Error,
    protocol::{
        closed::Closed,
        cpu_word::{gate, Stamp},
        word::Word,
    },
    section,
    sync::{AtomicU64, Ordering},
    task::{TaskFpu, UserReady},
    witness::{Exclusive, Pinned, SoftFloat},
};

/// The types of contexts that [`Trapped`] can hold: [`TaskFpu`], and [`BoundFpu`](crate::BoundFpu), whose save is
/// deferred. A task that computes among others that do not then moves nothing at its switches.
///
/// ```
/// fn kind<T: fpu_core::trap::Kind>() {}
/// kind::<fpu_hosted_test::doc::Task>();
/// ```
pub trait Kind: kind::Steps {}
impl<T: kind::Steps> Kind for T {}

/// The task has never used a register, and the trap is not armed for it.
const NEVER: u64 = 0;
/// The context is one like any other. Any other value is the stamp of the CPU that is armed for this context.
const USED: u64 = 1;

/// A context whose task has no registers until its first use of one. See the [module](self).
///
/// | to | call |
/// |---|---|
/// | switch out, enter the task | [`switch_prepare`](Self::switch_prepare), [`switch_return`](Self::switch_return), [`switch_in`](Self::switch_in), [`switch`] |
/// | answer the trap | [`first_use`](Self::first_use) |
/// | use the FPU in the kernel while this is the current context | [`with_kernel_fpu`](Self::with_kernel_fpu) |
/// | fork, exec | [`fork_into`](Self::fork_into), [`reset`](Self::reset) |
/// | do anything else: a session, a debugger, a persistent context | [`used`](Self::used), which gives the context |
///
/// A context that was never used tells no events: no registers and no image change.
#[derive(Debug)]
#[repr(C)]
pub struct Trapped<T> {
    /// [`NEVER`], [`USED`], or armed. Accessed where the context is (K5), so relaxed.
    state: AtomicU64,
    context: T,
}

// The bound is on the method, so that the compiler prints the text of `TrapFpu`.
impl<T: Kind> Trapped<T> {
    /// A context that was never used, whatever `context` was. It gets the initial state.
    ///
    /// # Errors
    ///
    /// [`NotTrapped`]: the backend has registers whose use does not trap (on x86: beyond AVX-512), or it is not for
    /// ring 0. The error carries `context`, untouched.
    ///
    /// # Safety
    ///
    /// * **K22** one trust domain: each task of this kernel may read the registers of every other, because a task that runs
    ///   with the trap armed can find out by speculation what they hold (CVE-2018-3665).
    /// * **K23** own sections: while this context is current, code of the kernel that uses the registers runs in a section of
    ///   [`with_kernel_fpu`](Self::with_kernel_fpu), or after [`used`](Self::used). No guest runs under this context. Its
    ///   [`switch_prepare`](Self::switch_prepare) is called, or [`switch`] with it as `prev`, before each other call that may
    ///   save or load registers on its CPU (of another context: `switch_in`, `unbind`, a session; `settle`, `fpu_idle`,
    ///   `fpu_offline`), and before this context is dropped or moved away from its task.
    ///   In an interrupt a bound context is given to `new` after its `reset` only, which is refused while it is being saved.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let cpu = online_cpu();
    /// use fpu_core::{trap::Trapped, Area, TaskFpu};
    /// let context = TaskFpu::new(cpu.backend(), Area::<AREA>::new())?;
    /// // SAFETY: K22: a unikernel. K23: its interrupt handlers call `with_kernel_fpu` of the current task's context.
    /// let task = unsafe { Trapped::new(context, cpu.backend()) };
    /// assert!(task.is_ok_and(|task| !task.is_used()));
    /// # Ok::<(), fpu_core::AreaError>(())
    /// ```
    pub unsafe fn new(
        mut context: T,
        backend: &TheBackend<T::Backend>,
    ) -> Result<Self, NotTrapped<T>>
    where
        T::Backend: TrapFpu,
    {
        if !backend.traps() {
            return Err(NotTrapped { context });
        }
        context.begin_anew(backend);
        Ok(Self { state: AtomicU64::new(NEVER), context })
    }
}

impl<T: Kind> Trapped<T>
where
    T::Backend: TrapFpu,
{
    #[inline(always)]
    fn state(&self) -> u64 {
        self.state.load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn set(&self, state: u64) {
        self.state.store(state, Ordering::Relaxed);
    }

    /// Tells whether the context is one like any other.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_trapped();
    /// task.switch_in(&mut cpu)?;
    /// assert!(!task.is_used());
    /// task.first_use(&mut cpu)?;
    /// assert!(task.is_used());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.state() == USED
    }

    /// Tells whether the trap is armed for this context on the CPU of this stamp, which has lost nothing since.
    #[inline]
    fn is_armed(&self, stamp: Stamp) -> bool {
        self.state() == stamp.bits()
    }

    /// Ends the trap if it is armed for this context, and tells whether it was.
    #[inline]
    fn disarm<C: Pinned<Backend = T::Backend>>(&self, cpu: &C) -> Result<bool, Error> {
        let state = self.state();
        if state == NEVER {
            return Ok(false);
        }
        let armed = Word::from_bits(state);
        if !armed.is_of(Stamp::of(cpu.words())) {
            return Err(armed.live_elsewhere());
        }
        // SAFETY: C50: it was armed for this context, on this CPU, and no code of its task runs now (K5).
        unsafe { cpu.backend().disarm() };
        self.set(NEVER);
        Ok(true)
    }

    /// Arms the trap for this context, which was never used; also where it is armed under an earlier stamp: the CPU may have
    /// been offline since, and its control registers set up anew.
    #[inline]
    fn arm<C: Pinned<Backend = T::Backend>>(&self, cpu: &C, stamp: Stamp) -> Result<(), Error> {
        let state = self.state();
        if state == stamp.bits() {
            return Ok(());
        }
        if state != NEVER && !Word::from_bits(state).is_of(stamp) {
            return Err(Word::from_bits(state).live_elsewhere());
        }
        // SAFETY: C50: `new` asked `traps`; enabled (K4); the kernel leaves the registers alone (K9), but in sections,
        // which disarm (K23).
        unsafe { cpu.backend().arm() };
        self.set(stamp.bits());
        Ok(())
    }

    /// [`TaskFpu::switch_prepare`](crate::TaskFpu::switch_prepare). Of a context that was never used it disarms the trap,
    /// and saves nothing.
    ///
    /// # Errors
    ///
    /// As there; [`Error::LiveElsewhere`] also if the trap is armed for this context on another CPU.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_trapped();
    /// task.switch_in(&mut cpu)?;
    /// task.switch_prepare(&cpu)?;
    /// assert!(!cpu.trap_is_armed());
    /// assert_eq!(cpu.totals().saved, 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline]
    pub fn switch_prepare<C>(&self, cpu: &C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = T::Backend>,
    {
        if self.is_used() {
            return self.context.leave(cpu);
        }
        self.disarm(cpu).map(drop)
    }

    /// [`TaskFpu::switch_in`](crate::TaskFpu::switch_in). Of a context that was never used it arms the trap, and leaves the
    /// registers and their claim as they are. As there, it is called again at the end of each interrupt that ran a section.
    ///
    /// # Errors
    ///
    /// As there; [`Error::LiveElsewhere`] also if the trap is armed for this context on another CPU.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_trapped();
    /// task.switch_in(&mut cpu)?;
    /// assert!(cpu.trap_is_armed());
    /// assert_eq!(cpu.totals().restored, 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline]
    pub fn switch_in<C>(&self, cpu: &mut C) -> Result<(), Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = T::Backend>,
    {
        if self.is_used() {
            return self.context.enter(cpu);
        }
        let stamp = Stamp::of(cpu.words());
        if !stamp.is_open() {
            return Err(Word::NOWHERE.refusal(cpu.words()));
        }
        self.arm(cpu, stamp)
    }

    /// [`switch_in`](Self::switch_in) as the last step before the task runs, with the value that says so.
    ///
    /// # Errors
    ///
    /// As for [`switch_in`](Self::switch_in).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// fn enter_user(_ready: fpu_core::UserReady<'_, Cpu>) { /* on x86: iretq */ }
    /// # let (mut cpu, task) = cpu_and_trapped();
    /// enter_user(task.switch_return(&mut cpu)?);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline]
    pub fn switch_return<'c, C>(&'c self, cpu: &'c mut C) -> Result<UserReady<'c, C>, Error>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = T::Backend>,
    {
        self.switch_in(cpu)?;
        Ok(UserReady { _cpu: cpu, not_send: PhantomData })
    }

    /// Answers the trap, in its handler, with interrupts off: if the trap is armed here for this context, which is the
    /// current one, disarms it and loads the context. The task executes its instruction again.
    ///
    /// # Errors
    ///
    /// [`TrapError`]. Nothing has changed, except as [`Error::RestoreFailed`] says; the trap is armed as before.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// use fpu_core::trap::TrapError;
    /// # let (mut cpu, task) = cpu_and_trapped();
    /// assert_eq!(task.first_use(&mut cpu), Err(TrapError::NotOurs)); // not armed
    /// task.switch_in(&mut cpu)?;
    /// task.first_use(&mut cpu)?;
    /// assert_eq!(task.first_use(&mut cpu), Err(TrapError::NotOurs)); // used
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "do_device_not_available")]
    pub fn first_use<C>(&self, cpu: &mut C) -> Result<(), TrapError>
    where
        C: Exclusive + SoftFloat + Pinned<Backend = T::Backend>,
    {
        if self.is_used() || !self.disarm(cpu).map_err(TrapError::Refused)? {
            return Err(TrapError::NotOurs);
        }
        if let Err(why) = self.context.enter(cpu) {
            let stamp = Stamp::of(cpu.words());
            self.arm(cpu, stamp).map_err(TrapError::Refused)?;
            return Err(TrapError::Refused(why));
        }
        self.set(USED);
        Ok(())
    }

    /// Runs `code` in a section while this context is current
    /// ([`KernelFpu::with_kernel_fpu`](crate::KernelFpu::with_kernel_fpu)). If the trap is armed for this context, it is
    /// disarmed meanwhile.
    ///
    /// # Errors
    ///
    /// As there; `code` was not run, and the trap is as before. `code` must not unwind.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_trapped();
    /// task.switch_in(&mut cpu)?;
    /// task.with_kernel_fpu(&mut cpu, KernelUnits::ALL, || { /* an interrupt's checksum */ })?;
    /// assert!(cpu.trap_is_armed());
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn with_kernel_fpu<C, R>(
        &self,
        cpu: &mut C,
        units: KernelUnits,
        code: impl FnOnce() -> R,
    ) -> Result<R, Error>
    where
        C: SoftFloat + Pinned<Backend = T::Backend>,
    {
        let mut disarmed = false;
        // Decided behind the gate: an interrupt before it may use the context, or arm the trap again.
        let open = self.context.section(cpu, units, |cpu| {
            if self.is_used() {
                return Ok(true);
            }
            disarmed = self.disarm(cpu)?;
            Ok(false)
        })?;
        let value = section::stay(code);
        let closed = open.end();
        if disarmed {
            // Before the CPU opens, so that no interrupt's section finds the trap half armed.
            self.arm(closed.cpu(), closed.stamp())?;
        }
        Ok(value)
    }

    /// Makes this a context like any other, and gives it: for a debugger, a signal frame, a persistent context, sections by
    /// guard. Its task, if it is the current one, runs on without the trap, from its next
    /// [`switch_return`](Self::switch_return) or [`switch_in`](Self::switch_in) on.
    ///
    /// A context that was never used is in the initial state. A kernel that only wants to read that need not call this.
    ///
    /// # Errors
    ///
    /// For a context that was never used: [`Error::Nmi`], [`Error::CpuOffline`], [`Error::Busy`], [`Error::Exhausted`], and
    /// [`Error::LiveElsewhere`] if the trap is armed for this context on another CPU. Nothing has changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_trapped();
    /// task.switch_in(&mut cpu)?;
    /// task.used(&mut cpu)?.open(&mut cpu)?.make_memory_valid_write().image_mut().set_avx0(5);
    /// task.switch_in(&mut cpu)?;
    /// assert!(!cpu.trap_is_armed());
    /// assert_eq!(cpu.avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn used<C>(&self, cpu: &mut C) -> Result<&T, Error>
    where
        C: Pinned<Backend = T::Backend>,
    {
        if !self.is_used() {
            let closed = Closed::new(cpu, gate::SESSION)?;
            // Asked again behind the gate: an interrupt before it may have used the context.
            if !self.is_used() {
                self.disarm(closed.cpu())?;
                self.set(USED);
            }
        }
        Ok(&self.context)
    }

    /// Exec: back to a context that was never used. Its next [`switch_return`](Self::switch_return) arms the trap. With a
    /// shared reference a kernel resets what [`used`](Self::used) gives, and has no trap from then on.
    ///
    /// # Errors
    ///
    /// As for [`TaskFpu::reset`](crate::TaskFpu::reset). Nothing has changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, mut task) = cpu_and_trapped();
    /// task.used(&mut cpu)?;
    /// task.reset(&mut cpu)?;
    /// assert!(!task.is_used());
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn reset<C: Pinned<Backend = T::Backend>>(&mut self, cpu: &mut C) -> Result<(), Error> {
        // What was never used is in the initial state, and stays armed if it is.
        if self.is_used() {
            self.context.reset(cpu)?;
            self.set(NEVER);
        }
        Ok(())
    }

    /// Gives the context back, for the memory that it came from.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (_cpu, task) = cpu_and_trapped();
    /// let area = task.into_inner().into_area();
    /// # let _ = area;
    /// ```
    #[must_use]
    pub fn into_inner(self) -> T {
        self.context
    }
}

impl<B: TrapFpu, A: SaveArea> Trapped<TaskFpu<B, A>> {
    /// Fork: a child of a context that was never used was never used either. Otherwise the child gets a copy of the
    /// state of this context, which is the current one.
    ///
    /// # Errors
    ///
    /// As for [`TaskFpu::fork_into`](crate::TaskFpu::fork_into), and as for [`reset`](Self::reset) of the child;
    /// [`Error::LiveHere`] and [`Error::LiveElsewhere`] also if the trap is armed for the child. The child is then unchanged.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_trapped();
    /// # let mut child = new_trapped();
    /// task.switch_in(&mut cpu)?;
    /// task.fork_into(&mut cpu, &mut child)?;
    /// assert!(!child.is_used());
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn fork_into<C>(&self, cpu: &mut C, child: &mut Self) -> Result<(), Error>
    where
        C: SoftFloat + Pinned<Backend = B>,
    {
        if !self.is_used() {
            return child.reset(cpu);
        }
        match child.state() {
            NEVER | USED => {}
            armed => return Err(Word::from_bits(armed).refusal(cpu.words())),
        }
        self.context.fork_into(cpu, &mut child.context)?;
        child.set(USED);
        Ok(())
    }
}
