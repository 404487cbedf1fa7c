//! Bound contexts that were never used: one task that computes among others that do not moves nothing at its switches.

use fpu_core::{
    trap::{switch, TrapError, Trapped},
    Error, KernelUnits,
};
use fpu_hosted_test::{
    doc::new_task,
    sim::{Interrupt, SimCpu},
};

#[path = "support/bound.rs"]
mod support;
use support::{Bound, Machine, SLOTS};

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
