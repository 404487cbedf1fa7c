//! What the CPUs do: each operation by itself, a random mix, and a kernel with another kind of owners.

use fpu_core::{Level, ReportedU64};

use crate::{
    bus,
    lines::{Moved, LINE},
    machine::{Failure, Machine, Make, PerCpu},
    random::Random,
};

/// Numbers of CPUs that are looked at.
pub const SIZES: [usize; 10] = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/// Operations of each CPU in a scenario.
const ROUNDS: usize = 4;

/// One operation, after which the machine is as before: on each CPU a task is in user mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Another task of the CPU takes its turn.
    Switch,
    /// The task waits, and the same task goes on, on the same CPU.
    Wake,
    /// The task returns from a system call.
    SystemCall,
    /// Two kernel sections in a system call.
    Sections,
    /// Sections in an interrupt of user mode, and in one of the idle loop.
    Interrupts,
    /// Three exits of a virtual CPU.
    Guest,
    /// The task begins another program.
    Exec,
    /// The CPU goes offline and comes online.
    HotPlug,
    /// A task goes on on another CPU.
    Migration,
    /// A debugger on another CPU reads a task, which goes on where it was.
    DebuggerReads,
    /// The debugger writes too.
    DebuggerWrites,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Switch,
        Self::Wake,
        Self::SystemCall,
        Self::Sections,
        Self::Interrupts,
        Self::Guest,
        Self::Exec,
        Self::HotPlug,
        Self::Migration,
        Self::DebuggerReads,
        Self::DebuggerWrites,
    ];
    /// What it is, in a few words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Switch => "a switch between two tasks",
            Self::Wake => "a wake on the same CPU",
            Self::SystemCall => "a system call",
            Self::Sections => "a system call with two sections",
            Self::Interrupts => "two interrupts with a section each",
            Self::Guest => "three guest exits",
            Self::Exec => "exec",
            Self::HotPlug => "a CPU offline and online",
            Self::Migration => "a migration",
            Self::DebuggerReads => "a debugger reads a stopped task",
            Self::DebuggerWrites => "a debugger writes it",
        }
    }
    /// How often the lines of a context, those of its word and of its image, go to another CPU.
    #[must_use]
    pub const fn visits(self) -> u64 {
        match self {
            Self::Migration | Self::DebuggerReads => 1,
            // There and back.
            Self::DebuggerWrites => 2,
            _ => 0,
        }
    }
}

/// A machine, and which task each CPU runs. Each CPU has two tasks and a guest of its own, and one that may run anywhere.
struct World<P, A> {
    machine: Machine<P, A>,
    cpus: usize,
    /// 0 or 1.
    running: Vec<usize>,
    /// Where the task that may run anywhere was last.
    place: Vec<usize>,
    random: Random,
    bill: Bill,
}

const OF_A_CPU: usize = 4;
const GUEST: usize = 2;
const ANYWHERE: usize = 3;

