//! A small kernel that boots, and switches the FPU state of its tasks with `fpu-core` and `fpu-x86`.
//!
//! Read [`fpu`] first: it is the integration. The rest is what a kernel has anyway ([`boot`], [`cpu`], [`entry`],
//! [`trap`], [`sched`], [`task`], [`syscall`], [`apic`], [`serial`]) and what makes its life hard
//! ([`torture`], [`worker`], [`xfd`], [`amx`], [`areas`], [`demand`], [`tiles`], [`guest`], [`vcpu`], [`fork`], [`rights`], [`signal`], [`debugger`], [`power`], [`scalar`], [`refusal`], [`odd`], [`order`], [`watch`], [`seeded`]), so that a
//! wrong integration is seen ([`counts`], [`verdict`]).
#![no_std]
#![no_main]

mod amx;
mod apic;
mod areas;
mod boot;
mod check;
mod counts;
mod cpu;
mod cpuid;
mod crash;
mod debugger;
mod demand;
mod entry;
// The program that boots this kernel uses the rest of it.
#[allow(dead_code)]
mod faults;
mod files;
mod fork;
mod fpu;
mod guest;
mod handlers;
mod hw;
#[cfg(not(target_os = "none"))]
mod mem;
mod memory;
mod odd;
mod order;
mod params;
mod power;
mod refusal;
mod regs;
mod rights;
mod scalar;
mod sched;
mod seeded;
mod serial;
mod session;
mod signal;
mod sizes;
mod steps;
mod syscall;
mod task;
mod tiles;
mod to_user;
mod torture;
mod trap;
mod user;
mod vcpu;
mod verdict;
mod vmcb;
mod watch;
mod worker;
mod xfd;

use core::panic::PanicInfo;

use params::Params;

/// Where `boot.s` brings the first CPU.
#[no_mangle]
extern "C" fn kernel_main(params: *const u8) -> ! {
    serial::init();
    serial::lock().put("fpu-kernel starting\n");
    // SAFETY: the first CPU, interrupts are off.
    let cpu = unsafe { cpu::init(0, 1) };
    // SAFETY: interrupts are off; idle's stack is this one.
    unsafe { task::idle_of(0).becomes_current(cpu) };
    // Before anything that may use SSE: compiled functions of `core` do.
    // SAFETY: the first CPU, interrupts are off, nothing has run.
    unsafe { odd::leave() };
    fpu::early();
    // SAFETY: the pointer that `boot.s` passes.
    let text = unsafe { boot::params(params) };
    serial::lock().put("parameters: ").put_bytes(text).put("\n");
    let params = match Params::parse(text) {
        Ok(params) => params::keep(params),
        Err(word) => verdict::fail(format_args!("bad boot parameter {word}")),
    };
    cpu.seed(params.seed);
    seeded::seed(params.fault);
    if seeded::on(faults::Fault::NmiWithoutIst) {
        // SAFETY: the first CPU, interrupts are off.
        unsafe { cpu::init(0, params.seed) };
    }
    if let Some(why) = params.cpuid.and_then(|words| cpuid::record(words).err()) {
        verdict::fail(format_args!("bad CPUID words {why}"));
    }
    if let Some(fault) = params.fault {
        cpuid::seed(fault);
    }
    if params.demand && params.cpuid.is_none() {
        xfd::emulate();
    }

    let mut here = match fpu::boot(params.rung) {
        Ok(here) => here,
        Err(why) => verdict::fail(format_args!("the first CPU cannot be brought up: {why}")),
    };
    verdict::quirks(fpu::plan());
    verdict::disbelieved(fpu::plan());
    // A kernel of yours goes on to run tasks. This one takes the CPU down to try what is refused, and then lets it
    // begin as every other.
    if let Err(why) = fpu::take_down(&mut here) {
        verdict::fail(format_args!("the first CPU cannot be taken down: {why}"));
    }
    if let Err(what) = refusal::leaves_everything_as_before() {
        verdict::fail(format_args!("after a refusal: {what}"));
    }
    if params.cpuid.is_none() {
        order::as_the_manual_has_it();
    }
    // The plan is in force, so that the processor can be asked about images; then as every CPU begins.
    // SAFETY: no code needs the registers, and the CPU's word is not open.
    unsafe {
        hw::detect();
        vmcb::detect();
    }
    power::bring_up(cpu);
    rights::detect();

    apic::mask_pic();
    apic::enable();
    let Some(ticks_per_ms) = apic::calibrate() else {
        verdict::fail(format_args!("the timer does not run"));
    };
    files::prepare();
    areas::prepare();
    torture::prepare(ticks_per_ms);
    if params.fault.is_none_or(faults::Fault::is_of_trap) {
        scalar::run(cpu);
    }
    // SAFETY: once, on the first CPU; no other has been started.
    unsafe {
        if let Err(why) = task::spawn(params.seed) {
            verdict::fail(format_args!("a task's context: {why}"));
        }
        guest::prepare();
        vcpu::prepare();
        fork::prepare();
        boot::prepare_trampoline();
    }
    for number in 1..params.cpus {
        power::start(number);
    }
    serial::lock().put("running on ").put_dec(params.cpus as u64).put(" CPUs\n");
    sched::open(params.cpus);
    torture::arm(cpu);
    power::idle()
}

/// Where `boot.s` brings any other CPU, each time that it is started.
#[no_mangle]
extern "C" fn ap_main(number: u32) -> ! {
    // SAFETY: interrupts are off, and `power::start` gives each CPU its own number.
    let cpu = unsafe { cpu::init(number as usize, params::given().seed) };
    // SAFETY: interrupts are off; idle's stack is this one.
    unsafe { task::idle_of(number as usize).becomes_current(cpu) };
    apic::enable();
    power::bring_up(cpu);
    torture::arm(cpu);
    power::idle()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => verdict::fail(format_args!("panic at {}:{}", at.file(), at.line())),
        None => verdict::fail(format_args!("panic")),
    }
}
