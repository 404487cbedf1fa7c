//! The values, and which of them a guest may have.

use core::fmt;

use crate::{
    components::Components,
    pkru::{Pkru, ProtectionKeys},
    plan::Plan,
    save_instruction::SaveInstruction,
};

/// What one virtual CPU has in XCR0, IA32_XSS, IA32_XFD, IA32_XFD_ERR and PKRU, while it does not run.
///
/// The hypervisor keeps one beside the guest's context. A write by the guest that exits goes through `set_xcr0` and
/// its like; an error there is a #GP for the guest.
///
/// ```
/// use fpu_x86::{Components, GuestControls, GuestError, Plan, ProtectionKeys};
/// static KEYS: ProtectionKeys = ProtectionKeys::new();
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// # let plan = Plan::detect_kernel(Components::USER)?;
/// # if plan.components().contains(Components::AVX) {
/// let mut guest = GuestControls::new();
/// // The guest executed XSETBV with 7, then with 5.
/// guest.set_xcr0(&plan, &KEYS, 7)?;
/// assert_eq!(guest.set_xcr0(&plan, &KEYS, 5), Err(GuestError::Xcr0Lacks(Components::SSE)));
/// assert_eq!(guest.xcr0().bits(), 7);
/// # }
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestControls {
    pub(super) xcr0: u64,
    pub(super) xss: u64,
    pub(super) xfd: u64,
    pub(super) xfd_err: u64,
    pub(super) pkru: u32,
    pub(super) changes_xfd: bool,
}

/// Why a guest may not have a value. The components are the bits in question; what it had, it has.
///
/// ```
/// use fpu_x86::{Components, GuestError};
/// let why = GuestError::Xcr0Beyond(Components::AMX);
/// assert_eq!(why.to_string(), "XCR0: not offered to guests: bits 0x60000");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestError {
    /// XCR0: the host does not save these components, so that no guest may have them; or there are none such.
    Xcr0Beyond(Components),
    /// XCR0: these have to be set too (SDM vol. 1, 13.3).
    Xcr0Lacks(Components),
    /// XCR0: not all of these together.
    Xcr0Excludes(Components),
    /// IA32_XSS: as for [`Xcr0Beyond`](Self::Xcr0Beyond).
    XssBeyond(Components),
    /// IA32_XFD or IA32_XFD_ERR: the host does not save these, or IA32_XFD does not disable them.
    XfdBeyond(Components),
    /// The host has no protection keys on, so that PKRU is nobody's.
    KeysOff,
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, bits) = match self {
            Self::Xcr0Beyond(bits) => ("XCR0: not offered to guests", bits),
            Self::Xcr0Lacks(bits) => ("XCR0: needed too", bits),
            Self::Xcr0Excludes(bits) => ("XCR0: not together", bits),
            Self::XssBeyond(bits) => ("IA32_XSS: not offered to guests", bits),
            Self::XfdBeyond(bits) => ("IA32_XFD: not offered to guests", bits),
            Self::KeysOff => return f.write_str("protection keys are off"),
        };
        write!(f, "{what}: bits {:#x}", bits.bits())
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for GuestError {}

fn xsave(plan: &Plan) -> bool {
    plan.save_instruction() != SaveInstruction::Fxsave
}

/// The bits of `value` outside `offered`, bit 63 included.
fn beyond(value: u64, offered: Components) -> Option<Components> {
    let bits = value & !offered.bits();
    (bits != 0).then(|| Components::from_bits_retain(bits))
}

/// What has to be set beside `asked` (SDM vol. 1, 13.3).
fn lacks(asked: Components) -> Components {
    let mut all = asked.union(Components::X87);
    for group in [Components::AVX512, Components::MPX, Components::AMX] {
        if all.intersects(group) {
            all = all.union(group);
        }
    }
    if all.intersects(Components::AVX512) {
        all = all.union(Components::AVX);
    }
    if all.intersects(Components::AVX) {
        all = all.union(Components::SSE);
    }
    all.difference(asked)
}

/// [`GuestControls::offered`], where protection keys are on or not.
pub(super) fn offer(plan: &Plan, keys: bool) -> Components {
    if !xsave(plan) {
        return Components::empty();
    }
    let placed = plan.user_format().components().contains(Components::PKRU);
    let pkru = if keys && placed { Components::PKRU } else { Components::empty() };
    plan.xcr0().union(pkru)
}

/// Refuses a value that a guest to which these components are offered may not have.
pub(super) fn legal_xcr0(value: u64, offered: Components) -> Result<(), GuestError> {
    if let Some(bits) = beyond(value, offered) {
        return Err(GuestError::Xcr0Beyond(bits));
    }
    let asked = Components::from_bits_retain(value);
    let lacks = lacks(asked);
    if !lacks.is_empty() {
        return Err(GuestError::Xcr0Lacks(lacks));
    }
    if !asked.is_legal_xcr0() {
        let both = Components::MPX.union(Components::APX);
        return Err(GuestError::Xcr0Excludes(asked.intersection(both)));
    }
    Ok(())
}

