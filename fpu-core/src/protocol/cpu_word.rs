//! A CPU's two words: the stamp of what its registers hold, and its gate.
//!
//! ```text
//! the stamp   bit 63       open: a context's word can match it
//!             bits 15..62  count of the stamps issued
//!             bits 1..14   CPU number + 1
//!             bit 0        the CPU was taken offline; 0 while it is online
//! ```
//!
//! A new stamp is issued by adding to the count, so no stamp is issued twice, and no two CPUs share a range. A word
//! that is not open (0, at first) equals no context's word, and adding to it does not open it; adding to the last
//! open one carries out of it. So one sign test covers "never online", "offline", "section open", "session open" and
//! "all stamps issued".
//!
//! Only the CPU itself accesses its words (K3).

use crate::{
    error::Error,
    witness::{CpuWords, MAX_CPUS},
};

const STEP: u64 = 1 << 15;
const OPEN: u64 = 1 << 63;
/// The CPU was taken offline. The gate cannot say so to code that has stored to it since it was read.
const GONE: u64 = 1;
/// Where the CPU's number is, in a context's word too.
pub(super) const ID_MASK: u64 = (STEP - 1) & !1;
/// Highest CPU word from which a section or session may still issue a stamp. Only claims of the hot
/// path go further, so a word that is not open has room for one more stamp.
const LIMIT: u64 = 0u64.wrapping_sub(3 * STEP);
// The number after the last one is that of no CPU: it says "nowhere".
const _: () = assert!((MAX_CPUS as u64) << 1 == ID_MASK - 2);

/// States of a CPU's gate.
pub(crate) mod gate {
    pub(crate) const OFFLINE: u64 = 0;
    /// The bit that says so in the other word too, so that a load asks both by one test.
    pub(crate) const OPEN: u64 = super::OPEN;
    pub(crate) const SECTION: u64 = 1;
    pub(crate) const SESSION: u64 = 2;
}

/// A CPU's word: the stamp under which its registers were loaded last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// The stamp that this CPU has now.
    #[inline(always)]
    pub(crate) fn of<W: CpuWords>(cpu: &W) -> Self {
        Self(cpu.resident())
    }
    /// Stores the stamp to the CPU's word: a context with another stamp no longer matches.
    #[inline(always)]
    pub(super) fn set<W: CpuWords>(self, cpu: &W) {
        // SAFETY: K13 (words kept), K14 (whole accesses) are the implementer's; the method asks only that this crate
        // chose the value.
        unsafe { cpu.set_resident(self.0) }
    }
    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
    /// The stamp that these bits were taken from.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Tells whether a context's word can match this stamp: it was issued, and the CPU is open.
    #[inline(always)]
    pub(crate) const fn is_open(self) -> bool {
        (self.0 as i64) < 0
    }
    /// Tells whether this stamp can be given to a context now: it is open, and so is the gate, which a call that this code
    /// has interrupted shuts before it closes the word.
    #[inline(always)]
    pub(crate) fn can_be_taken<W: CpuWords>(self, cpu: &W) -> bool {
        ((self.0 & cpu.gate()) as i64) < 0
    }
    /// Tells whether the CPU of that number issued it.
    #[inline(always)]
    pub(crate) const fn is_of(self, number: u32) -> bool {
        self.0 & ID_MASK == (number as u64 + 1) << 1
    }
    /// The stamp after this one, which no context holds: open if this one is, and it was not the last.
    #[inline(always)]
    pub(super) const fn next(self) -> Self {
        Self(self.0.wrapping_add(STEP))
    }
    /// The stamp before this one.
    #[inline(always)]
    pub(super) const fn before(self) -> Self {
        Self(self.0.wrapping_sub(STEP))
    }
    /// As [`next`](Self::next), where several stamps may be issued before the CPU is opened again: refuses while one is left.
    #[inline]
    pub(super) fn another(self) -> Result<Self, Error> {
        if self.0 >= LIMIT {
            return Err(Error::Exhausted);
        }
        Ok(self.next())
    }
    /// The same count with the open bit clear: the word matches no context and refuses every claim.
    #[inline(always)]
    pub(super) const fn closed(self) -> Self {
        Self(self.0 & !OPEN)
    }
    /// The same count with the open bit set.
    #[inline(always)]
    pub(super) const fn open(self) -> Self {
        Self(self.0 | OPEN)
    }
    /// Tells whether only the stamps of the hot path are left.
    #[inline(always)]
    pub(super) const fn none_left(self) -> bool {
        self.0 | OPEN >= LIMIT
    }
    /// Tells whether a section or session is open under this word, or was forgotten: closed, with stamps left.
    pub(super) const fn left_closed(self) -> bool {
        !self.is_open() && !self.none_left()
    }
    /// Tells whether the CPU was never online, or was taken offline.
    pub(super) const fn is_offline(self) -> bool {
        self.0 == 0 || self.0 & GONE != 0
    }
    /// The word of a CPU whose claims end although no stamp is left: the word matches no context, and
    /// refuses each claim from now on.
    pub(super) const fn used_up(self) -> Self {
        Self(LIMIT | (self.0 & ID_MASK)).closed()
    }
    /// The word of a CPU that goes online under a number: a stamp that no context holds.
    pub(super) fn online(self, number: u32) -> Result<Self, Error> {
        if number >= MAX_CPUS {
            return Err(Error::InvalidCpu);
        }
        let id = u64::from(number + 1) << 1;
        if self.0 & ID_MASK != id {
            return Ok(Self(OPEN | id));
        }
        let back = Self(self.0 & !GONE).open();
        back.another()
    }
    /// The word of a CPU that goes offline: closed, with room for one step. Where none is left, one that
    /// [`online`](Self::online) refuses. Going online takes another stamp, so either alone would end all claims.
    pub(super) fn offline(self) -> Self {
        let after = self.another().unwrap_or(self.used_up()).closed();
        Self(after.0 | GONE)
    }
}

