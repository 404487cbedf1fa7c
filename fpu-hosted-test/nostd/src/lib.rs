//! What a kernel does with the library crates, as a static library: everything generic is compiled, and
//! whatever is left undefined is what the crates need from a kernel.
#![no_std]
#![allow(missing_docs)]

use fpu_core::verify::*;
use fpu_core::*;
use fpu_x86::{Components, Pkru, Plan, PlanCell, ProtectionKeys, Selectors, TaskPkru};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Interrupts are off, and the kernel is compiled soft-float.
pub struct IrqOff<'k> {
    words: &'k CpuFpu,
    plan: &'k Plan,
}

fpu_core::witness! {
    // SAFETY: K2-K9: only compiled and linked, never run.
    unsafe impl Pinned + Exclusive + SoftFloat for IrqOff<'_> {
        backend: Plan = |cpu| {
            // SAFETY: K1: never run.
            unsafe { TheBackend::from_ref(cpu.plan) }
        },
        words: CpuFpu = |cpu| cpu.words,
    }
}

type Task = TaskFpu<Plan, RawArea>;

#[no_mangle]
pub extern "C" fn nostd_switch(task: &Task, words: &CpuFpu, plan: &Plan) -> bool {
    let mut cpu = IrqOff { words, plan };
    task.switch_prepare(&cpu).is_ok() && task.switch_return(&mut cpu).is_ok()
}

#[no_mangle]
pub extern "C" fn nostd_section(
    task: &Task,
    words: &CpuFpu,
    plan: &Plan,
    code: extern "C" fn(),
) -> bool {
    let current = Some(task.context());
    IrqOff { words, plan }.with_kernel_fpu(current, KernelUnits::ALL, || code()).is_ok()
}

#[no_mangle]
pub extern "C" fn nostd_session(task: &Task, words: &CpuFpu, plan: &Plan) -> bool {
    let mut cpu = IrqOff { words, plan };
    let Ok(state) = task.open(&mut cpu) else { return false };
    let session = state.make_memory_valid_write();
    session.switch_return().is_ok()
}

/// A signal is delivered, its frame copied by `copy`, which says whether it could.
#[no_mangle]
pub extern "C" fn nostd_deliver(
    task: &Task,
    words: &CpuFpu,
    plan: &Plan,
    buffer: &mut [u8; 16384],
    copy: extern "C" fn(*const u8, usize) -> bool,
) -> bool {
    let (mut cpu, format) = (IrqOff { words, plan }, plan.user_format());
    let copy = |part: &[u8]| if copy(part.as_ptr(), part.len()) { Ok(()) } else { Err(()) };
    let Ok(state) = task.open(&mut cpu) else { return false };
    let wide = format.deliver(state.make_memory_valid_read(), Some(1), buffer, copy);
    let Ok(saved) = task.open_saved(&mut cpu) else { return false };
    let none = Selectors::default();
    wide.is_ok() && format.deliver_32(saved, none, None, buffer, copy).is_ok()
}

/// A handler returns, and a debugger writes the same bytes.
#[no_mangle]
pub extern "C" fn nostd_sigreturn(
    task: &Task,
    words: &CpuFpu,
    plan: &Plan,
    buffer: &mut [u8; 16384],
    copy: extern "C" fn(usize, *mut u8, usize) -> bool,
) -> bool {
    let (mut cpu, format) = (IrqOff { words, plan }, plan.user_format());
    let copy =
        |at, to: &mut [u8]| if copy(at, to.as_mut_ptr(), to.len()) { Ok(()) } else { Err(()) };
    let Ok(state) = task.open(&mut cpu) else { return false };
    let wide = format.sigreturn(state.make_memory_valid_read(), buffer, copy);
    let Ok(saved) = task.open_saved(&mut cpu) else { return false };
    let narrow = format.sigreturn_32(saved, buffer, copy);
    let Ok(saved) = task.open_saved(&mut cpu) else { return false };
    wide.is_ok() && narrow.is_ok() && format.set_xstate(saved, buffer).is_ok()
}

#[no_mangle]
pub extern "C" fn nostd_verify(
    task: &Task,
    words: &CpuFpu,
    plan: &Plan,
    scratch: &mut Scratch<Plan, RawArea>,
) -> bool {
    matches!(task.verify_registers(&mut IrqOff { words, plan }, scratch), Ok(Verified::Agreed))
}

#[no_mangle]
pub extern "C" fn nostd_idle(words: &CpuFpu, plan: &Plan) -> bool {
    matches!(IrqOff { words, plan }.fpu_idle(), Ok(true))
}

#[no_mangle]
pub extern "C" fn nostd_online(words: &CpuFpu, plan: &Plan, number: u32) -> bool {
    let mut cpu = IrqOff { words, plan };
    // SAFETY: K15, K16: never run.
    unsafe { cpu.fpu_online(number) }.is_ok()
        && cpu.fpu_resume().is_ok()
        && cpu.fpu_offline().is_ok()
}

static PLAN: PlanCell = PlanCell::new();

#[no_mangle]
pub extern "C" fn nostd_boot(words: &'static CpuFpu) -> bool {
    let choose = || Plan::detect_kernel(Components::USER);
    // SAFETY: K1: the one plan.
    let keep = |plan| PLAN.set(unsafe { TheBackend::new(plan) }).map(|plan| IrqOff { words, plan });
    // SAFETY: C1-C5, K15, K16: never run.
    unsafe { fpu_x86::bring_up_boot_cpu(0, choose, keep) }.is_ok()
}

/// # Safety
///
/// `base` is good for `len` bytes that no other code uses.
#[no_mangle]
pub unsafe extern "C" fn nostd_new(plan: &Plan, base: core::ptr::NonNull<u8>, len: usize) -> bool {
    // SAFETY: K19: the caller's.
    let area = unsafe { RawArea::new(base, len) };
    // SAFETY: K1: never run.
    TaskFpu::new(unsafe { TheBackend::from_ref(plan) }, area).is_ok()
}

#[no_mangle]
pub extern "C" fn nostd_begin(task: &Task, words: &CpuFpu, plan: &Plan) -> u64 {
    task.begin_user(&mut IrqOff { words, plan }).map_or(0, |pending| pending.steps().live)
}

static KEYS: ProtectionKeys = ProtectionKeys::new();

#[no_mangle]
pub extern "C" fn nostd_rights(prev: &TaskPkru, next: &TaskPkru, code: extern "C" fn()) -> bool {
    KEYS.switch(Some(prev), Some(next));
    KEYS.with_rights(next, Pkru::INITIAL, || code());
    let delivered = KEYS.deliver(next, |interrupted| interrupted.map(Pkru::bits).ok_or(()));
    delivered.is_ok() && KEYS.current(next) == Some(Pkru::LINUX_DEFAULT)
}

#[no_mangle]
pub extern "C" fn nostd_detect() -> bool {
    Plan::detect_user(Components::all()).is_ok()
}
