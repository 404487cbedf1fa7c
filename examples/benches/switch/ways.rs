//! The ways to switch that are compared: what each does when a task leaves a CPU, enters user mode, calls the kernel.

use std::{
    arch::asm,
    sync::atomic::{AtomicU32, Ordering},
};

use fpu_core::{
    raw, Area, CpuFpu, CpuLifecycle, FpuRef, HeapArea, KernelFpu, KernelUnits, RawFpu, SaveArea,
    TaskFpu, TheBackend,
};
use fpu_x86::{Plan, SaveInstruction};

/// Tasks of a scenario.
pub const TASKS: usize = 3;
/// The task that stands for a virtual CPU.
pub const GUEST: usize = 2;
/// CPUs of a scenario.
pub const CPUS: usize = 2;

/// A way to switch.
///
/// # Safety
///
/// Each call keeps to general registers and to what it says it does with the others.
pub unsafe trait Way: Sized {
    /// The registers of this CPU hold nothing that is known.
    fn unknown(&self, cpu: usize);
    /// The current task is switched out.
    fn leave(&self, cpu: usize, task: usize);
    /// Other code than the scenario's is about to use the registers, which the task leaves saved.
    #[inline(always)]
    fn ends(&self, cpu: usize, task: usize) {
        self.leave(cpu, task);
    }
    /// The current task enters user mode.
    fn enter(&self, cpu: usize, task: usize);
    /// The scheduler has picked the task, which enters user mode soon.
    #[inline(always)]
    fn picked(&self, _cpu: usize, _task: usize) {}
    /// The idle task comes and goes.
    #[inline(always)]
    fn idle(&self, _cpu: usize) {}
    /// The kernel uses the registers in a system call of the task.
    fn section(&self, cpu: usize, task: usize);
    /// The host thread of a virtual CPU goes back to user mode.
    #[inline(always)]
    fn guest_ends(&self, _cpu: usize) {}
    /// A virtual CPU enters and exits, on behalf of the task. Asked only of ways that have it.
    #[inline(always)]
    fn guest(&self, _cpu: usize, _task: usize) {
        unreachable_guest();
    }
}

#[cold]
#[inline(never)]
fn unreachable_guest() -> ! {
    std::process::abort();
}

/// An area of a way.
pub trait Make: SaveArea + Sized + 'static {
    fn make(plan: &TheBackend<Plan>) -> Result<Self, Box<dyn std::error::Error>>;
}
impl Make for HeapArea {
    fn make(plan: &TheBackend<Plan>) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self::for_backend(plan)?)
    }
}
/// In the context itself: its address needs no load.
pub type Inline = Area<4096>;
impl Make for Inline {
    fn make(_: &TheBackend<Plan>) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self::new())
    }
}

/// The contexts, areas and words of one way. All ways have them, so that memory is laid out alike.
pub struct Tasks<A = Inline> {
    /// The backend.
    pub plan: TheBackend<Plan>,
    /// The contexts.
    pub tasks: [TaskFpu<Plan, A>; TASKS],
    /// The CPUs' words.
    pub cpus: [CpuFpu; CPUS],
    /// Calls that were refused.
    pub refused: AtomicU32,
    /// The idle task's own area, for kernels where it has one.
    pub idle: HeapArea,
}

impl<A: Make> Tasks<A> {
    /// New contexts, all CPUs online.
    pub fn new(plan: Plan) -> Result<Self, Box<dyn std::error::Error>> {
        // SAFETY: K1: these contexts and CPUs use this plan and no other.
        let plan = unsafe { TheBackend::new(plan) };
        let task = || -> Result<_, Box<dyn std::error::Error>> {
            Ok(TaskFpu::new(&plan, A::make(&plan)?)?)
        };
        let tasks = [task()?, task()?, task()?];
        let idle = HeapArea::for_backend(&plan)?;
        // SAFETY: C9: as long as the plan asks for.
        unsafe { plan.write_initial(idle.base()) };
        let this = Self {
            plan,
            tasks,
            cpus: [CpuFpu::new(), CpuFpu::new()],
            refused: AtomicU32::new(0),
            idle,
        };
        for cpu in 0..CPUS {
            // SAFETY: K15, K16: new words, a number each.
            unsafe { this.cpu(cpu).fpu_online(cpu as u32)? };
        }
        Ok(this)
    }
    #[inline(always)]
    pub fn cpu(&self, number: usize) -> Cpu<'_> {
        Cpu { plan: &self.plan, words: &self.cpus[number] }
    }
    fn area_by_steps(&self, task: usize) -> Result<*const u8, fpu_core::Error> {
        Ok(self.tasks[task].begin_user(&mut self.cpu(0))?.steps().restore_from)
    }
    #[inline(always)]
    fn context(&self, task: usize) -> FpuRef<'_, Plan> {
        self.tasks[task].context()
    }
    #[cold]
    #[inline(never)]
    pub fn quiet_refused(&self) {
        self.refused.store(1, Ordering::Relaxed);
    }
}

