//! The layer for assembly: no generics, no references, the C calling convention, one number as the answer.
//!
//! A switch path written in assembly needs two addresses: the task's word (the first 8 bytes of its
//! [`TaskFpu`](crate::TaskFpu)) and its CPU's [`CpuFpu`]. It can call the functions here with `sym`
//! operands, or do the comparisons itself (here on x86, where bit 0 of the word is in its first byte):
//!
//! ```text
//! switch out                          return to user mode
//!   test byte [task], 1                 mov  rax, [cpu + RESIDENT]
//!   jz   1f        ; save due           cmp  rax, [task]
//!   ; nothing due                       jne  2f        ; not live here
//! 1: ...call switch_out                 ; nothing due
//! ```
//!
//! The rules are those of the typed layer, as duties.
//!
//! # Safety
//!
//! Of every function here:
//!
//! * **C16** `task` is the word of a live context and `cpu` this CPU's state, both as made by this
//!   crate; the caller is pinned with sections excluded ([`Exclusive`](crate::Exclusive)) from the
//!   call until the last step that its answer asks for.
//! * **C17** the answer is obeyed: [`SAVE`] is followed by a save to the context's area, which may be
//!   left out where the area holds already what it would write, and then [`saved`]; [`RESTORE`] by a
//!   restore from it and then, only if it did not fault, [`restored`].
//!   After [`REFUSED`] or more, user mode is not entered.
//! * **C18** K5 (current here) and K9 (soft-float) hold for the code in between.
//!
//! ```
//! use fpu_core::{raw, CpuFpu, CpuWords};
//! let cpu = CpuFpu::new();
//! let word = raw::TaskWord::new();
//! // SAFETY: C16: both are ours. C17: nothing follows, as nothing is due.
//! unsafe {
//!     assert_eq!(raw::switch_out(&word, &cpu), raw::NOTHING);
//!     assert_eq!(raw::switch_return(&word, &cpu), raw::OFFLINE);
//! }
//! ```

use crate::{
    cpu::CpuFpu,
    error::Error,
    protocol::{
        cpu_word::Stamp,
        steps::{due_on_entry, due_on_leaving, OnEntry},
    },
};

pub use crate::protocol::word::TaskWord;

/// Nothing is to be done.
pub const NOTHING: u32 = 0;
/// Nothing is to be done: the registers still held the task, and are its only copy now.
pub const MARKED: u32 = 1;
/// Restore from the area, then [`restored`].
pub const RESTORE: u32 = 2;
/// Save to the area, then [`saved`].
pub const SAVE: u32 = 3;
/// This and above: an error, nothing has changed.
pub const REFUSED: u32 = 16;
/// [`Error::CpuOffline`].
pub const OFFLINE: u32 = 16;
/// [`Error::Busy`].
pub const BUSY: u32 = 17;
/// [`Error::LiveElsewhere`].
pub const LIVE_ELSEWHERE: u32 = 18;
/// [`Error::Lost`].
pub const LOST: u32 = 19;
/// [`Error::Exhausted`].
pub const EXHAUSTED: u32 = 20;

fn code(why: Error) -> u32 {
    match why {
        Error::Busy | Error::LiveHere => BUSY,
        Error::LiveElsewhere { .. } => LIVE_ELSEWHERE,
        Error::Lost => LOST,
        Error::Exhausted => EXHAUSTED,
        _ => OFFLINE,
    }
}

/// Decides what is due when the task leaves this CPU: [`NOTHING`], [`SAVE`], or an error.
///
/// # Safety
///
/// Live words (C16), answer obeyed (C17), code in between (C18) of [this module](self).
///
/// ```
/// # use fpu_core::{raw, CpuLifecycle};
/// # use fpu_hosted_test::doc::{this_cpu_fpu, PerCpu};
/// # let mut pinned = PerCpu::irqs_off();
/// # // SAFETY: K15, K16: the only CPU, its words new.
/// # unsafe { pinned.fpu_online(0)? };
/// let (cpu, word) = (this_cpu_fpu(), raw::TaskWord::new());
/// // SAFETY: C16: both are alive. C17: nothing is due.
/// assert_eq!(unsafe { raw::switch_out(&word, cpu) }, raw::NOTHING);
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[doc(alias = "switch_fpu_prepare")]
#[must_use = "the answer says what assembly has to do (C17), or that this is refused"]
pub unsafe extern "C" fn switch_out(task: *const TaskWord, cpu: *const CpuFpu) -> u32 {
    // SAFETY: C16: both point to live values.
    match unsafe { due_on_leaving(&*task, &*cpu) } {
        Ok(None) => NOTHING,
        Ok(Some(_)) => SAVE,
        Err(why) => code(why),
    }
}

