//! A CPU's two words, and the calls for online, offline, resume and idle.

use core::fmt;

use crate::{
    backend::IdleFpu,
    error::Error,
    observe::{Event, EventKind},
    protocol::{
        closed::{self, Closed},
        cpu_word::gate,
    },
    sync::{AtomicU64, Ordering},
    witness::{CpuWords, Pinned, SoftFloat},
};

/// The per-CPU state, for kernels whose per-CPU data can hold a struct. Two words, zero at first, alone
/// in 64 bytes: every restore writes one, so two CPUs must not share a cache line (64 bytes on x86 and most others).
///
/// The fields' offsets are [`RESIDENT_OFFSET`](Self::RESIDENT_OFFSET) and
/// [`GATE_OFFSET`](Self::GATE_OFFSET), for [assembly](crate::raw).
///
/// ```
/// static CPU0: fpu_core::CpuFpu = fpu_core::CpuFpu::new();
/// # let _ = &CPU0;
/// ```
#[doc(alias = "fpu_fpregs_owner_ctx")]
#[doc(alias = "kernel_fpu_allowed")]
#[repr(C, align(64))]
pub struct CpuFpu {
    resident: AtomicU64,
    gate: AtomicU64,
}

impl CpuFpu {
    /// Offset in bytes of the word that is compared.
    pub const RESIDENT_OFFSET: usize = 0;
    /// Offset in bytes of the gate.
    pub const GATE_OFFSET: usize = 8;

    /// The state of a CPU that was never online.
    ///
    /// ```
    /// use fpu_core::{CpuFpu, CpuWords};
    /// let cpu = CpuFpu::new();
    /// assert_eq!((cpu.resident(), cpu.gate()), (0, 0));
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { resident: AtomicU64::new(0), gate: AtomicU64::new(0) }
    }
}

impl Default for CpuFpu {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CpuFpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuFpu {{ resident: {:#x}, gate: {} }}", self.resident(), self.gate())
    }
}

// SAFETY: K13: plain words, never reset by this type. K14: a relaxed 8-byte access is one instruction.
// Relaxed is enough: only their own CPU accesses the words (K3).
unsafe impl CpuWords for CpuFpu {
    #[inline(always)]
    fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }
    #[inline(always)]
    unsafe fn set_resident(&self, word: u64) {
        self.resident.store(word, Ordering::Relaxed);
    }
    #[inline(always)]
    fn gate(&self) -> u64 {
        self.gate.load(Ordering::Relaxed)
    }
    #[inline(always)]
    unsafe fn set_gate(&self, word: u64) {
        self.gate.store(word, Ordering::Relaxed);
    }
}

/// A CPU's lifecycle: online, offline, resume, idle. Implemented for every [`Pinned`] witness.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::CpuLifecycle;
/// # let mut cpu = offline_cpu();
/// // SAFETY: K15, K16: the only CPU there is, number 0, its words new.
/// unsafe { cpu.fpu_online(0)? };
/// cpu.fpu_offline()?;            // last thing on the CPU, after its last task was switched out
/// // SAFETY: K15, K16: the same number as before, the words kept.
/// unsafe { cpu.fpu_online(0)? }; // no claim of before survives
/// # Ok::<(), fpu_core::Error>(())
/// ```
pub trait CpuLifecycle: Pinned {
    /// Lets this CPU hold contexts. Registers, control registers and masks are set up before.
    ///
    /// # Errors
    ///
    /// [`Error::Nmi`]; [`Error::CpuOnline`]; [`Error::InvalidCpu`] for a number of
    /// [`MAX_CPUS`](crate::MAX_CPUS) or more; [`Error::Exhausted`] if the number has been used up. Nothing has
    /// changed.
    ///
    /// # Safety
    ///
    /// * **K15** no other CPU has, or ever had, this number. This CPU may have had it, but then no other
    ///   number since: a number that was given up for another is never taken again, as the count of its
    ///   stamps would start again.
    /// * **K16** if this CPU had the number before, its words are as they were left then (K13).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let mut cpu = offline_cpu();
    /// // SAFETY: K15, K16: the only CPU, its words new.
    /// unsafe { cpu.fpu_online(5)? };
    /// // SAFETY: K15, K16: the same again.
    /// let again = unsafe { cpu.fpu_online(5) };
    /// assert_eq!(again, Err(fpu_core::Error::CpuOnline));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu__init_cpu")]
    unsafe fn fpu_online(&mut self, number: u32) -> Result<(), Error> {
        closed::come_online(self, number)?;
        self.observe(Event { kind: EventKind::Invalidated, context: 0 });
        Ok(())
    }

    /// Takes this CPU offline: no claim on its registers survives, and kernel FPU use and restores are refused.
    ///
    /// A task that is live here at this moment has not been saved; its next use reports
    /// [`Error::Lost`] or [`Error::LiveElsewhere`]. Switch it out first.
    ///
    /// # Errors
    ///
    /// [`Error::CpuOffline`] if it is not online; [`Error::Busy`] inside a section or session, a forgotten
    /// one included; [`Error::Nmi`]. Nothing has changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// cpu.fpu_offline()?;
    /// assert!(task.switch_return(&mut cpu).is_err());
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu__disable_cpu")]
    fn fpu_offline(&mut self) -> Result<(), Error>
    where
        Self: Sized,
    {
        closed::go_offline(self)?;
        self.observe(Event { kind: EventKind::Invalidated, context: 0 });
        Ok(())
    }

