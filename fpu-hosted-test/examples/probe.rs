//! The hot paths, alone in functions, for the object-code check of the suite.
//!
//! The backend's save and restore are one marked instruction each, so that what is counted is the
//! protocol's own bookkeeping. The functions are what a kernel writes: on `Err` they go to a cold
//! function that does not return, on `Ok` they return. The suite's `object` check finds them by the
//! beginnings of their names and judges each as `suite/src/object` says.
#![allow(missing_docs)]

use core::{
    arch::asm,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};
use fpu_core::verify::*;
use fpu_core::*;

pub struct Marked;

// SAFETY: never run; the backend's duties (B1-B7) hold for the marked instructions, which touch nothing.
unsafe impl RawFpu for Marked {
    type Image<'a> = ();
    type ImageMut<'a> = ();
    fn area_len(&self) -> usize {
        512
    }
    fn area_align(&self) -> usize {
        64
    }
    unsafe fn write_initial(&self, _: NonNull<u8>) {}
    #[inline(always)]
    unsafe fn save(&self, area: NonNull<u8>) {
        // SAFETY: never run; the shape of a save: reads the registers, writes memory.
        unsafe {
            asm!("prefetchnta byte ptr [{}] # SAVE", in(reg) area.as_ptr(), options(nostack, preserves_flags))
        }
    }
    #[inline(always)]
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        // SAFETY: never run; the shape of a restore.
        unsafe {
            asm!("prefetcht2 byte ptr [{}] # RESTORE", in(reg) area.as_ptr(), options(nostack, preserves_flags))
        }
        Ok(())
    }
    unsafe fn kernel_defaults(&self, _: KernelUnits) {}
    unsafe fn image(&self, _: NonNull<u8>) {}
    unsafe fn image_mut(&self, _: NonNull<u8>) {}
}

pub struct Cpu<'a>(&'a CpuFpu);
fpu_core::witness! {
    // SAFETY: K2-K9: never run.
    unsafe impl Pinned + Exclusive + SoftFloat for Cpu<'_> {
        backend: Marked = |_| {
            // SAFETY: K1: never run.
            unsafe { TheBackend::from_ref(&Marked) }
        },
        words: CpuFpu = |cpu| cpu.0,
    }
}

/// What a CPU owns, at a fixed address, as what is behind GS is.
struct PerCpu {
    words: CpuFpu,
    contexts: BoundCpu<Marked, Area<512>, [BoundSlot<Marked, Area<512>>; 4]>,
}
impl PerCpu {
    fn contexts(&self) -> &BoundCpu<Marked, Area<512>> {
        &self.contexts
    }
}
static CPU: PerCpu = PerCpu { words: CpuFpu::new(), contexts: BoundCpu::new(0) };

/// The same kernel with contexts that are bound to the CPU.
pub struct OwnerCpu;
fpu_core::witness! {
    // SAFETY: K2-K9: never run.
    unsafe impl Pinned + Exclusive + SoftFloat for OwnerCpu {
        backend: Marked = |_| {
            // SAFETY: K1: never run.
            unsafe { TheBackend::from_ref(&Marked) }
        },
        words: CpuFpu = |_| &CPU.words,
        bound: |_| CPU.contexts(),
    }
}

/// The same kernel with the real backend.
pub struct RealCpu<'a>(&'a CpuFpu, &'a fpu_x86::Plan);
fpu_core::witness! {
    // SAFETY: K2-K9: never run.
    unsafe impl Pinned + Exclusive + SoftFloat for RealCpu<'_> {
        backend: fpu_x86::Plan = |cpu| {
            // SAFETY: K1: never run.
            unsafe { TheBackend::from_ref(cpu.1) }
        },
        words: CpuFpu = |cpu| cpu.0,
    }
}

/// The plan of the probes below, for a kernel's static.
static PLAN: fpu_x86::PlanCell = fpu_x86::PlanCell::new();

/// The same kernel with its plan in a static: nothing says at run time that it has been set.
pub struct CellCpu<'a>(&'a CpuFpu);
fpu_core::witness! {
    // SAFETY: K2-K9: never run.
    unsafe impl Pinned + Exclusive + SoftFloat for CellCpu<'_> {
        backend: fpu_x86::Plan = |_| {
            // SAFETY: C25: never run.
            unsafe { PLAN.assume_set() }
        },
        words: CpuFpu = |cpu| cpu.0,
    }
}

