//! The typed calls with state on demand, where IA32_XFD stays: a cell stands for the register, which is the system's, and
//! AVX-512 for the tiles. Tasks that have it in use have areas with room, all others have areas without.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use fpu_core::{
    CpuFpu, CpuLifecycle, HeapArea, KernelFpu, KernelUnits, RestoreFault, TaskFpu, TheBackend,
};
use fpu_x86::{Components, DynamicPlan, Plan, Room, XfdCopy};

use crate::{
    classes::Class,
    ways::{Way, TASKS},
};

type Failure = Box<dyn std::error::Error>;

/// The copy, and the register.
pub struct Cells {
    copy: AtomicU64,
    register: AtomicU64,
}

// SAFETY: K20: two cells of one thread.
unsafe impl XfdCopy for Cells {
    #[inline(always)]
    fn get(&self) -> u64 {
        self.copy.load(Ordering::Relaxed)
    }
    #[inline(always)]
    unsafe fn set(&self, xfd: u64) {
        self.copy.store(xfd, Ordering::Relaxed);
    }
    #[inline(always)]
    unsafe fn write(&self, xfd: u64) -> Result<(), RestoreFault> {
        self.register.store(xfd, Ordering::Relaxed);
        Ok(())
    }
    unsafe fn take_error(&self) -> u64 {
        0
    }
}

type OnDemand = DynamicPlan<Cells>;

/// The contexts, areas and words.
pub struct Demand {
    plan: TheBackend<OnDemand>,
    tasks: [TaskFpu<OnDemand, HeapArea>; TASKS],
    words: CpuFpu,
    /// Calls that were refused.
    pub refused: AtomicU32,
}

/// Proof of running on the CPU of the scenario.
struct Cpu<'t> {
    plan: &'t TheBackend<OnDemand>,
    words: &'t CpuFpu,
}

fpu_core::witness! {
    // SAFETY: K2 to K9: as for the other ways, on one CPU.
    unsafe impl Pinned + Exclusive + SoftFloat for Cpu<'_> {
        backend: OnDemand = |cpu| cpu.plan,
        words: CpuFpu = |cpu| cpu.words,
    }
}

impl Demand {
    /// Contexts whose registers are of that class, the CPU online.
    pub fn new(plan: &Plan, class: Class) -> Result<Self, Failure> {
        let on_demand = plan.components().intersection(Components::AVX512);
        let cells = Cells { copy: AtomicU64::new(0), register: AtomicU64::new(0) };
        // SAFETY: C46: the rows run scalar code between a restore and the next save.
        let plan = unsafe { DynamicPlan::for_program(plan.clone(), on_demand, cells)? };
        // SAFETY: K1: these contexts and this CPU use this plan and no other.
        let plan = unsafe { TheBackend::new(plan) };
        let task = || -> Result<_, Failure> {
            Ok(TaskFpu::new(&plan, HeapArea::with_len(&plan, plan.area_len())?)?)
        };
        let tasks = [task()?, task()?, task()?];
        let mut this = Self { plan, tasks, words: CpuFpu::new(), refused: AtomicU32::new(0) };
        // SAFETY: K15, K16: new words, the only CPU.
        unsafe { this.cpu().fpu_online(0)? };
        this.give(class)?;
        Ok(this)
    }
    fn give(&mut self, class: Class) -> Result<(), Failure> {
        let room =
            if class.needs().intersects(Components::AVX512) { Room::Full } else { Room::Base };
        for (number, task) in self.tasks.iter_mut().enumerate() {
            let mut cpu = Cpu { plan: &self.plan, words: &self.words };
            let area = HeapArea::with_len(&self.plan, self.plan.area_len_of(room))?;
            drop(task.replace_area(&mut cpu, area, room).map_err(|refused| refused.why)?);
            let mut session = task.open(&mut cpu)?.make_memory_valid_write();
            class.write(&mut session.image_mut(), number)?;
        }
        Ok(())
    }
    #[inline(always)]
    fn cpu(&self) -> Cpu<'_> {
        Cpu { plan: &self.plan, words: &self.words }
    }
    #[cold]
    #[inline(never)]
    fn quiet_refused(&self) {
        self.refused.store(1, Ordering::Relaxed);
    }
}

// SAFETY: the library's calls, whose object code is checked to be scalar.
unsafe impl Way for Demand {
    #[inline(always)]
    fn unknown(&self, _: usize) {
        if self.cpu().invalidate_registers().is_err() {
            self.quiet_refused();
        }
    }
    #[inline(always)]
    fn leave(&self, _: usize, task: usize) {
        if self.tasks[task].switch_prepare(&self.cpu()).is_err() {
            self.quiet_refused();
        }
    }
    #[inline(always)]
    fn enter(&self, _: usize, task: usize) {
        if self.tasks[task].switch_return(&mut self.cpu()).is_err() {
            self.quiet_refused();
        }
    }
    #[inline(always)]
    fn section(&self, _: usize, task: usize) {
        let context = Some(self.tasks[task].context());
        if self.cpu().kernel_fpu(context, KernelUnits::NONE).is_err() {
            self.quiet_refused();
        }
    }
}
