//! The scheduler: one queue for all CPUs, and a preference for moving tasks about.

use core::{
    mem::{forget, replace},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use spin::Mutex;
use x86_64::instructions::interrupts::without_interrupts;

use crate::{
    counts,
    cpu::{state, this_cpu, PerCpu},
    entry::Frame,
    faults::Fault,
    fpu::{self, IrqsOff},
    seeded,
    task::{self, Task, TASKS},
    verdict, vmcb,
};

/// Who could run and does not.
struct Queue {
    ready: [bool; TASKS],
}

/// Taken with interrupts off, and held over a switch of stacks: no CPU can take a task whose stack is in
/// use. It orders what one CPU did with a task before what the next does (K5).
static QUEUE: Mutex<Queue> = Mutex::new(Queue { ready: [false; TASKS] });

/// CPUs that are running, to spread pinned tasks when the fault asks for it.
static CPUS: AtomicU64 = AtomicU64::new(1);

/// What a caller of [`schedule`] would like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Anybody, the caller included.
    Any,
    /// Nobody: the CPU shall be idle for a while.
    Idle,
    /// The user task that was here last, if it has not run elsewhere and can run.
    Back,
}

/// Lets all tasks run.
pub fn open(cpus: usize) {
    CPUS.store(cpus as u64, Ordering::Relaxed);
    let mut queue = QUEUE.lock();
    for task in task::all() {
        queue.ready[task.slot] = task.vcpu().is_none() || vmcb::available();
    }
}

/// Tells whether the task may run here now.
fn allowed(task: &Task, cpu: &PerCpu, queue: &Queue) -> bool {
    let here = cpu.number.get() as usize;
    let fixed = seeded::on(Fault::NoMigration) && task.is_user();
    queue.ready[task.slot]
        && task.pinned_to().is_none_or(|only| only == here)
        && !(fixed && task.slot as u64 % CPUS.load(Ordering::Relaxed) != here as u64)
}

fn pick(queue: &Queue, cpu: &PerCpu, prev: &'static Task, next: Next) -> &'static Task {
    let idle = task::idle_of(cpu.number.get() as usize);
    if next == Next::Idle || cpu.state.load(Ordering::Relaxed) != state::ON {
        return idle;
    }
    let random = cpu.random();
    // Back to the user task whose registers may still be here.
    if !prev.is_user() && (random & 1 == 0 || next == Next::Back) {
        let last = cpu.last_user.get().map(task::by_slot);
        if let Some(last) = last.filter(|last| allowed(last, cpu, queue)) {
            return last;
        }
    }
    let here = u64::from(cpu.number.get()) + 1;
    let from = (random >> 8) as usize % task::all().len();
    let (before, after) = task::all().split_at(from);
    let others = || after.iter().chain(before).filter(|task| allowed(task, cpu, queue));
    // One from elsewhere, more often than not.
    let moves = others().find(|task| {
        task.is_user() && task.last_cpu.load(Ordering::Relaxed) != here && random & 6 != 0
    });
    match moves.or_else(|| others().next()) {
        Some(task) => task,
        None if prev.pinned_to().is_none() || prev.kind == task::Kind::Power => prev,
        None => idle,
    }
}

/// Gives the CPU to another thread. Interrupts are off. Returns when the caller's turn comes again, maybe on
/// another CPU.
pub fn schedule(next: Next) {
    let cpu = this_cpu();
    cpu.resched.set(false);
    let prev = task::of(cpu);
    let mut queue = QUEUE.lock();
    let next = pick(&queue, cpu, prev, next);
    if ptr::eq(prev, next) {
        return;
    }
    if !prev.stack_is_whole() {
        verdict::fail(format_args!("the kernel stack of task {} overflows", prev.slot));
    }
    // SAFETY: interrupts are off until after the last use, which is before the switch of stacks.
    let irqs_off = unsafe { IrqsOff::new() };
    fpu::picked(next.fpu(), &irqs_off);
    let unsaved = prev.vcpu().is_some() && seeded::on(Fault::GuestUnsaved);
    if !seeded::on(Fault::ForgetPrepare) && !unsaved {
        let saved = counts::saved(&cpu.counters);
        if let Err(why) = fpu::leave(prev.fpu(), &irqs_off) {
            verdict::refused(prev, why);
        }
        counts::of_guest(prev.vcpu().is_some(), &cpu.counters, saved);
    }
    if seeded::on(Fault::LatePkru) {
        fpu::switch_rights(prev.pkru(), None);
    } else if !seeded::on(Fault::NoPkru) {
        fpu::switch_rights(prev.pkru(), next.pkru());
    }
    if prev.is_user() {
        cpu.last_user.set(Some(prev.slot));
    }
    queue.ready[prev.slot] = prev.kind != task::Kind::Idle;
    queue.ready[next.slot] = false;
    next.arrives(cpu);
    // SAFETY: interrupts are off, and its stack is switched to next.
    unsafe { next.becomes_current(cpu) };
    // The other stack gives it back.
    forget(queue);
    // SAFETY: `next` is no CPU's current task, so its pointer is that of its last switch, or `spawn`'s.
    unsafe { switch_stacks(prev.rsp.as_ptr(), next.rsp.get()) };
    // SAFETY: this stack has just been switched to.
    unsafe { finish_switch() };
}

extern "C" {
    fn switch_stacks(keep: *mut u64, other: u64);
}

/// A task that does not run, and will not while the value lives. Another kernel's waits for that; this one's is not had.
pub struct Stop {
    pub task: &'static Task,
    held: bool,
}

impl Stop {
    /// `None` if it runs, or is stopped already.
    pub fn new(task: &'static Task) -> Option<Self> {
        let held = without_interrupts(|| replace(&mut QUEUE.lock().ready[task.slot], false));
        (held || seeded::on(Fault::TraceRunning)).then_some(Self { task, held })
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if self.held {
            without_interrupts(|| QUEUE.lock().ready[self.task.slot] = true);
        }
    }
}

/// The first thing on a stack that has been switched to.
///
/// # Safety
///
/// It is, and no code has done it yet.
pub unsafe fn finish_switch() {
    // SAFETY: taken by `schedule` on the stack that was left.
    unsafe { QUEUE.force_unlock() };
}

/// Tells whether the code that `frame` interrupted may give the CPU to another thread.
pub fn preemptible(frame: &Frame) -> bool {
    let cpu = this_cpu();
    if seeded::on(Fault::NoTimer) {
        return false;
    }
    if cpu.preempt_off.get() > 0 {
        cpu.resched.set(true);
        return false;
    }
    // With interrupts off nothing is interrupted; a system call runs with them off, or in a section.
    frame.is_user() || !task::of(cpu).is_user()
}

/// The timer found that another thread may run. Interrupts are off.
pub fn preempt() {
    let task = task::current();
    task.preemptions.fetch_add(1, Ordering::Relaxed);
    schedule(Next::Any);
}
