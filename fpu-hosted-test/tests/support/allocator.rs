//! The system's allocator, which counts and can refuse: for this thread, as others run other tests.
#![allow(dead_code)] // each of the tests uses a part

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ptr::null_mut,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static REFUSED: Cell<Option<usize>> = const { Cell::new(None) };
    static WATCHED: Cell<Option<Layout>> = const { Cell::new(None) };
    static GIVEN: Cell<isize> = const { Cell::new(0) };
}

/// Allocations so far.
pub fn allocations() -> Option<u64> {
    Some(ALLOCATIONS.get())
}
/// From now on requests of so many bytes are refused, or none.
pub fn refuse(size: Option<usize>) {
    REFUSED.set(size);
}
/// From now on it is counted what is given out of this layout.
pub fn watch(layout: Layout) {
    WATCHED.set(Some(layout));
}
/// How many of the watched layout are given out, and not freed.
pub fn given() -> isize {
    GIVEN.get()
}

fn count(layout: Layout, by: isize) {
    if WATCHED.get() == Some(layout) {
        GIVEN.set(GIVEN.get() + by);
    }
}

struct Counting;
// SAFETY: the system's allocator, or null; the cells of this thread need no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        if REFUSED.get() == Some(layout.size()) {
            return null_mut();
        }
        count(layout, 1);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(layout, -1);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.dealloc(memory, layout) }
    }
}
#[global_allocator]
static COUNTING: Counting = Counting;
