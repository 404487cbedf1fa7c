//! A kernel whose compiled code changes the registers whenever it runs: it saves, loads, reads, writes and forks by
//! steps that assembly executes, and is no `SoftFloat`.

use fpu_core::{
    session::ReadSession, CpuLifecycle, Error, KernelUnits, PendingGuest, PendingSection, RawFpu,
    RestoreFault, SwitchSteps,
};
use fpu_hosted_test::{
    doc::{new_task, Backend, Task},
    sim::{Registers, SimCpu, SimWords},
    Random,
};
use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Interrupts are off; nothing is promised of the registers.
struct Vector<'c>(&'c SimCpu);
fpu_core::witness! {
    // SAFETY: K2, K8: a thread is a CPU, without interrupts. K3, K4: its words; one layout. K5: one thread. K6: no NMI.
    unsafe impl Pinned + Exclusive for Vector<'_> {
        backend: Backend = |cpu| cpu.0.fpu(),
        words: SimWords = |cpu| cpu.0.words(),
        observe: |cpu, event| cpu.0.count(event),
    }
}

/// A CPU and what its compiled code leaves in the registers.
struct Cpu(SimCpu);

impl Cpu {
    fn new(number: u32) -> Self {
        Self(SimCpu::online(number))
    }
    /// Compiled code runs.
    fn compiled(&self) {
        self.0.fpu().scribble(0x5EED);
    }
    /// A switch; compiled code runs wherever the registers are unowned, and the leaving task's own before.
    fn switch(&self, prev: Option<&Task>, next: Option<&Task>) -> Result<(), Error> {
        let contexts = (prev.map(Task::context), next.map(Task::context));
        let mut irqs = Vector(&self.0);
        let steps = SwitchSteps::begin(&mut irqs, contexts.0, contexts.1)?;
        // SAFETY: C39, C40: executed at once; the contexts are borrowed.
        let restored = unsafe { execute(self.0.fpu(), &steps) };
        if next.is_none() {
            self.compiled();
        }
        steps.done(&irqs, restored)
    }
    /// What a task finds in the registers.
    fn holds(&self, registers: &Registers) {
        assert_eq!(self.0.fpu().registers(), *registers);
    }
}

/// # Safety
///
/// Steps in order (C39) and registers kept for the steps (C40) of `SwitchSteps`.
unsafe fn execute(fpu: &Backend, steps: &SwitchSteps) -> Result<(), RestoreFault> {
    // SAFETY: C39: the words of contexts that are alive.
    let commit = |word, value| unsafe { AtomicU64::from_ptr(word) }.store(value, Relaxed);
    if let Some(area) = NonNull::new(steps.save_to) {
        // SAFETY: C9: that context's area (C39). C10: simulated registers.
        unsafe { fpu.save(area) };
        commit(steps.save_word, steps.saved);
        fpu.scribble(0xD1E);
    }
    if let Some(area) = NonNull::new(steps.restore_from.cast_mut()) {
        // SAFETY: C9: the next context's area (C39). C10: simulated registers.
        unsafe { fpu.restore(area) }?;
        commit(steps.restore_word, steps.live);
    }
    Ok(())
}

fn pattern(seed: u64) -> Registers {
    Registers::pattern(seed, u64::MAX)
}

#[test]
fn every_task_finds_its_registers_on_whichever_cpu_it_runs_next() {
    const TASKS: usize = 5;
    let (cpus, tasks) = ([Cpu::new(0), Cpu::new(1)], [(); TASKS].map(|()| new_task()));
    let mut expected = [(); TASKS].map(|()| Registers::initial());
    let mut current: [Option<usize>; 2] = [None; 2];
    let (mut random, mut stayed) = (Random::new(1), 0);
    for round in 0..20_000 {
        let c = random.below(2);
        let next = Some(random.below(TASKS + 1)).filter(|&task| task < TASKS);
        if next.is_some() && current[c ^ 1] == next {
            continue;
        }
        stayed += u32::from(next.is_some() && current[c] == next);
        let task = |which: Option<usize>| which.map(|which| &tasks[which]);
        cpus[c].switch(task(current[c]), task(next)).expect("rightly switched");
        current[c] = next;
        if let Some(which) = next {
            cpus[c].holds(&expected[which]);
            if random.below(2) == 0 {
                expected[which] = pattern(round);
                cpus[c].0.fpu().load(&expected[which]);
            }
        }
    }
    assert!(stayed > 1000, "{stayed} switches of a task to itself");
}

