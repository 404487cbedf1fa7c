//! The local APIC: its timer, messages to other CPUs, and the clock it is measured against.

use core::{hint, ptr};
use x86_64::instructions::{interrupts, port::Port};
use x86_64::registers::model_specific::Msr;

/// Where the registers are; the page tables map them uncached.
const BASE: usize = 0xfee0_0000;

const ID: usize = 0x20;
const EOI: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const ERROR_STATUS: usize = 0x280;
const COMMAND_LOW: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const LVT_TIMER: usize = 0x320;
const LVT_LINT0: usize = 0x350;
const TIMER_INITIAL: usize = 0x380;
const TIMER_CURRENT: usize = 0x390;
const TIMER_DIVIDE: usize = 0x3e0;

const APIC_BASE_MSR: u32 = 0x1b;
const GLOBAL_ENABLE: u64 = 1 << 11;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;

const NMI: u32 = 0x4400;
const INIT: u32 = 0x4500;
const STARTUP: u32 = 0x4600;
const PENDING: u32 = 1 << 12;

/// Vector of interrupts that went away before they were taken. Needs a handler that only returns: no
/// [`eoi`] for these.
pub const SPURIOUS_VECTOR: u8 = 0xff;

/// Ticks of the clock that [`delay_us`] uses, a second.
const PIT_HZ: u64 = 1_193_182;
const PIT_CHANNEL_2: u16 = 0x42;
const PIT_COMMAND: u16 = 0x43;
const PIT_GATE: u16 = 0x61;

/// Looks at hardware that does not answer, before it is given up. Far more than any wait takes.
const PATIENCE: u32 = 5_000_000;

fn read(register: usize) -> u32 {
    // SAFETY: the offsets above are registers of every local APIC, at the address it has after reset,
    // which the page tables of `boot.s` map. Reading these changes nothing.
    unsafe { ptr::read_volatile((BASE + register) as *const u32) }
}

/// # Safety
///
/// The value does what the caller wants: an APIC can start, stop and interrupt CPUs.
unsafe fn write(register: usize, value: u32) {
    // SAFETY: as for `read`; the effect is the caller's to justify.
    unsafe { ptr::write_volatile((BASE + register) as *mut u32, value) };
}

/// Masks the old interrupt controllers, whose vectors after reset are those of exceptions. Once.
pub fn mask_pic() {
    for data in [0x21, 0xa1] {
        // SAFETY: the mask registers; with all lines masked the controllers only fall silent.
        unsafe { Port::new(data).write(0xff_u8) };
    }
}

