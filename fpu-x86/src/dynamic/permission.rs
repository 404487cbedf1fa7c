//! Which processes may use components on demand, and the system call that asks.

use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{DynamicPlan, Room, XfdCopy};
use crate::components::{one, Components};

/// Bit 63 names no component: no more is granted to guests.
const LOCKED: u64 = 1 << 63;

/// What a process may use of the components on demand, itself and its guests apart. Both sets only grow.
///
/// All threads of a process share one value. A child process has [its own](Self::inherited), equal at first. Exec keeps it:
/// what a program was allowed to use, the next one is too.
///
/// ```
/// use fpu_x86::{Components, Permissions, Whose};
/// static INIT: Permissions = Permissions::new();
/// assert_eq!(INIT.of(Whose::Host), Components::empty());
/// ```
#[doc(alias = "fpu_state_perm")]
#[derive(Debug, Default)]
pub struct Permissions {
    host: AtomicU64,
    guest: AtomicU64,
}

/// Whose tiles.
///
/// ```
/// assert_ne!(fpu_x86::Whose::Host, fpu_x86::Whose::Guest);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The process's own.
    Host,
    /// Those of the virtual CPUs that it runs.
    Guest,
}

/// Why a permission was not given. Nothing has changed.
///
/// ```
/// use fpu_x86::PermissionError;
/// let why = PermissionError::SmallStack { need: 11908 };
/// assert_eq!(why.to_string(), "a thread's alternative signal stack has no room for frames of 11908 bytes");
/// assert_eq!(why.errno(), 28); // ENOSPC
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PermissionError {
    /// There is no such component.
    Unknown {
        /// Its number.
        number: u64,
    },
    /// It does not come on demand, or not on this CPU.
    NotOnDemand {
        /// Its number.
        number: u64,
    },
    /// The process has a virtual CPU already.
    Locked,
    /// A thread's alternative signal stack is too small for the frames that it would have.
    SmallStack {
        /// Bytes of the FPU part of such a frame.
        need: usize,
    },
}

impl PermissionError {
    /// Linux's number: EINVAL, EOPNOTSUPP, EBUSY, ENOSPC.
    #[must_use]
    pub const fn errno(&self) -> u32 {
        match self {
            Self::Unknown { .. } => 22,
            Self::NotOnDemand { .. } => 95,
            Self::Locked => 16,
            Self::SmallStack { .. } => 28,
        }
    }
}

impl fmt::Display for PermissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { number } => write!(f, "there is no component {number}"),
            Self::NotOnDemand { number } => write!(f, "component {number} does not come on demand"),
            Self::Locked => f.write_str("the process has a virtual CPU already"),
            Self::SmallStack { need } => write!(
                f,
                "a thread's alternative signal stack has no room for frames of {need} bytes"
            ),
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for PermissionError {}

/// What [`Permissions::arch_prctl`] returns to user mode.
///
/// ```
/// assert_ne!(fpu_x86::Answer::Word(0), fpu_x86::Answer::Done);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 0.
    Done,
    /// These 8 bytes, to the address that is the call's second argument; then 0.
    Word(u64),
}

