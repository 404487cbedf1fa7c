//! Which instructions a save and a restore execute, with which mask, seen in single steps: XSAVE in place of XSAVEOPT
//! gives the same image, and XSAVES and XRSTORS are refused in ring 3, so that no other test here can tell.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{
    arch::asm,
    ffi::{c_int, c_void},
    ptr::NonNull,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};
use fpu_core::RawFpu;
use fpu_hosted_test::{conformance::Harness, real::RealHarness};
use fpu_x86::{Components, Plan, SaveInstruction};

/// An instruction that moves registers: opcode, and the digit of the SDM's `/digit`.
type Opcode = (u8, u8);
const FXSAVE64: Opcode = (0xAE, 0);
const FXRSTOR64: Opcode = (0xAE, 1);
const XSAVE64: Opcode = (0xAE, 4);
const XRSTOR64: Opcode = (0xAE, 5);
const XSAVEOPT64: Opcode = (0xAE, 6);
const XRSTORS64: Opcode = (0xC7, 3);
const XSAVEC64: Opcode = (0xC7, 4);
const XSAVES64: Opcode = (0xC7, 5);
/// Without REX.W.
const LDMXCSR: Opcode = (0xAE, 2);
const FLDENV: Opcode = (0xD9, 4);

/// What was seen: [opcode and digit, EDX:EAX] of each. One test of this program steps.
static SEEN: [[AtomicU64; 2]; 16] = [const { [const { AtomicU64::new(0) }; 2] }; 16];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The instruction at `ip`, if it is of one of the groups, and its length.
///
/// # Safety
///
/// An instruction is there; behind those of the groups come others.
unsafe fn decode(ip: usize) -> Option<(Opcode, usize)> {
    // SAFETY: the caller's; a byte is read only if those before it say that it belongs to the instruction.
    let byte = |at: usize| unsafe { (ip as *const u8).wrapping_add(at).read() };
    let rex = usize::from(byte(0) & 0xF0 == 0x40);
    let wide = rex == 1 && byte(0) & 8 != 0;
    let (opcode, at) = match byte(rex) {
        0xD9 => (0xD9, rex + 1),
        0x0F if matches!(byte(rex + 1), 0xAE | 0xC7) => (byte(rex + 1), rex + 2),
        _ => return None,
    };
    let (mode, digit, base) = (byte(at) >> 6, byte(at) >> 3 & 7, byte(at) & 7);
    if mode == 3 || wide == matches!((opcode, digit), LDMXCSR | FLDENV) {
        return None; // a register operand, or the 32-bit form
    }
    let more = match (mode, base) {
        (0, 5) => 4,
        (0, 4) if byte(at + 1) & 7 == 5 => 5,
        (mode, base) => [0, 1, 4][usize::from(mode)] + usize::from(base == 4),
    };
    Some(((opcode, digit), at + 1 + more))
}

unsafe extern "C" fn on_signal(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes this to a handler installed with SA_SIGINFO.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let ip = registers[libc::REG_RIP as usize] as usize;
    // SAFETY: the instruction that is next, or was refused, of this program.
    let found = unsafe { decode(ip) };
    if signal == libc::SIGTRAP {
        let Some(((opcode, digit), _)) = found else { return };
        let (low, high) = (registers[libc::REG_RAX as usize], registers[libc::REG_RDX as usize]);
        let Some(seen) = SEEN.get(COUNT.fetch_add(1, Relaxed)) else { return };
        seen[0].store(u64::from(opcode) << 8 | u64::from(digit), Relaxed);
        seen[1].store((high as u64) << 32 | (low as u64 & 0xFFFF_FFFF), Relaxed);
    } else if let Some((_, len)) = found {
        // XSAVES, XRSTORS, or what is there in place of them. Goes on behind it, where a restore says that it loaded
        // something.
        registers[libc::REG_RIP as usize] += len as i64;
    } else {
        // SAFETY: the default action, for the fault that comes again.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

fn serve() {
    // SAFETY: a zeroed `sigaction` is valid; the handler has the type of SA_SIGINFO.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL] {
            assert_eq!(libc::sigaction(signal, &action, core::ptr::null_mut()), 0);
        }
    }
}