impl Default for GuestControls {
    fn default() -> Self {
        Self::new()
    }
}

impl GuestControls {
    /// After the virtual CPU's reset: XCR0 is 1, the others are 0.
    #[must_use]
    pub const fn new() -> Self {
        Self { xcr0: 1, xss: 0, xfd: 0, xfd_err: 0, pkru: 0, changes_xfd: false }
    }

    /// What a guest's XCR0 may hold, and so what its CPUID leaf 0xD may list: the plan's user components, and PKRU where the
    /// host has protection keys on. Nothing where the plan is for FXSAVE: guests of such a host have no XSAVE.
    #[must_use]
    pub fn offered(plan: &Plan, keys: &ProtectionKeys) -> Components {
        offer(plan, keys.are_on())
    }

    /// The guest wants this in XCR0: XSETBV with ECX = 0, which has exited.
    ///
    /// # Errors
    ///
    /// [`GuestError::Xcr0Beyond`], [`GuestError::Xcr0Lacks`], [`GuestError::Xcr0Excludes`].
    #[doc(alias = "kvm_set_xcr")]
    pub fn set_xcr0(
        &mut self,
        plan: &Plan,
        keys: &ProtectionKeys,
        value: u64,
    ) -> Result<(), GuestError> {
        legal_xcr0(value, Self::offered(plan, keys))?;
        self.xcr0 = value;
        Ok(())
    }

    /// The guest wants this in IA32_XSS: a WRMSR, which has exited.
    ///
    /// # Errors
    ///
    /// [`GuestError::XssBeyond`]: it may have what the plan switches.
    pub fn set_xss(&mut self, plan: &Plan, value: u64) -> Result<(), GuestError> {
        let offered = if plan.writes_xss { plan.xss() } else { Components::empty() };
        match beyond(value, offered) {
            Some(bits) => Err(GuestError::XssBeyond(bits)),
            None => {
                self.xss = value;
                Ok(())
            }
        }
    }

    /// What IA32_XFD may hold: of the plan's components those that it can disable.
    fn disables(plan: &Plan) -> Components {
        if !plan.writes_xfd {
            return Components::empty();
        }
        let can = |number: &u32| plan.cpuid_info().described(*number).is_some_and(|one| one.xfd);
        plan.xcr0()
            .numbers()
            .filter(can)
            .filter_map(Components::of_number)
            .fold(Components::empty(), Components::union)
    }

    /// The guest wants this in IA32_XFD: a WRMSR, which has exited.
    ///
    /// # Errors
    ///
    /// [`GuestError::XfdBeyond`].
    pub fn set_xfd(&mut self, plan: &Plan, value: u64) -> Result<(), GuestError> {
        if let Some(bits) = beyond(value, Self::disables(plan)) {
            return Err(GuestError::XfdBeyond(bits));
        }
        self.xfd = value;
        Ok(())
    }

    /// The same for IA32_XFD_ERR.
    ///
    /// # Errors
    ///
    /// [`GuestError::XfdBeyond`].
    pub fn set_xfd_err(&mut self, plan: &Plan, value: u64) -> Result<(), GuestError> {
        if let Some(bits) = beyond(value, Self::disables(plan)) {
            return Err(GuestError::XfdBeyond(bits));
        }
        self.xfd_err = value;
        Ok(())
    }

    /// Does the guest read and write IA32_XFD and IA32_XFD_ERR without an exit? Both are then read at each exit. As made, it
    /// does not.
    pub fn let_change_xfd(&mut self, without_exit: bool) {
        self.changes_xfd = without_exit;
    }

    /// Sets the guest's PKRU: for a virtual CPU that comes from elsewhere. The guest itself writes the register without
    /// an exit.
    ///
    /// # Errors
    ///
    /// [`GuestError::KeysOff`]: the host must not offer protection keys to its guests either.
    pub fn set_pkru(&mut self, keys: &ProtectionKeys, value: Pkru) -> Result<(), GuestError> {
        if !keys.are_on() {
            return Err(GuestError::KeysOff);
        }
        self.pkru = value.bits();
        Ok(())
    }

    /// XCR0.
    #[must_use]
    pub const fn xcr0(&self) -> Components {
        Components::from_bits_retain(self.xcr0)
    }
    /// IA32_XSS.
    #[must_use]
    pub const fn xss(&self) -> Components {
        Components::from_bits_retain(self.xss)
    }
    /// IA32_XFD.
    #[must_use]
    pub const fn xfd(&self) -> Components {
        Components::from_bits_retain(self.xfd)
    }
    /// IA32_XFD_ERR.
    #[must_use]
    pub const fn xfd_err(&self) -> Components {
        Components::from_bits_retain(self.xfd_err)
    }
    /// PKRU, as it was at the last exit.
    #[must_use]
    pub const fn pkru(&self) -> Pkru {
        Pkru::from_bits(self.pkru)
    }
}