impl Permissions {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { host: AtomicU64::new(0), guest: AtomicU64::new(0) }
    }

    /// Those of a new process that this one forks. No lock of the registers is held for it, as it may be called where
    /// the kernel sleeps.
    #[must_use]
    pub fn inherited(&self) -> Self {
        let copy = |set: &AtomicU64| AtomicU64::new(set.load(Ordering::Relaxed));
        Self { host: copy(&self.host), guest: copy(&self.guest) }
    }

    /// What was granted.
    #[must_use]
    pub fn of(&self, whose: Whose) -> Components {
        Components::from_bits_retain(self.set(whose).load(Ordering::Relaxed) & !LOCKED)
    }

    fn set(&self, whose: Whose) -> &AtomicU64 {
        match whose {
            Whose::Host => &self.host,
            Whose::Guest => &self.guest,
        }
    }

    /// A virtual CPU is made: what its guest may use is what was granted until now, and returned. From now on no more is.
    pub fn lock_guest(&self) -> Components {
        let granted = self.guest.fetch_or(LOCKED, Ordering::Relaxed);
        Components::from_bits_retain(granted & !LOCKED)
    }

    /// Grants a component, by its number. All or nothing.
    ///
    /// `stacks_hold` is asked whether every thread of the process has no alternative signal stack, or one that holds frames with
    /// an FPU part of so many bytes. The kernel holds the lock under which a thread sets its own from before this call until after
    /// it, and asks the same there: a stack that is set later has to hold [`frame_len`](Self::frame_len) bytes too.
    /// For a guest it is not asked.
    ///
    /// # Errors
    ///
    /// [`PermissionError`]. What was granted before can be asked for again.
    ///
    /// ```
    /// # use fpu_x86::{DynamicPlan, PermissionError, Permissions, Whose, XfdCopy};
    /// fn ask<X: XfdCopy>(plan: &DynamicPlan<X>, process: &Permissions) -> Result<(), PermissionError> {
    ///     let smallest_stack = 65536; // over all threads, under the lock
    ///     process.request(plan, 18, Whose::Host, |fpu_part| smallest_stack >= fpu_part + 1024)
    /// }
    /// ```
    #[doc(alias = "xstate_request_perm")]
    pub fn request<X: XfdCopy>(
        &self,
        plan: &DynamicPlan<X>,
        number: u64,
        whose: Whose,
        stacks_hold: impl FnOnce(usize) -> bool,
    ) -> Result<(), PermissionError> {
        let last = u64::from(Components::TILEDATA.bits().trailing_zeros());
        if number > last {
            return Err(PermissionError::Unknown { number });
        }
        let component = one(number as u32);
        if !plan.on_demand().contains(component) {
            return Err(PermissionError::NotOnDemand { number });
        }
        if self.of(whose).contains(component) {
            return Ok(());
        }
        match whose {
            Whose::Host => {
                let need = plan.user_format(Room::Full).frame_len();
                if !stacks_hold(need) {
                    return Err(PermissionError::SmallStack { need });
                }
            }
            // Another thread may lock it meanwhile; the kernel's lock orders the two.
            Whose::Guest if self.guest.load(Ordering::Relaxed) & LOCKED != 0 => {
                return Err(PermissionError::Locked);
            }
            Whose::Guest => {}
        }
        self.set(whose).fetch_or(component.bits(), Ordering::Relaxed);
        Ok(())
    }

    /// Bytes of the FPU part of a signal frame of this process's tasks, at most: what an alternative signal stack must hold.
    #[must_use]
    pub fn frame_len<X: XfdCopy>(&self, plan: &DynamicPlan<X>) -> usize {
        let granted = self.of(Whose::Host).intersects(plan.on_demand());
        plan.user_format(if granted { Room::Full } else { Room::Base }).frame_len()
    }

    /// The part of Linux's system call `arch_prctl` that is about this: options 0x1021 to 0x1025. `None` for another
    /// option.
    ///
    /// # Errors
    ///
    /// As for [`request`](Self::request); the kernel returns the negative [`errno`](PermissionError::errno).
    ///
    /// ```
    /// # use fpu_x86::{Answer, DynamicPlan, Permissions, XfdCopy};
    /// # fn put_user(_: u64, _: u64) -> i64 { 0 }
    /// # fn all_stacks_hold(_: usize) -> bool { true }
    /// fn sys_arch_prctl<X: XfdCopy>(plan: &DynamicPlan<X>, process: &Permissions, option: u64, arg: u64) -> i64 {
    ///     match process.arch_prctl(plan, option, arg, all_stacks_hold) {
    ///         None => -22, // FS and GS bases, and others
    ///         Some(Ok(Answer::Done)) => 0,
    ///         Some(Ok(Answer::Word(word))) => put_user(arg, word),
    ///         Some(Err(why)) => -i64::from(why.errno()),
    ///     }
    /// }
    /// ```
    #[doc(alias = "ARCH_GET_XCOMP_SUPP")]
    #[doc(alias = "ARCH_GET_XCOMP_PERM")]
    #[doc(alias = "ARCH_REQ_XCOMP_PERM")]
    #[doc(alias = "ARCH_GET_XCOMP_GUEST_PERM")]
    #[doc(alias = "ARCH_REQ_XCOMP_GUEST_PERM")]
    pub fn arch_prctl<X: XfdCopy>(
        &self,
        plan: &DynamicPlan<X>,
        option: u64,
        arg: u64,
        stacks_hold: impl FnOnce(usize) -> bool,
    ) -> Option<Result<Answer, PermissionError>> {
        const SUPPORTED: u64 = 0x1021;
        const GET: u64 = 0x1022;
        const REQUEST: u64 = 0x1023;
        const GET_GUEST: u64 = 0x1024;
        const REQUEST_GUEST: u64 = 0x1025;
        let all = plan.user_format(Room::Full).components();
        let granted = |whose| all.difference(plan.on_demand()).union(self.of(whose));
        let ask = |whose| self.request(plan, arg, whose, stacks_hold).map(|()| Answer::Done);
        Some(match option {
            SUPPORTED => Ok(Answer::Word(all.bits())),
            GET => Ok(Answer::Word(granted(Whose::Host).bits())),
            GET_GUEST => Ok(Answer::Word(granted(Whose::Guest).bits())),
            REQUEST => ask(Whose::Host),
            REQUEST_GUEST => ask(Whose::Guest),
            _ => return None,
        })
    }
}
