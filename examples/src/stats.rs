//! Counts and cycles, read off the log.

use std::sync::atomic::Ordering;

use crate::{
    script::{Kind, Op, NO_TASK},
    world::{Record, HOST_RESTORED, HOST_SAVED, RESTORED, SAVED, SKIPPED},
};

/// The kinds of measured pieces of kernel code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Piece {
    /// To user mode, with a restore.
    Restore,
    /// To user mode, restore skipped.
    Skip,
    /// To user mode, the task being live already.
    Live,
    /// The save first thing on entry.
    EntrySave,
    /// A switch-out with a save.
    OutSave,
    /// A switch-out with nothing due.
    OutNothing,
    /// Beginning a section with a save.
    SectionSave,
    /// Beginning a section with nothing to save.
    SectionNothing,
    /// Ending a section with a restore (eager only).
    SectionRestore,
    /// To a guest, with its restore, and with its host's save where that is due.
    GuestRestore,
    /// To a guest that the registers still hold.
    GuestSkip,
    /// Back from a guest: its save, and its host's restore (eager only).
    GuestExit,
}

/// All pieces with their names.
pub const PIECES: [(Piece, &str); 12] = [
    (Piece::Restore, "restore"),
    (Piece::Skip, "skipped_restore"),
    (Piece::Live, "still_live"),
    (Piece::EntrySave, "save_on_entry"),
    (Piece::OutSave, "save_on_switch"),
    (Piece::OutNothing, "switch_nothing_due"),
    (Piece::SectionSave, "section_with_save"),
    (Piece::SectionNothing, "section_nothing_due"),
    (Piece::SectionRestore, "section_end_restore"),
    (Piece::GuestRestore, "guest_entry_restore"),
    (Piece::GuestSkip, "guest_entry_skipped"),
    (Piece::GuestExit, "guest_exit"),
];

/// Samples of every piece.
#[derive(Clone, Debug, Default)]
pub struct Samples([Vec<u32>; PIECES.len()]);

impl Samples {
    pub(crate) fn add(&mut self, piece: Piece, cycles: u32) {
        self.0[piece as usize].push(cycles);
    }
    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (all, more) in self.0.iter_mut().zip(&other.0) {
            all.extend(more);
        }
    }
    /// The number of samples of a piece.
    #[must_use]
    pub fn count(&self, piece: Piece) -> u64 {
        self.0[piece as usize].len() as u64
    }
    /// Minimum and median of a piece, less the cost of measuring; `None` if there was none.
    #[must_use]
    pub fn min_and_median(&self, piece: Piece, overhead: u32) -> Option<(u32, u32)> {
        let mut sorted = self.0[piece as usize].clone();
        sorted.sort_unstable();
        let (min, median) = (*sorted.first()?, *sorted.get(sorted.len() / 2)?);
        Some((min.saturating_sub(overhead), median.saturating_sub(overhead)))
    }
    /// The sum over all pieces, without their slowest 5 % (at least one): those are interrupts.
    ///
    /// A mean and not a median, because restores of hot and of cold images are two populations.
    #[must_use]
    pub fn total(&self, overhead: u32) -> u64 {
        let each =
            PIECES.iter().map(|(piece, _)| self.mean(*piece, overhead) * self.count(*piece) as f64);
        each.sum::<f64>().round() as u64
    }
    /// The mean of a piece without its slowest 5 %, less the cost of measuring; 0 if there was none.
    #[must_use]
    pub fn mean(&self, piece: Piece, overhead: u32) -> f64 {
        let mut sorted = self.0[piece as usize].clone();
        sorted.sort_unstable();
        let slow = if sorted.len() > 1 { sorted.len().div_ceil(20) } else { 0 };
        let kept = &sorted[..sorted.len() - slow];
        let sum: u64 = kept.iter().map(|cycles| u64::from(cycles.saturating_sub(overhead))).sum();
        sum as f64 / kept.len().max(1) as f64
    }
}

/// The counts of a run of a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Returns to user mode and to guests, every register of each checked.
    pub returns: u64,
    /// Saves executed.
    pub saves: u64,
    /// Restores executed.
    pub restores: u64,
    /// Restores found not to be needed.
    pub skipped: u64,
}

impl Counts {
    /// The sums of both.
    pub fn add(&mut self, other: Self) {
        self.returns += other.returns;
        self.saves += other.saves;
        self.restores += other.restores;
        self.skipped += other.skipped;
    }
}

/// Tells whether the piece is a trip to user mode, or to a guest.
#[must_use]
pub fn is_return(op: &Op) -> bool {
    matches!(op.kind, Kind::User | Kind::UserSave | Kind::Guest)
}

/// Reads a complete log.
#[must_use]
pub fn read(ops: &[Op], records: &[Record], eager: bool) -> (Counts, Samples) {
    let (mut counts, mut samples) = (Counts::default(), Samples::default());
    for (op, record) in ops.iter().zip(records) {
        let flags = record.flags.load(Ordering::Relaxed);
        let has = |bit| flags & bit != 0;
        counts.returns += u64::from(is_return(op));
        counts.saves += u64::from(has(SAVED)) + u64::from(has(HOST_SAVED));
        counts.restores += u64::from(has(RESTORED)) + u64::from(has(HOST_RESTORED));
        counts.skipped += u64::from(has(SKIPPED));
        let piece = match op.kind {
            Kind::User | Kind::UserSave if has(RESTORED) => Piece::Restore,
            Kind::User | Kind::UserSave if has(SKIPPED) => Piece::Skip,
            Kind::User | Kind::UserSave => Piece::Live,
            Kind::Out if has(SAVED) => Piece::OutSave,
            Kind::Out => Piece::OutNothing,
            Kind::Section if has(SAVED) => Piece::SectionSave,
            Kind::Section => Piece::SectionNothing,
            Kind::Guest if has(SKIPPED) => Piece::GuestSkip,
            Kind::Guest => Piece::GuestRestore,
            _ => continue,
        };
        samples.add(piece, record.cycles.load(Ordering::Relaxed));
        let second = record.entry_cycles.load(Ordering::Relaxed);
        if op.kind == Kind::UserSave {
            samples.add(Piece::EntrySave, second);
        } else if eager && op.kind == Kind::Section && op.task != NO_TASK {
            samples.add(Piece::SectionRestore, second);
        } else if op.kind == Kind::Guest {
            samples.add(Piece::GuestExit, second);
        }
    }
    (counts, samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_do_not_move_the_total() {
        let mut samples = Samples::default();
        for cycles in [110, 120, 130, 1_000_000, 115] {
            samples.add(Piece::Restore, cycles);
        }
        assert_eq!(samples.min_and_median(Piece::Restore, 10), Some((100, 110)));
        assert_eq!(samples.mean(Piece::Skip, 10), 0.0);
        assert_eq!(samples.min_and_median(Piece::Skip, 10), None);
        assert_eq!(samples.mean(Piece::Restore, 10), (100 + 105 + 110 + 120) as f64 / 4.0);
        assert_eq!(samples.total(10), 544);
    }
}
