//! Contexts that are bound to a CPU: nothing is moved until other code needs the registers, and then they are saved first.

#![allow(clippy::result_large_err)] // a refused context comes back, area and all

use fpu_core::{
    observe::EventKind::{Saved, Unloaded},
    session::TaskState,
    Area, BoundCpu, BoundError, CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits,
    PendingGuest, PendingSection, SwitchSteps,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Registers, SimArea, SimCpu, SimFpu},
};

#[path = "support/bound.rs"]
mod support;
use support::{finds, postponed, section_of, Bound, Machine, Slots, EVERY, SLOTS};

/// All but what keeps the core awake.
const QUIET: u64 = 0b0111;

/// One task that computes among three threads that do not, a thousand rounds.
#[test]
fn one_task_among_scalar_threads_moves_nothing() {
    const ROUNDS: u64 = 1000;
    let machine = Machine::new(0);
    // An ordinary context is saved each time its task leaves.
    let task = new_task();
    for _ in 0..ROUNDS {
        drop(task.switch_return(&mut machine.irqs_off()).expect("free"));
        machine.cpu.fpu().set_avx0(1);
        task.switch_prepare(&machine.irqs_off()).expect("live here");
        for _thread in 0..3 {} // without a context, no call
    }
    assert_eq!(machine.moves(), (ROUNDS, 1));

    let (saves, restores) = machine.moves();
    let bound = machine.bind(new_task());
    for round in 0..ROUNDS {
        machine.enter(&bound);
        assert!(round == 0 || machine.cpu.fpu().avx0() == round - 1);
        machine.cpu.fpu().set_avx0(round);
    }
    assert_eq!(machine.moves(), (saves, restores + 1));
    machine.bound().settle(&mut machine.irqs_off()).expect("open");
    machine.bound().settle(&mut machine.irqs_off()).expect("open");
    machine.enter(&bound);
    assert_eq!(machine.moves(), (saves + 1, restores + 1), "one of each");
}

