//! What the CPUs of a model share: tasks, the run queue, and each CPU's words.

use fpu_core_loom::{CpuFpu, CpuWords, FpuRef, TaskFpu};
use loom::sync::atomic::{AtomicPtr, Ordering};
use std::{
    ptr::null_mut,
    sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        Arc,
    },
};

use super::{
    backend::{Image, Registers},
    fault::{forgets, Embedder},
    ghost::Ghost,
};

/// A task: its context, and what its registers must hold.
#[derive(Debug)]
pub struct Task {
    /// What its registers must hold.
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
    /// The task exits, and another one gets the same memory: the same addresses throughout.
    pub fn reuse(&mut self, id: u64) {
        if !forgets(Embedder::RecyclesContext) {
            let old = std::mem::replace(&mut self.fpu, context(Image::new()));
            self.fpu = context(old.into_area());
        }
        self.ghost = Ghost::new(id);
        self.last_cpu = AtomicU32::new(NONE);
    }
    /// The CPU where it ran last.
    pub fn last_cpu(&self) -> u32 {
        self.last_cpu.load(Relaxed)
    }
    /// Notes that the task runs there. Tells whether it has come from another CPU.
    pub(super) fn runs_on(&self, cpu: u32) -> bool {
        let last = self.last_cpu.swap(cpu, Relaxed);
        last != NONE && last != cpu
    }
}

fn context(area: Image) -> TaskFpu<Registers, Image> {
    match TaskFpu::new(Registers::new().the_backend(), area) {
        Ok(fpu) => fpu,
        Err(why) => panic!("{why}"),
    }
}

/// What a kernel tells the core of a task: its context, if there is a task.
#[must_use]
pub fn told(task: Option<&Arc<Task>>) -> Option<FpuRef<'_, Registers>> {
    task.map(|task| task.fpu.context())
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
    /// Puts a task there, so that another CPU can take it.
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
    /// Loom cannot be asked while a caught violation unwinds: then the task leaks.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(self.take());
        }
    }
}

/// A CPU's words.
#[derive(Debug, Default)]
pub struct Words(pub CpuFpu);

// SAFETY: K13, K14: those of `CpuFpu`. While a caught violation unwinds, loom cannot be asked, so `Words` stores
// nothing; then no code compares either.
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
    pub(super) words: Vec<Words>,
    /// The run queue.
    pub slots: Vec<Slot>,
    /// For kernels that use a task without taking it, which is wrong.
    pub tasks: Vec<Arc<Task>>,
}

impl Machine {
    /// So many CPUs, and so many tasks waiting.
    #[must_use]
    pub fn new(cpus: u32, tasks: u64) -> Arc<Self> {
        Self::build(cpus, tasks, |_| {})
    }
    /// The same, and code can reach the tasks without taking them.
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
