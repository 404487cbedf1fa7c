//! Moments of a run, counted, and its clock. Whoever sees one counts it, and the verdict reads all.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fpu_core::observe::Counters;

/// Sections in interrupts, in threads and system calls, and those that were refused.
pub static IRQ_SECTIONS: AtomicU64 = AtomicU64::new(0);
pub static SECTIONS: AtomicU64 = AtomicU64::new(0);
pub static BUSY: AtomicU64 = AtomicU64::new(0);
/// Of these, those that had interrupted a worker's section or guest.
pub static WORKER_BUSY: AtomicU64 = AtomicU64::new(0);
pub static NMIS: AtomicU64 = AtomicU64::new(0);
/// Single steps, those after which a section was asked for, and had.
pub static STEPS: AtomicU64 = AtomicU64::new(0);
pub static STEP_ASKED: AtomicU64 = AtomicU64::new(0);
pub static STEP_SECTIONS: AtomicU64 = AtomicU64::new(0);
/// Times a CPU went to sleep, and those when it had to give registers up.
pub static IDLE: AtomicU64 = AtomicU64::new(0);
pub static RELEASED: AtomicU64 = AtomicU64::new(0);
pub static VERIFIED: AtomicU64 = AtomicU64::new(0);
/// Refused images whose error has the vector, and those after a handler that set RIP only.
pub static BAD_IMAGES: AtomicU64 = AtomicU64::new(0);
pub static RIP_ONLY: AtomicU64 = AtomicU64::new(0);
/// x87 errors that tasks raised.
pub static X87_ERRORS: AtomicU64 = AtomicU64::new(0);
pub static TICKS: AtomicU64 = AtomicU64::new(0);
/// Microseconds that CPU 0's timer has run.
pub static CLOCK: AtomicU64 = AtomicU64::new(0);
/// Comparisons of a task's registers, and what went otherwise.
pub static CHECKS: AtomicU64 = AtomicU64::new(0);
pub static MISMATCHES: AtomicU64 = AtomicU64::new(0);
pub static EXITS: AtomicU64 = AtomicU64::new(0);
/// Children that have found in their registers what their parents had.
pub static FORKS: AtomicU64 = AtomicU64::new(0);
/// Programs that began with initial registers in a task that had others.
pub static EXECS: AtomicU64 = AtomicU64::new(0);
pub static OFFLINE: AtomicU64 = AtomicU64::new(0);
pub static RESUMES: AtomicU64 = AtomicU64::new(0);
/// First uses of registers that were trapped, and how many threads compute.
pub static FIRST_USES: AtomicU64 = AtomicU64::new(0);
pub const COMPUTING: u64 = 2;
/// Sections in interrupts of threads that could be trapped, and those that were refused.
pub static TRAP_SECTIONS: AtomicU64 = AtomicU64::new(0);
pub static TRAP_BUSY: AtomicU64 = AtomicU64::new(0);
/// Rounds of all guests.
pub static GUESTS: AtomicU64 = AtomicU64::new(0);

/// Accesses to user memory that the processor refused because of a protection key.
pub static KEYED: AtomicU64 = AtomicU64::new(0);
/// Signals delivered, times that a page had to be made present for a frame, and signals returned from.
pub static SIGNALS: AtomicU64 = AtomicU64::new(0);
pub static RETRIES: AtomicU64 = AtomicU64::new(0);
pub static RETURNS: AtomicU64 = AtomicU64::new(0);
/// Edits of frames that the interrupted programs have found in their registers.
pub static EDITS: AtomicU64 = AtomicU64::new(0);
/// Tasks that ended because their frames were refused.
pub static JUNK: AtomicU64 = AtomicU64::new(0);

/// Tile uses of a task: an area with room was given, or the task has no permission and ended; there was no memory, and it ended
/// or tried again later. Areas given back by exec; comparisons of tiles; forks of tasks with tiles.
pub static TILES_GIVEN: AtomicU64 = AtomicU64::new(0);
pub static TILES_REFUSED: AtomicU64 = AtomicU64::new(0);
pub static TILES_ENDED: AtomicU64 = AtomicU64::new(0);
pub static TILES_RETRIED: AtomicU64 = AtomicU64::new(0);
pub static TILES_SHRUNK: AtomicU64 = AtomicU64::new(0);
pub static TILE_CHECKS: AtomicU64 = AtomicU64::new(0);
pub static TILE_FORKS: AtomicU64 = AtomicU64::new(0);

/// Stopped tasks whose registers a debugger has read, and changed; and changes that the tasks have found.
pub static TRACE_READS: AtomicU64 = AtomicU64::new(0);
pub static TRACE_WRITES: AtomicU64 = AtomicU64::new(0);
pub static TRACE_EDITS: AtomicU64 = AtomicU64::new(0);

/// Entries into virtual CPUs, each with its exit; those that ended by an interrupt; rounds of their programs; values of XCR0
/// that they were given and refused.
pub static VM_ENTRIES: AtomicU64 = AtomicU64::new(0);
pub static VM_INTERRUPTS: AtomicU64 = AtomicU64::new(0);
pub static VM_ROUNDS: AtomicU64 = AtomicU64::new(0);
pub static VM_XCR0: AtomicU64 = AtomicU64::new(0);
pub static VM_REFUSED: AtomicU64 = AtomicU64::new(0);
/// Saves and restores of their registers.
pub static VM_SAVES: AtomicU64 = AtomicU64::new(0);
pub static VM_RESTORES: AtomicU64 = AtomicU64::new(0);

/// Saves on this CPU so far.
pub fn saved(counters: &Counters) -> u64 {
    counters.totals().saved
}
/// Counts those since then, if they were of a virtual CPU.
pub fn of_guest(is: bool, counters: &Counters, before: u64) {
    if is {
        VM_SAVES.fetch_add(saved(counters) - before, Relaxed);
    }
}

/// One more.
pub fn count(what: &AtomicU64) {
    what.fetch_add(1, Relaxed);
}
