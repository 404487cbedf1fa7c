//! The backend of the models: a CPU's ghost registers, and images that loom watches.

use fpu_core_loom::{
    grow::{GrowFpu, NoRoom},
    verify::{CompareFpu, Difference},
    IdleFpu, KernelUnits, RawFpu, RestoreFault, SaveArea, StepsFpu, TheBackend,
};
use loom::cell::UnsafeCell;
use std::{
    cell::Cell,
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{
    fault::{broken, Backend},
    ghost::{Regs, INITIAL, KERNEL_DEFAULTS, UNDEFINED},
    irq::tick,
};

/// One image. Loom reports an access that is not ordered with another thread's write.
#[derive(Debug)]
pub struct Image {
    low: UnsafeCell<u64>,
    /// A save that finds the component initial leaves this as it was, as the initial optimisation does.
    high: UnsafeCell<u64>,
    high_present: UnsafeCell<bool>,
    /// It has more room than the least. No loom's atomic, so that no model explores more because of it.
    room: AtomicBool,
}

impl Image {
    /// Zeroed memory, as a kernel hands it out.
    #[must_use]
    pub fn new() -> Self {
        Self {
            low: UnsafeCell::new(0),
            high: UnsafeCell::new(0),
            high_present: UnsafeCell::new(false),
            room: AtomicBool::new(false),
        }
    }
    /// What the image says.
    #[must_use]
    pub fn get(&self) -> Regs {
        let low = read(&self.low);
        let present = read(&self.high_present);
        Regs { low, high: if present { read(&self.high) } else { INITIAL } }
    }
    fn set_low(&self, low: u64) {
        write(&self.low, low);
    }
    fn set_high(&self, high: u64) {
        write(&self.high_present, high != INITIAL);
        if high != INITIAL {
            write(&self.high, high);
        }
    }
    fn set(&self, regs: Regs) {
        self.set_low(regs.low);
        self.set_high(regs.high);
    }
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

fn read<T: Copy>(cell: &UnsafeCell<T>) -> T {
    // SAFETY: loom has just checked that no write is concurrent.
    cell.with(|p| unsafe { *p })
}
fn write<T>(cell: &UnsafeCell<T>, value: T) {
    // SAFETY: loom has just checked that no access is concurrent.
    cell.with_mut(|p| unsafe { *p = value })
}

// SAFETY: K17: the bytes are the value itself, all behind `UnsafeCell`. K18: the owner of the value is
// its one user; the backend alone casts the pointer back.
unsafe impl SaveArea for Image {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(self).cast()
    }
    fn len(&self) -> usize {
        size_of::<Self>()
    }
    fn align(&self) -> usize {
        align_of::<Self>()
    }
}

/// A view of an image through which code writes it.
#[derive(Debug)]
pub struct ImageMut<'a>(&'a Image);

impl ImageMut<'_> {
    /// Writes the state that belongs to `value`.
    pub fn write(&mut self, value: u64) {
        self.0.set(Regs::of(value));
    }
    /// Takes over a whole state that comes from elsewhere (a signal frame, a debugger's buffer).
    pub fn replace_with(&mut self, regs: Regs) {
        self.0.set_low(regs.low);
        if !broken(Backend::ReplaceOmitsComponent) {
            self.0.set_high(regs.high);
        }
    }
    /// Takes over what another image says.
    pub fn copy_from(&mut self, other: &Image) {
        let Regs { low, high } = other.get();
        let high = if broken(Backend::CopyLoadsOldBytes) { read(&other.high) } else { high };
        self.0.set(Regs { low, high });
    }
}

/// One CPU's registers. Each ghost CPU has its own value; the layout is the same for all.
#[derive(Debug)]
pub struct Registers {
    now: Cell<Regs>,
    /// The area of the last restore, while nothing has changed the registers since (B7).
    unmodified: Cell<Option<NonNull<u8>>>,
    will_fail: Cell<bool>,
    /// IA32_XFD: whether the registers are disabled that only some areas have room for.
    disables: Cell<bool>,
    /// `unchanged` compares, and does not always say no.
    tells: Cell<bool>,
}

