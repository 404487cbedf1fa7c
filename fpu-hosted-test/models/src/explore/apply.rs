//! One operation, carried out on the real core.

use std::mem;

use fpu_core::{
    verify::{Verified, VerifyError},
    CpuWords, Error, KernelFpu, KernelUnits, Level,
};

use super::{
    backend::{Context, Cpu, Off, Pin},
    calls::Call,
    image::{INITIAL, KERNEL},
    machine::Machine,
    ops::{Form, Move, Op, User},
    words::{left, GATE_OFFLINE, RESERVE},
};

impl Machine {
    /// Tells whether a right kernel would do this now.
    pub(super) fn allows(&self, step: Move) -> bool {
        let (cpu, context) = (&self.cpus[usize::from(step.cpu)], usize::from(step.context));
        let current = cpu.current.get();
        let target = |of| self.which(cpu, of);
        if step.op.of_bound() {
            return self.allows_bound(step);
        }
        if step.op.about_context() && self.is_bound(context) {
            return false;
        }
        match step.op {
            Op::Become | Op::Takes => {
                current.is_none() && context != self.guest() && self.current_nowhere(context)
            }
            Op::Out(Form::Session) => current.is_some_and(|task| !self.saved(task)),
            Op::Out(_)
            | Op::DropPendingSave
            | Op::Enter(..)
            | Op::DropPendingUser
            | Op::ExitCurrent => current.is_some(),
            Op::EnterFails(_) => current.is_some_and(|task| !self.held(cpu, task)),
            Op::Session(of, does) => self.allows_session(cpu, of, does),
            Op::Replace(of, _) => target(of).is_some(),
            Op::Held(_) | Op::HeldReplace(_) => {
                context != self.guest() && self.current_nowhere(context)
            }
            Op::Adopt(_) => {
                self.settled(cpu) && current.is_some_and(|task| self.can_adopt(cpu, task))
            }
            Op::Switch(_) | Op::SwitchFails => self.allows_switch(step),
            Op::Section | Op::WithSection | Op::Clobber => true,
            Op::Persistent(of, _) | Op::GuestSteps(of, _) | Op::DropGuest(of) => {
                target(of).is_some()
            }
            Op::SectionSteps(_) | Op::GuestStepsFail => true,
            Op::PersistentFails => !self.held(cpu, self.guest()),
            Op::Saved(of, _) => target(of).is_some_and(|it| self.saved(it)),
            Op::Fork | Op::ForkSaved => {
                let forks = |task| step.op == Op::Fork || self.saved(task);
                current.is_some_and(forks) && self.current_nowhere(context)
            }
            Op::SwitchTo(_) | Op::SwitchToFails => {
                current.is_some() && context != self.guest() && self.current_nowhere(context)
            }
            // A task that leaves without its save is lost.
            Op::DropSwitch => self.free(cpu) && self.current_nowhere(context),
            Op::Reset(of) | Op::Verify(of) => target(of).is_some(),
            Op::Finds(of) => {
                let claimed = |it| self.held(cpu, it) && self.saved(it);
                left(cpu.words.resident()) > RESERVE && target(of).is_some_and(claimed)
            }
            // The kernel has switched out the task that was live in registers that are lost.
            Op::Invalidate(_) | Op::Resume => self.free(cpu) && self.settled(cpu),
            Op::Idle | Op::Offline => current.is_none(),
            Op::Online => cpu.words.gate() == GATE_OFFLINE,
            Op::OnlineAnew => {
                cpu.words.gate() == GATE_OFFLINE && left(cpu.words.resident()) <= RESERVE
            }
            Op::StoppedRead | Op::StoppedWrite | Op::Exit => self.current_nowhere(context),
            Op::Swap => context != self.guest() && self.current_nowhere(context),
            // Answered above.
            _ => false,
        }
    }

