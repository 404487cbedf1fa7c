//! Which CPU's registers hold which context: the two words, every comparison, every ordering.
//!
//! ```text
//! a CPU's word `resident`            a task's word
//! bit 63      open                   bit 63      1      }
//! bits 15..62 count of stamps        bits 15..62 count  } of the stamp under which it was last
//! bits 1..14  CPU number + 1         bits 1..14  number } loaded; 0, 0, all ones = nowhere
//! bit 0       0                      bit 0       memory is valid
//! ```
//!
//! With `r` the CPU's word, a task's word `w` says everything in one comparison:
//!
//! | `w` | thread's state | meaning on this CPU |
//! |---|---|---|
//! | `r` | 1 | the registers are the only copy |
//! | `r \| 1` | 2a | registers and memory agree |
//! | other, bit 0 set | 2b | memory is the only copy |
//! | other, bit 0 clear | - | live in other registers, or lost: an error |
//!
//! Stamps are issued by adding to `r`, so none is issued twice, and no two CPUs share a range. A
//! CPU's word that is not open (0, at first) equals no task's word, and adding to it does not open
//! it; adding to the last open one carries out of it. So one sign test covers "never online",
//! "offline", "section open", "session open" and "all stamps issued".

use crate::{
    sync::{compiler_fence, AtomicU64, Ordering},
    CpuWords, Error, Level, Pinned,
};

pub(crate) const MEMORY: u64 = 1;
pub(crate) const STEP: u64 = 1 << 15;
const OPEN: u64 = 1 << 63;
const ID_MASK: u64 = (STEP - 1) & !MEMORY;
/// The word of a context that no registers hold: memory is valid, of a CPU that cannot be.
pub(crate) const NOWHERE: u64 = ID_MASK | MEMORY;
/// CPUs that can be told apart: numbers 0 to 16,381.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// # let mut cpu = offline_cpu();
/// // SAFETY: O1, O2: the only CPU, its words new.
/// let refused = unsafe { cpu.fpu_online(fpu_core::MAX_CPUS) };
/// assert_eq!(refused, Err(fpu_core::Error::InvalidCpu));
/// # Ok::<(), fpu_core::Error>(())
/// ```
pub const MAX_CPUS: u32 = (1 << 14) - 2;
/// The last words from which a closed path takes a step. Only hot claims go further, so that a word
/// which is not open has room for one more.
const LIMIT: u64 = 0u64.wrapping_sub(3 * STEP);

/// The same count, but matching nobody and refusing every claim.
#[inline(always)]
pub(crate) const fn closed(word: u64) -> u64 {
    word & !OPEN
}

/// States of a CPU's gate.
pub(crate) mod gate {
    pub(crate) const OFFLINE: u64 = 0;
    pub(crate) const OPEN: u64 = 1;
    pub(crate) const SECTION: u64 = 2;
    pub(crate) const SESSION: u64 = 3;
}

/// A context's word. Written only by the CPU on which the task is current, or under proof that it is
/// stopped (P4, T1).
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
        Self(AtomicU64::new(NOWHERE))
    }
    /// Acquire: whoever sees [`MEMORY`] sees the image it speaks of, even if the kernel forgot to
    /// order the hand-over and only the error path is left. Costs nothing on x86.
    #[inline(always)]
    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    /// Release: the image was written before.
    #[inline(always)]
    pub(crate) fn publish(&self, word: u64) {
        self.0.store(word, Ordering::Release);
    }
    /// Relaxed: says that memory is *not* to be read.
    #[inline(always)]
    pub(crate) fn mark_live(&self, stamp: u64) {
        self.0.store(stamp, Ordering::Relaxed);
    }
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut u64 {
        (self as *const Self).cast_mut().cast()
    }
}

/// The only writers of a CPU's words.
#[inline(always)]
pub(crate) fn set_resident<W: CpuWords>(cpu: &W, word: u64) {
    // SAFETY: W1, W2 are the word's; the method asks only that this crate chose the value, as it did.
    unsafe { cpu.set_resident(word) }
}
#[inline(always)]
pub(crate) fn set_gate<W: CpuWords>(cpu: &W, state: u64) {
    // SAFETY: W1, W2 are the word's; the method asks only that this crate chose the value, as it did.
    unsafe { cpu.set_gate(state) }
}

/// What leaving the CPU takes.
pub(crate) enum OutDue {
    Nothing,
    Save { saved: u64 },
}

/// What is due when the task of `word` is switched out of this CPU.
#[inline(always)]
pub(crate) fn out_due<W: CpuWords>(word: &TaskWord, cpu: &W) -> Result<OutDue, Error> {
    let w = word.load();
    if w & MEMORY != 0 {
        return Ok(OutDue::Nothing);
    }
    if w != cpu.resident() {
        return Err(refusal(w, cpu));
    }
    Ok(OutDue::Save { saved: w | MEMORY })
}

/// What going to user mode takes; each carries the word that the task then has.
pub(crate) enum InDue {
    Nothing,
    Mark {
        live: u64,
    },
    /// The CPU's word is `live` already, which nobody holds until the restore is done.
    Restore {
        live: u64,
    },
}

