//! The plan as a backend of `fpu-core`.

use core::ptr::NonNull;

use crate::{
    components::Components,
    fields::{INITIAL_MXCSR, MXCSR, XSTATE_BV},
    image::{self, Image, ImageMut},
    insn, layout,
    plan::Plan,
    save_instruction::{RestoreBy, SaveInstruction},
    units::{SIMD, X87},
};
use fpu_core::{
    verify::{CompareFpu, Difference},
    IdleFpu, KernelUnits, RawFpu, RestoreFault, StepsFpu,
};

/// Bytes of an area that are worth fetching: all but tiles.
const PREFETCHED: usize = 4096;

/// Turns the answer of a restore into a result.
fn refused(answer: u32) -> Result<(), RestoreFault> {
    match answer {
        0 => Ok(()),
        answer => Err(RestoreFault(insn::vector_of(answer))),
    }
}

/// The restore of a plan: where it is by no single instruction, what comes first. A macro, because the code of the hot paths
/// around is not the same with a function that is inlined twice.
macro_rules! loads {
    ($plan:ident, $area:ident, $more:expr, $first:block) => {{
        let (area, mask) = ($area.as_ptr(), $plan.mask);
        // As in `save`.
        refused(if $plan.restore_by < RestoreBy::Fxrstor {
            if $plan.restore_by == RestoreBy::Xrstor {
                // SAFETY: N1: the instruction has XRSTOR, for its own format; valid area (C9). N2: registers free
                // (C10).
                unsafe { insn::xrstor(area, mask) }
            } else {
                // SAFETY: N1: a plan with XSAVES is for ring 0, and XRSTORS reads its format; valid area (C9). N2:
                // registers free (C10).
                unsafe { insn::xrstors(area, mask) }
            }
        } else {
            if $more {
                $first
                if $plan.instruction == SaveInstruction::Xsaves {
                    // SAFETY: N1: a plan with XSAVES is for ring 0, and XRSTORS reads its format; valid area (C9). N2:
                    // registers free (C10).
                    return refused(unsafe { insn::xrstors(area, mask) });
                } else if $plan.instruction != SaveInstruction::Fxsave {
                    // SAFETY: N1: a CPU with any XSAVE has XRSTOR; valid area (C9). N2: registers free (C10).
                    return refused(unsafe { insn::xrstor(area, mask) });
                }
            }
            // SAFETY: N1: every 64-bit CPU has FXRSTOR; valid area (C9). N2: registers free (C10).
            unsafe { insn::fxrstor(area) }
        })
    }};
}

// SAFETY: B1: the fields are fixed; every instruction used stays within the components of the mask,
// whose places `Layout` computed, `validate::check` confined, and `measure` tried on the CPU. B2: the mask is XCR0
// except PKRU (switched apart) and what stays initial (C23); for ring 0 it is XCR0 | IA32_XSS as `enable_on_this_cpu`
// sets them, which the kernel promises to have called (K4); FXSAVE is taken only if that is x87 and SSE; no save
// changes a register. A plan of given facts is for the machine of those facts, which the kernel promises too (K4). B3:
// XRSTOR and FXRSTOR set every component of the mask, the absent ones to their initial state (SDM vol. 1, 13.8); a restore is
// left out only where all are initial, and the image has none and no other MXCSR. B4:
// the only instruction that can fault on an image returns its vector through `fixup`, which the
// embedder serves (the crate documentation makes that a condition of use); it does not write
// memory. B5: saves write what the CPU itself made; `write_initial` writes a header with no
// reserved bit, and MXCSR 0x1F80; the setters of `ImageMut` are proven one by one there. B6: no
// loop, wait or allocation; indexing is by constants within arrays of fixed size. B7: XSAVEOPT's
// modified optimisation compares the address of the last restore on this CPU (SDM vol. 1, 13.9),
// which is the condition of B7 (sound omission) itself. A restore that is left out comes to the same: what the CPU remembers
// then differs from what XRSTOR of that image would leave in two things, and with either a save leaves out less. Another
// address is remembered: then nothing is taken for unmodified. More is taken for modified since. What is in use at the save,
// and not modified by then, was put into use without a change of its registers, which no XRSTOR of an initial image would
// rule out either. B17: both are initial; a save would write a header without components (13.6 to 13.11), and MXCSR as
// it is there. XGETBV says "in use" of registers that hold their initial values at worst, and nothing of supervisor
// components, which a plan that skips has not.
unsafe impl RawFpu for Plan {
    type Image<'a> = Image<'a>;
    type ImageMut<'a> = ImageMut<'a>;

