//! The kernel's use of the register.

use core::{
    fmt,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use raw_cpuid::{CpuIdReader, CpuIdReaderNative};

use super::{
    register::{self, Register, Scope},
    task::TaskPkru,
    value::Pkru,
};
use crate::{components::Components, insn, plan::Plan, registers::CR4_PKE, regset::UserFormat};

const UNDECIDED: u8 = 0;
const ON: u8 = 1;
const OFF: u8 = 2;

/// Why protection keys are not on.
///
/// ```
/// use fpu_x86::PkruError;
/// assert_eq!(PkruError::Absent.to_string(), "the CPU has no protection keys");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PkruError {
    /// The function is for another ring than the one that the caller runs in.
    WrongRing(u8),
    /// CPUID.(7,0):ECX.PKU is clear; for ring 3, OSPKE.
    Absent,
    /// The plan's signal frames and regsets have no place for PKRU: without XSAVE, or where leaf 0xD lacks component 9.
    /// A task would lose its rights to every signal.
    NoPlace,
    /// CR4.PKE could not be set, although CPUID promises it.
    Refused {
        /// The vector of the exception.
        vector: u32,
    },
    /// CR4.PKE was set, and reads as clear.
    NotKept,
    /// The first CPU has no protection keys, so this one uses none. It was not looked at.
    LeftOff,
}

impl fmt::Display for PkruError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongRing(ring) => write!(f, "in ring {ring}"),
            Self::Absent => f.write_str("the CPU has no protection keys"),
            Self::NoPlace => f.write_str("signal frames of this plan have no place for PKRU"),
            Self::Refused { vector } => write!(f, "CR4.PKE was refused with exception {vector}"),
            Self::NotKept => f.write_str("CR4.PKE was set and reads as clear"),
            Self::LeftOff => f.write_str("the first CPU has no protection keys"),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for PkruError {}

/// The kernel's protection keys: one static. Where the CPU has none, the same calls do nothing.
///
/// | when | call |
/// |---|---|
/// | a CPU is brought up | [`enable_on_this_cpu`](Self::enable_on_this_cpu) |
/// | switch | [`switch`](Self::switch), before `next` accesses user memory |
/// | fork, exec | [`fork`](Self::fork), [`exec`](Self::exec) |
/// | signal, and its return | [`deliver`](Self::deliver), [`sigreturn`](Self::sigreturn) |
/// | the current task's value | [`current`](Self::current), [`set_current`](Self::set_current) |
/// | another task's | [`TaskPkru::read`], [`TaskPkru::write`] |
/// | user memory with other rights | [`with_rights`](Self::with_rights) |
///
/// All calls may be interrupted at any instruction. All except `switch` and `enable_on_this_cpu` may be preempted at
/// any instruction, because a switch moves a thread's register with the thread.
///
/// ```
/// use fpu_x86::{ProtectionKeys, TaskPkru};
/// static KEYS: ProtectionKeys = ProtectionKeys::new();
/// struct Task { pkru: Option<TaskPkru> } // `None`: a kernel thread that leaves user memory alone
/// fn switch_to(prev: &Task, next: &Task) {
///     // switch_prepare(..), and:
///     KEYS.switch(prev.pkru.as_ref(), next.pkru.as_ref());
/// }
/// # switch_to(&Task { pkru: None }, &Task { pkru: None });
/// ```
pub struct ProtectionKeys {
    state: AtomicU8,
    default: Pkru,
}

/// The register of the CPU on which the caller runs. A value exists only where keys are on.
struct OfThisCpu(());

impl Register for OfThisCpu {
    #[inline(always)]
    fn read(&self) -> u32 {
        // SAFETY: N10: the value says that CR4.PKE is set, on every CPU (C44).
        unsafe { insn::rdpkru() }
    }

    #[inline(always)]
    fn write(&self, value: u32) {
        // SAFETY: N10: the value says that CR4.PKE is set, on every CPU (C44). N11: keys are answered (C45).
        unsafe { insn::wrpkru(value) }
    }
}

/// PKU and OSPKE, of CPUID.(7,0):ECX.
const PKU: u32 = 1 << 3;
const OSPKE: u32 = 1 << 4;

/// CPUID.(7,0):ECX.
fn flags() -> u32 {
    match CpuIdReaderNative.cpuid2(0, 0).eax {
        0..=6 => 0,
        _ => CpuIdReaderNative.cpuid2(7, 0).ecx,
    }
}

