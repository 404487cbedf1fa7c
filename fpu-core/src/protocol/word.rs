//! A context's word: which registers hold it, and whether memory does.
//!
//! ```text
//! bit 63       1      }
//! bits 15..62  count  } of the stamp under which it was last loaded; 0, 0, all ones = nowhere
//! bits 1..14   number }
//! bit 0        memory is valid
//! ```
//!
//! With `r` the CPU's stamp, a context's word `w` says everything in one comparison, which is made here and nowhere
//! else ([`Place`]):
//!
//! | `w` | state | meaning on this CPU |
//! |---|---|---|
//! | `r` | 1 | the registers are the only copy |
//! | `r \| 1` | 2a | registers and memory agree |
//! | other, bit 0 set | 2b | memory is the only copy |
//! | other, bit 0 clear | - | live in other registers, or lost: an error |

use super::cpu_word::{gate, Stamp, ID_MASK};
use crate::{
    error::Error,
    sync::{fence, AtomicU64, Ordering},
    witness::CpuWords,
};

const MEMORY: u64 = 1;

/// What a context's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// No registers hold the context: memory is valid, under the number of a CPU that cannot exist.
    pub(crate) const NOWHERE: Self = Self(ID_MASK | MEMORY);

    /// The registers loaded under this stamp hold the context, and so does memory.
    #[inline(always)]
    pub(crate) const fn both(stamp: Stamp) -> Self {
        Self(stamp.bits() | MEMORY)
    }
    /// The word after a save: the same registers, and memory is valid too.
    #[inline(always)]
    pub(crate) const fn saved(self) -> Self {
        Self(self.0 | MEMORY)
    }
    #[inline(always)]
    pub(crate) const fn in_memory(self) -> bool {
        self.0 & MEMORY != 0
    }
    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
    /// The word that these bits were taken from.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
    /// Compares the word with a CPU's stamp.
    #[inline(always)]
    pub(crate) const fn against(self, stamp: Stamp) -> Compared {
        Compared(self.0 ^ stamp.bits())
    }
    /// Tells whether the context was loaded last on the CPU of this stamp.
    #[inline(always)]
    pub(crate) const fn is_of(self, stamp: Stamp) -> bool {
        !self.against(stamp).is_of_another_cpu()
    }
    /// Tells whether the registers loaded under this stamp are the only copy.
    #[inline(always)]
    pub(crate) const fn is_live_under(self, stamp: Stamp) -> bool {
        self.0 == stamp.bits()
    }
    /// The error that names the CPU whose registers hold the context; that CPU is not asked.
    pub(crate) fn live_elsewhere(self) -> Error {
        Error::LiveElsewhere { cpu: (((self.0 & ID_MASK) >> 1) as u32).wrapping_sub(1) }
    }
    /// Why the context cannot be used on this CPU.
    #[inline(always)]
    pub(crate) fn refusal<W: CpuWords>(self, cpu: &W) -> Error {
        decode(reason(self, cpu))
    }
}

/// Where a context's state is, seen from a CPU.
pub(crate) enum Place {
    /// State 1.
    Registers,
    /// State 2a.
    Both,
    /// State 2b.
    Memory,
    /// In other registers, or lost.
    Elsewhere,
}

/// A context's word and a CPU's, by their difference.
#[derive(Clone, Copy)]
pub(crate) struct Compared(u64);

impl Compared {
    /// Bit 0 of a CPU's word is 0 while the CPU is online, so bit 0 of the difference is the context's own. An offline
    /// CPU refuses a context in any place, with the same error.
    #[inline(always)]
    pub(crate) const fn place(self) -> Place {
        match self.0 {
            0 => Place::Registers,
            MEMORY => Place::Both,
            differ if differ & MEMORY != 0 => Place::Memory,
            _ => Place::Elsewhere,
        }
    }
    /// Tells whether the context was loaded last on another CPU, or nowhere.
    #[inline(always)]
    pub(super) const fn is_of_another_cpu(self) -> bool {
        self.0 & ID_MASK != 0
    }
    /// [`Word::refusal`] of the context's word, which the hot path has not kept.
    #[cold]
    #[inline(never)]
    pub(super) fn refusal<W: CpuWords>(self, cpu: &W) -> Error {
        Word(self.0 ^ cpu.resident()).refusal(cpu)
    }
}