#[inline(always)]
pub(super) fn set_gate<W: CpuWords>(cpu: &W, state: u64) {
    // SAFETY: K13 (words kept), K14 (whole accesses) are the word's; the method asks only that this crate chose the
    // value, as it did.
    unsafe { cpu.set_gate(state) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use core::cell::Cell;

    #[derive(Default)]
    pub(crate) struct Words(Cell<u64>, Cell<u64>);
    // SAFETY: K13, K14: private cells of one test.
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
    /// A CPU of that number, so many stamps after its first.
    pub(crate) fn online(number: u32, count: u64) -> Words {
        let first = Stamp(0).online(number).unwrap();
        Words(Cell::new(first.0.wrapping_add(count * STEP)), Cell::new(gate::OPEN))
    }
    /// The first stamp that a CPU of that number issues, so many later.
    pub(crate) fn stamp(number: u32, count: u64) -> Stamp {
        Stamp::of(&online(number, count))
    }
    /// So many stamps, the first with them, lie in a word.
    pub(crate) const ALL: u64 = 1 << 48;

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(Stamp(0).online(MAX_CPUS), Err(Error::InvalidCpu));
        assert_eq!(Stamp(0).online(u32::MAX), Err(Error::InvalidCpu));
        assert_eq!(Stamp(0).online(MAX_CPUS - 1), Ok(Stamp(OPEN | (ID_MASK - 2))));
    }

    #[test]
    fn going_online_again_continues_the_count() {
        let later = stamp(3, 100);
        assert_eq!(later.closed().online(3), Ok(later.next()));
        assert_eq!(later.closed().online(4), Ok(stamp(4, 0)));
    }

    #[test]
    fn the_last_stamp_is_the_end_of_its_number() {
        let last = stamp(0, ALL - 1);
        assert!(last.is_open() && last.none_left() && !last.next().is_open());
        assert_eq!(last.another(), Err(Error::Exhausted));
        let off = last.offline();
        assert!(!off.next().is_open(), "a claim on it must be seen as refused");
        assert_eq!(off.online(0), Err(Error::Exhausted));
        assert_eq!(off.online(1), Ok(stamp(1, 0)));
    }
}
