//! Which registers are switched, by which instruction, to where: how a plan is made, and what it says.
//!
//! * `choose`: which components and which instruction, of what CPUID says and others found out; `validate` says which
//!   of CPUID's words can be right, and `sizes` what areas have besides;
//! * `detect`: the plan of the machine that the code runs on;
//! * `measure`: whether that machine saves what the plan says where the plan says;
//! * `compat`: which other CPUs a plan is for;
//! * `quirk`: what was odd, to be logged;
//! * `cell`: where a kernel keeps its plan;
//! * `initial`: whether contexts that are initial are saved and restored;
//! * `routines`: its save and restore as functions for assembly.
//!
//! Nothing here is privileged. What changes control registers to put a plan into force (`ring0::enable`), and makes the
//! plan smaller by what they refuse (`ring0::settle`), is above; it hands what it found out to `choose`. Why
//! something was left out is a value of `error`, below, because a `PlanError` holds one.

mod cell;
mod choose;
mod compat;
#[cfg(fpu_instructions)]
mod detect;
mod initial;
#[cfg(fpu_instructions)]
mod measure;
mod quirk;
#[cfg(fpu_instructions)]
mod routines;
mod sizes;
mod validate;

pub use cell::{PlanAlreadySet, PlanCell, SetError};
pub use compat::CpuMismatch;
#[cfg(fpu_instructions)]
pub(crate) use detect::mxcsr_mask;
pub use quirk::{Quirk, SizeWord};

use quirk::Quirks;

use crate::{
    components::Components,
    cpuid::CpuidInfo,
    layout::PlanPlaces,
    save_instruction::{Format, RestoreBy, SaveInstruction},
};

/// The decision that a kernel makes once: the components that are switched, the instruction, and the layout.
///
/// The plan is the backend value: it implements [`fpu_core::RawFpu`]. A kernel makes the plan at boot and keeps it in a
/// static. The switching path reads the mask and the instruction there.
///
/// ```
/// use fpu_core::RawFpu;
/// use fpu_x86::{Components, Plan};
/// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
/// let plan = Plan::detect_user(Components::all())?;
/// assert!(plan.components().contains(Components::LEGACY));
/// assert!(plan.area_len() >= 512);
/// # }
/// # Ok::<(), fpu_x86::PlanError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))] // what the switching path reads is in one cache line
pub struct Plan {
    pub(crate) mask: u64,
    pub(crate) instruction: SaveInstruction,
    pub(crate) restore_by: RestoreBy,
    /// What XCR0 holds while this plan is in use.
    pub(crate) xcr0: u64,
    /// Bytes of an area: the layout's, or more.
    pub(crate) area_len: u32,
    /// What areas of the standard and of the compacted format must have at least, because CPUID says so.
    pub(crate) at_least: [u32; 2],
    /// Whether XSAVE and its variants may be used.
    pub(crate) xsave: bool,
    /// Whether the plan is for ring 0, which sets XCR0 and IA32_XSS by it.
    pub(crate) ring0: bool,
    /// Whether the CPU has IA32_XSS, and accepts writes to it; then the same of IA32_XFD.
    pub(crate) writes_xss: bool,
    pub(crate) writes_xfd: bool,
    /// Components without which no plan is made.
    pub(crate) required: Components,
    /// Components that are not measured.
    pub(crate) trusted: Components,
    /// Whether a restore is trusted, untried, to initialise MXCSR.
    pub(crate) trusts_mxcsr: bool,
    pub(crate) mxcsr_mask: u32,
    pub(crate) layout: PlanPlaces,
    pub(crate) facts: CpuidInfo,
    pub(crate) quirks: Quirks,
}

impl Plan {
    /// This plan with the x87 pointers and MXCSR overwritten before every restore, for processors whose
    /// restore leaves one of them to the next task:
    ///
    /// * the pointers, on AMD CPUs without the fix; where [CPUID says so](CpuidInfo::keeps_x87_pointers) a plan
    ///   scrubs by itself, and this call is for a kernel that does not trust its hypervisor;
    /// * MXCSR, where an image in the compacted format has no SSE state. By SDM vol. 1, 13.8.2, a restore
    ///   initialises MXCSR then, and every CPU that is known here does; Bochs 3.0 does not.
    ///   `settle_on_this_cpu` notices, and scrubs ([`Quirk::KeepsMxcsr`]); `enable_on_this_cpu` refuses such a
    ///   processor unless the plan does ([`EnableError::KeepsMxcsr`](crate::EnableError::KeepsMxcsr)).
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?.scrubbing();
    /// assert!(plan.scrubs());
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn scrubbing(self) -> Self {
        Self { restore_by: RestoreBy::Scrubbing, ..self }
    }

