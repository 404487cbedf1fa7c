//! What the library writes to control registers, and in which order: seen in single steps, up to the first restore. A
//! kernel of yours has no such file.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use crate::{entry::Frame, steps};

/// A register that an instruction of ring 0 writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// A control register's number.
    Cr(u8),
    /// An extended control register's number: ECX of XSETBV.
    Xcr(u32),
    /// A model-specific register's number: ECX of WRMSR.
    Msr(u32),
}

const TRAP_FLAG: u64 = 1 << 8;
/// More than are ever written.
const MOST: usize = 32;

/// What was written, in order.
#[derive(Clone, Copy)]
pub struct Writes {
    list: [(Register, u64); MOST],
    /// Also of those that had no room.
    count: usize,
}

impl Writes {
    const NONE: Self = Self { list: [(Register::Cr(0), 0); MOST], count: 0 };

    /// All of them.
    pub fn all(&self) -> &[(Register, u64)] {
        &self.list[..self.count.min(MOST)]
    }
}

static ON: AtomicBool = AtomicBool::new(false);
struct Seen(UnsafeCell<Writes>);
// SAFETY: only the first CPU uses it, before others are started and with interrupts off.
unsafe impl Sync for Seen {}
static SEEN: Seen = Seen(UnsafeCell::new(Writes::NONE));

/// What `code` writes before its first FXRSTOR, XRSTOR or XRSTORS, refused writes included. Interrupts are off, and no
/// other CPU has been started.
pub fn writes(code: impl FnOnce()) -> Writes {
    // SAFETY: the first CPU; its handler of single steps is not on.
    unsafe { *SEEN.0.get() = Writes::NONE };
    ON.store(true, Relaxed);
    steps::stepped(code);
    ON.store(false, Relaxed);
    // SAFETY: the first CPU; its handler of single steps is off again.
    unsafe { *SEEN.0.get() }
}

/// Before the next instruction of code that runs in single steps: false if nobody watches.
pub fn step(frame: &mut Frame) -> bool {
    if !ON.load(Relaxed) {
        return false;
    }
    if restores(frame) {
        frame.rflags &= !TRAP_FLAG;
    }
    if let Some(write) = next(frame) {
        // SAFETY: the first CPU, and what was interrupted does not look.
        let seen = unsafe { &mut *SEEN.0.get() };
        if let Some(place) = seen.list.get_mut(seen.count) {
            *place = write;
        }
        seen.count += 1;
    }
    true
}

/// What the next instruction writes (SDM vol. 2): MOV to CR is 0F 22 /r, XSETBV 0F 01 D1, WRMSR 0F 30.
fn next(frame: &Frame) -> Option<(Register, u64)> {
    let code = frame.rip as *const u8;
    // SAFETY: the kernel's code; a byte is read only if those before it belong to such an instruction.
    let byte = |at: usize| unsafe { code.wrapping_add(at).read() };
    let rex = if byte(0) & 0xF0 == 0x40 { byte(0) } else { 0 };
    let at = usize::from(rex != 0);
    if byte(at) != 0x0F {
        return None;
    }
    let value = frame.rdx << 32 | frame.rax & 0xFFFF_FFFF;
    match byte(at + 1) {
        0x22 => {
            let modrm = byte(at + 2);
            let number = modrm >> 3 & 7 | rex << 1 & 8;
            Some((Register::Cr(number), register(frame, modrm & 7 | rex << 3 & 8)))
        }
        0x01 if byte(at + 2) == 0xD1 => Some((Register::Xcr(frame.rcx as u32), value)),
        0x30 => Some((Register::Msr(frame.rcx as u32), value)),
        _ => None,
    }
}

/// Does the next instruction restore? FXRSTOR64 is 0F AE /1, XRSTOR64 0F AE /5, XRSTORS64 0F C7 /3, each with REX.W
/// and an operand in memory.
fn restores(frame: &Frame) -> bool {
    let code = frame.rip as *const u8;
    // SAFETY: as in `next`.
    let byte = |at: usize| unsafe { code.wrapping_add(at).read() };
    if byte(0) & 0xF8 != 0x48 || byte(1) != 0x0F {
        return false;
    }
    let digits: &[u8] = match byte(2) {
        0xAE => &[1, 5],
        0xC7 => &[3],
        _ => return false,
    };
    byte(3) >> 6 != 3 && digits.contains(&(byte(3) >> 3 & 7))
}

/// A general register by its number in instructions.
fn register(frame: &Frame, number: u8) -> u64 {
    match number {
        0 => frame.rax,
        1 => frame.rcx,
        2 => frame.rdx,
        3 => frame.rbx,
        4 => frame.rsp,
        5 => frame.rbp,
        6 => frame.rsi,
        7 => frame.rdi,
        8 => frame.r8,
        9 => frame.r9,
        10 => frame.r10,
        11 => frame.r11,
        12 => frame.r12,
        13 => frame.r13,
        14 => frame.r14,
        _ => frame.r15,
    }
}
