//! Runs one script on two pinned threads, and checks the outcome.

use std::{io, sync::atomic::Ordering};

use fpu_core::{
    observe::{Counters, Totals},
    CpuFpu, CpuLifecycle, Error, RawFpu, UserSteps,
};
use fpu_hosted_test::real::{sane_registers, RegFile, RegisterName};

use crate::{
    faults::Fault,
    quiet::{quiet_cycles, quiet_stamp, Worker},
    scenarios::Scenario,
    script::{Kind, Op, NO_TASK},
    stats::{read, Counts, Samples},
    trip::{Instructions, Trip},
    world::{Setup, ThisCpu, World, HOST_RESTORED, HOST_SAVED, RESTORED, SAVED, SKIPPED},
};

/// A CPU's own data, in cache lines of its own as in any kernel: the words are written at every restore.
#[derive(Debug, Default)]
#[repr(align(128))]
struct PerCpu(CpuFpu);

/// The demo's CPUs: their words live through all scenarios, as a kernel's do.
#[derive(Debug, Default)]
pub struct Machine {
    words: [PerCpu; 2],
    /// The system's numbers of the cores on which the workers are pinned.
    pub cores: [usize; 2],
}

impl Machine {
    /// On the first two cores that this process may use, or twice on the only one.
    ///
    /// # Errors
    ///
    /// The system does not tell which.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an all-zero set is a valid empty one.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: a set of the size that is passed.
        if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let number = 0..libc::CPU_SETSIZE as usize;
        // SAFETY: numbers below CPU_SETSIZE.
        let mut usable = number.filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) });
        let first = usable.next().ok_or(io::ErrorKind::NotFound)?;
        let second = usable.next().unwrap_or(first);
        Ok(Self { words: Default::default(), cores: [first, second] })
    }
    /// Tells whether both workers share a core.
    #[must_use]
    pub fn shared(&self) -> bool {
        self.cores[0] == self.cores[1]
    }
}

fn pin(core: usize) -> io::Result<()> {
    // SAFETY: an all-zero set is a valid empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number came out of such a set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: a set of the size that is passed; 0 is this thread.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The kernel that runs the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// The one under test, with a seeded fault or none.
    Deferred(Option<Fault>),
    /// The one under test, with its task bound to the CPU.
    Bound,
    /// The one to compare with.
    Eager,
}

/// A register that was not what it had to be.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The task's number.
    pub task: u8,
    /// The number of tasks that had its memory before.
    pub generation: u32,
    /// The CPU.
    pub cpu: u8,
    /// The index of the operation in the script.
    pub step: usize,
    /// The register, what it had to hold, and what it held; `None` if the library refused first.
    pub register: Option<(RegisterName, u64, u64)>,
    /// The library's refusal.
    pub refused: Option<Error>,
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Counts off the log.
    pub counts: Counts,
    /// Cycles off the log.
    pub samples: Samples,
    /// The flags of every operation, for the timeline.
    pub flags: Vec<u32>,
    /// The library's own counters, summed over the CPUs.
    pub observed: Totals,
    /// The first mismatch.
    pub mismatch: Option<Mismatch>,
}

/// Runs a script.
///
/// # Errors
///
/// A thread could not be pinned, or a CPU not be brought online.
pub fn run(
    machine: &Machine,
    setup: &Setup,
    scenario: &Scenario,
    kernel: Kernel,
) -> Result<Outcome, String> {
    let instructions = Instructions::of(setup.plan.save_instruction())
        .ok_or("no assembly for this rung in user mode")?;
    let world = World::new(setup, &scenario.script.ops, instructions);
    let ready = std::sync::Barrier::new(2);
    let mut done = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2u8)
            .map(|number| {
                let (world, ready) = (&world, &ready);
                scope.spawn(move || work(machine, world, number, kernel, ready))
            })
            .collect();
        for worker in workers {
            done.push(worker.join().unwrap_or_else(|_| Err("a worker panicked".into())));
        }
    });
    let mut observed = Totals::default();
    let mut mismatch: Option<Mismatch> = None;
    for result in done {
        let (totals, failure) = result?;
        observed.saved += totals.saved;
        observed.restored += totals.restored;
        observed.skipped += totals.skipped;
        let found = failure.map(|failure| explain(&world, scenario.name, &failure));
        if let Some(found) = found {
            if mismatch.as_ref().is_none_or(|before| found.step < before.step) {
                mismatch = Some(found);
            }
        }
    }
    let (counts, samples) = read(world.ops, &world.records, kernel == Kernel::Eager);
    let flags = world.records.iter().map(|r| r.flags.load(Ordering::Relaxed)).collect();
    Ok(Outcome { counts, samples, flags, observed, mismatch })
}

