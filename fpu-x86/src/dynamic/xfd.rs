//! IA32_XFD of a CPU.
//!
//! The register has the value of the context whose registers the CPU holds. Only a restore writes it (and `adopt`,
//! where there is no restore), and only if the value differs from the CPU's copy. The copy says "unknown" from before a
//! write until after it, and is set up anew whenever the control registers are.

#[cfg(test)]
#[path = "../tests/xfd.rs"]
mod tests;

use super::{DynamicPlan, Room, XfdCopy};
use crate::{
    components::Components,
    cpuid::CpuidInfo,
    registers::ControlRegister,
    ring0::{ControlMismatch, ControlState, EnableError},
};
use fpu_core::RestoreFault;

/// A word that is no value of IA32_XFD.
const UNKNOWN: u64 = u64::MAX;

impl<X: XfdCopy> DynamicPlan<X> {
    /// The value of IA32_XFD while the registers are those of a context with that room.
    #[must_use]
    pub fn xfd_of(&self, room: Room) -> Components {
        match room {
            Room::Base => self.on_demand,
            Room::Full => Components::empty(),
        }
    }

    /// Tells, by the copy, whether this CPU lets a task use these components.
    pub(super) fn allows(&self, components: Components) -> bool {
        let disabled = Components::from_bits_retain(self.copy.get());
        !disabled.intersects(components.intersection(self.on_demand))
    }

    /// Writes IA32_XFD before the registers become those of a context with that room.
    ///
    /// # Safety
    ///
    /// Registers free (C10), on a CPU where the plan is in force.
    #[inline]
    pub(super) unsafe fn let_use(&self, room: Room) -> Result<(), RestoreFault> {
        let xfd = self.xfd_of(room).bits();
        // Where nothing is on demand the copy stays 0 (K20).
        if self.copy.get() == xfd {
            return Ok(());
        }
        // SAFETY: the plan is in force here (K4), in ring 0; the caller is pinned (C10).
        unsafe { self.write_xfd(xfd) }
    }

    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1), where the plan is in force.
    #[inline(always)] // a call here would make every return to user mode save registers for it
    unsafe fn write_xfd(&self, xfd: u64) -> Result<(), RestoreFault> {
        // SAFETY: the value is what the register holds, or "unknown" (K20).
        unsafe { self.copy.set(UNKNOWN) };
        // SAFETY: undisturbed in ring 0 (C1).
        unsafe { self.copy.write(xfd) }?;
        // SAFETY: just written (K20).
        unsafe { self.copy.set(xfd) };
        Ok(())
    }

    /// Reads IA32_XFD_ERR, and clears it: the first thing that the handler of #NM does, interrupts off.
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1), on a CPU on which the plan is in force.
    #[must_use]
    pub unsafe fn take_error(&self) -> Components {
        if self.on_demand.is_empty() {
            return Components::empty();
        }
        // SAFETY: undisturbed in ring 0 (C1).
        Components::from_bits_retain(unsafe { self.copy.take_error() })
    }

    /// Puts the plan into force on this CPU, as [`Plan::enable_on_this_cpu`](crate::Plan::enable_on_this_cpu) does, and
    /// disables what comes on demand: before the CPU goes online, and after a suspend that lost the control registers.
    ///
    /// # Errors
    ///
    /// As for [`Plan::enable_on_this_cpu`](crate::Plan::enable_on_this_cpu); [`arm_this_cpu`](Self::arm_this_cpu).
    ///
    /// # Safety
    ///
    /// C1 to C5 as for [`Plan::enable_on_this_cpu`](crate::Plan::enable_on_this_cpu).
    pub unsafe fn enable_on_this_cpu(&self) -> Result<ControlState, EnableError> {
        // SAFETY: what enabling asks for (C1 to C5).
        unsafe { self.armed(|| self.full.enable_on_this_cpu()) }
    }

    /// As [`enable_on_this_cpu`](Self::enable_on_this_cpu), with given facts, as
    /// [`Plan::enable_given`](crate::Plan::enable_given) does.
    ///
    /// # Errors
    ///
    /// As for [`enable_on_this_cpu`](Self::enable_on_this_cpu).
    ///
    /// # Safety
    ///
    /// C1 to C5 as for [`Plan::enable_on_this_cpu`](crate::Plan::enable_on_this_cpu).
    pub unsafe fn enable_given(&self, cpu: &CpuidInfo) -> Result<ControlState, EnableError> {
        // SAFETY: what enabling asks for (C1 to C5).
        unsafe { self.armed(|| self.full.enable_given(cpu)) }
    }

    /// # Safety
    ///
    /// `enable` puts the plan of all components into force, and C1 to C5 as for
    /// [`Plan::enable_on_this_cpu`](crate::Plan::enable_on_this_cpu).
    unsafe fn armed(
        &self,
        enable: impl FnOnce() -> Result<ControlState, EnableError>,
    ) -> Result<ControlState, EnableError> {
        // SAFETY: that it is not known is right in any case (K20).
        unsafe { self.copy.set(UNKNOWN) };
        // It clears IA32_XFD, and measures all components.
        let state = enable()?;
        // SAFETY: undisturbed in ring 0 (C1), and the plan is in force.
        unsafe { self.arm_this_cpu() }?;
        Ok(ControlState { xfd: state.xfd.map(|_| self.on_demand.bits()), ..state })
    }

    /// Disables what comes on demand, on a CPU on which the plan was put into force by itself: on the one that boots, after
    /// [`bring_up_boot_cpu`](crate::bring_up_boot_cpu) and before its first task.
    ///
    /// # Errors
    ///
    /// [`EnableError::Refused`] and [`EnableError::Verify`] with IA32_XFD.
    ///
    /// # Safety
    ///
    /// Undisturbed in ring 0 (C1); the plan is in force here, and no context has been loaded on this CPU since.
    pub unsafe fn arm_this_cpu(&self) -> Result<(), EnableError> {
        let (register, xfd) = (ControlRegister::Xfd, self.on_demand.bits());
        if self.on_demand.is_empty() {
            // SAFETY: the plan has cleared it, if it is there (K20).
            unsafe { self.copy.set(0) };
            return Ok(());
        }
        // SAFETY: undisturbed in ring 0 (C1).
        let refused = |RestoreFault(vector)| EnableError::Refused { register, vector };
        // SAFETY: undisturbed in ring 0 (C1), and the plan is in force.
        unsafe { self.write_xfd(xfd) }.map_err(refused)?;
        // SAFETY: undisturbed in ring 0 (C1), and the plan is in force.
        let found = unsafe { ControlState::read_given(&self.full) }.xfd;
        if found != Some(xfd) {
            // SAFETY: that it is not known is right in any case (K20).
            unsafe { self.copy.set(UNKNOWN) };
            return Err(EnableError::Verify(ControlMismatch {
                register,
                expected: Some(xfd),
                found,
            }));
        }
        Ok(())
    }

    /// Compares this CPU's control registers with the plan, and IA32_XFD with the copy: after bring-up, after a resume, and
    /// whenever in doubt, with interrupts off since they were read.
    ///
    /// # Errors
    ///
    /// The first register that differs.
    pub fn verify(&self, state: &ControlState) -> Result<(), ControlMismatch> {
        let copy = self.copy.get();
        let mut state = *state;
        if !self.on_demand.is_empty() {
            if state.xfd != Some(copy) {
                let (register, expected) = (ControlRegister::Xfd, Some(copy));
                return Err(ControlMismatch { register, expected, found: state.xfd });
            }
            state.xfd = Some(self.full.xfd().bits());
        }
        state.verify(&self.full)
    }
}
