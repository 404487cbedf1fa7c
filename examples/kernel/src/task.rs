//! Tasks: seven in user mode, kernel threads, and one idle task a CPU.

use core::{
    cell::{Cell, UnsafeCell},
    mem::size_of,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use fpu_core::{AreaError, Error};
use fpu_x86::{Permissions, Pkru, TaskPkru};
use spin::Mutex;

use crate::{
    areas, boot,
    cpu::{this_cpu, PerCpu, USER_CS, USER_SS},
    entry::Frame,
    faults::Fault,
    fpu::{self, Fpu, IrqsOff, AREA},
    hw,
    memory::Memory,
    params::MAX_CPUS,
    regs::RegFile,
    seeded,
    user::{self, UserBlock, BLOCK_BYTES, RAISE},
};

/// Tasks that hold patterns in every register.
pub const HOLDERS: usize = 6;
/// The task that never touches the FPU.
const QUIET: usize = HOLDERS;
/// Tasks in user mode.
pub const USERS: usize = QUIET + 1;
/// Kernel threads that use the FPU in sections.
pub const WORKERS: usize = 2;
const POWER: usize = USERS + WORKERS;
const DEBUGGER: usize = POWER + 1;
const VCPU: usize = DEBUGGER + 1;
/// Kernel threads that run a virtual CPU, where there is SVM.
pub const VCPUS: usize = 2;
const IDLE: usize = VCPU + VCPUS;
/// All tasks; the last are the idle ones.
pub const TASKS: usize = IDLE + MAX_CPUS;

pub const USER_PAGE: usize = boot::USER_PAGE as usize;
/// The tasks' memory in user mode, behind their program.
const BLOCKS: usize = USER_PAGE + 0x1_0000;
const _: () = assert!(BLOCKS + USERS * BLOCK_BYTES <= USER_PAGE + boot::USER_PAGE_SIZE as usize);
const STACK: usize = 16 * 1024;
/// The lowest word of a stack, which nothing may reach.
const CANARY: u64 = 0xDEAD_57AC_DEAD_57AC;
/// Interrupts on.
pub const USER_RFLAGS: u64 = 0x202;

/// What a task is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs in user mode, with patterns in its registers.
    Holder,
    /// Runs in user mode, and leaves the FPU alone.
    Quiet,
    /// A kernel thread that uses the FPU in sections.
    Worker,
    /// The kernel thread that takes CPUs down, and judges.
    Power,
    /// The kernel thread that stops tasks and looks at their registers.
    Debugger,
    /// A kernel thread that runs a virtual CPU, whose context is the one that it has.
    Vcpu,
    /// Runs when no other thread does.
    Idle,
}

/// The area of a child that has not begun; areas go from hand to hand with their contexts.
pub const CRADLE: usize = USERS;
const _: () = assert!(areas::CONTEXTS == USERS + 1);
static VCPU_AREAS: [Memory<AREA>; VCPUS] = [const { Memory::new() }; VCPUS];
static STACKS: [Memory<STACK>; TASKS] = [const { Memory::new() }; TASKS];
static ALL: [Task; TASKS] = {
    let mut all = [const { Task::new(0) }; TASKS];
    let mut slot = 0;
    while slot < TASKS {
        all[slot] = Task::new(slot);
        slot += 1;
    }
    all
};

