//! The kernel of the documentation examples of `fpu-core`: a few lines over one simulated CPU per thread.
//!
//! ```
//! use fpu_hosted_test::doc::*;
//! let (mut cpu, task) = cpu_and_task();
//! drop(task.switch_return(&mut cpu)?);
//! cpu.set_avx0(7); // user mode
//! task.switch_prepare(&cpu)?;
//! assert_eq!((cpu.avx0(), cpu.totals().saved), (7, 1));
//! # Ok::<(), fpu_core::Error>(())
//! ```

pub use crate::sim::Room;
use crate::sim::{SimCpu, SimFpu, SimStopped, SimWords, XfdCpu, XfdFpu, AREA_LEN, BASE_LEN};
use core::{cell::Cell, marker::PhantomData, ptr::NonNull};
use fpu_core::{
    observe::Totals, trap::Trapped, BoundCpu, BoundSlot, CpuFpu, GuestSteps, HeapArea, RawFpu,
    RestoreFault, SaveSteps, SwitchSteps, TaskFpu, TheBackend, UserSteps,
};
pub use fpu_core::{session::TaskState, CpuLifecycle, KernelFpu, KernelUnits, Pinned};

/// The backend.
pub type Backend = SimFpu;
/// Bytes of an image.
pub const AREA: usize = AREA_LEN;
/// Memory for one image.
pub type Area = fpu_core::Area<AREA>;
/// A task's context.
pub type Task = TaskFpu<Backend, Area>;
type Slots = BoundCpu<Backend, Area, [BoundSlot<Backend, Area>; 4]>;

thread_local! {
    static CPU: Cell<Option<&'static SimCpu>> = const { Cell::new(None) };
    static BOUND: Cell<Option<&'static Slots>> = const { Cell::new(None) };
    static WORDS: &'static CpuFpu = Box::leak(Box::new(CpuFpu::new()));
}

/// Proof of holding this thread's CPU, with interrupts off.
#[derive(Debug)]
pub struct Cpu(PhantomData<*mut ()>);

fn this_cpu() -> &'static SimCpu {
    CPU.with(|cpu| match cpu.get() {
        Some(cpu) => cpu,
        None => {
            let new: &'static SimCpu = Box::leak(Box::new(SimCpu::offline()));
            cpu.set(Some(new));
            new
        }
    })
}

/// The bound contexts of this thread's CPU, as its per-CPU data would hold them: room for four.
#[must_use]
pub fn this_cpu_bound() -> &'static BoundCpu<Backend, Area> {
    BOUND.with(|bound| match bound.get() {
        Some(bound) => bound,
        None => {
            let new: &'static Slots = Box::leak(Box::new(BoundCpu::new(0)));
            bound.set(Some(new));
            new
        }
    })
}

/// A new CPU for this thread, not online.
#[must_use]
pub fn offline_cpu() -> Cpu {
    CPU.with(|cpu| cpu.set(None));
    BOUND.with(|bound| bound.set(None));
    Cpu(PhantomData)
}
/// A new CPU for this thread, online as number 0.
///
/// # Panics
///
/// Never, as it is new.
#[must_use]
pub fn online_cpu() -> Cpu {
    let mut cpu = offline_cpu();
    // SAFETY: K15, K16: the only CPU of this thread's kernel, its words new.
    match unsafe { cpu.fpu_online(0) } {
        Ok(()) => cpu,
        Err(why) => unreachable!("{why}"),
    }
}
/// A new context in the initial state.
///
/// # Panics
///
/// Never, as the area fits.
#[must_use]
pub fn new_task() -> Task {
    match TaskFpu::new(the_backend(), Area::new()) {
        Ok(task) => task,
        Err(why) => unreachable!("{why}"),
    }
}
/// A CPU that is online, and a task.
#[must_use]
pub fn cpu_and_task() -> (Cpu, Task) {
    (online_cpu(), new_task())
}
/// A context that was never used, and traps.
///
/// # Panics
///
/// Never, as the backend traps.
#[must_use]
pub fn new_trapped() -> Trapped<Task> {
    // SAFETY: K22: simulated registers, which no code reads by speculation. K23: the examples call its sections.
    match unsafe { Trapped::new(new_task(), the_backend()) } {
        Ok(task) => task,
        Err(why) => unreachable!("{why}"),
    }
}
/// A CPU that is online, and a context that was never used.
#[must_use]
pub fn cpu_and_trapped() -> (Cpu, Trapped<Task>) {
    (online_cpu(), new_trapped())
}
/// A CPU that has tiles on demand, and a context whose area has no room for them.
///
/// # Panics
///
/// Never, as the area fits.
#[must_use]
pub fn cpu_and_task_on_demand() -> (XfdCpu, TaskFpu<XfdFpu, HeapArea>) {
    let cpu = XfdCpu::online(0);
    match TaskFpu::new(cpu.fpu().the_backend(), area_on_demand(BASE_LEN)) {
        Ok(task) => (cpu, task),
        Err(why) => unreachable!("{why}"),
    }
}
/// Memory for an image of that CPU.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn area_on_demand(len: usize) -> HeapArea {
    match HeapArea::with_len(XfdCpu::online(0).fpu().the_backend(), len) {
        Ok(area) => area,
        Err(why) => panic!("{why}"),
    }
}
/// Proof that the example's task is stopped.
#[must_use]
pub fn stop(task: &Task) -> SimStopped<'_> {
    SimStopped::of(task.context())
}

