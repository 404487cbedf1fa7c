//! One state of a session, and the transitions out of it.

use core::{fmt, marker::PhantomData};

use super::state::{
    Both, BothValid, MemoryOnly, MemoryStale, MemoryValid, MemoryWritable, RegistersOnly,
    RegistersStale, State, Unclaimed,
};
use crate::{
    backend::RawFpu,
    error::Error,
    observe::EventKind,
    protocol::{
        closed::Closed,
        steps::{self, FpuRef},
        word::{TaskWord, Word},
    },
    task::UserReady,
    witness::{Exclusive, Pinned, SoftFloat},
};

/// A task's state, in state `S`. While a session lives, this CPU refuses kernel FPU sections
/// with [`Error::Busy`], in interrupts too, so keep sessions short. Drop ends the session.
///
/// The transitions are those of [`State`].
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (mut cpu, task) = cpu_and_task();
/// // A signal frame: read the image, whatever the state.
/// let session = task.open(&mut cpu)?.make_memory_valid_read();
/// let frame = session.image();
/// # let _ = frame;
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[must_use = "the CPU is closed to other users of the registers until this is dropped"]
pub struct Session<'s, C: Pinned, S: State> {
    pub(crate) task: FpuRef<'s, C::Backend>,
    pub(crate) closed: Closed<'s, C>,
    pub(crate) state: PhantomData<(S, *mut ())>,
}

impl<C: Pinned, S: State> fmt::Debug for Session<'_, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", S::NAME)
    }
}

// A required state is a bound on the method, not on the block: only then does the compiler print the
// text of `state.rs` that says which call is missing. So is `SoftFloat`, which is asked of what saves, loads or
// relies on the registers: the rest is for kernels compiled with vector instructions too (`TaskFpu::open_saved`).
impl<'s, C: Pinned, S: State> Session<'s, C, S> {
    fn word(&self) -> &TaskWord {
        self.task.word
    }
    fn become_state<T: State>(self) -> Session<'s, C, T> {
        Session { task: self.task, closed: self.closed, state: PhantomData }
    }

    /// The image in memory.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let session = task.open(&mut cpu)?.make_memory_valid_write();
    /// assert_eq!(session.image().avx0(), 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "get_xsave_field_ptr")]
    #[must_use]
    pub fn image(&self) -> <C::Backend as RawFpu>::Image<'_>
    where
        S: MemoryValid,
    {
        // SAFETY: C9: checked in `new`. C11: this CPU is closed, so no save runs, and `image_mut`
        // needs the session exclusively.
        unsafe { self.closed.cpu().backend().image(self.task.area) }
    }

    /// The image in memory, to be changed. The task runs next with what is written.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let mut session = task.open(&mut cpu)?.make_memory_valid_write();
    /// session.image_mut().set_avx0(5);
    /// drop(session);
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn image_mut(&mut self) -> <C::Backend as RawFpu>::ImageMut<'_>
    where
        S: Unclaimed,
    {
        // SAFETY: C9: checked in `new`. C11: this CPU is closed, and the session is borrowed exclusively: no other
        // code writes or reads.
        unsafe { self.closed.cpu().backend().image_mut(self.task.area) }
    }

    /// Loads the registers from memory: state 2b becomes 2a.
    ///
    /// # Errors
    ///
    /// [`Error::RestoreFailed`]: the registers are undefined and unowned; the image is as before.
    /// [`Error::Exhausted`]: nothing has changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// cpu.fail_next_restore();
    /// let failed = task.open(&mut cpu)?.make_memory_valid_write().make_registers_valid().err();
    /// assert_eq!(failed, Some(fpu_core::Error::RestoreFailed(fpu_core::RestoreFault(14))));
    /// assert!(!task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn make_registers_valid(mut self) -> Result<Session<'s, C, Both>, Error>
    where
        C: SoftFloat,
        S: RegistersStale,
    {
        let stamp = self.closed.issue()?;
        // SAFETY: C19: checked in `new`; current here (K5). C20: this CPU is closed. C22: it will be reopened with the
        // new stamp.
        unsafe { steps::load_beside(self.task, self.closed.cpu(), stamp) }?;
        Ok(self.become_state())
    }

    fn save(&self, word: Word)
    where
        C: SoftFloat,
        S: MemoryStale,
    {
        // SAFETY: C19: checked in `new`; current here (K5). C20: this CPU has been closed since the word was compared.
        // C21: so the state says.
        unsafe { steps::save(self.task, self.closed.cpu(), word) };
    }

    /// Saves. The image can be read, and the registers are still valid.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// if let TaskState::RegistersOnly(session) = task.open(&mut cpu)? {
    ///     let both = session.make_memory_valid_read();
    ///     assert_eq!(both.image().avx0(), 0);
    /// }
    /// assert_eq!(cpu.totals().saved, 1);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn make_memory_valid_read(self) -> Session<'s, C, Both>
    where
        C: SoftFloat,
        S: MemoryStale,
    {
        self.save(Word::both(self.closed.stamp()));
        self.become_state()
    }

    /// Saves and ends the session. The task can be switched out, and the registers still hold it.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// if let TaskState::RegistersOnly(session) = task.open(&mut cpu)? {
    ///     session.switch_prepare();
    /// }
    /// assert_eq!(cpu.totals().saved, 1);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn switch_prepare(self)
    where
        C: SoftFloat,
        S: MemoryStale,
    {
        self.save(Word::both(self.closed.stamp()));
        self.task.tell(self.closed.cpu(), EventKind::Unloaded);
    }

    /// Ends the registers' claim, *before* memory is written.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// task.open(&mut cpu)?.make_registers_valid()?;
    /// if let TaskState::Both(session) = task.open(&mut cpu)? {
    ///     drop(session.invalidate_registers());
    /// }
    /// assert!(!task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[doc(alias = "__fpu_invalidate_fpregs_state")]
    pub fn invalidate_registers(self) -> Session<'s, C, MemoryWritable>
    where
        S: BothValid,
    {
        self.drop_claim();
        self.become_state()
    }

    fn drop_claim(&self) {
        self.word().publish(Word::NOWHERE);
        self.task.tell(self.closed.cpu(), EventKind::Invalidated);
    }
}

