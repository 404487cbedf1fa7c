//! Delivery and return, with the task's state wherever it is.
//!
//! A signal frame lies in user memory, so each copy can fault. A fault that needs sleep must not be served while a
//! session is open: the task could find itself on another CPU, its registers given away. So both calls take the opened
//! state, do all of their work on it or none, and end it on every path. The kernel then makes the page present, with
//! preemption on, opens the state again, wherever that is now, and calls again.
//!
//! ```text
//!              open state                    copy      claims end,
//!              to memory     frame to buffer to user   image initial
//! deliver      ---------+--------------------+---------+------------- handler
//!                       |                    |
//!                       v                    v
//!                  error, state as before, no session open: again, or SIGSEGV
//!                       ^                    ^
//! sigreturn    ---------+--------------------+---------+------------- interrupted code
//!              open state    copy from user  checked   claims end,
//!              to memory     to buffer                 image as in frame
//! ```

#[cfg(test)]
#[path = "../tests/deliver.rs"]
mod tests;

use core::fmt;

use super::{fsave::FRONT, FrameKind, SignalFrame};
use crate::{
    components::Components,
    error::ImageError,
    fields::array,
    foreign::{ForeignError, ForeignRules},
    layout::HEADER,
    opened::InMemory,
    regset::UserFormat,
    x87::Selectors,
};

/// Why a signal was not delivered. The task's registers, wherever they are, and its image are as before, and no session
/// is open.
///
/// ```
/// use fpu_x86::{DeliverError, ImageError};
/// let why = DeliverError::FaultIn("page 0x7000 is not present");
/// assert_eq!(why.to_string(), "the frame was not copied to user memory: page 0x7000 is not present");
/// let why = DeliverError::<&str>::Image(ImageError::TooShort { need: 2692 });
/// assert_eq!(why.to_string(), "no frame can be written: the buffer must have 2692 bytes");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliverError<E> {
    /// The kernel's copy failed, with this. Make the page present, and call again.
    FaultIn(E),
    /// There is no frame for this task: [`UserFormat::write_frame`] says why. Another try has the same answer.
    Image(ImageError),
}

/// Why a task did not return from a signal. Its registers, wherever they are, and its image are as before, and no session
/// is open.
///
/// ```
/// use fpu_x86::{ForeignError, SigreturnError};
/// let why = SigreturnError::FaultIn("page 0x7000 is not present");
/// assert_eq!(why.to_string(), "the frame was not copied from user memory: page 0x7000 is not present");
/// let why = SigreturnError::<&str>::Refused(ForeignError::ReservedMxcsr { bits: 1 << 31 });
/// assert!(why.to_string().starts_with("the frame is refused: MXCSR"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SigreturnError<E> {
    /// The kernel's copy failed, with this. Make the page present, and call again.
    FaultIn(E),
    /// The frame is one that a task may not have. The kernel ends the task, or sends it SIGSEGV.
    Refused(ForeignError),
}

impl<E: fmt::Display> fmt::Display for DeliverError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FaultIn(why) => write!(f, "the frame was not copied to user memory: {why}"),
            Self::Image(why) => write!(f, "no frame can be written: {why}"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for SigreturnError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FaultIn(why) => write!(f, "the frame was not copied from user memory: {why}"),
            Self::Refused(why) => write!(f, "the frame is refused: {why}"),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl<E: fmt::Debug + fmt::Display> core::error::Error for DeliverError<E> {}
#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // as above
impl<E: fmt::Debug + fmt::Display> core::error::Error for SigreturnError<E> {}

/// What a task has returned with.
///
/// ```
/// fn pkru(returned: fpu_x86::Returned) -> Option<u32> { returned.pkru }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Returned {
    /// How much of the frame counted, and why.
    pub kind: FrameKind,
    /// The protection-key rights with which the task goes on, where the format has them: the kernel's own switch of PKRU
    /// takes them over.
    pub pkru: Option<u32>,
    /// What was left out, under [`Beyond::Report`](crate::Beyond::Report).
    pub beyond: Components,
}

