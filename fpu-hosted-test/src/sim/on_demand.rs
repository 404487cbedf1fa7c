//! A simulated CPU with IA32_XFD: its tiles are disabled unless the context that its registers hold has room for them.
//!
//! The CPU is that of SDM vol. 1, 13.14. WRMSR refuses bits of components that cannot be disabled. An instruction that
//! uses a disabled component raises #NM, and the bits are in IA32_XFD_ERR. A save takes a disabled component for
//! an initial one. A restore raises #NM if it would load one, and brings it to its initial state if the image does not
//! have it. Reset clears both registers.

use super::{
    layout::{format_of, get, put, ALL, FORMAT, HEADER_WORDS, PRESENT, TILE},
    Injection, Interrupt, Registers, SimFpu, SimImage, SimImageMut, SimWords, AREA_ALIGN, AREA_LEN,
    BASE_LEN, LAYOUT,
};
use core::ptr::NonNull;
use fpu_core::{
    grow::{GrowFpu, NoRoom},
    observe::{Counters, Totals},
    verify::{CompareFpu, Difference},
    CpuLifecycle, IdleFpu, KernelUnits, Level, RawFpu, RestoreFault, TheBackend,
};
use std::{cell::Cell, rc::Rc};

/// What an area has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All but the tiles.
    Base,
    /// All components.
    Full,
}

const TILES: u64 = 1 << TILE;

impl Room {
    const fn places(self) -> u64 {
        match self {
            Self::Base => ALL & !TILES,
            Self::Full => ALL,
        }
    }
}

/// The vectors of #NM and #GP.
const NM: RestoreFault = RestoreFault(7);
const GP: RestoreFault = RestoreFault(13);

/// The registers of a CPU with IA32_XFD, and the backend that has areas without and with tiles.
pub struct XfdFpu {
    registers: SimFpu,
    xfd: Cell<u64>,
    xfd_err: Cell<u64>,
    /// What the backend takes IA32_XFD for; `None` after a power cycle.
    shadow: Cell<Option<u64>>,
    writes: Cell<u64>,
}

impl XfdFpu {
    fn new() -> Self {
        let cell = Cell::new;
        Self {
            registers: SimFpu::new(),
            xfd: cell(0),
            xfd_err: cell(0),
            shadow: Cell::new(None),
            writes: cell(0),
        }
    }
    /// Itself, as what contexts are made with.
    #[must_use]
    pub fn the_backend(&self) -> &TheBackend<Self> {
        // SAFETY: K1: the layout is the same constants for every value.
        unsafe { TheBackend::from_ref(self) }
    }
    /// The registers without what IA32_XFD allows.
    #[must_use]
    pub fn registers(&self) -> &SimFpu {
        &self.registers
    }
    /// What IA32_XFD holds.
    #[must_use]
    pub fn xfd(&self) -> u64 {
        self.xfd.get()
    }
    /// How often it was written.
    #[must_use]
    pub fn xfd_writes(&self) -> u64 {
        self.writes.get()
    }
    /// RDMSR of IA32_XFD_ERR, and a WRMSR of 0.
    pub fn take_xfd_err(&self) -> u64 {
        self.xfd_err.take()
    }
    /// WRMSR of IA32_XFD.
    ///
    /// # Errors
    ///
    /// #GP for bits of components that cannot be disabled.
    pub fn write_xfd(&self, value: u64) -> Result<(), RestoreFault> {
        self.registers.line.step();
        if value & !TILES != 0 {
            return Err(GP);
        }
        self.writes.set(self.writes.get() + 1);
        self.xfd.set(value);
        Ok(())
    }
    /// Code uses the first tile word.
    ///
    /// # Errors
    ///
    /// #NM: the tiles are disabled; the value is what IA32_XFD_ERR holds then.
    pub fn use_tile0(&self, value: u64) -> Result<(), u64> {
        match self.xfd.get() & TILES {
            0 => {
                self.registers.set_tile0(value);
                Ok(())
            }
            disabled => {
                self.xfd_err.set(disabled);
                Err(disabled)
            }
        }
    }
    /// The power goes and comes back.
    pub fn lose_power(&self) {
        self.registers.lose_power();
        self.xfd.set(0);
        self.xfd_err.set(0);
        self.shadow.set(None);
    }
    /// Does the backend take IA32_XFD for what it holds?
    #[must_use]
    pub fn shadow_is_right(&self) -> bool {
        self.shadow.get().map_or(true, |shadow| shadow == self.xfd.get())
    }