/// One task.
pub struct Task {
    pub slot: usize,
    pub kind: Kind,
    /// The stack pointer while it does not run.
    pub rsp: Cell<u64>,
    /// `None` in kernel threads but those that run a virtual CPU, and idle.
    fpu: UnsafeCell<Option<Fpu>>,
    /// Which memory its context has.
    area: Cell<usize>,
    /// Where it ran last, and one; 0 for nowhere.
    pub last_cpu: AtomicU64,
    pub switches: AtomicU64,
    pub migrations: AtomicU64,
    pub preemptions: AtomicU64,
    /// Those that had to wait for the end of a system call.
    pub deferred: AtomicU64,
    /// Patterns come from it; grows with every round.
    pub seed: Cell<u64>,
    /// What it may do with user memory of each key. Of tasks in user mode.
    pkru: TaskPkru,
    /// What its shadow-stack pointer should be, where the plan switches it.
    pub ssp: Cell<u64>,
    /// Its image is bad on purpose.
    pub spoilt: Cell<bool>,
    /// It is a child that has not looked at its registers yet.
    pub forked: Cell<bool>,
    /// It has begun another program and not looked at its registers yet.
    pub execed: Cell<bool>,
    /// What its process may use on demand. Taken with interrupts off.
    pub permissions: Mutex<Permissions>,
    /// A signal is due; any CPU may say so.
    pub signal: AtomicBool,
    /// Times that a debugger has changed its registers since it looked at them.
    pub traced: Cell<u32>,
    /// What a signal has interrupted, while its handler runs.
    pub interrupted: Cell<Option<Frame>>,
}

// SAFETY: cells are used by the CPU on which the task is current, which the scheduler's lock decides.
unsafe impl Sync for Task {}

impl Task {
    const fn new(slot: usize) -> Self {
        let kind = match slot {
            0..HOLDERS => Kind::Holder,
            QUIET => Kind::Quiet,
            USERS..POWER => Kind::Worker,
            POWER => Kind::Power,
            DEBUGGER => Kind::Debugger,
            VCPU..IDLE => Kind::Vcpu,
            _ => Kind::Idle,
        };
        Self {
            slot,
            kind,
            rsp: Cell::new(0),
            fpu: UnsafeCell::new(None),
            area: Cell::new(slot),
            last_cpu: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            migrations: AtomicU64::new(0),
            preemptions: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
            seed: Cell::new(0),
            pkru: TaskPkru::new(Pkru::LINUX_DEFAULT),
            ssp: Cell::new(0),
            spoilt: Cell::new(false),
            forked: Cell::new(false),
            execed: Cell::new(false),
            permissions: Mutex::new(Permissions::new()),
            signal: AtomicBool::new(false),
            traced: Cell::new(0),
            interrupted: Cell::new(None),
        }
    }

    /// Its context, if it has one.
    #[inline(always)]
    pub fn fpu(&self) -> Option<&Fpu> {
        // SAFETY: written only by `spawn`, before it runs, and by `born_again` and `fork`, by itself.
        unsafe { (*self.fpu.get()).as_ref() }
    }

    /// Its rights, if it has user memory.
    #[inline(always)]
    pub fn pkru(&self) -> Option<&TaskPkru> {
        self.is_user().then_some(&self.pkru)
    }

    /// The first byte above its kernel stack.
    pub fn stack_top(&self) -> u64 {
        STACKS[self.slot].base().as_ptr() as u64 + STACK as u64
    }

    /// What its last entry into the kernel has left.
    ///
    /// # Safety
    ///
    /// It runs in user mode, and is switched out while the value lives.
    pub unsafe fn frame(&self) -> &Frame {
        // SAFETY: all entries and `spawn` put it at the top of the stack, and the task does not run.
        unsafe { &*((self.stack_top() - size_of::<Frame>() as u64) as *const Frame) }
    }

    /// Tells whether the task's stack has overflowed, or come close to it.
    pub fn stack_is_whole(&self) -> bool {
        // SAFETY: `spawn` put the word there.
        unsafe { STACKS[self.slot].base().cast::<u64>().read() == CANARY }
    }

    /// Which of the workers it is.
    pub fn worker(&self) -> usize {
        self.slot.wrapping_sub(USERS) % WORKERS
    }

    /// The virtual CPU that the task runs.
    pub fn vcpu(&self) -> Option<usize> {
        (self.kind == Kind::Vcpu).then(|| self.slot - VCPU)
    }

    /// Tells whether the task runs in user mode.
    pub fn is_user(&self) -> bool {
        self.slot < USERS
    }

