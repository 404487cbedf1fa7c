//! What the kernel keeps of a thread.

use core::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use fpu_core::Stopped;

use super::value::Pkru;

/// A thread's PKRU while the register does not have it: in each task, and in each kernel thread that accesses user
/// memory.
///
/// While the thread runs, its value is in the register. While it is switched out, its value is here. While it runs the
/// code of a [scope](crate::ProtectionKeys::with_rights), running or switched out, the value that it has in user mode
/// is here, beside the scope's, so that a debugger reads and writes that one.
///
/// Who may use it: the thread itself, while it is current; the switch; and the holder of a proof that the thread is
/// [stopped](Stopped). The lock that passes a thread from one CPU to the next, or to a debugger, orders what they do, as it
/// does for the thread's FPU state (K5). A kernel that breaks this gives threads wrong rights. It breaks no memory
/// of the kernel's: the words are atomic.
///
/// ```
/// use fpu_x86::{Pkru, TaskPkru};
/// struct Task { pkru: TaskPkru, /* fpu: TaskFpu<..>, .. */ }
/// let init = Task { pkru: TaskPkru::new(Pkru::LINUX_DEFAULT) };
/// assert_eq!(format!("{:?}", init.pkru), "TaskPkru { user: Pkru(0x55555554), scopes: 0 }");
/// ```
pub struct TaskPkru {
    /// What the register gets when the thread is switched in.
    register: AtomicU32,
    word: AtomicU64,
}

/// The other word: the value of user mode while scopes are open, how many are, and a count of the writes by others,
/// so that a thread which was switched out in the middle of opening or closing one notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) user: u32,
    /// Each nested scope has a frame of the kernel's stack, which ends before the count does.
    pub(super) scopes: u16,
    pub(super) writes: u16,
}

impl Word {
    const fn of(bits: u64) -> Self {
        Self { user: bits as u32, scopes: (bits >> 32) as u16, writes: (bits >> 48) as u16 }
    }

    const fn bits(self) -> u64 {
        self.user as u64 | (self.scopes as u64) << 32 | (self.writes as u64) << 48
    }
}

impl TaskPkru {
    /// Of a thread that has not run.
    #[must_use]
    pub const fn new(value: Pkru) -> Self {
        let word = Word { user: 0, scopes: 0, writes: 0 };
        Self { register: AtomicU32::new(value.bits()), word: AtomicU64::new(word.bits()) }
    }

    /// What a stopped task has in user mode: for a debugger, and for a core file.
    ///
    /// `proof` is the proof that this cell's task is stopped.
    ///
    /// ```
    /// # use fpu_x86::{Pkru, ProtectionKeys, TaskPkru};
    /// // NT_X86_XSTATE is read, in the format `keys.format(plan)`, which has no place for PKRU where keys are off.
    /// fn rights(keys: &ProtectionKeys, pkru: &TaskPkru, traced: &impl fpu_core::Stopped) -> Option<u32> {
    ///     keys.are_on().then(|| pkru.read(traced).bits())
    /// }
    /// ```
    #[must_use]
    pub fn read<P: Stopped>(&self, proof: &P) -> Pkru {
        let _ = proof;
        self.value()
    }

    /// Gives a stopped task another value in user mode.
    ///
    /// The task may be stopped anywhere, within a [scope](crate::ProtectionKeys::with_rights) too, whose rights stay.
    ///
    /// ```
    /// # use fpu_x86::{Pkru, TaskPkru, ValidImage};
    /// // NT_X86_XSTATE is set.
    /// fn set_rights(pkru: &TaskPkru, traced: &impl fpu_core::Stopped, valid: &ValidImage<'_>) {
    ///     if let Some(bits) = valid.pkru() {
    ///         pkru.write(traced, Pkru::from_bits(bits));
    ///     }
    /// }
    /// ```
    pub fn write<P: Stopped>(&self, proof: &P, value: Pkru) {
        let _ = proof;
        self.set_value(value);
    }

    /// [`read`](Self::read), without its proof.
    pub(super) fn value(&self) -> Pkru {
        let word = self.word();
        Pkru::from_bits(if word.scopes == 0 { self.saved() } else { word.user })
    }

    /// [`write`](Self::write), without its proof.
    pub(super) fn set_value(&self, value: Pkru) {
        let old = self.word();
        let word = Word { user: value.bits(), writes: old.writes.wrapping_add(1), ..old };
        self.word.store(word.bits(), Relaxed);
        if word.scopes == 0 {
            self.save(value.bits());
        }
    }

    /// Makes it that of a thread which has not run.
    pub(super) fn begin(&self, value: Pkru) {
        let word = Word { scopes: 0, ..self.word() };
        self.word.store(word.bits(), Relaxed);
        self.set_value(value);
    }

    #[inline(always)]
    pub(super) fn saved(&self) -> u32 {
        self.register.load(Relaxed)
    }

    #[inline(always)]
    pub(super) fn save(&self, value: u32) {
        self.register.store(value, Relaxed);
    }

    pub(super) fn word(&self) -> Word {
        Word::of(self.word.load(Relaxed))
    }

    /// Puts `new` in the place of `old`. False if that is not there: another has written, or an interrupt's scope has been.
    pub(super) fn replace(&self, old: Word, new: Word) -> bool {
        self.word.compare_exchange(old.bits(), new.bits(), Relaxed, Relaxed).is_ok()
    }
}

impl fmt::Debug for TaskPkru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPkru")
            .field("user", &self.value())
            .field("scopes", &self.word().scopes)
            .finish()
    }
}
