//! The idle hook: what keeps a core awake is given up, and with it the claim on it; where there is nothing to
//! give up, the claim survives.

use fpu_core::{
    observe::{Event, EventKind, Totals},
    CpuLifecycle, CpuWords, Error, IdleFpu, KernelFpu, KernelUnits,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Interrupt, Registers, SimCpu, COMPONENTS, LAYOUT},
};
use std::cell::Cell;

/// The component that keeps the simulated core awake.
const TILE: usize = 3;
const EVERY: u64 = (1 << COMPONENTS) - 1;

fn enter(cpu: &SimCpu, task: &Task) {
    drop(task.switch_return(&mut cpu.irqs_off()).expect("the CPU is free"));
}
fn leave(cpu: &SimCpu, task: &Task) {
    task.switch_prepare(&cpu.irqs_off()).expect("it is live here");
}
/// The task runs, has these components in use, and is switched out.
fn runs(cpu: &SimCpu, task: &Task, seed: u64, present: u64) -> Registers {
    let mine = Registers::pattern(seed, present);
    enter(cpu, task);
    cpu.fpu().load(&mine);
    leave(cpu, task);
    mine
}
fn idle(cpu: &SimCpu) -> Result<bool, Error> {
    cpu.preempt_off().fpu_idle()
}
fn awake(cpu: &SimCpu) -> bool {
    // SAFETY: C10: simulated registers.
    unsafe { cpu.fpu().keeps_awake() }
}
/// The registers and words of a CPU, the counts, and the task.
fn snapshot(cpu: &SimCpu, task: &Task) -> (Registers, [u64; 2], Totals, String) {
    let words = [cpu.words().resident(), cpu.words().gate()];
    (cpu.fpu().registers(), words, cpu.totals(), format!("{task:?}"))
}

#[test]
fn one_component_keeps_the_simulated_core_awake() {
    let which: Vec<_> = (0..COMPONENTS).filter(|&c| LAYOUT[c].keeps_awake).collect();
    assert_eq!(which, [TILE]);
}

/// Every set of components, with or without the tile: the claim ends exactly if it is in use, and the task
/// finds its own either way.
#[test]
fn the_claim_survives_exactly_where_nothing_is_given_up() {
    for present in 0..=EVERY {
        let (cpu, task) = (SimCpu::online(0), new_task());
        let mine = runs(&cpu, &task, present ^ 21, present);
        let tiles = present >> TILE & 1 != 0;
        let before = snapshot(&cpu, &task);
        cpu.record_events();
        assert_eq!(idle(&cpu), Ok(tiles), "{present:#b}");
        let invalidated = Event { kind: EventKind::Invalidated, context: 0 };
        assert_eq!(cpu.take_events(), if tiles { vec![invalidated] } else { vec![] });
        assert!(!awake(&cpu), "{present:#b}: the core is still kept awake");
        assert_eq!(task.registers_valid(&cpu.irqs_off()), !tiles, "{present:#b}");
        let mut given_up = mine.clone();
        given_up.component_mut(TILE).fill(0);
        assert_eq!(cpu.fpu().registers(), given_up, "{present:#b}: nothing else is touched");
        if !tiles {
            assert_eq!(snapshot(&cpu, &task), before, "{present:#b}: nothing has changed");
        }
        // And again: now there is nothing.
        assert_eq!(idle(&cpu), Ok(false));
        let Totals { saved, restored, skipped, .. } = cpu.totals();
        enter(&cpu, &task);
        assert_eq!(cpu.fpu().registers(), mine, "{present:#b}");
        let after = cpu.totals();
        let counts = (after.saved - saved, after.restored - restored, after.skipped - skipped);
        assert_eq!(counts, (0, u64::from(tiles), u64::from(!tiles)), "{present:#b}");
    }
}