impl Tasks {
    /// A task's area, for those who save by themselves: behind the word, as the check says.
    #[inline(always)]
    pub fn area(&self, task: usize) -> *mut u8 {
        std::ptr::from_ref(&self.tasks[task])
            .cast::<u8>()
            .cast_mut()
            .wrapping_add(align_of::<Inline>())
    }
    /// The library says the same.
    pub fn checked(self) -> Result<Self, Box<dyn std::error::Error>> {
        for task in 0..TASKS {
            if self.area_by_steps(task)? != self.area(task) {
                return Err("the area does not follow the word".into());
            }
        }
        Ok(self)
    }
}

/// Proof of running on a CPU of the scenario.
pub struct Cpu<'t> {
    plan: &'t TheBackend<Plan>,
    words: &'t CpuFpu,
}

fpu_core::witness! {
    // SAFETY: K2: a thread that stands for this CPU, pinned where there are two. K3: each thread uses the words of its
    // number. K4: the system has the plan's components enabled. K5: one thread at a time uses a task, by turns. K6, K8:
    // a thread has no interrupts and installs no handler. K9: while registers hold a task, only the functions here run,
    // which are scalar.
    unsafe impl Pinned + Exclusive + SoftFloat for Cpu<'_> {
        backend: Plan = |cpu| cpu.plan,
        words: CpuFpu = |cpu| cpu.words,
    }
}

/// The save instructions of user mode, by number, so that a way has its own as a constant.
pub const XSAVEC: u8 = 0;
pub const XSAVEOPT: u8 = 1;
pub const XSAVE: u8 = 2;
pub const FXSAVE: u8 = 3;

/// The number of a plan's instruction; `None`: user mode does not have it.
pub fn number(instruction: SaveInstruction) -> Option<u8> {
    match instruction {
        SaveInstruction::Xsavec => Some(XSAVEC),
        SaveInstruction::Xsaveopt => Some(XSAVEOPT),
        SaveInstruction::Xsave => Some(XSAVE),
        SaveInstruction::Fxsave => Some(FXSAVE),
        _ => None,
    }
}

/// Executes one save instruction.
#[inline(always)]
pub fn save<const SAVE: u8>(area: *mut u8, mask: u64) {
    // SAFETY: an area of the plan whose mask this is; the CPU has the instruction, which the plan was made with.
    unsafe {
        match SAVE {
            XSAVEC => {
                asm!("xsavec64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack, preserves_flags))
            }
            XSAVEOPT => {
                asm!("xsaveopt64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack, preserves_flags))
            }
            XSAVE => {
                asm!("xsave64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack, preserves_flags))
            }
            _ => asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)),
        }
    }
}

/// Executes the restore instruction of the same image.
#[inline(always)]
pub fn restore<const SAVE: u8>(area: *const u8, mask: u64) {
    // SAFETY: as for `save`; the image was written by it, or by the plan's own functions.
    unsafe {
        if SAVE == FXSAVE {
            asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags, readonly));
        } else {
            asm!("xrstor64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nostack, preserves_flags, readonly));
        }
    }
}

/// `fpu-core`'s calls with witnesses.
pub struct Typed<A = Inline>(pub Tasks<A>);

