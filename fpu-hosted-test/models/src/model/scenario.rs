//! One claim about the protocol, and the scenario that would refute the claim.

use loom::thread::{self, JoinHandle};
use std::{rc::Rc, sync::Arc};

use super::{
    cpu::Cpu,
    machine::{Machine, Task},
};

/// What each CPU of a machine does.
pub type Code = fn(&Rc<Cpu>, &Machine);
/// What one CPU does with a task.
pub type Side = fn(&Rc<Cpu>, &Arc<Task>);

/// One claim about the protocol, and the scenario that would refute the claim.
#[derive(Debug)]
pub struct Model {
    /// Its name in the table of faults.
    pub name: &'static str,
    /// The invariants that it guards.
    pub guards: &'static str,
    /// The bound on preemptions, if every interleaving would take too long.
    pub bound: Option<usize>,
    /// Whether it runs once for each step at which an interrupt can come.
    pub interrupts: bool,
    /// How many executions it must explore at least.
    pub floor: u64,
    /// The cases that at least one execution must have reached, the interesting one first.
    pub covers: &'static [&'static str],
    scenario: Scenario,
}

#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// All CPUs run the same code at once.
    OnCpus { cpus: u32, tasks: u64, code: Code },
    /// A task is live on CPU 0, with an old image in memory. CPU 1 did not take that task.
    LiveOnCpu0 { here: Side, other: Side },
    /// The code makes its own machine.
    Plays(fn()),
}

impl Model {
    /// A claim without interrupts, of which loom tries every interleaving.
    pub(super) const fn new(name: &'static str, guards: &'static str) -> Self {
        let scenario = Scenario::Plays(|| ());
        Self { name, guards, bound: None, interrupts: false, floor: 1, covers: &[], scenario }
    }
    /// It must explore so many executions.
    pub(super) const fn explores(self, floor: u64) -> Self {
        Self { floor, ..self }
    }
    /// At least one execution must come to each of these cases.
    pub(super) const fn comes_to(self, covers: &'static [&'static str]) -> Self {
        Self { covers, ..self }
    }
    /// Loom tries the interleavings with at most so many preemptions, because all would take too long.
    pub(super) const fn bounded(self, preemptions: usize) -> Self {
        Self { bound: Some(preemptions), ..self }
    }
    /// It runs once for each step at which an interrupt can come.
    pub(super) const fn interrupted(self) -> Self {
        Self { interrupts: true, ..self }
    }
    /// Its scenario: so many CPUs run this code at once, and so many tasks wait.
    pub(super) const fn on_cpus(self, cpus: u32, tasks: u64, code: Code) -> Self {
        Self { scenario: Scenario::OnCpus { cpus, tasks, code }, ..self }
    }
    /// Its scenario: a task is live on CPU 0, with an old image in memory. CPU 1 uses that task without taking it.
    pub(super) const fn live_on_cpu_0(self, here: Side, other: Side) -> Self {
        Self { scenario: Scenario::LiveOnCpu0 { here, other }, ..self }
    }
    /// Its scenario, with a machine of its own.
    pub(super) const fn plays(self, code: fn()) -> Self {
        Self { scenario: Scenario::Plays(code), ..self }
    }

    /// One execution of the scenario, as a function that loom can call again and again.
    pub(super) fn body(&self) -> impl Fn() + Send + Sync + 'static {
        let scenario = self.scenario;
        move || match scenario {
            Scenario::OnCpus { cpus, tasks, code } => {
                on_cpus(&Machine::new(cpus, tasks), cpus, code);
            }
            Scenario::LiveOnCpu0 { here, other } => live_on_cpu_0(here, other),
            Scenario::Plays(code) => code(),
        }
    }
}

/// Runs this code on so many CPUs at once. The loom thread that calls is the first.
pub(super) fn on_cpus(machine: &Arc<Machine>, cpus: u32, code: Code) {
    let others: Vec<_> = (1..cpus).map(|number| beside(machine, number, code)).collect();
    code(&Cpu::online(machine, 0), machine);
    others.into_iter().for_each(joined);
}

fn live_on_cpu_0(here: Side, other: Side) {
    let machine = Machine::with_shared_tasks(2, 1);
    let (cpu, task) = (Cpu::online(&machine, 0), &machine.tasks[0]);
    cpu.run_once(task);
    cpu.run(task);
    let elsewhere = beside(&machine, 1, move |cpu, machine| other(cpu, &machine.tasks[0]));
    here(&cpu, task);
    joined(elsewhere);
}

/// Runs this code on another CPU, at the same time.
pub(super) fn beside(
    machine: &Arc<Machine>,
    number: u32,
    code: impl FnOnce(&Rc<Cpu>, &Machine) + 'static,
) -> JoinHandle<()> {
    let machine = Arc::clone(machine);
    thread::spawn(move || code(&Cpu::online(&machine, number), &machine))
}

/// Waits for that CPU's code to end.
pub(super) fn joined(other: JoinHandle<()>) {
    if other.join().is_err() {
        panic!("a CPU panicked");
    }
}
