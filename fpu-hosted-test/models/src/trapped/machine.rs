//! The machine: CPUs, contexts that were never used at first, an ordinary one beside, and what must hold of them.

use std::{
    cell::{Cell, RefCell},
    mem::align_of,
    rc::Rc,
};

use fpu_core::{
    trap::{switch, TrapError, Trapped},
    CpuFpu, CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits, Level, SaveArea, TaskFpu,
};

use super::{
    cpu::{Area, Context, Cpu, Line, Pin, Symbol, FIRST, INITIAL, OTHER},
    ops::{Move, Op, CPUS, TASKS},
};

/// The ordinary context's number.
pub(super) const PLAIN: usize = TASKS;

/// A machine. It has an address of its own, which the contexts keep.
pub(super) struct Machine {
    line: Rc<Line>,
    cpus: [Cpu; CPUS],
    tasks: [RefCell<Trapped<Context>>; TASKS],
    plain: Context,
    expected: [Cell<Symbol>; TASKS + 1],
    next: Cell<Symbol>,
}

fn context(cpu: &Cpu) -> Context {
    match TaskFpu::new(cpu.registers.the_backend(), Area::new()) {
        Ok(context) => context,
        Err(why) => unreachable!("{why}"),
    }
}
fn trapped(cpu: &Cpu) -> Trapped<Context> {
    // SAFETY: K22: symbols. K23: the operations keep it.
    match unsafe { Trapped::new(context(cpu), cpu.registers.the_backend()) } {
        Ok(trapped) => trapped,
        Err(why) => unreachable!("{why}"),
    }
}

impl Machine {
    /// All CPUs are online, and no context is current.
    pub(super) fn new() -> Rc<Self> {
        let line = Rc::<Line>::default();
        let cpus = [(); CPUS].map(|()| Cpu::new(&line));
        for (number, cpu) in (0..).zip(&cpus) {
            // SAFETY: K15, K16: each its own number, the words new.
            let online = unsafe { cpu.off().fpu_online(number) };
            assert_eq!(online, Ok(()));
        }
        let tasks = [(); TASKS].map(|()| RefCell::new(trapped(&cpus[0])));
        let plain = context(&cpus[0]);
        let (expected, next) = ([(); TASKS + 1].map(|()| Cell::new(INITIAL)), Cell::new(FIRST));
        Rc::new(Self { line, cpus, tasks, plain, expected, next })
    }
    pub(super) fn wrong(&self) -> Option<String> {
        self.line.wrong()
    }
    fn fresh(&self, of: usize) -> Symbol {
        let symbol = self.next.replace(self.next.get() + 1);
        self.expected[of].set(symbol);
        symbol
    }
    fn is_current(&self, which: usize) -> bool {
        self.cpus.iter().any(|cpu| cpu.current.get() == Some(which))
    }
    fn is_used(&self, which: usize) -> bool {
        which == PLAIN || self.tasks[which].borrow().is_used()
    }
    fn must<E: core::fmt::Debug>(&self, what: &str, result: Result<(), E>) {
        if let Err(why) = result {
            self.line.report(format!("{what} is refused: {why:?}"));
        }
    }
    fn enters(&self, cpu: &Cpu, which: usize) -> Result<(), Error> {
        match which {
            PLAIN => self.plain.switch_in(&mut cpu.off()),
            _ => self.tasks[which].borrow().switch_return(&mut cpu.off()).map(drop),
        }
    }

    /// Tells whether a right kernel may do this now.
    pub(super) fn allows(&self, Move { cpu, op, which, .. }: Move) -> bool {
        let cpu = &self.cpus[cpu];
        let (current, online) = (cpu.current.get(), cpu.words.gate() >> 63 == 1);
        let free = !self.is_current(which);
        let task = which != PLAIN;
        let mine = current.is_some_and(|current| current != PLAIN);
        match op {
            Op::Takes => online && current.is_none() && free,
            Op::Leaves | Op::Scalar | Op::Looks | Op::Writes => current == Some(which),
            Op::SwitchesIn => online && current.is_none() && free && task,
            Op::Switches => mine && task && (free || current == Some(which)),
            Op::SwitchesOut | Op::Exec => current == Some(which) && task,
            Op::UseFails => current == Some(which) && task && !self.is_used(which),
            Op::Section => online && current.unwrap_or(0) == which,
            Op::Debugger => online && task && (free || current == Some(which)),
            Op::Fork => mine && task && free,
            Op::Exit => online && task && free,
            Op::Idle | Op::Offline => online && current.is_none() && which == 0,
            Op::Online => !online && which == 0,
        }
    }

    /// Carries it out, and tells whether the operation had the step at which the interrupt is due.
    pub(super) fn carry_out(self: &Rc<Self>, step: Move) -> bool {
        let this = Rc::clone(self);
        let handler = Box::new(move || this.interrupt(step.cpu));
        let struck = self.line.run(step.irq, handler, || self.operate(step));
        self.check();
        struck
    }

