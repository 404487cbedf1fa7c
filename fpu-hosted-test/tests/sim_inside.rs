//! Kernels that restore inside the switch, registers that become a context, and contexts held exclusively.

use fpu_core::{
    switch, CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits, RestoreFault, SwitchError,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Registers, SimCpu},
};

fn switches(cpu: &SimCpu, prev: Option<&Task>, next: Option<&Task>) -> Result<(), SwitchError> {
    let (prev, next) = (prev.map(Task::context), next.map(Task::context));
    switch(prev, next, &mut cpu.irqs_off())
}
fn adopts(cpu: &SimCpu, task: &Task) -> Result<(), Error> {
    // SAFETY: C37: whoever's state is here has been saved. C38: asked for by each test.
    unsafe { task.adopt(&mut cpu.irqs_off()) }
}
/// The task runs here, and these are its registers afterwards.
fn runs(cpu: &SimCpu, task: &Task, seed: u64) -> Registers {
    let mine = Registers::pattern(seed, u64::MAX);
    task.switch_in(&mut cpu.irqs_off()).expect("the CPU is free");
    cpu.fpu().load(&mine);
    mine
}

#[test]
fn a_switch_moves_what_is_due_and_no_more() {
    let (cpu, a, b) = (SimCpu::online(0), new_task(), new_task());
    switches(&cpu, None, Some(&a)).expect("free");
    let of_a = runs(&cpu, &a, 1);
    let moved = |prev, next| {
        let before = cpu.totals();
        switches(&cpu, prev, next).expect("free");
        let after = cpu.totals();
        (after.saved - before.saved, after.restored - before.restored)
    };
    assert_eq!(moved(Some(&a), Some(&a)), (0, 0), "a task that stays");
    assert_eq!(moved(Some(&a), None), (1, 0), "to idle");
    assert_eq!(moved(None, None), (0, 0), "idle stays");
    assert_eq!(moved(None, Some(&a)), (0, 0), "the registers still hold it");
    assert_eq!(moved(Some(&a), Some(&b)), (1, 1), "to another task");
    let of_b = runs(&cpu, &b, 2);
    assert_eq!(moved(Some(&b), Some(&a)), (1, 1), "and back");
    assert_eq!(cpu.fpu().registers(), of_a);
    assert_eq!(moved(Some(&a), Some(&b)), (1, 1));
    assert_eq!(cpu.fpu().registers(), of_b);
}

#[test]
fn a_task_that_cannot_leave_leaves_the_next_one_untouched() {
    let (cpu, other, prev, next) = (SimCpu::online(0), SimCpu::online(1), new_task(), new_task());
    runs(&other, &prev, 3);
    let seen = || {
        let words = (cpu.words().resident(), cpu.words().gate());
        (words, cpu.fpu().registers(), cpu.totals(), format!("{prev:?} {next:?}"))
    };
    let before = seen();
    let refused = switches(&cpu, Some(&prev), Some(&next));
    assert_eq!(refused, Err(SwitchError::Prev(Error::LiveElsewhere { cpu: 1 })));
    assert_eq!(seen(), before);
}

#[test]
fn a_task_that_cannot_come_leaves_the_one_before_it_saved() {
    let (cpu, other, prev, next) = (SimCpu::online(0), SimCpu::online(1), new_task(), new_task());
    let mine = runs(&cpu, &prev, 4);
    // Refused before the registers change: they still hold it.
    runs(&other, &next, 5);
    let refused = switches(&cpu, Some(&prev), Some(&next));
    assert_eq!(refused, Err(SwitchError::Next(Error::LiveElsewhere { cpu: 1 })));
    assert!(prev.registers_valid(&cpu.irqs_off()));
    switches(&other, Some(&next), None).expect("it is live there");
    // Refused while they change: the one before it is in memory.
    cpu.fpu().fail_restore(1);
    let refused = switches(&cpu, Some(&prev), Some(&next));
    assert_eq!(refused, Err(SwitchError::Next(Error::RestoreFailed(RestoreFault(14)))));
    assert_eq!(refused.map_err(Error::from), Err(Error::RestoreFailed(RestoreFault(14))));
    assert!(!prev.registers_valid(&cpu.irqs_off()) && !next.registers_valid(&cpu.irqs_off()));
    switches(&cpu, None, Some(&prev)).expect("free");
    assert_eq!(cpu.fpu().registers(), mine);
}

