//! The alignments that an [`Area`](crate::Area) can have.

/// An alignment in bytes, as a type. An [`Area`](crate::Area) takes one for which this type is an [`Alignment`].
///
/// ```
/// fn is_alignment<const N: usize>() where fpu_core::align::AlignTo<N>: fpu_core::align::Alignment {}
/// is_alignment::<16>();
/// ```
#[derive(Debug)]
pub enum AlignTo<const ALIGN: usize> {}

/// Implemented for the powers of two from 8 to 128.
///
/// ```
/// fn is_alignment<const N: usize>() where fpu_core::align::AlignTo<N>: fpu_core::align::Alignment {}
/// is_alignment::<128>();
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "an `Area` cannot have this alignment",
        label = "not 8, 16, 32, 64 or 128",
        note = "`RawArea` takes memory of any alignment"
    )
)]
pub trait Alignment: sealed::Sealed {
    #[doc(hidden)]
    type Unit: Copy + Send;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! alignments {
    ($($unit:ident: $bytes:literal;)*) => {$(
        #[doc(hidden)]
        #[derive(Clone, Copy, Debug)]
        #[repr(align($bytes))]
        pub struct $unit;
        impl sealed::Sealed for AlignTo<$bytes> {}
        impl Alignment for AlignTo<$bytes> {
            type Unit = $unit;
        }
    )*};
}
alignments! { To8: 8; To16: 16; To32: 32; To64: 64; To128: 128; }
