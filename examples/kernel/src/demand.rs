//! Tiles on demand: the handler of #NM, the permission, exec; and which tasks use tiles.

use fpu_x86::{Answer, FirstUse, Permissions, Room, Whose};

use x86_64::registers::model_specific::Msr;

use crate::{
    areas,
    counts::{self, count},
    cpu::{this_cpu, PerCpu},
    entry::Frame,
    faults::Fault,
    fpu::{self, IrqsOff},
    sched::{self, Next},
    seeded,
    task::{self, Kind, Task},
    tiles, to_user,
    user::{UserBlock, BLOCK_BYTES},
    verdict,
};

/// `arch_prctl`, with the number of AMX's tiles.
const GET_PERMISSION: u64 = 0x1022;
const REQUEST_PERMISSION: u64 = 0x1023;
const TILEDATA: u64 = 18;
const IA32_XFD: u32 = 0x1C4;

/// For the fault that asks nobody: it has been given everything.
static ANYBODY: Permissions = Permissions::new();

/// #NM in user mode. Interrupts are off.
pub fn device_not_available(frame: &mut Frame) {
    let (cpu, task) = (this_cpu(), task::current());
    // SAFETY: interrupts are off; not used when another task has run.
    let here = unsafe { IrqsOff::new() };
    let permissions = task.permissions.lock();
    let asked = if seeded::on(Fault::PermissionIgnored) { anybody() } else { &*permissions };
    let answer = fpu::first_use(task.fpu(), frame.is_user(), asked, &here);
    drop(permissions);
    match answer {
        Ok(FirstUse::NotOurs) => verdict::user_exception(frame),
        Ok(FirstUse::Kill) => {
            count(&counts::TILES_REFUSED);
            // SAFETY: interrupts are off, and it is the current task's frame.
            unsafe { to_user::ends(task, frame) };
        }
        Ok(FirstUse::Grow { .. }) if seeded::on(Fault::AreaKept) => let_use_unasked(cpu),
        Ok(FirstUse::Grow { room, .. }) => match memory(cpu) {
            Some(large) => {
                replace(task, large, room, here);
                count(&counts::TILES_GIVEN);
            }
            None => without_memory(cpu, task, frame),
        },
        Err(why) => {
            verdict::fail(format_args!("task {} on CPU {}: {why}", task.slot, cpu.number.get()))
        }
    }
}

/// For the fault that gives the task no area.
fn let_use_unasked(cpu: &PerCpu) {
    // SAFETY: it is what K20 (copy of IA32_XFD) forbids, and what the fault is for; there is the register, or what stands
    // for it.
    unsafe { Msr::new(IA32_XFD).write(0) };
    cpu.xfd.set(0);
}

fn anybody() -> &'static Permissions {
    if let Some(plan) = fpu::on_demand() {
        // Known, on demand, and without a stack to ask.
        let _granted = ANYBODY.request(plan, TILEDATA, Whose::Host, |_| true);
    }
    &ANYBODY
}

/// Memory for a large area. There may be none, and every fourth time there is none.
fn memory(cpu: &PerCpu) -> Option<usize> {
    (cpu.random() & 3 != 0).then(|| areas::take(true)).flatten()
}

/// The task keeps what it has. It ends, or others run and it executes the instruction again.
fn without_memory(cpu: &PerCpu, task: &'static Task, frame: &mut Frame) {
    if cpu.random() & 7 == 0 {
        count(&counts::TILES_ENDED);
        // SAFETY: interrupts are off, and it is the current task's frame.
        unsafe { to_user::ends(task, frame) };
    } else {
        count(&counts::TILES_RETRIED);
        sched::schedule(Next::Any);
    }
}

/// The current task's context gets the area of that number, and its own is free again.
fn replace(task: &Task, number: usize, room: Room, mut here: IrqsOff) {
    // SAFETY: interrupts are off, this is the current task, and no other code uses its context.
    let (context, area) = unsafe { task.context() };
    let Some(context) = context else { return };
    // SAFETY: K19: taken just now, and of so many bytes.
    let new = unsafe { fpu::area(areas::memory(number), areas::len(number)) };
    if let Err(why) = context.replace_area(&mut here, new, room) {
        verdict::fail(format_args!("task {} keeps its area: {why}", task.slot));
    }
    let old = area.replace(number);
    whole(task, old);
    areas::give_back(old);
}

/// No save may write beyond an area.
pub fn whole(task: &Task, number: usize) {
    if areas::is_overrun(number) {
        verdict::fail(format_args!("a save went beyond the area of task {}", task.slot));
    }
}

/// A task has begun another program: it gives its large area back. Interrupts are off, and it is current.
pub fn shrink(task: &Task, here: IrqsOff) {
    // SAFETY: as for `replace`.
    let number = unsafe { task.context() }.1.get();
    if !areas::is_large(number) {
        return;
    }
    match areas::take(false) {
        Some(small) => replace(task, small, Room::Base, here),
        None => verdict::fail(format_args!("task {}: no small area is free", task.slot)),
    }
    count(&counts::TILES_SHRUNK);
}

/// The system call: the task asks for the permission, and has it.
pub fn permit(task: &Task) {
    let Some(plan) = fpu::on_demand() else { return };
    let process = task.permissions.lock();
    let holds = |need| need <= BLOCK_BYTES / 2;
    let asked = process.arch_prctl(plan, REQUEST_PERMISSION, TILEDATA, holds);
    let has = process.arch_prctl(plan, GET_PERMISSION, 0, |_| false);
    match (asked, has) {
        (Some(Ok(Answer::Done)), Some(Ok(Answer::Word(has)))) if has >> TILEDATA & 1 != 0 => {}
        _ => verdict::fail(format_args!("task {} is refused a permission: {asked:?}", task.slot)),
    }
}

fn is_permitted(task: &Task) -> bool {
    task.permissions.lock().of(Whose::Host).bits() >> TILEDATA & 1 != 0
}

/// The task has looked at its registers: tiles that it used are what it had in them, and it may use them. A new one has no
/// room for tiles. Interrupts are off.
pub fn compare(task: &Task, cpu: &PerCpu, block: &UserBlock, new: bool) {
    let Some(context) = task.fpu().filter(|_| fpu::on_demand().is_some()) else { return };
    // SAFETY: interrupts are off.
    let here = unsafe { IrqsOff::new() };
    let (room, slot, cpu) = (context.room(&here), task.slot, cpu.number.get());
    if new && room != Room::Base {
        verdict::fail(format_args!("new task {slot} on CPU {cpu} has room for tiles"));
    }
    if new || block.tiles == 0 {
        return;
    }
    tiles::compare(task, block);
    if !is_permitted(task) {
        verdict::fail(format_args!("task {slot} on CPU {cpu} has used tiles without permission"));
    }
    if room != Room::Full {
        verdict::fail(format_args!("task {slot} on CPU {cpu} has used tiles without room"));
    }
    count(&counts::TILE_CHECKS);
}

/// Chooses whether the program uses tiles in the next round; true if it is to ask for the permission. Those without
/// permission end when they use them.
pub fn choose(task: &Task, block: &mut UserBlock, random: u64) -> bool {
    block.tiles = 0;
    if fpu::on_demand().is_none() || task.kind != Kind::Holder {
        return false;
    }
    let permitted = is_permitted(task);
    let uses = if permitted { random & 3 != 0 } else { random & 31 == 0 };
    tiles::choose(block, task.seed.get(), uses);
    !permitted && !uses && random >> 8 & 7 == 0
}
