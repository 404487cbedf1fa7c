//! Access to a task that does not run, for a debugger or a core dump.

use core::{fmt, marker::PhantomData};

use crate::{
    area::SaveArea,
    backend::{RawFpu, TheBackend},
    error::Error,
    protocol::{steps::FpuRef, word::Word},
    task::TaskFpu,
};

/// Proof that a task does not run and cannot be woken, as a debugger holds it. The proof holds the task's context too,
/// borrowed or owned, because another context could later have the same address.
///
/// # Safety
///
/// While a value lives:
///
/// * **K10** the task of its [`context`](Self::context) is switched out: its registers have been saved, by
///   [`switch_prepare`](crate::TaskFpu::switch_prepare) or by whatever this kernel has instead
///   ([`PendingSave::saved`](crate::PendingSave::saved), [`PendingUser::round_trip_done`](crate::PendingUser::round_trip_done),
///   [`Session::switch_prepare`](crate::session::Session::switch_prepare), [`raw::saved`](crate::raw::saved)), no session
///   or `Pending` value of it is alive, and all that is ordered before this value. It will not be switched in, and
///   dropping the value is ordered before its next switch-in.
/// * **K11** no other value holds the same context.
///
/// And always:
///
/// * **K12** [`context`](Self::context) is the same at each call.
///
/// ```
/// use fpu_core::{FpuRef, Stopped, TheBackend};
/// # use fpu_hosted_test::doc::{Backend, Task, the_backend};
/// struct Traced<'t> { task: &'t Task }
/// // SAFETY: K10: made only under the tracer's lock, after the task left its CPU. K11: one per tracer.
/// // K12: a field that no code changes.
/// unsafe impl Stopped for Traced<'_> {
///     type Backend = Backend;
///     fn backend(&self) -> &TheBackend<Backend> { the_backend() }
///     fn context(&self) -> FpuRef<'_, Backend> { self.task.context() }
/// }
/// # let _ = Traced { task: &fpu_hosted_test::doc::new_task() };
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "`{Self}` does not prove that the task is stopped",
        label = "the task could run, and change its registers, meanwhile",
        note = "stop the task first and pass the guard type for which the kernel implements `fpu_core::Stopped`"
    )
)]
pub unsafe trait Stopped {
    /// The kernel's backend.
    type Backend: RawFpu;
    /// The backend, the same as [`Pinned::backend`](crate::Pinned::backend).
    #[must_use]
    fn backend(&self) -> &TheBackend<Self::Backend>;
    /// The context of the task that is stopped ([`TaskFpu::context`](crate::TaskFpu::context)).
    #[doc(alias = "covers")]
    #[must_use]
    fn context(&self) -> FpuRef<'_, Self::Backend>;
}

/// A stopped task's image, to be read; or, after
/// [`make_memory_valid_write`](Self::make_memory_valid_write), to be changed.
///
/// There is no "registers only": a stopped task was switched out, and so saved. Some CPU's
/// registers may still hold its state. Writing ends that claim first, and sends the CPU no message.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (cpu, task) = cpu_and_task();
/// # let mut proof = stop(&task);
/// let stopped = task.stopped(&mut proof)?;
/// let before = stopped.image();
/// # let _ = before;
/// let mut writable = stopped.make_memory_valid_write();
/// let image = writable.image_mut();
/// # let _ = image;
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[must_use = "does nothing by itself"]
pub struct StoppedTask<'s, B: RawFpu> {
    task: FpuRef<'s, B>,
    backend: &'s B,
    not_send: PhantomData<*mut ()>,
}

/// A stopped task's image in memory, with no registers claiming to hold the state.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let (cpu, task) = cpu_and_task();
/// # let mut proof = stop(&task);
/// let mut image = task.stopped(&mut proof)?.make_memory_valid_write();
/// let image = image.image_mut();
/// # let _ = image;
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[must_use = "the registers' claim is dropped for nothing"]
pub struct StoppedImageMut<'s, B: RawFpu>(StoppedTask<'s, B>);

