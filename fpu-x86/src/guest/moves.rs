//! The moves between host and guest, over whatever has the registers: the CPU, or a test's.

use core::fmt;

use super::controls::GuestControls;
use crate::{
    components::Components, plan::Plan, registers::ControlRegister,
    save_instruction::SaveInstruction,
};

/// Why a guest must not run. The host's values are in force.
///
/// ```
/// use fpu_x86::{ControlRegister, GuestRefused};
/// let why = GuestRefused::Value { register: ControlRegister::Xcr0, vector: 13 };
/// assert_eq!(why.to_string(), "a guest's XCR0 was refused with exception 13");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestRefused {
    /// The CPU refused a value, although it is legal by the manual: an emulator, or a hypervisor below, may.
    Value {
        /// Which.
        register: ControlRegister,
        /// The exception.
        vector: u32,
    },
    /// The guest's XCR0 has these, its context has no room for them, and its own IA32_XFD does not keep them disabled. The
    /// context gets an area with room, by [`TaskFpu::replace_area`](fpu_core::TaskFpu::replace_area), and the guest is
    /// entered again: its first use.
    NoRoom(Components),
}

impl fmt::Display for GuestRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { register, vector } => {
                write!(f, "a guest's {register} was refused with exception {vector}")
            }
            Self::NoRoom(components) => {
                write!(f, "a guest's context has no room for {components:?}")
            }
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for GuestRefused {}

/// The registers of the CPU on which the caller runs. A write returns 0 or the vector of its fault.
pub(super) trait Registers {
    fn set_xcr0(&self, value: u64) -> u32;
    fn set_xss(&self, value: u64) -> u32;
    fn xfd(&self) -> u64;
    fn set_xfd(&self, value: u64) -> u32;
    fn xfd_err(&self) -> u64;
    fn set_xfd_err(&self, value: u64) -> u32;
    /// `None` where keys are off.
    fn pkru(&self) -> Option<u32>;
    fn set_pkru(&self, value: u32);
}

/// What the host has to have back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// `None`: the plan leaves the register alone. So for all.
    xcr0: Option<u64>,
    xss: Option<u64>,
    xfd: Option<u64>,
    pkru: Option<u32>,
}

impl Host {
    /// XCR0 and IA32_XSS are the plan's. IA32_XFD and PKRU are what they are: those of the guest's context, and of the
    /// thread.
    #[inline(always)]
    fn of(on: &impl Registers, plan: &Plan) -> Self {
        let xsave = plan.save_instruction() != SaveInstruction::Fxsave;
        Self {
            xcr0: xsave.then(|| plan.xcr0().bits()),
            xss: plan.writes_xss.then(|| plan.xss().bits()),
            xfd: plan.writes_xfd.then(|| on.xfd()),
            pkru: on.pkru(),
        }
    }
}

fn write(register: ControlRegister, vector: u32) -> Result<(), GuestRefused> {
    match vector {
        0 => Ok(()),
        vector => Err(GuestRefused::Value { register, vector }),
    }
}

/// Loads the guest's values, PKRU last, and gives the host's.
pub(super) fn enter(
    on: &impl Registers,
    plan: &Plan,
    guest: &GuestControls,
) -> Result<Host, GuestRefused> {
    let host = Host::of(on, plan);
    // What the guest's own IA32_XFD disables until an exit stays initial, as the restore has left it.
    let stays = if guest.changes_xfd { 0 } else { guest.xfd };
    let no_room = host.xfd.unwrap_or(0) & guest.xcr0 & !stays;
    if no_room != 0 {
        return Err(GuestRefused::NoRoom(Components::from_bits_retain(no_room)));
    }
    if let Err(why) = load(on, &host, guest) {
        // What has not been written yet is the host's; it is written once more, for its own value is taken.
        put_back(on, &host, None);
        return Err(why);
    }
    Ok(host)
}

fn load(on: &impl Registers, host: &Host, guest: &GuestControls) -> Result<(), GuestRefused> {
    use ControlRegister as R;
    if host.xss.is_some_and(|own| own != guest.xss) {
        write(R::Xss, on.set_xss(guest.xss))?;
    }
    if host.xcr0.is_some_and(|own| own != guest.xcr0) {
        write(R::Xcr0, on.set_xcr0(guest.xcr0))?;
    }
    if let Some(own) = host.xfd {
        if own != guest.xfd {
            write(R::Xfd, on.set_xfd(guest.xfd))?;
        }
        // The host's is 0 but in its handler of #NM.
        if guest.xfd_err != 0 {
            write(R::Xfd, on.set_xfd_err(guest.xfd_err))?;
        }
    }
    if host.pkru.is_some_and(|own| own != guest.pkru) {
        on.set_pkru(guest.pkru);
    }
    Ok(())
}

/// Takes what the guest has changed without an exit, and loads the host's values.
pub(super) fn exit(on: &impl Registers, host: &Host, guest: &mut GuestControls) {
    if host.pkru.is_some() {
        guest.pkru = on.pkru().unwrap_or(guest.pkru);
    }
    // With IA32_XFD at 0 no #NM writes IA32_XFD_ERR, and the guest's own writes exit.
    if host.xfd.is_some() && (guest.changes_xfd || guest.xfd != 0) {
        guest.xfd_err = on.xfd_err();
        if guest.changes_xfd {
            guest.xfd = on.xfd();
        }
    }
    put_back(on, host, Some(guest));
}

/// Loads the host's values where `now` differs, or all. What could be written before is taken again; a fault here has no
/// other answer.
fn put_back(on: &impl Registers, host: &Host, now: Option<&GuestControls>) {
    if let Some(own) = host.pkru.filter(|own| now.map_or(true, |guest| guest.pkru != *own)) {
        on.set_pkru(own);
    }
    if let Some(own) = host.xfd {
        if now.map_or(true, |guest| guest.xfd != own) {
            let _refused = on.set_xfd(own);
        }
        if now.map_or(true, |guest| guest.xfd_err != 0) {
            let _refused = on.set_xfd_err(0);
        }
    }
    if let Some(own) = host.xcr0.filter(|own| now.map_or(true, |guest| guest.xcr0 != *own)) {
        let _refused = on.set_xcr0(own);
    }
    if let Some(own) = host.xss.filter(|own| now.map_or(true, |guest| guest.xss != *own)) {
        let _refused = on.set_xss(own);
    }
}