/// Switches this CPU's APIC on, with the timer and the line of the old controllers masked.
pub fn enable() {
    let mut base = Msr::new(APIC_BASE_MSR);
    // SAFETY: every CPU with 64-bit mode has this register; the address in it is kept.
    unsafe {
        let value = base.read();
        base.write(value | GLOBAL_ENABLE);
    }
    // SAFETY: masks two sources and accepts interrupts; no message is sent.
    unsafe {
        write(LVT_LINT0, MASKED);
        write(LVT_TIMER, MASKED);
        write(TIMER_INITIAL, 0);
        write(TIMER_DIVIDE, DIVIDE_BY_1);
        write(SPURIOUS, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
    }
}

/// Number of this CPU's APIC.
pub fn id() -> u8 {
    (read(ID) >> 24) as u8
}

/// Ends the handling of an interrupt.
pub fn eoi() {
    // SAFETY: outside of a handler it does nothing; inside it lets the next interrupt in.
    unsafe { write(EOI, 0) };
}

/// Has `vector` come once, `count` ticks from now; 0 stops the timer.
///
/// # Safety
///
/// `vector` is above 31 and has a handler by the time interrupts are on.
pub unsafe fn arm(vector: u8, count: u32) {
    // SAFETY: the caller expects the interrupt. One-shot is mode 0.
    unsafe {
        write(LVT_TIMER, u32::from(vector));
        write(TIMER_INITIAL, count);
    }
}

/// Starts the timer without an interrupt, to be watched with [`remaining`].
pub fn arm_silent(count: u32) {
    // SAFETY: masked, so nothing comes of it.
    unsafe {
        write(LVT_TIMER, MASKED);
        write(TIMER_INITIAL, count);
    }
}

/// Ticks until the timer is done; 0 then.
pub fn remaining() -> u32 {
    read(TIMER_CURRENT)
}

/// Starts a one-shot of channel 2 that ends after `ticks`.
fn pit_start(ticks: u16) {
    let mut gate = Port::<u8>::new(PIT_GATE);
    // SAFETY: channel 2 drives the speaker alone. Its gate goes on, the speaker off; mode 0 counts once.
    unsafe {
        let value = gate.read();
        gate.write((value & 0xfc) | 1);
        Port::new(PIT_COMMAND).write(0xb0_u8);
        let [low, high] = ticks.to_le_bytes();
        Port::new(PIT_CHANNEL_2).write(low);
        Port::new(PIT_CHANNEL_2).write(high);
    }
}

/// Whether the one-shot ended, within some patience.
fn pit_wait() -> bool {
    let mut gate = Port::<u8>::new(PIT_GATE);
    for _ in 0..PATIENCE {
        // SAFETY: reading this port changes nothing.
        if unsafe { gate.read() } & 0x20 != 0 {
            return true;
        }
        hint::spin_loop();
    }
    false
}

/// Waits for at least so many microseconds; less only if the clock does not run, which [`calibrate`]
/// notices. For one CPU at a time: there is one clock.
pub fn delay_us(us: u64) {
    // One tick more: the first may be short.
    let mut left = us.saturating_mul(PIT_HZ).div_ceil(1_000_000) + 1;
    while left > 0 {
        let ticks = left.min(0xffff);
        pit_start(ticks as u16);
        if !pit_wait() {
            return;
        }
        left -= ticks;
    }
}

/// Ticks of this CPU's timer a millisecond, measured over 10 ms; `None` if the clocks do not run. Uses
/// the timer, and the clock of [`delay_us`].
pub fn calibrate() -> Option<u32> {
    let mut best = u32::MAX;
    // The least of three: whatever interferes only makes it more.
    for _ in 0..3 {
        arm_silent(u32::MAX);
        pit_start((PIT_HZ / 100) as u16);
        if !pit_wait() {
            return None;
        }
        best = best.min(u32::MAX - remaining());
        arm_silent(0);
    }
    let per_ms = best / 10;
    (per_ms > 0).then_some(per_ms)
}

/// Sends one message and waits until it is delivered; whether it was.
///
/// Not from NMI handlers: one that comes between the two writes would send this message elsewhere.
///
/// # Safety
///
/// The message does to that CPU what the caller wants.
unsafe fn send(apic_id: u8, command: u32) -> bool {
    interrupts::without_interrupts(|| {
        // SAFETY: the high half only names the target; the effect of the low half is the caller's.
        unsafe {
            write(COMMAND_HIGH, u32::from(apic_id) << 24);
            write(COMMAND_LOW, command);
        }
        for _ in 0..PATIENCE {
            if read(COMMAND_LOW) & PENDING == 0 {
                return true;
            }
            hint::spin_loop();
        }
        false
    })
}

/// Resets a CPU, which then waits for [`send_startup`]. Returns whether the message was delivered.
///
/// # Safety
///
/// Nothing is lost with what that CPU is doing.
pub unsafe fn send_init(apic_id: u8) -> bool {
    // SAFETY: the caller's.
    unsafe { send(apic_id, INIT) }
}

/// Starts a CPU that waits after [`send_init`], in real mode at `page << 12`; others ignore it. Returns
/// whether the message was delivered.
///
/// # Safety
///
/// That page holds code to start with.
pub unsafe fn send_startup(apic_id: u8, page: u8) -> bool {
    // SAFETY: the caller's.
    unsafe { send(apic_id, STARTUP | u32::from(page)) }
}

/// Interrupts a CPU even if it has interrupts off. Returns whether the message was delivered.
///
/// # Safety
///
/// That CPU has a handler for NMIs.
pub unsafe fn send_nmi(apic_id: u8) -> bool {
    // SAFETY: the caller's.
    unsafe { send(apic_id, NMI) }
}

/// Wakes a CPU as the manuals ask: reset, 10 ms, then two start-up messages, of which the second counts
/// only if the first was lost.
///
/// # Safety
///
/// As [`send_init`] and [`send_startup`]; no other CPU uses [`delay_us`] meanwhile.
pub unsafe fn wake(apic_id: u8, page: u8) -> bool {
    // SAFETY: clears what an earlier message left; then the caller's contract, step by step.
    unsafe {
        write(ERROR_STATUS, 0);
        if !send_init(apic_id) {
            return false;
        }
        delay_us(10_000);
        for _ in 0..2 {
            if !send_startup(apic_id, page) {
                return false;
            }
            delay_us(200);
        }
    }
    true
}
