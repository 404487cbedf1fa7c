//! Restores that fail, and the steps and raw forms, whose steps assembly executes.

use fpu_core_loom::{
    raw, Error, KernelUnits, PendingGuest, PendingSection, RawFpu, RestoreFault, SwitchSteps,
};
use std::{ptr::NonNull, rc::Rc, sync::Arc};

use super::{
    cover,
    fault::{forgets, Embedder},
    ghost::KERNEL_DATA,
    must, told, Cpu, Model, Proof, Slot, Task,
};

/// After a failed restore the registers are unowned: they belong neither to the task whose image failed nor to the
/// task that they held before. Both can run again (I4).
pub const FAILED: Model = Model::new("failed_restore", "I4")
    .explores(2200)
    .comes_to(&["restore failed", "another task after the failure", "migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        let [first, second] = &machine.slots[..] else { return };
        if cpu.number == 1 {
            return cpu.turns([second, first, second, first]);
        }
        let Some(victim) = second.take() else { return };
        fails(cpu, &victim);
        cpu.run(&victim); // retried at once
        cpu.leave(&victim);
        if let Some(other) = first.take() {
            cpu.run_once(&other);
            fails(cpu, &victim);
            cover("another task after the failure");
            cpu.run(&other); // still in state 2a by its own word
            cpu.hand_over(other, first);
        }
        cpu.run(&victim);
        cpu.hand_over(victim, second);
        cpu.turn(first);
    });

fn fails(cpu: &Cpu, task: &Arc<Task>) {
    cpu.registers.fail_next();
    match cpu.enter(task) {
        Err(Error::RestoreFailed(RestoreFault(14))) => cover("restore failed"),
        other => must(other, "return whose restore fails"),
    }
    cpu.set_current(None);
}

/// The same claims as for the two calls hold when assembly executes the steps (I1, I3, I4).
pub const USER_STEPS: Model = Model::new("steps_form", "I1 I3 I4")
    .explores(850)
    .comes_to(&["steps without restore", "migrated", "restore of the steps failed"])
    .on_cpus(2, 1, |cpu, machine| {
        let slot = &machine.slots[0];
        if cpu.number == 1 {
            for _ in 0..3 {
                turn_by_steps(cpu, slot);
            }
            return;
        }
        let Some(task) = slot.take() else { return };
        cpu.registers.fail_next();
        user_by_steps(cpu, &task);
        user_by_steps(cpu, &task);
        out_by_steps(cpu, &task);
        user_by_steps(cpu, &task);
        out_by_steps(cpu, &task);
        slot.put(task);
        turn_by_steps(cpu, slot);
        turn_by_steps(cpu, slot);
    });

fn turn_by_steps(cpu: &Rc<Cpu>, slot: &Slot) {
    let Some(task) = slot.take() else { return };
    user_by_steps(cpu, &task);
    out_by_steps(cpu, &task);
    slot.put(task);
}

fn user_by_steps(cpu: &Rc<Cpu>, task: &Task) {
    let mut token = cpu.irq_off();
    let pending = must(task.fpu.begin_user(&mut token), "steps");
    if forgets(Embedder::VectorCodeAfterSteps) {
        cpu.registers.fill(KERNEL_DATA);
    }
    match NonNull::new(pending.steps().restore_from.cast_mut()) {
        None => cover("steps without restore"),
        Some(_) if forgets(Embedder::CommitsWithoutRestore) => {}
        Some(area) => {
            // SAFETY: C9: the task's area, which the steps name. C10: this thread is the CPU.
            if let Err(why) = unsafe { cpu.registers.restore(area) } {
                cover("restore of the steps failed");
                if !forgets(Embedder::CommitsAfterFailure) {
                    assert_eq!(pending.failed(why), Error::RestoreFailed(why));
                    return;
                }
            }
        }
    }
    // SAFETY: C12, C13: done just now; the seeded faults break them.
    let ready = unsafe { pending.restored() };
    cpu.user(task);
    drop(ready);
}

pub(super) fn out_by_steps(cpu: &Rc<Cpu>, task: &Task) {
    let mut token = cpu.irq_off();
    if forgets(Embedder::SavesLate) {
        cpu.registers.fill(KERNEL_DATA);
    }
    if let Some(pending) = must(task.fpu.begin_switch_out(&mut token), "steps to leave") {
        // SAFETY: C9: the task's area. C10: this thread is the CPU.
        unsafe { cpu.registers.save(task_area(pending.steps().save_to)) };
        // SAFETY: C15: saved just now.
        unsafe { pending.saved() };
    }
}

