//! Interrupts, exceptions, system calls and new stacks: from the assembly to their handlers.

use core::{
    arch::global_asm,
    mem::{offset_of, size_of},
};

use crate::{
    apic,
    cpu::{PerCpu, USER_CS, USER_SS},
    debugger, demand,
    entry::{Frame, SPURIOUS, TIMER},
    fpu, handlers, power, rights, scalar, sched, signal,
    task::{self, Kind},
    to_user, torture, vcpu, verdict, worker,
    xfd::{self, Refused},
};

global_asm!(
    include_str!("trap.s"),
    user_rsp = const offset_of!(PerCpu, user_rsp),
    kernel_rsp = const offset_of!(PerCpu, kernel_rsp),
    user_ss = const USER_SS,
    user_cs = const USER_CS,
);

/// Interrupts are off. Returns only if the kernel was interrupted.
#[no_mangle]
extern "C" fn trap_dispatch(frame: &mut Frame) {
    if frame.is_user() {
        verdict::tiles(xfd::from_user());
    }
    match frame.vector as u8 {
        TIMER => {
            apic::eoi();
            if scalar::is_running() {
                return scalar::tick();
            }
            torture::tick(frame);
            // With a signal it stays, so that the frame is written from registers.
            let stays = frame.is_user() && signal::due(task::current());
            if sched::preemptible(frame) && !stays {
                sched::preempt();
            }
        }
        SPURIOUS => {}
        1 if !frame.is_user() => torture::step(frame),
        7 if !frame.is_user() && scalar::is_running() => scalar::trapped(),
        16 if frame.is_user() && torture::raised_as_it_should() => {
            // SAFETY: interrupts are off, and it is the current task's frame.
            unsafe { to_user::ends(task::current(), frame) };
        }
        6 if frame.is_user() => match xfd::refused(frame) {
            Refused::Executed => {}
            Refused::NotAvailable => demand::device_not_available(frame),
            Refused::Another => verdict::user_exception(frame),
        },
        7 if frame.is_user() => demand::device_not_available(frame),
        _ if frame.is_user() => verdict::user_exception(frame),
        _ => {
            let served = xfd::accessed(frame) || handlers::serves_fixup() && fpu::fixed_up(frame);
            if !served && !rights::answered(frame) {
                verdict::kernel_exception(frame);
            }
        }
    }
    if frame.is_user() {
        to_user::return_to_user(frame);
    }
}

/// Interrupts and NMIs are off, and this may be anywhere, the scheduler included.
#[no_mangle]
extern "C" fn nmi_dispatch(frame: &mut Frame) {
    torture::nmi(frame);
}

#[no_mangle]
extern "C" fn double_fault(frame: &mut Frame) {
    verdict::kernel_exception(frame);
}

/// The first code on a new stack.
#[no_mangle]
extern "C" fn task_begin() -> ! {
    // SAFETY: a new stack, which `schedule` has switched to.
    unsafe { sched::finish_switch() };
    let task = task::current();
    match task.kind {
        Kind::Holder | Kind::Quiet => {
            let frame = (task.stack_top() - size_of::<Frame>() as u64) as *mut Frame;
            // SAFETY: `spawn` put it there.
            to_user::return_to_user(unsafe { &mut *frame })
        }
        Kind::Power => power::thread(),
        Kind::Debugger => debugger::thread(),
        Kind::Vcpu => vcpu::thread(),
        Kind::Worker | Kind::Idle => worker::thread(),
    }
}
