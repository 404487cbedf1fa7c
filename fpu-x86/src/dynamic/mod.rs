//! State on demand: components that a task has no room for until it uses them.
//!
//! AMX tiles take 8 KiB in each area, and few tasks use them. IA32_XFD disables a component that XCR0 enables (SDM vol. 1,
//! 13.14): its first use raises #NM, and the kernel gives the task an area with room. So there are two sizes of areas,
//! [`Room::Base`] and [`Room::Full`].
//!
//! A kernel chooses [`DynamicPlan`] as its backend in the place of [`Plan`]; a kernel that does not has no code of it.
//!
//! * `room`: what an area has room for, in bytes of it that software owns;
//! * `backend`: saves and restores by that;
//! * `copy`: a CPU's copy of IA32_XFD; `xfd`: the writes, the set-up and the check of that register;
//! * `permission`: which processes may use such components, and the system call that asks;
//! * `first_use`: the reason of an #NM.

mod backend;
mod copy;
mod first_use;
mod permission;
#[cfg(test)]
#[path = "../tests/refused_on_demand.rs"]
mod refused_tests;
mod room;
#[cfg(test)]
#[path = "../tests/dynamic.rs"]
mod tests;
mod xfd;

pub use copy::XfdCopy;
pub use first_use::{FirstUse, FirstUseError};
pub use permission::{Answer, PermissionError, Permissions, Whose};
pub use room::Room;

use crate::{
    components::{extended, Components},
    error::PlanError,
    layout::PlanPlaces,
    plan::Plan,
    regset::UserFormat,
    save_instruction::SaveInstruction,
};

/// A plan of which some components are on demand: their registers are a task's only once its context has an area with room
/// for them. As a backend it is for soft-float kernels: assembly cannot ask an area what it has room for, so the steps
/// forms do not compile with it ([`fpu_core::StepsFpu`]).
///
/// Of a plan for ring 0 AMX's tiles ([`Components::TILEDATA`]) are on demand, where CPUID says that IA32_XFD can disable
/// them and it can be written; on other CPUs nothing is, and all areas are alike. `X` is this CPU's copy of IA32_XFD.
///
/// | when | the kernel calls |
/// |---|---|
/// | boot, another CPU online, resume from a suspend | [`bring_up_boot_cpu`](crate::bring_up_boot_cpu) and [`arm_this_cpu`](Self::arm_this_cpu); [`enable_on_this_cpu`](Self::enable_on_this_cpu), or [`enable_given`](Self::enable_given) |
/// | `arch_prctl` | [`Permissions::arch_prctl`] |
/// | #NM | [`take_error`](Self::take_error), [`first_use`](Self::first_use), [`TaskFpu::replace_area`](fpu_core::TaskFpu::replace_area) |
/// | exec | [`TaskFpu::reset`](fpu_core::TaskFpu::reset), then `replace_area` with [`Room::Base`] |
/// | frames and regsets | [`user_format`](Self::user_format) |
///
/// ```
/// use fpu_core::{RawFpu, RestoreFault};
/// use fpu_x86::{Components, DynamicPlan, Plan, Room, XfdCopy};
/// # use core::cell::Cell;
/// struct PerCpu { xfd: Cell<u64> }
/// // SAFETY: K20: a cell of this CPU's own.
/// unsafe impl XfdCopy for PerCpu {
///     fn get(&self) -> u64 { self.xfd.get() }
///     unsafe fn set(&self, xfd: u64) { self.xfd.set(xfd) }
/// }
/// let plan = Plan::detect_kernel(Components::USER)?;
/// let len = plan.area_len();
/// let plan = DynamicPlan::new(plan, PerCpu { xfd: Cell::new(0) })?;
/// assert_eq!(plan.area_len_of(Room::Full), len);
/// assert!(plan.area_len() <= len);
/// assert_eq!(plan.area_len() < len, plan.on_demand() == Components::TILEDATA);
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
#[derive(Clone, Debug)]
#[repr(C, align(64))] // what the switching path reads of each plan is in one cache line
pub struct DynamicPlan<X> {
    /// The plan of all components.
    full: Plan,
    /// The plan without the components on demand.
    base: Plan,
    on_demand: Components,
    copy: X,
}