fn task_area(area: *mut u8) -> NonNull<u8> {
    NonNull::new(area).unwrap_or_else(|| panic!("steps without area"))
}

/// The claims hold when assembly executes the steps of a switch from one task to another (I1, I3, I11).
pub const STEPS: Model = Model::new("switch_steps", "I1 I3 I11")
    .explores(80)
    .comes_to(&["a switch to itself", "migrated"])
    .on_cpus(2, 2, |cpu, machine| {
        let [mut first, mut second] = [0, 1].map(|slot| &machine.slots[slot]);
        if cpu.number == 1 {
            std::mem::swap(&mut first, &mut second);
        }
        let Some(task) = first.take() else { return };
        by_steps(cpu, None, Some(&task));
        cpu.user(&task);
        let Some(other) = second.take() else {
            by_steps(cpu, Some(&task), Some(&task));
            cover("a switch to itself");
            cpu.user(&task);
            by_steps(cpu, Some(&task), None);
            return first.put(task);
        };
        by_steps(cpu, Some(&task), Some(&other));
        cpu.user(&other);
        by_steps(cpu, Some(&other), None);
        // It is not what the registers hold.
        cpu.run(&task);
        cpu.hand_over(task, second);
        first.put(other);
    });

fn by_steps(cpu: &Rc<Cpu>, prev: Option<&Arc<Task>>, next: Option<&Arc<Task>>) {
    let mut token = cpu.irq_off();
    let steps = must(SwitchSteps::begin(&mut token, told(prev), told(next)), "steps of a switch");
    if forgets(Embedder::SwitchSavesLate) {
        cpu.registers.fill(KERNEL_DATA);
    }
    if let (Some(area), Some(prev)) = (NonNull::new(steps.save_to), prev) {
        if !forgets(Embedder::SwitchForgetsSave) {
            // SAFETY: C9: the area of a task that is alive (C39). C10: this thread is the CPU.
            unsafe { cpu.registers.save(area) };
        }
        if !forgets(Embedder::SwitchForgetsCommit) {
            // SAFETY: C16: the task runs here. C17: saved just now. (The word has more in it than the steps ask for.)
            unsafe { raw::saved(word_of(prev)) };
        }
    }
    if let (Some(area), Some(next)) = (NonNull::new(steps.restore_from.cast_mut()), next) {
        if !forgets(Embedder::SwitchForgetsRestore) {
            // SAFETY: C9: the area of the task that is next, which is alive (C39). C10: this thread is the CPU.
            assert_eq!(unsafe { cpu.registers.restore(area) }, Ok(()));
        }
        // SAFETY: C16: the task is taken. C17: restored just now.
        unsafe { raw::restored(word_of(next), &cpu.words().0) };
    }
    must(steps.done(&token, Ok(())), "a switch");
}

/// Sections and guests by their steps take the registers, and leave them unowned (I1, I5, I11).
pub const SECTION_STEPS: Model = Model::new("section_and_guest_steps", "I1 I5 I11")
    .explores(12)
    .comes_to(&["migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        let guest = Arc::new(Task::new(8));
        let Some(task) = machine.slots[0].take() else { return };
        cpu.run(&task);
        section_by_steps(cpu, Some(&task));
        cpu.run(&task);
        for _ in 0..2 {
            guest_by_steps(cpu, &guest, Some(&task));
        }
        cpu.run(&task);
        // The task is in state 2a, and is not current any more.
        cpu.leave(&task);
        section_by_steps(cpu, None);
        cpu.run_once(&task);
        guest_by_steps(cpu, &guest, None);
        cpu.run(&task);
        cpu.hand_over(task, &machine.slots[0]);
    });

fn section_by_steps(cpu: &Rc<Cpu>, current: Option<&Arc<Task>>) {
    let mut pin = cpu.pinned();
    let pending =
        must(PendingSection::begin(&mut pin, told(current), KernelUnits::ALL), "section's steps");
    match pending.steps() {
        Some(steps) if !forgets(Embedder::SectionForgetsSave) => {
            // SAFETY: C9: the task's area. C10: this thread is the CPU.
            unsafe { cpu.registers.save(task_area(steps.save_to)) };
        }
        _ => {}
    }
    // SAFETY: C42: saved just now; the seeded fault breaks it.
    let section = unsafe { pending.saved() };
    cpu.computes();
    drop(section);
}

