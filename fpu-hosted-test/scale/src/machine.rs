//! Simulated CPUs on which the core's own code switches tasks, and the layouts of their words.
//!
//! A CPU's registers hold one symbol. Each task finds its own whenever it enters user mode, or the run fails: what is
//! counted is a switch that works.

use std::{cell::Cell, ptr::NonNull};

use fpu_core::{
    observe::{Counters, Event},
    Area, CpuFpu, CpuLifecycle, CpuWords, Exclusive, FpuRef, KernelFpu, KernelUnits, Level, Pinned,
    RawFpu, ReportedU64, RestoreFault, SaveArea, SoftFloat, TaskFpu, TheBackend,
};

use crate::bus;

/// Why a run ended: a call that was refused, or registers of another task.
pub type Failure = String;

fn refused(why: fpu_core::Error) -> Failure {
    format!("the core refused a call: {why:?}")
}

/// The words of all CPUs, in the layout that is looked at.
pub trait PerCpu {
    /// One CPU's.
    type Words: CpuWords;
    /// Of CPUs that were never online.
    fn new(cpus: usize) -> Self;
    /// One CPU's.
    fn of(&self, cpu: usize) -> &Self::Words;
}

/// The core's own words, a line for each CPU.
#[derive(Debug)]
pub struct Apart(Vec<CpuFpu>);

impl PerCpu for Apart {
    type Words = CpuFpu;
    fn new(cpus: usize) -> Self {
        Self((0..cpus).map(|_| CpuFpu::new()).collect())
    }
    fn of(&self, cpu: usize) -> &CpuFpu {
        &self.0[cpu]
    }
}

/// A control: a kernel's own words, an array of 16 bytes for each CPU.
#[derive(Debug)]
pub struct Packed(Vec<FourCpus>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct FourCpus([PackedWords; 4]);

/// One CPU's words of [`Packed`].
#[derive(Debug, Default)]
pub struct PackedWords {
    resident: ReportedU64,
    gate: ReportedU64,
}

impl PerCpu for Packed {
    type Words = PackedWords;
    fn new(cpus: usize) -> Self {
        Self((0..cpus.div_ceil(4)).map(|_| FourCpus::default()).collect())
    }
    fn of(&self, cpu: usize) -> &PackedWords {
        &self.0[cpu / 4].0[cpu % 4]
    }
}

const RELAXED: std::sync::atomic::Ordering = std::sync::atomic::Ordering::Relaxed;

// SAFETY: K13: plain words that nothing resets. K14: one thread plays all CPUs, and nothing interrupts an access.
unsafe impl CpuWords for PackedWords {
    fn resident(&self) -> u64 {
        self.resident.load(RELAXED)
    }
    unsafe fn set_resident(&self, word: u64) {
        self.resident.store(word, RELAXED);
    }
    fn gate(&self) -> u64 {
        self.gate.load(RELAXED)
    }
    unsafe fn set_gate(&self, word: u64) {
        self.gate.store(word, RELAXED);
    }
}

/// Areas that a machine can make.
pub trait Make: SaveArea {
    /// An area.
    fn make() -> Self;
}
impl<const N: usize> Make for Area<N> {
    fn make() -> Self {
        Self::new()
    }
}
/// In an array, such contexts stand several to a line.
impl<const N: usize> Make for Box<Area<N>> {
    fn make() -> Self {
        Box::default()
    }
}

/// The registers of all CPUs, and images of so many bytes, each moved whole.
#[derive(Debug)]
pub struct Registers {
    hold: Vec<Cell<u64>>,
    bytes: usize,
}

/// What registers hold after a section.
const SCRATCH: u64 = u64::MAX;

impl Registers {
    fn here(&self) -> &Cell<u64> {
        &self.hold[usize::from(bus::cpu())]
    }
    fn load(&self, area: NonNull<u8>) {
        bus::load(area.as_ptr() as usize, self.bytes);
    }
    fn store(&self, area: NonNull<u8>) {
        bus::store(area.as_ptr() as usize, self.bytes);
    }
}

/// An image that a debugger changes.
#[derive(Debug)]
pub struct ImageMut<'a>(&'a mut u64);

impl ImageMut<'_> {
    /// Another symbol.
    pub fn set(&mut self, symbol: u64) {
        *self.0 = symbol;
    }
}

// SAFETY: B1: constants; an image is the first 8 of these bytes, and the others are only counted. B2, B3: the symbol is
// all there is. B4, B5: no restore fails. B6: cells and a directory of this thread. B7: nothing is left out.
unsafe impl RawFpu for Registers {
    type Image<'a> = u64;
    type ImageMut<'a> = ImageMut<'a>;

