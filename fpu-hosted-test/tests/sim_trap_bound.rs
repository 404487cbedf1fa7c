//! Bound contexts that were never used: one task that computes among others that do not moves nothing at its switches.

use fpu_core::{
    trap::{switch, TrapError, Trapped},
    CpuLifecycle, Error, KernelUnits,
};
use fpu_hosted_test::{
    doc::new_task,
    sim::{Interrupt, Registers, SimCpu},
};
use std::cell::Cell;

#[path = "support/bound.rs"]
mod support;
use support::{section_of, Bound, Machine, SLOTS};

fn trapped(machine: &Machine) -> Trapped<Bound<'_>> {
    let context = machine.bind(new_task());
    // SAFETY: K22: simulated registers. K23: sections of these tasks are `Trapped`'s.
    unsafe { Trapped::new(context, machine.cpu.fpu()) }.unwrap()
}

/// The task writes one register, and the handler answers the trap if there is one.
fn writes(machine: &Machine, task: &Trapped<Bound<'_>>, value: u64) {
    if !machine.cpu.fpu().task_writes(2, 0, value) {
        task.first_use(&mut machine.interrupted()).unwrap();
        assert!(machine.cpu.fpu().task_writes(2, 0, value));
    }
}
fn kernel_is_well(cpu: &SimCpu) {
    assert_eq!(cpu.fpu().kernel_traps(), 0, "kernel code met the trap");
}

#[test]
fn one_save_and_one_restore_for_a_task_among_others_that_do_not_compute() {
    const ROUNDS: u64 = 1000;
    let machine = Machine::new(0);
    let tasks: [_; SLOTS] = [(); SLOTS].map(|()| trapped(&machine));
    let mut prev = None;
    for round in 0..ROUNDS {
        for (nth, next) in tasks.iter().enumerate() {
            switch(prev, Some(next), &mut machine.irqs_off()).unwrap();
            if nth == 0 {
                assert!(round == 0 || machine.cpu.fpu().avx0() == round - 1);
                writes(&machine, next, round);
            }
            assert_eq!(machine.cpu.fpu().trap_is_armed(), nth != 0);
            prev = Some(next);
        }
    }
    assert_eq!(machine.moves(), (0, 1));
    // Another task computes at last: the save that was deferred is due now, with the trap disarmed.
    writes(&machine, &tasks[SLOTS - 1], 7);
    assert_eq!(machine.moves(), (1, 2));
    switch(prev, Some(&tasks[0]), &mut machine.irqs_off()).unwrap();
    assert_eq!(machine.cpu.fpu().avx0(), ROUNDS - 1);
    kernel_is_well(&machine.cpu);
}

/// A section under a task that was never used saves the one whose registers the CPU holds, at whatever step it comes.
#[test]
fn a_section_saves_the_task_before_with_the_trap_disarmed() {
    for at in 1.. {
        let machine = Machine::new(0);
        let (computes, scalar) = (trapped(&machine), trapped(&machine));
        computes.switch_in(&mut machine.irqs_off()).unwrap();
        writes(&machine, &computes, 9);
        switch(Some(&computes), Some(&scalar), &mut machine.irqs_off()).unwrap();
        let section = || machine.cpu.fpu().scribble(3);
        let handler = || {
            let mut irq = machine.interrupted();
            let ran = scalar.with_kernel_fpu(&mut irq, KernelUnits::ALL, section);
            assert!(matches!(ran, Ok(()) | Err(Error::Busy)), "step {at}: {ran:?}");
            if ran.is_ok() {
                scalar.switch_in(&mut irq).unwrap();
            }
        };
        let (ran, injection) = machine.cpu.inject(at, Interrupt::Maskable, &handler, || {
            scalar.with_kernel_fpu(&mut machine.preempt_off(), KernelUnits::ALL, section)
        });
        assert_eq!(ran, Ok(()), "step {at}");
        assert!(machine.cpu.fpu().trap_is_armed(), "step {at}");
        assert_eq!(machine.moves(), (1, 1), "step {at}");
        switch(Some(&scalar), Some(&computes), &mut machine.irqs_off()).unwrap();
        assert_eq!(machine.cpu.fpu().avx0(), 9, "step {at}");
        kernel_is_well(&machine.cpu);
        if !injection.delivered {
            assert!(at > 8, "{at} steps");
            return;
        }
    }
}

/// A bound context that traps is its CPU's as any other; exec makes it one that traps again.
#[test]
fn another_cpu_is_refused_and_exec_traps_again() {
    let machines = [Machine::new(0), Machine::new(1)];
    let mut task = trapped(&machines[0]);
    task.switch_in(&mut machines[0].irqs_off()).unwrap();
    let section = task.with_kernel_fpu(&mut machines[1].irqs_off(), KernelUnits::NONE, || ());
    assert_eq!(section, Err(Error::BoundElsewhere { cpu: 0 }));
    let elsewhere = Error::LiveElsewhere { cpu: 0 };
    assert_eq!(task.switch_in(&mut machines[1].irqs_off()), Err(elsewhere));
    let refused = task.first_use(&mut machines[1].interrupted());
    assert_eq!(refused, Err(TrapError::Refused(elsewhere)));
    writes(&machines[0], &task, 5);
    task.reset(&mut machines[0].irqs_off()).unwrap();
    task.switch_in(&mut machines[0].irqs_off()).unwrap();
    assert!(machines[0].cpu.fpu().trap_is_armed());
    task.first_use(&mut machines[0].interrupted()).unwrap();
    assert_eq!(machines[0].cpu.fpu().avx0(), 0);
    machines.iter().for_each(|machine| kernel_is_well(&machine.cpu));
}

