//! The simulated CPUs: registers that hold a symbol, the core's words, and what a kernel proves about them.
//!
//! A save or a restore that something interrupts leaves a symbol that no context expects, as torn registers would. A
//! CPU knows the line of its machine, where each of its accesses is a step; it knows no other CPU and no context.

use core::{ptr::NonNull, sync::atomic::AtomicU64};
use std::cell::Cell;

use fpu_core::{
    verify::{CompareFpu, Difference},
    BoundCpu, BoundSlot, CpuFpu, CpuWords, IdleFpu, KernelUnits, Level, RawFpu, RestoreFault,
    StepsFpu, TheBackend,
};

use super::{
    image::{
        get, has_room, move_to, put, set_room, Area, ImageMut, Symbol, DEFAULTS, INITIAL, TORN,
    },
    line::Line,
    words::{goes_back, GATE_OPEN, OPEN},
};

/// A context over memory for one image.
pub(super) type Context = fpu_core::TaskFpu<Symbolic, Area>;

/// The contexts that a CPU owns.
pub(super) type Owned = BoundCpu<Symbolic, Area, [BoundSlot<Symbolic, Area>; 2]>;

/// Where the image of a context is: the area is inline, the only field but the word, and aligned to 64: the last 64 bytes.
pub(super) fn area_of(context: usize) -> usize {
    context.wrapping_add(size_of::<Context>() - size_of::<Area>())
}

/// One CPU's registers.
pub(super) struct Symbolic {
    pub(super) line: &'static Line,
    pub(super) holds: Cell<Symbol>,
    /// XRSTOR_INFO: the address of the last restore, while nothing has changed the registers since.
    pub(super) unmodified: Cell<usize>,
    /// Counts changes, so that a save or a restore notices one that comes in between.
    changes: Cell<u32>,
    /// The next restore fails.
    pub(super) fails: Cell<bool>,
    /// IA32_XFD: whether the registers are disabled that only some areas have room for.
    pub(super) disables: Cell<bool>,
    /// The units with which a section began that has not ended.
    pub(super) section: Cell<Option<KernelUnits>>,
    /// Witness and backend tell whether memory holds what the registers hold, and do not always say no.
    pub(super) tells: Cell<bool>,
    /// What they said last, until the core tells of what it has done.
    pub(super) said: Cell<Option<bool>>,
    /// Saves by assembly of the operation, of which the core has not told yet.
    pub(super) by_steps: Cell<u16>,
    /// Saves of the operation, and saves that were left out.
    pub(super) saves: Cell<u16>,
    /// Restores of the operation.
    pub(super) restores: Cell<u16>,
    /// The CPU's words: the end of a section must come while the CPU is closed.
    words: &'static CpuFpu,
}

impl Symbolic {
    /// Itself, as what contexts are made with.
    pub(super) fn the_backend(&self) -> &TheBackend<Self> {
        // SAFETY: K1: the layout is the same constants for every value.
        unsafe { TheBackend::from_ref(self) }
    }
    fn new(line: &'static Line, words: &'static CpuFpu) -> Self {
        Self {
            line,
            holds: Cell::new(TORN),
            unmodified: Cell::new(0),
            changes: Cell::new(0),
            fails: Cell::new(false),
            disables: Cell::new(true),
            section: Cell::new(None),
            tells: Cell::new(false),
            said: Cell::new(None),
            by_steps: Cell::new(0),
            saves: Cell::new(0),
            restores: Cell::new(0),
            words,
        }
    }
    /// A save that assembly executes, about which nobody is asked.
    ///
    /// # Safety
    ///
    /// As for [`RawFpu::save`].
    pub(super) unsafe fn save_by_steps(&self, area: NonNull<u8>) {
        // SAFETY: the caller's valid area (C9) and registers free (C10).
        unsafe { self.save(area) };
        self.by_steps.set(self.by_steps.get() + 1);
    }
    /// What a witness knows: nothing has changed the registers since they were loaded from that context's area.
    fn untouched(&self, context: usize) -> bool {
        let knows = self.tells.get() && self.unmodified.get() == area_of(context);
        if knows {
            self.left_out();
        }
        knows
    }
    fn left_out(&self) {
        self.said.set(Some(true));
        self.saves.set(self.saves.get() + 1);
    }
    /// Code changes the registers.
    pub(super) fn change(&self, to: Symbol) {
        self.holds.set(to);
        self.unmodified.set(0);
        self.changes.set(self.changes.get().wrapping_add(1));
    }
}