    /// Before a restore, and only if it differs.
    fn arm(&self, room: Room) -> Result<(), RestoreFault> {
        let xfd = ALL & !room.places();
        if self.shadow.get() != Some(xfd) {
            self.shadow.set(None);
            self.write_xfd(xfd)?;
            self.shadow.set(Some(xfd));
        }
        Ok(())
    }
    /// # Safety
    ///
    /// Valid area (C9), which holds an image.
    unsafe fn room_of(&self, area: NonNull<u8>) -> Room {
        // SAFETY: the caller's valid area (C9); the header is inside it.
        match unsafe { get(area, FORMAT) } & TILES {
            0 => Room::Base,
            _ => Room::Full,
        }
    }
    /// # Safety
    ///
    /// Valid area (C9), with that room.
    unsafe fn write_header(&self, area: NonNull<u8>, room: Room, present: u64) {
        // SAFETY: the caller's valid area (C9); the header is inside it.
        unsafe {
            put(area, PRESENT, present & room.places());
            put(area, FORMAT, format_of(room.places()));
            (2..HEADER_WORDS).for_each(|reserved| put(area, reserved, 0));
        }
    }
    /// # Safety
    ///
    /// Valid area (C9) of both, with room for `words`.
    unsafe fn copy(&self, from: NonNull<u8>, to: NonNull<u8>, words: usize) {
        for word in HEADER_WORDS..words {
            // SAFETY: the caller's valid area (C9) of both.
            unsafe { put(to, word, get(from, word)) };
        }
    }
}

// SAFETY: B1: constants, and the places of the tiles are used only where the header says that there are any. B2, B3: what
// an area has no place for is disabled while the registers are its own, and so initial; a restore is of all components.
// B4: what the CPU refuses is an error. B5: no image has a component without a place. B6, B7: those of `SimFpu`.
unsafe impl RawFpu for XfdFpu {
    type Image<'a> = SimImage<'a>;
    type ImageMut<'a> = SimImageMut<'a>;

    fn area_len(&self) -> usize {
        BASE_LEN
    }
    unsafe fn image_len(&self, area: NonNull<u8>) -> usize {
        // SAFETY: the caller's valid area (C9).
        self.room_len(unsafe { self.room_of(area) })
    }
    fn area_align(&self) -> usize {
        AREA_ALIGN
    }
    unsafe fn write_initial(&self, area: NonNull<u8>) {
        self.registers.line.step();
        // SAFETY: the caller's valid area (C9).
        unsafe { self.write_header(area, Room::Base, 0) };
        self.registers.line.step();
    }
    unsafe fn save(&self, area: NonNull<u8>) {
        // SAFETY: the caller's valid area (C9), with that room.
        unsafe { self.registers.save_these(area, self.room_of(area).places(), self.xfd.get()) }
    }
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        // SAFETY: the caller's valid area (C9).
        let (room, present) = unsafe { (self.room_of(area), get(area, PRESENT)) };
        self.arm(room)?;
        if present & self.xfd.get() != 0 {
            self.xfd_err.set(present & self.xfd.get());
            return Err(NM);
        }
        // SAFETY: the caller's valid area (C9), with that room.
        unsafe { self.registers.restore_these(area, room.places()) }
    }
    unsafe fn adopt(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        // SAFETY: the caller's valid area (C9).
        self.arm(unsafe { self.room_of(area) })
    }
    unsafe fn kernel_defaults(&self, units: KernelUnits) {
        // SAFETY: the caller's registers free (C10).
        unsafe { self.registers.kernel_defaults(units) }
    }
    unsafe fn section_end(&self, units: KernelUnits) {
        // SAFETY: the caller's registers free (C10).
        unsafe { self.registers.section_end(units) }
    }
    unsafe fn copy_for_child(&self, from: NonNull<u8>, to: NonNull<u8>) {
        self.registers.line.step();
        let inherited = LAYOUT.iter().enumerate().filter(|(_, component)| component.inherited);
        let inherited = inherited.fold(0, |set, (index, _)| set | 1 << index);
        // SAFETY: the caller's valid area (C9) of both.
        unsafe {
            self.copy(from, to, BASE_LEN / 8);
            self.write_header(to, Room::Base, get(from, PRESENT) & inherited);
        }
        self.registers.line.step();
    }
    unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> SimImage<'a> {
        SimImage::new(area, None)
    }
    unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> SimImageMut<'a> {
        SimImageMut::new(SimImage::new(area, None))
    }
}

// SAFETY: B13: the header says what places there are, and no save or write changes that. B14: the header and all bytes of
// both rooms are copied. B15: a restore and `adopt` disable what the area has no place for.
unsafe impl GrowFpu for XfdFpu {
    type Room = Room;
    fn room_len(&self, room: Room) -> usize {
        match room {
            Room::Base => BASE_LEN,
            Room::Full => AREA_LEN,
        }
    }
    unsafe fn room(&self, area: NonNull<u8>) -> Room {
        // SAFETY: the caller's valid area (C9).
        unsafe { self.room_of(area) }
    }
    unsafe fn move_image(
        &self,
        from: NonNull<u8>,
        to: NonNull<u8>,
        room: Room,
    ) -> Result<(), NoRoom> {
        self.registers.line.step();
        // SAFETY: the caller's valid area (C9) of both; the shorter of the two is copied.
        unsafe {
            let (present, had) = (get(from, PRESENT), self.room_of(from));
            if present & !room.places() != 0 {
                return Err(NoRoom);
            }
            self.copy(from, to, self.room_len(had).min(self.room_len(room)) / 8);
            self.registers.line.step();
            self.write_header(to, room, present);
        }
        self.registers.line.step();
        Ok(())
    }
}