    fn area_len(&self) -> usize {
        self.bytes
    }
    fn area_align(&self) -> usize {
        64
    }
    fn prefetch(&self, area: NonNull<u8>) {
        self.load(area);
    }
    unsafe fn write_initial(&self, area: NonNull<u8>) {
        self.store(area);
        // SAFETY: the caller's valid area (C9).
        unsafe { area.cast::<u64>().as_ptr().write(0) }
    }
    unsafe fn save(&self, area: NonNull<u8>) {
        self.store(area);
        // SAFETY: the caller's valid area (C9).
        unsafe { area.cast::<u64>().as_ptr().write(self.here().get()) }
    }
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        self.load(area);
        // SAFETY: the caller's valid area (C9).
        self.here().set(unsafe { area.cast::<u64>().as_ptr().read() });
        Ok(())
    }
    unsafe fn kernel_defaults(&self, _: KernelUnits) {
        self.here().set(SCRATCH);
    }
    unsafe fn image(&self, area: NonNull<u8>) -> u64 {
        self.load(area);
        // SAFETY: the caller's valid area (C9) and no other writer (C11).
        unsafe { area.cast::<u64>().as_ptr().read() }
    }
    unsafe fn image_mut(&self, area: NonNull<u8>) -> ImageMut<'_> {
        self.load(area);
        self.store(area);
        // SAFETY: the caller's valid area (C9) and no other writer (C11).
        ImageMut(unsafe { area.cast::<u64>().as_mut() })
    }
}

/// CPUs and tasks.
#[derive(Debug)]
pub struct Machine<P, A> {
    backend: TheBackend<Registers>,
    words: P,
    counters: Vec<Counters>,
    contexts: Vec<TaskFpu<Registers, A>>,
    /// What each task is to find in its registers.
    expected: Vec<Cell<u64>>,
    symbols: Cell<u64>,
}

/// This CPU, interrupts off.
struct Off<'m, W> {
    backend: &'m TheBackend<Registers>,
    words: &'m W,
    counters: &'m Counters,
    level: Level,
}

// SAFETY: K2: one thread plays all CPUs, one call at a time. K3: the CPU's own words. K4: nothing to enable. K5: the
// scenarios keep each task on one CPU at a time. K6: no level is that of a non-maskable interrupt. K7: counters.
unsafe impl<W: CpuWords> Pinned for Off<'_, W> {
    type Backend = Registers;
    type Words = W;
    fn backend(&self) -> &TheBackend<Registers> {
        self.backend
    }
    fn words(&self) -> &W {
        self.words
    }
    fn level(&self) -> Level {
        self.level
    }
    fn observe(&self, event: Event) {
        self.counters.record(event.kind);
    }
}
// SAFETY: K8: nothing interrupts a call.
unsafe impl<W: CpuWords> Exclusive for Off<'_, W> {}
// SAFETY: K9: symbols change only where the machine says so.
unsafe impl<W: CpuWords> SoftFloat for Off<'_, W> {}

/// A task is switched out, and a debugger holds it.
struct Held<'m> {
    backend: &'m TheBackend<Registers>,
    context: FpuRef<'m, Registers>,
}
fpu_core::witness! {
    // SAFETY: K10, K11: the scenarios hold only tasks that are switched out, one debugger at a time. K12: a field.
    unsafe impl Stopped for Held<'_> {
        backend: Registers = |held| held.backend,
        context: |held| held.context,
    }
}

