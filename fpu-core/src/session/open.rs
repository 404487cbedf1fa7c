//! Opening a task's state: whichever state it is in, the calls that need not know, and the fork.

use core::{fmt, marker::PhantomData};

use super::{
    state::{Both, MemoryOnly, MemoryWritable, RegistersOnly, State},
    typed::Session,
};
use crate::{
    area::SaveArea,
    backend::RawFpu,
    error::Error,
    protocol::{closed::Closed, cpu_word::gate, steps::FpuRef, word::Place},
    task::TaskFpu,
    witness::{Pinned, SoftFloat},
};

/// A task's state, opened: one handle, with only the calls that are right in that state.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// match task.open(&mut cpu)? {
///     TaskState::RegistersOnly(s) => drop(s.make_memory_valid_read()),
///     TaskState::Both(s) => drop(s),
///     TaskState::MemoryOnly(s) => drop(s),
/// }
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[must_use = "the CPU is closed to other users of the registers until this is dropped"]
pub enum TaskState<'s, C: Pinned> {
    /// State 1.
    RegistersOnly(Session<'s, C, RegistersOnly>),
    /// State 2a.
    Both(Session<'s, C, Both>),
    /// State 2b on this CPU. Registers of another CPU may hold the state too.
    MemoryOnly(Session<'s, C, MemoryOnly>),
}

impl<C: Pinned> fmt::Debug for TaskState<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RegistersOnly(session) => session.fmt(f),
            Self::Both(session) => session.fmt(f),
            Self::MemoryOnly(session) => session.fmt(f),
        }
    }
}

impl<B: RawFpu, A: SaveArea> TaskFpu<B, A> {
    /// Opens the task's state on this CPU, wherever it is: the task is current here, or the caller holds its context
    /// exclusively (K5).
    ///
    /// A debugger's callback or a framework often has the context behind a lock, as `&mut TaskFpu`, and does not know
    /// whether the task is current here or stopped. This one call serves both, on any CPU. If the registers of another CPU
    /// still claim a stopped task, reading leaves that claim, which stays right, and
    /// [`make_memory_valid_write`](TaskState::make_memory_valid_write) ends it before the image can be written. A task that
    /// was not switched out elsewhere is refused ([`Error::LiveElsewhere`]). Of a task that is not current here, read and write the
    /// image, and leave out [`make_registers_valid`](TaskState::make_registers_valid): it loads over the
    /// current task, which has to be switched out before that.
    ///
    /// # Errors
    ///
    /// [`Error::Nmi`], [`Error::CpuOffline`], [`Error::Busy`], [`Error::Exhausted`]: the CPU cannot be
    /// closed.
    /// [`Error::LiveElsewhere`], [`Error::Lost`]: this CPU cannot reach the state. Nothing has
    /// changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// assert_eq!(task.open(&mut cpu)?.name(), "memory only");
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(task.open(&mut cpu)?.name(), "registers only");
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// /// Whether it runs here or is stopped: `&mut` proves that no other code uses it.
    /// fn poke(task: &mut Task, cpu: &mut Cpu, value: u64) -> Result<u64, fpu_core::Error> {
    ///     let mut session = task.open(cpu)?.make_memory_valid_write();
    ///     let old = session.image().avx0();
    ///     session.image_mut().set_avx0(value);
    ///     Ok(old)
    /// }
    /// # let (mut cpu, mut task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// assert_eq!(poke(&mut task, &mut cpu, 8)?, 7);   // its only copy was in the registers
    /// drop(task.switch_return(&mut cpu)?);
    /// task.switch_prepare(&cpu)?;                     // stopped; the registers still claim it
    /// assert_eq!(poke(&mut task, &mut cpu, 9)?, 8);
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 9);                      // the claim had ended
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[inline]
    pub fn open<'s, C>(&'s self, cpu: &'s mut C) -> Result<TaskState<'s, C>, Error>
    where
        C: SoftFloat + Pinned<Backend = B>,
    {
        TaskState::of(self.context(), Closed::new(cpu, gate::SESSION)?)
    }

    /// Fork: copies this task's state, which is the current task's, into `child`. No CPU's registers hold `child`.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open); the child is then unchanged.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// let mut child = new_task();
    /// task.fork_into(&mut cpu, &mut child)?;
    /// assert!(task.registers_valid(&cpu) && !child.registers_valid(&cpu));
    /// drop(child.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 7);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu_clone")]
    pub fn fork_into<C, A2>(&self, cpu: &mut C, child: &mut TaskFpu<B, A2>) -> Result<(), Error>
    where
        C: SoftFloat + Pinned<Backend = B>,
        A2: SaveArea,
    {
        self.open(cpu)?.make_memory_valid_read().fork_into(child);
        Ok(())
    }

    /// Opens the state of a task that memory holds, and executes no instruction: for kernels compiled with vector
    /// instructions, whose witness is no [`SoftFloat`]. What the session offers such a kernel is reading, writing and
    /// [fork](ReadSession::fork_into).
    ///
    /// Memory holds the task where the kernel's entry has saved it ([`UserSteps`](crate::UserSteps)), or once the steps
    /// of [`begin_switch_out`](Self::begin_switch_out) are executed.
    ///
    /// # Errors
    ///
    /// [`Error::LiveHere`]: this CPU's registers are the only copy; execute those steps, and call again. Otherwise as
    /// for [`open`](Self::open). Nothing has changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// task.open_saved(&mut cpu)?.make_memory_valid_write().image_mut().set_avx0(5);
    /// drop(task.switch_return(&mut cpu)?); // the registers are the only copy now
    /// assert_eq!(cpu.avx0(), 5);
    /// assert_eq!(task.open_saved(&mut cpu).err(), Some(fpu_core::Error::LiveHere));
    /// if let Some(pending) = task.begin_switch_out(&mut cpu)? {
    ///     // SAFETY: `pending` is alive; C15: the save was executed just now.
    ///     unsafe {
    ///         sim_save(pending.steps()); // assembly
    ///         pending.saved();
    ///     }
    /// }
    /// assert_eq!(task.open_saved(&mut cpu)?.image().avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn open_saved<'s, C>(&'s self, cpu: &'s mut C) -> Result<ReadSession<'s, C>, Error>
    where
        C: Pinned<Backend = B>,
    {
        let closed = Closed::new(cpu, gate::SESSION)?;
        let (task, word) = (self.context(), self.word.load());
        match closed.place(word) {
            Place::Both => Ok(ReadSession::Both(Session { task, closed, state: PhantomData })),
            Place::Memory => {
                Ok(ReadSession::MemoryOnly(Session { task, closed, state: PhantomData }))
            }
            Place::Registers | Place::Elsewhere => Err(closed.refuse(word)),
        }
    }
}

