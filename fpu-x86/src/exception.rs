//! The error that a floating-point exception reports.
//!
//! #MF (vector 16) is raised by a waiting x87 instruction where FSW has a flag that FCW does not mask; #XM (vector 19) by
//! the SSE or AVX instruction that meets the error (SDM vol. 1, 8.5 to 8.7, 11.5). Flags stay set after they have been
//! reported or masked, so several may be set. This module reports the first of them in the order that POSIX systems
//! use: invalid, division by zero, overflow, underflow or a denormal operand, inexact.
//!
//! Where no flag is set that is not masked, the exception is [`Spurious`], and the task goes on.

use core::fmt;

use crate::image::Image;

/// The error behind an #MF or #XM.
///
/// ```
/// use fpu_x86::FpError;
/// // Division by zero, not masked; an inexact result, masked.
/// let why = FpError::of_x87(0x37B, 0x24);
/// assert_eq!(why, Ok(FpError::DivideByZero));
/// assert_eq!(why.map(FpError::code), Ok(3));
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

/// Why an #MF or #XM has no error behind it: an emulator raised it, or the words have changed since. The kernel tells
/// the task nothing, and the task goes on.
///
/// ```
/// use fpu_x86::{FpError, Spurious};
/// assert_eq!(FpError::of_x87(0x37F, 0), Err(Spurious::NoFlag));
/// let masked = FpError::of_simd(0x1F80 | 0x21);
/// assert_eq!(masked, Err(Spurious::Masked { flags: 0x21 }));
/// assert_eq!(masked.unwrap_err().to_string(), "spurious: each exception flag that is set (0x21) is masked");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spurious {
    /// No exception flag is set.
    NoFlag,
    /// Exception flags are set, and each is masked.
    Masked {
        /// IE 1, DE 2, ZE 4, OE 8, UE 0x10, PE 0x20.
        flags: u8,
    },
}

impl fmt::Display for Spurious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFlag => f.write_str("spurious: no exception flag is set"),
            Self::Masked { flags } => {
                write!(f, "spurious: each exception flag that is set ({flags:#x}) is masked")
            }
        }
    }
}

