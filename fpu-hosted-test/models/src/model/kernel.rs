//! The models' kernel: CPUs with ghost registers, tasks, and the hand-over between CPUs.

use fpu_core_loom::{
    observe::Counters, CpuFpu, CpuLifecycle, CpuWords, Error, FpuRef, KernelFpu, KernelUnits,
    Level, TaskFpu,
};
use loom::sync::atomic::{AtomicPtr, Ordering};
use std::{
    cell::{Cell, RefCell},
    ptr::null_mut,
    rc::Rc,
    sync::{atomic::AtomicU32, Arc},
};

use super::{
    backend::{Image, Registers},
    explore::cover,
    fault::{forgets, Embedder},
    ghost::{Ghost, Regs, KERNEL_DATA, KERNEL_DEFAULTS, UNDEFINED},
    irq::tick,
    witness::{IrqOff, Pin},
};

/// A task: its context, and what its registers must hold.
#[derive(Debug)]
pub struct Task {
    /// What it must hold.
    pub ghost: Ghost,
    /// The context under test.
    pub fpu: TaskFpu<Registers, Image>,
    last_cpu: AtomicU32,
}

/// No CPU yet.
const NONE: u32 = u32::MAX;

impl Task {
    /// A fresh one, over memory with old bytes in it.
    #[must_use]
    pub fn new(id: u64) -> Self {
        Self { ghost: Ghost::new(id), fpu: context(Image::new()), last_cpu: AtomicU32::new(NONE) }
    }
    /// Exit, and the same memory for another task: the same addresses throughout.
    pub fn reuse(&mut self, id: u64) {
        if !forgets(Embedder::RecyclesContext) {
            let old = std::mem::replace(&mut self.fpu, context(Image::new()));
            self.fpu = context(old.into_area());
        }
        self.ghost = Ghost::new(id);
        self.last_cpu = AtomicU32::new(NONE);
    }
    /// Where it ran last.
    pub fn last_cpu(&self) -> u32 {
        self.last_cpu.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn context(area: Image) -> TaskFpu<Registers, Image> {
    match TaskFpu::new(Registers::new().the_backend(), area) {
        Ok(fpu) => fpu,
        Err(why) => panic!("{why}"),
    }
}

/// A place in a run queue. The CPU that takes the task out runs, stops or reaps it.
#[derive(Debug)]
pub struct Slot(AtomicPtr<Task>);

impl Slot {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }
    /// The task, if no CPU has taken it.
    #[must_use]
    pub fn take(&self) -> Option<Arc<Task>> {
        let relaxed = forgets(Embedder::RelaxedHandOver);
        let order = if relaxed { Ordering::Relaxed } else { Ordering::Acquire };
        let task = self.0.swap(null_mut(), order);
        // SAFETY: not null, so it comes from `into_raw` in `put`, and the swap gives it to one taker.
        (!task.is_null()).then(|| unsafe { Arc::from_raw(task) })
    }
    /// Lets others have it.
    pub fn put(&self, task: Arc<Task>) {
        let relaxed = forgets(Embedder::RelaxedHandOver);
        let order = if relaxed { Ordering::Relaxed } else { Ordering::Release };
        self.0.store(Arc::into_raw(task).cast_mut(), order);
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Slot {
    /// Loom cannot be asked while a caught violation unwinds: the task leaks then.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(self.take());
        }
    }
}

/// A CPU's words.
#[derive(Debug, Default)]
pub struct Words(pub CpuFpu);

// SAFETY: K13, K14: those of `CpuFpu`. While a caught violation unwinds, when loom cannot be asked, nothing
// is stored; nothing is compared either.
unsafe impl CpuWords for Words {
    fn resident(&self) -> u64 {
        self.0.resident()
    }
    unsafe fn set_resident(&self, word: u64) {
        if !std::thread::panicking() {
            // SAFETY: the caller's.
            unsafe { self.0.set_resident(word) }
        }
    }
    fn gate(&self) -> u64 {
        self.0.gate()
    }
    unsafe fn set_gate(&self, word: u64) {
        if !std::thread::panicking() {
            // SAFETY: the caller's.
            unsafe { self.0.set_gate(word) }
        }
    }
}

/// What the CPUs share.
#[derive(Debug)]
pub struct Machine {
    words: Vec<Words>,
    /// The run queue.
    pub slots: Vec<Slot>,
    /// For kernels that reach a task without taking it, which is wrong.
    pub tasks: Vec<Arc<Task>>,
}

impl Machine {
    /// So many CPUs, and so many tasks waiting.
    #[must_use]
    pub fn new(cpus: u32, tasks: u64) -> Arc<Self> {
        Self::build(cpus, tasks, |_| {})
    }
    /// The same, and the tasks can be reached without being taken.
    #[must_use]
    pub fn with_shared_tasks(cpus: u32, tasks: u64) -> Arc<Self> {
        let mut shared = Vec::new();
        let mut machine = Self::build(cpus, tasks, |task| shared.push(Arc::clone(task)));
        if let Some(machine) = Arc::get_mut(&mut machine) {
            machine.tasks = shared;
        }
        machine
    }
    fn build(cpus: u32, tasks: u64, mut each: impl FnMut(&Arc<Task>)) -> Arc<Self> {
        let words = (0..cpus).map(|_| Words::default()).collect();
        let slot = |id| {
            let (slot, task) = (Slot::new(), Arc::new(Task::new(id)));
            each(&task);
            slot.put(task);
            slot
        };
        let slots = (1..=tasks).map(slot).collect();
        Arc::new(Self { words, slots, tasks: Vec::new() })
    }
}

/// One CPU: used by the loom thread that plays it.
#[derive(Debug)]
pub struct Cpu {
    /// Its number.
    pub number: u32,
    /// Its registers.
    pub registers: Registers,
    /// What the core told.
    pub counters: Counters,
    machine: Arc<Machine>,
    current: RefCell<Option<Arc<Task>>>,
    masked: Cell<bool>,
    in_interrupt: Cell<bool>,
    in_section: Cell<bool>,
    going_offline: Cell<bool>,
    users_only_look: Cell<bool>,
}

impl Cpu {
    /// Brings one online.
    #[must_use]
    pub fn online(machine: &Arc<Machine>, number: u32) -> Rc<Self> {
        let cpu = Self {
            number,
            registers: Registers::new(),
            counters: Counters::new(),
            machine: Arc::clone(machine),
            current: RefCell::new(None),
            masked: Cell::new(false),
            in_interrupt: Cell::new(false),
            in_section: Cell::new(false),
            going_offline: Cell::new(true),
            users_only_look: Cell::new(false),
        };
        cpu.power_on();
        Rc::new(cpu)
    }
    /// Its words.
    pub fn words(&self) -> &Words {
        &self.machine.words[self.number as usize]
    }
    /// What it shares with the others.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
    /// The task it runs.
    pub fn current(&self) -> Option<Arc<Task>> {
        self.current.borrow().clone()
    }
    /// Makes a task the one it runs.
    pub fn set_current(&self, task: Option<&Arc<Task>>) {
        let task = task.map(Arc::clone);
        *self.current.borrow_mut() = task;
    }
    /// Has the kernel taken it offline?
    pub fn is_offline(&self) -> bool {
        self.going_offline.get()
    }
    pub(super) fn masked(&self) -> bool {
        self.masked.get()
    }
    pub(super) fn set_masked(&self, masked: bool) {
        self.masked.set(masked);
    }
    pub(super) fn in_interrupt(&self) -> bool {
        self.in_interrupt.get()
    }