impl<P: PerCpu, A: Make> World<P, A> {
    /// After each CPU has run all its tasks.
    fn new(cpus: usize, bytes: usize, seed: u64) -> Result<Self, Failure> {
        let tasks = cpus * OF_A_CPU;
        let mut world = Self {
            machine: Machine::new(cpus, tasks, bytes)?,
            cpus,
            running: vec![0; cpus],
            place: (0..cpus).collect(),
            random: Random::new(seed),
            bill: Bill::new(tasks, bytes),
        };
        for cpu in 0..cpus {
            for which in 0..OF_A_CPU {
                world.enter(cpu, world.task(cpu, which))?;
                world.leave(cpu, world.task(cpu, which))?;
            }
            world.enter(cpu, world.current(cpu))?;
        }
        Ok(world)
    }
    /// Contexts that stand beside each other are of different CPUs.
    fn task(&self, cpu: usize, which: usize) -> usize {
        which * self.cpus + cpu
    }
    fn current(&self, cpu: usize) -> usize {
        self.task(cpu, self.running[cpu])
    }
    fn another(&mut self, than: usize) -> usize {
        (than + 1 + self.random.below(self.cpus - 1)) % self.cpus
    }
    fn enter(&mut self, cpu: usize, task: usize) -> Result<(), Failure> {
        self.machine.enter(cpu, task)?;
        self.bill.pay(cpu, &[task]);
        Ok(())
    }
    fn leave(&mut self, cpu: usize, task: usize) -> Result<(), Failure> {
        self.machine.leave(cpu, task)?;
        self.bill.pay(cpu, &[task]);
        Ok(())
    }
    fn pick(&mut self, cpu: usize, task: usize) {
        self.machine.pick(cpu, task);
        self.bill.pay(cpu, &[task]);
    }
    fn section(&mut self, cpu: usize, current: Option<usize>, level: Level) -> Result<(), Failure> {
        self.machine.section(cpu, current, level)?;
        self.bill.pay(cpu, current.as_slice());
        Ok(())
    }
    /// The current task is switched out, the other runs for a while, and the current one goes on.
    fn visit(&mut self, cpu: usize, task: usize) -> Result<(), Failure> {
        self.leave(cpu, self.current(cpu))?;
        self.pick(cpu, task);
        self.enter(cpu, task)?;
        self.leave(cpu, task)?;
        self.enter(cpu, self.current(cpu))
    }
    /// The operation once, by this CPU.
    fn once(&mut self, scenario: Scenario, cpu: usize) -> Result<(), Failure> {
        let current = self.current(cpu);
        match scenario {
            Scenario::Switch => {
                self.leave(cpu, current)?;
                self.running[cpu] ^= 1;
                self.pick(cpu, self.current(cpu));
                self.enter(cpu, self.current(cpu))
            }
            Scenario::Wake => {
                self.leave(cpu, current)?;
                self.pick(cpu, current);
                self.enter(cpu, current)
            }
            Scenario::SystemCall => self.enter(cpu, current),
            Scenario::Sections => {
                self.section(cpu, Some(current), Level::Task)?;
                self.section(cpu, Some(current), Level::Task)?;
                self.enter(cpu, current)
            }
            Scenario::Interrupts => {
                self.section(cpu, Some(current), Level::HardIrq)?;
                self.enter(cpu, current)?;
                self.leave(cpu, current)?;
                self.section(cpu, None, Level::HardIrq)?;
                self.enter(cpu, current)
            }
            Scenario::Guest => {
                let guest = self.task(cpu, GUEST);
                for _ in 0..3 {
                    self.machine.guest(cpu, guest, current)?;
                    self.bill.pay(cpu, &[guest, current]);
                }
                self.enter(cpu, current)
            }
            Scenario::Exec => {
                self.machine.exec(cpu, current)?;
                self.bill.pay(cpu, &[current]);
                self.enter(cpu, current)
            }
            Scenario::HotPlug => {
                self.leave(cpu, current)?;
                self.machine.offline(cpu)?;
                self.machine.online(cpu)?;
                self.bill.pay(cpu, &[]);
                self.enter(cpu, current)
            }
            Scenario::Migration => {
                let task = self.task(cpu, ANYWHERE);
                self.place[cpu] = self.another(self.place[cpu]);
                self.visit(self.place[cpu], task)
            }
            Scenario::DebuggerReads | Scenario::DebuggerWrites => {
                let (task, home) = (self.task(cpu, ANYWHERE), self.place[cpu]);
                let debugger = self.another(home);
                self.machine.debug(debugger, task, scenario == Scenario::DebuggerWrites)?;
                self.bill.pay(debugger, &[task]);
                self.visit(home, task)
            }
        }
    }
}

/// What each call may move: of a context that another CPU used last, each line once, and nothing else ever.
struct Bill {
    lines: u64,
    visitor: Vec<Option<usize>>,
    left: Vec<Moved>,
    paid: Moved,
    visits: u64,
    /// The first call that moved more.
    wrong: Option<String>,
}