impl<B: RawFpu, A: SaveArea> TaskFpu<B, A> {
    /// Opens the image of a stopped task.
    ///
    /// # Errors
    ///
    /// [`Error::NotStopped`]: the proof is another task's. [`Error::LiveElsewhere`]: the task's state is in a CPU's
    /// registers, so the task was not switched out and is not stopped.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// # let mut proof = stop(&task);
    /// drop(task.switch_return(&mut cpu)?); // live in registers: not stopped
    /// let refused = task.stopped(&mut proof).err();
    /// assert_eq!(refused, Some(fpu_core::Error::LiveElsewhere { cpu: 0 }));
    /// task.switch_prepare(&cpu)?;
    /// assert!(task.stopped(&mut proof).is_ok());
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn stopped<'s, P>(&'s self, proof: &'s mut P) -> Result<StoppedTask<'s, B>, Error>
    where
        P: Stopped<Backend = B>,
    {
        // Borrowed exclusively for as long as the image is (K11). Both contexts are alive, so equal addresses
        // are one context.
        let proof: &'s P = proof;
        if !core::ptr::eq(proof.context().word, &self.word) {
            return Err(Error::NotStopped);
        }
        let backend = proof.backend();
        let w = self.word.load();
        if !w.in_memory() {
            return Err(w.live_elsewhere());
        }
        Ok(StoppedTask { task: self.context(), backend, not_send: PhantomData })
    }
}

impl<'s, B: RawFpu> StoppedTask<'s, B> {
    /// The image.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let task = new_task();
    /// # let mut proof = stop(&task);
    /// assert_eq!(task.stopped(&mut proof)?.image().avx0(), 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn image(&self) -> B::Image<'_> {
        // SAFETY: C9: checked in `new` against this backend (K1). C11: the task is stopped and memory is
        // valid, so no CPU saves to the area (K10), and only the proof's holder has access (K11).
        unsafe { self.backend.image(self.task.area) }
    }

    /// Ends the claim of any CPU's registers. The image can be written, and the task runs next with
    /// what is written.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let (mut cpu, task) = cpu_and_task();
    /// # let mut proof = stop(&task);
    /// task.stopped(&mut proof)?.make_memory_valid_write().image_mut().set_avx0(5);
    /// drop(task.switch_return(&mut cpu)?);
    /// assert_eq!(cpu.avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    pub fn make_memory_valid_write(self) -> StoppedImageMut<'s, B> {
        self.task.word.publish(Word::NOWHERE);
        StoppedImageMut(self)
    }
}

impl<B: RawFpu> StoppedImageMut<'_, B> {
    /// The image.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let task = new_task();
    /// # let mut proof = stop(&task);
    /// let writable = task.stopped(&mut proof)?.make_memory_valid_write();
    /// assert_eq!(writable.image().avx0(), 0);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn image(&self) -> B::Image<'_> {
        self.0.image()
    }
    /// The image, to be changed.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::*;
    /// # let task = new_task();
    /// # let mut proof = stop(&task);
    /// let mut writable = task.stopped(&mut proof)?.make_memory_valid_write();
    /// writable.image_mut().set_avx0(5);
    /// assert_eq!(writable.image().avx0(), 5);
    /// # Ok::<(), fpu_core::Error>(())
    /// ```
    #[must_use]
    pub fn image_mut(&mut self) -> B::ImageMut<'_> {
        // SAFETY: C9, C11: as in `image`, and the handle is borrowed exclusively.
        unsafe { self.0.backend.image_mut(self.0.task.area) }
    }
}

impl<B: RawFpu> fmt::Debug for StoppedTask<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoppedTask {{ word: {:#x} }}", self.task.word.load().bits())
    }
}
impl<B: RawFpu> fmt::Debug for StoppedImageMut<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoppedImageMut")
    }
}
