//! What the models' kernel does on a CPU: switches, sections, interrupts, and the power.

use fpu_core_loom::{
    session::ReadSession, CpuLifecycle, CpuWords, Error, FpuRef, KernelFpu, KernelUnits, Level,
};
use std::{rc::Rc, sync::Arc};

use super::{
    backend::Registers,
    cover::cover,
    cpu::{Cpu, Pin},
    fault::{forgets, Embedder},
    ghost::{Regs, INITIAL, KERNEL_DATA, KERNEL_DEFAULTS, UNDEFINED},
    irq::tick,
    machine::{told, Machine, Slot, Task},
};

impl Cpu {
    /// Brings one online.
    #[must_use]
    pub fn online(machine: &Arc<Machine>, number: u32) -> Rc<Self> {
        let cpu = Self::offline(machine, number);
        cpu.power_on();
        Rc::new(cpu)
    }
    /// Has the kernel taken it offline?
    pub fn is_offline(&self) -> bool {
        self.going_offline.get()
    }

    /// User mode: the registers must be the task's. As a rule its code changes them.
    pub fn user(&self, task: &Task) {
        task.ghost.judge(self.registers.get(), "user mode");
        if self.registers.disables() == task.fpu.room(&self.pinned()) {
            panic!("another's IA32_XFD: task {:?} in user mode", task.ghost);
        }
        if !self.users_only_look.get() {
            self.registers.fill(task.ghost.user_writes());
        }
        if task.runs_on(self.number) {
            cover("migrated");
        }
    }
    /// From now on user code here only looks, so that the backend can leave out a save (B7).
    pub fn users_only_look(&self, so: bool) {
        self.users_only_look.set(so);
    }
    /// Switches a task in, which enters user mode and leaves it.
    ///
    /// # Errors
    ///
    /// Those of `switch_return`.
    pub fn enter(&self, task: &Arc<Task>) -> Result<(), Error> {
        self.set_current(Some(task));
        let skipped = self.counters.totals().skipped;
        if !forgets(Embedder::NoReturn) {
            let mut token = self.irq_off();
            match task.fpu.switch_return(&mut token) {
                Err(why) if !forgets(Embedder::IgnoresReturnError) => return Err(why),
                // The kernel uses the core's answer too late.
                Ok(_) if forgets(Embedder::ClobbersAfterReturn) => {}
                _ => {
                    if self.going_offline.get() {
                        panic!("offline CPU used: task {:?} entered user mode", task.ghost)
                    }
                    self.user(task);
                    if self.counters.totals().skipped > skipped {
                        cover("restore skipped");
                    }
                    return Ok(());
                }
            }
        }
        if forgets(Embedder::ClobbersAfterReturn) {
            self.section();
        }
        self.user(task);
        Ok(())
    }
    /// The same where the core must not refuse.
    pub fn run(&self, task: &Arc<Task>) {
        must(self.enter(task), "return to user mode");
    }
    /// Switches a task out.
    pub fn leave(&self, task: &Arc<Task>) {
        if !forgets(Embedder::NoPrepare) {
            must(task.fpu.switch_prepare(&self.irq_off()), "switch out");
        }
        if forgets(Embedder::KernelUsesRegisters) {
            self.registers.fill(KERNEL_DATA);
        }
        self.set_current(None);
    }
    /// Switches a task in, and out again after user mode.
    pub fn run_once(&self, task: &Arc<Task>) {
        self.run(task);
        self.leave(task);
    }
    /// Switches from one task to the next.
    pub fn switch(&self, from: &Arc<Task>, to: &Arc<Task>) {
        self.leave(if forgets(Embedder::PreparesNext) { to } else { from });
        self.run(to);
    }
    /// Switches a task out and puts it where other CPUs can take it.
    pub fn hand_over(&self, task: Arc<Task>, slot: &Slot) {
        if forgets(Embedder::HandsOverBeforePrepare) {
            slot.put(Arc::clone(&task));
            return self.leave(&task);
        }
        self.leave(&task);
        slot.put(task);
    }
    /// A turn of the scheduler: takes the slot's task, if no other CPU has taken it, and runs it once.
    pub fn turn(&self, slot: &Slot) -> bool {
        let Some(task) = slot.take() else { return false };
        self.run(&task);
        self.hand_over(task, slot);
        true
    }
    /// So many turns, one after the other.
    pub fn turns<const N: usize>(&self, slots: [&Slot; N]) {
        for slot in slots {
            self.turn(slot);
        }
    }
    /// The current task forks into another context.
    pub fn fork(&self, parent: &Task, child: &mut Task) {
        must(parent.fpu.fork_into(&mut self.pinned(), &mut child.fpu), "fork");
        child.ghost.expect(parent.ghost.expected());
    }
    /// The task begins anew, by exec.
    pub fn exec(&self, task: &Task) {
        if !forgets(Embedder::NoReset) {
            must(task.fpu.reset(&mut self.pinned()), "exec");
            cover("reset with the state in registers");
        }
        task.ghost.expect(INITIAL);
    }