/// The task runs next on another CPU, or another task runs here.
#[test]
fn whoever_comes_next_finds_its_own() {
    for present in [0b0111, 0b1111] {
        let (here, there) = (SimCpu::online(0), SimCpu::online(1));
        let (task, other) = (new_task(), new_task());
        let theirs = runs(&here, &other, 22, EVERY);
        let mine = runs(&here, &task, 23, present);
        idle(&here).expect("free");
        enter(&here, &other);
        assert_eq!(here.fpu().registers(), theirs);
        leave(&here, &other);
        idle(&here).expect("free");
        enter(&there, &task);
        assert_eq!(there.fpu().registers(), mine);
        leave(&there, &task);
        idle(&there).expect("free");
        enter(&here, &task);
        assert_eq!(here.fpu().registers(), mine);
    }
}

/// No context has the stamp taken, and the next load takes another.
#[test]
fn a_stamp_is_taken_and_not_used() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    runs(&cpu, &task, 24, EVERY);
    let stamps = |cpu: &SimCpu| cpu.words().resident() >> 15;
    let before = stamps(&cpu);
    assert_eq!(idle(&cpu), Ok(true));
    assert_eq!(stamps(&cpu), before + 1);
    enter(&cpu, &task);
    assert_eq!(stamps(&cpu), before + 2);
}

/// A kernel that forgot to switch the task out is told.
#[test]
fn a_live_task_reports_that_it_is_lost() {
    let (cpu, other, task) = (SimCpu::online(0), SimCpu::online(1), new_task());
    enter(&cpu, &task);
    cpu.fpu().load(&Registers::pattern(25, EVERY));
    assert_eq!(idle(&cpu), Ok(true));
    assert_eq!(task.switch_prepare(&cpu.irqs_off()), Err(Error::Lost));
    assert_eq!(task.switch_return(&mut cpu.irqs_off()).err(), Some(Error::Lost));
    let elsewhere = task.switch_return(&mut other.irqs_off()).err();
    assert_eq!(elsewhere, Some(Error::LiveElsewhere { cpu: 0 }));
    task.reset(&mut cpu.preempt_off()).expect("reset takes any context");
    enter(&cpu, &task);
    assert_eq!(cpu.fpu().registers(), Registers::initial());
    // Where nothing is given up nothing is lost.
    let mine = Registers::pattern(26, 0b0111);
    cpu.fpu().load(&mine);
    assert_eq!(idle(&cpu), Ok(false));
    leave(&cpu, &task);
    enter(&cpu, &task);
    assert_eq!(cpu.fpu().registers(), mine);
}

#[test]
fn refused_with_nothing_changed() {
    let (cpu, task, other) = (SimCpu::online(0), new_task(), new_task());
    let mine = runs(&cpu, &task, 27, EVERY);
    let refused = |why: Error, answer: &dyn Fn() -> Result<bool, Error>| {
        let before = snapshot(&cpu, &task);
        assert_eq!(answer(), Err(why));
        assert_eq!(snapshot(&cpu, &task), before, "{why}");
    };
    refused(Error::Nmi, &|| cpu.nmi().fpu_idle());
    // A session of another task; then a section, which takes the claim by itself.
    let mut pin = cpu.preempt_off();
    let session = other.open(&mut pin).expect("free");
    refused(Error::Busy, &|| idle(&cpu));
    refused(Error::Busy, &|| cpu.interrupted().fpu_idle());
    drop(session);
    assert!(task.registers_valid(&cpu.irqs_off()));
    let section = pin.kernel_fpu(None, KernelUnits::ALL).expect("free");
    refused(Error::Busy, &|| idle(&cpu));
    drop(section);
    cpu.irqs_off().fpu_offline().expect("online");
    refused(Error::CpuOffline, &|| idle(&cpu));
    assert_eq!(SimCpu::offline().preempt_off().fpu_idle(), Err(Error::CpuOffline));
    // SAFETY: K15, K16: the number it had, its words kept.
    unsafe { cpu.irqs_off().fpu_online(0) }.expect("offline");
    enter(&cpu, &task);
    assert_eq!(cpu.fpu().registers(), mine);
}