/// Something on this CPU that needs the registers, or may.
struct Taker {
    name: &'static str,
    /// Saves of the bound context that are due.
    saves: u64,
    /// Whether the registers hold it afterwards.
    keeps: bool,
    run: fn(&Machine, &Bound<'_>),
}
const fn taker(
    name: &'static str,
    saves: u64,
    keeps: bool,
    run: fn(&Machine, &Bound<'_>),
) -> Taker {
    Taker { name, saves, keeps, run }
}

const TAKERS: [Taker; 19] = [
    taker("nothing", 0, true, |_, _| {}),
    taker("an ordinary task's load", 1, false, |machine, _| {
        let task = new_task();
        drop(task.switch_return(&mut machine.irqs_off()).expect("free"));
        machine.cpu.fpu().scribble(43);
        task.switch_prepare(&machine.irqs_off()).expect("live");
    }),
    taker("a load inside the switch", 1, false, |machine, _| {
        let task = new_task();
        fpu_core::switch(None, Some(task.context()), &mut machine.irqs_off()).expect("free");
        machine.cpu.fpu().scribble(43);
    }),
    taker("another bound context's load", 1, false, |machine, _| {
        let other = machine.bind(new_task());
        machine.enter(&other);
        machine.cpu.fpu().scribble(43);
    }),
    taker("a section", 1, false, |machine, _| section_of(machine, None)),
    taker("a section of a task that has not run yet", 1, false, |machine, _| {
        section_of(machine, Some(&new_task()));
    }),
    taker("a section of assembly's", 1, false, |machine, _| {
        let mut pin = machine.preempt_off();
        let pending = PendingSection::begin(&mut pin, None, KernelUnits::ALL).expect("free");
        assert!(pending.steps().is_none());
        // SAFETY: C42: nothing was to be saved.
        drop(unsafe { pending.saved() });
        machine.cpu.fpu().scribble(43);
    }),
    taker("a persistent run", 1, false, |machine, _| {
        let guest = new_task();
        let ran = machine.preempt_off().run_guest(guest.context(), None, || {
            machine.cpu.fpu().scribble(44);
        });
        ran.expect("free");
    }),
    taker("a guest by steps that are not executed", 1, true, |machine, _| {
        let guest = new_task();
        drop(PendingGuest::begin(&mut machine.preempt_off(), guest.context(), None).expect("free"));
    }),
    taker("steps to user mode", 1, false, |machine, _| {
        drop(new_task().begin_user(&mut machine.irqs_off()).expect("free"));
        machine.cpu.fpu().scribble(45);
    }),
    taker("the steps of a switch", 1, false, |machine, _| {
        let next = new_task();
        let steps = SwitchSteps::begin(&mut machine.irqs_off(), None, Some(next.context()));
        assert!(steps.is_ok());
        machine.cpu.fpu().scribble(45);
    }),
    taker("a session of another task that loads", 1, false, |machine, _| {
        let other = new_task();
        let mut pin = machine.preempt_off();
        other.open(&mut pin).expect("free").make_registers_valid().expect("a good image");
    }),
    taker("a session of another task that reads and writes", 0, true, |machine, _| {
        let other = new_task();
        let mut pin = machine.preempt_off();
        drop(other.open(&mut pin).expect("free").make_memory_valid_write().image_mut());
    }),
    taker("a session of its own", 1, true, |machine, bound| {
        let mut pin = machine.preempt_off();
        let session = bound.open(&mut pin).expect("free").make_memory_valid_read();
        assert_eq!(session.image().registers(), machine.cpu.fpu().registers());
    }),
    taker("a session of another bound context", 1, true, |machine, _| {
        let other = machine.bind(new_task());
        drop(other.open(&mut machine.preempt_off()).expect("free"));
    }),
    taker("an idle core with tiles", 1, false, |machine, _| {
        assert_eq!(machine.preempt_off().fpu_idle(), Ok(true));
    }),
    taker("offline, and online", 1, false, |machine, _| {
        machine.irqs_off().fpu_offline().expect("online");
        machine.cpu.fpu().scribble(46);
        let number = (machine.cpu.words().resident() >> 1 & 0x3FFF) as u32 - 1;
        // SAFETY: K15, K16: the number it had, its words kept.
        unsafe { machine.irqs_off().fpu_online(number) }.expect("offline");
    }),
    taker("a call that settles, then firmware", 1, false, |machine, _| {
        machine.bound().settle(&mut machine.irqs_off()).expect("open");
        machine.irqs_off().invalidate_registers().expect("open");
        machine.cpu.fpu().scribble(47);
    }),
    taker("reset of another task", 0, true, |machine, _| {
        new_task().reset(&mut machine.preempt_off()).expect("open");
    }),
];

/// Each saves exactly what it must, before the registers change, and the task finds its own: in whichever slot it is, with a
/// context or none in those before it.
#[test]
fn whatever_needs_the_registers_saves_them_first() {
    for (slot, others_stay) in [(0, false), (1, true), (1, false), (SLOTS - 1, false)] {
        for Taker { name, saves, keeps, run } in TAKERS {
            let machine = Machine::new(3);
            let mut others: Vec<_> = (0..slot).map(|_| machine.bind(new_task())).collect();
            let (task, mine) = postponed(&machine, EVERY);
            if !others_stay {
                others.clear();
            }
            let totals = machine.cpu.totals();
            machine.cpu.record_events();
            run(&machine, &task);
            let events = machine.cpu.take_events();
            let of_mine: Vec<_> =
                events.iter().filter(|e| e.context == task.address()).map(|e| e.kind).collect();
            // What a session saves for reading is still live.
            let due: &[_] = match saves {
                0 => &[],
                _ if name == "a session of its own" => &[Saved],
                _ => &[Saved, Unloaded],
            };
            assert_eq!(of_mine, due, "{name}, slot {slot}");
            assert_eq!(task.registers_valid(&machine.irqs_off()), keeps, "{name}");
            let restored = machine.cpu.totals().restored;
            finds(&machine, &task, &mine, name);
            assert_eq!(machine.cpu.totals().restored - restored, u64::from(!keeps), "{name}");
            assert!(machine.cpu.totals().saved >= totals.saved + saves);
        }
    }
}

/// Each of two slots' contexts is loaded, by a return or by a session, runs, and is saved when the registers are needed.
#[test]
fn the_save_that_is_due_is_that_of_the_context_loaded_last() {
    let loads: [fn(&Machine, &Bound<'_>); 2] = [Machine::enter, |machine, task| {
        let mut pin = machine.irqs_off();
        let state = task.open(&mut pin).expect("free");
        match state {
            TaskState::MemoryOnly(session) => {
                drop(session.make_registers_valid().expect("a good image").switch_return());
            }
            TaskState::Both(session) => drop(session.switch_return()),
            TaskState::RegistersOnly(_) => {}
        }
    }];
    for (first, next) in (0..SLOTS).flat_map(|one| (0..SLOTS).map(move |other| (one, other))) {
        for (load, again) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let machine = Machine::new(0);
            let tasks: Vec<_> = (0..SLOTS).map(|_| machine.bind(new_task())).collect();
            let mut held: [_; SLOTS] = [(); SLOTS].map(|()| Registers::initial());
            for (slot, load, seed) in [(first, load, 70), (next, again, 71)] {
                loads[load](&machine, &tasks[slot]);
                assert_eq!(machine.cpu.fpu().registers(), held[slot], "{first}, {next}");
                held[slot] = Registers::pattern(seed, EVERY);
                machine.cpu.fpu().load(&held[slot]);
            }
            section_of(&machine, None);
            for (slot, task) in tasks.iter().enumerate() {
                finds(&machine, task, &held[slot], "after the section");
            }
        }
    }
}

/// No registers that keep the core awake: the idle loop costs the bound task nothing.
#[test]
fn idle_without_tiles_saves_nothing() {
    let machine = Machine::new(0);
    let (task, mine) = postponed(&machine, QUIET);
    assert_eq!(machine.preempt_off().fpu_idle(), Ok(false));
    finds(&machine, &task, &mine, "idle");
    assert_eq!(machine.moves(), (0, 1));
}

/// What comes after the registers have changed must not save them as the task's.
#[test]
fn what_is_gone_is_reported_and_not_saved() {
    type Gone = (&'static str, fn(&Machine));
    let gone: [Gone; 3] = [
        ("invalidate", |machine| machine.irqs_off().invalidate_registers().expect("open")),
        ("resume", |machine| machine.irqs_off().fpu_resume().expect("open")),
        ("adopt", |machine| {
            let boot = new_task();
            // SAFETY: registers are this task's (C37) is broken, as by a kernel that has not settled. C38: nothing was restored
            // from there.
            unsafe { boot.adopt(&mut machine.irqs_off()) }.expect("open");
            boot.switch_prepare(&machine.irqs_off()).expect("live");
        }),
    ];
    for (name, run) in gone {
        let machine = Machine::new(1);
        let (task, _) = postponed(&machine, EVERY);
        machine.cpu.fpu().scribble(50);
        run(&machine);
        let refused = task.switch_return(&mut machine.irqs_off()).err();
        assert_eq!(refused, Some(Error::Lost), "{name}");
        let BoundError { why, of: task } = task.unbind(&mut machine.irqs_off()).expect_err(name);
        assert_eq!(why, Error::Lost);
        task.reset(&mut machine.preempt_off()).expect("reset takes any context");
        finds(&machine, &task, &Registers::initial(), name);
    }
}

/// Saved, it is an ordinary context that another CPU loads; and back.
#[test]
fn unbound_it_moves_and_is_bound_there() {
    let (here, there) = (Machine::new(0), Machine::new(1));
    let (task, mine) = postponed(&here, EVERY);
    let task = task.unbind(&mut here.irqs_off()).expect("live here");
    assert_eq!(here.moves(), (1, 1));
    let task = there.bind(task);
    finds(&there, &task, &mine, "bound there");
    // A task that is live binds itself, and goes on in its registers.
    let task = task.unbind(&mut there.irqs_off()).expect("live there");
    drop(task.switch_return(&mut there.irqs_off()).expect("free"));
    let mine = Registers::pattern(51, EVERY);
    there.cpu.fpu().load(&mine);
    let task = there.bind(task);
    let (_, restores) = there.moves();
    finds(&there, &task, &mine, "bound by itself");
    assert_eq!(there.moves().1, restores);
    // ... and is saved from there.
    section_of(&there, None);
    finds(&there, &task, &mine, "after a section");
}

#[test]
fn another_cpu_is_refused_and_nothing_changes() {
    let (here, there) = (Machine::new(0), Machine::new(1));
    let (task, mine) = postponed(&here, EVERY);
    let elsewhere = Error::BoundElsewhere { cpu: 0 };
    let mut off = there.irqs_off();
    assert_eq!(task.switch_return(&mut off).err(), Some(elsewhere));
    assert_eq!(task.switch_in(&mut off), Err(elsewhere));
    assert_eq!(task.open(&mut off).err(), Some(elsewhere));
    assert_eq!(task.reset(&mut off), Err(elsewhere));
    assert_eq!(here.bound().settle(&mut off), Err(elsewhere));
    let refused = here.bound().bind(new_task(), &mut off).err().map(|refused| refused.why);
    assert_eq!(refused, Some(elsewhere));
    let BoundError { why, of: task } = task.unbind(&mut off).expect_err("another CPU");
    assert_eq!(why, elsewhere);
    drop(off);
    // Saved here, it is still not for the other CPU.
    here.bound().settle(&mut here.irqs_off()).expect("open");
    assert_eq!(task.switch_return(&mut there.irqs_off()).err(), Some(elsewhere));
    assert_eq!((here.moves(), there.moves()), ((1, 1), (0, 0)));
    finds(&here, &task, &mine, "here");
    // A witness that names the contexts of another CPU neither saves nor looks at them.
    let mut liar = support::Named(there.cpu.irqs_off(), here.bound());
    drop(new_task().switch_return(&mut liar).expect("free"));
    assert_eq!(here.moves(), (1, 1));
    assert!(task.registers_valid(&here.irqs_off()));
}

#[test]
fn refusals_name_the_reason_and_give_back_the_context() {
    let machine = Machine::new(2);
    let bind = |task| machine.bound().bind(task, &mut machine.irqs_off());
    let why = |refused: Result<Bound<'_>, BoundError<Task>>| refused.err().map(|e| e.why);
    let tasks: Vec<_> = (0..SLOTS).map(|_| machine.bind(new_task())).collect();
    let task = new_task();
    drop(task.switch_return(&mut machine.irqs_off()).expect("free"));
    machine.cpu.fpu().set_avx0(7);
    let BoundError { why: full, of: task } = bind(task).expect_err("no slot");
    assert_eq!(
        (full, full.to_string()),
        (Error::NoSlot, "no slot is free for another bound context".into())
    );
    // It is still live: nothing was saved.
    assert_eq!(machine.cpu.totals().saved, 0);
    task.switch_prepare(&machine.irqs_off()).expect("live here");
    drop(tasks);
    // A witness without the line in `witness!`, or with other contexts.
    let unnamed = machine.bound().bind(new_task(), &mut machine.cpu.irqs_off());
    assert_eq!(why(unnamed), Some(Error::NotNamed));
    let other = Slots::new(2);
    let other: &BoundCpu<SimFpu, SimArea> = &other;
    assert_eq!(why(other.bind(new_task(), &mut machine.irqs_off())), Some(Error::NotNamed));
    // Live on another CPU.
    let there = SimCpu::online(9);
    drop(task.switch_return(&mut there.irqs_off()).expect("free"));
    assert_eq!(why(bind(task)), Some(Error::LiveElsewhere { cpu: 9 }));
    // Closed, offline, in a non-maskable interrupt.
    let bound = machine.bind(new_task());
    let mut pin = machine.preempt_off();
    let session = pin.kernel_fpu(None, KernelUnits::NONE).expect("free");
    let mut irq = machine.interrupted();
    assert_eq!(bound.switch_return(&mut irq).err(), Some(Error::Busy));
    assert_eq!(bound.open(&mut irq).err(), Some(Error::Busy));
    assert_eq!(bound.reset(&mut irq), Err(Error::Busy));
    assert_eq!(machine.bound().settle(&mut irq), Err(Error::Busy));
    assert_eq!(why(machine.bound().bind(new_task(), &mut irq)), Some(Error::Busy));
    let BoundError { why: busy, of: bound } = bound.unbind(&mut irq).expect_err("closed");
    assert_eq!(busy, Error::Busy);
    drop((irq, session));
    assert_eq!(bound.open(&mut machine.nmi()).err(), Some(Error::Nmi));
    machine.irqs_off().fpu_offline().expect("online");
    assert_eq!(bound.switch_return(&mut machine.irqs_off()).err(), Some(Error::CpuOffline));
    assert_eq!(why(bind(new_task())), Some(Error::CpuOffline));
}

/// A context that ended while its registers were live: no save, and whoever gets its slot starts with its own.
#[test]
fn a_slot_is_used_again_and_a_stale_claim_matches_nothing() {
    let machine = Machine::new(0);
    for round in 0..20 {
        let (task, _) = postponed(&machine, EVERY);
        let address = task.address();
        drop(task);
        // Other code may or may not come between.
        if round % 2 == 0 {
            section_of(&machine, None);
        }
        let next = machine.bind(new_task());
        assert_eq!(next.address(), address, "the same memory");
        assert!(!next.registers_valid(&machine.irqs_off()));
        finds(&machine, &next, &Registers::initial(), "a new context");
        machine.cpu.fpu().scribble(60 + round);
        drop(next);
    }
    assert_eq!(machine.cpu.totals().saved, 0, "what ends is not saved");
    // All slots, in any order, twice.
    for _ in 0..2 {
        let all: Vec<_> = (0..SLOTS).map(|_| machine.bind(new_task())).collect();
        let mut addresses: Vec<_> = all.iter().map(Bound::address).collect();
        addresses.dedup();
        assert_eq!(addresses.len(), SLOTS);
    }
}

/// A static, for per-CPU data that is an array.
#[test]
fn it_can_be_a_static() {
    static CPU: BoundCpu<SimFpu, Area<64>, [fpu_core::BoundSlot<SimFpu, Area<64>>; 2]> =
        BoundCpu::new(7);
    assert_eq!(format!("{CPU:?}"), "BoundCpu { number: 7 }");
}
