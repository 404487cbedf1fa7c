//! Models of what other kernels do, with the same tasks and areas: the protocol of each, around one instruction.
//!
//! Each is written from what its kernel does, and none is its code: no interrupt flag, no checks, no bookkeeping that
//! a switch does not need. A model is thus faster than its kernel.

use std::{
    ptr::null_mut,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};

use fpu_core::{RawFpu, SaveArea};

use crate::ways::{restore, save, Tasks, Way, CPUS, GUEST, TASKS};

/// The instructions alone: a save whenever a task leaves, a restore whenever it enters after that.
pub struct Bare<const SAVE: u8>(pub Tasks);

// SAFETY: one instruction each.
unsafe impl<const SAVE: u8> Way for Bare<SAVE> {
    #[inline(always)]
    fn unknown(&self, _: usize) {}
    #[inline(always)]
    fn leave(&self, _: usize, task: usize) {
        save::<SAVE>(self.0.area(task), self.0.plan.plan_word());
    }
    #[inline(always)]
    fn enter(&self, _: usize, task: usize) {
        restore::<SAVE>(self.0.area(task), self.0.plan.plan_word());
    }
    #[inline(always)]
    fn section(&self, cpu: usize, task: usize) {
        self.leave(cpu, task);
        self.enter(cpu, task);
    }
    #[inline(always)]
    fn guest(&self, cpu: usize, task: usize) {
        self.leave(cpu, task);
        self.enter(cpu, GUEST);
        self.leave(cpu, GUEST);
        self.enter(cpu, task);
    }
}

/// Eager (Redox, Theseus): as [`Bare`], and the idle task has registers too.
pub struct Eager<const SAVE: u8>(pub Bare<SAVE>);

// SAFETY: as for `Bare`.
unsafe impl<const SAVE: u8> Way for Eager<SAVE> {
    #[inline(always)]
    fn unknown(&self, _: usize) {}
    #[inline(always)]
    fn leave(&self, cpu: usize, task: usize) {
        self.0.leave(cpu, task);
    }
    #[inline(always)]
    fn enter(&self, cpu: usize, task: usize) {
        self.0.enter(cpu, task);
    }
    #[inline(always)]
    fn idle(&self, _: usize) {
        let Tasks { idle, plan, .. } = &self.0 .0;
        restore::<SAVE>(idle.base().as_ptr(), plan.plan_word());
        save::<SAVE>(idle.base().as_ptr(), plan.plan_word());
    }
    #[inline(always)]
    fn section(&self, cpu: usize, task: usize) {
        self.0.section(cpu, task);
    }
    #[inline(always)]
    fn guest(&self, cpu: usize, task: usize) {
        self.0.guest(cpu, task);
    }
}

/// What the model of Linux keeps of a task.
#[derive(Default)]
struct Thread {
    /// The thread's flags, of which bit 14 says that the registers are to be loaded.
    flags: AtomicU32,
    last_cpu: AtomicU32,
}

const NEED_FPU_LOAD: u32 = 1 << 14;
const NO_CPU: u32 = u32::MAX;

/// Linux: a flag in the thread, an owner in the CPU, the last CPU in the task.
pub struct Linux<const SAVE: u8> {
    tasks: Tasks,
    threads: [Thread; TASKS],
    owners: [AtomicPtr<u8>; CPUS],
}

impl<const SAVE: u8> Linux<SAVE> {
    /// All in memory.
    pub fn new(tasks: Tasks) -> Self {
        let threads: [Thread; TASKS] = Default::default();
        for thread in &threads {
            thread.flags.store(NEED_FPU_LOAD, Ordering::Relaxed);
            thread.last_cpu.store(NO_CPU, Ordering::Relaxed);
        }
        Self { tasks, threads, owners: [const { AtomicPtr::new(null_mut()) }; CPUS] }
    }
    #[inline(always)]
    fn put_in_memory(&self, cpu: usize, task: usize) {
        let thread = &self.threads[task];
        if thread.flags.load(Ordering::Relaxed) & NEED_FPU_LOAD == 0 {
            save::<SAVE>(self.tasks.area(task), self.tasks.plan.plan_word());
            thread.last_cpu.store(cpu as u32, Ordering::Relaxed);
        }
    }
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

// SAFETY: atomics, and one instruction each.
unsafe impl<const SAVE: u8> Way for Linux<SAVE> {
    #[inline(always)]
    fn unknown(&self, cpu: usize) {
        self.owners[cpu].store(null_mut(), Ordering::Relaxed);
    }
    #[inline(always)]
    fn leave(&self, cpu: usize, task: usize) {
        let thread = &self.threads[task];
        if thread.flags.load(Ordering::Relaxed) & NEED_FPU_LOAD == 0 {
            self.put_in_memory(cpu, task);
            // Other code sets other flags of the thread at any time.
            thread.flags.fetch_or(NEED_FPU_LOAD, Ordering::SeqCst);
        }
    }
    #[inline(always)]
    fn enter(&self, cpu: usize, task: usize) {
        let (thread, area) = (&self.threads[task], self.tasks.area(task));
        if thread.flags.load(Ordering::Relaxed) & NEED_FPU_LOAD == 0 {
            return;
        }
        let owner = self.owners[cpu].load(Ordering::Relaxed);
        if owner != area || thread.last_cpu.load(Ordering::Relaxed) != cpu as u32 {
            restore::<SAVE>(area, self.tasks.plan.plan_word());
            self.owners[cpu].store(area, Ordering::Relaxed);
            thread.last_cpu.store(cpu as u32, Ordering::Relaxed);
        }
        thread.flags.fetch_and(!NEED_FPU_LOAD, Ordering::SeqCst);
    }
    #[inline(always)]
    fn section(&self, cpu: usize, task: usize) {
        self.leave(cpu, task);
        self.unknown(cpu);
    }
    #[inline(always)]
    fn guest(&self, cpu: usize, task: usize) {
        // KVM_RUN loads the guest in place of the task. An exit that the kernel handles leaves it in the registers.
        let guest = self.tasks.area(GUEST);
        if self.owners[cpu].load(Ordering::Relaxed) != guest {
            self.leave(cpu, task);
            restore::<SAVE>(guest, self.tasks.plan.plan_word());
            self.owners[cpu].store(guest, Ordering::Relaxed);
        }
    }
    #[inline(always)]
    fn guest_ends(&self, cpu: usize) {
        save::<SAVE>(self.tasks.area(GUEST), self.tasks.plan.plan_word());
        self.unknown(cpu);
    }
}
