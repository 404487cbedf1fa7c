//! A CPU's own block, reached through GS, with its descriptor tables and the words of the library.

use core::{
    arch::asm,
    cell::{Cell, UnsafeCell},
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use fpu_core::{observe::Counters, CpuFpu};
use spin::Once;
use x86_64::{
    instructions::interrupts,
    registers::{
        model_specific::{Efer, EferFlags, GsBase, KernelGsBase, LStar, SFMask, Star},
        rflags::RFlags,
        segmentation::{Segment, CS, DS, ES, FS, GS, SS},
    },
    structures::{
        gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector},
        idt::InterruptDescriptorTable,
        tss::TaskStateSegment,
    },
    VirtAddr,
};

use crate::{
    apic,
    entry::{self, IST_DOUBLE_FAULT, IST_NMI},
    faults::Fault,
    params::MAX_CPUS,
    seeded,
};

/// Selectors, by their places in the table below.
const KERNEL_CS: u16 = 0x08;
const KERNEL_SS: u16 = 0x10;
pub const USER_SS: u16 = 0x1B;
pub const USER_CS: u16 = 0x23;

/// Where a CPU is in its life; what [`PerCpu::state`] holds.
pub mod state {
    pub const NEVER: u32 = 0;
    pub const ON: u32 = 1;
    /// Asked to go.
    pub const LEAVING: u32 = 2;
    /// Halted for ever, until it is started again.
    pub const OFF: u32 = 3;
}

const STACK: usize = 16384;
#[repr(C, align(16))]
struct Stack(UnsafeCell<[u8; STACK]>);

// SAFETY: the processor of the CPU whose it is puts it into use.
unsafe impl Sync for Stack {}

impl Stack {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; STACK]))
    }
    fn top(&self) -> VirtAddr {
        VirtAddr::from_ptr(self.0.get()) + STACK as u64
    }
}

/// One CPU's block.
#[repr(C, align(64))]
pub struct PerCpu {
    this: Cell<*const PerCpu>,
    /// Where the entry of system calls keeps the user's stack pointer.
    pub user_rsp: Cell<u64>,
    /// The top of the current task's kernel stack.
    pub kernel_rsp: Cell<u64>,
    pub number: Cell<u32>,
    /// Its local APIC's number; other CPUs read it.
    pub apic: AtomicU32,
    /// See [`state`]; other CPUs read it, and write it to ask a CPU to go.
    pub state: AtomicU32,
    current: AtomicUsize,
    /// The slot of the user task that was here last.
    pub last_user: Cell<Option<usize>>,
    /// Sections in the code that runs here in which it must not be preempted.
    pub preempt_off: Cell<u32>,
    /// A preemption was due meanwhile.
    pub resched: Cell<bool>,
    random: Cell<u64>,
    /// Non-maskable interrupts here.
    pub nmis: Cell<u64>,
    /// The copy of IA32_XFD.
    pub xfd: Cell<u64>,
    /// The library's two words.
    pub fpu: CpuFpu,
    /// What the library did here.
    pub counters: Counters,
    tss: UnsafeCell<TaskStateSegment>,
    gdt: UnsafeCell<GlobalDescriptorTable>,
}

// SAFETY: all but the atomics is used by the CPU whose block it is, and read by others only when all is over.
unsafe impl Sync for PerCpu {}

impl PerCpu {
    const fn new() -> Self {
        Self {
            this: Cell::new(core::ptr::null()),
            user_rsp: Cell::new(0),
            kernel_rsp: Cell::new(0),
            number: Cell::new(0),
            apic: AtomicU32::new(0),
            nmis: Cell::new(0),
            state: AtomicU32::new(state::NEVER),
            current: AtomicUsize::new(0),
            last_user: Cell::new(None),
            preempt_off: Cell::new(0),
            resched: Cell::new(false),
            random: Cell::new(0),
            xfd: Cell::new(0),
            fpu: CpuFpu::new(),
            counters: Counters::new(),
            tss: UnsafeCell::new(TaskStateSegment::new()),
            gdt: UnsafeCell::new(GlobalDescriptorTable::empty()),
        }
    }

    /// The slot of the task that runs here.
    pub fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Makes the task of a slot, with its kernel stack, the one that runs here, before its stack is.
    ///
    /// # Safety
    ///
    /// This is the caller's CPU, interrupts are off, and that stack is switched to before they are on.
    pub unsafe fn set_current(&self, slot: usize, stack_top: u64) {
        self.current.store(slot, Ordering::Relaxed);
        self.kernel_rsp.set(stack_top);
        // SAFETY: this CPU's own, with interrupts off; the processor reads the word at entries only.
        unsafe { (*self.tss.get()).privilege_stack_table[0] = VirtAddr::new_truncate(stack_top) };
    }

    /// The first byte above the stack of its non-maskable interrupts.
    pub fn nmi_stack_top(&self) -> u64 {
        NMI_STACKS[self.number.get() as usize].top().as_u64()
    }

