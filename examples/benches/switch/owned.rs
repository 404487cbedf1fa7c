//! Contexts that the CPU owns, whose save is deferred until something else needs the registers.

use fpu_core::{
    BoundCpu, BoundFpu, BoundSlot, CpuFpu, CpuLifecycle, KernelFpu, KernelUnits, TaskFpu,
};
use fpu_x86::Plan;

use crate::ways::{Inline, Make, Tasks, Way, TASKS};

type Slots = BoundCpu<Plan, Inline, [BoundSlot<Plan, Inline>; TASKS]>;

/// The bound contexts of CPU 0.
pub struct Owned {
    core: &'static PerCpu,
    /// The contexts.
    pub bound: [BoundFpu<'static, Plan, Inline>; TASKS],
}

/// What CPU 0 owns.
struct PerCpu {
    /// Plan, words, refusals; its contexts are not used.
    tasks: Tasks,
    slots: Slots,
}

/// Proof of running on CPU 0: one pointer, which compiled code moves without a vector register.
pub struct Cpu<'t>(&'t PerCpu);

fpu_core::witness! {
    // SAFETY: K2-K9: as for `ways::Cpu`; one thread uses these contexts.
    unsafe impl Pinned + Exclusive + SoftFloat for Cpu<'_> {
        backend: Plan = |cpu| &cpu.0.tasks.plan,
        words: CpuFpu = |cpu| &cpu.0.tasks.cpus[0],
        bound: |cpu| cpu.0.bound(),
    }
}

impl PerCpu {
    #[inline(always)]
    fn bound(&self) -> &BoundCpu<Plan, Inline> {
        &self.slots
    }
}

impl Owned {
    /// New contexts, bound to CPU 0.
    pub fn new(tasks: Tasks) -> Result<Self, Box<dyn std::error::Error>> {
        // It lives as long as the program.
        let core: &'static PerCpu = Box::leak(Box::new(PerCpu { tasks, slots: Slots::new(0) }));
        let bind = || -> Result<_, Box<dyn std::error::Error>> {
            let task = TaskFpu::new(&core.tasks.plan, Inline::make(&core.tasks.plan)?)?;
            core.bound().bind(task, &mut Cpu(core)).map_err(|refused| refused.why.into())
        };
        Ok(Self { core, bound: [bind()?, bind()?, bind()?] })
    }
    /// The proof.
    #[inline(always)]
    pub fn cpu(&self) -> Cpu<'_> {
        Cpu(self.core)
    }
    /// What all ways have.
    pub fn tasks(&self) -> &Tasks {
        &self.core.tasks
    }
}

// SAFETY: the library's calls, whose object code is checked to be scalar.
unsafe impl Way for Owned {
    #[inline(always)]
    fn unknown(&self, _: usize) {
        if self.cpu().invalidate_registers().is_err() {
            self.core.tasks.quiet_refused();
        }
    }
    #[inline(always)]
    fn leave(&self, _: usize, _: usize) {}
    #[inline(always)]
    fn ends(&self, _: usize, _: usize) {
        if self.core.bound().settle(&mut self.cpu()).is_err() {
            self.core.tasks.quiet_refused();
        }
    }
    #[inline(always)]
    fn enter(&self, _: usize, task: usize) {
        if self.bound[task].switch_return(&mut self.cpu()).is_err() {
            self.core.tasks.quiet_refused();
        }
    }
    #[inline(always)]
    fn section(&self, _: usize, _: usize) {
        if self.cpu().kernel_fpu(None, KernelUnits::NONE).is_err() {
            self.core.tasks.quiet_refused();
        }
    }
}