    /// Ends the claim on this CPU's registers, because other code than a task of this crate is
    /// about to overwrite them, or has done so.
    ///
    /// Interrupts are off from this call until the registers are overwritten, or from then until this call
    /// (K9): an interrupt
    /// in between may run a section and a [persistent context](crate::KernelFpu::run_guest), whose claim
    /// is younger than this call.
    ///
    /// # Errors
    ///
    /// [`Error::Nmi`], [`Error::CpuOffline`], [`Error::Busy`], [`Error::Exhausted`]. Nothing has changed,
    /// except with `Exhausted`: the claim ends then too, and this CPU can load nothing any more.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// task.open(&mut cpu)?.make_registers_valid()?;
    /// cpu.invalidate_registers()?; // firmware is about to use them
    /// assert!(!task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "__cpu_invalidate_fpregs_state")]
    fn invalidate_registers(&mut self) -> Result<(), Error>
    where
        Self: Sized,
    {
        closed::invalidate(self)?;
        self.observe(Event { kind: EventKind::Invalidated, context: 0 });
        Ok(())
    }

    /// Ends the claim on registers that lost their contents while the CPU stayed online and kept its control registers
    /// and its words, as after an idle state that cuts the core's power. The kernel switched the live task out before,
    /// because its registers cannot be saved any more. This call is the first into this crate on this CPU after
    /// power-on, interrupts included (K9).
    ///
    /// A suspend that takes the control registers too (S3) is [`fpu_offline`](Self::fpu_offline) before it, then the
    /// set-up of the control registers while the CPU's word is not open, then [`fpu_online`](Self::fpu_online) with the same
    /// number.
    ///
    /// # Errors
    ///
    /// As for [`invalidate_registers`](Self::invalidate_registers).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// task.open(&mut cpu)?.make_registers_valid()?;
    /// cpu.fpu_resume()?;
    /// assert!(!task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu__resume_cpu")]
    fn fpu_resume(&mut self) -> Result<(), Error>
    where
        Self: Sized,
    {
        self.invalidate_registers()
    }

    /// Gives up registers that would keep the core from its deepest idle states (on x86: AMX tiles). The idle loop
    /// calls this before the core sleeps, after the last task was switched out, and not before every short pause: the
    /// call closes and opens the CPU, asks the hardware, and may cost the task that resumes a restore.
    ///
    /// `Ok(true)`: there were such registers. These registers are in their initial state now, and the
    /// context that the CPU claimed is in memory only ([`Invalidated`](EventKind::Invalidated) is told).
    /// `Ok(false)`: there were none, and nothing has changed: the context that the registers still hold
    /// needs no restore.
    ///
    /// The call does not save. A task that is live here at this moment has not been switched out. If its
    /// registers are given up, its state is lost, and its next use reports [`Error::Lost`].
    ///
    /// Until the call returns, this CPU refuses sections with [`Error::Busy`], in interrupts too. If
    /// interrupts are on, a section may run between this call and the sleep; a section that does not use
    /// these registers leaves them alone.
    ///
    /// # Errors
    ///
    /// [`Error::Nmi`], [`Error::CpuOffline`], [`Error::Busy`], [`Error::Exhausted`]. Nothing has changed.
    /// With `Exhausted` too the call gives up no registers, so the claim can stand. After an error the
    /// core can still sleep, if less deeply.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// task.switch_prepare(&cpu)?;              // to the idle task
    /// assert_eq!(cpu.fpu_idle(), Ok(false));   // no tiles in use
    /// assert!(task.registers_valid(&cpu));
    ///
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_tile0(7);                        // user mode
    /// task.switch_prepare(&cpu)?;
    /// assert_eq!(cpu.fpu_idle(), Ok(true));    // then HLT or MWAIT
    /// assert_eq!(cpu.tile0(), 0);
    /// drop(task.switch_return(&mut cpu)?);     // restores
    /// assert_eq!(cpu.tile0(), 7);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu_idle_fpregs")]
    fn fpu_idle(&mut self) -> Result<bool, Error>
    where
        Self: SoftFloat + Sized,
        Self::Backend: IdleFpu,
    {
        let mut closed = Closed::new(self, gate::SESSION)?;
        // SAFETY: C10: pinned (K2), enabled (K4), soft-float (K9); the CPU is closed.
        if !unsafe { closed.cpu().backend().keeps_awake() } {
            return Ok(false);
        }
        closed.end_claims();
        // SAFETY: C10: pinned (K2), enabled (K4), soft-float (K9); the CPU is still closed, and `keeps_awake` has just
        // answered. No code needs the registers: the stamp with which the CPU will reopen is no context's.
        unsafe { closed.cpu().backend().release() };
        let cpu = closed.into_cpu();
        cpu.observe(Event { kind: EventKind::Invalidated, context: 0 });
        Ok(true)
    }
}

impl<C: Pinned> CpuLifecycle for C {}