    fn area_len(&self) -> usize {
        Plan::area_len(self)
    }
    fn area_align(&self) -> usize {
        layout::ALIGN
    }
    #[inline]
    fn plan_word(&self) -> u64 {
        self.mask
    }

    unsafe fn write_initial(&self, area: NonNull<u8>) {
        // SAFETY: C9: the bytes are ours alone and writable. Zeroed before a slice of them exists.
        unsafe { area.as_ptr().write_bytes(0, self.area_len()) };
        // SAFETY: valid area (C9); they have just been written.
        let bytes = unsafe { core::slice::from_raw_parts_mut(area.as_ptr(), self.area_len()) };
        image::write_initial(bytes, self);
    }

    #[inline]
    fn prefetch(&self, area: NonNull<u8>) {
        insn::prefetch(area.as_ptr(), self.area_len().min(PREFETCHED));
    }

    #[inline]
    unsafe fn save(&self, area: NonNull<u8>) {
        let (area, mask) = (area.as_ptr(), self.mask);
        // Two predictable compares for the better ones; a `match` becomes an indirect jump.
        if self.instruction > SaveInstruction::Xsaveopt {
            if self.instruction == SaveInstruction::Xsavec {
                // SAFETY: N1: the instruction is offered (`offers`), and valid area (C9).
                unsafe { insn::xsavec(area, mask) }
            } else {
                // SAFETY: N1: a plan with this instruction is for ring 0 and a CPU that offers it (`offers`); valid
                // area (C9).
                unsafe { insn::xsaves(area, mask) }
            }
        } else if self.instruction == SaveInstruction::Xsaveopt {
            // SAFETY: N1: the CPU offers it (`offers`); valid area (C9).
            unsafe { insn::xsaveopt(area, mask) }
        } else if self.instruction == SaveInstruction::Xsave {
            // SAFETY: N1: the CPU offers it (`offers`); valid area (C9).
            unsafe { insn::xsave(area, mask) }
        } else {
            // SAFETY: N1: every 64-bit CPU has FXSAVE; valid area (C9).
            unsafe { insn::fxsave(area) }
        }
    }

    #[inline]
    unsafe fn unchanged(&self, area: NonNull<u8>) -> bool {
        // SAFETY: valid area (C9), and registers free (C10) to be asked about.
        self.restore_by == RestoreBy::UnlessInitial && unsafe { self.both_initial(area) }
    }

    #[inline(always)] // a call would cost every path that loads nothing a frame
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        loads!(self, area, self.restore_by > RestoreBy::Fxrstor, {
            if self.restore_by > RestoreBy::UnlessInitial {
                // SAFETY: N2: registers free (C10).
                unsafe { insn::scrub() };
            // SAFETY: valid area (C9), and registers free (C10) to be asked about.
            } else if unsafe { self.both_initial(area) } {
                return Ok(());
            }
        })
    }

    #[inline]
    unsafe fn kernel_defaults(&self, units: KernelUnits) {
        if units.contains(X87) {
            // SAFETY: N2: the caller's registers free (C10).
            unsafe { insn::fninit() };
        }
        if units.contains(SIMD) {
            // SAFETY: N2: the caller's registers free (C10); all exceptions masked is legal everywhere.
            unsafe { insn::ldmxcsr(INITIAL_MXCSR) };
        }
    }

    unsafe fn copy_for_child(&self, from: NonNull<u8>, to: NonNull<u8>) {
        let len = self.area_len();
        // SAFETY: valid area (C9) of both, not overlapping.
        unsafe { to.as_ptr().copy_from_nonoverlapping(from.as_ptr(), len) };
        // SAFETY: valid area (C9) of `to`, which has just been written.
        let bytes = unsafe { core::slice::from_raw_parts_mut(to.as_ptr(), len) };
        image::disinherit(bytes, self);
    }

    unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> Image<'a> {
        // SAFETY: C9, C11: readable, initialised by `write_initial`, and unwritten while the view lives.
        let bytes = unsafe { core::slice::from_raw_parts(area.as_ptr(), self.area_len()) };
        Image::new(bytes, self)
    }

    unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> ImageMut<'a> {
        // SAFETY: valid area (C9), no other writer (C11), and no other code reads.
        let bytes = unsafe { core::slice::from_raw_parts_mut(area.as_ptr(), self.area_len()) };
        ImageMut::new(bytes, self)
    }
}

// SAFETY: B16: one instruction each, after a scrub where the plan says so, for all areas; `Plan::routines` has them.
unsafe impl StepsFpu for Plan {}