// SAFETY: B8 to B10: those of `SimFpu`, which looks at components that are present.
unsafe impl CompareFpu for XfdFpu {
    unsafe fn same_state(&self, one: NonNull<u8>, other: NonNull<u8>) -> Result<(), Difference> {
        // SAFETY: the caller's valid area (C9) and no other writer (C11).
        unsafe { self.registers.same_state(one, other) }
    }
}

// SAFETY: B11, B12: those of `SimFpu`; TILERELEASE initialises tiles, disabled or not.
unsafe impl IdleFpu for XfdFpu {
    unsafe fn keeps_awake(&self) -> bool {
        // SAFETY: the caller's registers free (C10).
        unsafe { self.registers.keeps_awake() }
    }
    unsafe fn release(&self) {
        // SAFETY: the caller's registers free (C10).
        unsafe { self.registers.release() }
    }
}

/// A simulated CPU with IA32_XFD, and proof of holding it with interrupts off.
///
/// ```
/// use fpu_core::TaskFpu;
/// use fpu_hosted_test::sim::{XfdCpu, AREA_LEN};
/// let mut cpu = XfdCpu::online(0);
/// let task = TaskFpu::new(cpu.fpu().the_backend(), fpu_core::Area::<AREA_LEN>::new())?;
/// drop(task.switch_return(&mut cpu)?);
/// assert_eq!(cpu.use_tile0(1), Err(1 << 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct XfdCpu {
    fpu: XfdFpu,
    words: SimWords,
    counters: Counters,
}

/// Preemption is off on one, interrupts are on.
pub struct XfdPin<'c>(pub &'c XfdCpu, pub Level);

impl XfdCpu {
    /// One that is online, with a number that the caller gives to no other.
    ///
    /// # Panics
    ///
    /// If the number is not below [`MAX_CPUS`](fpu_core::MAX_CPUS).
    #[must_use]
    pub fn online(number: u32) -> Self {
        let fpu = XfdFpu::new();
        let words = SimWords::on(Rc::clone(&fpu.registers.line));
        let mut cpu = Self { fpu, words, counters: Counters::new() };
        // SAFETY: K15: by the caller; the registers are simulated. K16: the words are new.
        if let Err(why) = unsafe { cpu.fpu_online(number) } {
            panic!("CPU {number}: {why}");
        }
        cpu
    }
    /// The registers.
    #[must_use]
    pub fn fpu(&self) -> &XfdFpu {
        &self.fpu
    }
    /// What has happened so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }
    /// As for [`XfdFpu::use_tile0`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn use_tile0(&self, value: u64) -> Result<(), u64> {
        self.fpu.use_tile0(value)
    }
    /// One register as an example of those that every area has.
    #[must_use]
    pub fn avx0(&self) -> u64 {
        self.fpu.registers.avx0()
    }
    /// Code writes that register.
    pub fn set_avx0(&self, value: u64) {
        self.fpu.registers.set_avx0(value);
    }
    /// All registers, tiles among them.
    #[must_use]
    pub fn registers(&self) -> Registers {
        self.fpu.registers.registers()
    }
    /// Runs `operation` with an interrupt at its step `at`, as [`SimCpu::inject`](super::SimCpu::inject) does.
    pub fn inject<R>(
        &self,
        at: u64,
        handler: &dyn Fn(),
        operation: impl FnOnce() -> R,
    ) -> (R, Injection) {
        self.fpu.registers.line.inject(at, Interrupt::Maskable, handler, operation)
    }
}

fpu_core::witness! {
    // SAFETY: K2: the value cannot be shared. K3: its own words. K4: nothing has to be enabled. K5: by the driver of the
    // simulation, with which a violation gives wrong values and nothing worse. K6: no interrupt has this value. K7: it
    // counts. K8: an interrupt has no access to it. K9: simulated registers.
    unsafe impl Pinned + Exclusive + SoftFloat for XfdCpu {
        backend: XfdFpu = |cpu| cpu.fpu.the_backend(),
        words: SimWords = |cpu| &cpu.words,
        observe: |cpu, event| cpu.counters.record(event.kind),
    }
}
fpu_core::witness! {
    // SAFETY: K2 to K7, K9: as for `XfdCpu`; the level is that of the code.
    unsafe impl Pinned + SoftFloat for XfdPin<'_> {
        backend: XfdFpu = |pin| pin.0.fpu.the_backend(),
        words: SimWords = |pin| &pin.0.words,
        level: |pin| pin.1,
        observe: |pin, event| pin.0.counters.record(event.kind),
    }
}
