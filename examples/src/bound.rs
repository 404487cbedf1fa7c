//! The third kernel: its task is bound to its CPU, so leaving takes no call, and the save is deferred until other code
//! needs the registers. Here no other code does.

use std::{ptr::null, sync::atomic::Ordering};

use fpu_core::{
    observe::Counters, BoundCpu, BoundFpu, BoundSlot, CpuFpu, HeapArea, TaskFpu, TheBackend,
};
use fpu_hosted_test::real::sane_registers;
use fpu_x86::Plan;

use crate::{
    quiet::{quiet_cycles, quiet_put, quiet_seed, quiet_stamp, Worker},
    run::Outcome,
    scenarios::{Scenario, TASKS},
    script::{Builder, Kind, Op},
    stats::{is_return, Counts},
    trip::user_trip,
    world::{Slot, DONE, RESTORED, SKIPPED},
};

/// One task and idle, on the first CPU: as many returns as "task, idle, task" has.
#[must_use]
pub fn scenario() -> Scenario {
    let mut b = Builder::new(TASKS);
    for _ in 0..20_000 {
        b.switch_to(0, 0).user(0).idle(0);
    }
    Scenario {
        name: "bound task, idle, task",
        id: "bound-task-idle-task",
        about: "a task that cannot move waits: it is neither saved nor loaded again",
        script: b.finish(),
        least_skipped: 19_000,
        least_migrations: 0,
        least_of: (Kind::Idle, 20_000),
    }
}

/// Checks that the task was loaded once and never saved, by the log and by the library's counters.
///
/// # Errors
///
/// The counts.
pub fn verify(scenario: &Scenario, outcome: &Outcome) -> Result<(), String> {
    let (counts, seen) = (outcome.counts, outcome.observed);
    let returns = scenario.script.count(is_return);
    let due = Counts { returns, saves: 0, restores: 1, skipped: returns - 1 };
    if counts != due {
        return Err(format!("bound: {due:?} were due, not {counts:?}"));
    }
    if (seen.saved, seen.restored) != (due.saves, due.restores) {
        return Err(format!("bound: the library counted {seen:?}, the log says {counts:?}"));
    }
    Ok(())
}

type Slots = BoundCpu<Plan, HeapArea, [BoundSlot<Plan, HeapArea>; 1]>;

/// A CPU with one bound context.
struct Core<'w> {
    plan: &'w Plan,
    words: &'w CpuFpu,
    counters: &'w Counters,
    slots: Slots,
}

impl Core<'_> {
    #[inline(always)]
    fn bound(&self) -> &BoundCpu<Plan, HeapArea> {
        &self.slots
    }
}

/// Proof of running there: one pointer, which compiled code moves without a vector register.
struct OnCore<'c>(&'c Core<'c>);

fpu_core::witness! {
    // SAFETY: K2-K4, K6, K8, K9: as for `ThisCpu`, whose words and plan these are. No `ThisCpu` of these words makes a call
    // while the context is bound. K5: one CPU runs the task.
    unsafe impl Pinned + Exclusive + SoftFloat for OnCore<'_> {
        backend: Plan = |cpu| {
            // SAFETY: K1: the demo has one plan.
            unsafe { TheBackend::from_ref(cpu.0.plan) }
        },
        words: CpuFpu = |cpu| cpu.0.words,
        bound: |cpu| cpu.0.bound(),
        observe: |cpu, event| cpu.0.counters.record(event.kind),
    }
}

impl Worker<'_> {
    /// Executes this CPU's operations, with the task in a bound context, which ends with them.
    ///
    /// # Errors
    ///
    /// The context could not be made or bound.
    pub fn run_bound(&mut self) -> Result<(), String> {
        let (plan, words, counters) = (self.cpu.plan, self.cpu.words, self.cpu.counters);
        let core = Core { plan, words, counters, slots: Slots::new(self.number.into()) };
        // SAFETY: K1: the demo has one plan.
        let backend = unsafe { TheBackend::from_ref(plan) };
        let area = HeapArea::for_backend(backend).map_err(|why| why.to_string())?;
        let task = TaskFpu::new(backend, area).map_err(|refused| refused.to_string())?;
        let mut cpu = OnCore(&core);
        let bound = core.bound().bind(task, &mut cpu);
        let bound = bound.map_err(|refused| refused.why.to_string())?;
        self.quiet_bound(&bound, &mut cpu);
        // SAFETY: C31: the detected classes. The task has been checked, and ends here.
        unsafe { sane_registers(self.world.setup.classes) };
        Ok(())
    }

    #[inline(never)]
    fn quiet_bound(&mut self, bound: &BoundFpu<'_, Plan, HeapArea>, cpu: &mut OnCore<'_>) {
        let world = self.world;
        for (at, op) in world.ops.iter().enumerate() {
            if op.cpu != self.number {
                continue;
            }
            let record = &world.records[at];
            match (op.kind, world.slots.get(op.task as usize)) {
                (Kind::User, Some(slot)) => {
                    if !self.quiet_bound_user(at, op, slot, bound, cpu) {
                        self.failed_at = Some(at);
                        return;
                    }
                    continue;
                }
                (Kind::Out, Some(_)) => {
                    // The task leaves: stamps as in the other kernels, and nothing to do between them.
                    let from = quiet_stamp();
                    record.cycles.store(quiet_cycles(from, quiet_stamp()), Ordering::Relaxed);
                }
                _ => std::hint::spin_loop(),
            }
            record.flags.store(DONE, Ordering::Relaxed);
        }
    }

    /// To user mode and back; true if every register was as expected.
    #[inline(never)]
    fn quiet_bound_user(
        &mut self,
        at: usize,
        op: &Op,
        slot: &Slot,
        bound: &BoundFpu<'_, Plan, HeapArea>,
        cpu: &mut OnCore<'_>,
    ) -> bool {
        let world = self.world;
        let record = &world.records[at];
        // SAFETY: only this CPU's operations use the slot.
        let (expected, next) = unsafe { (&*slot.expected(), &mut *slot.next()) };
        next.quiet_set_pattern(quiet_seed(world, op.task, slot));
        let (trip, steps) = (&mut self.trip, &mut self.steps);
        // The restore is the library's here: the assembly only looks and changes.
        quiet_put(&mut steps.restore_from, null());
        quiet_put(&mut steps.word, slot.unused_word.as_ptr());
        quiet_put(&mut trip.steps, std::ptr::from_ref(steps));
        quiet_put(&mut trip.seen, slot.seen());
        quiet_put(&mut trip.next, next);
        quiet_put(&mut trip.save_on_entry, 0);
        let found = bound.registers_valid(cpu);
        let from = quiet_stamp();
        if let Err(why) = bound.switch_in(cpu) {
            self.refused = Some(why);
            return false;
        }
        // SAFETY: C27: steps that do nothing, files of the slot. C28: this function is scalar.
        unsafe { user_trip(trip) };
        record.cycles.store(quiet_cycles(from, trip.at_user), Ordering::Relaxed);
        let flags = if found { DONE | SKIPPED } else { DONE | RESTORED };
        record.flags.store(flags, Ordering::Relaxed);
        // SAFETY: only this CPU's operations use the slot.
        self.register = expected.quiet_first_difference(unsafe { &*slot.seen() });
        if self.register != u32::MAX {
            return false;
        }
        slot.trips.store(slot.trips.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        slot.parity.store(slot.parity.load(Ordering::Relaxed) ^ 1, Ordering::Relaxed);
        true
    }
}
