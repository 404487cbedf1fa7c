//! Memory for images: the caller's, of any kind.

use core::{cell::UnsafeCell, fmt, ptr::NonNull};

use crate::align::{AlignTo, Alignment};

/// Memory for one image, supplied by the kernel: inline, boxed, a page, a slice.
///
/// # Safety
///
/// The implementer promises:
///
/// * **K17** while the value is not moved, [`base`](Self::base) and [`len`](Self::len) return the
///   same values, and that many bytes are readable and writable through the pointer.
///   Moving the value changes neither `len` nor that the first byte is at a multiple of
///   [`align`](Self::align).
/// * **K18** nothing but this value's user reaches those bytes while the value lives.
///
/// ```
/// use fpu_core::{Area, SaveArea};
/// let area = Area::<2752>::new();
/// assert_eq!((area.base().as_ptr() as usize % 64, area.len()), (0, 2752));
/// ```
#[cfg_attr(
    fpu_diagnostics,
    diagnostic::on_unimplemented(
        message = "`{Self}` is no memory for an image",
        label = "not a save area",
        note = "bytes alone (`[u8]`, `Box<[u8]>`, `Vec<u8>`) do not say how they are aligned",
        note = "`Area<N>` has a size known at compile time, `HeapArea::for_backend` (feature `alloc`) the size of this machine, `RawArea::new` takes memory of your own"
    )
)]
pub unsafe trait SaveArea {
    /// Address of the first byte.
    #[must_use]
    fn base(&self) -> NonNull<u8>;
    /// Number of bytes.
    #[must_use]
    fn len(&self) -> usize;
    /// Alignment of the first byte, wherever the value is moved: a power of two.
    #[must_use]
    fn align(&self) -> usize;
    /// Tells whether the memory has no bytes.
    #[must_use]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `N` zeroed bytes at a multiple of `ALIGN` (64 by default), for a place inside the task, in a box, or in a static.
///
/// ```
/// use fpu_core::Area;
/// static IDLE_AREA: Area<576> = Area::new();
/// static NARROW: Area<528, 16> = Area::aligned(); // no more padding than the backend asks for
/// # let _ = (&IDLE_AREA, &NARROW);
/// assert_eq!((size_of::<Area<528>>(), size_of::<Area<528, 16>>()), (576, 528));
/// # use core::mem::size_of;
/// ```
#[repr(C)]
pub struct Area<const N: usize, const ALIGN: usize = 64>
where
    AlignTo<ALIGN>: Alignment,
{
    /// Aligns the value, and takes no room.
    _align: [<AlignTo<ALIGN> as Alignment>::Unit; 0],
    bytes: UnsafeCell<[u8; N]>,
}

impl<const N: usize> Area<N> {
    /// Zeroed memory at a multiple of 64; [`TaskFpu::new`](crate::TaskFpu::new) writes the initial image.
    ///
    /// ```
    /// let inline: fpu_core::Area<576> = fpu_core::Area::new();
    /// let boxed = Box::new(fpu_core::Area::<8192>::new());
    /// # let _ = (&inline, &boxed);
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self::aligned()
    }
}

impl<const N: usize, const ALIGN: usize> Area<N, ALIGN>
where
    AlignTo<ALIGN>: Alignment,
{
    /// Zeroed memory at a multiple of `ALIGN`.
    ///
    /// ```
    /// use fpu_core::{Area, SaveArea};
    /// assert_eq!(Area::<264, 8>::aligned().align(), 8);
    /// ```
    #[must_use]
    pub const fn aligned() -> Self {
        Self { _align: [], bytes: UnsafeCell::new([0; N]) }
    }
}

impl<const N: usize, const ALIGN: usize> Default for Area<N, ALIGN>
where
    AlignTo<ALIGN>: Alignment,
{
    fn default() -> Self {
        Self::aligned()
    }
}

// SAFETY: only `base` gives access to the bytes, and a user of the pointer needs `unsafe` (K18 gives
// the bytes to one user); the type itself has no operation on them. `_align` is empty.
unsafe impl<const N: usize, const ALIGN: usize> Sync for Area<N, ALIGN> where
    AlignTo<ALIGN>: Alignment
{
}

// SAFETY: K17: the bytes are the value itself. K18: they are private, and no method reads them.
unsafe impl<const N: usize, const ALIGN: usize> SaveArea for Area<N, ALIGN>
where
    AlignTo<ALIGN>: Alignment,
{
    fn base(&self) -> NonNull<u8> {
        NonNull::from(&self.bytes).cast()
    }
    fn len(&self) -> usize {
        N
    }
    fn align(&self) -> usize {
        core::mem::align_of::<Self>()
    }
}

impl<const N: usize, const ALIGN: usize> fmt::Debug for Area<N, ALIGN>
where
    AlignTo<ALIGN>: Alignment,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Area<{N}, {ALIGN}>")
    }
}

/// Memory known by address only: a page, a slab object, a static buffer of the kernel.
///
/// ```
/// use core::ptr::NonNull;
/// use fpu_core::{RawArea, SaveArea};
/// #[repr(align(64))]
/// struct Page([u8; 4096]);
/// let mut page = Page([0; 4096]);
/// let base = NonNull::from(&mut page.0).cast();
/// // SAFETY: `page` outlives `area` and is not touched meanwhile.
/// let area = unsafe { RawArea::new(base, 4096) };
/// assert_eq!(area.len(), 4096);
/// ```
#[derive(Debug)]
pub struct RawArea {
    base: NonNull<u8>,
    len: usize,
}

impl RawArea {
    /// `len` bytes at `base`.
    ///
    /// # Safety
    ///
    /// * **K19** the bytes are readable and writable for as long as the value lives, and nothing else
    ///   accesses them.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use fpu_core::RawArea;
    /// # use fpu_hosted_test::doc::{the_backend, Area};
    /// let page = Box::leak(Box::new(Area::new()));
    /// // SAFETY: K19: leaked, so valid for ever, and no other code uses it.
    /// let area = unsafe { RawArea::new(NonNull::from(page).cast(), 512) };
    /// assert!(fpu_core::TaskFpu::new(the_backend(), area).is_ok());
    /// ```
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }
}

// SAFETY: the bytes belong to this value alone (K19), so they go where it goes.
unsafe impl Send for RawArea {}
// SAFETY: the bytes are reached only through `base`, by the one user of K18 (private area); the type has no operation
// on them.
unsafe impl Sync for RawArea {}

// SAFETY: K17, K18: own bytes (K19), promised at construction.
unsafe impl SaveArea for RawArea {
    #[inline]
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    #[inline]
    fn len(&self) -> usize {
        self.len
    }
    #[inline]
    fn align(&self) -> usize {
        1 << (self.base.as_ptr() as usize).trailing_zeros()
    }
}

// SAFETY: K17, K18: those of the boxed area, which no other code can reach and which does not move
// with the box.
#[cfg(feature = "alloc")]
unsafe impl<T: SaveArea + ?Sized> SaveArea for alloc::boxed::Box<T> {
    fn base(&self) -> NonNull<u8> {
        (**self).base()
    }
    fn len(&self) -> usize {
        (**self).len()
    }
    fn align(&self) -> usize {
        (**self).align()
    }
}
