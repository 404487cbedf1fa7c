//! The units that a kernel FPU section can ask for on x86.

use fpu_core::KernelUnits;

/// The x87 stack, empty, with the default control word (FNINIT).
///
/// ```
/// use fpu_core::KernelUnits;
/// assert!(KernelUnits::ALL.contains(fpu_x86::units::X87));
/// ```
#[doc(alias = "KFPU_387")]
pub const X87: KernelUnits = KernelUnits::unit(0);

/// The SIMD control and status word (MXCSR = 0x1F80).
///
/// ```
/// use fpu_x86::units::{SIMD, X87};
/// assert!(!SIMD.contains(X87) && (SIMD | X87).contains(SIMD));
/// ```
#[doc(alias = "KFPU_MXCSR")]
pub const SIMD: KernelUnits = KernelUnits::unit(1);