    /// This plan, of which some components are enabled without being [measured](Self::measure): for a kernel
    /// that knows better, and for emulators that have a component's registers and do not save them as processors
    /// do (Bochs 3.0 takes tiles in use for unused ones).
    ///
    /// # Safety
    ///
    /// * **C7** every CPU saves and restores these components as the layout says, or no task holds anything in
    ///   them, and no code uses the memory behind an area.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_kernel(Components::USER)?;
    /// // SAFETY: C7: the tasks of this test kernel use no tiles.
    /// let plan = unsafe { plan.trusting(Components::AMX) };
    /// # drop(plan);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub unsafe fn trusting(self, components: Components) -> Self {
        Self { trusted: components, ..self }
    }

    /// This plan, set up without trying whether a restore initialises MXCSR where an image in the compacted format
    /// has no SSE state: for a kernel that knows better, and for tests of the restores that do not
    /// [scrub](Self::scrubbing) on an emulator that keeps MXCSR. A plan that scrubs already goes on to do so.
    ///
    /// # Safety
    ///
    /// * **C8** every CPU's restore does initialise it, or every image that is restored has SSE state.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_kernel(Components::USER)?;
    /// let scrubs = plan.scrubs();
    /// // SAFETY: C8: this test kernel puts SSE state into every image.
    /// let plan = unsafe { plan.trusting_mxcsr() };
    /// assert_eq!(plan.scrubs(), scrubs);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub unsafe fn trusting_mxcsr(self) -> Self {
        Self { trusts_mxcsr: true, ..self }
    }

    /// Tells whether every restore scrubs the x87 pointers, and MXCSR.
    #[must_use]
    pub fn scrubs(&self) -> bool {
        self.restore_by == RestoreBy::Scrubbing
    }

    /// The components that are saved and restored: the requested-feature bitmap.
    #[must_use]
    pub fn components(&self) -> Components {
        Components::from_bits_retain(self.mask)
    }

    /// The instruction that saves.
    #[must_use]
    #[doc(alias = "rung")]
    pub fn save_instruction(&self) -> SaveInstruction {
        self.instruction
    }

    /// The format of the plan's images.
    #[must_use]
    pub fn format(&self) -> Format {
        self.instruction.format()
    }

    /// Bytes an area must have: those of its components, or more where CPUID says so.
    #[must_use]
    pub fn area_len(&self) -> usize {
        self.area_len as usize
    }

    /// The odd words of the machine, and what the plan leaves out because of them. No quirk loses
    /// registers. A kernel logs them.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// for quirk in Plan::detect_kernel(Components::USER)?.quirks() {
    ///     println!("fpu: {quirk}");
    /// }
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    pub fn quirks(&self) -> impl Iterator<Item = Quirk> + '_ {
        self.quirks.iter()
    }

    /// The components without which there is no plan: x87 and SSE, and what
    /// [`requiring`](Self::requiring) added. All of a plan for ring 3 are required.
    #[must_use]
    pub fn required(&self) -> Components {
        self.required
    }

    /// Offset and size in bytes of one extended component (number 2 and up) within an image.
    ///
    /// ```
    /// use fpu_x86::{Components, Plan};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// if plan.components().contains(Components::AVX) {
    ///     assert_eq!(plan.place(Components::AVX), Some((576, 256)));
    /// }
    /// assert_eq!(plan.place(Components::PKRU), None);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    pub fn place(&self, component: Components) -> Option<(usize, usize)> {
        let number = component.number()?;
        let slot = self.layout.slot(number)?;
        Some((slot.offset as usize, slot.size as usize))
    }

    /// The MXCSR bits that may be set on this CPU.
    #[doc(alias = "MXCSR_MASK")]
    #[must_use]
    pub fn mxcsr_mask(&self) -> u32 {
        self.mxcsr_mask
    }

    /// CPUID's words when the plan was made, from which layouts of either format can be computed.
    ///
    /// ```
    /// use fpu_x86::{Components, Layout, Plan, Standard};
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux"))] {
    /// let plan = Plan::detect_user(Components::all())?;
    /// let leaving = Layout::<Standard>::new(plan.cpuid_info(), plan.components())?;
    /// assert!(leaving.len() >= 576);
    /// # }
    /// # Ok::<(), fpu_x86::PlanError>(())
    /// ```
    #[must_use]
    #[doc(alias = "facts")]
    pub fn cpuid_info(&self) -> &CpuidInfo {
        &self.facts
    }

    /// What XCR0 holds while the plan is in use. In ring 3 that is more than the plan's
    /// [components](Self::components) where PKRU is enabled or something was left out; in ring 0, where
    /// the plan decides it, exactly its user components.
    #[must_use]
    pub fn xcr0(&self) -> Components {
        Components::from_bits_retain(self.xcr0)
    }

    /// What IA32_XSS holds while a plan for ring 0 is in use: its supervisor components.
    #[must_use]
    pub fn xss(&self) -> Components {
        self.components().intersection(Components::SUPERVISOR)
    }

    /// Tells whether the plan was made for ring 0, by [`detect_kernel`](Self::detect_kernel).
    #[must_use]
    pub fn is_for_kernel(&self) -> bool {
        self.ring0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::const_assert;

    // A kernel's boot stack holds one or two.
    const_assert!(core::mem::size_of::<Plan>() <= 1792);
}