/// The instructions that `body` executes, each with EDX:EAX.
fn steps(body: impl FnOnce()) -> Vec<(Opcode, u64)> {
    COUNT.store(0, Relaxed);
    // SAFETY: sets the trap flag; `on_signal` gets the traps.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    body();
    // SAFETY: clears it.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    let count = COUNT.load(Relaxed).min(SEEN.len());
    let read = |seen: &[AtomicU64; 2]| {
        let opcode = seen[0].load(Relaxed);
        (((opcode >> 8) as u8, opcode as u8), seen[1].load(Relaxed))
    };
    SEEN[..count].iter().map(read).collect()
}

#[repr(C, align(64))]
struct Memory([u8; 16384]);

fn expect(plan: &Plan) {
    let mut memory = Box::new(Memory([0; 16384]));
    assert!(plan.area_len() <= 16384);
    let area = NonNull::from(&mut memory.0).cast();
    // SAFETY: C9: aligned, long enough, ours.
    unsafe { plan.write_initial(area) };
    let (save, restore) = match plan.save_instruction() {
        SaveInstruction::Fxsave => (FXSAVE64, FXRSTOR64),
        SaveInstruction::Xsave => (XSAVE64, XRSTOR64),
        SaveInstruction::Xsaveopt => (XSAVEOPT64, XRSTOR64),
        SaveInstruction::Xsavec => (XSAVEC64, XRSTOR64),
        SaveInstruction::Xsaves => (XSAVES64, XRSTORS64),
        other => panic!("which instructions has {other:?}?"),
    };
    let mask = plan.components().bits();
    let what = format!(
        "{:?}, {:?}, scrubs: {}",
        plan.save_instruction(),
        plan.components(),
        plan.scrubs()
    );
    println!("{what}");
    // FXSAVE has no mask.
    let masked = |steps: Vec<(Opcode, u64)>| -> Vec<(Opcode, u64)> {
        let has = |opcode| !matches!(opcode, FXSAVE64 | FXRSTOR64 | LDMXCSR | FLDENV);
        let keep = |(opcode, mask)| (opcode, if has(opcode) { mask } else { 0 });
        steps.into_iter().map(keep).collect()
    };
    let mask = if plan.save_instruction() == SaveInstruction::Fxsave { 0 } else { mask };
    // SAFETY: C9: aligned, long enough, ours. A save changes no register.
    let saved = masked(steps(|| unsafe { plan.save(area) }));
    assert_eq!(saved, [(save, mask)], "a save: {what}");
    let mut answer = Ok(());
    // SAFETY: valid area (C9). C10: the compiler is told what it loads; it is the initial state.
    let restored = masked(steps(|| answer = unsafe { plan.restore(area) }));
    let mut all = vec![(restore, mask)];
    if plan.scrubs() {
        all.splice(0..0, [(FLDENV, 0), (LDMXCSR, 0)]);
    }
    assert_eq!((restored, answer), (all, Ok(())), "a restore: {what}");
}

#[test]
fn each_rung_executes_its_own_instructions_with_the_whole_mask() {
    let (rungs, skipped) = RealHarness::rungs();
    skipped.iter().for_each(|why| println!("SKIP: {why}"));
    serve();
    let value = 0x1F80u32;
    let ours = steps(|| {
        // SAFETY: the initial MXCSR.
        unsafe { asm!("ldmxcsr dword ptr [{}]", in(reg) &value) }
    });
    if ours.is_empty() {
        println!("SKIP: this system delivers no single steps");
        return;
    }
    assert_eq!(ours.len(), 1);
    let mut plans: Vec<Plan> = rungs.iter().map(|harness| harness.fpu().clone()).collect();
    let kernel = Plan::detect_kernel(Components::USER | Components::CET_U);
    match kernel.and_then(|plan| plan.with_save_instruction(SaveInstruction::Xsaves)) {
        Ok(plan) => plans.push(plan),
        Err(why) => println!("SKIP: XSAVES and XRSTORS: {why}"),
    }
    for plan in plans {
        expect(&plan);
        expect(&plan.scrubbing());
    }
}