struct Failure {
    cpu: u8,
    step: usize,
    register: u32,
    refused: Option<Error>,
}

type Done = Result<(Totals, Option<Failure>), String>;

/// One CPU: pinned, online, its registers given up before and after the script.
fn work(
    machine: &Machine,
    world: &World<'_>,
    number: u8,
    kernel: Kernel,
    ready: &std::sync::Barrier,
) -> Done {
    let counters = Counters::new();
    let words = &machine.words[usize::from(number)].0;
    let mut cpu = ThisCpu { plan: &world.setup.plan, words, counters: &counters };
    let prepared = pin(machine.cores[usize::from(number)]).map_err(|why| why.to_string());
    // SAFETY: K15: each word has one number. K16: the words stay in the machine.
    let online = match unsafe { cpu.fpu_online(number.into()) } {
        Ok(()) | Err(Error::CpuOnline) => Ok(()),
        Err(why) => Err(why.to_string()),
    };
    // Compiled code has used them since the last script.
    let given_up = cpu.invalidate_registers().map_err(|why| why.to_string());
    let scratch = RegFile::initial(world.setup.classes);
    let fault = match kernel {
        Kernel::Deferred(fault) => fault,
        Kernel::Bound | Kernel::Eager => None,
    };
    let before = counters.totals();
    let (failed_at, register, refused) = (None, u32::MAX, None);
    let steps = UserSteps {
        restore_from: std::ptr::null(),
        save_to: std::ptr::null_mut(),
        mask: world.setup.plan.plan_word(),
        word: std::ptr::null_mut(),
        live: 0,
        saved: 0,
    };
    let trip = Trip::new(world.instructions);
    let mut worker =
        Worker { world, number, cpu, scratch, trip, steps, fault, failed_at, register, refused };
    ready.wait();
    prepared.and(online).and(given_up)?;
    match kernel {
        Kernel::Deferred(None) => worker.quiet_deferred::<false>(),
        Kernel::Deferred(Some(_)) => worker.quiet_deferred::<true>(),
        Kernel::Bound => worker.run_bound()?,
        Kernel::Eager => worker.quiet_eager(),
    }
    // SAFETY: C31: the detected classes. Whoever is in them has been checked, or ends with the script.
    unsafe { sane_registers(world.setup.classes) };
    let after = counters.totals();
    let totals = Totals {
        saved: after.saved - before.saved,
        restored: after.restored - before.restored,
        skipped: after.skipped - before.skipped,
        ..Totals::default()
    };
    let Worker { failed_at, register, refused, .. } = worker;
    // Stopped by the other CPU's mismatch while it waited for a turn: not one of its own.
    let own = failed_at.filter(|_| register != u32::MAX || refused.is_some());
    Ok((totals, own.map(|step| Failure { cpu: number, step, register, refused })))
}