/// Tells why a word fits neither comparison.
///
/// Returns `u32` so that the hot path needs no stack frame: the compiler knows no range of an
/// [`Error`] from a call, and would keep a way from the cold path back into the hot path.
#[cold]
#[inline(never)]
fn reason<W: CpuWords>(word: Word, cpu: &W) -> u32 {
    let w = word.0;
    match cpu.gate() {
        gate::OFFLINE => 0,
        gate::SECTION | gate::SESSION => 1,
        _ if w & MEMORY != 0 => 2,
        _ if w == cpu.resident() => 4,
        _ if (w ^ cpu.resident()) & ID_MASK == 0 => 3,
        _ => 4 + ((w & ID_MASK) as u32),
    }
}
#[inline(always)]
fn decode(reason: u32) -> Error {
    match reason {
        0 => Error::CpuOffline,
        1 => Error::Busy,
        2 => Error::Exhausted,
        3 => Error::Lost,
        4 => Error::LiveHere,
        id => Error::LiveElsewhere { cpu: ((id - 4) >> 1).wrapping_sub(1) },
    }
}

/// A context's word. Written only by the CPU on which the task is current, or under proof that it is
/// stopped (K5, K10).
///
/// ```
/// // Eight bytes, the first of every context.
/// assert_eq!(core::mem::size_of::<fpu_core::raw::TaskWord>(), 8);
/// ```
#[derive(Debug)]
#[repr(transparent)]
pub struct TaskWord(AtomicU64);

impl TaskWord {
    /// The word of a new context: memory is valid, no registers hold it.
    #[must_use]
    #[allow(clippy::new_without_default)] // a word without a context should not come by default
    pub fn new() -> Self {
        Self(AtomicU64::new(Word::NOWHERE.0))
    }
    /// Acquire: code that sees "memory is valid" sees the image that was saved before, even if the kernel forgot to
    /// order the hand-over and only the error path is left. Costs nothing on x86. [`peek`](Self::peek) is for the hot path.
    #[inline(always)]
    pub(crate) fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }
    /// Relaxed: for a decision after which no code reads the image, or calls [`before_image`](Self::before_image) first.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Word {
        Word(self.0.load(Ordering::Relaxed))
    }
    /// Acquire, of what [`peek`](Self::peek) has seen: code that restores the image next sees it as it was saved. No
    /// instruction on x86.
    #[inline(always)]
    pub(crate) fn before_image() {
        fence(Ordering::Acquire);
    }
    /// Memory is valid. Release: the image was written before.
    #[inline(always)]
    pub(crate) fn publish(&self, word: Word) {
        self.0.store(word.0, Ordering::Release);
    }
    /// The registers loaded under this stamp are the only copy. Relaxed: says that memory is *not* to be read.
    #[inline(always)]
    pub(crate) fn mark_live(&self, stamp: Stamp) {
        self.0.store(stamp.bits(), Ordering::Relaxed);
    }
    /// No registers hold it, and its memory is overwritten next. Relaxed: the image that a release would show is the
    /// one that is replaced, and nothing is said of the next one before the kernel hands the task over (K5).
    #[inline(always)]
    pub(crate) fn mark_nowhere(&self) {
        self.0.store(Word::NOWHERE.0, Ordering::Relaxed);
    }
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut u64 {
        (self as *const Self).cast_mut().cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::cpu_word::tests::{online, stamp};

    #[test]
    fn a_word_is_in_one_place_only() {
        let name = |word: Word, cpu| match word.against(cpu).place() {
            Place::Registers => "registers",
            Place::Both => "both",
            Place::Memory => "memory",
            Place::Elsewhere => "elsewhere",
        };
        let (now, past, other) = (stamp(2, 5), stamp(2, 4), stamp(4, 5));
        for (word, expect) in [
            (Word(now.bits()), "registers"),
            (Word::both(now), "both"),
            (Word::NOWHERE, "memory"),
            (Word::both(past), "memory"),
            (Word::both(other), "memory"),
            (Word(past.bits()), "elsewhere"),
            (Word(other.bits()), "elsewhere"),
        ] {
            assert_eq!(name(word, now), expect, "word {word:?}");
            assert_eq!(word.in_memory(), matches!(expect, "both" | "memory"));
            assert_eq!(word.is_live_under(now), expect == "registers");
        }
    }

    #[test]
    fn a_refusal_says_where_the_state_is() {
        let cpu = online(2, 5);
        let refused = |stamp: Stamp| Word(stamp.bits()).against(Stamp::of(&cpu)).refusal(&cpu);
        assert_eq!(refused(stamp(2, 4)), Error::Lost);
        assert_eq!(refused(stamp(4, 5)), Error::LiveElsewhere { cpu: 4 });
        assert_eq!(refused(stamp(2, 5)), Error::LiveHere);
        assert_eq!(Word(stamp(4, 5).bits()).live_elsewhere(), Error::LiveElsewhere { cpu: 4 });
    }
}