#[cfg(fpu_core_error)]
#[allow(clippy::incompatible_msrv)] // build.rs lets this in from 1.81 on only
impl core::error::Error for Spurious {}

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
    fn of(flags: u32, masks: u32) -> Result<Self, Spurious> {
        let unmasked = flags & !masks & FLAGS;
        let first = [
            (INVALID, Self::Invalid),
            (ZERO, Self::DivideByZero),
            (OVERFLOW, Self::Overflow),
            (UNDERFLOW | DENORMAL, Self::Underflow),
            (PRECISION, Self::Inexact),
        ]
        .into_iter()
        .find_map(|(bits, error)| (unmasked & bits != 0).then_some(error));
        first.ok_or(match (flags & FLAGS) as u8 {
            0 => Spurious::NoFlag,
            flags => Spurious::Masked { flags },
        })
    }

    /// Returns the error that an #MF reports, by the control and status words.
    ///
    /// # Errors
    ///
    /// The exception is spurious.
    pub fn of_x87(fcw: u16, fsw: u16) -> Result<Self, Spurious> {
        Self::of(u32::from(fsw), u32::from(fcw))
    }

    /// Returns the error that an #XM reports, by MXCSR.
    ///
    /// # Errors
    ///
    /// The exception is spurious.
    ///
    /// ```
    /// use fpu_x86::{FpError, Spurious};
    /// assert_eq!(FpError::of_simd(0x1F80 & !0x80 | 1), Ok(FpError::Invalid));
    /// assert_eq!(FpError::of_simd(0x1F80), Err(Spurious::NoFlag));
    /// ```
    pub fn of_simd(mxcsr: u32) -> Result<Self, Spurious> {
        Self::of(mxcsr, mxcsr >> MASKS)
    }

    /// Returns the error that an #MF reports, by the x87 registers of this CPU, where they hold the task's state.
    ///
    /// # Errors
    ///
    /// The exception is spurious.
    ///
    /// ```
    /// use fpu_x86::{FpError, Spurious};
    /// assert_eq!(FpError::in_x87(), Err(Spurious::NoFlag));
    /// ```
    #[cfg(fpu_instructions)]
    pub fn in_x87() -> Result<Self, Spurious> {
        let (fcw, fsw) = crate::insn::x87_words();
        Self::of_x87(fcw, fsw)
    }

    /// As [`in_x87`](Self::in_x87), after an #XM. In a kernel compiled with vector instructions MXCSR is the kernel's
    /// own: it asks [the image](Image::simd_error).
    ///
    /// # Errors
    ///
    /// The exception is spurious.
    ///
    /// ```
    /// assert!(fpu_x86::FpError::in_simd().is_err());
    /// ```
    #[cfg(fpu_instructions)]
    pub fn in_simd() -> Result<Self, Spurious> {
        // SAFETY: N2: the instruction loads no register, and the value is only looked at.
        Self::of_simd(unsafe { crate::insn::stmxcsr() })
    }

    /// The value that `si_code` has in the SIGFPE of a system with POSIX's signals, as Linux numbers them.
    ///
    /// | flag | cause | | `si_code` |
    /// |---|---|---|---|
    /// | IE | an invalid operation, a signalling NaN | [`Invalid`](Self::Invalid) | FPE_FLTINV 7 |
    /// | IE, and SF of FSW | a push onto a full x87 stack, a pop of an empty one | [`Invalid`](Self::Invalid) | FPE_FLTINV 7 |
    /// | ZE | a finite number divided by zero | [`DivideByZero`](Self::DivideByZero) | FPE_FLTDIV 3 |
    /// | OE | the result is too large | [`Overflow`](Self::Overflow) | FPE_FLTOVF 4 |
    /// | UE | the result is too small | [`Underflow`](Self::Underflow) | FPE_FLTUND 5 |
    /// | DE | an operand is denormal | [`Underflow`](Self::Underflow) | FPE_FLTUND 5 |
    /// | PE | the result is not exact | [`Inexact`](Self::Inexact) | FPE_FLTRES 6 |
    ///
    /// FPE_INTDIV 1 and FPE_INTOVF 2 are errors of integer instructions, which these words do not show.
    #[doc(alias = "FPE_FLTINV")]
    #[doc(alias = "FPE_FLTDIV")]
    #[doc(alias = "FPE_FLTOVF")]
    #[doc(alias = "FPE_FLTUND")]
    #[doc(alias = "FPE_FLTRES")]
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
    /// Returns the error that an #MF raised with these registers reports.
    ///
    /// # Errors
    ///
    /// As for [`FpError::of_x87`].
    pub fn x87_error(&self) -> Result<FpError, Spurious> {
        FpError::of_x87(self.fcw(), self.fsw())
    }

    /// Returns the error that an #XM raised with these registers reports.
    ///
    /// # Errors
    ///
    /// As for [`FpError::of_simd`].
    pub fn simd_error(&self) -> Result<FpError, Spurious> {
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
                    () if set(0) => Ok((FpError::Invalid, 7)),
                    () if set(2) => Ok((FpError::DivideByZero, 3)),
                    () if set(3) => Ok((FpError::Overflow, 4)),
                    () if set(4) || set(1) => Ok((FpError::Underflow, 5)),
                    () if set(5) => Ok((FpError::Inexact, 6)),
                    () if flags == 0 => Err(Spurious::NoFlag),
                    () => Err(Spurious::Masked { flags: flags as u8 }),
                };
                let with_code = |told: Result<FpError, _>| told.map(|error| (error, error.code()));
                // Neither rounding, precision, condition codes nor the summary bits count.
                for other in [0, 0xFFC0u16] {
                    let x87 = FpError::of_x87(other | masks as u16, other | flags as u16);
                    assert_eq!(with_code(x87), expected);
                }
                for other in [0, 0xE040] {
                    let simd = FpError::of_simd(other | masks << 7 | flags);
                    assert_eq!(with_code(simd), expected);
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
            assert_eq!(image.x87_error(), Ok(FpError::DivideByZero));
            assert_eq!(image.simd_error(), Ok(FpError::Invalid));
            // The same bytes, and the header says that they do not count.
            area[512] = 0;
            assert_eq!(Image::new(&area, &plan).x87_error(), Err(Spurious::NoFlag));
        }
    }
}