impl<'s, C: SoftFloat> TaskState<'s, C> {
    /// Of a CPU that is closed.
    #[inline]
    pub(crate) fn of(task: FpuRef<'s, C::Backend>, closed: Closed<'s, C>) -> Result<Self, Error> {
        let word = task.word.load();
        Ok(match closed.place(word) {
            Place::Registers => {
                TaskState::RegistersOnly(Session { task, closed, state: PhantomData })
            }
            Place::Both => TaskState::Both(Session { task, closed, state: PhantomData }),
            Place::Memory => TaskState::MemoryOnly(Session { task, closed, state: PhantomData }),
            Place::Elsewhere => return Err(closed.refuse(word)),
        })
    }
    /// Saves if the registers are the only copy; then the image can be read.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// cpu.set_avx0(7);
    /// let session = task.open(&mut cpu)?.make_memory_valid_read();
    /// assert_eq!(session.image().avx0(), 7);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu_sync_fpstate")]
    #[doc(alias = "user_fpregs_copy_to_memory")]
    pub fn make_memory_valid_read(self) -> ReadSession<'s, C> {
        match self {
            TaskState::RegistersOnly(s) => ReadSession::Both(s.make_memory_valid_read()),
            TaskState::Both(s) => ReadSession::Both(s),
            TaskState::MemoryOnly(s) => ReadSession::MemoryOnly(s),
        }
    }
    /// Saves if the registers are the only copy, and ends the claim on this CPU's or another CPU's
    /// registers; then the image can be written.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// task.open(&mut cpu)?.make_memory_valid_write().image_mut().set_avx0(5);
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "fpu_force_restore")]
    #[doc(alias = "user_fpregs_move_to_memory")]
    pub fn make_memory_valid_write(self) -> Session<'s, C, MemoryWritable> {
        match self {
            TaskState::RegistersOnly(s) => s.make_memory_valid_write(),
            TaskState::Both(s) => s.make_memory_valid_write(),
            TaskState::MemoryOnly(s) => s.make_memory_valid_write(),
        }
    }
    /// Restores if the registers do not hold the state. Afterwards the registers hold the state.
    ///
    /// # Errors
    ///
    /// As for [`Session::make_registers_valid`].
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// task.open(&mut cpu)?.make_registers_valid()?;
    /// assert!(task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "user_fpregs_copy_to_cpu")]
    pub fn make_registers_valid(self) -> Result<(), Error> {
        match self {
            TaskState::RegistersOnly(_) | TaskState::Both(_) => Ok(()),
            TaskState::MemoryOnly(s) => s.make_registers_valid().map(drop),
        }
    }
    /// The name of the state, as in the theory statement.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// assert_eq!(task.open(&mut cpu)?.name(), "memory only");
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            TaskState::RegistersOnly(_) => RegistersOnly::NAME,
            TaskState::Both(_) => Both::NAME,
            TaskState::MemoryOnly(_) => MemoryOnly::NAME,
        }
    }
    pub(crate) fn cpu(&self) -> &C {
        match self {
            TaskState::RegistersOnly(s) => s.closed.cpu(),
            TaskState::Both(s) => s.closed.cpu(),
            TaskState::MemoryOnly(s) => s.closed.cpu(),
        }
    }
}

