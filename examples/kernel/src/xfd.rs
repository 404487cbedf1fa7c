//! IA32_XFD on a processor that has none: the kernel does what SDM vol. 1, 13.14 says of it, beneath its own feet. A kernel
//! of yours has no such file.
//!
//! * RDMSR and WRMSR of IA32_XFD and IA32_XFD_ERR raise #GP here; the handler executes them on words of its own.
//! * While IA32_XFD disables the tiles, user mode runs without AMX in XCR0, so that each of its instructions raises #UD.
//!   The handler takes that for #NM with IA32_XFD_ERR, or executes what initialises tiles and is not refused by
//!   IA32_XFD. In the kernel XCR0 is always whole.
//!
//! What a save or a restore does by IA32_XFD is not emulated. Instead each way to user mode checks that no tiles are in use
//! that IA32_XFD disables.

use core::{
    arch::{asm, x86_64::__cpuid_count},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use x86_64::registers::xcontrol::XCr0;

use crate::{amx, cpu::this_cpu, cpuid, entry::Frame, params::MAX_CPUS};

const IA32_XFD: u32 = 0x1C4;
const IA32_XFD_ERR: u32 = 0x1C5;
/// XCR0\[17\] and \[18\], which are set and clear together; IA32_XFD disables the second.
const AMX: u64 = 3 << 17;
const TILEDATA: u64 = 1 << 18;

static ON: AtomicBool = AtomicBool::new(false);

/// What stands for one CPU's registers.
struct Registers {
    xfd: AtomicU64,
    error: AtomicU64,
    /// XCR0 of the kernel while user mode has another; 0 in the kernel.
    whole: AtomicU64,
    /// Tiles were in use that IA32_XFD disables.
    strays: AtomicBool,
}

static ALL: [Registers; MAX_CPUS] = [const {
    Registers {
        xfd: AtomicU64::new(0),
        error: AtomicU64::new(0),
        whole: AtomicU64::new(0),
        strays: AtomicBool::new(false),
    }
}; MAX_CPUS];

fn here() -> &'static Registers {
    &ALL[this_cpu().number.get() as usize % MAX_CPUS]
}

/// Begins, if this processor has AMX and no IA32_XFD: before the library asks CPUID, which says from now on that there
/// is one.
pub fn emulate() {
    let has = __cpuid_count(0xD, 1).eax >> 4 & 1 != 0;
    let tiles = __cpuid_count(0xD, 0).eax >> 18 & 1 != 0;
    if tiles && !has {
        ON.store(true, Relaxed);
        cpuid::add_xfd();
    }
}

/// A fault of the kernel: true if it was an access to one of the registers, which is done then. A WRMSR of what such a
/// register cannot hold is refused, as a processor does.
pub fn accessed(frame: &mut Frame) -> bool {
    if !ON.load(Relaxed) || frame.vector != 13 {
        return false;
    }
    let word = match frame.rcx as u32 {
        IA32_XFD => &here().xfd,
        IA32_XFD_ERR => &here().error,
        _ => return false,
    };
    // SAFETY: the kernel's code, whose instruction has raised the fault; it is not the last one there.
    let code = unsafe { (frame.rip as *const [u8; 2]).read() };
    match code {
        // WRMSR
        [0x0F, 0x30] => {
            let value = frame.rdx << 32 | frame.rax & 0xFFFF_FFFF;
            if value & !TILEDATA != 0 {
                return false;
            }
            word.store(value, Relaxed);
        }
        // RDMSR
        [0x0F, 0x32] => {
            let value = word.load(Relaxed);
            (frame.rax, frame.rdx) = (value & 0xFFFF_FFFF, value >> 32);
        }
        _ => return false,
    }
    frame.rip += 2;
    true
}

/// The last thing before user mode, when the registers are the task's. Interrupts are off.
pub fn to_user() {
    if !ON.load(Relaxed) || here().xfd.load(Relaxed) & TILEDATA == 0 {
        return;
    }
    let whole = XCr0::read_raw();
    here().strays.store(amx::in_use(), Relaxed);
    here().whole.store(whole, Relaxed);
    set_xcr0(whole & !AMX);
}

/// The first thing after user mode. The error: tiles were in use that IA32_XFD disables.
pub fn from_user() -> Result<(), &'static str> {
    if !ON.load(Relaxed) {
        return Ok(());
    }
    match here().whole.swap(0, Relaxed) {
        0 => {}
        whole => set_xcr0(whole),
    }
    if here().strays.swap(false, Relaxed) {
        return Err("tiles are in use that IA32_XFD disables");
    }
    Ok(())
}

fn set_xcr0(value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: CR4.OSXSAVE is set, and the value is what XCR0 held, or that without both bits of AMX.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nostack)) };
}

/// What an instruction of user mode is that has raised #UD.
pub enum Refused {
    /// It is done, and the task goes on behind it.
    Executed,
    /// A processor with IA32_XFD raises #NM.
    NotAvailable,
    /// Another one.
    Another,
}

/// Looks at it. Interrupts are off since then, so the registers hold the current task.
pub fn refused(frame: &mut Frame) -> Refused {
    if !ON.load(Relaxed) || here().xfd.load(Relaxed) & TILEDATA == 0 {
        return Refused::Another;
    }
    // SAFETY: the program's code, which lies before other memory of user mode.
    let code = unsafe { (frame.rip as *const [u8; 9]).read_unaligned() };
    // VEX.128, map 0F38, W0 (SDM vol. 2, 2.3.5): all of AMX's instructions are there, and no others with these opcodes.
    let [0xC4, map, fields, opcode, modrm, ..] = code else { return Refused::Another };
    if map & 0x1F != 2 || fields & 0x84 != 0 {
        return Refused::Another;
    }
    match (opcode, fields & 3, modrm) {
        // TILERELEASE
        (0x49, 0, 0xC0) => {
            // SAFETY: XCR0 is whole, and the program itself gives its tiles up.
            unsafe { amx::release() };
            frame.rip += 5;
            Refused::Executed
        }
        // LDTILECFG with RBX and 32 bits of displacement, which is how the programs have it.
        (0x49, 0, 0x83) if map & 0x20 != 0 => {
            let displacement = i32::from_le_bytes([code[5], code[6], code[7], code[8]]);
            let at = frame.rbx.wrapping_add_signed(displacement.into());
            // SAFETY: XCR0 is whole; the program's own block, in the identity map.
            unsafe { amx::configure(at as *const u8) };
            frame.rip += 9;
            Refused::Executed
        }
        // TILEZERO, TILELOADD, TILELOADDT1, TILESTORED, and products
        (0x49, 3, _) | (0x4B | 0x5C | 0x5E, ..) => {
            here().error.fetch_or(TILEDATA, Relaxed);
            Refused::NotAvailable
        }
        _ => Refused::Another,
    }
}
