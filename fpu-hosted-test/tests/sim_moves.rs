//! The image of a task that ran on another CPU is fetched before it is restored, and no other image is.

use fpu_core::{CpuWords, TaskFpu};
use fpu_hosted_test::{
    sim::{SimArea, SimCpu, SimFpu},
    Random,
};

type Task = TaskFpu<SimFpu, SimArea>;

/// What a walk of tasks over CPUs did.
#[derive(Default)]
struct Seen {
    fetched: u32,
    hinted: u32,
    stayed: u32,
}

fn area_of(cpu: &SimCpu, task: &Task) -> usize {
    let mut irqs = cpu.irqs_off();
    let pending = task.begin_user(&mut irqs).expect("it is current here");
    pending.steps().save_to as usize
}

/// Tasks wander over CPUs; a model knows where each ran last.
#[test]
fn what_moved_is_fetched_once_and_nothing_else() {
    let mut random = Random::new(0x003E_7C4E);
    let mut seen = Seen::default();
    for _ in 0..200 {
        let cpus = [0, 1, 2].map(SimCpu::online);
        let tasks = [(); 4].map(|()| Task::new(cpus[0].fpu(), SimArea::new()).expect("it fits"));
        let mut last = [None; 4];
        for _ in 0..50 {
            let (at, which) = (random.below(3), random.below(4));
            let (cpu, task) = (&cpus[at], &tasks[which]);
            let moved = last[which] != Some(at);
            let hinted = random.below(2) == 0;
            if hinted {
                task.prefetch(&cpu.preempt_off());
                let fetched = cpu.fpu().take_fetched();
                assert_eq!(fetched.is_some(), moved);
                if let Some(address) = fetched {
                    assert_eq!(address, area_of(cpu, task));
                }
                seen.hinted += u32::from(moved);
            }
            drop(task.switch_return(&mut cpu.irqs_off()).expect("it is current here"));
            // `area_of` has dropped its steps: the task is in memory still, under the number that it had.
            assert_eq!(cpu.fpu().take_fetched().is_some(), moved);
            seen.fetched += u32::from(moved);
            seen.stayed += u32::from(!moved);
            last[which] = Some(at);
            task.switch_prepare(&cpu.irqs_off()).expect("it is current here");
        }
    }
    assert!(seen.fetched > 2000 && seen.hinted > 1000 && seen.stayed > 1000);
}

/// A hint in a non-maskable interrupt, on a CPU that is offline, or in a section changes nothing and is allowed.
#[test]
fn a_hint_is_allowed_anywhere() {
    let here = SimCpu::online(0);
    let task = Task::new(here.fpu(), SimArea::new()).expect("it fits");
    drop(task.switch_return(&mut here.irqs_off()).expect("online"));
    let _ = here.fpu().take_fetched();
    let state = |cpu: &SimCpu| (cpu.words().resident(), cpu.words().gate(), cpu.fpu().registers());
    for cpu in [SimCpu::offline(), SimCpu::online(1), here] {
        let before = state(&cpu);
        task.prefetch(&cpu.nmi());
        task.prefetch(&cpu.interrupted());
        task.prefetch(&cpu.irqs_off());
        assert!(state(&cpu) == before);
        let is_here = task.registers_valid(&cpu.irqs_off());
        assert_eq!(cpu.fpu().take_fetched().is_some(), !is_here);
    }
}
