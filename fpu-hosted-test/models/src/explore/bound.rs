//! Contexts that are bound to the first CPU, which owns them.
//!
//! Such a task leaves without a call, so one operation stands for its whole run, and every operation that follows finds a
//! context whose save is deferred.

use fpu_core::{session::TaskState, BoundError, CpuWords, Error, Level};

use super::{
    backend::{Cpu, Off, Pin},
    calls::Call,
    holder::{Bound, Holder},
    image::{Area, INITIAL},
    machine::{context, Machine},
    ops::{Move, Op, User},
    words::{number, GATE_OPEN},
};

impl Machine {
    pub(super) fn is_bound(&self, which: usize) -> bool {
        // What is borrowed exclusively is with its task.
        let holder = self.slots[which].fpu.try_borrow();
        holder.is_ok_and(|holder| matches!(&*holder, Holder::Bound(_)))
    }
    /// Tells whether no save is deferred on that CPU.
    pub(super) fn settled(&self, cpu: &Cpu) -> bool {
        (0..self.slots.len()).all(|it| !self.is_bound(it) || self.saved(it) || !self.held(cpu, it))
    }
    /// Tells whether a right kernel would do this now, with a bound context.
    pub(super) fn allows_bound(&self, step: Move) -> bool {
        let (cpu, which) = (&self.cpus[usize::from(step.cpu)], usize::from(step.context));
        if cpu.at != 0 || !self.is_bound(which) {
            return false;
        }
        match step.op {
            // It becomes current, and leaves.
            Op::BoundRuns(_) | Op::BoundRunsInside(_) => cpu.current.get().is_none(),
            Op::BoundFails => cpu.current.get().is_none() && !self.held(cpu, which),
            Op::BoundSession(does) => self.allows_does(cpu, which, does, self.free(cpu)),
            Op::BoundExit => cpu.is_open(),
            _ => true,
        }
    }

    /// Gives contexts to the first CPU: those between the tasks and the guest.
    pub(super) fn bind_some(&self, contexts: usize) {
        if contexts > 0 {
            // By each CPU when it was made, and by its witnesses whenever they are asked.
            self.call(Call::BoundNew);
            self.call(Call::SettleDue);
        }
        for which in self.guest() - contexts..self.guest() {
            let bound = self.bind(&self.cpus[0], which);
            debug_assert_eq!(bound, Ok(()));
        }
    }
    /// While a context goes from one holder to another, the slot is borrowed, so that nothing looks at it.
    fn bind(&self, cpu: &Cpu, which: usize) -> Result<(), Error> {
        let mut holder = self.slots[which].fpu.borrow_mut();
        let Holder::Own(own) = std::mem::replace(&mut *holder, Holder::Bound(None)) else {
            unreachable!("asked before")
        };
        self.call(Call::Bind);
        match cpu.bound().bind(own, &mut Off::new(cpu)) {
            Ok(bound) => *holder = Holder::Bound(Some(bound)),
            Err(BoundError { why, of }) => {
                *holder = Holder::Own(of);
                return Err(why);
            }
        }
        Ok(())
    }
    fn unbind(&self, cpu: &Cpu, which: usize) -> Result<(), Error> {
        let mut holder = self.slots[which].fpu.borrow_mut();
        let Holder::Bound(Some(bound)) = std::mem::replace(&mut *holder, Holder::Bound(None))
        else {
            unreachable!("asked before")
        };
        self.call(Call::Unbind);
        match bound.unbind(&mut Off::new(cpu)) {
            Ok(own) => *holder = Holder::Own(own),
            Err(BoundError { why, of }) => {
                *holder = Holder::Bound(Some(of));
                return Err(why);
            }
        }
        Ok(())
    }