impl Cpu {
    /// The counts of events on this CPU.
    #[must_use]
    pub fn totals(&self) -> Totals {
        this_cpu().totals()
    }
    /// One register as an example of all.
    #[must_use]
    pub fn avx0(&self) -> u64 {
        this_cpu().fpu().avx0()
    }
    /// Code writes that register.
    pub fn set_avx0(&self, value: u64) {
        this_cpu().fpu().set_avx0(value);
    }
    /// Tells whether the first use of a register would trap now.
    #[must_use]
    pub fn trap_is_armed(&self) -> bool {
        this_cpu().fpu().trap_is_armed()
    }
    /// One register that keeps the core awake.
    #[must_use]
    pub fn tile0(&self) -> u64 {
        this_cpu().fpu().tile0()
    }
    /// Code writes that register.
    pub fn set_tile0(&self, value: u64) {
        this_cpu().fpu().set_tile0(value);
    }
    /// Makes the next restore fail.
    pub fn fail_next_restore(&self) {
        this_cpu().fpu().fail_restore(1);
    }
}

fpu_core::witness! {
    // SAFETY: K2: a thread is a CPU here, and the value does not leave it. K3, K4: this CPU's words; one layout. K5:
    // one CPU. K6: no interrupts. K8: no interrupts. K9: simulated registers change only when told to.
    unsafe impl Pinned + Exclusive + SoftFloat for Cpu {
        backend: Backend = |_| this_cpu().fpu(),
        words: SimWords = |_| this_cpu().words(),
        bound: |_| this_cpu_bound(),
        observe: |_, event| this_cpu().count(event),
    }
}

