//! The processor's side: SVM on a CPU, the control block of a virtual CPU, and the VM entry.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use raw_cpuid::{CpuIdReader, CpuIdReaderNative};
use x86_64::registers::{
    control::{Cr0, Cr3, Cr4, Efer},
    model_specific::Msr,
};

use crate::{cpu::PerCpu, params::MAX_CPUS};

/// CPUID.80000001h:ECX.
const SVM: u32 = 1 << 2;
const EFER: u32 = 0xC000_0080;
const EFER_SVME: u64 = 1 << 12;
const VM_CR: u32 = 0xC001_0114;
const VM_CR_SVMDIS: u64 = 1 << 4;
const VM_HSAVE_PA: u32 = 0xC001_0117;

/// What an exit is for.
pub mod exit {
    pub const EXCEPTION_0: u64 = 0x40;
    pub const INTR: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const CPUID: u64 = 0x72;
    pub const HLT: u64 = 0x78;
    pub const VMMCALL: u64 = 0x81;
}

/// A page at an address that the processor is told. The kernel's memory is mapped to itself.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);
// SAFETY: the processor of one CPU uses it, or the thread of one virtual CPU.
unsafe impl Sync for Page {}

impl Page {
    const fn new() -> Self {
        Self(UnsafeCell::new([0; 4096]))
    }
    fn address(&self) -> u64 {
        self.0.get() as u64
    }
}

/// Where VMRUN keeps the host.
static HOSTS: [Page; MAX_CPUS] = [const { Page::new() }; MAX_CPUS];
static AVAILABLE: AtomicBool = AtomicBool::new(false);

/// Does the processor have SVM?
pub fn available() -> bool {
    AVAILABLE.load(Relaxed)
}

/// Looks.
///
/// # Safety
///
/// Ring 0.
pub unsafe fn detect() {
    let cpuid = CpuIdReaderNative;
    let offered = cpuid.cpuid2(0x8000_0000, 0).eax > 0x8000_0000
        && cpuid.cpuid2(0x8000_0001, 0).ecx & SVM != 0;
    // SAFETY: CPUs with SVM have the register.
    let there = offered && unsafe { Msr::new(VM_CR).read() } & VM_CR_SVMDIS == 0;
    AVAILABLE.store(there, Relaxed);
}

/// Turns SVM on, each time that a CPU starts.
///
/// # Safety
///
/// Ring 0, interrupts are off, and this is the caller's CPU.
pub unsafe fn enable(cpu: &PerCpu) {
    if !available() {
        return;
    }
    let page = HOSTS[cpu.number.get() as usize].address();
    // SAFETY: the processor has SVM, and the page is this CPU's.
    unsafe {
        Msr::new(EFER).write(Msr::new(EFER).read() | EFER_SVME);
        Msr::new(VM_HSAVE_PA).write(page);
    }
}

/// A virtual CPU's control block.
pub struct Vmcb(Page);

/// Offsets in it (APM vol. 2, appendix B).
mod at {
    pub const EXCEPTIONS: usize = 0x008;
    pub const INTERCEPTS: usize = 0x00C;
    pub const INTERCEPTS_SVM: usize = 0x010;
    pub const ASID: usize = 0x058;
    pub const TLB_CONTROL: usize = 0x05C;
    pub const V_INTR: usize = 0x060;
    pub const EXITCODE: usize = 0x070;
    pub const ES: usize = 0x400;
    pub const CS: usize = 0x410;
    pub const SS: usize = 0x420;
    pub const DS: usize = 0x430;
    pub const EFER: usize = 0x4D0;
    pub const CR4: usize = 0x548;
    pub const CR3: usize = 0x550;
    pub const CR0: usize = 0x558;
    pub const DR7: usize = 0x560;
    pub const DR6: usize = 0x568;
    pub const RFLAGS: usize = 0x570;
    pub const RIP: usize = 0x578;
    pub const RAX: usize = 0x5F8;
}

/// INTR, NMI, CPUID, HLT, shutdown; VMRUN (which must be), VMMCALL, XSETBV.
const INTERCEPTED: u32 = 1 | 1 << 1 | 1 << 18 | 1 << 24 | 1 << 31;
const INTERCEPTED_SVM: u32 = 1 | 1 << 1 | 1 << 13;
/// Interrupts are taken as the host's RFLAGS.IF says, whatever the guest's.
const V_INTR_MASKING: u64 = 1 << 24;
/// Present, 64 bits, ring 0; and data.
const CODE: u16 = 0xA9B;
const DATA: u16 = 0xC93;
const CR4_OSXSAVE: u64 = 1 << 18;

