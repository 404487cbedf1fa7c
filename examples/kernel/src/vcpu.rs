//! The hypervisor, for AMD's virtual machines (SVM): kernel threads that run a virtual CPU each, whose program holds patterns in all registers.

use core::{
    arch::global_asm,
    cell::UnsafeCell,
    mem::{offset_of, size_of},
    ptr::addr_of,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use fpu_core::CpuWords;
use fpu_x86::{Components, GuestControls, GuestError, ProtectionKeys, SaveInstruction};
use x86_64::instructions::interrupts;

use crate::{
    counts::{self, count},
    cpu::{preempt_off, preempt_on, this_cpu},
    faults::Fault,
    fpu::{self, IrqsOff, KEYS},
    hw,
    memory::Memory,
    regs::{Classes, RegFile, CLASSES, FX, MASKS},
    sched::{self, Next},
    seeded,
    task::{self, Task, VCPUS, WORKERS},
    torture, verdict,
    vmcb::{self, exit, Vmcb},
};

/// What a guest does between loading its registers and looking at them: [`Block::action`].
mod action {
    /// CPUID, then it spins.
    pub const CPUID: u32 = 0;
    /// HLT, then it spins.
    pub const HALTS: u32 = 1;
    /// Asks for an XCR0 that no CPU takes, then it spins.
    pub const ASKS: u32 = 2;
    /// Asks for x87 and SSE alone, spins, HLT, asks for all.
    pub const NARROWS: u32 = 3;
}

/// Calls of a guest, in RCX.
const ROUND: u64 = 0;
/// With the value in RAX.
const XCR0: u64 = 1;

/// A guest's memory, at the address that RBX has.
#[repr(C, align(64))]
struct Block {
    /// Loaded at the start of a round.
    want: RegFile,
    /// Dumped at its end.
    seen: RegFile,
    pkru_want: u32,
    pkru_seen: u32,
    /// Not 0 if CR4.PKE is set.
    has_pkru: u32,
    action: u32,
    spin: u64,
    /// Values for XCR0.
    narrow: u32,
    wide: u32,
    illegal: u32,
}

global_asm!(
    include_str!("../../../fpu-hosted-test/src/real/registers.s"),
    include_str!("vcpu.s"),
    ".purgem fpu_load_registers",
    ".purgem fpu_dump_registers",
    fx = const FX,
    masks = const MASKS,
    classes = const CLASSES,
    avx = const Classes::AVX.bits(),
    avx512 = const Classes::AVX512.bits(),
    wide = const offset_of!(Block, wide),
    narrow = const offset_of!(Block, narrow),
    illegal = const offset_of!(Block, illegal),
    want = const offset_of!(Block, want),
    seen = const offset_of!(Block, seen),
    pkru_want = const offset_of!(Block, pkru_want),
    pkru_seen = const offset_of!(Block, pkru_seen),
    has_pkru = const offset_of!(Block, has_pkru),
    action = const offset_of!(Block, action),
    spin = const offset_of!(Block, spin),
    round_call = const ROUND,
    xcr0_call = const XCR0,
    halts = const action::HALTS,
    asks = const action::ASKS,
    narrows = const action::NARROWS,
);

extern "C" {
    static guest_start: u8;
}

struct Vcpu {
    vmcb: Vmcb,
    memory: Memory<{ size_of::<Block>() }>,
    controls: UnsafeCell<GuestControls>,
    /// RBX, RCX, RDX, RDI.
    general: UnsafeCell<[u64; 4]>,
    /// The CPU on which it ran last, and one: only the fault believes it.
    noted: AtomicU32,
}
// SAFETY: one thread uses it.
unsafe impl Sync for Vcpu {}

impl Vcpu {
    const fn new() -> Self {
        Self {
            vmcb: Vmcb::new(),
            memory: Memory::new(),
            controls: UnsafeCell::new(GuestControls::new()),
            general: UnsafeCell::new([0; 4]),
            noted: AtomicU32::new(0),
        }
    }
    fn block(&self) -> *mut Block {
        self.memory.base().as_ptr().cast()
    }
}

static ALL: [Vcpu; VCPUS] = [const { Vcpu::new() }; VCPUS];
/// Never on: for the fault that leaves PKRU out.
static NO_KEYS: ProtectionKeys = ProtectionKeys::new();

fn has_xsave() -> bool {
    fpu::plan().save_instruction() != SaveInstruction::Fxsave
}

/// Makes the guests, with initial registers.
///
/// # Safety
///
/// Called once, on the first CPU, before others are started.
pub unsafe fn prepare() {
    for (number, vcpu) in ALL.iter().enumerate() {
        let rip = addr_of!(guest_start) as u64;
        vcpu.vmcb.prepare(number as u32, rip);
        // SAFETY: the guest's own memory, and it does not run yet.
        let (block, controls) = unsafe {
            let block = vcpu.block();
            addr_of!((*block).want).cast_mut().write(RegFile::initial(hw::classes()));
            addr_of!((*block).seen).cast_mut().write(RegFile::initial(hw::classes()));
            (*vcpu.general.get())[0] = block as u64;
            (&mut *block, &mut *vcpu.controls.get())
        };
        block.has_pkru = u32::from(hw::has_pkru());
        let all = if has_xsave() { fpu::plan().xcr0() } else { Components::empty() };
        // The guests have no tiles.
        let all = all.difference(Components::AMX);
        (block.narrow, block.wide, block.illegal) = (3, all.bits() as u32, 5);
        if let Err(why) = controls.set_xcr0(fpu::plan(), &KEYS, all.bits()) {
            if has_xsave() {
                verdict::fail(format_args!("a guest's controls: {why}"));
            }
        }
    }
}

/// One entry, and its exit. Interrupts are off.
fn enter(task: &Task, vcpu: &Vcpu) {
    let cpu = this_cpu();
    let Some(context) = task.fpu() else { return };
    // SAFETY: interrupts are off, but for those that end the guest's turn, and come when they are on again.
    let mut here = unsafe { IrqsOff::new() };
    let number = cpu.number.get() + 1;
    if seeded::on(Fault::GuestNoted) && vcpu.noted.load(Relaxed) == number {
        let word = context.address() as *mut u64;
        // SAFETY: it is what only the library may write, and what the fault is for: "it ran here last" is a claim.
        unsafe { word.write_volatile(cpu.fpu.resident()) };
    }
    vcpu.noted.store(number, Relaxed);
    vcpu.vmcb.set_controls(has_xsave());
    // SAFETY: this thread's.
    let (controls, general) = unsafe { (&mut *vcpu.controls.get(), &mut *vcpu.general.get()) };
    let narrow = controls.xcr0() == Components::LEGACY;
    let restored = cpu.counters.totals().restored;
    let ready = match context.switch_return(&mut here) {
        Ok(ready) => ready,
        Err(why) => verdict::refused(task, why),
    };
    counts::VM_RESTORES.fetch_add(cpu.counters.totals().restored - restored, Relaxed);
    let keys = if seeded::on(Fault::GuestPkru) { &NO_KEYS } else { &KEYS };
    // SAFETY: there is SVM, and `bring_up` has enabled it.
    unsafe { vmcb::clgi() };
    // SAFETY: C1, C47: interrupts are off, and GIF, until the drop; only VMRUN is in between. C48: XSETBV is intercepted,
    // and the program writes no model-specific register.
    match unsafe { controls.enter(&ready, fpu::plan(), keys) } {
        Ok(in_guest) => {
            // SAFETY: interrupts and GIF are off, and the program is vcpu.s'.
            unsafe { vcpu.vmcb.run(general) };
            if narrow && seeded::on(Fault::GuestXcr0) {
                // SAFETY: it is what K3 (own words) forbids, and what the fault is for: a save under the guest's XCR0.
                let other = unsafe { IrqsOff::new() };
                if let Err(why) = context.switch_prepare(&other) {
                    verdict::refused(task, why);
                }
            }
            in_guest.exit();
        }
        Err(why) => verdict::fail(format_args!("{why}")),
    }
    // SAFETY: as for `clgi`.
    unsafe { vmcb::stgi() };
    count(&counts::VM_ENTRIES);
}

/// The guest has looked at its registers, and gets others.
fn round(number: usize, block: &mut Block) {
    let cpu = this_cpu();
    let who = WORKERS + number;
    verdict::guest(who, cpu, &block.want, &block.seen);
    if block.has_pkru != 0 && block.pkru_want != block.pkru_seen {
        verdict::fail(format_args!(
            "guest {who} on CPU {}: register pkru is {:#x} and should be {:#x}",
            cpu.number.get(),
            block.pkru_seen,
            block.pkru_want
        ));
    }
    count(&counts::VM_ROUNDS);
    let random = cpu.random();
    block.want.quiet_set_pattern(random << 8 | who as u64);
    block.pkru_want = (random >> 16) as u32;
    block.action = match random & 7 {
        0 | 1 => action::HALTS,
        2 if has_xsave() => action::ASKS,
        3..=5 if has_xsave() => action::NARROWS,
        _ => action::CPUID,
    };
    block.spin = torture::spins(random >> 8);
}

/// The guest wants this in XCR0.
fn xcr0(block: &Block, controls: &mut GuestControls, value: u64) {
    let before = controls.clone();
    match controls.set_xcr0(fpu::plan(), &KEYS, value) {
        Ok(()) if value == u64::from(block.illegal) => {
            verdict::fail(format_args!("a guest was given {value:#x} in XCR0"));
        }
        Ok(()) => count(&counts::VM_XCR0),
        // Without AVX in the plan its bit alone is refused.
        Err(GuestError::Xcr0Lacks(Components::SSE) | GuestError::Xcr0Beyond(Components::AVX))
            if value == u64::from(block.illegal) && *controls == before =>
        {
            count(&counts::VM_REFUSED);
        }
        Err(why) => verdict::fail(format_args!("a guest's XCR0 {value:#x}: {why}")),
    }
}

/// Why did it exit? Interrupts are off; true if it has nothing to do for a while.
fn exited(number: usize, vcpu: &Vcpu) -> bool {
    // SAFETY: this thread's, and the guest does not run.
    let (block, general) = unsafe { (&mut *vcpu.block(), &mut *vcpu.general.get()) };
    let vmcb = &vcpu.vmcb;
    match vmcb.exit_code() {
        exit::INTR | exit::NMI => count(&counts::VM_INTERRUPTS),
        exit::VMMCALL => {
            match general[1] {
                ROUND => round(number, block),
                // SAFETY: as for the block.
                XCR0 => xcr0(block, unsafe { &mut *vcpu.controls.get() }, vmcb.rax()),
                call => verdict::fail(format_args!("a guest calls {call:#x}")),
            }
            vmcb.skip(3);
        }
        exit::HLT => {
            vmcb.skip(1);
            return true;
        }
        exit::CPUID => {
            vmcb.set_rax(0);
            (general[1], general[2]) = (0, 0);
            vmcb.skip(2);
        }
        code if (exit::EXCEPTION_0..exit::INTR).contains(&code) => verdict::fail(format_args!(
            "exception {} in guest {} at {:#x}",
            code - exit::EXCEPTION_0,
            WORKERS + number,
            vmcb.rip()
        )),
        code => verdict::fail(format_args!("guest {} exits with {code:#x}", WORKERS + number)),
    }
    false
}

/// A thread that runs its virtual CPU.
pub fn thread() -> ! {
    let task = task::current();
    let number = task.vcpu().unwrap_or_default();
    let vcpu = &ALL[number];
    loop {
        interrupts::disable();
        enter(task, vcpu);
        let halted = exited(number, vcpu);
        if halted {
            sched::schedule(if this_cpu().random() & 1 == 0 { Next::Idle } else { Next::Any });
        }
        // What has ended the guest's turn comes now, and may preempt.
        interrupts::enable();
        core::hint::spin_loop();
        if this_cpu().random() & 15 == 0 {
            let cpu = preempt_off();
            let saved = counts::saved(&cpu.counters);
            torture::section(task);
            counts::of_guest(true, &cpu.counters, saved);
            preempt_on();
        }
    }
}