impl<P: PerCpu, A: Make> Machine<P, A> {
    /// So many of both, the CPUs online, with images of so many bytes.
    ///
    /// # Errors
    ///
    /// The areas are smaller.
    pub fn new(cpus: usize, tasks: usize, bytes: usize) -> Result<Self, Failure> {
        bus::reset();
        let hold = (0..cpus).map(|_| Cell::new(SCRATCH)).collect();
        // SAFETY: K1: the only one of this machine, whose contexts meet no other machine's.
        let backend = unsafe { TheBackend::new(Registers { hold, bytes }) };
        let context =
            |_| TaskFpu::new(&backend, A::make()).map_err(|refused| format!("{:?}", refused.why));
        let contexts = (0..tasks).map(context).collect::<Result<_, _>>()?;
        let machine = Self {
            words: P::new(cpus),
            counters: (0..cpus).map(|_| Counters::new()).collect(),
            contexts,
            expected: (0..tasks).map(|_| Cell::new(0)).collect(),
            symbols: Cell::new(0),
            backend,
        };
        // Whoever made the contexts, their lines are in no cache.
        bus::reset();
        (0..cpus).try_for_each(|cpu| machine.online(cpu))?;
        Ok(machine)
    }
    fn off(&self, cpu: usize, level: Level) -> Off<'_, P::Words> {
        bus::become_cpu(cpu as u16);
        Off {
            backend: &self.backend,
            words: self.words.of(cpu),
            counters: &self.counters[cpu],
            level,
        }
    }
    /// The CPU comes online, under its own number.
    ///
    /// # Errors
    ///
    /// The core's.
    pub fn online(&self, cpu: usize) -> Result<(), Failure> {
        // SAFETY: K15, K16: its own number, its words as it left them.
        unsafe { self.off(cpu, Level::Task).fpu_online(cpu as u32) }.map_err(refused)
    }
    /// The CPU goes offline. Its tasks are switched out.
    ///
    /// # Errors
    ///
    /// The core's.
    pub fn offline(&self, cpu: usize) -> Result<(), Failure> {
        self.off(cpu, Level::Task).fpu_offline().map_err(refused)
    }
    /// The scheduler of the CPU has picked the task.
    pub fn pick(&self, cpu: usize, task: usize) {
        self.contexts[task].prefetch(&self.off(cpu, Level::Task));
    }
    /// The task is switched out.
    ///
    /// # Errors
    ///
    /// The core's.
    pub fn leave(&self, cpu: usize, task: usize) -> Result<(), Failure> {
        self.contexts[task].switch_prepare(&self.off(cpu, Level::Task)).map_err(refused)
    }
    /// The task enters user mode, finds its registers and changes them.
    ///
    /// # Errors
    ///
    /// The core's, or it found others.
    pub fn enter(&self, cpu: usize, task: usize) -> Result<(), Failure> {
        drop(self.contexts[task].switch_return(&mut self.off(cpu, Level::Task)).map_err(refused)?);
        self.runs(task)
    }
    /// The task's own code, or a guest's, runs on this CPU.
    fn runs(&self, task: usize) -> Result<(), Failure> {
        let (here, expected) = (self.backend.here(), &self.expected[task]);
        if here.get() != expected.get() {
            return Err(format!("task {task} found {}, not {}", here.get(), expected.get()));
        }
        self.symbols.set(self.symbols.get() + 1);
        here.set(self.symbols.get());
        expected.set(self.symbols.get());
        Ok(())
    }
    /// The kernel uses the registers, in a system call of the current task or in an interrupt.
    ///
    /// # Errors
    ///
    /// The core's.
    pub fn section(&self, cpu: usize, current: Option<usize>, level: Level) -> Result<(), Failure> {
        let current = current.map(|task| self.contexts[task].context());
        self.off(cpu, level).with_kernel_fpu(current, KernelUnits::ALL, || ()).map_err(refused)
    }
    /// A virtual CPU enters and exits, on behalf of the current task.
    ///
    /// # Errors
    ///
    /// The core's, or the guest found other registers.
    pub fn guest(&self, cpu: usize, guest: usize, current: usize) -> Result<(), Failure> {
        let [guest_is, current] = [guest, current].map(|task| self.contexts[task].context());
        self.off(cpu, Level::Task)
            .run_guest(guest_is, Some(current), || self.runs(guest))
            .map_err(refused)?
    }
    /// The task begins another program.
    ///
    /// # Errors
    ///
    /// The core's.
    pub fn exec(&self, cpu: usize, task: usize) -> Result<(), Failure> {
        self.contexts[task].reset(&mut self.off(cpu, Level::Task)).map_err(refused)?;
        self.expected[task].set(0);
        Ok(())
    }
    /// A debugger on the CPU reads the registers of a task that is switched out, and changes them.
    ///
    /// # Errors
    ///
    /// The core's, or it found others.
    pub fn debug(&self, cpu: usize, task: usize, writes: bool) -> Result<(), Failure> {
        bus::become_cpu(cpu as u16);
        let context = &self.contexts[task];
        let mut held = Held { backend: &self.backend, context: context.context() };
        let stopped = context.stopped(&mut held).map_err(refused)?;
        let found = stopped.image();
        if found != self.expected[task].get() {
            return Err(format!("a debugger found {found} in task {task}"));
        }
        if writes {
            let mut writable = stopped.make_memory_valid_write();
            self.symbols.set(self.symbols.get() + 1);
            writable.image_mut().set(self.symbols.get());
            self.expected[task].set(self.symbols.get());
        }
        Ok(())
    }
}
