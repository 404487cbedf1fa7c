//! How the fault handlers answer a refused restore: not at all with the fault, by RIP alone, or with the vector too.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::{counts::CLOCK, faults::Fault, seeded};

static SERVED: AtomicU64 = AtomicU64::new(0);
static RIP_ONLY: AtomicBool = AtomicBool::new(false);

/// While no task runs: does the handler set RIP alone?
pub fn set_rip_only(alone: bool) {
    RIP_ONLY.store(alone, Relaxed);
}

/// Do the handlers ask the library about faults?
///
/// While the first CPU finds out which images are refused, they do in any case.
pub fn serves_fixup() -> bool {
    !seeded::on(Fault::NoFixup) || CLOCK.load(Relaxed) == 0
}

/// Does the handler tell the vector in RAX? Handlers of the type `extern "x86-interrupt"` can set RIP only: once
/// tasks run, every second fault is served as they would.
pub fn tells_vector() -> bool {
    if CLOCK.load(Relaxed) == 0 {
        return !RIP_ONLY.load(Relaxed);
    }
    SERVED.fetch_add(1, Relaxed) & 1 == 0
}
