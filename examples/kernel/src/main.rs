//! Boots, prints its parameters, starts a second CPU and lets the timer run out ten times.
#![no_std]
#![no_main]

// Not all of it has a caller yet.
#[allow(dead_code)]
mod apic;
#[allow(dead_code)]
mod boot;
#[cfg(not(target_os = "none"))]
mod mem;
mod serial;

use core::{
    panic::PanicInfo,
    sync::atomic::{AtomicBool, Ordering},
};

const STACK: usize = 32 * 1024;

#[repr(C, align(16))]
struct Stack(core::cell::UnsafeCell<[u8; STACK]>);

// SAFETY: only its address is taken here; the CPU that it is given to is its one user.
unsafe impl Sync for Stack {}

static AP_STACK: Stack = Stack(core::cell::UnsafeCell::new([0; STACK]));
static AP_UP: AtomicBool = AtomicBool::new(false);

/// Where `boot.s` brings the first CPU.
#[no_mangle]
extern "C" fn kernel_main(params: *const u8) -> ! {
    serial::init();
    serial::lock().put("fpu-kernel starting\n");
    // SAFETY: the pointer that `boot.s` passes.
    let params = unsafe { boot::params(params) };
    serial::lock().put("parameters: ").put_bytes(params).put("\n");

    apic::mask_pic();
    apic::enable();
    let Some(per_ms) = apic::calibrate() else { fail("the timer does not run\n") };
    serial::lock()
        .put("apic ")
        .put_dec(u64::from(apic::id()))
        .put(": ")
        .put_dec(u64::from(per_ms))
        .put(" ticks a millisecond\n");

    // SAFETY: nobody else uses low memory or that stack; CPU 1 waits since reset, and is the only one.
    let sent = unsafe {
        boot::prepare_trampoline();
        boot::set_ap(AP_STACK.0.get() as u64 + STACK as u64, 1);
        apic::wake(1, boot::TRAMPOLINE_PAGE)
    };
    let mut waited = 0;
    while sent && !AP_UP.load(Ordering::Acquire) && waited < 1000 {
        apic::delay_us(1000);
        waited += 1;
    }
    if !AP_UP.load(Ordering::Acquire) {
        fail("cpu 1 does not come up\n");
    }
    serial::lock().put("cpu 1 is up after ").put_dec(waited).put(" ms\n");

    for _ in 0..10 {
        apic::arm_silent(per_ms);
        while apic::remaining() != 0 {}
    }
    serial::lock().put("ten ticks\n");
    serial::exit(true)
}

/// Where `boot.s` brings any other CPU.
#[no_mangle]
extern "C" fn ap_main(number: u32) -> ! {
    apic::enable();
    serial::lock()
        .put("cpu ")
        .put_dec(u64::from(number))
        .put(" has apic ")
        .put_hex(u64::from(apic::id()))
        .put("\n");
    AP_UP.store(true, Ordering::Release);
    loop {
        x86_64::instructions::hlt();
    }
}

fn fail(why: &str) -> ! {
    serial::force().put(why);
    serial::exit(false)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut line = serial::force();
    line.put("panic");
    if let Some(place) = info.location() {
        line.put(" at ").put(place.file()).put(":").put_dec(u64::from(place.line()));
    }
    line.put("\n");
    serial::exit(false)
}
