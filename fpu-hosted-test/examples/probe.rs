//! The hot paths, alone in functions, for the object-code check of the suite.
//!
//! The backend's save and restore are one marked instruction each, so that what is counted is the
//! protocol's own bookkeeping. The functions are what a kernel writes: on `Err` they go to a cold
//! function that does not return, on `Ok` they return.
#![allow(missing_docs)]

use core::{arch::asm, ptr::NonNull};
use fpu_core::*;

pub struct Marked;

// SAFETY: never run; B1-B7 hold for the marked instructions, which touch nothing.
unsafe impl RawFpu for Marked {
    type Image<'a> = ();
    type ImageMut<'a> = ();
    fn area_len(&self) -> usize {
        512
    }
    fn area_align(&self) -> usize {
        64
    }
    unsafe fn write_initial(&self, _: NonNull<u8>) {}
    #[inline(always)]
    unsafe fn save(&self, area: NonNull<u8>) {
        // SAFETY: never run; the shape of a save: reads the registers, writes memory.
        unsafe {
            asm!("prefetchnta byte ptr [{}] # SAVE", in(reg) area.as_ptr(), options(nostack, preserves_flags))
        }
    }
    #[inline(always)]
    unsafe fn restore(&self, area: NonNull<u8>) -> Result<(), RestoreFault> {
        // SAFETY: never run; the shape of a restore.
        unsafe {
            asm!("prefetcht2 byte ptr [{}] # RESTORE", in(reg) area.as_ptr(), options(nostack, preserves_flags))
        }
        Ok(())
    }
    unsafe fn kernel_defaults(&self, _: KernelUnits) {}
    unsafe fn image<'a>(&'a self, _: NonNull<u8>) {}
    unsafe fn image_mut<'a>(&'a self, _: NonNull<u8>) {}
}

pub struct Cpu<'a>(&'a CpuFpu);
// SAFETY: P1-P5: never run.
unsafe impl Pinned for Cpu<'_> {
    type Backend = Marked;
    type Words = CpuFpu;
    fn backend(&self) -> &Marked {
        &Marked
    }
    fn words(&self) -> &CpuFpu {
        self.0
    }
}
// SAFETY: E1: never run.
unsafe impl Exclusive for Cpu<'_> {}
// SAFETY: F1: never run.
unsafe impl SoftFloat for Cpu<'_> {}

#[cold]
#[inline(never)]
fn refused(why: Error) -> ! {
    panic!("{why}")
}

#[no_mangle]
pub extern "C" fn probe_switch_prepare(task: &TaskFpu<Marked, Area<512>>, cpu: &CpuFpu) {
    if let Err(why) = task.switch_prepare(&Cpu(cpu)) {
        refused(why)
    }
}

#[no_mangle]
pub extern "C" fn probe_switch_return(task: &TaskFpu<Marked, Area<512>>, cpu: &CpuFpu) {
    if let Err(why) = task.switch_return(&mut Cpu(cpu)) {
        refused(why)
    }
}

fn main() {
    let probes =
        [probe_switch_prepare as *const () as usize, probe_switch_return as *const () as usize];
    println!("{probes:?} are for objdump, not for running");
}