impl<X: XfdCopy> DynamicPlan<X> {
    /// Makes the tiles of a plan for ring 0 come on demand. No area of the plan exists yet.
    ///
    /// # Errors
    ///
    /// None that is known: what is left of a plan has a layout.
    pub fn new(plan: Plan, copy: X) -> Result<Self, PlanError> {
        let can = Components::TILEDATA
            .number()
            .and_then(|number| plan.cpuid_info().described(number))
            .is_some_and(|tiles| tiles.xfd);
        let on_demand = if can && plan.is_for_kernel() && plan.writes_xfd {
            plan.components().intersection(Components::TILEDATA)
        } else {
            Components::empty()
        };
        Self::with(plan, on_demand, copy)
    }

    /// Makes any extended components of a program's plan come on demand. The program's system owns IA32_XFD: `copy`
    /// says what a write of it does.
    ///
    /// # Safety
    ///
    /// * **C46** code that runs with the registers of a context without room for them leaves these components in their initial
    ///   state; the system lets the program use them.
    ///
    /// # Errors
    ///
    /// [`PlanError::NotEnumerated`] for components that are not the plan's, or are x87 or SSE, which every area has.
    pub unsafe fn for_program(
        plan: Plan,
        on_demand: Components,
        copy: X,
    ) -> Result<Self, PlanError> {
        let extended = plan.components().difference(Components::LEGACY);
        let missing = on_demand.difference(extended);
        if !missing.is_empty() {
            return Err(PlanError::NotEnumerated(missing));
        }
        Self::with(plan, on_demand, copy)
    }

    /// The plans do not skip what is initial: IA32_XFD has to be written with each restore.
    fn with(full: Plan, on_demand: Components, copy: X) -> Result<Self, PlanError> {
        let full = full.never_skipping_initial();
        let mut base = full.clone();
        base.mask &= !on_demand.bits();
        base.required = base.required.difference(on_demand);
        if base.instruction != SaveInstruction::Fxsave {
            let format = base.instruction.format();
            base.layout = PlanPlaces::of(format, base.components(), &base.facts)?;
        }
        // What CPUID wants beyond the sum of the components, an area without some of them has too. Lengths fit 32 bits.
        let beyond = full.area_len() - full.layout.len();
        base.area_len = (base.layout.len() + beyond) as u32;
        Ok(Self { full, base, on_demand, copy })
    }

    /// The components that come on demand.
    #[must_use]
    pub fn on_demand(&self) -> Components {
        self.on_demand
    }

    /// The plan of all components: what control registers hold by it, where images have what, and what CPUID said.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.full
    }

    /// The plan of areas with that room.
    pub(crate) fn plan_of(&self, room: Room) -> &Plan {
        match room {
            Room::Base => &self.base,
            Room::Full => &self.full,
        }
    }

    /// Bytes that an area for a new context must have.
    #[must_use]
    pub fn area_len(&self) -> usize {
        self.base.area_len()
    }

    /// Bytes that an area with that room must have.
    #[must_use]
    pub fn area_len_of(&self, room: Room) -> usize {
        self.plan_of(room).area_len()
    }

    /// The format in which a task whose context has that room exchanges state with user space. A regset has the same
    /// length for all; the signal frame of a task without room for tiles has none of them, and one that has some is
    /// refused.
    ///
    /// ```
    /// use fpu_x86::{DynamicPlan, ForeignError, ImageMut, Room, XfdCopy};
    /// fn sigreturn<X: XfdCopy>(
    ///     plan: &DynamicPlan<X>,
    ///     room: Room, // `TaskFpu::room`
    ///     image: &mut ImageMut<'_>,
    ///     copied: &mut [u8],
    /// ) -> Result<(), ForeignError> {
    ///     let frame = plan.user_format(room).read_frame(copied)?;
    ///     image.replace_with(frame.valid()).expect("of the same plan and room");
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn user_format(&self, room: Room) -> UserFormat<'_> {
        let format = self.full.user_format();
        let tiles = room == Room::Full && self.on_demand.contains(Components::TILEDATA);
        if tiles {
            // SAFETY: C24: tiles get only into images with room for them (an image without refuses them as not its
            // plan's), and a restore of such an image has cleared IA32_XFD before; no other plan's images are loaded (C3).
            unsafe { format.with_tiles() }
        } else {
            format
        }
    }

    /// The extended components on demand, by number.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        extended(self.on_demand)
    }
}