    /// Starts this CPU's own sequence, which goes on when the CPU starts again.
    pub fn seed(&self, seed: u64) {
        let number = u64::from(self.number.get());
        self.random
            .set((seed << 8).wrapping_add(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(number + 1)));
    }

    /// The next word of this CPU's own sequence.
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }
}

static CPUS: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];
/// For interrupts that come with interrupts off. Not in the blocks, which are in the image.
static NMI_STACKS: [Stack; MAX_CPUS] = [const { Stack::new() }; MAX_CPUS];
static DOUBLE_FAULT_STACKS: [Stack; MAX_CPUS] = [const { Stack::new() }; MAX_CPUS];

/// A CPU's block by its number.
pub fn by_number(number: usize) -> Option<&'static PerCpu> {
    CPUS.get(number)
}
/// All blocks.
pub fn all() -> &'static [PerCpu] {
    &CPUS
}

/// This CPU's.
#[inline(always)]
pub fn this_cpu() -> &'static PerCpu {
    let this: *const PerCpu;
    // SAFETY: in the kernel, GS is the base of this CPU's block, whose first word is its own address. Not
    // `pure`: after a switch of stacks it may be another CPU's.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, readonly));
        &*this
    }
}

/// From here on the code stays on its CPU, which it gets.
pub fn preempt_off() -> &'static PerCpu {
    // With interrupts off in between, so that the block is that of the CPU where it is counted.
    interrupts::without_interrupts(|| {
        let cpu = this_cpu();
        cpu.preempt_off.set(cpu.preempt_off.get() + 1);
        cpu
    })
}

/// The other end; a preemption that was due comes with the next interrupt, or on the way to user mode.
pub fn preempt_on() {
    let cpu = this_cpu();
    cpu.preempt_off.set(cpu.preempt_off.get() - 1);
}

/// The second is without a stack of their own for NMIs, for the fault that wants it.
static IDT: [Once<InterruptDescriptorTable>; 2] = [const { Once::new() }; 2];

extern "C" {
    fn syscall_entry();
}

/// Sets up this CPU's tables and registers, at its first start and at each later one.
///
/// # Safety
///
/// Interrupts are off, and no other CPU has this number.
pub unsafe fn init(number: usize, seed: u64) -> &'static PerCpu {
    let cpu = &CPUS[number];
    cpu.this.set(cpu);
    cpu.number.set(number as u32);
    cpu.apic.store(apic::id().into(), Ordering::Relaxed);
    cpu.preempt_off.set(0);
    cpu.resched.set(false);
    if cpu.random.get() == 0 {
        cpu.seed(seed);
    }
    // SAFETY: this CPU's own tables, which it does not use yet (or, started again, not any more).
    let (tss, gdt) = unsafe { (&mut *cpu.tss.get(), &mut *cpu.gdt.get()) };
    *tss = TaskStateSegment::new();
    tss.interrupt_stack_table[usize::from(IST_NMI)] = NMI_STACKS[number].top();
    tss.interrupt_stack_table[usize::from(IST_DOUBLE_FAULT)] = DOUBLE_FAULT_STACKS[number].top();
    *gdt = GlobalDescriptorTable::empty();
    gdt.append(Descriptor::kernel_code_segment());
    gdt.append(Descriptor::kernel_data_segment());
    gdt.append(Descriptor::user_data_segment());
    gdt.append(Descriptor::user_code_segment());
    // SAFETY: the segment is in a static.
    let tss_selector = gdt.append(unsafe { Descriptor::tss_segment_unchecked(tss) });
    let nmi_on_ist = !seeded::on(Fault::NmiWithoutIst);
    let idt = IDT[usize::from(!nmi_on_ist)].call_once(|| {
        let mut idt = InterruptDescriptorTable::new();
        entry::fill(&mut idt, nmi_on_ist);
        idt
    });
    // SAFETY: tables in statics, selectors of the table just filled; the GS base is set after the selector,
    // whose load clears it.
    unsafe {
        gdt.load_unsafe();
        CS::set_reg(SegmentSelector(KERNEL_CS));
        SS::set_reg(SegmentSelector(KERNEL_SS));
        for set in [DS::set_reg, ES::set_reg, FS::set_reg, GS::set_reg] {
            set(SegmentSelector(0));
        }
        x86_64::instructions::tables::load_tss(tss_selector);
        idt.load();
        Efer::update(|efer| {
            *efer |= EferFlags::SYSTEM_CALL_EXTENSIONS | EferFlags::NO_EXECUTE_ENABLE
        });
    }
    GsBase::write(VirtAddr::from_ptr(cpu));
    KernelGsBase::write(VirtAddr::zero());
    // SYSCALL takes the first selector, and the next for SS; this kernel returns by IRETQ.
    // SAFETY: selectors of the table.
    unsafe { Star::write_raw(0, KERNEL_CS) };
    LStar::write(VirtAddr::new_truncate(syscall_entry as *const () as u64));
    SFMask::write(RFlags::INTERRUPT_FLAG | RFlags::DIRECTION_FLAG | RFlags::TRAP_FLAG);
    cpu
}
