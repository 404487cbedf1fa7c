//! What this machine's registers are, and the ones that the library does not switch.

use core::{
    arch::x86_64::__cpuid_count,
    ptr::NonNull,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use fpu_core::RawFpu;
use fpu_x86::{Components, SaveInstruction};
use x86_64::registers::model_specific::Msr;

use crate::{amx, fpu, regs::Classes};

/// IA32_PL3_SSP, which is part of the supervisor component CET_U.
const PL3_SSP: u32 = 0x6A7;

static CLASSES: AtomicU32 = AtomicU32::new(0);
static SSP: AtomicBool = AtomicBool::new(false);
static BAD_IMAGES: AtomicBool = AtomicBool::new(false);
static KEYS_APPLY: AtomicBool = AtomicBool::new(false);

/// Finds out, once the plan is decided and enabled on this CPU.
///
/// # Safety
///
/// Nobody needs what is in the registers, and the CPU's word is not open.
pub unsafe fn detect() {
    let plan = fpu::plan();
    // Past the last leaf a CPU answers with another's words.
    let last = __cpuid_count(0, 0).eax;
    let ebx = if last >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
    let mut classes = Classes::BASE;
    if plan.xcr0().contains(Components::AVX) && plan.save_instruction() != SaveInstruction::Fxsave {
        classes = classes.with(Classes::AVX);
        if plan.xcr0().contains(Components::AVX512) && ebx >> 16 & 1 != 0 {
            classes = classes.with(Classes::AVX512);
            if ebx >> 30 & 1 != 0 {
                classes = classes.with(Classes::WIDE_MASKS);
            }
        }
    }
    CLASSES.store(classes.bits(), Ordering::Relaxed);
    SSP.store(plan.xss().contains(Components::CET_U), Ordering::Relaxed);
    // SAFETY: the caller's.
    BAD_IMAGES.store(unsafe { refuses_bad_images() }, Ordering::Relaxed);
    // SAFETY: the caller's.
    unsafe { amx::detect(plan) };
}

/// The registers that tasks hold.
pub fn classes() -> Classes {
    let bits = CLASSES.load(Ordering::Relaxed);
    let there = |class: &Classes| bits & class.bits() != 0;
    let more = [Classes::AVX, Classes::AVX512, Classes::WIDE_MASKS];
    more.into_iter().filter(there).fold(Classes::BASE, Classes::with)
}
/// Tells whether there are protection keys.
pub fn has_pkru() -> bool {
    fpu::KEYS.are_on()
}
/// Tells whether the plan switches the shadow-stack pointer.
pub fn has_ssp() -> bool {
    SSP.load(Ordering::Relaxed)
}
/// Tells whether the processor (or its emulator) applies PKRU to the kernel's accesses.
pub fn keys_apply() -> bool {
    KEYS_APPLY.load(Ordering::Relaxed)
}
/// Whoever has tried one says so.
pub fn set_keys_apply(apply: bool) {
    KEYS_APPLY.store(apply, Ordering::Relaxed);
}
/// Tells whether the processor (or its emulator) refuses an image that [`spoil`] has spoilt.
pub fn bad_images() -> bool {
    BAD_IMAGES.load(Ordering::Relaxed)
}

/// The shadow-stack pointer of user mode; 0 where the plan does not switch it.
pub fn read_ssp() -> u64 {
    if !has_ssp() {
        return 0;
    }
    // SAFETY: CPUID lists CET_U in IA32_XSS, so there is the register.
    unsafe { Msr::new(PL3_SSP).read() }
}
/// Sets it, to an address of the lower half that is a multiple of 8.
///
/// # Safety
///
/// The registers are a section's, or a fault's that leaves the section out, or those of the current task as
/// if it had done it in user mode. (Shadow stacks are off, so it is a register like another.)
pub unsafe fn write_ssp(ssp: u64) {
    if has_ssp() {
        // SAFETY: CPUID lists CET_U in IA32_XSS, so there is the register; the value is canonical and aligned.
        unsafe { Msr::new(PL3_SSP).write(ssp & 0x7FFF_FFFF_FFF8) };
    }
}

/// Breaks an image: a component that there is not, or (FXSAVE) a reserved bit of MXCSR.
///
/// # Safety
///
/// `area` is an image of the caller's own that no other code uses meanwhile. It is no image of the backend's any
/// more, so
/// the next restore breaks its C9: it must be refused, which [`bad_images`] says of this processor.
pub unsafe fn spoil(area: NonNull<u8>) {
    let (at, bit) = match fpu::plan().save_instruction() {
        SaveInstruction::Fxsave => (24 + 3, 0x80),
        _ => (512 + 7, 0x40),
    };
    // SAFETY: the caller's; areas have 576 bytes at least, FXSAVE's 512.
    unsafe { *area.as_ptr().add(at) |= bit };
}

/// # Safety
///
/// As for [`detect`].
unsafe fn refuses_bad_images() -> bool {
    #[repr(C, align(64))]
    struct Image([u8; 12288]);
    static mut IMAGE: Image = Image([0; 12288]);
    let plan = fpu::plan();
    let area = NonNull::new((&raw mut IMAGE).cast::<u8>());
    let Some(area) = area.filter(|_| RawFpu::area_len(plan) <= size_of::<Image>()) else {
        return false;
    };
    // SAFETY: C9: a static of this function, which is called once; C10: the caller's.
    unsafe {
        plan.write_initial(area);
        spoil(area);
        let refused = plan.restore(area).is_err();
        // Some emulators take the reserved bit; it must not stay.
        plan.write_initial(area);
        plan.restore(area).is_ok() && refused
    }
}