fn guest_by_steps(cpu: &Rc<Cpu>, guest: &Arc<Task>, host: Option<&Arc<Task>>) {
    let mut pin = cpu.pinned();
    let pending =
        must(PendingGuest::begin(&mut pin, guest.fpu.context(), told(host)), "guest's steps");
    let steps = *pending.steps();
    if let (Some(area), Some(host)) = (NonNull::new(steps.host_save_to), host) {
        if !forgets(Embedder::GuestForgetsHost) {
            // SAFETY: C9: the host's area. C10: this thread is the CPU.
            unsafe { cpu.registers.save(area) };
        }
        // SAFETY: C16: the task runs here. C17: saved just now.
        unsafe { raw::saved(word_of(host)) };
    }
    // SAFETY: C9: the guest's area. C10: this thread is the CPU. The guest's word stays: no other thread has this guest.
    assert_eq!(unsafe { cpu.registers.restore(task_area(steps.area)) }, Ok(()));
    cpu.user(guest);
    if !forgets(Embedder::GuestForgetsSave) {
        // SAFETY: C9: the guest's area. C10: a save changes no register.
        unsafe { cpu.registers.save(task_area(steps.area)) };
    }
    // SAFETY: C43: done just now; the seeded faults break it.
    unsafe { pending.done() };
}

/// The same claims hold when assembly works on the two words itself (I1, I2).
pub const RAW: Model = Model::new("raw_layer", "I1 I2")
    .explores(1000)
    .comes_to(&["marked", "migrated"])
    .on_cpus(2, 1, |cpu, machine| {
        for _ in 0..3 {
            let Some(task) = machine.slots[0].take() else { continue };
            let (word, words) = (word_of(&task), &cpu.words().0);
            let area = area_of(cpu, &task);
            for _ in 0..2 {
                // SAFETY: C16: the task is taken and this thread is the CPU. C17, C18: obeyed below.
                match unsafe { raw::switch_return(word, words) } {
                    raw::MARKED => cover("marked"),
                    raw::RESTORE => {
                        // SAFETY: C9: the task's own area. C10: this thread is the CPU.
                        let restored = unsafe { cpu.registers.restore(area) };
                        assert_eq!(restored, Ok(()));
                        // SAFETY: C17: restored just now.
                        unsafe { raw::restored(word, words) };
                    }
                    code => assert_eq!(code, raw::NOTHING, "refused"),
                }
                cpu.user(&task);
                // SAFETY: as for the return.
                match unsafe { raw::switch_out(word, words) } {
                    raw::SAVE => {
                        // SAFETY: as for the restore.
                        unsafe { cpu.registers.save(area) };
                        if !forgets(Embedder::RawForgetsCommit) {
                            // SAFETY: C17: saved just now.
                            unsafe { raw::saved(word) };
                        }
                    }
                    code => panic!("unsaved state lost: switch_out says {code}"),
                }
            }
            machine.slots[0].put(task);
        }
    });

/// Switches a live task out as assembly does.
pub(super) fn out_by_raw(cpu: &Rc<Cpu>, task: &Task) {
    let (word, words) = (word_of(task), &cpu.words().0);
    let mut token = cpu.irq_off();
    let pending = must(task.fpu.begin_switch_out(&mut token), "steps to leave");
    let Some(area) = pending.map(|pending| task_area(pending.steps().save_to)) else {
        panic!("the task is not live")
    };
    // SAFETY: C16: the task runs here and this thread is the CPU. C17, C18: obeyed below.
    assert_eq!(unsafe { raw::switch_out(word, words) }, raw::SAVE);
    // SAFETY: C9: the task's own area. C10: this thread is the CPU.
    unsafe { cpu.registers.save(area) };
    // SAFETY: C17: saved just now.
    unsafe { raw::saved(word) };
}

/// A context begins with its word.
fn word_of(task: &Task) -> *const raw::TaskWord {
    std::ptr::addr_of!(task.fpu).cast()
}
/// Where the task's image is. The task must be in memory.
fn area_of(cpu: &Cpu, task: &Task) -> NonNull<u8> {
    let mut proof = Proof(cpu, task);
    match task.fpu.stopped(&mut proof) {
        Ok(stopped) => NonNull::from(stopped.image()).cast(),
        Err(why) => panic!("unsaved state elsewhere: {why:?}"),
    }
}