#[test]
fn registers_are_saved_before_an_image_is_read_written_or_forked() {
    let (cpu, task, mut child) = (Cpu::new(0), new_task(), new_task());
    cpu.switch(None, Some(&task)).expect("free");
    let mine = pattern(1);
    cpu.0.fpu().load(&mine);
    let live = task.open_saved(&mut Vector(&cpu.0)).err();
    assert_eq!(live, Some(Error::LiveHere));
    cpu.holds(&mine);
    cpu.switch(Some(&task), None).expect("it runs here");
    {
        let mut irqs = Vector(&cpu.0);
        let session = task.open_saved(&mut irqs).expect("saved");
        assert!(matches!(session, ReadSession::MemoryOnly(_)), "no claim is left to compiled code");
        assert_eq!(session.image().avx0(), cpu_avx0(&mine));
        session.fork_into(&mut child);
        session.make_memory_valid_write().image_mut().set_avx0(7);
    }
    cpu.switch(None, Some(&child)).expect("free");
    // What a child does not inherit is initial.
    assert_eq!((cpu.0.fpu().avx0(), cpu.0.fpu().tile0()), (cpu_avx0(&mine), 0));
    cpu.switch(Some(&child), Some(&task)).expect("both are where they are said to be");
    assert_eq!(cpu.0.fpu().avx0(), 7);
}

/// That register of a file.
fn cpu_avx0(registers: &Registers) -> u64 {
    let cpu = SimCpu::online(9);
    cpu.fpu().load(registers);
    cpu.fpu().avx0()
}

#[test]
fn in_state_2a_memory_is_read_and_the_claim_is_kept_until_memory_is_written() {
    let (cpu, task) = (SimCpu::online(0), new_task());
    drop(task.switch_return(&mut cpu.irqs_off()).expect("free"));
    cpu.fpu().set_avx0(3);
    task.switch_prepare(&cpu.irqs_off()).expect("it runs here");
    let mut irqs = Vector(&cpu);
    match task.open_saved(&mut irqs).expect("saved") {
        ReadSession::Both(session) => assert_eq!(session.image().avx0(), 3),
        ReadSession::MemoryOnly(_) => panic!("the registers hold it too"),
    }
    assert!(task.registers_valid(&irqs));
    task.open_saved(&mut irqs).expect("saved").make_memory_valid_write().image_mut().set_avx0(4);
    assert!(!task.registers_valid(&irqs));
    drop(task.switch_return(&mut cpu.irqs_off()).expect("free"));
    assert_eq!(cpu.fpu().avx0(), 4);
}

#[test]
fn steps_that_are_not_executed_lose_nobody_but_the_task_that_was_not_saved() {
    let (cpu, one, two) = (Cpu::new(0), new_task(), new_task());
    cpu.switch(None, Some(&two)).expect("free");
    let theirs = pattern(2);
    cpu.0.fpu().load(&theirs);
    cpu.switch(Some(&two), Some(&one)).expect("free");
    // Nothing is decided without a task, or for a task that goes on.
    for next in [None, Some(&one)] {
        let next = next.map(Task::context);
        let steps = SwitchSteps::begin(&mut Vector(&cpu.0), Some(one.context()), next);
        assert!(steps.is_ok());
        assert!(one.registers_valid(&Vector(&cpu.0)), "a decision alone changes nothing");
    }
    let _ = SwitchSteps::begin(&mut Vector(&cpu.0), Some(one.context()), Some(two.context()));
    cpu.compiled();
    assert_eq!(cpu.switch(Some(&one), None), Err(Error::Lost));
    cpu.switch(None, Some(&two)).expect("free");
    cpu.holds(&theirs);
    one.reset(&mut Vector(&cpu.0)).expect("free");
    cpu.switch(Some(&two), Some(&one)).expect("free");
    cpu.holds(&Registers::initial());
}

#[test]
fn a_restore_that_faults_has_saved_the_one_and_left_the_other_in_memory() {
    let (cpu, one, two) = (Cpu::new(0), new_task(), new_task());
    cpu.switch(None, Some(&one)).expect("free");
    let mine = pattern(3);
    cpu.0.fpu().load(&mine);
    cpu.0.fpu().fail_restore(1);
    let fault = Err(Error::RestoreFailed(RestoreFault(14)));
    assert_eq!(cpu.switch(Some(&one), Some(&two)), fault);
    let irqs = Vector(&cpu.0);
    assert!(!one.registers_valid(&irqs) && !two.registers_valid(&irqs));
    cpu.switch(None, Some(&two)).expect("free");
    cpu.holds(&Registers::initial());
    cpu.switch(Some(&two), Some(&one)).expect("free");
    cpu.holds(&mine);
}

