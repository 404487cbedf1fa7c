//! The moves on the CPU.

use core::fmt;

use fpu_core::UserReady;

use super::{
    controls::GuestControls,
    moves::{self, GuestRefused, Host, Registers},
};
use crate::{
    insn,
    pkru::ProtectionKeys,
    plan::Plan,
    ring0::{IA32_XFD, IA32_XFD_ERR, IA32_XSS},
};

/// The registers of the CPU on which the caller runs. There is one from [`GuestControls::enter`] to the exit only.
struct OfThisCpu<'k>(&'k ProtectionKeys);

impl Registers for OfThisCpu<'_> {
    fn set_xcr0(&self, value: u64) -> u32 {
        // SAFETY: N3: the plan is in force (C47) and has XSAVE. N4: undisturbed in ring 0 (C1). N5: until the exit no
        // save and no restore runs (C47), and the host's value comes back.
        unsafe { insn::xsetbv0(value) }
    }
    fn set_xss(&self, value: u64) -> u32 {
        // SAFETY: N4: undisturbed in ring 0 (C1). N5: as for XCR0 (C47).
        unsafe { insn::wrmsr(IA32_XSS, value) }
    }
    fn xfd(&self) -> u64 {
        // SAFETY: N4: undisturbed in ring 0 (C1). N6: the plan, which is in force (C47), writes it.
        unsafe { insn::rdmsr(IA32_XFD) }
    }
    fn set_xfd(&self, value: u64) -> u32 {
        // SAFETY: N4: undisturbed in ring 0 (C1). N5: as for XCR0 (C47).
        unsafe { insn::wrmsr(IA32_XFD, value) }
    }
    fn xfd_err(&self) -> u64 {
        // SAFETY: N4: undisturbed in ring 0 (C1). N6: the plan, which is in force (C47), writes it.
        unsafe { insn::rdmsr(IA32_XFD_ERR) }
    }
    fn set_xfd_err(&self, value: u64) -> u32 {
        // SAFETY: N4: undisturbed in ring 0 (C1). N5: only the handler of #NM reads it, and none comes (C47).
        unsafe { insn::wrmsr(IA32_XFD_ERR, value) }
    }
    #[inline(always)]
    fn pkru(&self) -> Option<u32> {
        self.0.loaded()
    }
    #[inline(always)]
    fn set_pkru(&self, value: u32) {
        self.0.load(value);
    }
}

/// A guest's values are in force on this CPU. Drop loads the host's.
///
/// The value borrows the [`UserReady`] of the guest's context and with it the witness, so that no save and no restore
/// can be asked for before.
#[must_use = "the guest's values are in force until this is dropped"]
pub struct InGuest<'g> {
    on: OfThisCpu<'g>,
    host: Host,
    guest: &'g mut GuestControls,
}

impl fmt::Debug for InGuest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InGuest").field("host", &self.host).field("guest", &self.guest).finish()
    }
}

impl InGuest<'_> {
    /// The guest has exited: the same as drop.
    pub fn exit(self) {}
}

impl Drop for InGuest<'_> {
    fn drop(&mut self) {
        moves::exit(&self.on, &self.host, self.guest);
    }
}

impl GuestControls {
    /// Loads the guest's values, where they differ from what is there: the last step before the VM entry. The value that
    /// it returns is dropped right after the exit, and takes over what the guest has changed by itself.
    ///
    /// `ready` is that of the guest's context. XCR0 and IA32_XSS of the host are the plan's, so that they cost nothing
    /// while the guest's are the same; IA32_XFD is read where the plan writes it, and PKRU where protection keys are on.
    ///
    /// # Errors
    ///
    /// [`GuestRefused`]: the host's values are in force, and the guest must not run. Faults become errors if the kernel's handlers serve
    /// [`fixup`](crate::fixup).
    ///
    /// # Safety
    ///
    /// * Undisturbed in ring 0 (C1) as for [`enable_legacy_on_this_cpu`](crate::enable_legacy_on_this_cpu), until the
    ///   value returned is dropped, and it is dropped.
    /// * **C47** the plan and the keys are those in force, and of all calls for this guest. While the value lives, this
    ///   CPU runs the VM entry, the guest, and around it code that saves and restores no FPU state, raises no #NM and accesses no
    ///   user memory; an NMI's handler, too, leaves all of that alone.
    /// * **C48** the guest's XSETBV and its writes of IA32_XSS exit without effect, and so do its writes of IA32_XFD and
    ///   IA32_XFD_ERR unless [`let_change_xfd`](Self::let_change_xfd) said that they need not; and it has no protection
    ///   keys (CR4.PKE) while the host's are off.
    ///
    /// ```no_run
    /// use fpu_core::{Error, Exclusive, Pinned, SoftFloat, TaskFpu};
    /// use fpu_x86::{GuestControls, Plan, ProtectionKeys};
    /// # static KEYS: ProtectionKeys = ProtectionKeys::new();
    /// # type Guest = TaskFpu<Plan, fpu_core::Area<4096>>;
    /// /// Interrupts are off.
    /// fn run<C: Exclusive + SoftFloat + Pinned<Backend = Plan>>(
    ///     guest: &Guest, controls: &mut GuestControls, plan: &Plan, cpu: &mut C, vm_entry: impl FnOnce(),
    /// ) -> Result<(), Error> {
    ///     let ready = guest.switch_return(cpu)?; // under the host's set
    ///     // SAFETY: C1, C47: interrupts and NMIs are off until the drop, and `vm_entry` does nothing else. C48: XSETBV
    ///     // and all model-specific registers are intercepted.
    ///     match unsafe { controls.enter(&ready, plan, &KEYS) } {
    ///         Ok(in_guest) => {
    ///             vm_entry(); // VMRUN; VMLAUNCH or VMRESUME
    ///             in_guest.exit();
    ///         }
    ///         Err(why) => eprintln!("{why}"),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[doc(alias = "kvm_load_guest_xsave_state")]
    #[doc(alias = "kvm_load_host_xsave_state")]
    pub unsafe fn enter<'g, C>(
        &'g mut self,
        _ready: &'g UserReady<'_, C>,
        plan: &Plan,
        keys: &'g ProtectionKeys,
    ) -> Result<InGuest<'g>, GuestRefused> {
        let on = OfThisCpu(keys);
        let host = moves::enter(&on, plan, self)?;
        Ok(InGuest { on, host, guest: self })
    }
}
