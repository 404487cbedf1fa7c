//! Interrupts at every step of what happens while the save of a bound context is deferred.

use fpu_core::{session::TaskState, CpuLifecycle, Error, KernelFpu, KernelUnits};
use fpu_hosted_test::{
    doc::new_task,
    sim::{Interrupt, Registers},
};
use std::cell::Cell;

#[path = "support/bound.rs"]
mod support;
use support::{finds, postponed, section_of, Bound, Machine, EVERY};

/// What an interrupt does, and what it finds refused.
type Handler = (&'static str, fn(&Machine) -> Result<(), Error>);
const HANDLERS: [Handler; 4] = [
    ("a section", |machine| {
        machine.interrupted().with_kernel_fpu(None, KernelUnits::ALL, || {
            machine.cpu.fpu().scribble(70);
        })
    }),
    ("a persistent run", |machine| {
        let guest = new_task();
        machine.interrupted().run_guest(guest.context(), None, || machine.cpu.fpu().scribble(71))
    }),
    ("another context bound, run and dropped", |machine| {
        let mut irq = machine.interrupted();
        let other = machine.bound().bind(new_task(), &mut irq)?;
        other.switch_in(&mut irq)?;
        machine.cpu.fpu().scribble(72);
        Ok(())
    }),
    ("idle", |machine| machine.interrupted().fpu_idle().map(drop)),
];

type Operation = (&'static str, fn(&Machine, &Bound<'_>));
/// Operations with interrupts on, after each of which the bound task's state is as before.
const OPERATIONS: [Operation; 7] = [
    ("a section", |machine, _| section_of(machine, None)),
    ("a persistent run", |machine, _| {
        let guest = new_task();
        let ran = machine.preempt_off().run_guest(guest.context(), None, || ());
        ran.expect("free");
    }),
    ("a session", |machine, bound| match bound.open(&mut machine.preempt_off()).expect("free") {
        TaskState::RegistersOnly(s) => drop(s.make_memory_valid_read()),
        TaskState::Both(s) => drop(s.make_memory_valid_write()),
        TaskState::MemoryOnly(s) => drop(s.make_registers_valid().expect("a good image")),
    }),
    ("a session of another bound context", |machine, _| {
        let other = machine.bind(new_task());
        let opened = other.open(&mut machine.preempt_off()).expect("free").make_registers_valid();
        opened.expect("a good image");
    }),
    ("a session of another task that loads", |machine, _| {
        let other = new_task();
        let mut pin = machine.preempt_off();
        other.open(&mut pin).expect("free").make_registers_valid().expect("a good image");
    }),
    ("idle", |machine, _| assert!(machine.preempt_off().fpu_idle().is_ok())),
    ("offline and online", |machine, _| {
        machine.preempt_off().fpu_offline().expect("online");
        machine.cpu.fpu().scribble(73);
        // SAFETY: K15, K16: the number it had, its words kept.
        unsafe { machine.preempt_off().fpu_online(3) }.expect("offline");
    }),
];

/// At every step of each an interrupt takes the registers, or is refused; the bound task finds its own.
#[test]
fn interrupts_at_every_step() {
    for (name, run) in OPERATIONS {
        for (strikes, handler) in HANDLERS {
            let mut ran = 0;
            for at in 1.. {
                let machine = Machine::new(3);
                let (task, mine) = postponed(&machine, EVERY);
                let answer = Cell::new(None);
                let interrupt = || answer.set(Some(handler(&machine)));
                let ((), injection) =
                    machine.cpu.inject(at, Interrupt::Maskable, &interrupt, || {
                        run(&machine, &task);
                    });
                let what = format!("{name}, {strikes} at step {at}: {:?}", answer.get());
                let answered = matches!(
                    answer.get(),
                    None | Some(Ok(()) | Err(Error::Busy | Error::CpuOffline))
                );
                assert!(answered, "{what}");
                ran += u32::from(answer.get() == Some(Ok(())));
                finds(&machine, &task, &mine, &what);
                if at > injection.steps {
                    break;
                }
            }
            assert!(ran > 0, "{name}, {strikes}: never ran");
        }
    }
}

/// The handle is dropped by an interrupt at every step of a section that saves the context: memory stays until the slot is used
/// again.
#[test]
fn a_context_may_end_while_it_is_saved() {
    let mut during = 0;
    for at in 1.. {
        let machine = Machine::new(3);
        let (task, _) = postponed(&machine, EVERY);
        let task = Cell::new(Some(task));
        let saved = Cell::new(0);
        let interrupt = || {
            saved.set(machine.cpu.totals().saved);
            drop(task.take());
        };
        let ((), injection) = machine.cpu.inject(at, Interrupt::Maskable, &interrupt, || {
            section_of(&machine, None);
        });
        during += u32::from(injection.delivered && saved.get() < machine.cpu.totals().saved);
        drop(task.take());
        let next = machine.bind(new_task());
        finds(&machine, &next, &Registers::initial(), "the next in its slot");
        if at > injection.steps {
            break;
        }
    }
    assert!(during > 0, "no interrupt came before the save");
}
