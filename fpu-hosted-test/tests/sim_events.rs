//! What every operation tells of, in order: a trace or a counter must not miss one.

use fpu_core::{
    observe::EventKind::{self, Failed, Invalidated, Loaded, Restored, Saved, Skipped, Unloaded},
    session::TaskState,
    switch,
    verify::Scratch,
    CpuLifecycle, Error, KernelFpu, KernelUnits, PendingGuest, PendingSection, RawFpu, SwitchSteps,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{SimArea, SimCpu, SimStopped},
};
use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The state in which an operation finds the task.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Found {
    RegistersOnly,
    Both,
    MemoryOnly,
}
use Found::{Both, MemoryOnly, RegistersOnly};

fn enter(cpu: &SimCpu, task: &Task) {
    drop(task.switch_return(&mut cpu.irqs_off()).expect("the CPU is free"));
}

fn comes(cpu: &SimCpu, task: &Task) {
    task.switch_in(&mut cpu.irqs_off()).expect("the CPU is free");
}
fn switches(cpu: &SimCpu, prev: Option<&Task>, next: Option<&Task>) {
    let (prev, next) = (prev.map(Task::context), next.map(Task::context));
    switch(prev, next, &mut cpu.irqs_off()).expect("the CPU is free");
}
fn adopts(cpu: &SimCpu, task: &Task) {
    // SAFETY: C37: no other context's state is here. C38: what is in the registers is in memory, or changed since.
    unsafe { task.adopt(&mut cpu.irqs_off()) }.expect("the CPU is free");
}

fn by_steps(cpu: &SimCpu, task: &Task) {
    let mut irqs = cpu.irqs_off();
    let pending = task.begin_user(&mut irqs).expect("free");
    if let Some(area) = NonNull::new(pending.steps().restore_from.cast_mut()) {
        // SAFETY: C9: `pending`'s area. C10: simulated registers.
        if let Err(why) = unsafe { cpu.fpu().restore(area) } {
            assert_eq!(pending.failed(why), Error::RestoreFailed(why));
            return;
        }
    }
    // SAFETY: C12, C13: done just now.
    drop(unsafe { pending.restored() });
}

fn round_trip(cpu: &SimCpu, task: &Task) {
    let mut irqs = cpu.irqs_off();
    let pending = task.begin_user(&mut irqs).expect("free");
    let steps = *pending.steps();
    // SAFETY: C9: `pending`'s area. C10: simulated registers.
    unsafe {
        if let Some(area) = NonNull::new(steps.restore_from.cast_mut()) {
            cpu.fpu().restore(area).expect("a good image");
        }
        cpu.fpu().save(NonNull::new(steps.save_to).expect("an area"));
    }
    // SAFETY: `pending`'s word, an atomic of the context that it borrows.
    let word = unsafe { AtomicU64::from_ptr(steps.word) };
    word.store(steps.saved, Relaxed);
    // SAFETY: C12, C13, C14: done just now.
    unsafe { pending.round_trip_done() };
}

fn out_by_steps(cpu: &SimCpu, task: &Task) {
    let mut irqs = cpu.irqs_off();
    let Some(pending) = task.begin_switch_out(&mut irqs).expect("free") else { return };
    let area = NonNull::new(pending.steps().save_to).expect("an area");
    // SAFETY: C9: `pending`'s area. C10: simulated registers.
    unsafe { cpu.fpu().save(area) };
    // SAFETY: C15: done just now.
    unsafe { pending.saved() };
}

fn by_switch(cpu: &SimCpu, prev: Option<&Task>, next: Option<&Task>) {
    let mut irqs = cpu.irqs_off();
    let (prev, next) = (prev.map(Task::context), next.map(Task::context));
    let steps = SwitchSteps::begin(&mut irqs, prev, next).expect("free");
    // SAFETY: C39: the words of contexts that are borrowed.
    let commit = |word, value| unsafe { AtomicU64::from_ptr(word) }.store(value, Relaxed);
    if let Some(area) = NonNull::new(steps.save_to) {
        // SAFETY: C9: the context's area. C10: simulated registers.
        unsafe { cpu.fpu().save(area) };
        commit(steps.save_word, steps.saved);
    }
    let mut restored = Ok(());
    if let Some(area) = NonNull::new(steps.restore_from.cast_mut()) {
        // SAFETY: C9: the next context's area. C10: simulated registers.
        restored = unsafe { cpu.fpu().restore(area) };
        if restored.is_ok() {
            commit(steps.restore_word, steps.live);
        }
    }
    assert_eq!(steps.done(&irqs, restored), restored.map_err(Error::RestoreFailed));
}

