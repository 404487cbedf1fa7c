//! Delivery and return on this CPU's registers: what the handler starts with and what the interrupted code goes on with,
//! from sessions and by steps, with copies that fail.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::ptr::NonNull;

use fpu_core::{observe::Counters, Area, CpuFpu, CpuLifecycle, Pinned, TaskFpu};
use fpu_hosted_test::{
    conformance::{Harness, Step},
    real::{deliver, frames_are_linuxs, settled, Edit, RealHarness, RegFile, Seen},
    Random,
};
use fpu_x86::{DeliverError, FrameKind, InMemory, Plan, SaveInstruction, SigreturnError};

#[path = "support/real.rs"]
mod support;
use support::*;
#[path = "support/witness.rs"]
mod witness;
use witness::Liar;

type Task = TaskFpu<Plan, Area<16384>>;

/// One trip to user mode and back, in assembly: what the task finds there; it leaves with `leaves`.
fn trip(h: &mut RealHarness, cpu: &mut Liar<'_>, task: &Task, leaves: &Seen) -> RegFile {
    let elsewhere = h.pattern(99, every(h));
    let pending = task.begin_user(cpu).unwrap();
    let steps = *pending.steps();
    let area = NonNull::new(steps.save_to).unwrap();
    assert!(!steps.restore_from.is_null(), "what is written in memory has to be loaded");
    let found = run(h, &[Step::Load(&elsewhere), Step::Restore(area)]);
    // SAFETY: the word of a context that is alive, as the steps have it.
    unsafe { steps.word.write_volatile(steps.live) };
    run(h, &[Step::Load(leaves), Step::Save(area)]);
    // SAFETY: the same.
    unsafe { steps.word.write_volatile(steps.saved) };
    // SAFETY: `pending` is alive. C12 to C14: just now, except for compiled code between the halves, which loads all
    // registers.
    unsafe { pending.round_trip_done() };
    found
}

/// What differs, whether the bits that hold nothing do or not.
#[track_caller]
fn settle_and_compare(got: &RegFile, expected: &RegFile, what: &str) {
    same(&settled(got.clone()), &settled(expected.clone()), what);
}

/// Opens the task as a soft-float kernel does and as one compiled with vector instructions: memory holds it, since
/// the kernel's entry has saved it, so neither executes an instruction that this program's own code could disturb.
macro_rules! opened {
    ($task:expr, $cpu:expr, $by_steps:expr, |$session:ident| $run:expr) => {
        if $by_steps {
            let $session = $task.open_saved($cpu).unwrap();
            $run
        } else {
            let $session = $task.open($cpu).unwrap().make_memory_valid_read();
            $run
        }
    };
}

