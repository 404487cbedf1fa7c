//! Signals: the timer says that one is due, at any instant; on its way to user mode the task gets a frame on its stack and
//! runs its handler, which calls back to go on where it was.
//!
//! Another kernel keeps the general registers in the frame too. Here only the registers that the library switches go
//! through user memory.

use core::{
    fmt,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

use fpu_x86::{Components, DeliverError, Pkru, Returned, Room, SigreturnError, UserFormat};
use x86_64::instructions::interrupts;

use crate::{
    counts::{self, count},
    cpu::{preempt_off, preempt_on, this_cpu, PerCpu},
    entry::Frame,
    faults::Fault,
    files,
    fpu::{self, Fpu, IrqsOff, PreemptOff, AREA, KEYS},
    memory::Memory,
    params::MAX_CPUS,
    sched::{self, Next},
    seeded,
    session::open,
    task::{self, Kind, Task, HOLDERS, USER_PAGE, USER_RFLAGS},
    user::{self, does, UserBlock, BLOCK_BYTES},
    verdict,
};

/// Below the stack pointer a program may have something.
const RED_ZONE: u64 = 128;
/// Bytes for a frame. No plan of this kernel has larger ones.
const FRAME: usize = AREA;

/// One for each CPU, used with preemption off.
static BUFFERS: [Memory<FRAME>; MAX_CPUS] = [const { Memory::new() }; MAX_CPUS];
/// For the faults that put a frame aside; one for each task.
static ASIDE: [Memory<FRAME>; HOLDERS] = [const { Memory::new() }; HOLDERS];

/// Why memory of a program cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UserFault {
    /// It is not the program's.
    Outside,
    /// Its page is not there, and can be made present.
    Absent,
}

/// What tasks show in frames and to debuggers; but for tiles on demand, see [`format_of`].
pub fn format() -> UserFormat<'static> {
    let format = KEYS.format(fpu::plan());
    let tiles = fpu::plan().components().contains(Components::TILEDATA);
    if tiles && fpu::on_demand().is_none() {
        // SAFETY: C24: no task uses tiles, and IA32_XFD, if there is one, lets restores load them.
        return unsafe { format.with_tiles() };
    }
    format
}

/// What a task shows whose context has that room.
pub fn format_of(room: Room) -> UserFormat<'static> {
    match fpu::on_demand().map(|plan| plan.user_format(room)) {
        Some(format) if KEYS.are_on() => format,
        Some(format) => format.without_pkru(),
        None => format(),
    }
}

/// The same of the current task. Interrupts are off.
fn own_format(context: &Fpu) -> UserFormat<'static> {
    // SAFETY: interrupts are off.
    format_of(context.room(&unsafe { IrqsOff::new() }))
}

impl fmt::Display for UserFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "an address that is not the program's",
            Self::Absent => "a page that is not present",
        })
    }
}

/// This CPU's buffer.
///
/// # Safety
///
/// Preemption is off while the value lives, and there is no other.
unsafe fn buffer(cpu: &PerCpu) -> &'static mut [u8] {
    let base = BUFFERS[cpu.number.get() as usize % MAX_CPUS].base();
    // SAFETY: bytes of a static, by the contract no other code's now.
    unsafe { core::slice::from_raw_parts_mut(base.as_ptr(), FRAME) }
}

/// Memory in which a fault keeps a frame of the task.
///
/// # Safety
///
/// There is no other such value of the task.
unsafe fn aside(task: &Task) -> &'static mut [u8] {
    // SAFETY: bytes of a static, by the contract no other code's now.
    unsafe { core::slice::from_raw_parts_mut(ASIDE[task.slot % HOLDERS].base().as_ptr(), FRAME) }
}

/// The address of bytes that are the program's.
fn user_bytes(task: &Task, at: u64, len: usize) -> Result<*mut u8, UserFault> {
    let block = task.block() as u64;
    match at.checked_sub(block) {
        Some(from) if from.saturating_add(len as u64) <= BLOCK_BYTES as u64 => Ok(at as *mut u8),
        _ => Err(UserFault::Outside),
    }
}

/// Fails instead of sleeping.
fn copy_to_user(task: &Task, at: u64, bytes: &[u8], present: bool) -> Result<(), UserFault> {
    let to = user_bytes(task, at, bytes.len())?;
    if !present {
        return Err(UserFault::Absent);
    }
    // SAFETY: the current task's memory, which is in the identity map, while it waits.
    unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(())
}