    /// A section, and the way back of a kernel without user mode.
    fn interrupt(&self, cpu: usize) {
        let cpu = &self.cpus[cpu];
        let (registers, current) = (&cpu.registers, cpu.current.get());
        let code = || registers.change(OTHER);
        let mut irq = Pin(cpu, Level::HardIrq);
        let ran = match current {
            None => irq.with_kernel_fpu(None, KernelUnits::ALL, code),
            Some(PLAIN) => irq.with_kernel_fpu(Some(self.plain.context()), KernelUnits::ALL, code),
            // A context that is held exclusively cannot be named: the handler does without.
            Some(which) => match self.tasks[which].try_borrow() {
                Ok(task) => task.with_kernel_fpu(&mut irq, KernelUnits::ALL, code),
                Err(_) => return,
            },
        };
        if !matches!(ran, Ok(()) | Err(Error::Busy | Error::CpuOffline)) {
            self.line.report(format!("an interrupt's section: {ran:?}"));
        }
        // Only an interrupt that ran a section has changed anything.
        if let (Some(which), Ok(())) = (current, ran) {
            self.must("the way back from an interrupt", self.enters(cpu, which));
        }
    }

    /// A task's code uses the registers, and the handler answers the trap.
    fn uses(&self, cpu: &Cpu, which: usize, writes: bool) {
        if cpu.registers.armed.get() {
            if which == PLAIN {
                return self.line.report("an ordinary context meets the trap");
            }
            self.must("a first use", self.tasks[which].borrow().first_use(&mut cpu.off()));
            if cpu.registers.armed.get() {
                return self.line.report("the trap stays armed after the first use");
            }
        } else if !self.is_used(which) {
            return self.line.report("a context that was never used runs without the trap");
        }
        if which != PLAIN {
            let again = self.tasks[which].borrow().first_use(&mut cpu.off());
            if again != Err(TrapError::NotOurs) {
                self.line.report(format!("a stray trap is answered: {again:?}"));
            }
        }
        if cpu.registers.holds.get() != self.expected[which].get() {
            self.line.report(format!("context {which} runs with wrong contents"));
        }
        if writes {
            cpu.registers.change(self.fresh(which));
        }
    }

    fn operate(&self, Move { cpu, op, which, .. }: Move) {
        let cpu = &self.cpus[cpu];
        let current = cpu.current.get();
        match op {
            Op::Takes | Op::Leaves => {
                let entered = match (op, which) {
                    (Op::Takes, _) => self.enters(cpu, which),
                    (_, PLAIN) => self.plain.switch_prepare(&cpu.off()),
                    _ => self.tasks[which].borrow().switch_prepare(&cpu.off()),
                };
                self.must("a switch", entered);
                cpu.current.set((op == Op::Takes).then_some(which));
            }
            Op::SwitchesIn | Op::Switches | Op::SwitchesOut => {
                let prev = current.map(|task| self.tasks[task].borrow());
                let next = (op != Op::SwitchesOut).then(|| self.tasks[which].borrow());
                let switched = switch(prev.as_deref(), next.as_deref(), &mut cpu.off());
                self.must("a whole switch", switched);
                cpu.current.set((op != Op::SwitchesOut).then_some(which));
            }
            Op::Scalar | Op::Looks | Op::Writes => {
                let _off = cpu.off();
                let entered = match which {
                    PLAIN => self.enters(cpu, which),
                    _ => self.tasks[which].borrow().switch_in(&mut cpu.off()),
                };
                self.must("the way to the task", entered);
                if op != Op::Scalar {
                    self.uses(cpu, which, op == Op::Writes);
                } else if !self.is_used(which) && !cpu.registers.armed.get() {
                    self.line.report("a context that was never used runs without the trap");
                }
            }
            Op::UseFails => {
                self.must("the way to the task", self.enters(cpu, which));
                cpu.registers.fails.set(true);
                let failed = self.tasks[which].borrow().first_use(&mut cpu.off());
                let armed = cpu.registers.armed.get() && !self.is_used(which);
                if !matches!(failed, Err(TrapError::Refused(Error::RestoreFailed(_)))) || !armed {
                    self.line.report(format!("a first use that fails: {failed:?}, armed {armed}"));
                }
            }
            Op::Section => self.section(cpu, current),
            Op::Debugger => {
                let task = self.tasks[which].borrow();
                let mut pin = Pin(cpu, Level::Task);
                let wrote = task.used(&mut pin).and_then(|context| {
                    let mut session = context.open(&mut pin)?.make_memory_valid_write();
                    *session.image_mut() = self.fresh(which);
                    Ok(())
                });
                self.must("a debugger", wrote);
            }
            Op::Fork => {
                let Some(parent) = current else { return };
                let mut child = self.tasks[which].borrow_mut();
                let parent_is = self.tasks[parent].borrow();
                let forked = parent_is.fork_into(&mut Pin(cpu, Level::Task), &mut child);
                self.must("a fork", forked);
                self.expected[which].set(self.expected[parent].get());
            }
            Op::Exec => {
                let mut task = self.tasks[which].borrow_mut();
                self.must("exec", task.reset(&mut Pin(cpu, Level::Task)));
                self.expected[which].set(INITIAL);
            }
            Op::Exit => {
                let old = self.tasks[which].replace(trapped(cpu));
                let _image = old.into_inner().into_area().len();
                self.expected[which].set(INITIAL);
            }
            Op::Idle => self.must("idle", cpu.off().fpu_idle().map(drop)),
            Op::Offline => {
                self.must("offline", cpu.off().fpu_offline());
                cpu.registers.change(OTHER);
                cpu.registers.armed.set(false);
            }
            // SAFETY: K15, K16: its number again, the words kept.
            Op::Online => self.must("online", unsafe { cpu.off().fpu_online(self.number(cpu)) }),
        }
    }