/// What is due before the task of `word` enters user mode here.
#[inline(always)]
pub(crate) fn in_due<W: CpuWords>(word: &TaskWord, cpu: &W) -> Result<InDue, Error> {
    let r = cpu.resident();
    // Bit 0 of `r` is 0, so that of the difference is the task's own.
    let differ = word.load() ^ r;
    if differ == 0 {
        return Ok(InDue::Nothing);
    }
    if differ == MEMORY {
        return Ok(InDue::Mark { live: r });
    }
    if differ & MEMORY == 0 {
        return Err(refuse_differing(differ, cpu));
    }
    let live = r.wrapping_add(STEP);
    if (live as i64) >= 0 {
        return Err(refuse_differing(differ, cpu));
    }
    // Before the registers change: from here on they are nobody's. A restore that fails needs
    // nothing undone.
    set_resident(cpu, live);
    Ok(InDue::Restore { live })
}

/// Why a word fits neither comparison.
#[inline(always)]
pub(crate) fn refusal<W: CpuWords>(w: u64, cpu: &W) -> Error {
    decode(reason(w, cpu))
}
/// The same for the difference of the two words.
#[cold]
#[inline(never)]
fn refuse_differing<W: CpuWords>(differ: u64, cpu: &W) -> Error {
    refusal(differ ^ cpu.resident(), cpu)
}
/// A number, not an [`Error`]: what a called function returns has no known range, and the compiler
/// would keep a path from the cold call back into the hot one, with a stack frame for both.
#[cold]
#[inline(never)]
fn reason<W: CpuWords>(w: u64, cpu: &W) -> u32 {
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

pub(crate) fn live_elsewhere(w: u64) -> Error {
    Error::LiveElsewhere { cpu: (((w & ID_MASK) >> 1) as u32).wrapping_sub(1) }
}

/// The stamp after the open word that [`close`] gave, which has refused where there is none.
#[inline(always)]
pub(crate) const fn after(open: u64) -> u64 {
    open.wrapping_add(STEP)
}

/// A stamp that nobody holds, where several may be taken before the CPU is opened again.
#[inline]
pub(crate) fn next_stamp(resident: u64) -> Result<u64, Error> {
    if resident >= LIMIT {
        return Err(Error::Exhausted);
    }
    Ok(resident.wrapping_add(STEP))
}

/// Shuts this CPU to every other user of the registers and returns its open word.
///
/// An interrupt can run a whole section before the gate is set; one that comes after is refused.
/// So the word is read behind the gate, and a plain load and store are enough.
///
/// A non-maskable interrupt is refused: it could be between a comparison and a save.
#[inline]
pub(crate) fn close<C: Pinned>(cpu: &C, by: u64) -> Result<u64, Error> {
    if cpu.level() == Level::Nmi {
        return Err(Error::Nmi);
    }
    close_words(cpu.words(), by)
}
fn close_words<W: CpuWords>(cpu: &W, by: u64) -> Result<u64, Error> {
    match cpu.gate() {
        gate::OPEN => {}
        gate::OFFLINE => return Err(Error::CpuOffline),
        _ => return Err(Error::Busy),
    }
    set_gate(cpu, by);
    compiler_fence(Ordering::SeqCst);
    let resident = cpu.resident();
    if resident | OPEN >= LIMIT {
        set_gate(cpu, gate::OPEN);
        return Err(Error::Exhausted);
    }
    if (resident as i64) >= 0 {
        // An interrupt has just begun something and forgotten to end it: it stays so.
        return Err(Error::Busy);
    }
    set_resident(cpu, closed(resident));
    Ok(resident | OPEN)
}

/// Opens it again with the word it shall have.
#[inline]
pub(crate) fn reopen<W: CpuWords>(cpu: &W, resident: u64) {
    set_resident(cpu, resident);
    compiler_fence(Ordering::SeqCst);
    set_gate(cpu, gate::OPEN);
}

/// The word of a CPU that comes online with a number: a stamp nobody holds.
pub(crate) fn online_word(old: u64, number: u32) -> Result<u64, Error> {
    if number >= MAX_CPUS {
        return Err(Error::InvalidCpu);
    }
    let id = u64::from(number + 1) << 1;
    if old & ID_MASK != id {
        return Ok(OPEN | id);
    }
    next_stamp(OPEN | old)
}

/// The word of a CPU whose claims end although no stamp is left: it matches nobody and refuses for ever.
pub(crate) fn used_up(resident: u64) -> u64 {
    closed(LIMIT | (resident & ID_MASK))
}

/// Is something open under this word, or was left so: closed, and not because it is used up?
pub(crate) fn left_closed(resident: u64) -> bool {
    (resident as i64) >= 0 && resident | OPEN < LIMIT
}

/// The word of a CPU that goes offline: closed, with room for one step. Where none is left, one that
/// [`online_word`] refuses. Coming back takes another stamp, so either alone would end all claims.
pub(crate) fn offline_word(resident: u64) -> u64 {
    closed(next_stamp(resident).unwrap_or(used_up(resident)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[derive(Default)]
    struct Words(Cell<u64>, Cell<u64>);
    // SAFETY: W1, W2: private cells of one test.
    unsafe impl CpuWords for Words {
        fn resident(&self) -> u64 {
            self.0.get()
        }
        unsafe fn set_resident(&self, word: u64) {
            self.0.set(word)
        }
        fn gate(&self) -> u64 {
            self.1.get()
        }
        unsafe fn set_gate(&self, word: u64) {
            self.1.set(word)
        }
    }
    fn online(number: u32) -> Words {
        Words(Cell::new(online_word(0, number).unwrap()), Cell::new(gate::OPEN))
    }

    #[test]
    fn a_word_is_in_one_state_only() {
        let cpu = online(2);
        let r = cpu.resident() + 5 * STEP;
        set_resident(&cpu, r);
        for (w, expect) in [
            (r, "nothing"),
            (r | MEMORY, "mark"),
            (NOWHERE, "restore"),
            ((r - STEP) | MEMORY, "restore"),
            (r - STEP, "Lost"),
            (OPEN | (5 << 1) | STEP, "LiveElsewhere { cpu: 4 }"),
        ] {
            set_resident(&cpu, r);
            let got = match in_due(&TaskWord(AtomicU64::new(w)), &cpu) {
                Ok(InDue::Nothing) => "nothing".into(),
                Ok(InDue::Mark { live }) => {
                    assert_eq!(live, r);
                    "mark".into()
                }
                Ok(InDue::Restore { live }) => {
                    assert_eq!((live, cpu.resident()), (r + STEP, r + STEP));
                    "restore".into()
                }
                Err(e) => std::format!("{e:?}"),
            };
            assert_eq!(got, expect, "word {w:#x}");
        }
    }

    #[test]
    fn exhaustion_is_refused_and_never_reissues() {
        let cpu = online(0);
        let id = cpu.resident();
        set_resident(&cpu, 0u64.wrapping_sub(2 * STEP) + (id & ID_MASK)); // the last but one
        let nowhere = TaskWord::new();
        let last = match in_due(&nowhere, &cpu) {
            Ok(InDue::Restore { live }) => live,
            _ => panic!("one stamp is left"),
        };
        assert_eq!(last, 0u64.wrapping_sub(STEP) + (id & ID_MASK));
        for _ in 0..3 {
            assert!(matches!(in_due(&nowhere, &cpu), Err(Error::Exhausted)));
            assert!(matches!(close_words(&cpu, gate::SECTION), Err(Error::Exhausted)));
            assert_eq!((cpu.resident(), cpu.gate()), (last, gate::OPEN));
        }
        let off = offline_word(last);
        assert!((off.wrapping_add(STEP) as i64) >= 0, "a claim on it must be seen as refused");
        assert_eq!(online_word(off, 0), Err(Error::Exhausted));
        assert_eq!(online_word(off, 1), Ok(OPEN | (2 << 1)));
    }

    #[test]
    fn a_closed_cpu_refuses_whatever_its_count() {
        for count in [0, 1, (1 << 47), (1 << 48) - 4, (1 << 48) - 3] {
            let cpu = online(7);
            set_resident(&cpu, cpu.resident() + count * STEP);
            let Ok(open) = close_words(&cpu, gate::SESSION) else {
                assert!(cpu.resident() >= LIMIT);
                continue;
            };
            let before = cpu.resident();
            for w in [open, open | MEMORY, NOWHERE, OPEN | STEP | 2] {
                assert!(matches!(in_due(&TaskWord(AtomicU64::new(w)), &cpu), Err(Error::Busy)));
                assert_eq!(cpu.resident(), before);
            }
            reopen(&cpu, open);
            assert_eq!(cpu.resident(), open);
        }
    }

    #[test]
    fn a_cpu_that_was_never_online_holds_nobody() {
        let cpu = Words::default();
        for w in [NOWHERE, OPEN | STEP | 2, OPEN | STEP | 2 | MEMORY] {
            assert!(matches!(in_due(&TaskWord(AtomicU64::new(w)), &cpu), Err(Error::CpuOffline)));
            let out = out_due(&TaskWord(AtomicU64::new(w)), &cpu);
            assert!(matches!(out, Ok(OutDue::Nothing) | Err(Error::CpuOffline)));
        }
        assert_eq!((cpu.resident(), cpu.gate()), (0, gate::OFFLINE));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(online_word(0, MAX_CPUS), Err(Error::InvalidCpu));
        assert_eq!(online_word(0, u32::MAX), Err(Error::InvalidCpu));
        assert_eq!(online_word(0, MAX_CPUS - 1), Ok(OPEN | (ID_MASK - 2)));
    }

    #[test]
    fn coming_back_continues_the_count() {
        let first = online_word(0, 3).unwrap();
        let later = first + 100 * STEP;
        assert_eq!(online_word(closed(later), 3), Ok(later + STEP));
    }
}
