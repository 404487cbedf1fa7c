//! All orders of what moves PKRU on two CPUs, for two tasks, until no state is new: with an interrupt, a preemption, a
//! debugger's write and a migration between any two steps of a call. And that each wrong kernel is noticed.

use std::{
    collections::{HashSet, VecDeque},
    eprintln, format,
    string::String,
    vec,
    vec::Vec,
};

use super::pkru_world::{Cpu, Event, Op, State, World, Wrong, A, DEFAULT, EVENTS};

/// The same world under other numbers of CPUs and tasks counts once.
fn canonical(state: State) -> State {
    let State { cpus, tasks } = state;
    let swapped = |runs: Option<usize>| runs.map(|task| 1 - task);
    let renamed = cpus.map(|cpu| Cpu { runs: swapped(cpu.runs), ..cpu });
    let turned = [tasks[1], tasks[0]];
    [
        state,
        State { cpus: [cpus[1], cpus[0]], tasks },
        State { cpus: renamed, tasks: turned },
        State { cpus: [renamed[1], renamed[0]], tasks: turned },
    ]
    .into_iter()
    .min()
    .unwrap_or(state)
}

/// What can be done there, and the events that may strike in the middle. Both tasks together have two scopes and a frame,
/// of which they share nothing but the register.
fn all_ops(state: &State) -> Vec<(Op, &'static [Event])> {
    const INTERRUPTS: &[Event] = &[Event::Interrupt];
    let runs = |at| state.cpus.iter().any(|cpu| cpu.runs == Some(at));
    let scopes = state.tasks[0].scopes + state.tasks[1].scopes;
    let frames = state.tasks.iter().filter(|task| task.frame.is_some()).count();
    let mut ops: Vec<(Op, &[Event])> = Vec::new();
    for (cpu, word) in state.cpus.iter().enumerate() {
        let nexts = [None, Some(0), Some(1)].into_iter().filter(|next| *next != word.runs);
        let ready = nexts.filter(|next| next.map_or(true, |at| state.tasks[at].lives && !runs(at)));
        ops.extend(ready.map(|next| (Op::Switch { cpu, next }, INTERRUPTS)));
    }
    for (at, task) in state.tasks.iter().enumerate().filter(|(_, task)| task.lives) {
        if !runs(at) {
            ops.extend([DEFAULT, A].map(|value| (Op::Debug(at, value), &[][..])));
            continue;
        }
        ops.extend([DEFAULT, A].map(|value| (Op::Set(at, value), &EVENTS[..])));
        if scopes < 2 {
            ops.push((Op::Open(at), &EVENTS));
        }
        if task.scopes > 0 {
            ops.push((Op::Close(at), &EVENTS));
            continue;
        }
        ops.extend([DEFAULT, A].map(|value| (Op::User(at, value), &[][..])));
        ops.extend([(Op::Exec(at), INTERRUPTS), (Op::Exit(at), INTERRUPTS)]);
        if !state.tasks[1 - at].lives {
            ops.push((Op::Fork(at), INTERRUPTS));
        }
        if task.frame.is_some() {
            ops.extend([(Op::Clear(at), &[][..]), (Op::Return(at), INTERRUPTS)]);
        } else if frames == 0 {
            ops.extend([Ok(()), Err(())].map(|written| (Op::Deliver(at, written), &EVENTS[..])));
        }
    }
    ops
}

/// The first task has been made and runs nowhere.
fn first() -> State {
    let mut state = State::default();
    state.tasks[0].lives = true;
    let world = World::of(state, None);
    assert!(!world.run(Op::Debug(0, DEFAULT), None));
    world.state()
}

/// How many states there are, how many calls were tried and how many of them struck; or what broke, and after what.
fn explore(wrong: Option<Wrong>) -> Result<[usize; 3], String> {
    let mut seen = HashSet::from([canonical(first())]);
    let mut due = VecDeque::from([canonical(first())]);
    let (mut calls, mut struck) = (0, 0);
    while let Some(state) = due.pop_front() {
        for (op, events) in all_ops(&state) {
            let mut tried = vec![None];
            tried.extend(events.iter().map(|event| Some((0, *event))));
            for mut event in tried {
                loop {
                    let world = World::of(state, wrong);
                    let happened = world.run(op, event);
                    if let Some(what) = world.broken.get() {
                        return Err(format!("{what}: {op:?} with {event:?} in {state:?}"));
                    }
                    calls += 1;
                    struck += usize::from(happened);
                    let next = canonical(world.state());
                    if seen.insert(next) {
                        due.push_back(next);
                    }
                    // Behind the next step, as long as there is one.
                    match &mut event {
                        Some((steps, _)) if happened => *steps += 1,
                        _ => break,
                    }
                }
            }
        }
    }
    Ok([seen.len(), calls, struck])
}

#[test]
fn every_task_has_its_rights_in_every_order() {
    let [states, calls, struck] = explore(None).unwrap();
    eprintln!("{states} states, {calls} calls, {struck} of them with an event in the middle");
    assert!(states > 1000 && struck > calls / 4 && struck < calls);
}

#[test]
fn every_wrong_kernel_is_noticed() {
    use Wrong::*;
    for (wrong, sign) in [
        (NoSwitch, "a running task's register"),
        (NothingSaved, "a stopped task's value"),
        (SavedBehindTheWrite, "a stopped task's value"),
        (HandlerKeepsRights, "a running task's register"),
        (FrameOfHandler, "the frame's value"),
        (FrameOfScope, "the frame's value"),
        (FrameWithOwnRights, "a frame is written with all keys"),
        (FailedDeliveryCounts, "a running task's register"),
        (AbsentKeeps, "a running task's register"),
        (ScopeForgotten, "a running task's register"),
        (ScopeEndsAsItBegan, "a running task's register"),
        (CountedBeforeRestored, "a running task's register"),
        (OpenedOnce, "the current task's value"),
        (DebuggerWritesTheRegistersWord, "the current task's value"),
        (DebuggerReadsTheRegistersWord, "a stopped task's value"),
        (ForkTakesMemory, "a stopped task's value"),
        (ForkTakesDefault, "a stopped task's value"),
        (ExecKeeps, "a running task's register"),
        (SetWithinScope, "a running task's register"),
        (WritesNotCounted, "the current task's value"),
        (BegunWithinScope, "a running task's register"),
    ] {
        let why = explore(Some(wrong)).expect_err("not noticed");
        eprintln!("{wrong:?}: {why}");
        assert!(why.starts_with(sign), "{wrong:?}: {why}");
    }
}