    fn number(&self, cpu: &Cpu) -> u32 {
        self.cpus.iter().position(|one| core::ptr::eq(one, cpu)).unwrap_or(0) as u32
    }

    fn section(&self, cpu: &Cpu, current: Option<usize>) {
        let was = cpu.registers.armed.get();
        let code = || {
            if cpu.registers.armed.get() {
                self.line.report("kernel code meets the trap");
            }
            cpu.registers.change(OTHER);
        };
        let mut pin = Pin(cpu, Level::Task);
        let ran = match current {
            None => pin.with_kernel_fpu(None, KernelUnits::ALL, code),
            Some(PLAIN) => pin.with_kernel_fpu(Some(self.plain.context()), KernelUnits::ALL, code),
            Some(which) => {
                self.tasks[which].borrow().with_kernel_fpu(&mut pin, KernelUnits::ALL, code)
            }
        };
        self.must("a section", ran);
        if was && !cpu.registers.armed.get() {
            self.line.report("a section leaves the trap disarmed");
        }
    }

    /// What holds between operations.
    fn check(&self) {
        for cpu in &self.cpus {
            let unused = cpu.current.get().is_some_and(|which| !self.is_used(which));
            if cpu.registers.armed.get() && !unused {
                self.line.report("the trap is armed for a context that is used, or for none");
            }
        }
        for which in 0..TASKS {
            if !self.is_used(which) && self.expected[which].get() != INITIAL {
                self.line.report(format!("context {which} counts as never used, and has contents"));
            }
        }
    }

    /// The first word of a context, and its image.
    fn words(&self, which: usize) -> (u64, u64, Symbol, usize) {
        let (state, context) = match which {
            PLAIN => (1, core::ptr::from_ref(&self.plain).cast::<u64>()),
            _ => {
                let at = self.tasks[which].as_ptr().cast::<u64>();
                let offset = align_of::<Context>().max(8) / 8;
                // SAFETY: rests on no duty: a `Trapped` is its state and then its context, by `repr(C)`; nothing runs.
                unsafe { (at.read(), at.add(offset).cast_const()) }
            }
        };
        let area = core::mem::size_of::<Context>() - core::mem::size_of::<Area>();
        // SAFETY: rests on no duty: a context is its word and then its area, by `repr(C)`; nothing runs.
        let (word, image) = unsafe { (context.read(), context.add(area / 8)) };
        // SAFETY: rests on no duty: an area holds an image from the beginning.
        (state, word, unsafe { image.read() }, image as usize)
    }

    /// What distinguishes states: stamps by whether they match a CPU's, contents by whose they are.
    pub(super) fn state(&self) -> Vec<u8> {
        let whose = |symbol: Symbol| {
            let bit = |which: usize| u8::from(self.expected[which].get() == symbol) << which;
            (0..=TASKS).map(bit).sum::<u8>() | u8::from(symbol == INITIAL) << 7
        };
        let number = |which: Option<usize>| which.map_or(0, |which| which as u8 + 1);
        let contexts: Vec<_> = (0..=TASKS).map(|which| self.words(which)).collect();
        let mut state = Vec::new();
        for cpu in &self.cpus {
            let from = contexts.iter().position(|c| c.3 == cpu.registers.restored_from.get());
            state.extend([
                number(cpu.current.get()),
                number(from),
                whose(cpu.registers.holds.get()),
            ]);
            state.extend([
                u8::from(cpu.registers.armed.get()),
                CpuFpu::gate(&cpu.words).rotate_left(1) as u8,
            ]);
            let matches = |bits: u64| u8::from(bits | 1 == cpu.words.resident() | 1);
            state.extend(contexts.iter().flat_map(|c| [matches(c.1), matches(c.0)]));
        }
        for (state_word, word, image, _) in contexts {
            let armed = if state_word > 1 { 2 } else { state_word as u8 };
            state.extend([armed, (word & 1) as u8, whose(image)]);
        }
        state
    }
}