impl Bill {
    fn new(tasks: usize, bytes: usize) -> Self {
        Self {
            lines: lines_of_a_context(bytes),
            visitor: vec![None; tasks],
            left: vec![Moved::default(); tasks],
            paid: bus::moved(),
            visits: 0,
            wrong: None,
        }
    }
    /// A CPU has made a call with these contexts.
    fn pay(&mut self, cpu: usize, contexts: &[usize]) {
        let mut moved = bus::moved() - self.paid;
        self.paid += moved;
        for &task in contexts {
            match self.visitor[task].replace(cpu) {
                Some(before) if before != cpu => {
                    self.visits += 1;
                    self.left[task] = Moved { transfers: self.lines, claims: self.lines, fills: 0 };
                }
                // The first comes from memory.
                _ => {}
            }
            let left = &mut self.left[task];
            let [transfers, claims] =
                [moved.transfers.min(left.transfers), moved.claims.min(left.claims)];
            left.transfers -= transfers;
            left.claims -= claims;
            moved.transfers -= transfers;
            moved.claims -= claims;
        }
        if moved.between_cpus() && self.wrong.is_none() {
            let what = format!(
                "a call of CPU {cpu} with the contexts {contexts:?} moved {moved:?} too much"
            );
            self.wrong = Some(what);
        }
    }
}

/// Of a context with its area inside: those of the image, and the word's.
#[must_use]
pub const fn lines_of_a_context(bytes: usize) -> u64 {
    (bytes / LINE) as u64 + 1
}

/// What so many operations moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Operations.
    pub operations: u64,
    /// Between CPUs, and from memory.
    pub moved: Moved,
    /// Times that a context was used by another CPU than before.
    pub visits: u64,
    /// The first call, if any, that moved a line which no visit accounts for.
    pub wrong: Option<String>,
}

impl Cost {
    /// Lines that came from other CPUs, for each operation.
    #[must_use]
    pub fn transfers(&self) -> f64 {
        self.moved.transfers as f64 / self.operations as f64
    }
}

fn cost<P: PerCpu, A: Make>(
    (cpus, bytes, seed): (usize, usize, u64),
    operations: usize,
    mut once: impl FnMut(&mut World<P, A>, usize) -> Result<(), Failure>,
) -> Result<Cost, Failure> {
    let mut world = World::<P, A>::new(cpus, bytes, seed)?;
    let (before, visits) = (bus::moved(), world.bill.visits);
    world.bill.wrong = None;
    for _ in 0..operations {
        let cpu = world.random.below(cpus);
        once(&mut world, cpu)?;
    }
    Ok(Cost {
        operations: operations as u64,
        moved: bus::moved() - before,
        visits: world.bill.visits - visits,
        wrong: world.bill.wrong,
    })
}

/// One operation again and again, by CPUs in random order; each has warm caches.
///
/// # Errors
///
/// The core refused a call, or a task found other registers.
pub fn measure<P: PerCpu, A: Make>(
    scenario: Scenario,
    cpus: usize,
    bytes: usize,
) -> Result<Cost, Failure> {
    cost::<P, A>((cpus, bytes, 1), cpus * ROUNDS, |world, cpu| world.once(scenario, cpu))
}

/// All operations in random order.
///
/// # Errors
///
/// As for [`measure`].
pub fn mixed<P: PerCpu, A: Make>(cpus: usize, bytes: usize, seed: u64) -> Result<Cost, Failure> {
    cost::<P, A>((cpus, bytes, seed), cpus * ROUNDS * 4, |world, cpu| {
        let scenario = Scenario::ALL[world.random.below(Scenario::ALL.len())];
        world.once(scenario, cpu)
    })
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Owner(ReportedU64);

/// A control: a switch of a kernel with an owner pointer for each CPU, in a line of its own, and no stamps. Before it
/// loads a task it looks through all of them, so that no other CPU goes on claiming the task.
#[must_use]
pub fn owners_looked_through(cpus: usize) -> Cost {
    bus::reset();
    let owners: Vec<Owner> = (0..cpus).map(|_| Owner::default()).collect();
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let mut random = Random::new(1);
    let mut running = vec![0; cpus];
    let mut switch = |cpu: usize| {
        bus::become_cpu(cpu as u16);
        running[cpu] ^= 1;
        let next = (cpu * 2 + running[cpu] + 1) as u64;
        for owner in &owners {
            if owner.0.load(relaxed) == next {
                owner.0.store(0, relaxed);
            }
        }
        owners[cpu].0.store(next, relaxed);
    };
    (0..cpus).for_each(&mut switch);
    let before = bus::moved();
    let operations = cpus * ROUNDS;
    (0..operations).for_each(|_| switch(random.below(cpus)));
    let moved = bus::moved() - before;
    Cost { operations: operations as u64, moved, visits: 0, wrong: None }
}
