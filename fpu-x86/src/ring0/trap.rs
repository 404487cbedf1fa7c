//! CR0.TS as the trap of a task's first use of the registers ([`fpu_core::trap`]).

use fpu_core::trap::TrapFpu;

use crate::{components::Components, insn, plan::Plan, registers::CR0_TS};

/// Components each of whose instructions raises #NM while CR0.TS is set (SDM vol. 2, "Exceptions" of x87, MMX, SSE, AVX and
/// AVX-512 instructions). Those of MPX, AMX and APX do not, nor do the supervisor components have such instructions.
const TRAPPED: Components = Components::LEGACY.union(Components::AVX).union(Components::AVX512);

impl Plan {
    /// Tells whether CR0.TS covers all registers of this plan, in ring 0.
    pub(crate) fn is_trapped_by_ts(&self) -> bool {
        self.is_for_kernel() && TRAPPED.contains(self.components())
    }
}

// SAFETY: B18: fixed fields. With CR0.TS set, an instruction that accesses one of these components raises #NM, a fault
// (SDM vol. 3, 2.5); WAIT does too, as CR0.MP is set while the plan is enabled (K4). PREFETCHh, SFENCE, LFENCE, MFENCE,
// MOVNTI, CLFLUSH, CRC32 and POPCNT access no register of theirs. B19: MOV to CR0 and CLTS change CR0 only, and CLTS
// clears the bit that `arm` has set.
unsafe impl TrapFpu for Plan {
    /// On x86: a plan for ring 0 with x87, SSE, AVX and AVX-512 at most.
    fn traps(&self) -> bool {
        self.is_trapped_by_ts()
    }
    /// On x86: sets CR0.TS, which [`ControlState::verify`](crate::ControlState::verify) reports until
    /// [`disarm`](Self::disarm).
    unsafe fn arm(&self) {
        // SAFETY: N4: a plan that traps (C50) is for ring 0, where it is enabled (K4). N5: TS is legal with the bits
        // that stand there, and no code of the kernel uses the registers (C50).
        unsafe { insn::set_cr0(insn::cr0() | CR0_TS) };
    }
    /// On x86: CLTS.
    unsafe fn disarm(&self) {
        // SAFETY: N4: a plan that traps (C50) is for ring 0. N5: no task relies on the trap (C50).
        unsafe { insn::clts() };
    }
}

#[cfg(test)]
#[path = "../tests/trap.rs"]
mod tests;