fn section_by_steps(cpu: &SimCpu, task: &Task) {
    let (mut pin, told) = (cpu.preempt_off(), Some(task.context()));
    let pending = PendingSection::begin(&mut pin, told, KernelUnits::ALL).expect("free");
    if let Some(steps) = pending.steps() {
        // SAFETY: C9: `pending`'s area. C10: simulated registers.
        unsafe { cpu.fpu().save(NonNull::new(steps.save_to).expect("an area")) };
    }
    // SAFETY: C42: done just now.
    drop(unsafe { pending.saved() });
}
/// The task is host and guest.
fn guest_by_steps(cpu: &SimCpu, task: &Task) {
    let mut pin = cpu.preempt_off();
    let pending =
        PendingGuest::begin(&mut pin, task.context(), Some(task.context())).expect("free");
    let steps = *pending.steps();
    // SAFETY: C43: the word of a context that is borrowed.
    let commit = |word, value| unsafe { AtomicU64::from_ptr(word) }.store(value, Relaxed);
    let area = NonNull::new(steps.area).expect("an area");
    // SAFETY: C9: `pending`'s area, which is both's. C10: simulated registers.
    let restored = unsafe {
        if !steps.host_save_to.is_null() {
            cpu.fpu().save(area);
            commit(steps.host_word, steps.host_saved);
        }
        cpu.fpu().restore(area)
    };
    if let Err(why) = restored {
        // SAFETY: C43: so far.
        assert_eq!(unsafe { pending.failed(why) }, Error::RestoreFailed(why));
        return;
    }
    commit(steps.word, steps.live);
    // SAFETY: C9: `pending`'s area. C10: simulated registers.
    unsafe { cpu.fpu().save(area) };
    commit(steps.word, steps.saved);
    // SAFETY: C43: done just now.
    unsafe { pending.done() };
}

fn writes(cpu: &SimCpu, task: &Task) {
    drop(task.open(&mut cpu.preempt_off()).expect("free").make_memory_valid_write());
}
fn loads(cpu: &SimCpu, task: &Task) {
    // An injected failure is one of the cases.
    let _ = task.open(&mut cpu.preempt_off()).expect("free").make_registers_valid();
}
fn returns(cpu: &SimCpu, task: &Task) {
    let mut irqs = cpu.irqs_off();
    let session = task.open(&mut irqs).expect("free").make_memory_valid_write();
    drop(session.switch_return().expect("a good image"));
}
fn runs(cpu: &SimCpu, task: &Task) {
    // As above.
    let _ = cpu.preempt_off().run_guest(task.context(), None, || ());
}
fn verifies(cpu: &SimCpu, task: &Task) {
    let mut scratch = Scratch::new(cpu.fpu(), SimArea::new()).expect("the area fits");
    // A disagreement is one of the cases.
    let _ = task.verify_registers(&mut cpu.preempt_off(), &mut scratch);
}
fn idles(cpu: &SimCpu, given_up: bool) {
    assert_eq!(cpu.preempt_off().fpu_idle(), Ok(given_up));
}
fn fails(cpu: &SimCpu, task: &Task, load: fn(&SimCpu, &Task)) {
    cpu.fpu().fail_restore(1);
    load(cpu, task);
}

