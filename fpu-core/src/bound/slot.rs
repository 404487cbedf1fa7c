//! Room for one bound context, and who may put one in or take it out.

use core::{cell::UnsafeCell, fmt, mem::MaybeUninit};

use crate::{
    sync::{Ordering, Own},
    task::TaskFpu,
};

/// Room for one bound context.
///
/// ```
/// # use fpu_hosted_test::doc::{Area, Backend, Task};
/// use fpu_core::BoundSlot;
/// assert!(core::mem::size_of::<BoundSlot<Backend, Area>>() > core::mem::size_of::<Task>());
/// ```
pub struct BoundSlot<B, A> {
    state: Own,
    task: UnsafeCell<MaybeUninit<TaskFpu<B, A>>>,
}

/// No context.
const EMPTY: u64 = 0;
/// A context whose handle was dropped.
const LEFT: u64 = 1;
/// A context that has a handle.
const TAKEN: u64 = 2;

// SAFETY: the context is put in and taken out under a witness of the array's CPU, which is checked by number; other
// CPUs load its word, which is atomic, and store that the handle is gone. So the area only goes from CPU to CPU (Send).
unsafe impl<B, A: Send> Sync for BoundSlot<B, A> {}

impl<B, A> BoundSlot<B, A> {
    #[allow(clippy::declare_interior_mutable_const)] // copied into each element of an array, never borrowed
    pub(super) const EMPTY: Self =
        Self { state: Own::new(EMPTY), task: UnsafeCell::new(MaybeUninit::uninit()) };

    #[inline]
    pub(super) fn is_taken(&self) -> bool {
        // Acquire: what the handle's last user did comes before the slot's next use.
        self.state.load(Ordering::Acquire) == TAKEN
    }
    /// The handle is gone. One store, so that it may come from an interrupt, and while this slot is being saved: the memory
    /// stays until the next `put`.
    pub(super) fn leave(&self) {
        self.state.store(LEFT, Ordering::Release);
    }
    /// # Safety
    ///
    /// The slot has no handle, and nothing uses it.
    pub(super) unsafe fn put(&self, task: TaskFpu<B, A>) {
        let old = self.state.load(Ordering::Acquire) == LEFT;
        // SAFETY: nothing else uses the slot, by the caller.
        let room = unsafe { &mut *self.task.get() };
        if old {
            // First, so that a drop of the area that unwinds is not repeated.
            self.state.store(EMPTY, Ordering::Release);
            // SAFETY: a context was put in and not taken out.
            unsafe { room.assume_init_drop() };
        }
        room.write(task);
        self.state.store(TAKEN, Ordering::Release);
    }
    /// # Safety
    ///
    /// The caller has had the handle, and nothing else uses the slot.
    pub(super) unsafe fn take(&self) -> TaskFpu<B, A> {
        self.state.store(EMPTY, Ordering::Release);
        // SAFETY: a context was put in, and is not used again, as the slot is empty now.
        unsafe { (*self.task.get()).assume_init_read() }
    }
    /// # Safety
    ///
    /// The slot is taken for as long as the reference lives.
    #[inline(always)]
    pub(super) unsafe fn task(&self) -> &TaskFpu<B, A> {
        // SAFETY: a context was put in. No code borrows it exclusively while the slot is taken.
        unsafe { (*self.task.get()).assume_init_ref() }
    }
}

impl<B, A> Drop for BoundSlot<B, A> {
    fn drop(&mut self) {
        if self.state.load(Ordering::Acquire) != EMPTY {
            // SAFETY: a context was put in and not taken out. `&mut`: no handle borrows it.
            unsafe { self.task.get_mut().assume_init_drop() };
        }
    }
}

impl<B, A> fmt::Debug for BoundSlot<B, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoundSlot {{ taken: {} }}", self.is_taken())
    }
}