    /// The only CPU that it may run on.
    pub fn pinned_to(&self) -> Option<usize> {
        match self.kind {
            Kind::Power => Some(0),
            Kind::Idle => Some(self.slot - IDLE),
            _ => None,
        }
    }

    /// Its memory in user mode.
    pub fn block(&self) -> *mut UserBlock {
        (BLOCKS + self.slot * BLOCK_BYTES) as *mut UserBlock
    }

    /// The memory of its context.
    pub fn area(&self) -> NonNull<u8> {
        areas::memory(self.area.get())
    }

    /// Its context and the number of its memory, to be exchanged for others.
    ///
    /// # Safety
    ///
    /// Interrupts are off, this is the current task, and no code has what [`fpu`](Self::fpu) gives.
    #[allow(clippy::mut_from_ref)] // From the cell of the task that runs.
    pub unsafe fn context(&self) -> (&mut Option<Fpu>, &Cell<usize>) {
        // SAFETY: the caller's.
        (unsafe { &mut *self.fpu.get() }, &self.area)
    }

    /// Makes it the one that runs here, before its stack is.
    ///
    /// # Safety
    ///
    /// As for [`PerCpu::set_current`].
    pub unsafe fn becomes_current(&self, cpu: &PerCpu) {
        // SAFETY: the caller's.
        unsafe { cpu.set_current(self.slot, self.stack_top()) };
    }

    /// Counts that it begins to run here.
    pub fn arrives(&self, cpu: &PerCpu) {
        let here = u64::from(cpu.number.get()) + 1;
        let before = self.last_cpu.swap(here, Ordering::Relaxed);
        self.switches.fetch_add(1, Ordering::Relaxed);
        if before != 0 && before != here {
            self.migrations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The start of a life: registers, and memory in user mode, are initial.
    fn begin_life(&self, frame: &mut Frame) {
        let block = self.block();
        // SAFETY: a frame is integers, for which zero is a value.
        *frame = unsafe { core::mem::zeroed() };
        frame.rip = USER_PAGE as u64;
        if self.kind == Kind::Quiet {
            frame.rip += user::quiet_entry() as u64;
        }
        (frame.cs, frame.ss) = (USER_CS.into(), USER_SS.into());
        frame.rflags = USER_RFLAGS;
        frame.rbx = block as u64;
        frame.rsp = block as u64 + BLOCK_BYTES as u64;
        self.ssp.set(0);
        self.spoilt.set(false);
        self.interrupted.set(None);
        self.traced.set(0);
        self.execed.set(false);
        // SAFETY: the task's own memory, in the identity map, and it does not run in user mode now.
        unsafe {
            (*block).want = RegFile::initial(hw::classes());
            (*block).seen = RegFile::initial(hw::classes());
            (*block).handler_seen = RegFile::initial(hw::classes());
            (*block).handler_loads = RegFile::initial(hw::classes());
            (*block).has_pkru = u32::from(hw::has_pkru());
            (*block).edits = 0;
            (*block).tiles = 0;
            (*block).pkru_want = if hw::has_pkru() { Pkru::LINUX_DEFAULT.bits() } else { 0 };
            // Until it looks.
            (*block).pkru_seen = (*block).pkru_want;
        }
    }

    /// Begins its program anew: it stays, with initial registers. The error is the library's.
    ///
    /// # Safety
    ///
    /// Interrupts are off, this is the current task, and `frame` is its own.
    pub unsafe fn exec(&self, frame: &mut Frame, here: &mut IrqsOff) -> Result<(), Error> {
        self.begin_life(frame);
        fpu::KEYS.exec(&self.pkru);
        self.execed.set(true);
        match self.fpu() {
            Some(fpu) if !seeded::on(Fault::ExecKeeps) => fpu.reset(here),
            _ => Ok(()),
        }
    }

    /// Tells the library to write its image anew in memory that held another task's a moment ago, while
    /// registers may still hold that one's.
    ///
    /// # Safety
    ///
    /// Interrupts are off, this is the current task, and `frame` is its own.
    pub unsafe fn born_again(&self, frame: &mut Frame) -> Result<(), AreaError> {
        let spoilt = self.spoilt.get();
        self.begin_life(frame);
        fpu::KEYS.exec(&self.pkru);
        if seeded::on(Fault::StaleSlot) && !spoilt {
            return Ok(());
        }
        // SAFETY: the current task's own, with interrupts off: no other code looks.
        let slot = unsafe { &mut *self.fpu.get() };
        *slot = None;
        *self.permissions.lock() = Permissions::new();
        self.area.set(areas::small_again(self.area.get()));
        // SAFETY: K19: the context that had it is gone.
        *slot = Some(unsafe { fpu::new_context(self.area(), areas::len(self.area.get())) }?);
        Ok(())
    }

    /// Tells whether the task is to raise an x87 error in user mode.
    pub fn raises(&self) -> bool {
        // SAFETY: the task's own memory, while it waits.
        unsafe { (*self.block()).action == RAISE }
    }

    /// Breaks the image in a way that the processor refuses, and no safe function can.
    ///
    /// # Safety
    ///
    /// The task is current, in memory only, and [`hw::bad_images`] is true.
    pub unsafe fn spoil(&self) {
        self.spoilt.set(true);
        // SAFETY: the caller's.
        unsafe { hw::spoil(self.area()) };
    }
}

/// The task of a slot.
#[inline(always)]
pub fn by_slot(slot: usize) -> &'static Task {
    &ALL[slot]
}
/// What runs on this CPU.
pub fn current() -> &'static Task {
    of(this_cpu())
}
/// What runs on a CPU.
pub fn of(cpu: &PerCpu) -> &'static Task {
    by_slot(cpu.current())
}
/// All tasks that are not idle.
pub fn all() -> &'static [Task] {
    &ALL[..IDLE]
}
/// Those that run in user mode.
pub fn users() -> &'static [Task] {
    &ALL[..USERS]
}
/// A CPU's idle task.
pub fn idle_of(cpu: usize) -> &'static Task {
    &ALL[IDLE + cpu]
}