    /// Preemption off.
    pub fn pinned(&self) -> Pin<'_> {
        Pin { cpu: self, words: self.words(), level: Level::Task }
    }
    /// Interrupts off.
    pub fn irq_off(&self) -> IrqOff<'_> {
        let was = self.masked.replace(!forgets(Embedder::InterruptsOnInSwitch));
        let stale = forgets(Embedder::StaleToken) && self.number == 1;
        let words = if stale { &self.machine.words[0] } else { self.words() };
        IrqOff { pin: Pin { cpu: self, words, level: Level::Task }, was }
    }

    /// User mode: the registers must be the task's; its code changes them, as a rule.
    pub fn user(&self, task: &Task) {
        task.ghost.judge(self.registers.get(), "user mode");
        if self.registers.disables() == task.fpu.room(&self.pinned()) {
            panic!("another's IA32_XFD: task {:?} in user mode", task.ghost);
        }
        if !self.users_only_look.get() {
            self.registers.fill(task.ghost.user_writes());
        }
        let last = task.last_cpu.swap(self.number, std::sync::atomic::Ordering::Relaxed);
        if last != NONE && last != self.number {
            cover("migrated");
        }
    }
    /// From now on user code here changes nothing, so that a save can be left out (B7).
    pub fn users_only_look(&self, so: bool) {
        self.users_only_look.set(so);
    }
    /// Switches a task in and goes to user mode and back into the kernel.
    ///
    /// # Errors
    ///
    /// Those of `switch_return`.
    pub fn enter(&self, task: &Arc<Task>) -> Result<(), Error> {
        self.set_current(Some(task));
        let skipped = self.counters.totals().skipped;
        if !forgets(Embedder::NoReturn) {
            let mut token = self.irq_off();
            match task.fpu.switch_return(&mut token) {
                Err(why) if !forgets(Embedder::IgnoresReturnError) => return Err(why),
                // The decision is older than its use.
                Ok(_) if forgets(Embedder::ClobbersAfterReturn) => {}
                _ => {
                    if self.going_offline.get() {
                        panic!("offline CPU used: task {:?} entered user mode", task.ghost)
                    }
                    self.user(task);
                    if self.counters.totals().skipped > skipped {
                        cover("restore skipped");
                    }
                    return Ok(());
                }
            }
        }
        if forgets(Embedder::ClobbersAfterReturn) {
            self.section();
        }
        self.user(task);
        Ok(())
    }
    /// The same where nothing can go wrong.
    pub fn run(&self, task: &Arc<Task>) {
        must(self.enter(task), "return to user mode");
    }
    /// Switches a task out.
    pub fn leave(&self, task: &Arc<Task>) {
        if !forgets(Embedder::NoPrepare) {
            must(task.fpu.switch_prepare(&self.irq_off()), "switch out");
        }
        if forgets(Embedder::KernelUsesRegisters) {
            self.registers.fill(KERNEL_DATA);
        }
        self.set_current(None);
    }
    /// Switches from one task to the next.
    pub fn switch(&self, from: &Arc<Task>, to: &Arc<Task>) {
        self.leave(if forgets(Embedder::PreparesNext) { to } else { from });
        self.run(to);
    }
    /// Switches a task out and lets others have it.
    pub fn hand_over(&self, task: Arc<Task>, slot: &Slot) {
        if forgets(Embedder::HandsOverBeforePrepare) {
            slot.put(Arc::clone(&task));
            return self.leave(&task);
        }
        self.leave(&task);
        slot.put(task);
    }
    /// A turn of the scheduler: takes the slot's task, if it is there, and runs it once.
    pub fn turn(&self, slot: &Slot) -> bool {
        let Some(task) = slot.take() else { return false };
        self.run(&task);
        self.hand_over(task, slot);
        true
    }

    /// A kernel FPU section in task context.
    pub fn section(&self) {
        let current = self.current();
        let other = forgets(Embedder::SectionToldOther).then(|| Task::new(9));
        let told = match &other {
            Some(other) => Some(other.fpu.context()),
            None if forgets(Embedder::SectionToldNobody) => None,
            None => current.as_ref().map(|t| t.fpu.context()),
        };
        must(self.section_at(Level::Task, told), "kernel section");
    }
    fn section_at(
        &self,
        level: Level,
        current: Option<FpuRef<'_, Registers>>,
    ) -> Result<(), Error> {
        let mut pin = Pin { cpu: self, words: self.words(), level };
        let section = pin.kernel_fpu(current, KernelUnits::ALL)?;
        self.computes();
        drop(section);
        Ok(())
    }
    /// What kernel code does in a section.
    pub(super) fn computes(&self) {
        if self.in_section.replace(true) {
            panic!("section not exclusive: begun on CPU {} inside another", self.number);
        }
        let found = self.registers.get();
        if found != Regs::of(KERNEL_DEFAULTS) {
            panic!("section without defaults: {found:x?}");
        }
        self.registers.fill(KERNEL_DATA);
        tick();
        if self.registers.get() != Regs::of(KERNEL_DATA) {
            panic!("section not exclusive: its registers changed to {:x?}", self.registers.get());
        }
        self.in_section.set(false);
    }
    pub(super) fn interrupted(&self, handler: fn(&Self)) {
        self.in_interrupt.set(true);
        handler(self);
        self.in_interrupt.set(false);
    }
    /// An interrupt handler that uses vector code if it may.
    pub fn irq(&self) {
        let current = self.current();
        match self.section_at(Level::HardIrq, current.as_ref().map(|t| t.fpu.context())) {
            Ok(()) => cover("interrupt ran a section"),
            Err(Error::Busy) => cover("interrupt refused"),
            Err(Error::CpuOffline) if self.going_offline.get() => cover("interrupt refused"),
            Err(why) => panic!("wrong error: an interrupt's section was refused with {why:?}"),
        }
    }
    /// A non-maskable interrupt that tries the same, and everything else.
    pub fn nmi(&self) {
        let current = self.current();
        let said = forgets(Embedder::NmiSaidToBeIrq);
        let level = if said { Level::HardIrq } else { Level::Nmi };
        match self.section_at(level, current.as_ref().map(|t| t.fpu.context())) {
            Err(Error::Nmi) => cover("NMI refused"),
            _ if said => return,
            other => panic!("wrong error: an NMI's section ended in {other:?}"),
        }
        let mut pin = Pin { cpu: self, words: self.words(), level };
        let refused = |result| assert_eq!(result, Err(Error::Nmi), "wrong error: in an NMI");
        refused(pin.fpu_offline());
        refused(pin.fpu_resume());
        if let Some(task) = current {
            refused(task.fpu.open(&mut pin).map(drop));
            refused(task.fpu.reset(&mut pin));
            refused(pin.run_guest(task.fpu.context(), None, || ()));
        }
    }

    /// Takes it offline and cuts the power: the registers are lost, the words are not.
    pub fn power_off(&self) {
        if forgets(Embedder::OfflineNotCalled) {
            return self.registers.fill(UNDEFINED);
        }
        self.going_offline.set(true);
        must(self.pinned().fpu_offline(), "going offline");
        self.registers.fill(UNDEFINED);
        if forgets(Embedder::WordsZeroed) {
            // SAFETY: none; this is the fault.
            unsafe { self.words().set_resident(0) };
        }
    }
    /// Brings it online.
    pub fn power_on(&self) {
        if forgets(Embedder::OfflineNotCalled) && !self.going_offline.get() {
            return;
        }
        let shared = forgets(Embedder::SharedCpuNumber);
        let number = if shared { self.number % 2 } else { self.number };
        // SAFETY: K15: each CPU of a model has its number to itself. K16: no other code touches the words.
        must(unsafe { self.pinned().fpu_online(number) }, "coming online");
        self.going_offline.set(false);
    }
    /// Suspend and resume: the registers are lost.
    pub fn suspend(&self) {
        self.registers.fill(UNDEFINED);
        if !forgets(Embedder::ResumeNotCalled) {
            must(self.pinned().fpu_resume(), "resume");
        }
    }
}

/// The value, or the violation that the error means where none was due.
pub fn must<T>(result: Result<T, Error>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(why @ Error::Lost) => panic!("unsaved state lost: {what}: {why:?}"),
        Err(why @ Error::LiveElsewhere { .. }) => {
            panic!("unsaved state elsewhere: {what}: {why:?}")
        }
        Err(why) => panic!("refused: {what}: {why:?}"),
    }
}
