//! A foreign image into a task through the core's handles: a debugger's stopped task, and a session.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use fpu_core::{observe::Counters, Area, CpuFpu, CpuLifecycle, FpuRef, TaskFpu, TheBackend};
use fpu_x86::{Components, ForeignError, ForeignImage, Plan};

#[path = "support/witness.rs"]
mod witness;
use witness::Liar;

struct Tracer<'a>(&'a TheBackend<Plan>, FpuRef<'a, Plan>);

fpu_core::witness! {
    // SAFETY: K10: the task is never switched in. K11: one tracer. K12: a field.
    unsafe impl Stopped for Tracer<'_> {
        backend: Plan = |proof| proof.0,
        context: |proof| proof.1,
    }
}

fn frame(fcw: u16) -> Vec<u8> {
    let mut frame = vec![0; 512];
    frame[..2].copy_from_slice(&fcw.to_le_bytes());
    frame[24..28].copy_from_slice(&0x3F80u32.to_le_bytes());
    frame[160..176].fill(7);
    frame
}

#[test]
fn a_debugger_and_a_session_replace_a_tasks_image() {
    // SAFETY: K1: the only plan.
    let plan = unsafe { TheBackend::new(Plan::detect_user(Components::all()).unwrap()) };
    let words = CpuFpu::new();
    let mut cpu = Liar { words: &words, plan: &plan, counters: Counters::new() };
    // SAFETY: the only CPU comes online, once.
    unsafe { cpu.fpu_online(0) }.unwrap();
    let task: TaskFpu<Plan, _> = TaskFpu::new(&plan, Area::<16384>::new()).unwrap();
    let mut private = vec![0; plan.foreign_len()];

    let mut tracer = Tracer(&plan, task.context());
    let mut stopped = task.stopped(&mut tracer).unwrap().make_memory_valid_write();
    let good = frame(0x27F);
    let valid = ForeignImage::copy(&good, &mut private).unwrap().validate(&plan).unwrap();
    stopped.image_mut().replace_with(&valid).unwrap();
    let image = stopped.image();
    assert_eq!((image.fcw(), image.mxcsr(), image.xmm(0)), (0x27F, 0x3F80, Some([7; 16])));
    let mut bad = frame(0x37F);
    bad[26] = 0xFF;
    let refused = ForeignImage::copy(&bad, &mut private).unwrap().validate(&plan).map(drop);
    assert!(matches!(refused, Err(ForeignError::ReservedMxcsr { .. })));
    assert_eq!(stopped.image().fcw(), 0x27F);
    drop(stopped);

    let mut session = task.open(&mut cpu).unwrap().make_memory_valid_write();
    let other = frame(0xF7F);
    let valid = ForeignImage::copy(&other, &mut private).unwrap().validate(&plan).unwrap();
    session.image_mut().replace_with(&valid).unwrap();
    assert_eq!((session.image().fcw(), session.image().mxcsr()), (0xF7F, 0x3F80));
}
