//! A directory of cache lines: which CPUs have a copy of which line.
//!
//! The rules are those of MESI protocols. A load without a copy fetches one. A store needs the only copy: it fetches
//! the line if there is none here, and ends the other copies. Caches are infinite, so that a line leaves a CPU's cache
//! only because another CPU stores to it; a real cache also evicts lines, to memory and not to another CPU.

use std::{
    collections::HashMap,
    ops::{AddAssign, Sub},
};

/// Bytes of a line.
pub const LINE: usize = 64;

/// What had to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Lines that came from another CPU's cache.
    pub transfers: u64,
    /// Stores to a line that other CPUs had a copy of too: the copies end, and no data moves.
    pub claims: u64,
    /// Lines that no CPU had, which come from memory.
    pub fills: u64,
}

impl Moved {
    /// Tells whether one CPU had to hear of another.
    #[must_use]
    pub const fn between_cpus(self) -> bool {
        self.transfers != 0 || self.claims != 0
    }
}
impl Sub for Moved {
    type Output = Self;
    fn sub(self, before: Self) -> Self {
        Self {
            transfers: self.transfers - before.transfers,
            claims: self.claims - before.claims,
            fills: self.fills - before.fills,
        }
    }
}
impl AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.transfers += other.transfers;
        self.claims += other.claims;
        self.fills += other.fills;
    }
}

/// CPUs that a directory knows.
pub const CPUS: usize = 1024;

/// The CPUs that have a copy of one line: a bit each, and their number.
#[derive(Debug)]
struct Copies([u64; CPUS / 64], u16);

impl Copies {
    const NONE: Self = Self([0; CPUS / 64], 0);

    fn has(&self, cpu: u16) -> bool {
        self.0[usize::from(cpu) / 64] >> (cpu % 64) & 1 != 0
    }
    fn add(&mut self, cpu: u16) {
        self.0[usize::from(cpu) / 64] |= 1 << (cpu % 64);
        self.1 += 1;
    }
}
impl Default for Copies {
    fn default() -> Self {
        Self::NONE
    }
}

/// The directory.
#[derive(Debug, Default)]
pub struct Lines {
    /// By the number of the line.
    copies: HashMap<usize, Copies>,
    moved: Moved,
}

impl Lines {
    /// What has moved so far.
    #[must_use]
    pub const fn moved(&self) -> Moved {
        self.moved
    }
    /// A CPU loads from the address.
    pub fn load(&mut self, cpu: u16, address: usize) {
        let copies = self.copies.entry(address / LINE).or_default();
        if copies.has(cpu) {
            return;
        }
        match copies.1 {
            0 => self.moved.fills += 1,
            _ => self.moved.transfers += 1,
        }
        copies.add(cpu);
    }
    /// A CPU stores to the address.
    pub fn store(&mut self, cpu: u16, address: usize) {
        let copies = self.copies.entry(address / LINE).or_default();
        match (copies.has(cpu), copies.1) {
            (true, 1) => return,
            (true, _) => self.moved.claims += 1,
            (false, 0) => self.moved.fills += 1,
            (false, _) => self.moved.transfers += 1,
        }
        *copies = Copies::NONE;
        copies.add(cpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transfers, claims, fills.
    fn after(accesses: &[(u16, usize, bool)]) -> [u64; 3] {
        let mut lines = Lines::default();
        for (cpu, address, stores) in accesses {
            match stores {
                true => lines.store(*cpu, *address),
                false => lines.load(*cpu, *address),
            }
        }
        let Moved { transfers, claims, fills } = lines.moved();
        [transfers, claims, fills]
    }

    #[test]
    fn a_line_that_one_cpu_uses_comes_once_from_memory() {
        assert_eq!(after(&[(0, 64, false), (0, 127, true), (0, 64, false)]), [0, 0, 1]);
        assert_eq!(after(&[(0, 63, true), (0, 64, true), (1, 128, true)]), [0, 0, 3]);
    }

    #[test]
    fn a_line_that_two_cpus_use_moves_between_them() {
        let [a, b] = [(0, 0, true), (1, 8, true)];
        assert_eq!(after(&[a, b, a, b]), [3, 0, 1], "stores by turns: false sharing");
        let read = (1, 0, false);
        assert_eq!(after(&[a, read, read, a, read]), [2, 1, 1], "a store ends the reader's copy");
        assert_eq!(after(&[a, read, b, b]), [1, 1, 1], "the reader stores: no data moves again");
        let readers: Vec<_> = (1..9).map(|cpu| (cpu, 0, false)).collect();
        assert_eq!(
            after(&[&[a], &readers[..], &[a]].concat()),
            [8, 1, 1],
            "one store, eight copies"
        );
    }
}
