//! Files of registers: what sections load, and what they find.

use core::{cell::UnsafeCell, mem::MaybeUninit};

use crate::{
    cpu::PerCpu,
    hw,
    params::MAX_CPUS,
    regs::{self, RegFile},
};

/// A file that is filled at the start. Stacks are too small to move many of them about.
pub struct File(UnsafeCell<MaybeUninit<RegFile>>);
// SAFETY: see where they are used.
unsafe impl Sync for File {}

impl File {
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }
    pub fn fill(&self, file: RegFile) {
        // SAFETY: called before interrupts, tasks and other CPUs.
        unsafe { self.get().write(file) }
    }
    pub fn get(&self) -> *mut RegFile {
        self.0.get().cast()
    }
}

/// What sections load: patterns that no task has. Read only.
static SCRIBBLES: [File; 4] = [const { File::new() }; 4];
/// What a section of each CPU finds: one at a time, as a second is refused.
static SEEN: [File; MAX_CPUS] = [const { File::new() }; MAX_CPUS];

/// The initial state. Read only.
static INITIAL: File = File::new();

/// The initial state.
pub fn initial() -> &'static RegFile {
    // SAFETY: filled by `prepare`, and not written since.
    unsafe { &*INITIAL.get() }
}

/// Fills them, once the classes are known.
pub fn prepare() {
    let classes = hw::classes();
    for (n, file) in SCRIBBLES.iter().enumerate() {
        file.fill(RegFile::pattern((n as u64 + 1) << 40, classes));
    }
    INITIAL.fill(RegFile::initial(classes));
    for file in &SEEN {
        file.fill(RegFile::initial(classes));
    }
}

/// This CPU's file for what a section finds.
pub fn seen(cpu: &PerCpu) -> *mut RegFile {
    SEEN[cpu.number.get() as usize % MAX_CPUS].get()
}

pub fn pattern(random: u64) -> &'static RegFile {
    // SAFETY: filled by `prepare`, and not written since.
    unsafe { &*SCRIBBLES[random as usize % SCRIBBLES.len()].get() }
}

/// Puts other values into every register that tasks have.
///
/// # Safety
///
/// The kernel's registers (C35) of [`regs::load`]: in a section, or where a fault leaves it out on purpose.
pub unsafe fn scribble(cpu: &PerCpu) -> &'static RegFile {
    let pattern = pattern(cpu.random());
    // SAFETY: C34: classes of this CPU. C35: the caller's.
    unsafe {
        regs::load(pattern);
        hw::write_ssp(0x5EC7_0000);
    }
    pattern
}
