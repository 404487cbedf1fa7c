//! A simulated CPU with bound contexts, and the witnesses that name them.
#![allow(dead_code)] // no test uses all of it

use fpu_core::{BoundCpu, BoundFpu, BoundSlot, KernelFpu, KernelUnits};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{
        Interrupted, IrqsOff, Nmi, Preempt, Registers, SimArea, SimCpu, SimFpu, SimWords, Witness,
        COMPONENTS,
    },
};

/// Contexts of one CPU.
pub const SLOTS: usize = 3;
pub type Slots = BoundCpu<SimFpu, SimArea, [BoundSlot<SimFpu, SimArea>; SLOTS]>;
pub type Bound<'b> = BoundFpu<'b, SimFpu, SimArea>;

/// A CPU that owns contexts.
pub struct Machine {
    pub cpu: SimCpu,
    pub slots: Slots,
}

/// A witness, and whose contexts it names.
pub struct Named<'c, W>(pub W, pub &'c BoundCpu<SimFpu, SimArea>);

impl Machine {
    pub fn new(number: u32) -> Self {
        Self { cpu: SimCpu::online(number), slots: Slots::new(number) }
    }
    pub fn bound(&self) -> &BoundCpu<SimFpu, SimArea> {
        &self.slots
    }
    pub fn irqs_off(&self) -> Named<'_, Witness<'_, IrqsOff>> {
        Named(self.cpu.irqs_off(), self.bound())
    }
    pub fn preempt_off(&self) -> Named<'_, Witness<'_, Preempt>> {
        Named(self.cpu.preempt_off(), self.bound())
    }
    pub fn interrupted(&self) -> Named<'_, Witness<'_, Interrupted>> {
        Named(self.cpu.interrupted(), self.bound())
    }
    pub fn nmi(&self) -> Named<'_, Witness<'_, Nmi>> {
        Named(self.cpu.nmi(), self.bound())
    }
    pub fn bind(&self, task: Task) -> Bound<'_> {
        self.bound().bind(task, &mut self.irqs_off()).expect("a slot is free")
    }
    /// Whether the context enters user mode.
    pub fn enter(&self, task: &Bound<'_>) {
        drop(task.switch_return(&mut self.irqs_off()).expect("the CPU is free"));
    }
    /// Saves and restores so far.
    pub fn moves(&self) -> (u64, u64) {
        let totals = self.cpu.totals();
        (totals.saved, totals.restored)
    }
}

macro_rules! named {
    ($($kind:ident: $($promise:ident)*;)*) => {$(
        fpu_core::witness! {
            // SAFETY: K2-K9: those of the witness inside.
            unsafe impl Pinned + SoftFloat $(+ $promise)* for Named<'_, Witness<'_, $kind>> {
                backend: SimFpu = |it| it.0.backend(),
                words: SimWords = |it| it.0.words(),
                bound: |it| it.1,
                level: |it| it.0.level(),
                observe: |it, event| it.0.observe(event),
            }
        }
    )*};
}
named! { IrqsOff: Exclusive; Interrupted: Exclusive; Preempt: ; Nmi: ; }

/// All components.
pub const EVERY: u64 = (1 << COMPONENTS) - 1;

/// A machine whose bound task has run, and has left without a call.
pub fn postponed(machine: &Machine, present: u64) -> (Bound<'_>, Registers) {
    let task = machine.bind(new_task());
    let mine = Registers::pattern(41, present);
    machine.enter(&task);
    machine.cpu.fpu().load(&mine);
    (task, mine)
}
/// The bound task enters user mode, and finds its own.
pub fn finds(machine: &Machine, task: &Bound<'_>, mine: &Registers, what: &str) {
    machine.enter(task);
    assert_eq!(&machine.cpu.fpu().registers(), mine, "{what}: wrong registers");
}

/// A section, which overwrites all registers.
pub fn section_of(machine: &Machine, current: Option<&Task>) {
    let current = current.map(Task::context);
    let ran = machine.preempt_off().with_kernel_fpu(current, KernelUnits::ALL, || {
        machine.cpu.fpu().scribble(42);
    });
    ran.expect("free");
}