fn copy_from_user(task: &Task, at: u64, bytes: &mut [u8], present: bool) -> Result<(), UserFault> {
    let from = user_bytes(task, at, bytes.len())?;
    if !present {
        return Err(UserFault::Absent);
    }
    // SAFETY: the current task's memory, which is in the identity map, while it waits.
    unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(from, bytes.len()) };
    Ok(())
}

/// A signal for some task, wherever that is: in user mode here or on the other CPU, in a system call, or waiting. Half of the
/// time it is the current one.
pub fn post(random: u64) {
    let here = Some(task::current()).filter(|task| task.kind == Kind::Holder && random & 1 == 0);
    let task = here.unwrap_or(&task::users()[(random >> 1) as usize % HOLDERS]);
    if seeded::on(Fault::FrameElsewhere) {
        set_aside(task);
    }
    task.signal.store(true, Release);
}

/// Tells whether a signal is due that can be delivered: not during a handler, and not with an image that is spoilt on
/// purpose.
pub fn due(task: &Task) -> bool {
    // SAFETY: the current task's own.
    let in_handler = unsafe { (*task.interrupted.as_ptr()).is_some() };
    task.signal.load(Acquire) && task.kind == Kind::Holder && !in_handler && !task.spoilt.get()
}

/// It runs its handler next. Interrupts are off, the current task is on its way to user mode, and one is due.
pub fn deliver(task: &Task, context: &Fpu, frame: &mut Frame) {
    task.signal.store(false, Relaxed);
    let below = RED_ZONE + own_format(context).frame_len() as u64;
    let at = frame.rsp.wrapping_sub(below) & !63;
    let mut present = is_present();
    while let Err(why) = to_stack(task, context, at, present) {
        if why != UserFault::Absent || present {
            verdict::fail(format_args!("task {}: no frame on its stack: {why}", task.slot));
        }
        present = make_present();
    }
    // SAFETY: the task's own memory, while it waits.
    tell(unsafe { &mut *task.block() }, this_cpu().random());
    task.interrupted.set(Some(*frame));
    (frame.rdi, frame.rsi) = (at, frame.rip);
    frame.rip = (USER_PAGE + user::handler_entry()) as u64;
    frame.rbx = task.block() as u64;
    (frame.rsp, frame.rflags) = (at, USER_RFLAGS);
    count(&counts::SIGNALS);
}

/// Every fourth time the program's stack is not there.
fn is_present() -> bool {
    this_cpu().random() & 3 != 0
}
/// It comes while the task waits, and maybe moves.
fn make_present() -> bool {
    sched::schedule(Next::Any);
    count(&counts::RETRIES);
    true
}

/// What the handler is to do.
fn tell(block: &mut UserBlock, random: u64) {
    let format = format();
    let has = |component| format.components().contains(component);
    block.handler_does = match random & 0x1F {
        0..=1 => does::RESERVED,
        2 => does::ASTRAY,
        3 if format.components() != Components::LEGACY => does::UNKNOWN,
        4..=9 if has(Components::PKRU) => does::CLEAR_PKRU,
        10..=21 => does::EDIT,
        _ => 0,
    };
    let avx = fpu::plan().cpuid_info().described(2).filter(|_| has(Components::AVX));
    block.avx_at = avx.map_or(0, |avx| avx.offset);
    block.handler_puts = (random >> 16) as u32 & !3;
    // SAFETY: both are files, and the block's is the task's own.
    unsafe { (&raw mut block.handler_loads).copy_from_nonoverlapping(files::pattern(random), 1) };
}

/// The frame on the program's stack, initial registers, and the default PKRU. After an error nothing has changed.
fn to_stack(task: &Task, context: &Fpu, at: u64, present: bool) -> Result<(), UserFault> {
    let Some(rights) = task.pkru() else { return Ok(()) };
    if seeded::on(Fault::FrameStale) {
        set_aside(task);
    }
    let (interrupted, format) = (KEYS.current(rights), own_format(context));
    let done = KEYS.deliver(rights, |pkru| {
        let pkru = if seeded::on(Fault::PkruOfHandler) { Some(KEYS.default_value()) } else { pkru };
        let cpu = preempt_off();
        interrupts::enable();
        // SAFETY: preemption is off, and there is no other.
        let buffer = unsafe { buffer(cpu) };
        // SAFETY: preemption is off.
        let mut here = unsafe { PreemptOff::new() };
        let session = open(task, context, &mut here).make_memory_valid_read();
        let done = format.deliver(session, pkru.map(Pkru::bits), buffer, |part| {
            copy_to_user(task, at, part, present)?;
            spoilt(task, at, part)
        });
        interrupts::disable();
        preempt_on();
        done
    });
    if let Some(pkru) = interrupted.filter(|_| seeded::on(Fault::PkruDelivered)) {
        KEYS.set_current(rights, pkru);
    }
    match done {
        Ok(_) => Ok(()),
        Err(DeliverError::FaultIn(why)) => Err(why),
        Err(why) => verdict::fail(format_args!("task {}: {why}", task.slot)),
    }
}