impl UserFormat<'_> {
    /// Delivers a signal: writes the FPU part of the frame from the task's registers, wherever they are, hands it to
    /// `copy`, and makes the task's user components initial, with which the handler starts. Supervisor components stay.
    /// Returns the part's length, [`frame_len`](Self::frame_len), which is known before.
    ///
    /// `buffer` is this thread's; or this CPU's, if the kernel takes it anew with preemption off at each try. No other code uses it
    /// meanwhile. `copy` copies to user
    /// memory, and fails instead of sleeping: the session is open while it runs. What else is in a frame (general
    /// registers, `siginfo`) it writes too, so that nothing is left that could fail after the state has changed. What a
    /// failed copy has written lies beyond the program's stack pointer, and the next try writes it again.
    ///
    /// `pkru` is the value that the interrupted code had, as for [`write_frame`](Self::write_frame). The handler starts
    /// with the kernel's default, which is the kernel's to load.
    ///
    /// # Errors
    ///
    /// [`DeliverError`]. Nothing has changed, except that memory may now hold what only registers held.
    ///
    /// ```
    /// use fpu_core::{Error, Pinned, SaveArea, SoftFloat, TaskFpu};
    /// use fpu_x86::{DeliverError, UserFormat, XsaveImages};
    /// # struct Segv;
    /// # impl From<Error> for Segv { fn from(_: Error) -> Self { Self } }
    /// # trait Kernel {
    /// #     type Cpu: SoftFloat + Pinned<Backend = Self::Backend>; type Backend: XsaveImages;
    /// #     fn preempt_off(&self) -> Self::Cpu;
    /// #     fn copy_to_user_nofault(&self, to: usize, from: &[u8]) -> Result<(), Fault>;
    /// #     fn make_present(&self, fault: Fault) -> Result<(), Segv>;
    /// # }
    /// # struct Fault;
    /// /// Preemption is on, and `buffer` this thread's. `at` is where the frame's FPU part is to lie, at a multiple of 64.
    /// fn deliver<K: Kernel, A: SaveArea>(
    ///     kernel: &K, format: UserFormat<'_>, task: &TaskFpu<K::Backend, A>, at: usize, buffer: &mut [u8],
    /// ) -> Result<(), Segv> {
    ///     // Each page that the part touches can be missing once; then a program takes pages away meanwhile.
    ///     let pages = format.frame_len() / 4096 + 2;
    ///     for _ in 0..=pages {
    ///         let mut cpu = kernel.preempt_off();
    ///         let session = task.open(&mut cpu)?.make_memory_valid_read();
    ///         let delivered = format.without_pkru().deliver(session, None, buffer, |part| {
    ///             kernel.copy_to_user_nofault(at, part)
    ///         });
    ///         drop(cpu); // preemption is on again
    ///         match delivered {
    ///             Ok(_len) => return Ok(()),
    ///             Err(DeliverError::FaultIn(fault)) => kernel.make_present(fault)?, // sleeps
    ///             Err(_) => return Err(Segv),
    ///         }
    ///     }
    ///     Err(Segv)
    /// }
    /// ```
    ///
    /// In a kernel compiled with vector instructions, the session comes from
    /// [`open_saved`](fpu_core::TaskFpu::open_saved):
    ///
    /// ```
    /// use fpu_core::{Exclusive, PendingSave, Pinned, SaveArea, TaskFpu};
    /// use fpu_x86::{DeliverError, UserFormat, XsaveImages};
    /// /// `save` executes the steps of a save, in assembly, and says that it has.
    /// fn deliver<C, A: SaveArea, E>(
    ///     task: &TaskFpu<C::Backend, A>, cpu: &mut C, format: UserFormat<'_>, buffer: &mut [u8],
    ///     save: fn(PendingSave<'_, C>), copy: impl FnOnce(&[u8]) -> Result<(), E>,
    /// ) -> Result<Result<usize, DeliverError<E>>, fpu_core::Error>
    /// where
    ///     C: Exclusive + Pinned,
    ///     C::Backend: XsaveImages,
    /// {
    ///     // Nothing is due where the kernel's entry saves.
    ///     if let Some(pending) = task.begin_switch_out(cpu)? {
    ///         save(pending);
    ///     }
    ///     Ok(format.without_pkru().deliver(task.open_saved(cpu)?, None, buffer, copy))
    /// }
    /// ```
    #[doc(alias = "copy_fpstate_to_sigframe")]
    #[doc(alias = "fpu__clear_user_states")]
    pub fn deliver<E>(
        &self,
        task: impl InMemory,
        pkru: Option<u32>,
        buffer: &mut [u8],
        copy: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<usize, DeliverError<E>> {
        let written = self.write_frame(&task.user_image(), pkru, buffer);
        hand_out(task, written, buffer, copy)
    }

    /// The same for a 32-bit program, with [`write_frame_32`](Self::write_frame_32).
    ///
    /// # Errors
    ///
    /// As for [`deliver`](Self::deliver).
    pub fn deliver_32<E>(
        &self,
        task: impl InMemory,
        selectors: Selectors,
        pkru: Option<u32>,
        buffer: &mut [u8],
        copy: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<usize, DeliverError<E>> {
        let written = self.write_frame_32(&task.user_image(), selectors, pkru, buffer);
        hand_out(task, written, buffer, copy)
    }

    /// Returns from a signal: has `copy` fetch the FPU part of the frame, checks it, and makes the task's user components
    /// what it says, as [`read_frame`](Self::read_frame) describes.
    ///
    /// `copy` is called with an offset within the part and the bytes to fill from there: once for the first 512, and once
    /// more for what those say that there is, so far as `buffer` takes it; no byte is fetched twice. It fails instead of
    /// sleeping, for the session is open while it runs. `buffer` is the kernel's own, as for [`deliver`](Self::deliver);
    /// 16 KiB take the frames of all machines that are known.
    ///
    /// # Errors
    ///
    /// [`SigreturnError`]. Nothing has changed, except that memory may now hold what only registers held.
    ///
    /// ```
    /// use fpu_core::{Error, Pinned, SaveArea, SoftFloat, TaskFpu};
    /// use fpu_x86::{SigreturnError, UserFormat, XsaveImages};
    /// # struct Fault;
    /// /// What the caller does next.
    /// enum Next { Go { pkru: Option<u32> }, MakePresentAndCallAgain(Fault), Segv }
    /// /// `from_user` copies from an address in the program's memory, and does not sleep.
    /// fn sigreturn<C, A: SaveArea>(
    ///     task: &TaskFpu<C::Backend, A>, cpu: &mut C, format: UserFormat<'_>, at: usize, buffer: &mut [u8],
    ///     from_user: fn(usize, &mut [u8]) -> Result<(), Fault>,
    /// ) -> Result<Next, Error>
    /// where
    ///     C: SoftFloat + Pinned,
    ///     C::Backend: XsaveImages,
    /// {
    ///     let session = task.open(cpu)?.make_memory_valid_read();
    ///     let copy = |offset, bytes: &mut [u8]| from_user(at.wrapping_add(offset), bytes);
    ///     Ok(match format.sigreturn(session, buffer, copy) {
    ///         Ok(returned) => Next::Go { pkru: returned.pkru },
    ///         Err(SigreturnError::FaultIn(fault)) => Next::MakePresentAndCallAgain(fault),
    ///         Err(_) => Next::Segv,
    ///     })
    /// }
    /// ```
    #[doc(alias = "fpu__restore_sig")]
    pub fn sigreturn<E>(
        &self,
        task: impl InMemory,
        buffer: &mut [u8],
        copy: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<Returned, SigreturnError<E>> {
        self.sigreturn_by(&ForeignRules::new(), task, buffer, copy)
    }

    /// The same by other rules, as for [`read_frame_by`](Self::read_frame_by).
    ///
    /// # Errors
    ///
    /// As for [`sigreturn`](Self::sigreturn).
    pub fn sigreturn_by<E>(
        &self,
        rules: &ForeignRules<'_>,
        task: impl InMemory,
        buffer: &mut [u8],
        copy: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<Returned, SigreturnError<E>> {
        let fetched = self.fetch(0, buffer, copy)?;
        take_in(task, self.read_frame_by(rules, fetched))
    }

    /// The same for a 32-bit program, as [`read_frame_32`](Self::read_frame_32) describes; the first call of `copy` is for
    /// 624 bytes.
    ///
    /// # Errors
    ///
    /// As for [`sigreturn`](Self::sigreturn).
    pub fn sigreturn_32<E>(
        &self,
        task: impl InMemory,
        buffer: &mut [u8],
        copy: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<Returned, SigreturnError<E>> {
        self.sigreturn_32_by(&ForeignRules::new(), task, buffer, copy)
    }

    /// The same by other rules, as for [`read_frame_32_by`](Self::read_frame_32_by).
    ///
    /// # Errors
    ///
    /// As for [`sigreturn`](Self::sigreturn).
    pub fn sigreturn_32_by<E>(
        &self,
        rules: &ForeignRules<'_>,
        task: impl InMemory,
        buffer: &mut [u8],
        copy: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<Returned, SigreturnError<E>> {
        let fetched = self.fetch(FRONT, buffer, copy)?;
        take_in(task, self.read_frame_32_by(rules, fetched))
    }

    /// The bytes of a part that begins with `front` bytes of FSAVE's, in the buffer.
    fn fetch<'b, E>(
        &self,
        front: usize,
        buffer: &'b mut [u8],
        mut copy: impl FnMut(usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<&'b mut [u8], SigreturnError<E>> {
        let (len, first) = (buffer.len(), front + HEADER);
        let short = SigreturnError::Refused(ForeignError::Truncated { len, need: first });
        let Some(bytes) = buffer.get_mut(..first) else { return Err(short) };
        copy(0, bytes).map_err(SigreturnError::FaultIn)?;
        let legacy = array(bytes, front).unwrap_or([0; HEADER]);
        let all = front + self.frame_bytes(&legacy, len - front);
        match buffer.get_mut(first..all) {
            Some([]) | None => {}
            Some(rest) => copy(first, rest).map_err(SigreturnError::FaultIn)?,
        }
        Ok(buffer.get_mut(..all).unwrap_or_default())
    }
}

fn hand_out<E>(
    task: impl InMemory,
    written: Result<usize, ImageError>,
    buffer: &[u8],
    copy: impl FnOnce(&[u8]) -> Result<(), E>,
) -> Result<usize, DeliverError<E>> {
    let len = written.map_err(DeliverError::Image)?;
    copy(buffer.get(..len).unwrap_or_default()).map_err(DeliverError::FaultIn)?;
    task.change(|mut image| image.make_initial());
    Ok(len)
}

fn take_in<E>(
    task: impl InMemory,
    read: Result<SignalFrame<'_>, ForeignError>,
) -> Result<Returned, SigreturnError<E>> {
    let frame = read.map_err(SigreturnError::Refused)?;
    frame.valid().put_into(task).map_err(SigreturnError::Refused)?;
    Ok(Returned { kind: frame.kind(), pkru: frame.pkru(), beyond: frame.valid().beyond() })
}