type Case = (&'static str, Found, fn(&SimCpu, &Task), &'static [EventKind]);
/// `Invalidated` of the CPU as a whole is told apart below.
const CASES: [Case; 62] = [
    (
        "switch_prepare",
        RegistersOnly,
        |c, t| t.switch_prepare(&c.irqs_off()).expect("free"),
        &[Saved, Unloaded],
    ),
    ("switch_prepare", Both, |c, t| t.switch_prepare(&c.irqs_off()).expect("free"), &[]),
    ("switch_return", RegistersOnly, enter, &[]),
    ("switch_return", Both, enter, &[Skipped, Loaded]),
    ("switch_return", MemoryOnly, enter, &[Restored, Loaded]),
    ("switch_in", RegistersOnly, comes, &[]),
    ("switch_in", Both, comes, &[Skipped, Loaded]),
    ("switch_in", MemoryOnly, comes, &[Restored, Loaded]),
    ("switch to idle", RegistersOnly, |c, t| switches(c, Some(t), None), &[Saved, Unloaded]),
    ("switch to itself", RegistersOnly, |c, t| switches(c, Some(t), Some(t)), &[]),
    ("switch from idle", Both, |c, t| switches(c, None, Some(t)), &[Skipped, Loaded]),
    ("adopt", RegistersOnly, adopts, &[Loaded]),
    ("adopt", Both, adopts, &[Loaded]),
    ("adopt", MemoryOnly, adopts, &[Loaded]),
    ("begin_user", RegistersOnly, by_steps, &[]),
    ("begin_user", Both, by_steps, &[Skipped, Loaded]),
    ("begin_user", MemoryOnly, by_steps, &[Restored, Loaded]),
    ("begin_user fails", MemoryOnly, |c, t| fails(c, t, by_steps), &[Failed]),
    ("begin_user, round trip", RegistersOnly, round_trip, &[Saved, Unloaded]),
    ("begin_user, round trip", Both, round_trip, &[Skipped, Loaded, Saved, Unloaded]),
    ("begin_user, round trip", MemoryOnly, round_trip, &[Restored, Loaded, Saved, Unloaded]),
    ("begin_switch_out", RegistersOnly, out_by_steps, &[Saved, Unloaded]),
    ("begin_switch_out", Both, out_by_steps, &[]),
    ("switch out", RegistersOnly, |c, t| by_switch(c, Some(t), None), &[Saved, Unloaded]),
    ("switch out", MemoryOnly, |c, t| by_switch(c, Some(t), None), &[]),
    ("switch in", Both, |c, t| by_switch(c, None, Some(t)), &[Restored, Loaded]),
    ("switch in", MemoryOnly, |c, t| by_switch(c, None, Some(t)), &[Restored, Loaded]),
    ("switch to itself", RegistersOnly, |c, t| by_switch(c, Some(t), Some(t)), &[]),
    ("switch to itself", Both, |c, t| by_switch(c, Some(t), Some(t)), &[Restored, Loaded]),
    (
        "switch in fails",
        MemoryOnly,
        |c, t| fails(c, t, |c, t| by_switch(c, None, Some(t))),
        &[Failed],
    ),
    ("session write", RegistersOnly, writes, &[Saved, Invalidated]),
    ("session write", Both, writes, &[Invalidated]),
    ("session write", MemoryOnly, writes, &[]),
    ("session load", Both, loads, &[]),
    ("session load", MemoryOnly, loads, &[Restored]),
    ("session load fails", MemoryOnly, |c, t| fails(c, t, loads), &[Failed]),
    ("session return", RegistersOnly, returns, &[Saved, Invalidated, Restored, Loaded]),
    ("session return", Both, returns, &[Invalidated, Restored, Loaded]),
    ("session return", MemoryOnly, returns, &[Restored, Loaded]),
    (
        "session switch_prepare",
        RegistersOnly,
        |c, t| match t.open(&mut c.preempt_off()) {
            Ok(TaskState::RegistersOnly(session)) => session.switch_prepare(),
            _ => panic!("the task was running"),
        },
        &[Saved, Unloaded],
    ),
    ("verify", RegistersOnly, verifies, &[]),
    ("verify", Both, verifies, &[]),
    ("verify", MemoryOnly, verifies, &[]),
    (
        "verify, registers changed",
        Both,
        |c, t| {
            c.fpu().set_avx0(1);
            verifies(c, t);
        },
        &[Invalidated],
    ),
    (
        "stopped write",
        Both,
        |_, t| {
            let mut proof = SimStopped::of(t.context());
            drop(t.stopped(&mut proof).expect("in memory").make_memory_valid_write());
        },
        &[],
    ),
    ("reset", RegistersOnly, |c, t| t.reset(&mut c.preempt_off()).expect("free"), &[Invalidated]),
    ("reset", MemoryOnly, |c, t| t.reset(&mut c.preempt_off()).expect("free"), &[Invalidated]),
    ("fork", Both, |c, t| t.fork_into(&mut c.preempt_off(), &mut new_task()).expect("free"), &[]),
    (
        "section",
        RegistersOnly,
        |c, t| {
            let ran = c.preempt_off().with_kernel_fpu(Some(t.context()), KernelUnits::ALL, || ());
            ran.expect("free");
        },
        &[Saved, Unloaded, Invalidated],
    ),
    ("section's steps", RegistersOnly, section_by_steps, &[Saved, Unloaded, Invalidated]),
    ("section's steps", Both, section_by_steps, &[Invalidated]),
    (
        "guest's steps",
        RegistersOnly,
        guest_by_steps,
        &[Saved, Unloaded, Restored, Loaded, Saved, Unloaded],
    ),
    ("guest's steps fail", MemoryOnly, |c, t| fails(c, t, guest_by_steps), &[Failed]),
    ("persistent", Both, runs, &[Skipped, Loaded, Saved, Unloaded]),
    ("persistent", MemoryOnly, runs, &[Restored, Loaded, Saved, Unloaded]),
    ("persistent fails", MemoryOnly, |c, t| fails(c, t, runs), &[Failed]),
    (
        "invalidate",
        Both,
        |c, _| c.preempt_off().invalidate_registers().expect("free"),
        &[Invalidated],
    ),
    ("idle", Both, |c, _| idles(c, false), &[]),
    (
        "idle, tiles in use",
        Both,
        |c, _| {
            c.fpu().set_tile0(1);
            idles(c, true);
        },
        &[Invalidated],
    ),
    ("resume", Both, |c, _| c.preempt_off().fpu_resume().expect("free"), &[Invalidated]),
    ("offline", Both, |c, _| c.preempt_off().fpu_offline().expect("free"), &[Invalidated]),
    (
        "online",
        Both,
        |c, _| {
            c.preempt_off().fpu_offline().expect("free");
            // SAFETY: K15, K16: the number it had, its words kept.
            unsafe { c.preempt_off().fpu_online(0) }.expect("free");
        },
        &[Invalidated, Invalidated],
    ),
];

