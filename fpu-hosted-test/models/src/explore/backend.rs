//! The symbolic backend: registers and images hold one symbol each.
//!
//! A symbol stands for the whole contents. A save that something interrupts, or a restore, leaves a symbol that
//! nobody expects, as torn registers would. An image has a symbol and, behind it, whether it is present: an image of
//! the initial state is absent, over whatever bytes were there (the initial optimisation).

use core::ptr::NonNull;
use std::cell::Cell;

use fpu_core::{
    verify::{CompareFpu, Difference},
    CpuFpu, CpuWords, IdleFpu, KernelUnits, Level, RawFpu, RestoreFault, StepsFpu, TheBackend,
};

use super::{line::Line, words::goes_back};

/// The contents of registers or of an image.
pub(super) type Symbol = u32;
/// The initial state.
pub(super) const INITIAL: Symbol = 1;
/// What kernel code finds in the registers at the beginning of a section.
pub(super) const DEFAULTS: Symbol = 2;
/// What kernel code leaves there.
pub(super) const KERNEL: Symbol = 3;
/// Neither one thing nor the other: torn, undefined, lost.
pub(super) const TORN: Symbol = 4;
/// The gate of a CPU that is open.
const GATE_OPEN: u64 = 1;
/// The first that a context can have.
pub(super) const FIRST: Symbol = 16;

/// Memory for one image.
pub(super) type Area = fpu_core::Area<8>;
/// A context over it.
pub(super) type Context = fpu_core::TaskFpu<Symbolic, Area>;

/// One CPU's registers.
pub(super) struct Symbolic {
    pub(super) line: &'static Line,
    pub(super) holds: Cell<Symbol>,
    /// XRSTOR_INFO: the address of the last restore, while nothing has changed the registers since.
    pub(super) unmodified: Cell<usize>,
    /// Counts changes, so that a save or restore sees one that comes in between.
    changes: Cell<u32>,
    pub(super) fails: Cell<bool>,
    /// IA32_XFD: are the registers disabled that only some areas have room for?
    pub(super) disables: Cell<bool>,
    /// With what a section began that has not ended.
    pub(super) section: Cell<Option<KernelUnits>>,
    /// Saves and restores of the operation.
    pub(super) saves: Cell<u16>,
    pub(super) restores: Cell<u16>,
}

impl Symbolic {
    /// Itself, as what contexts are made with.
    pub(super) fn the_backend(&self) -> &TheBackend<Self> {
        // SAFETY: K1: the layout is the same constants for every value.
        unsafe { TheBackend::from_ref(self) }
    }
    pub(super) fn new(line: &'static Line) -> Self {
        let cell = Cell::new;
        Self {
            line,
            holds: cell(TORN),
            unmodified: Cell::new(0),
            changes: cell(0),
            fails: Cell::new(false),
            disables: Cell::new(true),
            section: Cell::new(None),
            saves: Cell::new(0),
            restores: Cell::new(0),
        }
    }
    /// Code changes the registers.
    pub(super) fn change(&self, to: Symbol) {
        self.holds.set(to);
        self.unmodified.set(0);
        self.changes.set(self.changes.get().wrapping_add(1));
    }
}

/// The two halves of an image: its bytes, and whether they count.
#[repr(C)]
struct Image {
    bytes: Symbol,
    present: u16,
    /// The area has more room than the least.
    room: u16,
}

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
/// What one image holds into another area, over old bytes.
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
/// What is initial is left out, and the old bytes stay.
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
/// An image with that symbol, and another context's bytes where it is absent.
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

/// A view of an image through which it is written.
pub(super) struct ImageMut<'a>(NonNull<u8>, std::marker::PhantomData<&'a mut Symbol>);

impl ImageMut<'_> {
    pub(super) fn set(&mut self, symbol: Symbol) {
        // SAFETY: valid area (C9) and no other writer (C11), by the caller of `image_mut`, while the view lives.
        unsafe { put(self.0, symbol) }
    }
}

// SAFETY: B1: constants; an image is 8 bytes. B2, B3: the symbol is all there is, and absent means initial. B4: a failed restore says
// so and reads only. B5: only `fails` makes one fail. B6: cells. B7: a save is left out only if nothing has
// changed the registers since they were loaded from that very address.
unsafe impl RawFpu for Symbolic {
    type Image<'a> = Symbol;
    type ImageMut<'a> = ImageMut<'a>;