/// With no stamp left that would end the claim nothing is given up, so the claim stands.
#[test]
fn without_a_stamp_the_claim_and_the_registers_stay() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let number = cpu.words().resident() & 0x7FFE;
    // SAFETY: a word of this CPU's own range that no context has.
    unsafe { cpu.words().set_resident(0u64.wrapping_sub(2 << 15) | number) };
    let mine = runs(&cpu, &task, 28, EVERY);
    let before = snapshot(&cpu, &task);
    assert_eq!(idle(&cpu), Err(Error::Exhausted));
    assert_eq!(snapshot(&cpu, &task), before);
    assert!(awake(&cpu) && task.registers_valid(&cpu.irqs_off()));
    let skipped = cpu.totals().skipped;
    enter(&cpu, &task);
    assert_eq!((cpu.fpu().registers(), cpu.totals().skipped), (mine, skipped + 1));
}

/// What an interrupt does meanwhile, and what it leaves in the registers.
type Handler = (&'static str, fn(&SimCpu, &Task) -> Result<(), Error>);
const HANDLERS: [Handler; 4] = [
    ("a section", |cpu, _| {
        cpu.interrupted().with_kernel_fpu(None, KernelUnits::ALL, || cpu.fpu().scribble(31))
    }),
    ("a section that leaves the tile initial", |cpu, _| {
        cpu.interrupted().with_kernel_fpu(None, KernelUnits::ALL, || {
            cpu.fpu().load(&Registers::pattern(32, 0b0111));
        })
    }),
    // Its claim is as young as can be: nothing may be given up under it.
    ("a persistent context", |cpu, guest| {
        cpu.interrupted().run_guest(guest.context(), None, || ())
    }),
    ("the same call", |cpu, _| cpu.interrupted().fpu_idle().map(drop)),
];

/// At every step: it has run before the CPU was closed, runs after it was opened, or is refused; what the
/// call gives up is unowned in any case.
#[test]
fn interrupts_at_every_step() {
    for (name, handler) in HANDLERS {
        let (mut ran_in_all, mut refused_in_all) = (0, 0);
        for present in [0b0111, 0b1111] {
            for at in 1.. {
                let (cpu, task, guest) = (SimCpu::online(0), new_task(), new_task());
                let inside = Registers::pattern(33, EVERY);
                let ran = cpu.preempt_off().run_guest(guest.context(), None, || {
                    cpu.fpu().load(&inside);
                });
                ran.expect("free");
                let mine = runs(&cpu, &task, 34, present);
                let answer = Cell::new(None);
                let interrupt = || answer.set(Some(handler(&cpu, &guest)));
                let (idle, injection) =
                    cpu.inject(at, Interrupt::Maskable, &interrupt, || idle(&cpu));
                let what = format!("{name}, {present:#b}, at step {at}: {idle:?}");
                assert!(idle.is_ok(), "{what}");
                if at > injection.steps {
                    assert!(!injection.delivered, "{what}");
                    break;
                }
                match answer.get() {
                    Some(Ok(())) => ran_in_all += 1,
                    Some(Err(Error::Busy)) => refused_in_all += 1,
                    other => panic!("{what}: {other:?}"),
                }
                let ran = cpu.preempt_off().run_guest(guest.context(), None, || {
                    assert_eq!(cpu.fpu().registers(), inside, "{what}: the guest's registers");
                });
                assert_eq!(ran, Ok(()), "{what}");
                enter(&cpu, &task);
                assert_eq!(cpu.fpu().registers(), mine, "{what}");
            }
        }
        println!("{name}: {ran_in_all} ran, {refused_in_all} refused");
        assert!(ran_in_all > 0 && refused_in_all > 0, "{name}");
    }
}