impl<'s, C: SoftFloat> Session<'s, C, RegistersOnly> {
    /// Saves and ends the registers' claim. The image can be written.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// drop(task.switch_return(&mut cpu)?);
    /// if let TaskState::RegistersOnly(session) = task.open(&mut cpu)? {
    ///     session.make_memory_valid_write().image_mut().set_avx0(5);
    /// }
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn make_memory_valid_write(self) -> Session<'s, C, MemoryWritable> {
        self.save(Word::NOWHERE);
        self.task.tell(self.closed.cpu(), EventKind::Invalidated);
        self.become_state()
    }
}

impl<'s, C: Pinned> Session<'s, C, Both> {
    /// [`invalidate_registers`](Self::invalidate_registers) under the name of its purpose: the image
    /// can be written.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// task.open(&mut cpu)?.make_registers_valid()?;
    /// if let TaskState::Both(session) = task.open(&mut cpu)? {
    ///     session.make_memory_valid_write().image_mut().set_avx0(5);
    /// }
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn make_memory_valid_write(self) -> Session<'s, C, MemoryWritable> {
        self.invalidate_registers()
    }

    /// Ends the session on the way to user mode. The registers are valid.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// if let TaskState::MemoryOnly(session) = task.open(&mut cpu)? {
    ///     let ready = session.make_registers_valid()?.switch_return();
    ///     # drop(ready);
    ///     // enter_user(ready)
    /// }
    /// assert!(task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn switch_return(self) -> UserReady<'s, C>
    where
        C: Exclusive + SoftFloat,
    {
        self.word().mark_live(self.closed.stamp());
        self.task.tell(self.closed.cpu(), EventKind::Loaded);
        UserReady { _cpu: self.closed.into_cpu(), not_send: PhantomData }
    }
}

impl<'s, C: Pinned> Session<'s, C, MemoryOnly> {
    /// Ends the claim of any CPU's registers. The image can be written. Since the task left another CPU
    /// it has not been in user mode, so that CPU's registers may still hold its state, and the task may
    /// run there next.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// if let TaskState::MemoryOnly(session) = task.open(&mut cpu)? {
    ///     session.make_memory_valid_write().image_mut().set_avx0(5);
    /// }
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn make_memory_valid_write(self) -> Session<'s, C, MemoryWritable> {
        if self.word().load() != Word::NOWHERE {
            self.drop_claim();
        }
        self.become_state()
    }

    /// Ends the session on the way to user mode, and loads the registers.
    ///
    /// # Errors
    ///
    /// As for [`make_registers_valid`](Self::make_registers_valid).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// if let TaskState::MemoryOnly(session) = task.open(&mut cpu)? {
    ///     let ready = session.switch_return()?;
    ///     # drop(ready);
    ///     // enter_user(ready)
    /// }
    /// assert!(task.registers_valid(&cpu));
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn switch_return(self) -> Result<UserReady<'s, C>, Error>
    where
        C: Exclusive + SoftFloat,
    {
        Ok(self.make_registers_valid()?.switch_return())
    }
}

impl<'s, C: SoftFloat> Session<'s, C, MemoryWritable> {
    /// Ends the session, loads the registers and goes to user mode.
    ///
    /// # Errors
    ///
    /// As for [`make_registers_valid`](Self::make_registers_valid).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// let mut session = task.open(&mut cpu)?.make_memory_valid_write();
    /// session.image_mut().set_avx0(5); // what a signal handler starts with
    /// let ready = session.switch_return()?;
    /// # drop(ready);
    /// // enter_user(ready)
    /// assert_eq!(cpu.avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn switch_return(self) -> Result<UserReady<'s, C>, Error>
    where
        C: Exclusive,
    {
        Ok(self.make_registers_valid()?.switch_return())
    }
}
