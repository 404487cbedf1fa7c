//! A kernel of types only: what the cases use rightly or wrongly. Nothing here is ever run.
#![allow(dead_code)]

use core::ptr::NonNull;
use fpu_core::*;

macro_rules! backend {
    ($name:ident) => {
        pub struct $name;
        // SAFETY: never run.
        unsafe impl RawFpu for $name {
            type Image<'a> = &'a u64;
            type ImageMut<'a> = &'a mut u64;
            fn area_len(&self) -> usize {
                64
            }
            fn area_align(&self) -> usize {
                64
            }
            unsafe fn write_initial(&self, _: NonNull<u8>) {}
            unsafe fn save(&self, _: NonNull<u8>) {}
            unsafe fn restore(&self, _: NonNull<u8>) -> Result<(), RestoreFault> {
                Ok(())
            }
            unsafe fn kernel_defaults(&self, _: KernelUnits) {}
            unsafe fn image<'a>(&'a self, area: NonNull<u8>) -> &'a u64 {
                // SAFETY: never run.
                unsafe { area.cast().as_ref() }
            }
            unsafe fn image_mut<'a>(&'a self, area: NonNull<u8>) -> &'a mut u64 {
                // SAFETY: never run.
                unsafe { area.cast().as_mut() }
            }
        }
    };
}
backend!(Xsave);
backend!(Fxsave);
// SAFETY: never run.
unsafe impl StepsFpu for Xsave {}

/// Interrupts off, in a kernel compiled soft-float.
pub struct IrqOff(CpuFpu);
/// Preemption off, interrupts on.
pub struct PreemptOff(CpuFpu);
/// Interrupts off, in a kernel compiled with vector instructions.
pub struct VectorKernel(CpuFpu);
/// Proof that a task does not run.
pub struct Debugger<'t>(pub &'t Task);

impl IrqOff {
    pub fn new() -> Self {
        Self(CpuFpu::new())
    }
}
impl PreemptOff {
    pub fn new() -> Self {
        Self(CpuFpu::new())
    }
}
impl VectorKernel {
    pub fn new() -> Self {
        Self(CpuFpu::new())
    }
}

pub fn the_backend() -> &'static TheBackend<Xsave> {
    // SAFETY: K1: never run.
    unsafe { TheBackend::from_ref(&Xsave) }
}

witness! {
    // SAFETY: never run.
    unsafe impl Pinned + Exclusive + SoftFloat for IrqOff {
        backend: Xsave = |_| the_backend(),
        words: CpuFpu = |cpu| &cpu.0,
    }
    // SAFETY: never run.
    unsafe impl Pinned + SoftFloat for PreemptOff {
        backend: Xsave = |_| the_backend(),
        words: CpuFpu = |cpu| &cpu.0,
    }
    // SAFETY: never run.
    unsafe impl Pinned + Exclusive for VectorKernel {
        backend: Xsave = |_| the_backend(),
        words: CpuFpu = |cpu| &cpu.0,
    }
    // SAFETY: never run.
    unsafe impl Stopped for Debugger<'_> {
        backend: Xsave = |_| the_backend(),
        context: |proof| proof.0.context(),
    }
}

pub type Task = TaskFpu<Xsave, Area<64>>;

/// The way to user mode.
pub fn enter_user(_ready: UserReady<'_, IrqOff>) {}
