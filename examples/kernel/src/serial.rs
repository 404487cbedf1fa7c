//! Lines on the first serial port, and the end of the run.
//!
//! Numbers are printed without `core::fmt`, some of whose compiled functions use SSE registers.

use core::{
    fmt, hint,
    sync::atomic::{AtomicBool, Ordering},
};
use uart_16550::{backend::PioBackend, spec::registers::LSR, BaudRate, Config, Uart16550};
use x86_64::instructions::{hlt, interrupts, port::Port};

const COM1: u16 = 0x3f8;

/// QEMU's `isa-debug-exit` device; it ends with status `2 * value + 1`.
const DEBUG_EXIT: u16 = 0xf4;
const PASS: u8 = 0x10;
const FAIL: u8 = 0x11;

/// Bochs powers off when `Shutdown` is written here.
const BOCHS_POWER: u16 = 0x8900;

/// Looks at a port that does not get ready, before a byte is given up.
const PATIENCE: u32 = 1_000_000;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to write; held for as long as a line takes, with interrupts off.
///
/// Not for NMI handlers, which may come while their own CPU holds it.
pub struct Line {
    port: Uart16550<PioBackend>,
    locked: bool,
    interrupts: bool,
}

/// A driver for the port. All that counts is in the device, so there may be several.
fn port() -> Uart16550<PioBackend> {
    // SAFETY: on every PC these eight ports are the first serial port or nothing.
    match unsafe { Uart16550::new_port(COM1) } {
        Ok(port) => port,
        Err(_) => unreachable!(),
    }
}

/// Sets the port up: 115200 baud, 8 bits, no parity. Once, before the first line.
pub fn init() {
    // Without a port there is no reader.
    let _none = port().init(Config { baud_rate: BaudRate::Baud115200, ..Config::DEFAULT });
}

/// Waits for the other CPU's line to end.
pub fn lock() -> Line {
    let interrupts = interrupts::are_enabled();
    interrupts::disable();
    while TAKEN.swap(true, Ordering::Acquire) {
        hint::spin_loop();
    }
    Line { port: port(), locked: true, interrupts }
}

/// Only if no other CPU writes a line; with interrupts off.
pub fn try_lock() -> Option<Line> {
    let free = !TAKEN.swap(true, Ordering::Acquire);
    free.then(|| Line { port: port(), locked: true, interrupts: false })
}

/// For the last line: waits for the end of another's, unless that does not come.
pub fn last() -> Line {
    let mut left = PATIENCE;
    while left > 0 && TAKEN.swap(true, Ordering::Acquire) {
        hint::spin_loop();
        left -= 1;
    }
    force()
}

/// Writes without the lock: for a panic, whose own CPU may hold it. Lines may mix; interrupts stay
/// off afterwards.
pub fn force() -> Line {
    interrupts::disable();
    Line { port: port(), locked: false, interrupts: false }
}

/// For other crates' texts, where no task's registers are kept: before the first task, and at the end.
impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text);
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.locked {
            TAKEN.store(false, Ordering::Release);
        }
        if self.interrupts {
            interrupts::enable();
        }
    }
}

impl Line {
    /// Text as it is.
    pub fn put(&mut self, text: &str) -> &mut Self {
        self.put_bytes(text.as_bytes())
    }

    /// Bytes as they are.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            let mut left = PATIENCE;
            while left > 0 && self.port.try_send_byte(byte).is_err() {
                left -= 1;
            }
        }
        self
    }

    /// A decimal number.
    pub fn put_dec(&mut self, mut number: u64) -> &mut Self {
        // Twenty digits hold 2^64; the first is the last found.
        let mut digits = [0; 20];
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            used += 1;
            if number == 0 {
                break;
            }
        }
        self.put_bytes(&digits[digits.len() - used..])
    }

    /// Waits until the last byte has left.
    fn drain(&mut self) {
        for _ in 0..PATIENCE {
            if self.port.lsr().contains(LSR::TRANSMITTER_EMPTY) {
                break;
            }
        }
    }
}

/// Ends the run with a verdict, from any CPU; the machine is gone afterwards.
pub fn exit(pass: bool) -> ! {
    force().drain();
    // SAFETY: the port belongs to a device made for this, or to none.
    unsafe { Port::new(DEBUG_EXIT).write(if pass { PASS } else { FAIL }) };
    for &letter in b"Shutdown" {
        // SAFETY: the port belongs to Bochs's power switch, or to no device.
        unsafe { Port::new(BOCHS_POWER).write(letter) };
    }
    loop {
        interrupts::disable();
        hlt();
    }
}