    fn area_len(&self) -> usize {
        8
    }
    fn area_align(&self) -> usize {
        8
    }
    unsafe fn write_initial(&self, area: NonNull<u8>) {
        self.line.step();
        // SAFETY: the caller's valid area (C9).
        unsafe {
            put(area, INITIAL);
            set_room(area, false);
        }
        self.line.step();
    }
    unsafe fn save(&self, area: NonNull<u8>) {
        self.line.step();
        self.saves.set(self.saves.get() + 1);
        if self.unmodified.get() == area.as_ptr() as usize {
            return self.line.step();
        }
        let (symbol, changes) = (self.holds.get(), self.changes.get());
        self.line.step();
        let whole = self.changes.get() == changes;
        // SAFETY: the caller's valid area (C9).
        unsafe { put(area, if whole { symbol } else { TORN }) };
        self.line.step();
    }
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        self.line.step();
        self.restores.set(self.restores.get() + 1);
        // SAFETY: the caller's valid area (C9).
        let symbol = unsafe { get(area) };
        // SAFETY: the caller's valid area (C9).
        self.disables.set(!unsafe { has_room(area) });
        self.change(TORN);
        let changes = self.changes.get();
        self.line.step();
        if self.fails.take() {
            return Err(RestoreFault(14));
        }
        if self.changes.get() == changes {
            self.change(symbol);
            self.unmodified.set(area.as_ptr() as usize);
        }
        self.line.step();
        Ok(())
    }
    unsafe fn adopt(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        // SAFETY: the caller's valid area (C9).
        self.disables.set(!unsafe { has_room(area) });
        Ok(())
    }
    unsafe fn kernel_defaults(&self, units: KernelUnits) {
        self.line.step();
        self.section.set(Some(units));
        self.change(DEFAULTS);
        self.line.step();
    }
    unsafe fn section_end(&self, units: KernelUnits) {
        self.line.step();
        let cpus = self.line.machine().into_iter().flat_map(|machine| &machine.cpus);
        let own = cpus.into_iter().find(|cpu| std::ptr::eq(&cpu.registers, self));
        let open = own.is_some_and(|cpu| cpu.words.fpu.gate() == GATE_OPEN);
        if open || self.section.take() != Some(units) {
            self.line.report(|| String::from("the end of a section is told late, or of another"));
        }
        self.change(TORN);
        self.line.step();
    }
    unsafe fn copy_for_child(&self, from: NonNull<u8>, to: NonNull<u8>) {
        self.line.step();
        // SAFETY: the caller's valid area (C9) of both.
        unsafe { move_to(from, to, false) };
        self.line.step();
    }
    unsafe fn image(&self, area: NonNull<u8>) -> Symbol {
        // SAFETY: the caller's valid area (C9) and no other writer (C11).
        unsafe { get(area) }
    }
    unsafe fn image_mut(&self, area: NonNull<u8>) -> ImageMut<'_> {
        ImageMut(area, std::marker::PhantomData)
    }
}

// SAFETY: B16: what the operations execute are these two.
unsafe impl StepsFpu for Symbolic {}

// SAFETY: B8: reads. B9, B10: the symbol is the state.
unsafe impl CompareFpu for Symbolic {
    unsafe fn same_state(&self, one: NonNull<u8>, other: NonNull<u8>) -> Result<(), Difference> {
        self.line.step();
        // SAFETY: the caller's valid area (C9) of both.
        let same = unsafe { get(one) == get(other) };
        self.line.step();
        same.then_some(()).ok_or(Difference { component: 0, offset: 0 })
    }
}
// SAFETY: B11: what is not initial is taken to have such registers. B12: that no task can hold what is left is more
// than the duty asks for; code that trusts the registers then is found out.
unsafe impl IdleFpu for Symbolic {
    unsafe fn keeps_awake(&self) -> bool {
        self.line.step();
        self.holds.get() != INITIAL
    }
    unsafe fn release(&self) {
        self.line.step();
        self.change(TORN);
        self.line.step();
    }
}

/// The core's own per-CPU words; every access is a step.
pub(super) struct Words {
    pub(super) fpu: CpuFpu,
    pub(super) line: &'static Line,
    /// What the registers held when an operation last opened the CPU; an interrupt's sections do not count.
    pub(super) opened: Cell<Option<Symbol>>,
}

