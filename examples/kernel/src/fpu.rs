//! The FPU integration: all that this kernel does for the library, in the order in which it does it.
//!
//! `docs/kernel.md` walks through this file. Everything else in the kernel is a scheduler, or a test.

use core::{fmt, marker::PhantomData, ptr::NonNull};

use fpu_core::{
    trap::{NotTrapped, Trapped},
    verify::{Scratch, Verified, VerifyError},
    AreaError, CpuFpu, CpuLifecycle, Error, FpuRef, Level, RawArea, Stopped, TaskFpu, TheBackend,
    UserReady,
};
use fpu_x86::{
    BringUpError, Components, ControlState, CpuidInfo, DynamicPlan, EnableError, FirstUse,
    FirstUseError, Permissions, PkruError, Plan, PlanAlreadySet, PlanCell, PlanError,
    ProtectionKeys, SaveInstruction, TaskPkru, XfdCopy,
};

use crate::{
    cpu::this_cpu,
    cpuid,
    entry::{self, Frame},
    handlers, params, xfd,
};

// 1. One backend, decided on the CPU that boots.

/// The backend. A kernel that does not seed faults says `fpu_x86::Plan`, or `fpu_x86::DynamicPlan<Xfd>` for state on
/// demand (section 11).
pub type Backend = crate::seeded::Seeded<Xfd>;

static BACKEND: PlanCell<TheBackend<Backend>> = PlanCell::new();

/// Lets the first CPU execute SSE instructions before `boot`, for the parser of the boot parameters: the compiled
/// `core` may have some. Interrupts are off.
pub fn early() {
    // SAFETY: C1: ring 0, interrupts are off, there is one CPU. C4: #MF and #XM have handlers, and no
    // code keeps copies of CR0 and CR4.
    unsafe { fpu_x86::enable_legacy_on_this_cpu() };
}

/// What CPUID says. A kernel that does not try what others say calls `bring_up_boot_cpu`, which asks the CPU.
fn facts() -> Result<CpuidInfo, PlanError> {
    CpuidInfo::from_cpuid(cpuid::Reader)
}

/// Why this kernel does not keep a plan.
#[derive(Debug)]
pub enum NotKept {
    /// CPUID cannot be read.
    Cpuid(PlanError),
    /// It has no small areas.
    Small(PlanError),
    /// The areas of its tasks are smaller.
    Larger(usize),
    /// It has one.
    AlreadySet(PlanAlreadySet),
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpuid(why) | Self::Small(why) => why.fmt(f),
            Self::Larger(need) => write!(f, "areas have {AREA} bytes, {need} are needed"),
            Self::AlreadySet(why) => why.fmt(f),
        }
    }
}

/// Makes the first CPU run tasks. Interrupts are off.
pub fn boot(rung: Option<SaveInstruction>) -> Result<IrqsOff, BringUpError<NotKept>> {
    let facts = facts()?;
    let unscrubbed = params::given().unscrubbed;
    let keep = |plan: Plan| {
        // CPUID's own sizes can be anything. The plan has been measured, so it goes without those that are too much.
        let sized = plan.clone().with_sizes(&self::facts().map_err(NotKept::Cpuid)?);
        let plan = if sized.area_len() <= AREA { sized } else { plan };
        if plan.area_len() > AREA {
            return Err(NotKept::Larger(plan.area_len()));
        }
        let small = with_small_areas(&plan)?;
        // SAFETY: K1: one backend; `set` refuses a second.
        let backend = unsafe { TheBackend::new(Backend::new(plan, small, Xfd, unscrubbed)) };
        BACKEND.set(backend).map_err(|refused| NotKept::AlreadySet(refused.why))?;
        // SAFETY: interrupts are off, and nothing else runs here.
        Ok(unsafe { IrqsOff::new() })
    };
    // SAFETY: C1: ring 0, interrupts are off. C2: nothing has run here. C3: one plan; there are no areas. C4: as in
    // `early`. C5: nothing else in this kernel writes these registers. K15, K16: the first CPU, its words new.
    let here =
        unsafe { fpu_x86::bring_up_boot_cpu_given(&facts, 0, || choose(&facts, rung), keep) }?;
    arm()?;
    Ok(here)
}