// SAFETY: the library's calls, whose object code is checked to be scalar.
unsafe impl<A: Make> Way for Typed<A> {
    #[inline(always)]
    fn unknown(&self, cpu: usize) {
        if self.0.cpu(cpu).invalidate_registers().is_err() {
            self.0.quiet_refused();
        }
    }
    #[inline(always)]
    fn leave(&self, cpu: usize, task: usize) {
        if self.0.tasks[task].switch_prepare(&self.0.cpu(cpu)).is_err() {
            self.0.quiet_refused();
        }
    }
    #[inline(always)]
    fn picked(&self, cpu: usize, task: usize) {
        self.0.tasks[task].prefetch(&self.0.cpu(cpu));
    }
    #[inline(always)]
    fn enter(&self, cpu: usize, task: usize) {
        if self.0.tasks[task].switch_return(&mut self.0.cpu(cpu)).is_err() {
            self.0.quiet_refused();
        }
    }
    #[inline(always)]
    fn section(&self, cpu: usize, task: usize) {
        if self.0.cpu(cpu).kernel_fpu(Some(self.0.context(task)), KernelUnits::NONE).is_err() {
            self.0.quiet_refused();
        }
    }
    #[inline(always)]
    fn guest(&self, cpu: usize, task: usize) {
        let (guest, host) = (self.0.context(GUEST), self.0.context(task));
        if self.0.cpu(cpu).run_guest(guest, Some(host), || ()).is_err() {
            self.0.quiet_refused();
        }
    }
}

/// The steps form: the decision in Rust, the instructions here.
pub struct Steps<const SAVE: u8>(pub Tasks);

// SAFETY: the library's calls, whose object code is checked to be scalar, and the instructions that they ask for.
unsafe impl<const SAVE: u8> Way for Steps<SAVE> {
    #[inline(always)]
    fn unknown(&self, cpu: usize) {
        if self.0.cpu(cpu).invalidate_registers().is_err() {
            self.0.quiet_refused();
        }
    }
    #[inline(always)]
    fn leave(&self, cpu: usize, task: usize) {
        match self.0.tasks[task].begin_switch_out(&mut self.0.cpu(cpu)) {
            Ok(None) => {}
            Ok(Some(pending)) => {
                let steps = pending.steps();
                save::<SAVE>(steps.save_to, steps.mask);
                // SAFETY: C15: just executed.
                unsafe { pending.saved() };
            }
            Err(_) => self.0.quiet_refused(),
        }
    }
    #[inline(always)]
    fn enter(&self, cpu: usize, task: usize) {
        match self.0.tasks[task].begin_user(&mut self.0.cpu(cpu)) {
            Ok(pending) => {
                let steps = pending.steps();
                if !steps.restore_from.is_null() {
                    restore::<SAVE>(steps.restore_from, steps.mask);
                }
                // SAFETY: C12, C13: restored just now if due, and the registers are as they were.
                let _ready = unsafe { pending.restored() };
            }
            Err(_) => self.0.quiet_refused(),
        }
    }
    #[inline(always)]
    fn section(&self, cpu: usize, task: usize) {
        self.leave(cpu, task);
        self.unknown(cpu);
    }
}

/// The calls for assembly, as functions.
pub struct Raw<const SAVE: u8>(pub Tasks);

impl<const SAVE: u8> Raw<SAVE> {
    #[inline(always)]
    fn word(&self, task: usize) -> *const raw::TaskWord {
        std::ptr::from_ref(&self.0.tasks[task]).cast()
    }
}

// SAFETY: as for `Steps`.
unsafe impl<const SAVE: u8> Way for Raw<SAVE> {
    #[inline(always)]
    fn unknown(&self, cpu: usize) {
        if self.0.cpu(cpu).invalidate_registers().is_err() {
            self.0.quiet_refused();
        }
    }
    #[inline(always)]
    fn leave(&self, cpu: usize, task: usize) {
        // SAFETY: C16: a context and a CPU of these tasks. C17: what is asked for is done. C18: scalar code.
        unsafe {
            match raw::switch_out(self.word(task), &self.0.cpus[cpu]) {
                raw::NOTHING => {}
                raw::SAVE => {
                    save::<SAVE>(self.0.area(task), self.0.plan.plan_word());
                    raw::saved(self.word(task));
                }
                _ => self.0.quiet_refused(),
            }
        }
    }
    #[inline(always)]
    fn enter(&self, cpu: usize, task: usize) {
        // SAFETY: C16: a context and a CPU of these tasks. C17: what is asked for is done. C18: scalar code.
        unsafe {
            match raw::switch_return(self.word(task), &self.0.cpus[cpu]) {
                raw::NOTHING | raw::MARKED => {}
                raw::RESTORE => {
                    restore::<SAVE>(self.0.area(task), self.0.plan.plan_word());
                    raw::restored(self.word(task), &self.0.cpus[cpu]);
                }
                _ => self.0.quiet_refused(),
            }
        }
    }
    #[inline(always)]
    fn section(&self, cpu: usize, task: usize) {
        self.leave(cpu, task);
        self.unknown(cpu);
    }
}
