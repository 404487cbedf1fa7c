//! A handler that can only set RIP, as handlers of the type `extern "x86-interrupt"`: a refused restore is an error
//! all the same. A program of its own, because a process has one handler.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{
    ffi::{c_int, c_void},
    mem, ptr,
};

use fpu_core::{Area, RawFpu, RestoreFault, SaveArea};
use fpu_x86::{Components, Format, Plan, SaveInstruction};

unsafe extern "C" fn on_fault(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the third argument is the interrupted context, ours to change.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let ip = registers[libc::REG_RIP as usize] as usize;
    // A refused image is #GP; QEMU's user mode leaves the vector out of the frame.
    // SAFETY: N7: this test jumps nowhere, and its code is readable.
    match unsafe { fpu_x86::fixup(ip, 13) } {
        Some(fixup) => registers[libc::REG_RIP as usize] = fixup.rip as i64,
        // SAFETY: async-signal-safe: the same fault ends the process.
        None => unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        },
    }
}

fn serve() {
    // SAFETY: all-zero is a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_fault;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the form that SA_SIGINFO asks for.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) }, 0);
}

#[test]
fn rip_alone_makes_a_refused_restore_an_error() {
    serve();
    let all = Plan::detect_user(Components::all()).unwrap();
    // SAFETY: C23: this test puts nothing into the other registers.
    let legacy = unsafe { Plan::detect_user_without(!Components::LEGACY) }.unwrap();
    let mut plans: Vec<Plan> = SaveInstruction::ALL
        .iter()
        .filter_map(|rung| all.clone().with_save_instruction(*rung).ok())
        .collect();
    plans.extend(legacy.with_save_instruction(SaveInstruction::Fxsave));
    let mut refused = 0;
    for plan in plans {
        let area = Area::<16384>::new();
        assert!(plan.area_len() <= area.len());
        // SAFETY: C9: the area is ours and large enough. C10: the compiler keeps nothing in the registers across a
        // restore, which says that it changes them; a refused one is followed by one that is not.
        let (bad, good) = unsafe {
            plan.write_initial(area.base());
            // A reserved bit of MXCSR; the highest byte of XSTATE_BV, for a component that no system enables.
            let (at, wrong) =
                if plan.format() == Format::Legacy { (27, 0x80) } else { (519, 0x40) };
            let byte = area.base().as_ptr().add(at);
            let right = byte.replace(wrong);
            let bad = plan.restore(area.base());
            byte.write(right);
            (bad, plan.restore(area.base()))
        };
        assert_eq!(good, Ok(()), "{:?}", plan.save_instruction());
        match bad {
            // Emulators load any MXCSR.
            Ok(()) => {
                println!(
                    "SKIP: reserved bits of MXCSR are no fault for {:?} here",
                    plan.save_instruction()
                )
            }
            // 255: the handler did not tell.
            bad => assert_eq!(bad, Err(RestoreFault(255)), "{:?}", plan.save_instruction()),
        }
        refused += u32::from(bad.is_err());
    }
    println!("{refused} refused");
}