/// Chooses the registers that are switched, and the instruction, of what CPUID offers.
fn choose(facts: &CpuidInfo, rung: Option<SaveInstruction>) -> Result<Plan, PlanError> {
    let wanted = match rung {
        None => Components::USER | Components::CET_U,
        // To try the lesser instructions on a CPU that has better ones.
        Some(SaveInstruction::Fxsave) => Components::LEGACY,
        Some(_) => Components::USER,
    };
    let mut plan = Plan::detect_kernel_given(facts.clone(), wanted)?;
    if let Some(rung) = rung {
        plan = plan.with_save_instruction(rung)?;
    }
    if params::given().trust {
        // SAFETY: C7: no task of this kernel uses tiles, or `amx` mends what a save makes of them.
        plan = unsafe { plan.trusting(Components::AMX) };
    }
    if params::given().unscrubbed {
        // SAFETY: C8: the backend then puts SSE state into every image.
        plan = unsafe { plan.trusting_mxcsr() };
    }
    Ok(plan)
}

#[inline(always)]
fn backend() -> &'static TheBackend<Backend> {
    // SAFETY: C25: `boot` runs before interrupts, tasks and other CPUs; the first witness is made after the set.
    unsafe { BACKEND.assume_set() }
}

/// What was decided, if that is done.
pub fn decided() -> Option<&'static Plan> {
    BACKEND.get().map(|backend| backend.plan())
}

/// What was decided.
pub fn plan() -> &'static Plan {
    backend().plan()
}

// 2. Witnesses: what code of this kernel has locked when it calls the library.

/// Interrupts are off: the scheduler, and the way to user mode.
pub struct IrqsOff(PhantomData<*mut ()>);
/// Preemption is off, interrupts are on: system calls that look at a task's registers.
pub struct PreemptOff(PhantomData<*mut ()>);
/// An interrupt handler.
pub struct InIrq(PhantomData<*mut ()>);
/// The handler of non-maskable interrupts.
pub struct InNmi(PhantomData<*mut ()>);

fpu_core::witness! {
    // SAFETY: K2, K3: `new`. K4: `bring_up` enables it on every CPU. K5: a task passes from CPU to CPU under the
    // scheduler's lock. K6: NMIs have `InNmi`. K7: counters only. K8: with interrupts off only an NMI comes, and its
    // handler says so. K9: the kernel is compiled without vector instructions, and the suite reads its disassembly.
    unsafe impl Pinned + Exclusive + SoftFloat for IrqsOff {
        backend: Backend = |_| backend(),
        words: CpuFpu = |_| &this_cpu().fpu,
        observe: |_, event| this_cpu().counters.record(event.kind),
    }
    // SAFETY: K2 to K7, K9: the same; not `Exclusive`, as none of those below.
    unsafe impl Pinned + SoftFloat for PreemptOff {
        backend: Backend = |_| backend(),
        words: CpuFpu = |_| &this_cpu().fpu,
        observe: |_, event| this_cpu().counters.record(event.kind),
    }
    // SAFETY: K2 to K7, K9: the same.
    unsafe impl Pinned + SoftFloat for InIrq {
        backend: Backend = |_| backend(),
        words: CpuFpu = |_| &this_cpu().fpu,
        level: |_| Level::HardIrq,
        observe: |_, event| this_cpu().counters.record(event.kind),
    }
    // SAFETY: K2 to K7, K9: the same.
    unsafe impl Pinned + SoftFloat for InNmi {
        backend: Backend = |_| backend(),
        words: CpuFpu = |_| &this_cpu().fpu,
        level: |_| Level::Nmi,
        observe: |_, event| this_cpu().counters.record(event.kind),
    }
}

macro_rules! made_by_promise {
    ($($name:ident: $promise:literal;)*) => {$(
        impl $name {
            /// # Safety
            ///
            #[doc = $promise]
            /// It lasts while the value lives, and this is the only such value in use on this CPU, but
            /// for those of code that was interrupted (K2, K3).
            pub unsafe fn new() -> Self {
                Self(PhantomData)
            }
        }
    )*};
}
made_by_promise! {
    IrqsOff: "Interrupts are off.";
    PreemptOff: "Preemption is off.";
    InIrq: "The caller is an interrupt handler.";
    InNmi: "The caller is the handler of non-maskable interrupts.";
}

// 3. A CPU comes and goes.

/// Makes this CPU run tasks under a number: when it starts, and when it starts again.
pub fn bring_up(number: u32) -> Result<ControlState, BringUpError<NotKept>> {
    let facts = facts()?;
    // SAFETY: C1: ring 0, interrupts are off. C2: the CPU's word is not open. C3: one plan. C4: as in
    // `early`. C5: nothing else in this kernel writes these registers.
    let state = unsafe { enable(&facts) }?;
    // SAFETY: interrupts are off, and nothing else runs here.
    let mut cpu = unsafe { IrqsOff::new() };
    // SAFETY: K15: numbers are given to CPUs once. K16: the words are in the CPU's block, which is kept.
    unsafe { cpu.fpu_online(number) }?;
    Ok(state)
}