#[test]
fn a_refused_switch_has_changed_neither_task() {
    let (here, there, one, two) = (Cpu::new(0), Cpu::new(1), new_task(), new_task());
    here.switch(None, Some(&one)).expect("free");
    let mine = pattern(4);
    here.0.fpu().load(&mine);
    there.switch(None, Some(&two)).expect("free");
    let elsewhere = Err(Error::LiveElsewhere { cpu: 1 });
    assert_eq!(here.switch(Some(&one), Some(&two)), elsewhere);
    assert_eq!(here.switch(Some(&two), Some(&one)), elsewhere);
    assert_eq!(here.switch(None, Some(&one)), Err(Error::LiveHere), "it was not said to leave");
    here.holds(&mine);
    assert!(one.registers_valid(&Vector(&here.0)));
    here.0.irqs_off().fpu_resume().expect("online");
    assert_eq!(here.switch(Some(&one), None), Err(Error::Lost));
}

#[test]
fn a_section_by_steps_saves_once_excludes_others_and_keeps_no_claim() {
    let (cpu, task) = (Cpu::new(0), new_task());
    cpu.switch(None, Some(&task)).expect("free");
    let mine = pattern(5);
    cpu.0.fpu().load(&mine);
    for saves in [true, false] {
        let mut irqs = Vector(&cpu.0);
        let told = Some(task.context());
        // Planned and dropped: nothing has changed.
        drop(PendingSection::begin(&mut irqs, told, KernelUnits::ALL).expect("free"));
        assert_eq!(task.registers_valid(&irqs), saves);
        let pending = PendingSection::begin(&mut irqs, told, KernelUnits::ALL).expect("free");
        assert_eq!(pending.steps().is_some(), saves);
        if let Some(steps) = pending.steps() {
            // SAFETY: C9: `pending`'s area. C10: simulated registers.
            unsafe { cpu.0.fpu().save(NonNull::new(steps.save_to).expect("an area")) };
        }
        // SAFETY: C42: done just now.
        let section = unsafe { pending.saved() };
        let nested = PendingSection::begin(&mut Vector(&cpu.0), None, KernelUnits::ALL).map(drop);
        assert_eq!(nested, Err(Error::Busy));
        assert_eq!(task.open_saved(&mut Vector(&cpu.0)).err(), Some(Error::Busy));
        cpu.compiled();
        drop(section);
        assert_eq!(cpu.0.fpu().section(), None, "the backend was told of both ends");
        assert!(!task.registers_valid(&Vector(&cpu.0)));
    }
    cpu.switch(None, Some(&task)).expect("free");
    cpu.holds(&mine);
}

#[test]
fn a_guest_by_steps_keeps_its_registers_apart_from_those_of_its_host() {
    let (cpu, host, guest) = (Cpu::new(0), new_task(), new_task());
    cpu.switch(None, Some(&host)).expect("free");
    let mine = pattern(6);
    cpu.0.fpu().load(&mine);
    let mut theirs = Registers::initial();
    for (run, fails) in [false, true, false, false].into_iter().enumerate() {
        let mut irqs = Vector(&cpu.0);
        let pending =
            PendingGuest::begin(&mut irqs, guest.context(), Some(host.context())).expect("free");
        let steps = *pending.steps();
        assert_eq!(steps.host_save_to.is_null(), run > 0, "the host is saved once");
        cpu.0.fpu().fail_restore(u64::from(fails));
        let enter = SwitchSteps {
            save_to: steps.host_save_to,
            save_word: steps.host_word,
            saved: steps.host_saved,
            restore_from: steps.area,
            restore_word: steps.word,
            live: steps.live,
            mask: steps.mask,
        };
        // SAFETY: C39, C40: executed at once; the contexts are borrowed.
        if let Err(why) = unsafe { execute(cpu.0.fpu(), &enter) } {
            assert!(fails);
            // SAFETY: C43: so far.
            assert_eq!(unsafe { pending.failed(why) }, Error::RestoreFailed(why));
            continue;
        }
        cpu.holds(&theirs);
        theirs = pattern(60 + run as u64);
        cpu.0.fpu().load(&theirs);
        let leave = SwitchSteps {
            save_to: steps.area,
            save_word: steps.word,
            saved: steps.saved,
            restore_from: std::ptr::null(),
            ..enter
        };
        // SAFETY: C39: executed at once; the context is borrowed. C40: only the guest has changed the registers.
        assert_eq!(unsafe { execute(cpu.0.fpu(), &leave) }, Ok(()));
        // SAFETY: C43: done just now.
        unsafe { pending.done() };
        cpu.compiled();
    }
    assert!(!guest.registers_valid(&Vector(&cpu.0)));
    cpu.switch(None, Some(&host)).expect("free");
    cpu.holds(&mine);
    let live = PendingGuest::begin(&mut Vector(&cpu.0), host.context(), None).map(drop);
    assert_eq!(live, Err(Error::LiveHere), "a task that runs is no guest");
}
