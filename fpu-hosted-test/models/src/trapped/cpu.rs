//! One CPU whose registers hold a symbol, and whose trap kernel code meets as a task's code does.

use core::ptr::NonNull;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use fpu_core::{
    trap::TrapFpu, CpuFpu, CpuWords, IdleFpu, KernelUnits, Level, RawFpu, RestoreFault, TheBackend,
};

/// The contents of registers or of an image.
pub(super) type Symbol = u64;
/// The initial state.
pub(super) const INITIAL: Symbol = 1;
/// What kernel code leaves, and what a failed restore does.
pub(super) const OTHER: Symbol = 2;
/// The first symbol that a task's code can write.
pub(super) const FIRST: Symbol = 16;

/// Memory for one image.
pub(super) type Area = fpu_core::Area<8>;
/// A context.
pub(super) type Context = fpu_core::TaskFpu<Registers, Area>;

/// What an interrupt runs.
type Handler = Box<dyn Fn()>;

/// The steps of an operation, of which an interrupt strikes one.
#[derive(Default)]
pub(super) struct Line {
    due: Cell<Option<u32>>,
    steps: Cell<u32>,
    masked: Cell<bool>,
    handler: RefCell<Option<Handler>>,
    wrong: RefCell<Option<String>>,
}

impl Line {
    /// Runs an operation with an interrupt at one of its steps, and returns whether it had so many.
    pub(super) fn run(&self, at: Option<u32>, handler: Handler, operation: impl FnOnce()) -> bool {
        *self.handler.borrow_mut() = Some(handler);
        self.due.set(at);
        self.steps.set(0);
        operation();
        *self.handler.borrow_mut() = None;
        self.due.take().is_none()
    }
    fn step(&self) {
        if self.masked.get() {
            return;
        }
        self.steps.set(self.steps.get() + 1);
        if self.due.get() == Some(self.steps.get()) {
            self.due.set(None);
            let was = self.masked.replace(true);
            if let Some(handler) = &*self.handler.borrow() {
                handler();
            }
            self.masked.set(was);
        }
    }
    /// Notes what must not be. Only the first counts.
    pub(super) fn report(&self, what: impl Into<String>) {
        self.wrong.borrow_mut().get_or_insert_with(|| what.into());
    }
    pub(super) fn wrong(&self) -> Option<String> {
        self.wrong.borrow().clone()
    }
}

/// One CPU's registers, and the trap.
pub(super) struct Registers {
    line: Rc<Line>,
    pub(super) holds: Cell<Symbol>,
    /// XRSTOR_INFO, while nothing has changed the registers since.
    pub(super) restored_from: Cell<usize>,
    pub(super) armed: Cell<bool>,
    pub(super) fails: Cell<bool>,
}

impl Registers {
    pub(super) fn the_backend(&self) -> &TheBackend<Self> {
        // SAFETY: K1: the layout is the same constants for every value.
        unsafe { TheBackend::from_ref(self) }
    }
    pub(super) fn change(&self, to: Symbol) {
        self.holds.set(to);
        self.restored_from.set(0);
    }
    /// An instruction of the kernel that moves registers.
    fn moves(&self) {
        self.line.step();
        if self.armed.get() {
            self.line.report("kernel code meets the trap");
        }
    }
}

// SAFETY: B1: constants; an image is 8 bytes. B2, B3: the symbol is all there is. B4: a failed restore says so and reads
// only. B5: only `fails` makes one fail. B6: cells. B7: what was not changed since a restore from there is left out.
unsafe impl RawFpu for Registers {
    type Image<'a> = Symbol;
    type ImageMut<'a> = &'a mut Symbol;