// SAFETY: B1: constants; an image is 8 bytes. B2, B3: the symbol is all there is, and absent means initial. B4: a failed
// restore says so and reads only. B5: only `fails` makes one fail. B6: cells. B7: `save` leaves a save out only if nothing
// has changed the registers since they were loaded from that very address. B17: compares what they hold.
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
    unsafe fn unchanged(&self, area: NonNull<u8>) -> bool {
        self.line.step();
        // SAFETY: the caller's valid area (C9).
        let same = self.tells.get() && unsafe { get(area) } == self.holds.get();
        self.said.set(Some(false));
        if same {
            self.left_out();
        }
        self.line.step();
        same
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
        let open = self.words.gate() == GATE_OPEN;
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
        // SAFETY: the caller's valid area (C9) and no other writer (C11).
        unsafe { ImageMut::of(area) }
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
// SAFETY: B11: contents that are not initial count as such registers. B12: `release` leaves what no task can hold, which is
// more than the duty asks for; the search then finds code that trusts the registers.
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

/// One CPU.
pub(super) struct Cpu {
    /// Its place among the machine's CPUs.
    pub(super) at: usize,
    /// The core's own per-CPU words, for the search, whose accesses are no steps.
    pub(super) words: &'static CpuFpu,
    pub(super) registers: Symbolic,
    pub(super) current: Cell<Option<usize>>,
    /// What the registers held when an operation last opened the CPU; an interrupt's sections do not count.
    pub(super) opened: Cell<Option<Symbol>>,
    owned: &'static Owned,
}

impl Cpu {
    /// Its words live as long as the program runs, as the line does.
    pub(super) fn new(at: usize, line: &'static Line) -> Self {
        let words: &'static CpuFpu = Box::leak(Box::default());
        let registers = Symbolic::new(line, words);
        let owned: &'static Owned = Box::leak(Box::new(Owned::new(at as u32)));
        Self { at, words, registers, current: Cell::new(None), opened: Cell::new(None), owned }
    }
    /// The contexts that it owns.
    pub(super) fn bound(&self) -> &'static BoundCpu<Symbolic, Area> {
        self.owned
    }
    /// Which of them was loaded last: the first word of what it owns.
    pub(super) fn last(&self) -> &'static AtomicU64 {
        let first = std::ptr::from_ref(self.owned).cast::<u64>().cast_mut();
        // SAFETY: rests on no duty: `BoundCpu` begins with this word, and is never freed.
        unsafe { AtomicU64::from_ptr(first) }
    }
    /// Tells whether code can use its registers.
    pub(super) fn is_open(&self) -> bool {
        self.words.gate() == GATE_OPEN && self.words.resident() & OPEN != 0
    }
    /// What a refusal must leave alone: both words, and the registers.
    pub(super) fn found(&self) -> (u64, u64, Symbol) {
        (self.words.resident(), self.words.gate(), self.registers.holds.get())
    }
}

// SAFETY: K13, K14: those of `CpuFpu`, which keeps the words. Every access is a step.
unsafe impl CpuWords for Cpu {
    fn resident(&self) -> u64 {
        self.registers.line.step();
        self.words.resident()
    }
    unsafe fn set_resident(&self, word: u64) {
        let line = self.registers.line;
        line.step();
        let old = self.words.resident();
        // The search takes an old stamp for one that matches nothing any more.
        if goes_back(old, word) {
            line.report(|| format!("a stamp goes back: {old:#x} becomes {word:#x}"));
        }
        // SAFETY: the caller's.
        unsafe { self.words.set_resident(word) }
    }
    fn gate(&self) -> u64 {
        self.registers.line.step();
        self.words.gate()
    }
    unsafe fn set_gate(&self, word: u64) {
        let line = self.registers.line;
        line.step();
        if word == GATE_OPEN && !line.in_interrupt() {
            self.opened.set(Some(self.registers.holds.get()));
        }
        // SAFETY: the caller's.
        unsafe { self.words.set_gate(word) }
    }
}

/// Preemption is off.
pub(super) struct Pin<'c>(pub(super) &'c Cpu, pub(super) Level);
/// Interrupts are off.
pub(super) struct Off<'c>(Pin<'c>, bool);

impl<'c> Off<'c> {
    pub(super) fn new(cpu: &'c Cpu) -> Self {
        Self(Pin(cpu, Level::Task), cpu.registers.line.mask())
    }
}
impl Drop for Off<'_> {
    fn drop(&mut self) {
        self.0 .0.registers.line.unmask(self.1);
    }
}

fpu_core::witness! {
    // SAFETY: K2: one thread plays all CPUs, one operation at a time. K3: the CPU's own. K4: nothing to enable. K5:
    // the search tries only what a right kernel may do; a violation gives wrong symbols and nothing worse. K6: the
    // level is where the interrupt says it runs. K7: the machine only looks. K21: what was loaded is in the area, which is
    // written only after the claim on registers has ended. K9: symbols change only where an operation
    // of the search says so.
    unsafe impl Pinned + SoftFloat for Pin<'_> {
        backend: Symbolic = |cpu| cpu.0.registers.the_backend(),
        words: Cpu = |cpu| cpu.0,
        bound: |cpu| cpu.0.bound(),
        level: |cpu| cpu.1,
        unchanged: |cpu, context| cpu.0.registers.untouched(context),
        observe: |cpu, event| cpu.0.registers.line.tell(cpu.0.at, event),
    }
}
fpu_core::witness! {
    // SAFETY: K2-K7, K9, K21: those of `Pin`. K8: the line is masked while the value lives.
    unsafe impl Pinned + Exclusive + SoftFloat for Off<'_> {
        backend: Symbolic = |cpu| cpu.0.backend(),
        words: Cpu = |cpu| cpu.0.words(),
        bound: |cpu| cpu.0 .0.bound(),
        unchanged: |cpu, context| cpu.0.unchanged(context),
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

    /// A save leaves out what is initial: the old bytes stay, and no context finds them.
    #[test]
    fn an_initial_image_is_absent_over_old_bytes() {
        let cpu = Cpu::new(0, Box::leak(Box::default())).registers;
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