/// The copy of IA32_XFD: a word at a fixed address, as one behind GS is.
pub struct XfdWord;
static XFD: AtomicU64 = AtomicU64::new(0);
// SAFETY: K20: never run.
unsafe impl fpu_x86::XfdCopy for XfdWord {
    #[inline(always)]
    fn get(&self) -> u64 {
        XFD.load(Ordering::Relaxed)
    }
    #[inline(always)]
    unsafe fn set(&self, xfd: u64) {
        XFD.store(xfd, Ordering::Relaxed);
    }
}

type OnDemand = fpu_x86::DynamicPlan<XfdWord>;

/// The same kernel as with a plain reference, whose tiles come on demand.
pub struct DemandCpu<'a>(&'a CpuFpu, &'a OnDemand);
fpu_core::witness! {
    // SAFETY: K2-K9: never run.
    unsafe impl Pinned + Exclusive + SoftFloat for DemandCpu<'_> {
        backend: OnDemand = |cpu| {
            // SAFETY: K1: never run.
            unsafe { TheBackend::from_ref(cpu.1) }
        },
        words: CpuFpu = |cpu| cpu.0,
    }
}

type RealTask = TaskFpu<fpu_x86::Plan, Area<4096>>;
type DemandTask = TaskFpu<OnDemand, RawArea>;

#[cold]
#[inline(never)]
fn refused(why: Error) -> ! {
    panic!("{why}")
}

#[no_mangle]
pub extern "C" fn probe_switch_prepare(task: &TaskFpu<Marked, Area<512>>, cpu: &CpuFpu) {
    if let Err(why) = task.switch_prepare(&Cpu(cpu)) {
        refused(why)
    }
}

#[no_mangle]
pub extern "C" fn probe_switch_return(task: &TaskFpu<Marked, Area<512>>, cpu: &CpuFpu) {
    if let Err(why) = task.switch_return(&mut Cpu(cpu)) {
        refused(why)
    }
}

/// The return of a task whose context is bound to the CPU, and which left without a call.
#[no_mangle]
pub extern "C" fn probe_bound_switch_return(task: &BoundFpu<'_, Marked, Area<512>>) {
    if let Err(why) = task.switch_return(&mut OwnerCpu) {
        refused(why)
    }
}

/// Saves with the instruction that the plan names.
#[no_mangle]
pub extern "C" fn probe_real_switch_prepare(task: &RealTask, cpu: &CpuFpu, plan: &fpu_x86::Plan) {
    if let Err(why) = task.switch_prepare(&RealCpu(cpu, plan)) {
        refused(why)
    }
}

/// Restores with the instruction that belongs to it.
#[no_mangle]
pub extern "C" fn probe_real_switch_return(task: &RealTask, cpu: &CpuFpu, plan: &fpu_x86::Plan) {
    if let Err(why) = task.switch_return(&mut RealCpu(cpu, plan)) {
        refused(why)
    }
}

/// Both with the plan in a static.
#[no_mangle]
pub extern "C" fn probe_cell_switch_prepare(task: &RealTask, cpu: &CpuFpu) {
    if let Err(why) = task.switch_prepare(&CellCpu(cpu)) {
        refused(why)
    }
}

/// See [`probe_cell_switch_prepare`].
#[no_mangle]
pub extern "C" fn probe_cell_switch_return(task: &RealTask, cpu: &CpuFpu) {
    if let Err(why) = task.switch_return(&mut CellCpu(cpu)) {
        refused(why)
    }
}

/// Saves, with tiles on demand.
#[no_mangle]
pub extern "C" fn probe_demand_switch_prepare(task: &DemandTask, cpu: &CpuFpu, plan: &OnDemand) {
    if let Err(why) = task.switch_prepare(&DemandCpu(cpu, plan)) {
        refused(why)
    }
}

/// Restores, with tiles on demand: writes IA32_XFD where it differs.
#[no_mangle]
pub extern "C" fn probe_demand_switch_return(task: &DemandTask, cpu: &CpuFpu, plan: &OnDemand) {
    if let Err(why) = task.switch_return(&mut DemandCpu(cpu, plan)) {
        refused(why)
    }
}

