//! The reason of an #NM.

#[cfg(test)]
#[path = "../tests/first_use.rs"]
mod tests;

use core::fmt;

use super::{DynamicPlan, Permissions, Room, Whose, XfdCopy};
use crate::components::Components;

/// The kernel's action after an #NM.
///
/// ```
/// use fpu_x86::{FirstUse, Room};
/// // The handler, with interrupts off; the task goes on in user mode, and executes the instruction again.
/// fn answer(first: FirstUse) -> &'static str {
///     match first {
///         FirstUse::NotOurs => "another reason for #NM",
///         FirstUse::Kill => "SIGILL",
///         FirstUse::Grow { room: Room::Full, .. } => "allocate, `replace_area`; SIGSEGV if there is no memory",
///         FirstUse::Grow { .. } => unreachable!(),
///     }
/// }
/// # let _ = answer(FirstUse::Kill);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstUse {
    /// IA32_XFD_ERR is 0: the #NM has another reason (CR0.TS, which a `DynamicPlan` never sets, or a stray one).
    NotOurs,
    /// The process has no permission. The kernel ends the task (Linux: SIGILL).
    Kill,
    /// The context gets an area of so many bytes, by [`TaskFpu::replace_area`](fpu_core::TaskFpu::replace_area) with this
    /// room. Without memory the task keeps what it has, and the kernel ends it (Linux: SIGSEGV).
    Grow {
        /// The room.
        room: Room,
        /// The bytes of the area.
        len: usize,
    },
}

/// Why an #NM with bits in IA32_XFD_ERR is not the first use of a task. Each reason is a bug of the kernel. Nothing has
/// changed.
///
/// ```
/// use fpu_x86::FirstUseError;
/// let why = FirstUseError::InKernel;
/// assert_eq!(why.to_string(), "kernel code used a component that IA32_XFD disables");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirstUseError {
    /// The kernel's own code used the component, in a section or outside. Sections do not change IA32_XFD, so they have
    /// no tiles.
    InKernel,
    /// The task that runs here has no context: it is a kernel thread.
    NoContext,
    /// IA32_XFD_ERR names components that do not come on demand.
    Unknown {
        /// The components.
        components: Components,
    },
    /// The context has room, and its CPU disables the components all the same: IA32_XFD is not what a restore wrote.
    HasRoom,
}

impl fmt::Display for FirstUseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InKernel => f.write_str("kernel code used a component that IA32_XFD disables"),
            Self::NoContext => f.write_str("a task without a context used a component on demand"),
            Self::Unknown { components } => {
                write!(f, "IA32_XFD_ERR names {}, not on demand", components.list())
            }
            Self::HasRoom => f.write_str("IA32_XFD disables what the context has room for"),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for FirstUseError {}

impl<X: XfdCopy> DynamicPlan<X> {
    /// Tells the reason of an #NM. `error` is what [`take_error`](Self::take_error) has read; `in_user_mode` says where
    /// the instruction was; `room` is the current task's ([`TaskFpu::room`](fpu_core::TaskFpu::room)), `None` without a
    /// context.
    ///
    /// Nothing is changed. The state of the task is what it was before the instruction, wherever it is.
    ///
    /// # Errors
    ///
    /// [`FirstUseError`].
    ///
    /// ```
    /// use fpu_x86::{Components, DynamicPlan, FirstUse, Permissions, Room, XfdCopy};
    /// fn device_not_available<X: XfdCopy>(plan: &DynamicPlan<X>, process: &Permissions, room: Room) {
    ///     // SAFETY: C1: the handler of #NM has interrupts off.
    ///     let error = unsafe { plan.take_error() };
    ///     match plan.first_use(error, true, Some(room), process) {
    ///         Ok(FirstUse::Grow { room, len }) => { /* task.replace_area(&mut cpu, allocate(len)?, room) */ }
    ///         Ok(FirstUse::Kill) => { /* SIGILL */ }
    ///         Ok(FirstUse::NotOurs) => { /* a bug of another kind */ }
    ///         Err(why) => panic!("{why}"), // the example kernel's policy
    ///     }
    /// }
    /// ```
    #[doc(alias = "xfd_enable_feature")]
    pub fn first_use(
        &self,
        error: Components,
        in_user_mode: bool,
        room: Option<Room>,
        permissions: &Permissions,
    ) -> Result<FirstUse, FirstUseError> {
        if error.is_empty() {
            return Ok(FirstUse::NotOurs);
        }
        let unknown = error.difference(self.on_demand);
        if !unknown.is_empty() {
            return Err(FirstUseError::Unknown { components: unknown });
        }
        if !in_user_mode {
            return Err(FirstUseError::InKernel);
        }
        match room {
            None => Err(FirstUseError::NoContext),
            Some(Room::Full) => Err(FirstUseError::HasRoom),
            Some(Room::Base) if !permissions.of(Whose::Host).contains(error) => Ok(FirstUse::Kill),
            Some(Room::Base) => {
                let room = Room::Full;
                Ok(FirstUse::Grow { room, len: self.area_len_of(room) })
            }
        }
    }
}