fn explain(world: &World<'_>, scenario: &'static str, failure: &Failure) -> Mismatch {
    let op: &Op = &world.ops[failure.step];
    let task = if op.kind == Kind::Guest { op.other } else { op.task };
    let slot = &world.slots[usize::from(task)];
    let register = RegFile::register_of(failure.register).map(|register| {
        // SAFETY: the workers have ended; the slot is as the mismatch left it.
        let (expected, seen) = unsafe { (&*slot.expected(), &*slot.seen()) };
        (register, register.value(expected), register.value(seen))
    });
    Mismatch {
        scenario,
        task,
        generation: slot.generation.load(Ordering::Relaxed),
        cpu: failure.cpu,
        step: failure.step,
        register,
        refused: failure.refused,
    }
}

/// Checks that the outcome agrees with the script's own model, operation by operation, and with the library's counters,
/// and that enough happened.
///
/// # Errors
///
/// The disagreement, or the event that did not happen often enough.
pub fn verify(scenario: &Scenario, outcome: &Outcome) -> Result<(), String> {
    for (step, (op, flags)) in scenario.script.ops.iter().zip(&outcome.flags).enumerate() {
        for (what, bit, due) in [
            ("restore", RESTORED, op.due.restore),
            ("skipped restore", SKIPPED, op.due.skip),
            ("save", SAVED, op.due.save),
            ("save of a guest's host", HOST_SAVED, op.due.host_save),
            ("restore of a guest's host", HOST_RESTORED, false),
        ] {
            if (flags & bit != 0) != due {
                let did = if due { "was due and did not happen" } else { "happened undue" };
                return Err(format!(
                    "step {step} ({:?} on CPU {}): a {what} {did}",
                    op.kind, op.cpu
                ));
            }
        }
    }
    let (counts, seen) = (outcome.counts, outcome.observed);
    if (counts.saves, counts.restores, counts.skipped) != (seen.saved, seen.restored, seen.skipped)
    {
        return Err(format!("the library counted {seen:?}, the log says {counts:?}"));
    }
    let (kind, least) = scenario.least_of;
    let of = scenario.script.count(|op| op.kind == kind);
    for (what, got, least) in [
        ("skipped restores", counts.skipped, scenario.least_skipped),
        ("migrations", scenario.script.migrations, scenario.least_migrations),
        ("operations it is about", of, least),
    ] {
        if got < least {
            return Err(format!("only {got} {what}, at least {least} make the scenario count"));
        }
    }
    Ok(())
}

/// Checks that the eager kernel saved and restored as often as such a kernel must, and no more: once per visit of a
/// task to a CPU, once per section and fork, and once per run of a guest for the guest and for its host. More would
/// make the comparison unfair.
///
/// # Errors
///
/// The counts.
pub fn verify_eager(scenario: &Scenario, outcome: &Outcome) -> Result<(), String> {
    let (mut saves, mut restores) = (0, 0);
    let mut unsaved = [false; crate::scenarios::TASKS];
    for op in &scenario.script.ops {
        if op.kind == Kind::Guest {
            let both = 1 + u64::from(op.task != NO_TASK && !op.switched_in);
            saves += both;
            restores += both;
        }
        let Some(unsaved) = unsaved.get_mut(usize::from(op.task)) else { continue };
        match op.kind {
            Kind::User | Kind::UserSave => {
                restores += u64::from(op.switched_in);
                *unsaved = op.kind == Kind::User;
                saves += u64::from(op.kind == Kind::UserSave);
            }
            Kind::Out => saves += u64::from(std::mem::take(unsaved)),
            Kind::Section => {
                saves += 1;
                restores += 1;
            }
            Kind::Fork => saves += 1,
            Kind::Exit => *unsaved = false,
            _ => {}
        }
    }
    let counts = outcome.counts;
    if (counts.saves, counts.restores, counts.skipped) != (saves, restores, 0) {
        return Err(format!(
            "eager: {saves} saves and {restores} restores were due, not {counts:?}"
        ));
    }
    Ok(())
}

/// Cycles that measuring nothing takes: the least of many.
#[must_use]
pub fn overhead() -> u32 {
    (0..1000).map(|_| quiet_cycles(quiet_stamp(), quiet_stamp())).min().unwrap_or(0)
}
