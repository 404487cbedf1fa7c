//! A virtual CPU's state as KVM's calls move it: the image, and XCR0 beside it.

#[cfg(test)]
#[path = "../tests/guest_format.rs"]
mod tests;

use core::fmt;

use super::controls::{legal_xcr0, offer, GuestControls, GuestError};
use crate::{
    components::Components,
    error::ImageError,
    fields::{set, u32_at, u64_at},
    foreign::{ForeignError, ForeignImage, ForeignRules, Reading, Way},
    image::Image,
    layout::HEADER,
    opened::InMemory,
    origin::{SOFTWARE, XCR0},
    pkru::{Pkru, ProtectionKeys},
    regset::UserFormat,
};

/// The least length of an image.
const PAGE: usize = 4096;
/// Bytes of the structure with the extended control registers.
const XCRS: usize = GuestFormat::XCRS_LEN;
/// How many registers there is room for in it, where they begin, and how long each is.
const SLOTS: u32 = 16;
const FIRST: usize = 8;
const SLOT: usize = 16;

/// The state of a virtual CPU that leaves the kernel and returns, in the form of KVM's calls: a snapshot, a
/// migration, a monitor that looks at registers.
///
/// | KVM's call | here |
/// |---|---|
/// | `KVM_CHECK_EXTENSION` of `KVM_CAP_XSAVE2` | [`xsave_len`](Self::xsave_len) |
/// | `KVM_GET_XSAVE2`, and `KVM_GET_XSAVE` where the image takes a page | [`write_xsave`](Self::write_xsave) |
/// | `KVM_SET_XSAVE` | [`set_xsave`](Self::set_xsave) |
/// | `KVM_GET_XCRS`, `KVM_SET_XCRS` | [`write_xcrs`](Self::write_xcrs), [`set_xcrs`](Self::set_xcrs) |
///
/// The image is the standard format of this machine. It has what the virtual CPU may have by its CPUID, not what its XCR0
/// has at the moment: registers keep their values while XCR0 leaves them out. PKRU is that of [`GuestControls`].
///
/// A component that the guest's IA32_XFD disables is initial in the image, as a save under the guest's own
/// IA32_XFD writes it (SDM vol. 1, 13.14), and is taken as initial. So XSTATE_BV never has what IA32_XFD disables,
/// and the host that restores the image under the guest's IA32_XFD meets no #NM.
///
/// ```
/// use fpu_core::{Pinned, SaveArea, TaskFpu};
/// use fpu_x86::{Components, GuestControls, GuestFormat, Plan, ProtectionKeys};
/// static KEYS: ProtectionKeys = ProtectionKeys::new();
/// /// Another virtual CPU gets what this one has. `offered` is what its CPUID leaf 0xD lists.
/// fn copy<C: Pinned<Backend = Plan>, A: SaveArea>(
///     plan: &Plan, offered: Components, cpu: &mut C,
///     from: (&TaskFpu<Plan, A>, &GuestControls), to: (&TaskFpu<Plan, A>, &mut GuestControls),
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     let format = plan.user_format().for_guest(&KEYS, offered)?;
///     let mut image = vec![0; format.xsave_len()];
///     let mut xcrs = [0; GuestFormat::XCRS_LEN];
///     format.write_xsave(&from.0.open_saved(cpu)?.image(), from.1, &mut image)?;
///     format.write_xcrs(from.1, &mut xcrs);
///     format.set_xcrs(to.1, &xcrs)?;
///     format.set_xsave(to.1, to.0.open_saved(cpu)?, &mut image)?;
///     Ok(())
/// }
/// ```
#[doc(alias = "kvm_xsave")]
#[derive(Clone, Copy, Debug)]
pub struct GuestFormat<'p> {
    /// With the components of the image.
    user: UserFormat<'p>,
    offered: Components,
}