    /// A kernel FPU section in task context.
    pub fn section(&self) {
        let current = self.current();
        let other = forgets(Embedder::SectionToldOther).then(|| Task::new(9));
        let current = match &other {
            Some(other) => Some(other.fpu.context()),
            None if forgets(Embedder::SectionToldNobody) => None,
            None => told(current.as_ref()),
        };
        must(self.section_at(Level::Task, current), "kernel section");
    }
    fn section_at(
        &self,
        level: Level,
        current: Option<FpuRef<'_, Registers>>,
    ) -> Result<(), Error> {
        let mut pin = self.pinned_at(level);
        let section = pin.kernel_fpu(current, KernelUnits::ALL)?;
        self.computes();
        drop(section);
        Ok(())
    }
    /// What kernel code does in a section.
    pub(super) fn computes(&self) {
        if self.in_section.replace(true) {
            panic!("section not exclusive: begun on CPU {} inside another", self.number);
        }
        let found = self.registers.get();
        if found != Regs::of(KERNEL_DEFAULTS) {
            panic!("section without defaults: {found:x?}");
        }
        self.registers.fill(KERNEL_DATA);
        tick();
        if self.registers.get() != Regs::of(KERNEL_DATA) {
            panic!("section not exclusive: its registers changed to {:x?}", self.registers.get());
        }
        self.in_section.set(false);
    }
    /// An interrupt handler that uses vector code if it may.
    pub fn irq(&self) {
        let current = self.current();
        match self.section_at(Level::HardIrq, told(current.as_ref())) {
            Ok(()) => cover("interrupt ran a section"),
            Err(Error::Busy) => cover("interrupt refused"),
            Err(Error::CpuOffline) if self.going_offline.get() => cover("interrupt refused"),
            Err(why) => panic!("wrong error: an interrupt's section was refused with {why:?}"),
        }
    }
    /// A non-maskable interrupt that tries a section, and every other call.
    pub fn nmi(&self) {
        let current = self.current();
        let said = forgets(Embedder::NmiSaidToBeIrq);
        let level = if said { Level::HardIrq } else { Level::Nmi };
        match self.section_at(level, told(current.as_ref())) {
            Err(Error::Nmi) => cover("NMI refused"),
            _ if said => return,
            other => panic!("wrong error: an NMI's section ended in {other:?}"),
        }
        let mut pin = self.pinned_at(level);
        let refused = |result| assert_eq!(result, Err(Error::Nmi), "wrong error: in an NMI");
        refused(pin.fpu_offline());
        refused(pin.fpu_resume());
        if let Some(task) = current {
            refused(task.fpu.open(&mut pin).map(drop));
            refused(task.fpu.reset(&mut pin));
            refused(pin.run_guest(task.fpu.context(), None, || ()));
        }
    }

    /// Takes it offline and cuts the power: the registers are lost, and the words are kept.
    pub fn power_off(&self) {
        if forgets(Embedder::OfflineNotCalled) {
            return self.registers.fill(UNDEFINED);
        }
        self.going_offline.set(true);
        must(self.pinned().fpu_offline(), "going offline");
        self.registers.fill(UNDEFINED);
        if forgets(Embedder::WordsZeroed) {
            // SAFETY: none; this is the fault.
            unsafe { self.words().set_resident(0) };
        }
    }
    /// Brings it online.
    pub fn power_on(&self) {
        if forgets(Embedder::OfflineNotCalled) && !self.going_offline.get() {
            return;
        }
        let shared = forgets(Embedder::SharedCpuNumber);
        let number = if shared { self.number % 2 } else { self.number };
        // SAFETY: K15: each CPU of a model has its number to itself. K16: no other code touches the words.
        must(unsafe { self.pinned().fpu_online(number) }, "coming online");
        self.going_offline.set(false);
    }
    /// Suspend and resume: the registers are lost.
    pub fn suspend(&self) {
        self.registers.fill(UNDEFINED);
        if !forgets(Embedder::ResumeNotCalled) {
            must(self.pinned().fpu_resume(), "resume");
        }
    }
}

/// The value. Where the core must not refuse, an error is the violation that it names.
pub fn must<T>(result: Result<T, Error>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(why @ Error::Lost) => panic!("unsaved state lost: {what}: {why:?}"),
        Err(why @ Error::LiveElsewhere { .. }) => {
            panic!("unsaved state elsewhere: {what}: {why:?}")
        }
        Err(why) => panic!("refused: {what}: {why:?}"),
    }
}

/// Opens a session of a task and reads the image, which must hold what the task's registers held last.
pub fn read<'s, 'c>(task: &'s Task, pin: &'s mut Pin<'c>) -> ReadSession<'s, Pin<'c>> {
    let session = must(task.fpu.open(pin), "session").make_memory_valid_read();
    task.ghost.judge(session.image().get(), "a session's image");
    session
}
