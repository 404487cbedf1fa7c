//! What registers and images hold: one symbol, which stands for the whole contents.
//!
//! An image has a symbol, and after the symbol a flag that says whether the image is present. An image of the initial
//! state is absent, over whatever bytes were there (the initial optimisation).

use core::ptr::NonNull;
use std::marker::PhantomData;

/// The contents of registers or of an image.
pub(super) type Symbol = u32;
/// The initial state.
pub(super) const INITIAL: Symbol = 1;
/// What kernel code finds in the registers at the beginning of a section.
pub(super) const DEFAULTS: Symbol = 2;
/// What kernel code leaves there.
pub(super) const KERNEL: Symbol = 3;
/// Contents that no context expects: torn, undefined, lost.
pub(super) const TORN: Symbol = 4;
/// The first symbol that a context can have.
pub(super) const FIRST: Symbol = 16;

/// Memory for one image.
pub(super) type Area = fpu_core::Area<8>;

/// An image: its bytes, whether they count, and whether the area has more room than the least.
#[repr(C)]
struct Image {
    bytes: Symbol,
    present: u16,
    room: u16,
}

/// Has an area more room than the least?
///
/// # Safety
///
/// Valid area (C9).
pub(super) unsafe fn has_room(area: NonNull<u8>) -> bool {
    // SAFETY: the caller's C9: 8 bytes, aligned to 8.
    unsafe { area.cast::<Image>().as_ref() }.room != 0
}
/// # Safety
///
/// Valid area (C9).
pub(super) unsafe fn set_room(area: NonNull<u8>, room: bool) {
    // SAFETY: the caller's C9: 8 bytes, aligned to 8.
    unsafe { area.cast::<Image>().as_mut() }.room = u16::from(room);
}
/// Makes of another area one with that room that holds what an image holds, over old bytes.
///
/// # Safety
///
/// Valid area (C9) of both.
pub(super) unsafe fn move_to(from: NonNull<u8>, to: NonNull<u8>, room: bool) {
    // SAFETY: the caller's valid area (C9) of both.
    unsafe {
        put_over_old_bytes(to, get(from));
        set_room(to, room);
    }
}

/// # Safety
///
/// Valid area (C9).
pub(super) unsafe fn get(area: NonNull<u8>) -> Symbol {
    // SAFETY: the caller's C9: 8 bytes, aligned to 8.
    match unsafe { area.cast::<Image>().as_ptr().read() } {
        Image { present: 0, .. } => INITIAL,
        Image { bytes, .. } => bytes,
    }
}

/// Leaves out what is initial: the old bytes stay.
///
/// # Safety
///
/// Valid area (C9).
pub(super) unsafe fn put(area: NonNull<u8>, symbol: Symbol) {
    // SAFETY: as for `get`.
    let image = unsafe { area.cast::<Image>().as_mut() };
    image.present = u16::from(symbol != INITIAL);
    if symbol != INITIAL {
        image.bytes = symbol;
    }
}

/// Makes an image of that symbol, which lies over another context's bytes where it is absent.
///
/// # Safety
///
/// Valid area (C9).
pub(super) unsafe fn put_over_old_bytes(area: NonNull<u8>, symbol: Symbol) {
    // SAFETY: the caller's valid area (C9), twice.
    unsafe {
        put(area, TORN);
        put(area, symbol);
    }
}

/// A view of an image through which code writes it.
pub(super) struct ImageMut<'a>(NonNull<u8>, PhantomData<&'a mut Symbol>);

impl ImageMut<'_> {
    /// # Safety
    ///
    /// While the view lives: valid area (C9), and no other writer (C11).
    pub(super) unsafe fn of(area: NonNull<u8>) -> Self {
        Self(area, PhantomData)
    }
    pub(super) fn set(&mut self, symbol: Symbol) {
        // SAFETY: valid area (C9) and no other writer (C11), by the caller of `of`, while the view lives.
        unsafe { put(self.0, symbol) }
    }
}