/// Operations that take the registers from the context in them.
const WHOLE: [&str; 7] = [
    "section",
    "section's steps",
    "invalidate",
    "idle, tiles in use",
    "resume",
    "offline",
    "online",
];

#[test]
fn every_operation_tells_what_it_did() {
    for (name, from, operation, expect) in CASES {
        let (cpu, task) = (SimCpu::online(0), new_task());
        if from != MemoryOnly {
            enter(&cpu, &task);
        }
        if from == Both {
            task.switch_prepare(&cpu.irqs_off()).expect("it is live here");
        }
        cpu.record_events();
        operation(&cpu, &task);
        let told = cpu.take_events();
        let kinds: Vec<_> = told.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, expect, "{name} from {from:?}");
        for event in told {
            let whole = event.kind == Invalidated && WHOLE.contains(&name);
            let of = if whole { 0 } else { task.address() };
            assert_eq!(event.context, of, "{name} from {from:?}: {event:?}");
        }
    }
}

/// A session that writes on one CPU ends the claim of another: that is told too.
#[test]
fn a_claim_of_another_cpu_that_ends_is_told_of() {
    let (first, second, task) = (SimCpu::online(0), SimCpu::online(1), new_task());
    enter(&first, &task);
    task.switch_prepare(&first.irqs_off()).expect("it is live here");
    second.record_events();
    writes(&second, &task);
    writes(&second, &task);
    let told = second.take_events();
    let told: Vec<_> = told.iter().map(|event| (event.kind, event.context)).collect();
    assert_eq!(told, [(Invalidated, task.address())], "once, as no claim is left then");
}

/// A switch tells of the task that leaves, then of the one that comes.
#[test]
fn a_switch_tells_of_both_tasks_in_order() {
    let (cpu, a, b) = (SimCpu::online(0), new_task(), new_task());
    enter(&cpu, &a);
    cpu.record_events();
    switches(&cpu, Some(&a), Some(&b));
    let told: Vec<_> = cpu.take_events().iter().map(|event| (event.kind, event.context)).collect();
    let (a, b) = (a.address(), b.address());
    assert_eq!(told, [(Saved, a), (Unloaded, a), (Restored, b), (Loaded, b)]);
}
