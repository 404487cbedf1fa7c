//! Floating-point exceptions, of the registers and against the host's kernel: the `si_code` of its SIGFPE is that of the error
//! which we tell.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{
    arch::asm,
    ffi::{c_int, c_void},
    sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed},
};
use std::{mem, ptr, sync::Mutex};

use fpu_hosted_test::real::frames_are_linuxs;
use fpu_x86::FpError;

/// Where FCW, FSW and MXCSR stand in a frame.
const MXCSR: usize = 24;
const INITIAL: (u16, u16, u32) = (0x37F, 0, 0x1F80);

static CODE: AtomicI32 = AtomicI32::new(0);
/// FCW and FSW, and MXCSR, of the frame.
static X87: AtomicU32 = AtomicU32::new(0);
static SIMD: AtomicU32 = AtomicU32::new(0);
/// Only one test has the handler's words.
static ALONE: Mutex<()> = Mutex::new(());

/// Notes the code and the words, and lets the instruction go on with everything masked and no flag set.
unsafe extern "C" fn on_error(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO these are the signal's, the frame's FPU part among them.
    unsafe {
        let frame = (*context.cast::<libc::ucontext_t>()).uc_mcontext.fpregs.cast::<u8>();
        let (x87, simd) = (frame.cast::<u32>(), frame.add(MXCSR).cast::<u32>());
        X87.store(x87.read(), Relaxed);
        SIMD.store(simd.read(), Relaxed);
        CODE.store((*info).si_code, Relaxed);
        x87.write(u32::from(INITIAL.0) | u32::from(INITIAL.1) << 16);
        simd.write(INITIAL.2);
    }
}

fn install() {
    // SAFETY: all-zero is a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler has the form that SA_SIGINFO asks for.
    assert_eq!(unsafe { libc::sigaction(libc::SIGFPE, &action, ptr::null_mut()) }, 0);
}

/// The code of the SIGFPE that came, if one did.
fn raised(run: impl FnOnce()) -> Option<i32> {
    CODE.store(0, Relaxed);
    run();
    Some(CODE.load(Relaxed)).filter(|code| *code != 0)
}

#[test]
fn of_x87_for_all_flags_and_masks() {
    if let Err(why) = frames_are_linuxs() {
        return println!("SKIP: {why}");
    }
    let _alone = ALONE.lock();
    install();
    let (mut signals, mut silent) = (0, 0);
    for flags in 0..64u16 {
        for masks in 0..64u16 {
            // A stack fault too, with the invalid operation that it is one of.
            for stack in [0u16, 0x40] {
                if stack != 0 && flags & 1 == 0 {
                    continue;
                }
                let (fcw, fsw) = (0x340 | masks, flags | stack);
                let mut environment = [0u32; 7];
                environment[0] = u32::from(fcw);
                environment[1] = u32::from(fsw);
                environment[2] = 0xFFFF;
                // SAFETY: a local operand; the handler, or the last instruction, brings x87 back to its initial state.
                let code = raised(|| unsafe {
                    asm!("fldenv [{}]", "fwait", "fninit", in(reg) &environment, options(nostack));
                });
                let told = FpError::of_x87(fcw, fsw);
                assert_eq!(code, told.ok().map(FpError::code), "{flags:#x} {masks:#x} {stack:#x}");
                if code.is_none() {
                    silent += 1;
                    continue;
                }
                signals += 1;
                // By the words of the frame, too, where the CPU has set the summary bits.
                let words = X87.load(Relaxed);
                assert_eq!(FpError::of_x87(words as u16, (words >> 16) as u16), told);
            }
        }
    }
    println!("{signals} signals, {silent} without an error");
    // Each flag clear, set and masked, or set and not; with a stack fault one of them is set.
    let masked = 3u32.pow(6) + 3u32.pow(5);
    assert_eq!((signals, silent), (64 * 64 + 32 * 64 - masked, masked));
}

/// Dividends and divisors whose quotients raise each of the errors.
const OPERANDS: [(f32, f32); 7] = [
    (0.0, 0.0),
    (1.0, 0.0),
    (1e-40, 1.0),
    (f32::MAX, 0.25),
    (f32::MIN_POSITIVE, 3e9),
    (1.0, 3.0),
    (f32::NAN, 1.0),
];

#[test]
fn of_simd_for_all_flags_and_masks() {
    if let Err(why) = frames_are_linuxs() {
        return println!("SKIP: {why}");
    }
    let _alone = ALONE.lock();
    install();
    let mut codes = [0; 8];
    for (one, other) in OPERANDS {
        for flags in 0..64u32 {
            for masks in 0..64u32 {
                let (mxcsr, initial) = (flags | masks << 7, INITIAL.2);
                // SAFETY: local operands without reserved bits; the last instruction brings MXCSR back to its initial value.
                let code = raised(|| unsafe {
                    asm!(
                        "ldmxcsr [{mxcsr}]",
                        "divss {one}, {other}",
                        "ldmxcsr [{initial}]",
                        mxcsr = in(reg) &mxcsr,
                        initial = in(reg) &initial,
                        one = inout(xmm_reg) one => _,
                        other = in(xmm_reg) other,
                        options(nostack),
                    );
                });
                let Some(code) = code else { continue };
                let told = FpError::of_simd(SIMD.load(Relaxed));
                assert_eq!(told.map(FpError::code), Ok(code), "{one} / {other} {mxcsr:#x}");
                codes[code as usize] += 1;
            }
        }
    }
    println!("signals by code: {codes:?}");
    assert!(codes[3..=7].iter().all(|count| *count > 0), "{codes:?}");
}

/// What `in_x87` and `in_simd` read are the registers, which no instruction is to touch in between: flags that are not masked
/// would be reported.
#[test]
fn live_registers_tell_the_same_as_their_words() {
    for flags in 0..64u16 {
        for masks in 0..64u16 {
            let environment = [0x340 | u32::from(masks), u32::from(flags), 0xFFFF, 0, 0, 0, 0];
            let mxcsr = u32::from(masks) << 7 | u32::from(flags);
            // SAFETY: local operands. Compiled code uses no x87 instruction, and none of SSE that raises a flag; both are
            // brought back.
            let (x87, simd) = unsafe {
                asm!("fldenv [{}]", in(reg) &environment, options(nostack));
                let x87 = FpError::in_x87();
                asm!("fninit", options(nostack));
                asm!("ldmxcsr [{}]", in(reg) &mxcsr, options(nostack));
                let simd = FpError::in_simd();
                asm!("ldmxcsr [{}]", in(reg) &INITIAL.2, options(nostack));
                (x87, simd)
            };
            assert_eq!(x87, FpError::of_x87(0x340 | masks, flags));
            assert_eq!(simd, FpError::of_simd(mxcsr));
            assert_eq!(x87.map(FpError::code).is_ok(), flags & !masks != 0);
        }
    }
}