impl Vmcb {
    pub const fn new() -> Self {
        Self(Page::new())
    }

    fn put<T>(&self, offset: usize, value: T) {
        // SAFETY: an aligned field of the page, which only the thread of its virtual CPU uses.
        unsafe { self.0 .0.get().cast::<u8>().add(offset).cast::<T>().write_volatile(value) }
    }
    fn get(&self, offset: usize) -> u64 {
        // SAFETY: as for `put`.
        unsafe { self.0 .0.get().cast::<u8>().add(offset).cast::<u64>().read_volatile() }
    }

    /// Of a virtual CPU that begins at `rip` in ring 0, in the kernel's own address space, with interrupts off. Everything
    /// that it may do exits, exceptions too.
    pub fn prepare(&self, number: u32, rip: u64) {
        self.put(at::EXCEPTIONS, u32::MAX);
        self.put(at::INTERCEPTS, INTERCEPTED);
        self.put(at::INTERCEPTS_SVM, INTERCEPTED_SVM);
        self.put(at::ASID, number + 1);
        // All of it, at each entry.
        self.put(at::TLB_CONTROL, 1u8);
        self.put(at::V_INTR, V_INTR_MASKING);
        for (offset, selector, attributes) in
            [(at::CS, 0x08, CODE), (at::SS, 0x10, DATA), (at::DS, 0, DATA), (at::ES, 0, DATA)]
        {
            self.put(offset, selector);
            self.put(offset + 2, attributes);
            self.put(offset + 4, u32::MAX);
        }
        self.put(at::DR6, 0xFFFF_0FF0u64);
        self.put(at::DR7, 0x400u64);
        self.put(at::RFLAGS, 2u64);
        self.put(at::RIP, rip);
    }

    /// Gives it the host's address space and control registers, but for CR4.OSXSAVE.
    pub fn set_controls(&self, xsave: bool) {
        let osxsave = if xsave { CR4_OSXSAVE } else { 0 };
        let (table, flags) = Cr3::read_raw();
        self.put(at::CR0, Cr0::read_raw());
        self.put(at::CR3, table.start_address().as_u64() | u64::from(flags));
        self.put(at::CR4, Cr4::read_raw() & !CR4_OSXSAVE | osxsave);
        self.put(at::EFER, Efer::read_raw());
    }

    pub fn exit_code(&self) -> u64 {
        self.get(at::EXITCODE)
    }
    pub fn rip(&self) -> u64 {
        self.get(at::RIP)
    }
    /// Goes on behind an instruction of so many bytes.
    pub fn skip(&self, bytes: u64) {
        self.put(at::RIP, self.rip() + bytes);
    }
    pub fn rax(&self) -> u64 {
        self.get(at::RAX)
    }
    pub fn set_rax(&self, value: u64) {
        self.put(at::RAX, value);
    }

    /// VMRUN, until the guest exits. RBX, RCX, RDX and RDI are the guest's.
    ///
    /// # Safety
    ///
    /// Interrupts and GIF are off, `enable` was called on this CPU, and the guest does what vcpu.s says.
    pub unsafe fn run(&self, general: &mut [u64; 4]) {
        extern "C" {
            fn svm_run(vmcb: u64, general: *mut [u64; 4]);
        }
        // SAFETY: the caller's.
        unsafe { svm_run(self.0.address(), general) }
    }
}

/// Clears GIF: no interrupt comes, and no NMI either.
///
/// # Safety
///
/// [`enable`] was called on this CPU.
pub unsafe fn clgi() {
    // SAFETY: EFER.SVME is set, by the caller. Not `nomem`: accesses stay on their side.
    unsafe { core::arch::asm!("clgi", options(nostack, preserves_flags)) }
}

/// Sets GIF.
///
/// # Safety
///
/// As for [`clgi`].
pub unsafe fn stgi() {
    // SAFETY: as for `clgi`.
    unsafe { core::arch::asm!("stgi", options(nostack, preserves_flags)) }
}
