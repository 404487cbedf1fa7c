//! A save area from the heap, of the size that the backend has on this machine.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::{alloc::Layout, fmt, ptr::NonNull};

use crate::{
    area::SaveArea,
    backend::{RawFpu, TheBackend},
    error::AreaError,
};

/// Memory for one image, owned, allocated with the size and alignment that a backend asks for.
///
/// An [`Area`](crate::Area) has to be as large as the largest machine wants; this is as large as this machine wants.
///
/// ```
/// # use fpu_hosted_test::doc::*;
/// use fpu_core::{AreaError, HeapArea, TaskFpu};
/// # let (cpu, task) = cpu_and_task();
/// fn new_thread(cpu: &Cpu) -> Result<TaskFpu<Backend, HeapArea>, AreaError> {
///     let backend = cpu.backend();
///     Ok(TaskFpu::new(backend, HeapArea::for_backend(backend)?)?)
/// }
/// let task = new_thread(&cpu)?;
/// # drop(task);
/// # Ok::<(), AreaError>(())
/// ```
pub struct HeapArea {
    base: NonNull<u8>,
    layout: Layout,
}

impl HeapArea {
    /// Memory for one image of this backend, zeroed.
    ///
    /// # Errors
    ///
    /// [`AreaError::OutOfMemory`]: the allocator has none. It does not abort.
    ///
    /// ```
    /// # use fpu_hosted_test::doc::the_backend;
    /// use fpu_core::{HeapArea, RawFpu, SaveArea};
    /// let area = HeapArea::for_backend(the_backend())?;
    /// assert_eq!((area.len(), area.align()), (the_backend().area_len(), 64));
    /// # Ok::<(), fpu_core::AreaError>(())
    /// ```
    pub fn for_backend<B: RawFpu>(backend: &TheBackend<B>) -> Result<Self, AreaError> {
        Self::with_len(backend, backend.area_len())
    }

    /// The same of so many bytes: for a context that is to have [more room](crate::TaskFpu::replace_area).
    ///
    /// # Errors
    ///
    /// As for [`for_backend`](Self::for_backend).
    ///
    /// ```
    /// # use fpu_hosted_test::doc::the_backend;
    /// use fpu_core::{HeapArea, SaveArea};
    /// assert_eq!(HeapArea::with_len(the_backend(), 11008)?.len(), 11008);
    /// # Ok::<(), fpu_core::AreaError>(())
    /// ```
    pub fn with_len<B: RawFpu>(backend: &TheBackend<B>, len: usize) -> Result<Self, AreaError> {
        // A backend without registers needs no byte, but the allocator has to be asked for one.
        let need = len.max(1);
        let refused = AreaError::OutOfMemory { need };
        let Ok(layout) = Layout::from_size_align(need, backend.area_align()) else {
            return Err(refused);
        };
        // SAFETY: rests on no duty of this crate: the size is not 0.
        let base = unsafe { alloc_zeroed(layout) };
        match NonNull::new(base) {
            Some(base) => Ok(Self { base, layout }),
            None => Err(refused),
        }
    }
}

impl Drop for HeapArea {
    fn drop(&mut self) {
        // SAFETY: rests on no duty of this crate: allocated with this layout, and not freed before.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: the bytes belong to this value alone, and any thread may free them.
unsafe impl Send for HeapArea {}
// SAFETY: the bytes are reached only through `base`, by the one user of K18 (private area); the type has no operation
// on them.
unsafe impl Sync for HeapArea {}

// SAFETY: K17: the allocation has this length and alignment, is zeroed, and stays where it is when the value is moved.
// K18: nobody else knows its address.
unsafe impl SaveArea for HeapArea {
    #[inline]
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    #[inline]
    fn len(&self) -> usize {
        self.layout.size()
    }
    #[inline]
    fn align(&self) -> usize {
        self.layout.align()
    }
}

impl fmt::Debug for HeapArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeapArea<{}>", self.layout.size())
    }
}