impl Registers {
    /// Itself, as what contexts are made with.
    #[must_use]
    pub fn the_backend(&self) -> &TheBackend<Self> {
        // SAFETY: K1: the layout is the same constants for every value.
        unsafe { TheBackend::from_ref(self) }
    }
    /// As they are after reset.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: Cell::new(Regs::of(INITIAL)),
            unmodified: Cell::new(None),
            will_fail: Cell::new(false),
            disables: Cell::new(true),
            tells: Cell::new(false),
        }
    }
    /// From now on the backend says so where an area holds what the registers hold.
    pub fn tell_unchanged(&self) {
        self.tells.set(true);
    }
    /// What they hold.
    #[must_use]
    pub fn get(&self) -> Regs {
        self.now.get()
    }
    /// Code changes all of them.
    pub fn fill(&self, value: u64) {
        self.now.set(Regs::of(value));
        self.unmodified.set(None);
    }
    /// Code changes some of them.
    pub fn set(&self, registers: Regs) {
        self.now.set(registers);
        self.unmodified.set(None);
    }
    /// Tells whether the registers are disabled that only some areas have room for.
    #[must_use]
    pub fn disables(&self) -> bool {
        self.disables.get()
    }
    /// The next restore fails half way.
    pub fn fail_next(&self) {
        self.will_fail.set(true);
    }
}

impl Default for Registers {
    fn default() -> Self {
        Self::new()
    }
}

/// # Safety
///
/// Valid area (C9) of [`RawFpu`].
unsafe fn image_at<'a>(area: NonNull<u8>) -> &'a Image {
    // SAFETY: C9: every area of the models is an `Image`.
    unsafe { area.cast().as_ref() }
}

// SAFETY: B1: the length and alignment of `Image`. B2, B3: both parts are moved. B4: a failed restore
// says so, and reads only. B5: only `fail_next` makes one fail. B6: loom's checks panic, which is what
// the models are for. B7: `save` leaves a save out only if nothing has changed the registers since they were
// loaded from that very area. B17: both parts are compared. The seeded faults break these on purpose.
unsafe impl RawFpu for Registers {
    type Image<'a> = &'a Image;
    type ImageMut<'a> = ImageMut<'a>;

