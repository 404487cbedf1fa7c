//! Which mask each instruction gets in EDX:EAX: it is made to fault, and a signal handler looks. So the high half is
//! seen too, in which no CPU here has a component, and the instructions of ring 0. Writes of XCR0 and of a
//! model-specific register have their value there.

use core::{
    ffi::{c_int, c_void},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::cpuid::CpuidInfo;

/// One test at a time looks.
static TURN: Mutex<()> = Mutex::new(());
static SEEN: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn on_signal(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system passes this to a handler installed with SA_SIGINFO.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let ip = registers[libc::REG_RIP as usize] as usize;
    let (low, high) = (registers[libc::REG_RAX as usize], registers[libc::REG_RDX as usize]);
    SEEN.store((high as u64) << 32 | (low as u64 & 0xFFFF_FFFF), Relaxed);
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: N7: the instruction that faulted, of this program.
    if let Some(fixup) = unsafe { fixup(ip, 13) } {
        registers[libc::REG_RIP as usize] = fixup.rip as i64;
        registers[libc::REG_RAX as usize] = fixup.rax as i64;
        return;
    }
    // SAFETY: a byte is read only if those before it say that it belongs to the instruction.
    let byte = |at: usize| unsafe { (ip as *const u8).wrapping_add(at).read() };
    if byte(0) & 0xF8 == 0x48 && byte(1) == 0x0F && matches!(byte(2), 0xAE | 0xC7) {
        // A save: behind ModRM may come a SIB byte and 8 bits of displacement.
        let (mode, base) = (byte(3) >> 6, byte(3) & 7);
        let more = usize::from(base == 4) + usize::from(mode == 1);
        registers[libc::REG_RIP as usize] += 4 + more as i64;
    } else {
        // SAFETY: the default action, for the fault that comes again.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// What faults is served from here on.
fn serve() {
    // SAFETY: a zeroed `sigaction` is valid; the handler has the type of SA_SIGINFO.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        for signal in [libc::SIGSEGV, libc::SIGILL] {
            assert_eq!(libc::sigaction(signal, &action, core::ptr::null_mut()), 0);
        }
    }
}

/// How many faults `code` raises, and EDX:EAX of the last.
fn faults(code: impl FnOnce()) -> (usize, u64) {
    COUNT.store(0, Relaxed);
    code();
    (COUNT.load(Relaxed), SEEN.load(Relaxed))
}

#[repr(C, align(64))]
struct Memory([u8; 16384]);

/// x87 and SSE state in the standard format, with control words that compiled code does not have: FCW, MXCSR, XSTATE_BV.
fn image() -> Memory {
    let mut image = Memory([0; 16384]);
    image.0[..2].copy_from_slice(&0x27Fu16.to_le_bytes());
    image.0[24..28].copy_from_slice(&0x7FBFu32.to_le_bytes());
    image.0[512] = 3;
    image
}

type Round = unsafe fn(*const u8, *mut u8, u64) -> (u32, u32);
const ROUNDS: [Round; 5] =
    [fxrstor_fxsave, xrstor_xsave, xrstor_xsaveopt, xrstor_xsavec, xrstors_xsaves];

#[test]
fn every_instruction_gets_both_halves_of_the_mask() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    serve();
    let mut memory = image();
    let aligned = memory.0.as_mut_ptr();
    // All of these are refused at such an address, if not for being unknown or of ring 0 (SDM vol. 1, 13.7 to 13.12).
    let odd = aligned.wrapping_add(1);
    let bits = (0..64).map(|bit| 1 << bit);
    // Knuth's MMIX: both halves of a word vary.
    let next = |word: &u64| Some(word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1));
    let masks = bits.chain(core::iter::successors(Some(62), next)).take(1000);
    let has_xsave = CpuidInfo::of_this_cpu().is_ok_and(|facts| facts.osxsave());
    for mask in masks {
        for save in [xsave, xsaveopt, xsavec, xsaves] {
            // SAFETY: N1 (instruction and area) does not hold: the instruction faults.
            assert_eq!(faults(|| unsafe { save(odd, mask) }), (1, mask), "a save of {mask:#x}");
        }
        for restore in [xrstor, xrstors] {
            let mut answer = 0;
            // SAFETY: N1 (instruction and area) does not hold: the instruction faults.
            let seen = faults(|| answer = unsafe { restore(odd, mask) });
            assert_eq!((seen, vector_of(answer)), ((1, mask), 13), "a restore of {mask:#x}");
        }
        let writes: [unsafe fn(u64) -> u32; 2] = [xsetbv0, |value| {
            // SAFETY: the caller's.
            unsafe { wrmsr(0xDA0, value) }
        }];
        for write in writes {
            let mut answer = 0;
            // SAFETY: N3 (OSXSAVE set) and N4 (ring 0) do not hold: in ring 3 it faults.
            let seen = faults(|| answer = unsafe { write(mask) });
            assert_eq!((seen, answer), ((1, mask), 13), "a write of {mask:#x}");
        }
        for round in &ROUNDS[1..] {
            let mut answer = (0, 0);
            // SAFETY: N1 (instruction and area) does not hold: the restore faults, and nothing is saved.
            let seen = faults(|| answer = unsafe { round(odd, odd, mask) });
            assert_eq!((seen, answer.1), ((1, mask), 0), "the restore of a round of {mask:#x}");
            // Without PKRU, which is not the test's.
            let mask = mask & !(1 << 9);
            // SAFETY: N2: no register holds anything here. N1: it restores an image, and the save faults.
            let seen = faults(|| answer = unsafe { round(aligned, odd, mask) });
            assert_eq!(seen, (1, mask), "a round of {mask:#x}");
            // XRSTORS is refused in ring 3.
            let saves = has_xsave && *round as usize != xrstors_xsaves as Round as usize;
            assert_eq!(answer.1, u32::from(saves), "which half of a round of {mask:#x}");
        }
    }
    if !has_xsave {
        println!("SKIP: the saves of rounds: this CPU or its system has no XSAVE");
    }
}

/// What was loaded, or that it was refused, is nothing that compiled code runs with.
#[test]
fn a_round_leaves_the_control_words_of_compiled_code() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    serve();
    let (from, mut to) = (image(), image());
    for round in ROUNDS {
        for restored in [from.0.as_ptr(), from.0.as_ptr().wrapping_add(1)] {
            // SAFETY: N1: it is restored, or faults. N2: no register holds anything here. As before, all is masked.
            let (fcw, fsw, mxcsr) = unsafe {
                ldmxcsr(0x7FBF);
                asm!("fninit", "push 0x27F", "fldcw [rsp]", "pop {}", out(reg) _);
                round(restored, to.0.as_mut_ptr(), 3);
                let mxcsr = stmxcsr();
                let [fcw, fsw, ..] = environment();
                (fcw & 0xFFFF, fsw & 0xFFFF, mxcsr)
            };
            assert_eq!((fcw, fsw, mxcsr), (0x37F, 0, 0x1F80));
        }
    }
}
