//! Which error a floating-point exception reports.
//!
//! #MF (vector 16) is raised by a waiting x87 instruction where FSW has a flag that FCW does not mask; #XM (vector 19) by
//! the SSE or AVX instruction that meets the error (SDM vol. 1, 8.5 to 8.7, 11.5). Flags stay set after they have been
//! reported or masked, so several may be set. Told is the first of them in the order in which systems with POSIX's signals
//! look: invalid, division by zero, overflow, underflow or a denormal operand, inexact.

use core::fmt;

use crate::image::Image;

/// The error behind an #MF or #XM.
///
/// ```
/// use fpu_x86::FpError;
/// // Division by zero, not masked; an inexact result, masked.
/// let why = FpError::of_x87(0x37B, 0x24);
/// assert_eq!(why, Some(FpError::DivideByZero));
/// assert_eq!(why.map(FpError::code), Some(3));
/// assert_eq!(FpError::of_x87(0x37F, 0x3F), None, "all masked: the exception is spurious");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FpError {
    /// An invalid operation, a signalling NaN, or an x87 stack fault.
    Invalid,
    /// A finite number was divided by zero.
    DivideByZero,
    /// The result is too large.
    Overflow,
    /// The result is too small, or an operand was denormal.
    Underflow,
    /// The result is not exact.
    Inexact,
}

/// IE, DE, ZE, OE, UE and PE, in FSW and MXCSR and, in the same order, their masks.
const FLAGS: u32 = 0x3F;
const INVALID: u32 = 1 << 0;
const DENORMAL: u32 = 1 << 1;
const ZERO: u32 = 1 << 2;
const OVERFLOW: u32 = 1 << 3;
const UNDERFLOW: u32 = 1 << 4;
const PRECISION: u32 = 1 << 5;
/// Where MXCSR's masks begin.
const MASKS: u32 = 7;

impl FpError {
    fn of(unmasked: u32) -> Option<Self> {
        [
            (INVALID, Self::Invalid),
            (ZERO, Self::DivideByZero),
            (OVERFLOW, Self::Overflow),
            (UNDERFLOW | DENORMAL, Self::Underflow),
            (PRECISION, Self::Inexact),
        ]
        .into_iter()
        .find_map(|(bits, error)| (unmasked & FLAGS & bits != 0).then_some(error))
    }

    /// What an #MF reports, by the control and status words. `None` for a spurious one, as after a task has changed
    /// its words before the exception was looked at: there is nothing to tell the task, which goes on.
    #[must_use]
    pub fn of_x87(fcw: u16, fsw: u16) -> Option<Self> {
        Self::of(u32::from(fsw & !fcw))
    }

    /// What an #XM reports, by MXCSR. `None` for a spurious one.
    ///
    /// ```
    /// use fpu_x86::FpError;
    /// assert_eq!(FpError::of_simd(0x1F80 & !0x80 | 1), Some(FpError::Invalid));
    /// assert_eq!(FpError::of_simd(0x1F80), None);
    /// ```
    #[must_use]
    pub fn of_simd(mxcsr: u32) -> Option<Self> {
        Self::of(mxcsr & !(mxcsr >> MASKS))
    }

    /// The same for the registers as they are, where the task's state is in them, as after an #MF.
    ///
    /// ```
    /// assert_eq!(fpu_x86::FpError::in_x87(), None);
    /// ```
    #[cfg(fpu_instructions)]
    #[must_use]
    pub fn in_x87() -> Option<Self> {
        let (fcw, fsw) = crate::insn::x87_words();
        Self::of_x87(fcw, fsw)
    }

    /// As [`in_x87`](Self::in_x87), after an #XM.
    ///
    /// ```
    /// assert_eq!(fpu_x86::FpError::in_simd(), None);
    /// ```
    #[cfg(fpu_instructions)]
    #[must_use]
    pub fn in_simd() -> Option<Self> {
        // SAFETY: N2: the instruction loads no register, and the value is only looked at.
        Self::of_simd(unsafe { crate::insn::stmxcsr() })
    }

    /// The value that `si_code` has in the SIGFPE of a system with POSIX's signals, as Linux and the BSDs number them:
    /// FPE_FLTINV 7, FPE_FLTDIV 3, FPE_FLTOVF 4, FPE_FLTUND 5, FPE_FLTRES 6.
    #[doc(alias = "FPE_FLTDIV")]
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Invalid => 7,
            Self::DivideByZero => 3,
            Self::Overflow => 4,
            Self::Underflow => 5,
            Self::Inexact => 6,
        }
    }
}

impl fmt::Display for FpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid operation",
            Self::DivideByZero => "division by zero",
            Self::Overflow => "overflow",
            Self::Underflow => "underflow or denormal operand",
            Self::Inexact => "inexact result",
        })
    }
}

impl Image<'_> {
    /// What an #MF reports that was raised with these registers: see [`FpError::of_x87`].
    #[must_use]
    pub fn x87_error(&self) -> Option<FpError> {
        FpError::of_x87(self.fcw(), self.fsw())
    }

    /// What an #XM reports that was raised with these registers: see [`FpError::of_simd`].
    #[must_use]
    pub fn simd_error(&self) -> Option<FpError> {
        FpError::of_simd(self.mxcsr())
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::{
        image::{write_initial, ImageMut},
        save_instruction::Format,
        tests::sample,
    };

    /// All flags against all masks, by the definition.
    #[test]
    fn the_first_error_that_is_not_masked_is_told() {
        for flags in 0..64u32 {
            for masks in 0..64u32 {
                let set = |bit: u32| flags >> bit & 1 != 0 && masks >> bit & 1 == 0;
                let expected = match () {
                    () if set(0) => Some(FpError::Invalid),
                    () if set(2) => Some(FpError::DivideByZero),
                    () if set(3) => Some(FpError::Overflow),
                    () if set(4) || set(1) => Some(FpError::Underflow),
                    () if set(5) => Some(FpError::Inexact),
                    () => None,
                };
                // Neither rounding, precision, condition codes nor the summary bits count.
                for other in [0, 0xFFC0u16] {
                    let x87 = FpError::of_x87(other | masks as u16, other | flags as u16);
                    assert_eq!(x87, expected);
                }
                for other in [0, 0xE040] {
                    assert_eq!(FpError::of_simd(other | masks << 7 | flags), expected);
                }
            }
        }
    }

    #[test]
    fn an_absent_component_has_no_error() {
        for plan in sample::plans() {
            if plan.format() == Format::Legacy {
                continue;
            }
            let mut area = vec![0; plan.area_len()];
            write_initial(&mut area, &plan);
            let mut image = ImageMut::new(&mut area, &plan);
            image.set_fcw(0x37B);
            image.set_fsw(0x8084);
            image.set_mxcsr(0x1F80 & !0x80 | 1).unwrap();
            let image = image.as_image();
            assert_eq!(image.x87_error(), Some(FpError::DivideByZero));
            assert_eq!(image.simd_error(), Some(FpError::Invalid));
            // The same bytes, and the header says that they do not count.
            area[512] = 0;
            assert_eq!(Image::new(&area, &plan).x87_error(), None);
        }
    }
}