impl ProtectionKeys {
    /// Protection keys that are not on yet. New programs and signal handlers get [`Pkru::LINUX_DEFAULT`].
    #[must_use]
    pub const fn new() -> Self {
        Self::with_default(Pkru::LINUX_DEFAULT)
    }

    /// As [`new`](Self::new), with another value for new programs and signal handlers.
    #[must_use]
    pub const fn with_default(default: Pkru) -> Self {
        Self { state: AtomicU8::new(UNDECIDED), default }
    }

    /// The value that new programs and signal handlers get.
    #[must_use]
    pub const fn default_value(&self) -> Pkru {
        self.default
    }

    /// Tells whether protection keys are on.
    #[must_use]
    #[inline(always)]
    pub fn are_on(&self) -> bool {
        self.state.load(Relaxed) == ON
    }

    #[inline(always)]
    fn register(&self) -> Option<OfThisCpu> {
        self.are_on().then_some(OfThisCpu(()))
    }

    /// Sets CR4.PKE, and PKRU to the default: on each CPU after [`Plan::enable_on_this_cpu`], and again when it has lost
    /// its control registers. The thread that suspends a machine keeps its own value ([`current`](Self::current), then
    /// [`set_current`](Self::set_current)).
    ///
    /// The first CPU decides for all. XCR0 stays without PKRU, which RDPKRU and WRPKRU do not need.
    ///
    /// # Errors
    ///
    /// See [`PkruError`]; CR4 and PKRU are as before. On the first CPU it means that there are no protection keys, and the
    /// kernel goes on without. On a later one, if [they are on](Self::are_on), it means that this CPU must not run tasks.
    /// A fault becomes an error if the kernel's handlers serve [`fixup`](crate::fixup).
    ///
    /// # Safety
    ///
    /// * Undisturbed in ring 0 (C1) as for [`enable_legacy_on_this_cpu`](crate::enable_legacy_on_this_cpu); in other rings
    ///   it is refused.
    /// * **C44** the first call has returned before another CPU calls; every CPU that uses these keys calls, and gets `Ok`,
    ///   before its first use, and between losing its control registers and its next use; nothing else clears CR4.PKE.
    /// * **C45** code that runs while keys are on finds what it needs in supervisor pages, or reaches user pages only where
    ///   the kernel answers the fault of a key.
    ///
    /// ```no_run
    /// # use fpu_x86::{Components, Plan, ProtectionKeys};
    /// # let plan = Plan::detect_kernel(Components::USER)?;
    /// static KEYS: ProtectionKeys = ProtectionKeys::new();
    /// // SAFETY: C1: interrupts are off. C44: each CPU's bring-up, the boot CPU's first. C45: copies from and to user
    /// // memory have their fault handlers.
    /// if let Err(why) = unsafe { KEYS.enable_on_this_cpu(&plan) } {
    ///     assert!(!KEYS.are_on(), "this CPU differs from the first: {why}");
    /// }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[doc(alias = "setup_pku")]
    pub unsafe fn enable_on_this_cpu(&self, plan: &Plan) -> Result<(), PkruError> {
        // SAFETY: the caller's: undisturbed in ring 0 (C1), keys everywhere (C44), keys answered (C45).
        unsafe { self.enable_given(plan, flags()) }
    }