/// A frame that has been copied is made what a fault wants.
fn spoilt(task: &Task, at: u64, part: &[u8]) -> Result<(), UserFault> {
    // SAFETY: the only one of the task, which is current here.
    let aside = unsafe { aside(task) };
    let aside = aside.get_mut(..part.len()).unwrap_or_default();
    if seeded::on(Fault::FrameStale) || seeded::on(Fault::FrameElsewhere) {
        // x87 and SSE.
        copy_to_user(task, at, &aside[..464], true)?;
    }
    if seeded::on(Fault::EditLost) {
        aside.copy_from_slice(part);
    }
    if seeded::on(Fault::FrameLacks) {
        match part.get(512) {
            // SSE and AVX of XSTATE_BV.
            Some(present) => copy_to_user(task, at + 512, &[present & !6], true)?,
            // XMM0 to XMM15.
            None => copy_to_user(task, at + 160, &[0; 256], true)?,
        }
    }
    Ok(())
}

/// Writes a frame from what memory holds, although it may be that only registers hold the task.
fn set_aside(task: &Task) {
    // SAFETY: C9: an image. C11 (no other writer) is broken on purpose: the task may run, and be saved meanwhile.
    let image = unsafe { fpu_core::RawFpu::image(fpu::plan(), task.area()) };
    // SAFETY: of the task that got a signal, by whoever gave it.
    let aside = unsafe { aside(task) };
    let _written = format().write_frame(&image, None, aside);
}

/// The handler's end: the task goes on where it was interrupted, with what is in the frame that it names. False if it
/// ends, because there is none, or one that no task may have. Interrupts are off, and the registers hold the task.
pub fn sigreturn(task: &Task, context: &Fpu, block: &UserBlock, frame: &mut Frame) -> bool {
    let Some(interrupted) = task.interrupted.take() else { return false };
    verdict::handler(task, this_cpu(), block, KEYS.default_value().bits());
    let mut present = is_present();
    let done = loop {
        match from_stack(task, context, frame.rdi, present) {
            Err(SigreturnError::FaultIn(UserFault::Absent)) if !present => present = make_present(),
            done => break done,
        }
    };
    let is_junk = block.handler_does & (does::RESERVED | does::UNKNOWN | does::ASTRAY) != 0;
    match done {
        Ok(_) if is_junk => verdict::fail(format_args!("task {} returns by junk", task.slot)),
        Ok(returned) => {
            let absent = block.handler_does & does::CLEAR_PKRU != 0;
            if let Some(rights) = task.pkru().filter(|_| !(seeded::on(Fault::PkruKept) && absent)) {
                KEYS.sigreturn(rights, returned.pkru);
            }
            count(&counts::RETURNS);
        }
        Err(SigreturnError::Refused(why)) if !is_junk => {
            verdict::fail(format_args!("task {}: its own frame is refused: {why}", task.slot))
        }
        Err(_) if seeded::on(Fault::JunkIgnored) => {}
        Err(_) => {
            count(&counts::JUNK);
            return false;
        }
    }
    *frame = interrupted;
    true
}

/// The registers that the frame has, or an error, after which nothing has changed.
fn from_stack(
    task: &Task,
    context: &Fpu,
    at: u64,
    present: bool,
) -> Result<Returned, SigreturnError<UserFault>> {
    let (format, cpu) = (own_format(context), preempt_off());
    interrupts::enable();
    // SAFETY: preemption is off, and there is no other.
    let buffer = unsafe { buffer(cpu) };
    // SAFETY: preemption is off.
    let mut here = unsafe { PreemptOff::new() };
    let session = open(task, context, &mut here).make_memory_valid_read();
    let done = format.sigreturn(session, buffer, |offset, bytes| {
        copy_from_user(task, at.wrapping_add(offset as u64), bytes, present)?;
        if seeded::on(Fault::EditLost) {
            // SAFETY: the only one of the task, which is current here.
            bytes.copy_from_slice(&unsafe { aside(task) }[offset..][..bytes.len()]);
        }
        Ok(())
    });
    interrupts::disable();
    preempt_on();
    done
}