/// Does what assembly does with the steps of a [`PendingUser`](fpu_core::PendingUser): out to user mode, where the
/// task writes `avx0`, and back.
///
/// # Errors
///
/// The restore was refused; nothing was committed.
///
/// # Safety
///
/// The steps are those of a `Pending` value that is alive.
pub unsafe fn sim_round_trip(steps: &UserSteps, avx0: u64) -> Result<(), RestoreFault> {
    if let Some(area) = NonNull::new(steps.restore_from.cast_mut()) {
        // SAFETY: C9: the area of the context that is borrowed. C10: simulated registers.
        unsafe { this_cpu().fpu().restore(area) }?;
    }
    // SAFETY: the word of the context that is borrowed, a `u64` that no other code accesses now.
    unsafe { steps.word.write_volatile(steps.live) };
    this_cpu().fpu().set_avx0(avx0);
    if let Some(area) = NonNull::new(steps.save_to) {
        // SAFETY: as for the restore.
        unsafe { this_cpu().fpu().save(area) };
    }
    // SAFETY: the word of the context that is borrowed, a `u64` that no other code accesses now.
    unsafe { steps.word.write_volatile(steps.saved) };
    Ok(())
}
/// Does what assembly does before user mode: the restore, if one is due.
///
/// # Errors
///
/// The restore was refused.
///
/// # Safety
///
/// The steps are those of a `Pending` value that is alive.
pub unsafe fn sim_restore(steps: &UserSteps) -> Result<(), RestoreFault> {
    match NonNull::new(steps.restore_from.cast_mut()) {
        // SAFETY: C9: the area of the context that is borrowed. C10: simulated registers.
        Some(area) => unsafe { this_cpu().fpu().restore(area) },
        None => Ok(()),
    }
}
/// Does what assembly does at a switch: the save.
///
/// # Safety
///
/// The steps are those of a `Pending` value that is alive.
pub unsafe fn sim_save(steps: &SaveSteps) {
    if let Some(area) = NonNull::new(steps.save_to) {
        // SAFETY: C9: the area of the context that is borrowed. C10: simulated registers.
        unsafe { this_cpu().fpu().save(area) };
    }
}
/// Does what assembly does at a switch of tasks: the save and the restore that are due, each with its commit.
///
/// # Errors
///
/// The restore was refused, and not committed.
///
/// # Safety
///
/// Steps in order (C39) and registers kept for the steps (C40) of [`SwitchSteps`].
pub unsafe fn sim_switch(steps: &SwitchSteps) -> Result<(), RestoreFault> {
    if let Some(area) = NonNull::new(steps.save_to) {
        // SAFETY: C9: the area of a context that is alive (C39). C10: simulated registers.
        unsafe { this_cpu().fpu().save(area) };
        // SAFETY: that context's word (C39).
        unsafe { steps.save_word.write_volatile(steps.saved) };
    }
    if let Some(area) = NonNull::new(steps.restore_from.cast_mut()) {
        // SAFETY: C9: the next context's area, and it is alive (C39). C10: simulated registers.
        unsafe { this_cpu().fpu().restore(area) }?;
        // SAFETY: the next context's word (C39).
        unsafe { steps.restore_word.write_volatile(steps.live) };
    }
    Ok(())
}
/// Does what assembly does with a guest: the save of the current task that is due, the restore, the guest, which writes
/// `avx0`, and its save.
///
/// # Errors
///
/// The restore was refused, and nothing after it done.
///
/// # Safety
///
/// The steps are those of a `Pending` value that is alive.
pub unsafe fn sim_guest(steps: &GuestSteps, avx0: u64) -> Result<(), RestoreFault> {
    let (area, word) = (steps.area, steps.word);
    let enter = SwitchSteps {
        save_to: steps.host_save_to,
        save_word: steps.host_word,
        saved: steps.host_saved,
        restore_from: area,
        restore_word: word,
        live: steps.live,
        mask: steps.mask,
    };
    let leave = SaveSteps { save_to: area, mask: steps.mask, word, saved: steps.saved };
    // SAFETY: C39, C40: the `Pending` value is alive, by the caller.
    unsafe { sim_switch(&enter) }?;
    this_cpu().fpu().set_avx0(avx0);
    // SAFETY: the guest's area, borrowed by that value.
    unsafe { sim_save(&leave) };
    // SAFETY: the guest's word, borrowed too.
    unsafe { word.write_volatile(steps.saved) };
    Ok(())
}

/// Proof of holding this thread's CPU for kernels whose per-CPU data holds [`this_cpu_fpu`].
pub struct PerCpu(PhantomData<*mut ()>);

impl PerCpu {
    /// Interrupts are off.
    #[must_use]
    pub fn irqs_off() -> Self {
        Self(PhantomData)
    }
}
fpu_core::witness! {
    // SAFETY: as for `Cpu`, with the words of `this_cpu_fpu`.
    unsafe impl Pinned for PerCpu {
        backend: Backend = |_| the_backend(),
        words: CpuFpu = |_| this_cpu_fpu(),
    }
}

/// The words of this thread's CPU, as a kernel's per-CPU data would hold them.
#[must_use]
pub fn this_cpu_fpu() -> &'static CpuFpu {
    WORDS.with(|words| *words)
}
/// The kernel's backend.
#[must_use]
pub fn the_backend() -> &'static TheBackend<Backend> {
    this_cpu().fpu()
}
/// Tells whether all registers are in their initial state.
#[must_use]
pub fn registers_are_initial() -> bool {
    the_backend().registers().in_use() == 0
}
