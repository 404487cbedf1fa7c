//! What the core's words say, as docs/theory.md has it: read from outside, so that the search can put a state together.

/// One stamp.
const STEP: u64 = 1 << 15;
/// The CPU's word is open.
pub(super) const OPEN: u64 = 1 << 63;
/// The CPU was taken offline.
pub(super) const GONE: u64 = 1;
/// Memory is valid.
pub(super) const MEMORY: u64 = 1;
const ID_MASK: u64 = (STEP - 1) & !MEMORY;
/// Memory is valid, and the number is that of no CPU.
pub(super) const NOWHERE: u64 = ID_MASK | MEMORY;
/// The count of a CPU that has plenty of stamps left, all its earlier ones being past.
const NOW: u64 = 64;
/// The count that carries out of the word.
const END: u64 = 1 << 48;
/// The search does not distinguish so many stamps left from more.
pub(super) const PLENTY: u8 = 15;
/// With so many left, or fewer, only the hot path takes one.
pub(super) const RESERVE: u8 = 3;
/// The gate of a CPU that is not online.
pub(super) const GATE_OFFLINE: u64 = 0;
/// The gate of a CPU that is open.
pub(super) const GATE_OPEN: u64 = OPEN;

/// The count of stamps in a word.
fn count(word: u64) -> u64 {
    (word & !OPEN) / STEP
}
fn id(cpu: usize) -> u64 {
    (cpu as u64 + 1) << 1
}
/// The number of a CPU's word.
pub(super) fn number(resident: u64) -> u32 {
    ((resident & ID_MASK) >> 1) as u32 - 1
}
/// A CPU's word, with so many stamps left.
pub(super) fn resident(cpu: usize, open: bool, left: u8) -> u64 {
    let now = if left == PLENTY { NOW } else { END - u64::from(left) };
    (u64::from(open) << 63) + now * STEP + id(cpu)
}
/// How many stamps a CPU's word leaves, those of the reserve included.
pub(super) fn left(resident: u64) -> u8 {
    (END - count(resident)).min(PLENTY.into()) as u8
}
/// Tells whether two words carry one number.
fn same_number(one: u64, other: u64) -> bool {
    (one ^ other) & ID_MASK == 0
}
/// Could the core issue a stamp again after a CPU's word has changed so? Not under another number, and not from a word
/// that is closed for ever because its stamps are used up.
pub(super) fn goes_back(old: u64, new: u64) -> bool {
    let used_up = new & OPEN == 0 && left(new) <= RESERVE;
    same_number(old, new) && count(new) < count(old) && !used_up
}

/// What a context's word says, with the stamps renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Memory is valid, and no registers will ever match again.
    Nowhere,
    /// That CPU's registers are claimed, by a stamp so far ahead of the CPU's own: a claim with 0 stands.
    On {
        /// The CPU.
        cpu: usize,
        /// How far ahead.
        ahead: u8,
        /// Whether memory is valid too.
        memory: bool,
    },
    /// Memory is not valid, and the stamp is past: the state is gone.
    Lost {
        /// The CPU.
        cpu: usize,
    },
}

/// The search does not distinguish a stamp so far ahead from one farther ahead.
pub(super) const FAR: u8 = 14;

impl Claim {
    /// The claim of a context's word, given each CPU's word.
    pub(super) fn of(word: u64, residents: &[u64]) -> Self {
        let Some(cpu) = residents.iter().position(|&resident| same_number(word, resident)) else {
            // Its number was given up, or is that of no CPU.
            return if word & MEMORY != 0 { Self::Nowhere } else { Self::Lost { cpu: 0 } };
        };
        let memory = word & MEMORY != 0;
        match count(word).checked_sub(count(residents[cpu])) {
            Some(ahead) => Self::On { cpu, ahead: ahead.min(u64::from(FAR)) as u8, memory },
            None if memory => Self::Nowhere,
            None => Self::Lost { cpu },
        }
    }
    /// The claim as a context's word again, given each CPU's word.
    pub(super) fn word(self, residents: &[u64]) -> u64 {
        match self {
            Self::Nowhere => NOWHERE,
            Self::On { cpu, ahead, memory } => {
                (residents[cpu] & !GONE | OPEN) + u64::from(ahead) * STEP + u64::from(memory)
            }
            Self::Lost { cpu } => (residents[cpu] & !GONE | OPEN) - STEP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::{
        backend::{Off, Pin},
        machine::Machine,
    };
    use core::sync::atomic::Ordering::Relaxed;
    use fpu_core::{CpuLifecycle, CpuWords, Level};

    /// This file reads the words that the core writes as what they are.
    #[test]
    fn the_words_are_read_as_the_core_writes_them() {
        let machine = Machine::new(1, 0);
        let (cpu, task) = (&machine.cpus[0], machine.slots[0].fpu.borrow());
        // SAFETY: K15, K16: the only CPU, its words new.
        unsafe { Pin(cpu, Level::Task).fpu_online(0) }.unwrap();
        let word = || Machine::word(&task).load(Relaxed);
        let claim = || Claim::of(word(), &[cpu.words.resident()]);
        let here = |memory| Claim::On { cpu: 0, ahead: 0, memory };
        assert_eq!((word(), claim()), (NOWHERE, Claim::Nowhere));
        drop(task.switch_return(&mut Off::new(cpu)).unwrap());
        assert_eq!(claim(), here(false));
        task.switch_prepare(&Off::new(cpu)).unwrap();
        assert_eq!(claim(), here(true));
        drop(task.switch_return(&mut Off::new(cpu)).unwrap());
        Pin(cpu, Level::Task).invalidate_registers().unwrap();
        assert_eq!(claim(), Claim::Lost { cpu: 0 });
        for claim in [here(true), here(false), Claim::Lost { cpu: 0 }, Claim::Nowhere] {
            for (open, few) in [(true, PLENTY), (false, PLENTY), (true, 2), (false, 5)] {
                let residents = [resident(0, open, few)];
                assert_eq!(Claim::of(claim.word(&residents), &residents), claim);
                assert_eq!(left(residents[0]), few);
            }
        }
    }
}