    /// As [`enable_on_this_cpu`](Self::enable_on_this_cpu), without executing CPUID: `flags` is CPUID.(7,0):ECX, of a
    /// CPU that has leaf 7, and 0 of another.
    ///
    /// # Errors
    ///
    /// As for [`enable_on_this_cpu`](Self::enable_on_this_cpu).
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1), keys everywhere (C44), keys answered (C45), as for
    /// [`enable_on_this_cpu`](Self::enable_on_this_cpu).
    pub unsafe fn enable_given(&self, plan: &Plan, flags: u32) -> Result<(), PkruError> {
        let ring = insn::ring();
        if ring != 0 {
            return Err(PkruError::WrongRing(ring));
        }
        if self.state.load(Relaxed) == OFF {
            return Err(PkruError::LeftOff);
        }
        // SAFETY: undisturbed in ring 0 (C1), keys answered (C45).
        let done = unsafe { turn_on(plan, flags, self.default) };
        self.decide(done.is_ok());
        done
    }

    /// For a program in ring 3: uses the keys that the system has enabled.
    ///
    /// # Errors
    ///
    /// [`PkruError::WrongRing`] in ring 0, [`PkruError::Absent`] if OSPKE is clear.
    ///
    /// # Safety
    ///
    /// Keys answered (C45): a value that forbids key 0 takes the program its stack.
    ///
    /// ```
    /// use fpu_x86::{Pkru, ProtectionKeys, TaskPkru};
    /// let keys = ProtectionKeys::new();
    /// // SAFETY: C45: this program does not close key 0, and has no page of another.
    /// let found = unsafe { keys.use_those_of_system() };
    /// assert_eq!(found.is_ok(), keys.are_on());
    /// let own = TaskPkru::new(Pkru::LINUX_DEFAULT);
    /// assert_eq!(keys.current(&own).is_some(), keys.are_on());
    /// ```
    pub unsafe fn use_those_of_system(&self) -> Result<(), PkruError> {
        if insn::ring() == 0 {
            return Err(PkruError::WrongRing(0));
        }
        self.decide(flags() & OSPKE != 0);
        self.are_on().then_some(()).ok_or(PkruError::Absent)
    }

    /// Only the first CPU's word counts.
    fn decide(&self, on: bool) {
        let state = if on { ON } else { OFF };
        // A later CPU finds it decided; its refusal is its own.
        let _decided = self.state.compare_exchange(UNDECIDED, state, Relaxed, Relaxed);
    }

    /// What the register holds, whichever thread's value that is. `None` where keys are off.
    #[inline(always)]
    pub(crate) fn loaded(&self) -> Option<u32> {
        self.register().map(|on| on.read())
    }

    /// Loads it, where keys are on.
    #[inline(always)]
    pub(crate) fn load(&self, value: u32) {
        if let Some(on) = self.register() {
            on.write(value);
        }
    }

    /// Switches the register from one thread to the next. The kernel calls this as part of the switch of stacks, before
    /// `next` or an interrupt in it accesses user memory. `None` is a thread that never accesses user memory; nothing
    /// is moved for it.
    ///
    /// One RDPKRU, as user mode may have written the register at any time; WRPKRU only if `next` has another value.
    ///
    /// Interrupts or preemption are off, and the two are current before and after, as for
    /// [`switch_prepare`](fpu_core::TaskFpu::switch_prepare).
    #[doc(alias = "x86_pkru_load")]
    #[doc(alias = "write_pkru")]
    #[inline(always)]
    pub fn switch(&self, prev: Option<&TaskPkru>, next: Option<&TaskPkru>) {
        if let Some(register) = self.register() {
            register::switch(&register, prev, next);
        }
    }

    /// The value that the current thread has in user mode, also while the thread runs in a [scope](Self::with_rights).
    /// `None` where keys are off.
    #[doc(alias = "read_pkru")]
    #[must_use]
    pub fn current(&self, thread: &TaskPkru) -> Option<Pkru> {
        self.register().map(|on| register::current(&on, thread))
    }

    /// Gives the current thread another value, as a system call for one key does
    /// ([`Pkru::with`]). Within a [scope](Self::with_rights) the value counts from the scope's end on.
    #[doc(alias = "arch_set_user_pkey_access")]
    pub fn set_current(&self, thread: &TaskPkru, value: Pkru) {
        if let Some(on) = self.register() {
            register::set_current(&on, thread, value);
        }
    }

    /// Gives a child that does not run yet the value of its parent, the current task.
    pub fn fork(&self, parent: &TaskPkru, child: &TaskPkru) {
        if let Some(on) = self.register() {
            child.begin(register::current(&on, parent));
        }
    }

    /// Gives the current task the default, as it begins another program or is begun anew.
    #[doc(alias = "pkru_write_default")]
    pub fn exec(&self, task: &TaskPkru) {
        self.set_current(task, self.default);
    }

    /// Delivers a signal to the current task. `write` gets the value of the interrupted code, for the frame, and puts
    /// the frame on the task's stack. All keys are usable meanwhile, because the stack may lie behind a key. Once
    /// `write` has succeeded the handler has the default. If `write` fails the task has its value of before.
    ///
    /// ```
    /// use fpu_x86::{DeliverError, InMemory, Pkru, Plan, ProtectionKeys, TaskPkru};
    /// /// `session` has the task's registers in memory; `copy` copies to user memory.
    /// fn deliver<E>(
    ///     keys: &ProtectionKeys, task: &TaskPkru, plan: &Plan, session: impl InMemory, buffer: &mut [u8],
    ///     copy: impl FnOnce(&[u8]) -> Result<(), E>,
    /// ) -> Result<usize, DeliverError<E>> {
    ///     keys.deliver(task, |interrupted| {
    ///         keys.format(plan).deliver(session, interrupted.map(Pkru::bits), buffer, copy)
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `write`.
    #[doc(alias = "sig_prepare_pkru")]
    pub fn deliver<T, E>(
        &self,
        task: &TaskPkru,
        write: impl FnOnce(Option<Pkru>) -> Result<T, E>,
    ) -> Result<T, E> {
        match self.register() {
            Some(on) => register::deliver(&on, task, self.default, |found| write(Some(found))),
            None => write(None),
        }
    }

    /// Returns the current task from a signal handler: gives the task the frame's value, by
    /// [`Returned::pkru`](crate::Returned::pkru) or [`SignalFrame::pkru`](crate::SignalFrame::pkru). A frame without
    /// the component has its initial value ([`Pkru::INITIAL`]), not the handler's; `None` is a format without PKRU.
    ///
    /// The kernel has read the frame before, with the handler's own rights. With more rights a task could get into its
    /// registers what it may not read.
    pub fn sigreturn(&self, task: &TaskPkru, pkru: Option<u32>) {
        if let Some(bits) = pkru {
            self.set_current(task, Pkru::from_bits(bits));
        }
    }

    /// Runs `f`, which accesses user memory, with these rights instead of the current thread's: those of another task for which a
    /// kernel thread works, or [`Pkru::INITIAL`] where the kernel acts for itself.
    ///
    /// Afterwards the thread has its own rights again, however `f` returns. Scopes nest; `f` may be preempted, and may
    /// sleep.
    ///
    /// ```
    /// use fpu_x86::{Pkru, ProtectionKeys, TaskPkru};
    /// struct Request { rights: Option<Pkru>, /* where from, where to */ }
    /// /// In the task that asks.
    /// fn ask(keys: &ProtectionKeys, task: &TaskPkru) -> Request {
    ///     Request { rights: keys.current(task) }
    /// }
    /// /// In the kernel thread that serves, which has a cell of its own.
    /// fn serve(keys: &ProtectionKeys, worker: &TaskPkru, request: &Request, copy: impl FnOnce()) {
    ///     keys.with_rights(worker, request.rights.unwrap_or(Pkru::INITIAL), copy)
    /// }
    /// # let (keys, cell) = (ProtectionKeys::new(), TaskPkru::new(Pkru::INITIAL));
    /// # let mut done = false;
    /// # serve(&keys, &cell, &ask(&keys, &cell), || done = true);
    /// # assert!(done);
    /// ```
    pub fn with_rights<T>(&self, thread: &TaskPkru, rights: Pkru, f: impl FnOnce() -> T) -> T {
        let register = self.register();
        let _scope = register.as_ref().map(|on| Scope::open(on, thread, rights));
        f()
    }

    /// [`Plan::user_format`], without PKRU where keys are off.
    #[must_use]
    pub fn format<'p>(&self, plan: &'p Plan) -> UserFormat<'p> {
        let format = plan.user_format();
        if self.are_on() {
            format
        } else {
            format.without_pkru()
        }
    }
}

impl Default for ProtectionKeys {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ProtectionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectionKeys")
            .field("on", &self.are_on())
            .field("default", &self.default)
            .finish()
    }
}

/// # Safety
///
/// Undisturbed in ring 0 (C1), keys answered (C45).
unsafe fn turn_on(plan: &Plan, flags: u32, default: Pkru) -> Result<(), PkruError> {
    if flags & PKU == 0 {
        return Err(PkruError::Absent);
    }
    if !plan.user_format().components().contains(Components::PKRU) {
        return Err(PkruError::NoPlace);
    }
    // SAFETY: N4, N5: undisturbed in ring 0 (C1), and the other bits are kept. N10: CR4.PKE reads as set. N11: keys
    // answered (C45).
    unsafe {
        match insn::try_set_cr4(insn::cr4() | CR4_PKE) {
            0 if insn::cr4() & CR4_PKE == 0 => Err(PkruError::NotKept),
            0 => {
                insn::wrpkru(default.bits());
                Ok(())
            }
            vector => Err(PkruError::Refused { vector }),
        }
    }
}