/// Records that the save has been done.
///
/// # Safety
///
/// Live words (C16) and code in between (C18), after [`SAVE`] and the save itself.
///
/// ```
/// # use fpu_core::{raw, CpuLifecycle};
/// # use fpu_hosted_test::doc::{this_cpu_fpu, PerCpu};
/// # let mut pinned = PerCpu::irqs_off();
/// # // SAFETY: K15, K16: the only CPU, its words new.
/// # unsafe { pinned.fpu_online(0)? };
/// let (cpu, word) = (this_cpu_fpu(), raw::TaskWord::new());
/// // SAFETY: live words (C16). C17: the steps in between, of no registers, are done.
/// unsafe {
///     assert_eq!(raw::switch_return(&word, cpu), raw::RESTORE);
///     raw::restored(&word, cpu);
///     assert_eq!(raw::switch_out(&word, cpu), raw::SAVE);
///     raw::saved(&word);
///     assert_eq!(raw::switch_out(&word, cpu), raw::NOTHING);
/// }
/// # Ok::<(), fpu_core::Error>(())
/// ```
pub unsafe extern "C" fn saved(task: *const TaskWord) {
    // SAFETY: live words (C16).
    let task = unsafe { &*task };
    task.publish(task.load().saved());
}

/// Decides what is due before the task enters user mode here: [`NOTHING`], [`MARKED`], [`RESTORE`], or an error.
///
/// # Safety
///
/// Live words (C16), answer obeyed (C17), code in between (C18) of [this module](self).
///
/// ```
/// # use fpu_core::{raw, CpuLifecycle};
/// # use fpu_hosted_test::doc::{this_cpu_fpu, PerCpu};
/// # let mut pinned = PerCpu::irqs_off();
/// # // SAFETY: K15, K16: the only CPU, its words new.
/// # unsafe { pinned.fpu_online(0)? };
/// let (cpu, word) = (this_cpu_fpu(), raw::TaskWord::new());
/// // SAFETY: live words (C16). C17: the restore, of no registers, is done.
/// unsafe {
///     assert_eq!(raw::switch_return(&word, cpu), raw::RESTORE);
///     raw::restored(&word, cpu);
///     assert_eq!(raw::switch_return(&word, cpu), raw::NOTHING);
/// }
/// # Ok::<(), fpu_core::Error>(())
/// ```
#[doc(alias = "switch_fpu_return")]
#[must_use = "the answer says what assembly has to do (C17), or that this is refused"]
pub unsafe extern "C" fn switch_return(task: *const TaskWord, cpu: *const CpuFpu) -> u32 {
    // SAFETY: live words (C16).
    let (task, cpu) = unsafe { (&*task, &*cpu) };
    match due_on_entry(task, cpu) {
        Ok(OnEntry::Nothing) => NOTHING,
        Ok(OnEntry::Mark(live)) => {
            task.mark_live(live);
            MARKED
        }
        Ok(OnEntry::Load { .. }) => RESTORE,
        Err(why) => code(why),
    }
}

/// Records that the restore has been done, and did not fault.
///
/// # Safety
///
/// Live words (C16) and code in between (C18), after [`RESTORE`] and the restore itself.
///
/// ```
/// # use fpu_core::{raw, CpuLifecycle};
/// # use fpu_hosted_test::doc::{this_cpu_fpu, PerCpu};
/// # let mut pinned = PerCpu::irqs_off();
/// # // SAFETY: K15, K16: the only CPU, its words new.
/// # unsafe { pinned.fpu_online(0)? };
/// let (cpu, word) = (this_cpu_fpu(), raw::TaskWord::new());
/// // SAFETY: live words (C16). C17: the restore, of no registers, is done.
/// unsafe {
///     assert_eq!(raw::switch_return(&word, cpu), raw::RESTORE);
///     raw::restored(&word, cpu); // not if it faulted
/// }
/// # Ok::<(), fpu_core::Error>(())
/// ```
pub unsafe extern "C" fn restored(task: *const TaskWord, cpu: *const CpuFpu) {
    // SAFETY: live words (C16). The CPU's word is the stamp that `switch_return` issued for this restore.
    unsafe { (*task).mark_live(Stamp::of(&*cpu)) };
}