/// Ends it, once the last task has been switched out.
pub fn take_down(cpu: &mut IrqsOff) -> Result<(), Error> {
    cpu.fpu_offline()
}

// 4. A task's context.

/// Room for one image: AMX needs 11 KiB.
pub const AREA: usize = 12 * 1024;

/// What a task that runs in user mode has; kernel threads and idle have none.
pub type Fpu = TaskFpu<Backend, RawArea>;

/// Memory for an image.
///
/// # Safety
///
/// Own bytes (K19) of [`RawArea::new`], as for [`new_context`].
pub unsafe fn area(base: NonNull<u8>, len: usize) -> RawArea {
    // SAFETY: K19: the caller's.
    unsafe { RawArea::new(base, len) }
}

/// A context in the initial state, in memory that the caller gives away.
///
/// # Safety
///
/// Own bytes (K19) of [`RawArea::new`]: `base` is valid for `len` bytes, and the context's alone from now on.
pub unsafe fn new_context(base: NonNull<u8>, len: usize) -> Result<Fpu, AreaError> {
    // SAFETY: K19: the caller's.
    let area = unsafe { area(base, len) };
    TaskFpu::new(backend(), area).map_err(AreaError::from)
}

// 5. The two calls of the hot path.

/// The scheduler has picked a task: if it ran on another CPU, its registers' image is fetched from there.
#[inline]
pub fn picked(task: Option<&Fpu>, cpu: &IrqsOff) {
    if let Some(fpu) = task {
        fpu.prefetch(cpu);
    }
}

/// The scheduler leaves a task: its registers are saved, if they are its only copy.
#[inline]
pub fn leave(task: Option<&Fpu>, cpu: &IrqsOff) -> Result<(), Error> {
    match task {
        Some(fpu) => fpu.switch_prepare(cpu),
        None => Ok(()),
    }
}

/// The last step before user mode: the registers are loaded, if they do not hold the task.
///
/// # Safety
///
/// `frame` is that of the current task, whose context this is, at the top of its kernel stack.
#[inline]
pub unsafe fn to_user(task: &Fpu, mut cpu: IrqsOff, frame: *mut Frame) -> Error {
    match task.switch_return(&mut cpu) {
        // SAFETY: the caller's.
        Ok(ready) => unsafe { enter_user(ready, frame) },
        Err(why) => why,
    }
}

/// Nobody comes here without the value that says whose the registers are.
///
/// # Safety
///
/// As for [`to_user`].
unsafe fn enter_user(_registers: UserReady<'_, IrqsOff>, frame: *mut Frame) -> ! {
    // Only for a processor without IA32_XFD.
    xfd::to_user();
    // SAFETY: the caller's.
    unsafe { entry::resume(frame) }
}

// 6. Faults of the restore instruction.

/// A fault in kernel mode: true if it was a refused restore, which then returns an error.
pub fn fixed_up(frame: &mut Frame) -> bool {
    // SAFETY: N7: the fault was raised by an instruction of the kernel, whose code is readable.
    let fixup = unsafe { fpu_x86::fixup(frame.rip as usize, frame.vector as u8) };
    if let Some(fixup) = fixup {
        frame.rip = fixup.rip as u64;
        // A kernel of yours does so always, or never where its handlers cannot.
        if handlers::tells_vector() {
            frame.rax = fixup.rax as u64;
        }
    }
    fixup.is_some()
}

// 7. Idle.

/// The CPU is about to sleep: registers that would keep it awake are given up. True if there were some.
pub fn idle(cpu: &mut IrqsOff) -> Result<bool, Error> {
    cpu.fpu_idle()
}

// 8. Checks that can be switched on.

/// Memory for one image more on each CPU, to which registers are saved for comparison.
pub type CheckArea = Scratch<Backend, RawArea>;

/// Makes it.
///
/// # Safety
///
/// As for [`new_context`].
pub unsafe fn new_check_area(base: NonNull<u8>, len: usize) -> Result<CheckArea, AreaError> {
    // SAFETY: K19: the caller's.
    let area = unsafe { RawArea::new(base, len) };
    Scratch::new(backend(), area).map_err(AreaError::from)
}

/// Tells whether the registers hold what the words claim. Asked on the way to user mode, before [`to_user`].
pub fn registers(
    task: &Fpu,
    cpu: &mut IrqsOff,
    scratch: &mut CheckArea,
) -> Result<Verified, VerifyError> {
    task.verify_registers(cpu, scratch)
}

/// Tells whether the control registers of this CPU still hold what the plan put there.
pub fn control_registers(_cpu: &IrqsOff) -> Result<(), fpu_x86::ControlMismatch> {
    // SAFETY: C1: ring 0, interrupts are off.
    let state = unsafe { ControlState::read_given(plan()) };
    match on_demand() {
        Some(plan) => plan.verify(&state),
        None => state.verify(plan()),
    }
}