    fn with_bound<T>(&self, which: usize, run: impl FnOnce(&Bound) -> T) -> T {
        match &*self.slots[which].fpu.borrow() {
            Holder::Bound(Some(bound)) => run(bound),
            _ => unreachable!("asked before"),
        }
    }
    /// Carries out an operation on a bound context.
    pub(super) fn apply_bound(&self, cpu: &Cpu, which: usize, op: Op) -> Result<(), Error> {
        let runs = |user| {
            if cpu.words.gate() != GATE_OPEN {
                self.line.report(|| String::from("user mode on a CPU that is not open"));
            }
            self.runs(cpu, which, user, "user mode of a bound task");
        };
        match op {
            Op::BoundRuns(user) => self.with_bound(which, |bound| {
                let mut off = Off::new(cpu);
                if user == User::Clears {
                    // Out of a session, where the registers are not live.
                    match bound.open(&mut off)? {
                        TaskState::RegistersOnly(session) => drop(session),
                        TaskState::Both(session) => {
                            drop(session.switch_return());
                            runs(user);
                            return Ok(());
                        }
                        TaskState::MemoryOnly(session) => {
                            drop(session.switch_return()?);
                            runs(user);
                            return Ok(());
                        }
                    }
                }
                self.call(Call::BoundReturn);
                let ready = bound.switch_return(&mut off)?;
                runs(user);
                drop(ready);
                Ok(())
            }),
            Op::BoundRunsInside(user) => self.with_bound(which, |bound| {
                self.call(Call::BoundIn);
                bound.switch_in(&mut Off::new(cpu))?;
                // Interrupts come between it and the return path.
                self.line.step();
                let mut off = Off::new(cpu);
                bound.switch_in(&mut off)?;
                runs(user);
                Ok(())
            }),
            Op::BoundFails => {
                cpu.registers.fails.set(true);
                self.with_bound(which, |bound| bound.switch_in(&mut Off::new(cpu)))
            }
            Op::BoundSession(does) => self.session(cpu, which, does),
            Op::BoundReset => {
                self.call(Call::BoundReset);
                self.with_bound(which, |bound| bound.reset(&mut Pin(cpu, Level::Task)))?;
                self.slots[which].expected.set(INITIAL);
                Ok(())
            }
            Op::Settle => {
                self.call(Call::Settle);
                cpu.bound().settle(&mut Off::new(cpu))?;
                if !self.settled(cpu) {
                    self.line.report(|| String::from("a save is deferred after it was due"));
                }
                Ok(())
            }
            Op::BoundExit => self.bound_exit(cpu, which),
            _ => self.moves_away(cpu, which),
        }
    }

    /// A bound context ends, and another one gets its slot. Nothing is saved.
    fn bound_exit(&self, cpu: &Cpu, which: usize) -> Result<(), Error> {
        let address = self.slots[which].fpu.borrow().address();
        let new = context(&cpu.registers, Area::new());
        drop(self.slots[which].fpu.replace(Holder::Own(new)));
        let saves = cpu.registers.saves.get();
        self.slots[which].expected.set(INITIAL);
        self.bind(cpu, which)?;
        let there = self.slots[which].fpu.borrow().address();
        if there != address || cpu.registers.saves.get() != saves {
            self.line.report(|| String::from("another slot, or a save of what has ended"));
        }
        Ok(())
    }

    /// A bound context is unbound, runs on another CPU where one is free, and is bound again; else it runs here, and is live
    /// when it is bound.
    fn moves_away(&self, cpu: &Cpu, which: usize) -> Result<(), Error> {
        self.unbind(cpu, which)?;
        let free =
            |there: &&Cpu| there.at != cpu.at && there.current.get().is_none() && there.is_open();
        {
            let own = self.slots[which].fpu.borrow();
            self.judge(which, Self::memory(&own), "the image of what was unbound");
            if let Some(there) = self.cpus.iter().find(free) {
                let mut off = Off::new(there);
                own.switch_return(&mut off).map(drop)?;
                self.runs(there, which, User::Writes, "what was unbound, on another CPU");
                own.switch_prepare(&off)?;
            } else if cpu.current.get().is_none() {
                own.switch_return(&mut Off::new(cpu)).map(drop)?;
                self.runs(cpu, which, User::Writes, "what was unbound, on its own CPU");
            }
        }
        self.bind(cpu, which)
    }

    /// Every other CPU refuses a bound context in any state, and changes nothing. Each CPU says whether its registers hold it.
    pub(super) fn bound_elsewhere(&self, which: usize) {
        let before = self.state();
        for cpu in &self.cpus {
            let (mut off, mut pin) = (Off::new(cpu), Pin(cpu, Level::Task));
            self.with_bound(which, |bound| {
                self.call(Call::BoundValid);
                let held = cpu.is_open() && before.contexts[which].held(cpu.at);
                if bound.registers_valid(&off) != held {
                    self.line.report(|| format!("registers_valid of bound context {which}"));
                }
                self.call(Call::BoundAddress);
                if bound.address() != self.slots[which].fpu.borrow().address() {
                    self.line.report(|| String::from("a bound context is not where it says"));
                }
                if cpu.at == 0 {
                    return;
                }
                let tried = [
                    bound.switch_return(&mut off).map(drop),
                    bound.open(&mut pin).map(drop),
                    bound.reset(&mut pin),
                    self.cpus[0].bound().settle(&mut off),
                ];
                let owner = number(self.cpus[0].words.resident());
                let refused = |it: &Result<(), Error>| match *it {
                    Err(Error::BoundElsewhere { cpu: n }) => n == owner,
                    Err(Error::Busy | Error::CpuOffline) => !cpu.is_open(),
                    _ => false,
                };
                if !tried.iter().all(refused) {
                    self.line.report(|| format!("not refused on CPU {}: {tried:?}", cpu.at));
                }
            });
        }
        if self.state() != before {
            self.line
                .report(|| format!("a refusal of bound context {which} has changed something"));
        }
    }
}
