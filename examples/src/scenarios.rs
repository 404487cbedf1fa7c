//! The scripted scenarios, and the least that must happen in each.

use fpu_hosted_test::Random;

use crate::script::{Builder, Kind, Script};

/// A scenario.
pub struct Scenario {
    /// The scenario's name in the table.
    pub name: &'static str,
    /// The scenario's name in JSON.
    pub id: &'static str,
    /// The course of events, in one line.
    pub about: &'static str,
    /// The script.
    pub script: Script,
    /// The fewest skipped restores for the scenario to count.
    pub least_skipped: u64,
    /// Fewest migrations.
    pub least_migrations: u64,
    /// The kind of operation that it is about, and the fewest of them.
    pub least_of: (Kind, u64),
}

/// Tasks of the demo.
pub const TASKS: usize = 8;

/// All, in order; the last is drawn from `seed`.
#[must_use]
pub fn all(seed: u64) -> Vec<Scenario> {
    vec![
        alternate(),
        idle(),
        kthread(),
        sections(),
        migration(),
        reuse(),
        tracer(),
        fork(),
        guests(),
        mix(seed),
    ]
}

/// On both CPUs two tasks take turns: every switch needs its save and its restore.
fn alternate() -> Scenario {
    let mut b = Builder::new(TASKS);
    for round in 0..5000 {
        for (cpu, pair) in [(0, [0, 1]), (1, [2, 3])] {
            for t in pair {
                b.switch_to(cpu, t);
                // Every other time the save comes first thing on entry.
                if round % 2 == 0 {
                    b.user_save(cpu);
                } else {
                    b.user(cpu).user(cpu);
                }
            }
        }
    }
    Scenario {
        name: "two tasks alternate",
        id: "two-tasks-alternate",
        about: "two tasks a CPU take turns: no restore can be skipped",
        script: b.finish(),
        least_skipped: 0,
        least_migrations: 0,
        least_of: (Kind::UserSave, 10_000),
    }
}

fn idle() -> Scenario {
    let mut b = Builder::new(TASKS);
    for round in 0..10_000u32 {
        for (cpu, t) in [(0, 0), (1, 4)] {
            b.switch_to(cpu, t + (round / 4000) as u8).user(cpu).idle(cpu);
        }
    }
    Scenario {
        name: "task, idle, task",
        id: "task-idle-task",
        about: "a task waits, the CPU idles, the task resumes",
        script: b.finish(),
        least_skipped: 19_000,
        least_migrations: 0,
        least_of: (Kind::Idle, 20_000),
    }
}

fn kthread() -> Scenario {
    let mut b = Builder::new(TASKS);
    for round in 0..4000 {
        for (cpu, t) in [(0, 2), (1, 5)] {
            b.switch_to(cpu, t).user(cpu).kthread(cpu).switch_to(cpu, t).user_save(cpu);
            b.kthread(cpu).idle(cpu).kthread(cpu);
            // In one round of four a kernel thread uses the registers itself.
            if round % 4 == 3 {
                b.section(cpu);
            }
        }
    }
    Scenario {
        name: "kernel thread bounces",
        id: "kernel-thread-bounces",
        about: "kernel threads come between two runs; one in twelve uses the FPU",
        script: b.finish(),
        least_skipped: 10_000,
        least_migrations: 0,
        least_of: (Kind::KThread, 20_000),
    }
}

fn sections() -> Scenario {
    let mut b = Builder::new(TASKS);
    for round in 0..2000u32 {
        for (cpu, base) in [(0, 0), (1, 4)] {
            b.switch_to(cpu, base + (round % 2) as u8).user(cpu);
            for _ in 0..1 + round % 8 {
                b.section(cpu);
            }
            b.user(cpu).idle(cpu).switch_to(cpu, base + (round % 2) as u8).user(cpu);
        }
    }
    Scenario {
        name: "kernel FPU sections",
        id: "kernel-fpu-sections",
        about: "one to eight sections in a system call: one save, one restore",
        script: b.finish(),
        least_skipped: 3500,
        least_migrations: 0,
        least_of: (Kind::Section, 15_000),
    }
}

