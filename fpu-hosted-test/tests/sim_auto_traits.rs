//! What may cross threads, and what must not: a guard stands for one CPU.

use fpu_core::{
    observe::{Counters, Event, Totals},
    session::{Both, MemoryOnly, MemoryWritable, ReadSession, RegistersOnly, Session, TaskState},
    verify::{Scratch, VerifyError},
    Area, BoundCpu, BoundFpu, BoundSlot, CpuFpu, Error, FpuRef, HeapArea, KernelUnits, PendingSave,
    PendingUser, RawArea, Section, StoppedImageMut, StoppedTask, SwitchError, TaskFpu, UserReady,
};
use fpu_hosted_test::{
    doc::Cpu,
    sim::{IrqsOff, SimFpu, Witness},
};
use static_assertions::{assert_impl_all, assert_not_impl_any};

macro_rules! stay_on_their_cpu {
    ($($guard:ty),* $(,)?) => {$( assert_not_impl_any!($guard: Send, Sync, Clone); )*};
}

// The witness here is itself neither `Send` nor `Sync`, ...
stay_on_their_cpu!(Witness<'static, IrqsOff>, Cpu);

/// ... so the guards are looked at over a witness that is both: they must not be, by themselves.
mod everywhere {
    use super::*;

    pub struct AnyThread(CpuFpu);
    fpu_core::witness! {
        // SAFETY: K2-K9: no value is ever made.
        unsafe impl Pinned + Exclusive + SoftFloat for AnyThread {
            backend: SimFpu = |_| unreachable!("no value is ever made"),
            words: CpuFpu = |cpu| &cpu.0,
        }
    }

    assert_impl_all!(AnyThread: Send, Sync);
    stay_on_their_cpu!(
        UserReady<'static, AnyThread>,
        Section<'static, AnyThread>,
        TaskState<'static, AnyThread>,
        ReadSession<'static, AnyThread>,
        Session<'static, AnyThread, RegistersOnly>,
        Session<'static, AnyThread, Both>,
        Session<'static, AnyThread, MemoryOnly>,
        Session<'static, AnyThread, MemoryWritable>,
        PendingUser<'static, AnyThread>,
        PendingSave<'static, AnyThread>,
        StoppedTask<'static, SimFpu>,
        StoppedImageMut<'static, SimFpu>,
    );
}

assert_not_impl_any!(FpuRef<'static, SimFpu>: Send, Sync);
// A task's context goes with its task; whether the backend can does not matter.
assert_not_impl_any!(SimFpu: Sync);
assert_impl_all!(TaskFpu<SimFpu, Area<512>>: Send, Sync);
assert_impl_all!(TaskFpu<SimFpu, RawArea>: Send, Sync);
assert_impl_all!(TaskFpu<SimFpu, HeapArea>: Send, Sync);
assert_impl_all!(TaskFpu<SimFpu, Area<512, 16>>: Send, Sync);
assert_impl_all!(TaskFpu<SimFpu, Box<Area<512>>>: Send, Sync);
// Bound to its CPU by type; the CPU's array may be a static.
stay_on_their_cpu!(BoundFpu<'static, SimFpu, Area<512>>);
assert_impl_all!(BoundCpu<SimFpu, Area<512>, [BoundSlot<SimFpu, Area<512>>; 2]>: Send, Sync);
assert_not_impl_any!(BoundCpu<SimFpu, FpuRef<'static, SimFpu>, [BoundSlot<SimFpu, FpuRef<'static, SimFpu>>; 1]>: Sync);
assert_impl_all!(Scratch<SimFpu, Area<512>>: Send, Sync);
assert_impl_all!(VerifyError: Send, Sync, Copy);
assert_impl_all!(CpuFpu: Send, Sync);
assert_impl_all!(Counters: Send, Sync);
assert_impl_all!(Error: Send, Sync, Copy);
assert_impl_all!(SwitchError: Send, Sync, Copy);
assert_impl_all!(Event: Send, Sync, Copy);
assert_impl_all!(Totals: Send, Sync, Copy);
assert_impl_all!(KernelUnits: Send, Sync, Copy);

#[test]
fn a_context_is_one_word_and_its_area() {
    assert_eq!(core::mem::size_of::<TaskFpu<SimFpu, RawArea>>(), 8 + 16);
    // Its line is its own: each restore writes it.
    assert_eq!((core::mem::size_of::<CpuFpu>(), core::mem::align_of::<CpuFpu>()), (64, 64));
}