/// A state in which the image can be read, 2a or 2b.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// let session = task.open(&mut cpu)?.make_memory_valid_read();
/// let image = session.image();
/// # let _ = image;
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[must_use = "the CPU is closed to other users of the registers until this is dropped"]
pub enum ReadSession<'s, C: Pinned> {
    /// State 2a.
    Both(Session<'s, C, Both>),
    /// State 2b on this CPU. Registers of another CPU may hold the state too.
    MemoryOnly(Session<'s, C, MemoryOnly>),
}

impl<C: Pinned> fmt::Debug for ReadSession<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both(session) => session.fmt(f),
            Self::MemoryOnly(session) => session.fmt(f),
        }
    }
}

impl<'s, C: Pinned> ReadSession<'s, C> {
    /// The image.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let session = task.open(&mut cpu)?.make_memory_valid_read();
    /// assert_eq!(session.image().avx0(), 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn image(&self) -> <C::Backend as RawFpu>::Image<'_> {
        match self {
            ReadSession::Both(s) => s.image(),
            ReadSession::MemoryOnly(s) => s.image(),
        }
    }
    /// Ends the claim on this CPU's or another CPU's registers; then the image can be written.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let session = task.open(&mut cpu)?.make_memory_valid_read();
    /// let old = session.image().avx0();
    /// session.make_memory_valid_write().image_mut().set_avx0(old + 1);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn make_memory_valid_write(self) -> Session<'s, C, MemoryWritable> {
        match self {
            ReadSession::Both(s) => s.make_memory_valid_write(),
            ReadSession::MemoryOnly(s) => s.make_memory_valid_write(),
        }
    }
    /// Fork: copies the task's state, which is the current task's, into `child`. No CPU's registers hold `child`.
    /// [`TaskFpu::fork_into`] does both steps.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// # task.open_saved(&mut cpu)?.make_memory_valid_write().image_mut().set_avx0(7);
    /// let mut child = new_task();
    /// task.open_saved(&mut cpu)?.fork_into(&mut child);
    /// assert_eq!(child.open_saved(&mut cpu)?.image().avx0(), 7);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn fork_into<A>(&self, child: &mut TaskFpu<C::Backend, A>)
    where
        A: SaveArea,
    {
        let task = match self {
            ReadSession::Both(s) => s.task,
            ReadSession::MemoryOnly(s) => s.task,
        };
        // Before the child's memory changes: some CPU's registers may hold its earlier state.
        child.word.mark_nowhere();
        // SAFETY: valid area (C9) for both: each was checked against this backend (K1) in `new`; `child` is
        // borrowed exclusively and is another value, so they do not overlap (K18).
        unsafe { self.cpu().backend().copy_for_child(task.area, child.base()) };
    }

    pub(crate) fn cpu(&self) -> &C {
        match self {
            ReadSession::Both(s) => s.closed.cpu(),
            ReadSession::MemoryOnly(s) => s.closed.cpu(),
        }
    }
}