#[test]
fn a_section_after_the_restore_is_noticed_by_the_second_call() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    let mine = runs(&cpu, &task, 6);
    let section = cpu.interrupted().with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || {
        cpu.fpu().scribble(6);
    });
    section.expect("free");
    let restored = cpu.totals().restored;
    for _ in 0..2 {
        task.switch_in(&mut cpu.irqs_off()).expect("free");
        assert_eq!(cpu.fpu().registers(), mine);
    }
    assert_eq!(cpu.totals().restored, restored + 1, "the third call moves nothing");
}

#[test]
fn adopted_registers_are_the_tasks_wherever_it_runs() {
    let (cpu, other) = (SimCpu::online(0), SimCpu::online(1));
    let (earlier, thread) = (new_task(), new_task());
    let of_earlier = runs(&cpu, &earlier, 7);
    switches(&cpu, Some(&earlier), None).expect("it is live here");
    // A thread without a context computes, where the claim of `earlier` stands until the call.
    let mine = Registers::pattern(8, u64::MAX);
    cpu.fpu().load(&mine);
    adopts(&cpu, &thread).expect("free");
    assert!(thread.registers_valid(&cpu.irqs_off()) && !earlier.registers_valid(&cpu.irqs_off()));
    assert_eq!(cpu.fpu().registers(), mine);
    // It is live: refused elsewhere, and saved when it leaves.
    let refused = thread.switch_in(&mut other.irqs_off());
    assert_eq!(refused, Err(Error::LiveElsewhere { cpu: 0 }));
    switches(&cpu, Some(&thread), Some(&earlier)).expect("free");
    assert_eq!(cpu.fpu().registers(), of_earlier);
    switches(&other, None, Some(&thread)).expect("free");
    assert_eq!(other.fpu().registers(), mine);
}

#[test]
fn adoption_gives_up_what_the_context_was() {
    let (cpu, other, task) = (SimCpu::online(0), SimCpu::online(1), new_task());
    // Lost, in memory, claimed by another CPU: each time the registers count.
    runs(&cpu, &task, 9);
    cpu.irqs_off().invalidate_registers().expect("online");
    for seed in [10, 11] {
        let mine = Registers::pattern(seed, u64::MAX);
        cpu.fpu().load(&mine);
        adopts(&cpu, &task).expect("free");
        switches(&cpu, Some(&task), None).expect("it is live here");
        switches(&other, None, Some(&task)).expect("free");
        assert_eq!(other.fpu().registers(), mine);
        switches(&other, Some(&task), None).expect("it is live there");
    }
    adopts(&cpu, &task).expect("free");
    assert!(!task.registers_valid(&other.irqs_off()));
}

/// By whoever holds the context exclusively, on any CPU.
fn avx0(cpu: &SimCpu, task: &mut Task, write: Option<u64>) -> u64 {
    let mut pin = cpu.preempt_off();
    let session = task.open(&mut pin).expect("free").make_memory_valid_read();
    let found = session.image().avx0();
    if let Some(value) = write {
        session.make_memory_valid_write().image_mut().set_avx0(value);
    }
    found
}

#[test]
fn who_holds_a_context_exclusively_need_not_know_where_it_is() {
    for at in 0..2 {
        let cpus = [SimCpu::online(0), SimCpu::online(1)];
        let [home, here] = [&cpus[0], &cpus[at]];
        let mut task = new_task();
        task.switch_in(&mut home.irqs_off()).expect("free");
        home.fpu().set_avx0(7);
        if at == 0 {
            assert_eq!(avx0(home, &mut task, None), 7, "live in these registers");
            task.switch_in(&mut home.irqs_off()).expect("free");
        }
        switches(home, Some(&task), None).expect("it is live here");
        // Stopped, and its CPU's registers claim it: reading leaves the claim.
        assert_eq!(avx0(here, &mut task, None), 7);
        assert!(task.registers_valid(&home.irqs_off()));
        // Writing ends it, on whichever CPU it is.
        assert_eq!(avx0(here, &mut task, Some(8)), 7);
        for cpu in &cpus {
            assert!(!task.registers_valid(&cpu.irqs_off()));
        }
        assert_eq!(avx0(here, &mut task, None), 8);
        task.switch_in(&mut home.irqs_off()).expect("free");
        assert_eq!(home.fpu().avx0(), 8);
    }
}
