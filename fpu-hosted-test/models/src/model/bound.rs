//! Contexts that are bound to a CPU, and move on to another when they are unbound.

use fpu_core_loom::{BoundCpu, BoundFpu, BoundSlot, Error};
use std::{
    mem::replace,
    rc::Rc,
    sync::{Arc, Mutex},
};

use super::{
    backend::{Image, Registers},
    cover,
    cpu::IrqOff,
    machine::Words,
    must,
    scenario::{beside, joined},
    wrong::{reported, OR_SAVED},
    Cpu, Machine, Model, Slot, Task,
};

type Contexts = BoundCpu<Registers, Image>;
type Bound<'b> = BoundFpu<'b, Registers, Image>;

/// Interrupts are off, on a CPU that owns contexts.
struct Owner<'c>(IrqOff<'c>, &'c Contexts);

fpu_core_loom::witness! {
    // SAFETY: K2-K6, K8, K9: those of `IrqOff`. K21: the contexts that the CPU made itself.
    unsafe impl Pinned + Exclusive + SoftFloat for Owner<'_> {
        backend: Registers = |cpu| cpu.0.backend(),
        words: Words = |cpu| cpu.0.words(),
        bound: |cpu| cpu.1,
        observe: |cpu, event| cpu.0.observe(event),
    }
}

/// A task is bound to a CPU, leaves without a call, and is saved by another's load or by being unbound. It goes on with what
/// it left where it goes through the run queue, bound there or not (I1, I15, no lost write).
pub const MOVES: Model = Model::new("unbound_task_moves", "I1 I15, no lost write")
    .explores(400)
    .comes_to(&["returned without a call", "saved for another", "migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        let [first, second] = &machine.slots[..] else { return };
        let contexts = BoundCpu::<_, _, [BoundSlot<_, _>; 1]>::new(cpu.number);
        if cpu.number == 0 {
            turn_bound(cpu, &contexts, first, Some(second));
            turn(cpu, &contexts, first);
            return;
        }
        turn(cpu, &contexts, second);
        turn_bound(cpu, &contexts, first, None);
    });

/// A turn of the slot's task, which is bound meanwhile. If there is one in `other`, it runs in between.
fn turn_bound(cpu: &Cpu, contexts: &Contexts, slot: &Slot, other: Option<&Slot>) {
    let Some(mut task) = slot.take() else { return };
    let Some(held) = Arc::get_mut(&mut task) else { panic!("the task is not held exclusively") };
    let bound = binds(cpu, contexts, held);
    runs(cpu, contexts, &bound, held);
    let saved = cpu.counters.totals().saved;
    runs(cpu, contexts, &bound, held);
    assert_eq!(cpu.counters.totals().saved, saved, "saved, and nothing has needed the registers");
    cover("returned without a call");
    if other.is_some_and(|other| turn(cpu, contexts, other)) {
        cover("saved for another");
        runs(cpu, contexts, &bound, held);
    }
    held.fpu =
        must(bound.unbind(&mut owner(cpu, contexts)).map_err(|refused| refused.why), "unbind");
    slot.put(task);
}

/// A turn of the slot's task, as any other kernel does it.
fn turn(cpu: &Cpu, contexts: &Contexts, slot: &Slot) -> bool {
    let Some(task) = slot.take() else { return false };
    must(task.fpu.switch_return(&mut owner(cpu, contexts)).map(drop), "return to user mode");
    cpu.user(&task);
    must(task.fpu.switch_prepare(&owner(cpu, contexts)), "switch out");
    slot.put(task);
    true
}

fn owner<'c>(cpu: &'c Cpu, contexts: &'c Contexts) -> Owner<'c> {
    Owner(cpu.irq_off(), contexts)
}

/// Takes the task's context and leaves a new one in its place.
fn binds<'b>(cpu: &Cpu, contexts: &'b Contexts, task: &mut Task) -> Bound<'b> {
    let context = replace(&mut task.fpu, Task::new(9).fpu);
    let bound = contexts.bind(context, &mut owner(cpu, contexts));
    must(bound.map_err(|refused| refused.why), "bind")
}

fn runs(cpu: &Cpu, contexts: &Contexts, bound: &Bound<'_>, task: &Task) {
    must(bound.switch_return(&mut owner(cpu, contexts)).map(drop), "return to user mode");
    cpu.user(task);
}

/// A kernel hands a task over that it has just unbound, without any order between the CPUs: the core reports that, or
/// restores exactly what was saved (I1, I15; the orderings of the task's word).
pub const UNORDERED: Model = Model::new("wrong_kernel_hands_over_unbound", "I1 I15")
    .explores(3)
    .comes_to(OR_SAVED)
    .plays(|| {
        let machine = Machine::new(2, 0);
        let cpu = Cpu::online(&machine, 0);
        let contexts = BoundCpu::<_, _, [BoundSlot<_, _>; 1]>::new(0);
        let mut task = Task::new(1);
        let bound = binds(&cpu, &contexts, &mut task);
        // Memory has an old image.
        runs(&cpu, &contexts, &bound, &task);
        must((&contexts as &Contexts).settle(&mut owner(&cpu, &contexts)), "settle");
        runs(&cpu, &contexts, &bound, &task);
        // Loom knows no order by a lock of `std`.
        let handed = Arc::new(Mutex::new(None));
        let there = Arc::clone(&handed);
        let elsewhere = beside(&machine, 1, move |cpu, _| takes(cpu, &there));
        let unbound = bound.unbind(&mut owner(&cpu, &contexts));
        task.fpu = must(unbound.map_err(|refused| refused.why), "unbind");
        put(&handed, task);
        joined(elsewhere);
    });

fn put(handed: &Mutex<Option<Task>>, task: Task) {
    if let Ok(mut place) = handed.lock() {
        *place = Some(task);
    }
}

fn takes(cpu: &Rc<Cpu>, handed: &Mutex<Option<Task>>) {
    let Some(task) = handed.lock().ok().and_then(|mut place| place.take()) else { return };
    let contexts = BoundCpu::<_, _, [BoundSlot<_, _>; 1]>::new(cpu.number);
    let entered = task.fpu.switch_return(&mut owner(cpu, &contexts)).map(drop);
    match entered {
        Ok(()) => {
            cpu.user(&task);
            cover("had just been saved");
        }
        refused @ Err(Error::LiveElsewhere { .. }) => reported(refused, "switch-in"),
        Err(why) => panic!("not reported: {why:?}"),
    }
}