// SAFETY: K13, K14: those of `CpuFpu`.
unsafe impl CpuWords for Words {
    fn resident(&self) -> u64 {
        self.line.step();
        self.fpu.resident()
    }
    unsafe fn set_resident(&self, word: u64) {
        self.line.step();
        let old = self.fpu.resident();
        // What lets an old stamp count as "never again".
        if goes_back(old, word) {
            self.line.report(|| format!("a stamp goes back: {old:#x} becomes {word:#x}"));
        }
        // SAFETY: the caller's.
        unsafe { self.fpu.set_resident(word) }
    }
    fn gate(&self) -> u64 {
        self.line.step();
        self.fpu.gate()
    }
    unsafe fn set_gate(&self, word: u64) {
        self.line.step();
        if word == GATE_OPEN && !self.line.in_interrupt() {
            let cpus = self.line.machine().into_iter().flat_map(|machine| &machine.cpus);
            let own = cpus.into_iter().find(|cpu| std::ptr::eq(&cpu.words, self));
            self.opened.set(own.map(|cpu| cpu.registers.holds.get()));
        }
        // SAFETY: the caller's.
        unsafe { self.fpu.set_gate(word) }
    }
}

/// One CPU.
pub(super) struct Cpu {
    pub(super) words: Words,
    pub(super) registers: Symbolic,
    pub(super) current: Cell<Option<usize>>,
}

/// Preemption is off.
pub(super) struct Pin<'c>(pub(super) &'c Cpu, pub(super) Level);
/// Interrupts are off.
pub(super) struct Off<'c>(Pin<'c>, bool);

impl<'c> Off<'c> {
    pub(super) fn new(cpu: &'c Cpu) -> Self {
        Self(Pin(cpu, Level::Task), cpu.words.line.mask())
    }
}
impl Drop for Off<'_> {
    fn drop(&mut self) {
        self.0 .0.words.line.unmask(self.1);
    }
}

fpu_core::witness! {
    // SAFETY: K2: one thread plays all CPUs, one operation at a time. K3: the CPU's own. K4: nothing to enable. K5:
    // the search tries only what a right kernel may do; a violation gives wrong symbols and nothing worse. K6: the
    // level is where the interrupt says it runs. K7: it looks only. K9: symbols change only where an
    // operation of the search says so.
    unsafe impl Pinned + SoftFloat for Pin<'_> {
        backend: Symbolic = |cpu| cpu.0.registers.the_backend(),
        words: Words = |cpu| &cpu.0.words,
        level: |cpu| cpu.1,
        observe: |cpu, event| {
            cpu.0.words.line.step();
            if let Some(machine) = cpu.0.words.line.machine() {
                machine.observed(cpu.0, event);
            }
        },
    }
}
fpu_core::witness! {
    // SAFETY: K2-K7, K9: those of `Pin`. K8: the line is masked while the value lives.
    unsafe impl Pinned + Exclusive + SoftFloat for Off<'_> {
        backend: Symbolic = |cpu| cpu.0.backend(),
        words: Words = |cpu| cpu.0.words(),
        observe: |cpu, event| cpu.0.observe(event),
    }
}

/// A task is stopped: it is current nowhere.
pub(super) struct Proof<'t>(pub(super) &'t Symbolic, pub(super) &'t Context);

fpu_core::witness! {
    // SAFETY: K10, K11: the search stops only tasks that are current nowhere, one at a time. K12: a field.
    unsafe impl Stopped for Proof<'_> {
        backend: Symbolic = |proof| proof.0.the_backend(),
        context: |proof| proof.1.context(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fpu_core::SaveArea;

    /// A save leaves out what is initial; the old bytes stay, and no context finds them.
    #[test]
    fn an_initial_image_is_absent_over_old_bytes() {
        let cpu = Symbolic::new(Box::leak(Box::default()));
        let area = Area::new();
        // SAFETY: C9: an area of 8 bytes of our own. C10: symbols.
        unsafe {
            let at = area.base();
            cpu.change(90);
            cpu.save(at);
            cpu.change(INITIAL);
            cpu.save(at);
            let bytes = at.cast::<Symbol>().as_ptr();
            assert_eq!((bytes.read(), bytes.add(1).read(), cpu.image(at)), (90, 0, INITIAL));
            cpu.change(91);
            assert_eq!(cpu.restore(at), Ok(()));
            assert_eq!(cpu.holds.get(), INITIAL);
            cpu.image_mut(at).set(92);
            assert_eq!((bytes.read(), cpu.image(at)), (92, 92));
        }
    }
}