    fn area_len(&self) -> usize {
        8
    }
    fn area_align(&self) -> usize {
        8
    }
    unsafe fn write_initial(&self, area: NonNull<u8>) {
        self.line.step();
        // SAFETY: the caller's valid area (C9).
        unsafe { area.cast::<Symbol>().as_ptr().write(INITIAL) };
    }
    unsafe fn save(&self, area: NonNull<u8>) {
        self.moves();
        if self.restored_from.get() != area.as_ptr() as usize {
            // SAFETY: the caller's valid area (C9).
            unsafe { area.cast::<Symbol>().as_ptr().write(self.holds.get()) };
        }
        self.line.step();
    }
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        self.moves();
        self.change(OTHER);
        if self.fails.take() {
            return Err(RestoreFault(14));
        }
        // SAFETY: the caller's valid area (C9).
        self.change(unsafe { area.cast::<Symbol>().as_ptr().read() });
        self.restored_from.set(area.as_ptr() as usize);
        self.line.step();
        Ok(())
    }
    unsafe fn kernel_defaults(&self, _: KernelUnits) {
        self.moves();
        self.change(OTHER);
    }
    unsafe fn section_end(&self, _: KernelUnits) {
        self.moves();
    }
    unsafe fn image(&self, area: NonNull<u8>) -> Symbol {
        // SAFETY: the caller's valid area (C9) and no other writer (C11).
        unsafe { area.cast::<Symbol>().as_ptr().read() }
    }
    unsafe fn image_mut(&self, area: NonNull<u8>) -> &mut Symbol {
        // SAFETY: the caller's valid area (C9) and no other writer (C11).
        unsafe { area.cast::<Symbol>().as_mut() }
    }
}

// SAFETY: B11: only contents that are initial count as such that a core can sleep with. B12: what `release` leaves no task
// can hold, so that the search finds code that trusts it.
unsafe impl IdleFpu for Registers {
    unsafe fn keeps_awake(&self) -> bool {
        self.line.step();
        self.holds.get() != INITIAL
    }
    unsafe fn release(&self) {
        self.moves();
        self.change(OTHER);
    }
}

// SAFETY: B18: the machine asks `armed` before a task's code uses the registers. B19: a cell that is no register.
unsafe impl TrapFpu for Registers {
    fn traps(&self) -> bool {
        true
    }
    unsafe fn arm(&self) {
        self.line.step();
        self.armed.set(true);
        self.line.step();
    }
    unsafe fn disarm(&self) {
        self.line.step();
        self.armed.set(false);
        self.line.step();
    }
}

/// One CPU.
pub(super) struct Cpu {
    pub(super) registers: Registers,
    pub(super) words: CpuFpu,
    /// The context that is current.
    pub(super) current: Cell<Option<usize>>,
}

impl Cpu {
    pub(super) fn new(line: &Rc<Line>) -> Self {
        let registers = Registers {
            line: Rc::clone(line),
            holds: Cell::new(OTHER),
            restored_from: Cell::new(0),
            armed: Cell::new(false),
            fails: Cell::new(false),
        };
        Self { registers, words: CpuFpu::new(), current: Cell::new(None) }
    }
    /// Interrupts are off.
    pub(super) fn off(&self) -> Off<'_> {
        Off(self, self.registers.line.masked.replace(true))
    }
}

// SAFETY: K13, K14: those of `CpuFpu`, which keeps the words. Every access is a step.
unsafe impl CpuWords for Cpu {
    fn resident(&self) -> u64 {
        self.registers.line.step();
        self.words.resident()
    }
    unsafe fn set_resident(&self, word: u64) {
        self.registers.line.step();
        // SAFETY: the caller's.
        unsafe { self.words.set_resident(word) }
    }
    fn gate(&self) -> u64 {
        self.registers.line.step();
        self.words.gate()
    }
    unsafe fn set_gate(&self, word: u64) {
        self.registers.line.step();
        // SAFETY: the caller's.
        unsafe { self.words.set_gate(word) }
    }
}

/// Preemption is off.
pub(super) struct Pin<'c>(pub(super) &'c Cpu, pub(super) Level);
/// Interrupts are off.
pub(super) struct Off<'c>(&'c Cpu, bool);

impl Drop for Off<'_> {
    fn drop(&mut self) {
        self.0.registers.line.masked.set(self.1);
    }
}

fpu_core::witness! {
    // SAFETY: K2: one thread plays all CPUs, one operation at a time. K3: the CPU's own. K4: nothing to enable. K5: the
    // search tries only what a right kernel may do. K6: the level is where the interrupt says it runs. K9: symbols change
    // only where an operation says so.
    unsafe impl Pinned + SoftFloat for Pin<'_> {
        backend: Registers = |cpu| cpu.0.registers.the_backend(),
        words: Cpu = |cpu| cpu.0,
        level: |cpu| cpu.1,
    }
    // SAFETY: K2-K6, K9: those of `Pin`. K8: the line is masked while the value lives.
    unsafe impl Pinned + Exclusive + SoftFloat for Off<'_> {
        backend: Registers = |cpu| cpu.0.registers.the_backend(),
        words: Cpu = |cpu| cpu.0,
    }
}
