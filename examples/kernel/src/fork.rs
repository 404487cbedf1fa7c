//! Fork: a task leaves a copy of itself, which begins in the place of the next task that exits.

use core::{
    mem::{replace, swap},
    sync::atomic::Ordering::Relaxed,
};

use fpu_core::RawFpu;
use fpu_x86::{Components, Permissions, Pkru, TaskPkru};
use spin::Mutex;
use x86_64::instructions::interrupts::without_interrupts;

use crate::{
    areas, counts,
    cpu::this_cpu,
    faults::Fault,
    files::File,
    fpu::{self, Fpu, PreemptOff, KEYS},
    hw, seeded,
    session::open,
    task::{Task, CRADLE},
    user::UserBlock,
    verdict,
};

/// What a child does not inherit, by number: CET_U and CET_S (11, 12), TILECFG and TILEDATA (17, 18).
const NOT_INHERITED: u64 = 1 << 11 | 1 << 12 | 1 << 17 | 1 << 18;
const TILEDATA: u64 = 1 << 18;

/// A child that has not begun; one at a time.
struct Child {
    /// Made once; then what exited tasks leave, whose registers may still be somewhere.
    fpu: Option<Fpu>,
    /// The memory of it.
    area: usize,
    waits: bool,
    pkru: TaskPkru,
    pkru_want: u32,
    permissions: Permissions,
}

/// Taken by system calls only, with preemption off.
static CHILD: Mutex<Child> = Mutex::new(Child {
    fpu: None,
    area: CRADLE,
    waits: false,
    pkru: TaskPkru::new(Pkru::INITIAL),
    pkru_want: 0,
    permissions: Permissions::new(),
});
/// What the child must find in its registers. Of who has locked [`CHILD`].
static WANT: File = File::new();

/// Makes the first child's context.
///
/// # Safety
///
/// Called once, on the first CPU, before others are started.
pub unsafe fn prepare() {
    // SAFETY: K19: no other code's memory, given once.
    match unsafe { fpu::new_context(areas::memory(CRADLE), areas::len(CRADLE)) } {
        Ok(fpu) => CHILD.lock().fpu = Some(fpu),
        Err(why) => verdict::fail(format_args!("a child's context: {why}")),
    }
}

/// The current task forks, unless a child waits. Preemption is off.
pub fn fork(task: &Task, context: &Fpu, block: &UserBlock) {
    let mut child = CHILD.lock();
    let Child { fpu: Some(fpu), area, waits: waits @ false, pkru, pkru_want, permissions } =
        &mut *child
    else {
        return;
    };
    // SAFETY: preemption is off until the end of the function.
    let mut here = unsafe { PreemptOff::new() };
    // With tiles on demand there are real ones.
    let marks = fpu::on_demand().is_none() && fpu::plan().components().contains(Components::AMX);
    let tiles = marks && this_cpu().random() & 1 == 0;
    if tiles {
        drop(open(task, context, &mut here).make_memory_valid_write());
        // SAFETY: the claim on the registers is dropped, and a plan with AMX has an image with a header.
        unsafe { mark_tiles(task) };
    }
    let result = if seeded::on(Fault::ForkStale) {
        let result = fpu.reset(&mut here);
        // SAFETY: C9: images of both, which are not one.
        unsafe { fpu::plan().copy_for_child(task.area(), areas::memory(*area)) };
        result
    } else {
        context.fork_into(&mut here, fpu)
    };
    if let Err(why) = result {
        verdict::refused(task, why);
    }
    // SAFETY: C9, C11: an image, of the context that is locked here.
    let has = unsafe { fpu::plan().image(areas::memory(*area)) }.present().bits();
    if has & NOT_INHERITED != 0 {
        verdict::fail(format_args!("the child of task {} has components {has:#x}", task.slot));
    }
    let session = open(task, context, &mut here).make_memory_valid_read();
    let kept = session.image().present().bits();
    let ssp = if hw::has_ssp() && task.ssp.get() != 0 { 1 << 11 } else { 0 };
    let due = ssp | if tiles || block.tiles != 0 { TILEDATA } else { 0 };
    if kept & due != due {
        verdict::fail(format_args!("task {} has forked and keeps components {kept:#x}", task.slot));
    }
    // SAFETY: `CHILD` is locked.
    unsafe { WANT.get().copy_from_nonoverlapping(&block.want, 1) };
    if let Some(parent) = task.pkru() {
        KEYS.fork(parent, pkru);
    }
    *permissions = without_interrupts(|| task.permissions.lock().inherited());
    counts::TILE_FORKS.fetch_add(u64::from(block.tiles), Relaxed);
    (*pkru_want, *waits) = (block.pkru_want, true);
}

/// Marks the tiles in the image as in use, with what bytes there are: no tiles are read, and any are legal.
///
/// # Safety
///
/// The task is current, in memory only, and its image in the compacted format has room for tiles.
unsafe fn mark_tiles(task: &Task) {
    // SAFETY: the caller's: XSTATE_BV is at 512, and bit 18 is bit 2 of its third byte.
    unsafe { *task.area().as_ptr().add(512 + 2) |= 1 << 2 };
}

/// The child that waits, if one does, begins in place of `task`, which has just called to exit: both were in the
/// same system call of the same program, so the frame is the child's. False if there is none.
///
/// # Safety
///
/// Interrupts are off, and this is the current task, which exits.
pub unsafe fn begins(task: &Task, block: &mut UserBlock) -> bool {
    let mut child = CHILD.lock();
    if !child.waits {
        return false;
    }
    child.waits = false;
    // SAFETY: the caller's: the current task's own.
    let (fpu, area) = unsafe { task.context() };
    swap(fpu, &mut child.fpu);
    area.set(replace(&mut child.area, area.get()));
    let permissions = replace(&mut child.permissions, Permissions::new());
    *task.permissions.lock() = permissions;
    if areas::is_large(child.area) {
        // What the task leaves is a small area again.
        child.fpu = None;
        child.area = areas::small_again(child.area);
        // SAFETY: K19: the context that had it is gone.
        match unsafe { fpu::new_context(areas::memory(child.area), areas::len(child.area)) } {
            Ok(fpu) => child.fpu = Some(fpu),
            Err(why) => verdict::fail(format_args!("a child's context: {why}")),
        }
    }
    block.tiles = 0;
    // SAFETY: `CHILD` is locked, and a parent has written it.
    unsafe { (&raw mut block.want).copy_from_nonoverlapping(WANT.get(), 1) };
    block.pkru_want = child.pkru_want;
    // The task that exits is never switched in again, and no code uses its value.
    fpu::switch_rights(None, Some(&child.pkru));
    task.ssp.set(0);
    task.forked.set(true);
    true
}
