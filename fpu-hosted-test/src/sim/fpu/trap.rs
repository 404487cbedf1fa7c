//! CR0.TS of the simulated CPU: who uses a register while it is set meets a fault.

use super::SimFpu;
use crate::sim::{Flaw, COMPONENTS};
use fpu_core::trap::TrapFpu;

impl SimFpu {
    /// Tells whether the trap is armed.
    #[must_use]
    pub fn trap_is_armed(&self) -> bool {
        self.armed.get()
    }
    /// A task's instruction writes one word of one component. `false` if it faulted, and has no effect.
    ///
    /// ```
    /// use fpu_core::trap::TrapFpu;
    /// let fpu = fpu_hosted_test::sim::SimFpu::new();
    /// // SAFETY: C50: simulated registers.
    /// unsafe { fpu.arm() };
    /// assert!(!fpu.task_writes(1, 0, 7));
    /// // SAFETY: C50: the same.
    /// unsafe { fpu.disarm() };
    /// assert!(fpu.task_writes(1, 0, 7));
    /// ```
    #[must_use]
    pub fn task_writes(&self, component: usize, word: usize, value: u64) -> bool {
        let missed = self.is(Flaw::TrapMissesComponent) && component == COMPONENTS - 1;
        if self.armed.get() && !missed {
            return false;
        }
        self.write_one(component, word, value);
        true
    }
    /// Instructions of the kernel that met the trap so far, each of which would have ended the kernel.
    #[must_use]
    pub fn kernel_traps(&self) -> u64 {
        self.kernel_traps.get()
    }
    /// An instruction of the kernel uses the registers. `true` if it faults.
    pub(super) fn kernel_met_trap(&self) -> bool {
        let met = self.armed.get();
        self.kernel_traps.set(self.kernel_traps.get() + u64::from(met));
        met
    }
}

// SAFETY: B18: `task_writes` is how a task's instruction uses a register. B19: one cell, which is no register. A `Flaw`
// breaks one of them on purpose.
unsafe impl TrapFpu for SimFpu {
    fn traps(&self) -> bool {
        true
    }
    unsafe fn arm(&self) {
        self.line.step();
        self.armed.set(true);
        if self.is(Flaw::ArmClobbers) {
            self.scribble(0xA4);
        }
    }
    unsafe fn disarm(&self) {
        self.line.step();
        self.armed.set(self.is(Flaw::DisarmForgets) && self.armed.get());
    }
}