extern "C" {
    fn task_entry();
}

/// Makes all tasks but the idle ones. The error is that of a task's context.
///
/// # Safety
///
/// Called once, on the first CPU, before others are started.
pub unsafe fn spawn(seed: u64) -> Result<(), AreaError> {
    let blob = user::blob();
    // SAFETY: the user page has no user yet; the blob is shorter than what is before the blocks.
    unsafe { (USER_PAGE as *mut u8).copy_from_nonoverlapping(blob.as_ptr(), blob.len()) };
    for stack in &STACKS {
        // SAFETY: no code uses the stacks yet.
        unsafe { stack.base().cast::<u64>().write(CANARY) };
    }
    for task in all() {
        task.seed.set(seed * 1_000_003 + task.slot as u64 * 65_537);
        let mut top = task.stack_top();
        if task.is_user() {
            // SAFETY: K19: the slot's own memory, given once.
            let context = unsafe { fpu::new_context(task.area(), areas::len(task.area.get())) }?;
            // SAFETY: the task does not run yet.
            unsafe { *task.fpu.get() = Some(context) };
            top -= size_of::<Frame>() as u64;
            // SAFETY: the top of its own stack, which no code uses yet.
            task.begin_life(unsafe { &mut *(top as *mut Frame) });
        }
        if let Some(number) = task.vcpu() {
            // SAFETY: K19: the virtual CPU's own memory, given once.
            let context = unsafe { fpu::new_context(VCPU_AREAS[number].base(), AREA) }?;
            // SAFETY: the task does not run yet.
            unsafe { *task.fpu.get() = Some(context) };
        }
        // What `switch_stacks` pops: six registers, and where to go. The stack is aligned for a call there.
        let words = top as *mut u64;
        // SAFETY: the top of its own stack, which no code uses yet.
        unsafe { words.sub(2).write(task_entry as *const () as u64) };
        task.rsp.set(top - 8 * 8);
    }
    Ok(())
}