/// A call that saves what another bound context left in the registers would meet the trap. After the current context's
/// `switch_prepare` it does not (K23), and both contexts go on as before.
#[test]
fn other_calls_that_save_come_after_switch_prepare() {
    type Call = (&'static str, fn(&Machine, &Trapped<Bound<'_>>));
    let calls: [Call; 4] = [
        ("settle", |machine, _| machine.bound().settle(&mut machine.irqs_off()).unwrap()),
        ("its session", |machine, computes| {
            let mut pin = machine.preempt_off();
            let context = computes.used(&mut pin).unwrap();
            drop(context.open(&mut pin).unwrap().make_memory_valid_read());
        }),
        ("a session of another", |machine, _| {
            drop(machine.bind(new_task()).open(&mut machine.preempt_off()).unwrap());
        }),
        ("offline, and online", |machine, _| {
            machine.irqs_off().fpu_offline().unwrap();
            // SAFETY: K15, K16: the number it had, its words kept.
            unsafe { machine.irqs_off().fpu_online(0) }.unwrap();
        }),
    ];
    for (name, call) in calls {
        for prepared in [true, false] {
            let machine = Machine::new(0);
            let (computes, scalar) = (trapped(&machine), trapped(&machine));
            computes.switch_in(&mut machine.irqs_off()).unwrap();
            writes(&machine, &computes, 9);
            switch(Some(&computes), Some(&scalar), &mut machine.irqs_off()).unwrap();
            if prepared {
                scalar.switch_prepare(&machine.irqs_off()).unwrap();
            }
            call(&machine, &computes);
            let met = machine.cpu.fpu().kernel_traps();
            assert_eq!(met == 0, prepared, "{name}: kernel code met the trap {met} times");
            if prepared {
                scalar.switch_in(&mut machine.irqs_off()).unwrap();
                assert!(machine.cpu.fpu().trap_is_armed(), "{name}");
                switch(Some(&scalar), Some(&computes), &mut machine.irqs_off()).unwrap();
                assert_eq!(machine.cpu.fpu().avx0(), 9, "{name}");
            }
        }
    }
}

/// In an interrupt a bound context becomes one that was never used after its `reset` only, which is refused while a section
/// saves it: otherwise that save would come after the initial state.
#[test]
fn a_context_that_is_being_saved_does_not_begin_anew() {
    let (mut began, mut refused) = (0, 0);
    for at in 1.. {
        let machine = Machine::new(0);
        let bound = machine.bind(new_task());
        bound.switch_in(&mut machine.irqs_off()).unwrap();
        machine.cpu.fpu().scribble(5);
        let (bound, anew) = (Cell::new(Some(bound)), Cell::new(None));
        let handler = || {
            let context = bound.take().unwrap();
            if context.reset(&mut machine.interrupted()) == Err(Error::Busy) {
                return bound.set(Some(context));
            }
            // SAFETY: K22: simulated registers. K23: after a reset, and no section while it is current.
            anew.set(Some(unsafe { Trapped::new(context, machine.cpu.fpu()) }.unwrap()));
        };
        let ((), injection) = machine.cpu.inject(at, Interrupt::Maskable, &handler, || {
            support::section_of(&machine, None);
        });
        if !injection.delivered {
            break;
        }
        let Some(task) = anew.take() else {
            refused += 1;
            continue;
        };
        began += 1;
        task.switch_in(&mut machine.irqs_off()).unwrap();
        task.first_use(&mut machine.interrupted()).unwrap();
        assert_eq!(machine.cpu.fpu().registers(), Registers::initial(), "step {at}");
    }
    assert!(began > 0 && refused > 0, "{began} began, {refused} refused");
}

/// A bound context that has run starts anew: its registers are the only copy, or it was saved, or both.
#[test]
fn a_bound_context_that_has_run_begins_as_a_new_one() {
    for (saved, live) in [(false, true), (true, false), (true, true)] {
        let machine = Machine::new(0);
        let context = machine.bind(new_task());
        machine.enter(&context);
        machine.cpu.fpu().set_avx0(7);
        if saved {
            section_of(&machine, None);
        }
        if live {
            machine.enter(&context);
        }
        // SAFETY: K22, K23: as in `trapped`.
        let task = unsafe { Trapped::new(context, machine.cpu.fpu()) }.unwrap();
        task.switch_in(&mut machine.irqs_off()).unwrap();
        task.first_use(&mut machine.interrupted()).unwrap();
        assert_eq!(machine.cpu.fpu().avx0(), 0, "{saved}, {live}");
        kernel_is_well(&machine.cpu);
    }
}