fn migration() -> Scenario {
    let mut b = Builder::new(TASKS);
    for round in 0..1600u32 {
        // To the other CPU and back; the old CPU still holds an older state of it.
        let (t, cpu) = ([1, 6][(round / 8 % 2) as usize], (round % 2) as u8);
        b.switch_to(cpu, t).user(cpu).idle(cpu);
        if round % 4 == 0 {
            b.switch_to(cpu, t).user_save(cpu).idle(cpu);
        }
    }
    Scenario {
        name: "migration ping-pong",
        id: "migration-ping-pong",
        about: "tasks move there and back: what a CPU still holds is out of date",
        script: b.finish(),
        least_skipped: 300,
        least_migrations: 1500,
        least_of: (Kind::Out, 1500),
    }
}

fn reuse() -> Scenario {
    let mut b = Builder::new(TASKS);
    for round in 0..2000u32 {
        let cpu = (round / 2 % 2) as u8;
        b.switch_to(cpu, 3).user(cpu);
        // It ends live in the registers, or switched out and still resident.
        if round % 2 == 0 {
            b.exit(cpu);
        } else {
            b.idle(cpu).switch_to(cpu, 3).user(cpu).idle(cpu);
        }
        b.spawn(cpu, 3).switch_to(cpu, 7).idle(cpu);
    }
    Scenario {
        name: "exit and address reuse",
        id: "exit-and-address-reuse",
        about: "a new task gets the memory of one the registers still hold",
        script: b.finish(),
        least_skipped: 900,
        least_migrations: 0,
        least_of: (Kind::Spawn, 2000),
    }
}

fn tracer() -> Scenario {
    let mut b = Builder::new(TASKS);
    for round in 0..1600u32 {
        let cpu = (round % 2) as u8;
        let t = (round % 7) as u8;
        b.switch_to(cpu, t).user(cpu).idle(cpu);
        b.switch_to(cpu, t).user(cpu).idle(cpu);
        // From the other CPU, or from the one whose registers hold the task.
        b.poke(if round % 3 == 0 { cpu } else { cpu ^ 1 }, t);
        b.switch_to(cpu, t).user(cpu).idle(cpu);
    }
    Scenario {
        name: "stopped-task write",
        id: "stopped-task-write",
        about: "a tracer writes memory while a CPU still holds the old value",
        script: b.finish(),
        least_skipped: 1500,
        least_migrations: 500,
        least_of: (Kind::Poke, 1600),
    }
}

fn fork() -> Scenario {
    let mut b = Builder::new(TASKS);
    for round in 0..1200u32 {
        let cpu = (round % 2) as u8;
        b.switch_to(cpu, 0).user(cpu).fork(cpu, 5).user(cpu).idle(cpu);
        b.switch_to(cpu ^ 1, 5).user(cpu ^ 1).idle(cpu ^ 1);
        b.switch_to(cpu, 0).user(cpu).idle(cpu);
    }
    Scenario {
        name: "fork",
        id: "fork",
        about: "the child starts with the parent's registers, on the other CPU",
        script: b.finish(),
        least_skipped: 2000,
        least_migrations: 1000,
        least_of: (Kind::Fork, 1200),
    }
}

fn guests() -> Scenario {
    let mut b = Builder::new(TASKS);
    for round in 0..1000u32 {
        for (cpu, host, vcpu) in [(0, 0, 6), (1, 3, 7)] {
            // The host enters the kernel once and runs its virtual CPU five times: exits that the kernel
            // handles itself; in between, the CPU idles.
            b.switch_to(cpu, host).user(cpu).guest(cpu, vcpu).guest(cpu, vcpu).guest(cpu, vcpu);
            b.idle(cpu).switch_to(cpu, host).guest(cpu, vcpu).guest(cpu, vcpu);
            // Another context uses the registers in between, and must be noticed.
            match round % 4 {
                0 => b.kthread(cpu).section(cpu).switch_to(cpu, host),
                1 => b.user(cpu),
                2 => b.idle(cpu).switch_to(cpu, host + 1).user(cpu).idle(cpu).switch_to(cpu, host),
                _ => b.poke(cpu ^ 1, vcpu),
            };
            b.guest(cpu, vcpu).user(cpu).kthread(cpu).guest(cpu, vcpu).idle(cpu);
        }
        if round % 8 == 7 {
            // The guests change CPUs, and change again.
            b.guest(1, 6).guest(0, 7).guest(0, 6).guest(1, 7);
        }
    }
    Scenario {
        name: "virtual CPU",
        id: "virtual-cpu",
        about: "a guest resumes, and is loaded only if other code used the registers",
        script: b.finish(),
        least_skipped: 8000,
        least_migrations: 490,
        least_of: (Kind::Guest, 14_000),
    }
}