#[test]
fn a_handler_starts_initial_and_the_interrupted_code_goes_on() {
    let mut words = Random::new(20_261_127);
    for_each_rung(|h| {
        let plan = h.fpu().clone();
        let format = plan.user_format().without_pkru();
        let words_of_cpu = CpuFpu::new();
        let mut cpu = Liar { words: &words_of_cpu, plan: &plan, counters: Counters::new() };
        // SAFETY: K15, K16: the only CPU of this kernel, its words new.
        unsafe { cpu.fpu_online(0) }.unwrap();
        let task: Task = TaskFpu::new(cpu.backend(), Area::new()).unwrap();
        let initial = RegFile::initial(h.classes());
        let (mut user, mut buffer) = (vec![0; 16388], vec![0; 16388]);
        let what = format!("{:?}", plan.save_instruction());
        for seed in 0..100 {
            let by_steps = seed % 2 == 1;
            let set = words.word() & every(h);
            let (interrupted, handler) =
                (h.pattern(2 * seed, set), h.pattern(2 * seed + 1, every(h)));
            trip(h, &mut cpu, &task, &interrupted);

            let at = words.below(format.frame_len());
            let failed = opened!(task, &mut cpu, by_steps, |session| {
                format.deliver(session, None, &mut buffer, |part| {
                    user[..at].copy_from_slice(&part[..at]);
                    Err(at)
                })
            });
            assert_eq!(failed, Err(DeliverError::FaultIn(at)), "{what}");
            let delivered = opened!(task, &mut cpu, by_steps, |session| {
                format.deliver(session, None, &mut buffer, |part| {
                    user[..part.len()].copy_from_slice(part);
                    Ok::<(), ()>(())
                })
            });
            assert_eq!(delivered, Ok(format.frame_len()), "{what}");
            let start = trip(h, &mut cpu, &task, &handler);
            settle_and_compare(&start, &initial, &format!("{what}: the handler"));

            let failed = opened!(task, &mut cpu, by_steps, |session| {
                back(&plan, session, &user, at, &mut buffer)
            });
            assert_eq!(failed, Err(SigreturnError::FaultIn(())), "{what}");
            let returned = opened!(task, &mut cpu, by_steps, |session| {
                back(&plan, session, &user, usize::MAX, &mut buffer)
            });
            assert!(returned.is_ok(), "{what}: {returned:?}");
            let after = trip(h, &mut cpu, &task, &handler);
            settle_and_compare(&after, &interrupted.0, &format!("{what}: the interrupted code"));

            // A frame that the return refuses leaves the handler's registers.
            user[27] ^= 0x80;
            let refused = opened!(task, &mut cpu, by_steps, |session| {
                back(&plan, session, &user, usize::MAX, &mut buffer)
            });
            assert!(matches!(refused, Err(SigreturnError::Refused(_))), "{what}: {refused:?}");
            let image = opened!(task, &mut cpu, by_steps, |session| h.view(session.image()));
            settle_and_compare(&image.unwrap().0, &handler.0, &format!("{what}: refused"));
            opened!(task, &mut cpu, by_steps, |session| drop(session.make_memory_valid_write()));
        }
    });
}

fn back(
    plan: &Plan,
    session: impl InMemory,
    user: &[u8],
    present: usize,
    buffer: &mut [u8],
) -> Result<FrameKind, SigreturnError<()>> {
    let format = plan.user_format().without_pkru();
    let copy = |from, bytes: &mut [u8]| {
        let to = from + bytes.len();
        bytes.copy_from_slice(&user[from..to]);
        if to > present {
            Err(())
        } else {
            Ok(())
        }
    };
    format.sigreturn(session, buffer, copy).map(|returned| returned.kind)
}

/// The host's kernel delivers, and we return: the registers are those that it interrupted.
#[test]
fn we_return_from_the_kernels_frames() {
    if let Err(why) = frames_are_linuxs() {
        return println!("SKIP: {why}");
    }
    let mut tried = 0;
    for_each_rung(|h| {
        let plan = h.fpu().clone();
        if plan.save_instruction() == SaveInstruction::Fxsave && plan.cpuid_info().osxsave() {
            return println!("the kernel's frames have more than x87 and SSE: nothing to try");
        }
        tried += 1;
        let words = CpuFpu::new();
        let mut cpu = Liar { words: &words, plan: &plan, counters: Counters::new() };
        // SAFETY: K15, K16: the only CPU of this kernel, its words new.
        unsafe { cpu.fpu_online(0) }.unwrap();
        let task: Task = TaskFpu::new(cpu.backend(), Area::new()).unwrap();
        let handler = h.pattern(7, every(h));
        let mut buffer = vec![0; 16388];
        for seed in 0..100 {
            let load = h.pattern(1000 + seed, every(h)).0;
            let delivered = deliver(&load, seed % 2 == 0, Edit::Keep);
            let mut user = delivered.frame;
            user.resize(16388, 0);
            let session = task.open_saved(&mut cpu).unwrap();
            let kind = back(&plan, session, &user, usize::MAX, &mut buffer).unwrap();
            let what = format!("{:?}, {kind:?}", plan.save_instruction());
            settle_and_compare(&trip(h, &mut cpu, &task, &handler), &load, &what);
        }
    });
    if tried == 0 {
        println!("SKIP: no instruction here has the kernel's frames");
    }
}