/// A kernel FPU section around one instruction, both ends.
#[no_mangle]
pub extern "C" fn probe_section_task(task: &TaskFpu<Marked, Area<512>>, cpu: &CpuFpu) {
    match Cpu(cpu).kernel_fpu(Some(task.context()), KernelUnits::ALL) {
        // SAFETY: marks where the kernel's vector code would stand.
        Ok(section) => unsafe {
            asm!("nop # SECTION", options(nostack, preserves_flags));
            drop(section);
        },
        Err(why) => refused(why),
    }
}

/// The same where the CPU runs no task with a context.
#[no_mangle]
pub extern "C" fn probe_section_idle(cpu: &CpuFpu) {
    if let Err(why) = Cpu(cpu).kernel_fpu(None, KernelUnits::ALL) {
        refused(why)
    }
}

/// A session: opened, the image made readable, ended.
#[no_mangle]
pub extern "C" fn probe_session_read(task: &TaskFpu<Marked, Area<512>>, cpu: &CpuFpu) {
    match task.open(&mut Cpu(cpu)) {
        Ok(state) => drop(state.make_memory_valid_read()),
        Err(why) => refused(why),
    }
}

/// A session: opened, the image made writable, then on to user mode.
#[no_mangle]
pub extern "C" fn probe_session_write(task: &TaskFpu<Marked, Area<512>>, cpu: &CpuFpu) {
    let mut cpu = Cpu(cpu);
    let state = match task.open(&mut cpu) {
        Ok(state) => state,
        Err(why) => refused(why),
    };
    if let Err(why) = state.make_memory_valid_write().switch_return() {
        refused(why)
    }
}

/// A check of the registers against memory, with the real backend's comparison.
#[no_mangle]
pub extern "C" fn probe_session_verify(
    task: &RealTask,
    cpu: &CpuFpu,
    plan: &fpu_x86::Plan,
    scratch: &mut Scratch<fpu_x86::Plan, Area<4096>>,
) -> bool {
    match task.verify_registers(&mut RealCpu(cpu, plan), scratch) {
        Ok(Verified::Agreed) => true,
        Ok(_) => false,
        Err(VerifyError::Refused(why)) => refused(why),
        Err(_) => false,
    }
}

/// The idle loop's call, with the real backend.
#[no_mangle]
pub extern "C" fn probe_session_idle(cpu: &CpuFpu, plan: &fpu_x86::Plan) -> bool {
    match RealCpu(cpu, plan).fpu_idle() {
        Ok(given_up) => given_up,
        Err(why) => refused(why),
    }
}

/// Protection-key rights, from task to task.
#[no_mangle]
pub extern "C" fn probe_rights_switch(
    prev: Option<&fpu_x86::TaskPkru>,
    next: Option<&fpu_x86::TaskPkru>,
    keys: &fpu_x86::ProtectionKeys,
) {
    keys.switch(prev, next);
}

fn main() {
    let probes = [
        probe_switch_prepare as *const () as usize,
        probe_switch_return as *const () as usize,
        probe_bound_switch_return as *const () as usize,
        probe_real_switch_prepare as *const () as usize,
        probe_real_switch_return as *const () as usize,
        probe_cell_switch_prepare as *const () as usize,
        probe_cell_switch_return as *const () as usize,
        probe_demand_switch_prepare as *const () as usize,
        probe_demand_switch_return as *const () as usize,
        probe_section_task as *const () as usize,
        probe_section_idle as *const () as usize,
        probe_session_read as *const () as usize,
        probe_session_write as *const () as usize,
        probe_session_verify as *const () as usize,
        probe_session_idle as *const () as usize,
        probe_rights_switch as *const () as usize,
    ];
    // A cell that no code can set would be known to hold nothing.
    if let Ok(plan) = fpu_x86::Plan::detect_user(fpu_x86::Components::all()) {
        // SAFETY: K1: never run.
        let _set = PLAN.set(unsafe { TheBackend::new(plan) });
    }
    println!("{probes:?} are for objdump, not for running");
}