fn mix(seed: u64) -> Scenario {
    let mut b = Builder::new(TASKS);
    let mut random = Random::new(seed);
    // Each CPU prefers the task it ran last, as schedulers do.
    let mut last = [0u8, 1];
    for _ in 0..24_000 {
        let cpu = random.below(2) as u8;
        let any = random.below(TASKS) as u8;
        let stopped = (0..TASKS as u8).map(|n| (any + n) % TASKS as u8).find(|t| !b.is_current(*t));
        match (random.below(16), b.current(cpu), stopped) {
            (0..=3, ..) => {
                let next = if random.below(3) > 0 { last[usize::from(cpu)] } else { any };
                if b.current(cpu ^ 1) != Some(next) {
                    b.switch_to(cpu, next);
                    last[usize::from(cpu)] = next;
                    if random.below(4) == 0 {
                        // What is live returns; what was switched in may save on entry.
                        b.user(cpu).idle(cpu).switch_to(cpu, next).user_save(cpu);
                    } else {
                        b.user(cpu);
                    }
                }
            }
            (4..=6, ..) => drop(b.idle(cpu)),
            (7..=8, ..) => drop(b.kthread(cpu)),
            (9..=10, Some(_), _) => drop(b.user(cpu)),
            (11..=12, ..) => drop(b.section(cpu)),
            (13, _, Some(t)) => drop(b.poke(cpu, t)),
            (14, Some(_), Some(t)) => drop(b.fork(cpu, t)),
            (15, Some(t), _) => drop(b.exit(cpu).spawn(cpu ^ 1, t)),
            _ => {}
        }
    }
    Scenario {
        name: "mix",
        id: "mix",
        about: "all of it, drawn from the seed",
        script: b.finish(),
        least_skipped: 1500,
        least_migrations: 500,
        least_of: (Kind::Section, 1500),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_about_something() {
        for seed in 0..20 {
            for s in all(seed) {
                let of = s.script.count(|op| op.kind == s.least_of.0);
                assert!(of >= s.least_of.1, "{}: {of} of {:?}", s.name, s.least_of);
                let skipped = s.script.count(|op| op.due.skip);
                assert!(skipped >= s.least_skipped, "{}: {skipped} skipped", s.name);
                assert!(s.script.migrations >= s.least_migrations, "{}", s.name);
            }
        }
    }

    #[test]
    fn a_guest_is_loaded_once_for_every_intruder() {
        let script = guests().script;
        let of = |what: fn(&crate::script::Due) -> bool| {
            script.count(|op| op.kind == Kind::Guest && what(&op.due))
        };
        // Of seven runs in each of 2000 rounds, the first, that after the intruder and the last find
        // others in the registers; and all of the 500 on moving CPUs.
        assert_eq!((of(|due| due.restore), of(|due| due.skip)), (3 * 2000 + 500, 4 * 2000));
        // The host is saved by its first guest after user mode only.
        assert_eq!((of(|due| due.save), of(|due| due.host_save)), (7 * 2000 + 500, 2000 + 500));
    }

    #[test]
    fn the_mix_depends_on_its_seed_only() {
        let print = |seed| format!("{:?}", mix(seed).script.ops);
        assert_eq!(print(5), print(5));
        assert_ne!(print(5), print(6));
    }
}