// SAFETY: B8: both are read as slices of `area_len` bytes, and nothing is written; no instruction of this
// crate runs. B9: `image::equality` goes through every component of the plan and all of its registers, and leaves
// out what it names there: what no restore promises. B10: that text again; a save writes what XRSTOR loaded,
// or says in the header that it is initial (SDM vol. 1, 13.6 to 13.11).
unsafe impl CompareFpu for Plan {
    unsafe fn same_state(&self, one: NonNull<u8>, other: NonNull<u8>) -> Result<(), Difference> {
        // SAFETY: valid area (C9), no other writer (C11) of the first, by the caller.
        let one = unsafe { self.image(one) };
        // SAFETY: those of the second.
        let other = unsafe { self.image(other) };
        one.same_state(&other)
    }
}

impl Plan {
    /// Restores, by a plan that does not skip.
    ///
    /// # Safety
    ///
    /// As for [`RawFpu::restore`].
    #[inline]
    pub(crate) unsafe fn load_always(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        loads!(self, area, self.restore_by == RestoreBy::Scrubbing, {
            // SAFETY: N2: registers free (C10).
            unsafe { insn::scrub() };
        })
    }

    /// Tells whether a restore of the image would initialise everything, and everything is initial.
    ///
    /// # Safety
    ///
    /// Valid area (C9) with a header, and registers free (C10), of a plan that [skips](Plan::skips_initial).
    #[inline(always)]
    unsafe fn both_initial(&self, area: NonNull<u8>) -> bool {
        let (header, legacy) = (area.as_ptr().wrapping_add(XSTATE_BV), area.as_ptr());
        // SAFETY: valid area (C9), with a header, aligned to 64.
        if unsafe { header.cast::<u64>().read() } != 0 {
            return false;
        }
        // The standard format keeps MXCSR in every image, the compacted one where SSE is present (SDM vol. 1, 13.8).
        if self.instruction <= SaveInstruction::Xsaveopt
            // SAFETY: valid area (C9).
            && unsafe { legacy.wrapping_add(MXCSR).cast::<u32>().read() } != INITIAL_MXCSR
        {
            return false;
        }
        // SAFETY: N3: XCR0 enables the plan's components (K4), and N8: a plan that skips has this XGETBV, as has every CPU
        // that `check_cpu` lets in. N2: registers free (C10).
        unsafe { insn::are_initial(self.mask) }
    }

    /// Tells whether tiles are in XCR0 and not disabled while the plan is in force.
    fn has_tiles(&self) -> bool {
        self.components().contains(Components::AMX)
    }
}

// SAFETY: B11: XGETBV changes nothing but integer registers. A clear bit of XINUSE says that the component is in
// its initial state (SDM vol. 1, 13.6); a CPU that cannot be asked counts as having some in use. B12:
// TILERELEASE initialises TILECFG and TILEDATA, and touches nothing else (SDM vol. 2); without both in the
// plan nothing is executed.
unsafe impl IdleFpu for Plan {
    /// On x86, tells whether AMX tiles or their configuration are in use (XGETBV with ECX = 1; SDM vol. 1, 13.1 and
    /// 13.6). A CPU may say so although all of them are zero. `false` without AMX in the plan, `true` where a CPU with
    /// AMX has no such XGETBV.
    unsafe fn keeps_awake(&self) -> bool {
        // SAFETY: N3: components beyond x87 and SSE are in a plan only where XCR0 enables them (K4). N8: the
        // plan's CPU has it, and `check_cpu` lets no CPU in that differs.
        self.has_tiles() && awake(self.cpuid_info().xgetbv1().then(|| unsafe { insn::xgetbv1() }))
    }
    /// On x86: TILERELEASE, if AMX is in the plan.
    unsafe fn release(&self) {
        if self.has_tiles() {
            // SAFETY: N2: registers free (C10). N9: the plan's components are enabled (K4), and IA32_XFD is as the plan
            // wants it; in ring 3 the system enables tiles that are in use, as the caller has just seen.
            unsafe { insn::tilerelease() };
        }
    }
}

/// Tells whether components in use keep the CPU awake. `None`: the CPU does not tell which are in use.
fn awake(in_use: Option<u64>) -> bool {
    in_use.map_or(true, |in_use| in_use & Components::AMX.bits() != 0)
}

#[cfg(test)]
mod tests {
    use super::awake;

    #[test]
    fn tiles_or_their_configuration_keep_a_cpu_awake() {
        assert!(!awake(Some(!(3 << 17))), "everything else in use");
        assert!(awake(Some(1 << 17)) && awake(Some(1 << 18)));
        assert!(awake(None), "a CPU that does not tell");
    }
}