/// Why a virtual CPU's XCR0 was not taken from KVM's structure. What it had, it has.
///
/// ```
/// use fpu_x86::{Components, GuestError, XcrsError};
/// let why = XcrsError::TooMany { count: 17 };
/// assert_eq!(why.to_string(), "17 registers, at most 16 have room");
/// let why = XcrsError::from(GuestError::Xcr0Lacks(Components::SSE));
/// assert_eq!(why.to_string(), "XCR0: needed too: bits 0x2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum XcrsError {
    /// The structure claims more registers than it has room for.
    TooMany {
        /// How many.
        count: u32,
    },
    /// A flag is set, and there are none.
    Flags {
        /// The flags.
        flags: u32,
    },
    /// XCR0 is none that the virtual CPU may have.
    Xcr0(GuestError),
}

impl fmt::Display for XcrsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { count } => {
                write!(f, "{count} registers, at most {SLOTS} have room")
            }
            Self::Flags { flags } => write!(f, "unknown flags {flags:#x}"),
            Self::Xcr0(why) => why.fmt(f),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for XcrsError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Xcr0(why) => Some(why),
            _ => None,
        }
    }
}

impl From<GuestError> for XcrsError {
    fn from(why: GuestError) -> Self {
        Self::Xcr0(why)
    }
}

impl<'p> UserFormat<'p> {
    /// The form of KVM's calls for a virtual CPU whose CPUID leaf 0xD lists `offered`. Images with tiles are taken where
    /// this format takes them: that of [`DynamicPlan`](crate::DynamicPlan) for a context with room, or
    /// [`with_tiles`](Self::with_tiles).
    ///
    /// # Errors
    ///
    /// As for [`GuestControls::set_xcr0`] with `offered`, which is also refused if this format lacks some of it. A plan for
    /// FXSAVE offers nothing.
    pub fn for_guest(
        self,
        keys: &ProtectionKeys,
        offered: Components,
    ) -> Result<GuestFormat<'p>, GuestError> {
        GuestFormat::of(self, keys.are_on(), offered)
    }
}

impl<'p> GuestFormat<'p> {
    /// [`UserFormat::for_guest`], where protection keys are on or not.
    fn of(user: UserFormat<'p>, keys: bool, offered: Components) -> Result<Self, GuestError> {
        let most = offer(user.plan, keys).intersection(user.components());
        if !(most.is_empty() && offered.is_empty()) {
            legal_xcr0(offered.bits(), most)?;
        }
        // KVM, too, shows SSE to whom it is not offered.
        let user = user.only(offered.union(Components::LEGACY));
        Ok(Self { user, offered })
    }
}

