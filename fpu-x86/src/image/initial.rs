//! Whole images: the initial image, and the image of a child.

use crate::{components::Components, fields::*, plan::Plan, save_instruction::Format};

/// Writes the initial state into zeroed bytes.
///
/// A standard-format XRSTOR loads MXCSR from memory even if XSTATE_BV says that SSE is initial (SDM
/// vol. 1, 13.8.1), so it is written in every format.
pub(crate) fn write_initial(zeroed: &mut [u8], plan: &Plan) {
    set(zeroed, FCW, INITIAL_FCW.to_le_bytes());
    set(zeroed, MXCSR, INITIAL_MXCSR.to_le_bytes());
    set(zeroed, MXCSR_MASK, plan.mxcsr_mask().to_le_bytes());
    if plan.format() == Format::Compacted {
        set(zeroed, XCOMP_BV, (COMPACTED | plan.mask).to_le_bytes());
    }
}

/// What a child does not get: its parent's tiles, as on Linux, and supervisor components, which the kernel sets for each
/// task: a shadow stack, user interrupts and traces are one task's own.
pub(crate) const NOT_INHERITED: Components = Components::AMX.union(Components::SUPERVISOR);

/// Makes a child's image of its parent's: what the child does not get is absent.
pub(crate) fn disinherit(bytes: &mut [u8], plan: &Plan) {
    if plan.format() != Format::Legacy {
        let kept = u64_at(bytes, XSTATE_BV) & !NOT_INHERITED.bits();
        set(bytes, XSTATE_BV, kept.to_le_bytes());
    }
}