    /// Carries an operation out.
    pub(super) fn apply(&self, step: Move) -> Result<(), Error> {
        let (cpu, context) = (&self.cpus[usize::from(step.cpu)], usize::from(step.context));
        self.guest_in_use.set(step.op.of_guest() || context == self.guest());
        let about = |of| self.about(cpu, of);
        let done = match step.op {
            Op::Become => {
                cpu.current.set(Some(context));
                Ok(())
            }
            Op::Takes => self.takes(cpu, context),
            Op::Out(form) => {
                self.with_current(cpu, |_, task| self.out(cpu, task, form)).map(|()| {
                    cpu.current.set(None);
                })
            }
            Op::DropPendingSave => self
                .with_current(cpu, |_, task| task.begin_switch_out(&mut Off::new(cpu)).map(drop)),
            Op::DropPendingUser => {
                self.with_current(cpu, |_, task| task.begin_user(&mut Off::new(cpu)).map(drop))
            }
            Op::Enter(form, user) => {
                self.with_current(cpu, |which, task| self.enter(cpu, which, task, form, user))
            }
            Op::EnterFails(form) => {
                cpu.registers.fails.set(true);
                self.with_current(cpu, |which, task| {
                    self.enter(cpu, which, task, form, User::Looks)
                })
            }
            Op::Session(of, does) => self.session(cpu, about(of), does),
            Op::Held(does) => self.session(cpu, context, does),
            Op::Replace(of, room) => self.replace(cpu, about(of), room),
            Op::HeldReplace(room) => self.replace(cpu, context, room),
            Op::Adopt(user) => {
                self.with_current(cpu, |which, task| self.adopt(cpu, which, task, user))
            }
            Op::Switch(user) => self.switch(cpu, context, user),
            Op::SwitchFails => {
                cpu.registers.fails.set(true);
                self.switch(cpu, context, User::Looks)
            }
            Op::Saved(of, does) => self.saved_session(cpu, about(of), does),
            Op::ForkSaved => self.fork_saved(cpu, context),
            Op::SwitchTo(user) => self.switch_to(cpu, context, user),
            Op::SwitchToFails => {
                cpu.registers.fails.set(true);
                self.switch_to(cpu, context, User::Looks)
            }
            Op::DropSwitch => self.drop_switch(cpu, context),
            Op::SectionSteps(executed) => self.section_steps(cpu, executed),
            Op::GuestSteps(of, user) => self.guest_steps(cpu, about(of), Some(user)),
            Op::GuestStepsFail => {
                cpu.registers.fails.set(true);
                self.guest_steps(cpu, self.guest(), Some(User::Looks))
            }
            Op::DropGuest(of) => self.guest_steps(cpu, about(of), None),
            Op::Section => self.section(cpu, false),
            Op::WithSection => self.section(cpu, true),
            Op::Persistent(of, user) => self.persistent(cpu, about(of), user),
            Op::PersistentFails => {
                cpu.registers.fails.set(true);
                self.persistent(cpu, self.guest(), User::Looks)
            }
            Op::Fork => self.with_current(cpu, |which, task| {
                let child = &self.slots[context];
                self.call(Call::Fork);
                let mut pin = Pin(cpu, Level::Task);
                task.fork_into(&mut pin, &mut child.fpu.borrow_mut())?;
                child.expected.set(self.slots[which].expected.get());
                Ok(())
            }),
            Op::Reset(of) => self.reset(cpu, about(of)),
            Op::Verify(of) => self.verify(cpu, about(of), false),
            Op::Finds(of) => {
                cpu.registers.change(KERNEL);
                self.verify(cpu, about(of), true)
            }
            Op::Idle
            | Op::Invalidate(_)
            | Op::Resume
            | Op::Offline
            | Op::Online
            | Op::OnlineAnew => self.lifecycle(cpu, step.op),
            Op::StoppedRead => self.stopped(context, false),
            Op::StoppedWrite => self.stopped(context, true),
            Op::Exit => {
                self.exit(context);
                Ok(())
            }
            Op::ExitCurrent => {
                if let Some(task) = cpu.current.take() {
                    self.exit(task);
                }
                Ok(())
            }
            Op::Clobber => {
                cpu.registers.change(KERNEL);
                Ok(())
            }
            Op::Swap => {
                let (one, other) = (&self.slots[context], &self.slots[self.guest()]);
                mem::swap(&mut **one.fpu.borrow_mut(), &mut **other.fpu.borrow_mut());
                one.expected.swap(&other.expected);
                Ok(())
            }
            bound => self.apply_bound(cpu, context, bound),
        };
        cpu.registers.fails.set(false);
        done
    }

    /// A task becomes current and runs, as one operation.
    fn takes(&self, cpu: &Cpu, context: usize) -> Result<(), Error> {
        cpu.current.set(Some(context));
        let user = User::Writes;
        let went =
            self.with_current(cpu, |which, task| self.enter(cpu, which, task, Form::Call, user));
        if went.is_err() {
            cpu.current.set(None);
        }
        went
    }

    fn section(&self, cpu: &Cpu, by_closure: bool) -> Result<(), Error> {
        let current = self.current(cpu);
        let told = current.as_deref().map(|task| {
            self.call(Call::Context);
            task.context()
        });
        let mut pin = Pin(cpu, Level::Task);
        if by_closure {
            self.call(Call::WithSection);
            return pin.with_kernel_fpu(told, KernelUnits::ALL, || {
                self.computes(cpu);
                if self.line.alone() {
                    self.refused_inside(cpu);
                }
            });
        }
        self.call(Call::Section);
        let section = pin.kernel_fpu(told, KernelUnits::ALL)?;
        self.call(Call::SectionCpu);
        self.computes(section.cpu().0);
        drop(section);
        Ok(())
    }

    fn persistent(&self, cpu: &Cpu, which: usize, user: User) -> Result<(), Error> {
        let persistent = self.slots[which].fpu.borrow();
        let current = self.current(cpu);
        let told = current.as_deref().map(Context::context);
        self.call(Call::Persistent);
        Pin(cpu, Level::Task).run_guest(persistent.context(), told, || {
            self.line.step();
            self.runs(cpu, which, user, "a persistent run");
            self.refused_by_others(which);
            self.line.step();
        })
    }

    fn reset(&self, cpu: &Cpu, which: usize) -> Result<(), Error> {
        let slot = &self.slots[which];
        self.call(Call::Reset);
        slot.fpu.borrow().reset(&mut Pin(cpu, Level::Task))?;
        slot.expected.set(INITIAL);
        Ok(())
    }

    fn verify(&self, cpu: &Cpu, which: usize, changed: bool) -> Result<(), Error> {
        let context = self.slots[which].fpu.borrow();
        self.call(Call::Verify);
        let mut scratch = self.scratch[cpu.at].borrow_mut();
        match context.verify_registers(&mut Pin(cpu, Level::Task), &mut scratch) {
            Ok(found) => {
                if changed {
                    self.line.report(|| format!("not found: context {which}: {found:?}"));
                } else if found == Verified::MemoryOnly && self.held(cpu, which) {
                    self.line.report(|| format!("not compared: context {which}"));
                }
                Ok(())
            }
            Err(VerifyError::Refused(why)) => Err(why),
            Err(_) if changed => Ok(()),
            Err(why) => {
                self.line.report(|| format!("false alarm: context {which}: {why}"));
                Ok(())
            }
        }
    }
}