// 9. Protection keys.

/// PKRU, which is switched at once: the processor applies it to the kernel's own accesses to user memory.
pub static KEYS: ProtectionKeys = ProtectionKeys::new();

/// Turns them on, when the CPU has been brought up. A machine without them goes on without.
pub fn protection_keys() -> Result<(), PkruError> {
    // SAFETY: C1: ring 0, interrupts are off. C44: `power::bring_up` calls it, on the first CPU before there are others;
    // `odd` is before it. C45: all user pages have key 0, which no task of this kernel gives up.
    match unsafe { KEYS.enable_on_this_cpu(plan()) } {
        Err(why) if KEYS.are_on() => Err(why),
        _ => Ok(()),
    }
}

/// The scheduler goes from one task to the next. Kernel threads have no user memory, and `None`.
#[inline]
pub fn switch_rights(prev: Option<&TaskPkru>, next: Option<&TaskPkru>) {
    KEYS.switch(prev, next);
}

// 10. A debugger.

/// A task that the scheduler keeps from running.
pub struct Traced<'t>(&'t Fpu);

impl<'t> Traced<'t> {
    /// # Safety
    ///
    /// Stopped task (K10), one proof (K11) of [`Stopped`].
    pub unsafe fn new(context: &'t Fpu) -> Self {
        Self(context)
    }
}

// SAFETY: K10, K11: `new`. K12: a field that no code changes.
unsafe impl Stopped for Traced<'_> {
    type Backend = Backend;
    fn backend(&self) -> &TheBackend<Backend> {
        backend()
    }
    fn context(&self) -> FpuRef<'_, Backend> {
        self.0.context()
    }
}

// 11. Tiles on demand.

/// This CPU's copy of IA32_XFD.
#[derive(Clone, Copy)]
pub struct Xfd;

// SAFETY: K20: a cell of the CPU's own block, which no other code uses; IA32_XFD is the library's.
unsafe impl XfdCopy for Xfd {
    fn get(&self) -> u64 {
        this_cpu().xfd.get()
    }
    unsafe fn set(&self, xfd: u64) {
        this_cpu().xfd.set(xfd);
    }
}

/// A plan of small and large areas, if the kernel was told to have one and the CPU can do it.
fn with_small_areas(plan: &Plan) -> Result<Option<DynamicPlan<Xfd>>, NotKept> {
    let small = params::given().demand.then(|| DynamicPlan::new(plan.clone(), Xfd)).transpose();
    Ok(small.map_err(NotKept::Small)?.filter(|small| !small.on_demand().is_empty()))
}

/// The first CPU has been brought up: tiles are disabled. Interrupts are off.
fn arm() -> Result<(), BringUpError<NotKept>> {
    match on_demand() {
        // SAFETY: C1: ring 0, interrupts are off; there is no context.
        Some(plan) => unsafe { plan.arm_this_cpu() }.map_err(BringUpError::Enable),
        None => Ok(()),
    }
}

/// Puts the plan into force on this CPU.
///
/// # Safety
///
/// C1 to C5 of [`Plan::enable_on_this_cpu`].
unsafe fn enable(facts: &CpuidInfo) -> Result<ControlState, EnableError> {
    // SAFETY: what enabling asks for (C1 to C5) is the caller's.
    unsafe {
        match on_demand() {
            Some(plan) => plan.enable_given(facts),
            None => plan().enable_given(facts),
        }
    }
}

/// The plan of small and large areas, where tiles are on demand.
pub fn on_demand() -> Option<&'static DynamicPlan<Xfd>> {
    backend().small()
}

/// #NM: which action is due? Asked first, with interrupts off.
pub fn first_use(
    task: Option<&Fpu>,
    in_user_mode: bool,
    process: &Permissions,
    cpu: &IrqsOff,
) -> Result<FirstUse, FirstUseError> {
    let Some(plan) = on_demand() else { return Ok(FirstUse::NotOurs) };
    // SAFETY: C1: ring 0, interrupts are off.
    let error = unsafe { plan.take_error() };
    plan.first_use(error, in_user_mode, task.map(|fpu| fpu.room(cpu)), process)
}

// 12. Threads that may never use a register, where all may read each other.

/// The context of such a thread: its first use of a register traps, where the plan can.
///
/// # Safety
///
/// One trust domain (K22), own sections (K23) of [`Trapped::new`].
pub unsafe fn trapped(context: Fpu) -> Result<Trapped<Fpu>, NotTrapped<Fpu>> {
    // SAFETY: K22, K23: the caller's.
    unsafe { Trapped::new(context, backend()) }
}