impl GuestFormat<'_> {
    /// Bytes of KVM's structure with the extended control registers.
    pub const XCRS_LEN: usize = 392;

    /// What the virtual CPU may have in XCR0.
    #[must_use]
    pub fn offered(&self) -> Components {
        self.offered
    }

    /// Bytes of an image: a page, or more where tiles are offered.
    #[doc(alias = "KVM_CAP_XSAVE2")]
    #[must_use]
    pub fn xsave_len(&self) -> usize {
        self.user.xstate_len().max(PAGE)
    }

    /// Writes the image of a virtual CPU, and returns its length. What is absent is written as its initial value, and what
    /// is not a component's is zero, but for the components of the format at byte 464, as in [`UserFormat::write_xstate`].
    ///
    /// # Errors
    ///
    /// [`ImageError::TooShort`], for `KVM_GET_XSAVE` where a page does not suffice. [`ImageError::NotManaged`] if the
    /// context or PKRU holds what is not offered, and otherwise as for [`UserFormat::write_xstate`]. `out` is unchanged.
    #[doc(alias = "KVM_GET_XSAVE")]
    #[doc(alias = "KVM_GET_XSAVE2")]
    pub fn write_xsave(
        &self,
        image: &Image<'_>,
        controls: &GuestControls,
        out: &mut [u8],
    ) -> Result<usize, ImageError> {
        let need = self.xsave_len();
        let out = out.get_mut(..need).ok_or(ImageError::TooShort { need })?;
        let (components, pkru) = (self.user.components(), controls.pkru().bits());
        let given = components.contains(Components::PKRU) || pkru != 0;
        let pkru = given.then_some(pkru);
        let len = self.user.write_without(image, pkru, components, controls.xfd(), out)?;
        set(out, XCR0, components.bits().to_le_bytes());
        out.get_mut(len..).unwrap_or_default().fill(0);
        Ok(need)
    }

    /// Sets the registers and PKRU of a virtual CPU to an image, which is in a private copy: whole or not at all. What is
    /// not in it becomes initial, MXCSR with SSE; supervisor components stay. Bytes behind the last component are not
    /// looked at, nor are those of software's.
    ///
    /// KVM keeps PKRU if the image does not have it; here it becomes 0, its initial value. Each component that
    /// is not offered and present with its initial value counts as absent.
    ///
    /// # Errors
    ///
    /// [`ForeignError::WrongLength`] for less than a page. [`ForeignError::Unknown`], [`ForeignError::NotEnabled`]
    /// and [`ForeignError::NotPermitted`] if XSTATE_BV has more than the virtual CPU may have, and otherwise as for
    /// [`ForeignImage::validate`]. The image, the claims of registers and PKRU are as before.
    #[doc(alias = "KVM_SET_XSAVE")]
    pub fn set_xsave(
        &self,
        controls: &mut GuestControls,
        task: impl InMemory,
        private: &mut [u8],
    ) -> Result<(), ForeignError> {
        let (plan, components) = (self.user.plan, self.user.components());
        if private.len() < PAGE {
            return Err(ForeignError::WrongLength { len: private.len(), need: PAGE });
        }
        // Software's bytes tell another machine's layout; KVM's images have this machine's.
        private.get_mut(SOFTWARE..HEADER).unwrap_or_default().fill(0);
        let refused = plan.components().difference(components).union(self.user.forbidden());
        let reading = Reading {
            only: !controls.xfd(),
            way: Way::Copied,
            ..Reading::of(&ForeignRules::new(), refused)
        };
        let valid = ForeignImage::in_private(private).checked(plan, &reading)?;
        let pkru = valid.pkru().unwrap_or(0);
        let offered = components.contains(Components::PKRU);
        if pkru != 0 && !offered {
            return Err(ForeignError::NotEnabled { bits: Components::PKRU.bits() });
        }
        valid.put_into(task)?;
        if offered {
            controls.pkru = Pkru::from_bits(pkru).bits();
        }
        Ok(())
    }

    /// The guest wants this in XCR0, or its monitor does.
    ///
    /// # Errors
    ///
    /// As for [`GuestControls::set_xcr0`], with what is offered to this virtual CPU as the limit.
    pub fn set_xcr0(&self, controls: &mut GuestControls, value: u64) -> Result<(), GuestError> {
        legal_xcr0(value, self.offered)?;
        controls.xcr0 = value;
        Ok(())
    }

    /// Writes XCR0 as the one extended control register that there is; none with a plan for FXSAVE.
    #[doc(alias = "KVM_GET_XCRS")]
    pub fn write_xcrs(&self, controls: &GuestControls, out: &mut [u8; XCRS]) {
        out.fill(0);
        if !self.offered.is_empty() {
            set(out, 0, 1u32.to_le_bytes());
            set(out, FIRST + 8, controls.xcr0.to_le_bytes());
        }
    }

    /// Sets XCR0, if it is among the registers; others are not looked at.
    ///
    /// # Errors
    ///
    /// [`XcrsError`].
    #[doc(alias = "KVM_SET_XCRS")]
    pub fn set_xcrs(
        &self,
        controls: &mut GuestControls,
        bytes: &[u8; XCRS],
    ) -> Result<(), XcrsError> {
        let (count, flags) = (u32_at(bytes, 0), u32_at(bytes, 4));
        if count > SLOTS {
            return Err(XcrsError::TooMany { count });
        }
        if flags != 0 {
            return Err(XcrsError::Flags { flags });
        }
        let slots = (FIRST..).step_by(SLOT).take(count as usize);
        match slots.into_iter().find(|at| u32_at(bytes, *at) == 0) {
            Some(at) => Ok(self.set_xcr0(controls, u64_at(bytes, at + 8))?),
            None => Ok(()),
        }
    }
}