    fn area_len(&self) -> usize {
        size_of::<Image>()
    }
    fn area_align(&self) -> usize {
        align_of::<Image>()
    }
    unsafe fn write_initial(&self, area: NonNull<u8>) {
        // SAFETY: valid area (C9) by the caller.
        let image = unsafe { image_at(area) };
        image.room.store(false, Relaxed);
        image.set_low(INITIAL);
        if !broken(Backend::InitialKeepsOldBytes) {
            image.set_high(INITIAL);
        }
    }
    unsafe fn save(&self, area: NonNull<u8>) {
        tick();
        if self.unmodified.get() == Some(area) {
            return; // The modified optimisation.
        }
        // SAFETY: valid area (C9) by the caller.
        let image = unsafe { image_at(area) };
        image.set_low(self.now.get().low);
        tick();
        if !broken(Backend::SaveOmitsComponent) {
            image.set_high(self.now.get().high);
        }
        if broken(Backend::SaveClobbers) {
            self.fill(UNDEFINED);
        }
        tick();
    }
    unsafe fn unchanged(&self, area: NonNull<u8>) -> bool {
        if !self.tells.get() {
            return false;
        }
        tick();
        // SAFETY: valid area (C9) by the caller.
        let Regs { low, high } = unsafe { image_at(area) }.get();
        let now = self.now.get();
        (low, high) == (now.low, now.high) || broken(Backend::UnchangedGuesses)
    }
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        tick();
        // SAFETY: valid area (C9) by the caller.
        let image = unsafe { image_at(area) };
        let Regs { low, high } = image.get();
        self.disables.set(!image.room.load(Relaxed));
        self.unmodified.set(None);
        if self.will_fail.replace(false) {
            self.now.set(Regs { low, high: UNDEFINED });
            if broken(Backend::FailedRestoreWritesImage) {
                image.set_high(UNDEFINED);
            }
            return if broken(Backend::RestoreHidesFailure) {
                Ok(())
            } else {
                Err(RestoreFault(14))
            };
        }
        self.now.set(Regs { low, ..self.now.get() });
        tick();
        let absent = high == INITIAL;
        if !(absent && broken(Backend::RestoreLeavesResidue)) {
            self.now.set(Regs { low, high });
        }
        self.unmodified.set(Some(area));
        tick();
        Ok(())
    }
    unsafe fn kernel_defaults(&self, _: KernelUnits) {
        if !broken(Backend::KernelDefaultsMissing) {
            self.fill(KERNEL_DEFAULTS);
        }
    }
    unsafe fn section_end(&self, _: KernelUnits) {
        tick();
        self.fill(KERNEL_DEFAULTS);
        tick();
    }
    unsafe fn copy_for_child(&self, from: NonNull<u8>, to: NonNull<u8>) {
        // SAFETY: valid area (C9) of both by the caller.
        let (from, to) = unsafe { (image_at(from), image_at(to)) };
        let Regs { low, high } = from.get();
        to.room.store(false, Relaxed);
        to.set(Regs { low, high: if broken(Backend::ChildCopyOmits) { INITIAL } else { high } });
    }
    unsafe fn image(&self, area: NonNull<u8>) -> &Image {
        // SAFETY: valid area (C9) by the caller.
        unsafe { image_at(area) }
    }
    unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> ImageMut<'a> {
        // SAFETY: valid area (C9) by the caller.
        ImageMut(unsafe { image_at(area) })
    }
}

// SAFETY: B13: every area is an `Image`. B14: both parts are moved. B15: a restore notes what the area has room for; no
// model adopts registers for an area that has grown.
unsafe impl GrowFpu for Registers {
    type Room = bool;
    fn room_len(&self, _: bool) -> usize {
        size_of::<Image>()
    }
    unsafe fn room(&self, area: NonNull<u8>) -> bool {
        // SAFETY: valid area (C9) by the caller.
        unsafe { image_at(area) }.room.load(Relaxed)
    }
    unsafe fn move_image(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        room: bool,
    ) -> Result<(), NoRoom> {
        // SAFETY: valid area (C9) of both by the caller.
        let (from, to) = unsafe { (image_at(from), image_at(to)) };
        to.set(from.get());
        to.room.store(room, Relaxed);
        Ok(())
    }
}

// SAFETY: B16: what the models' kernel executes are these two.
unsafe impl StepsFpu for Registers {}

// SAFETY: B8: both are read. B9, B10: what each of the two parts means is compared. The seeded fault breaks B9 (equal
// means equal).
unsafe impl CompareFpu for Registers {
    unsafe fn same_state(&self, one: NonNull<u8>, other: NonNull<u8>) -> Result<(), Difference> {
        tick();
        // SAFETY: valid area (C9) of both by the caller.
        let (one, other) = unsafe { (image_at(one).get(), image_at(other).get()) };
        tick();
        if one.low != other.low {
            return Err(Difference { component: 0, offset: 0 });
        }
        if one.high != other.high && !broken(Backend::CompareOmitsComponent) {
            return Err(Difference { component: 1, offset: 8 });
        }
        Ok(())
    }
}

// SAFETY: B11: `high` is not in use exactly if it is initial. B12: it becomes initial, and `low` stays.
unsafe impl IdleFpu for Registers {
    unsafe fn keeps_awake(&self) -> bool {
        tick();
        self.now.get().high != INITIAL
    }
    unsafe fn release(&self) {
        tick();
        self.set(Regs { high: INITIAL, ..self.now.get() });
        tick();
    }
}
