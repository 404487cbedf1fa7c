//! One operation, carried out on the real core.

use core::{ptr::NonNull, sync::atomic::AtomicU64, sync::atomic::Ordering::Relaxed};
use std::mem;

use fpu_core::{
    raw,
    session::TaskState,
    verify::{Verified, VerifyError},
    CpuWords, Error, KernelFpu, KernelUnits, Level, RawFpu, UserSteps,
};

use super::{
    backend::{Context, Cpu, Off, Pin, INITIAL, KERNEL},
    calls::Call,
    machine::{Machine, User},
    ops::{Form, Move, Of, Op},
    words::{left, RESERVE},
};

impl Machine {
    pub(super) fn which(&self, cpu: &Cpu, of: Of) -> Option<usize> {
        match of {
            Of::Current => cpu.current.get(),
            Of::Guest => Some(self.guest()),
        }
    }
    pub(super) fn current_nowhere(&self, context: usize) -> bool {
        self.cpus.iter().all(|cpu| cpu.current.get() != Some(context))
    }
    /// Do this CPU's registers hold this context, as the words say?
    pub(super) fn held(&self, cpu: &Cpu, context: usize) -> bool {
        let word = Self::word(&self.slots[context].fpu.borrow()).load(Relaxed);
        word & !super::words::MEMORY == cpu.words.fpu.resident()
    }
    fn saved(&self, context: usize) -> bool {
        let word = Self::word(&self.slots[context].fpu.borrow()).load(Relaxed);
        word & super::words::MEMORY != 0
    }

    /// Would a right kernel do this now?
    pub(super) fn allows(&self, step: Move) -> bool {
        let (cpu, context) = (&self.cpus[usize::from(step.cpu)], usize::from(step.context));
        let current = cpu.current.get();
        let target = |of| self.which(cpu, of);
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
            Op::Adopt(_) => current.is_some_and(|task| self.can_adopt(cpu, task)),
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
            // A task whose save is decided and not executed is lost.
            Op::DropSwitch => self.free(cpu) && self.current_nowhere(context),
            Op::Reset(of) | Op::Verify(of) => target(of).is_some(),
            Op::Finds(of) => {
                let claimed = |it| self.held(cpu, it) && self.saved(it);
                left(cpu.words.fpu.resident()) > RESERVE && target(of).is_some_and(claimed)
            }
            // Who was live in registers that are lost has been switched out.
            Op::Invalidate(_) | Op::Resume => self.free(cpu),
            Op::Idle | Op::Offline => current.is_none(),
            Op::Online => cpu.words.fpu.gate() == 0,
            Op::OnlineAnew => {
                cpu.words.fpu.gate() == 0 && left(cpu.words.fpu.resident()) <= RESERVE
            }
            Op::StoppedRead | Op::StoppedWrite | Op::Exit => self.current_nowhere(context),
            Op::Swap => context != self.guest() && self.current_nowhere(context),
        }
    }

    /// Carries it out.
    pub(super) fn apply(&self, step: Move) -> Result<(), Error> {
        let (cpu, context) = (&self.cpus[usize::from(step.cpu)], usize::from(step.context));
        self.guest_in_use.set(step.op.of_guest() || context == self.guest());
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
            Op::Session(of, does) => self.session(cpu, of, does),
            Op::Held(does) => self.session_of(cpu, context, does),
            Op::Replace(of, room) => self.replace(cpu, of, room),
            Op::HeldReplace(room) => self.replace_of(cpu, context, room),
            Op::Adopt(user) => {
                self.with_current(cpu, |which, task| self.adopt(cpu, which, task, user))
            }
            Op::Switch(user) => self.switch(cpu, context, user),
            Op::SwitchFails => {
                cpu.registers.fails.set(true);
                self.switch(cpu, context, User::Looks)
            }
            Op::Saved(of, does) => self.saved_session(cpu, of, does),
            Op::ForkSaved => self.fork_saved(cpu, context),
            Op::SwitchTo(user) => self.switch_to(cpu, context, user),
            Op::SwitchToFails => {
                cpu.registers.fails.set(true);
                self.switch_to(cpu, context, User::Looks)
            }
            Op::DropSwitch => self.drop_switch(cpu, context),
            Op::SectionSteps(executed) => self.section_steps(cpu, executed),
            Op::GuestSteps(of, user) => self.guest_steps(cpu, of, Some(user)),
            Op::GuestStepsFail => {
                cpu.registers.fails.set(true);
                self.guest_steps(cpu, Of::Guest, Some(User::Looks))
            }
            Op::DropGuest(of) => self.guest_steps(cpu, of, None),
            Op::Section => self.section(cpu, false),
            Op::WithSection => self.section(cpu, true),
            Op::Persistent(of, user) => self.persistent(cpu, of, user),
            Op::PersistentFails => {
                cpu.registers.fails.set(true);
                self.persistent(cpu, Of::Guest, User::Looks)
            }
            Op::Fork => self.with_current(cpu, |which, task| {
                let child = &self.slots[context];
                self.call(Call::Fork);
                let mut pin = Pin(cpu, Level::Task);
                task.fork_into(&mut pin, &mut child.fpu.borrow_mut())?;
                child.expected.set(self.slots[which].expected.get());
                Ok(())
            }),
            Op::Reset(of) => self.reset(cpu, of),
            Op::Verify(of) => self.verify(cpu, of, false),
            Op::Finds(of) => {
                cpu.registers.change(KERNEL);
                self.verify(cpu, of, true)
            }
            Op::Idle
            | Op::Invalidate(_)
            | Op::Resume
            | Op::Offline
            | Op::Online
            | Op::OnlineAnew => self.lifecycle(cpu, step),
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
                mem::swap(&mut *one.fpu.borrow_mut(), &mut *other.fpu.borrow_mut());
                one.expected.swap(&other.expected);
                Ok(())
            }
        };
        cpu.registers.fails.set(false);
        done
    }

    pub(super) fn with_current<T>(
        &self,
        cpu: &Cpu,
        run: impl FnOnce(usize, &Context) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(which) = cpu.current.get() else { unreachable!("asked before") };
        run(which, &self.slots[which].fpu.borrow())
    }

    /// By whichever of the ways the task leaves the CPU.
    fn out(&self, cpu: &Cpu, task: &Context, form: Form) -> Result<(), Error> {
        let mut off = Off::new(cpu);
        match form {
            Form::Plan | Form::RoundTrip => {
                self.call(Call::BeginOut);
                let Some(pending) = task.begin_switch_out(&mut off)? else { return Ok(()) };
                self.call(Call::OutSteps);
                let steps = *pending.steps();
                self.mask(steps.mask);
                // SAFETY: C9: `pending`'s area. C10: symbols.
                unsafe { cpu.registers.save(area(steps.save_to)) };
                self.call(Call::OutSaved);
                // SAFETY: C15: done just now.
                unsafe { pending.saved() };
                Ok(())
            }
            Form::Raw => {
                let word = std::ptr::from_ref(task).cast();
                self.call(Call::RawOut);
                // SAFETY: C16: both live, interrupts off. C17: obeyed below.
                match unsafe { raw::switch_out(word, &cpu.words.fpu) } {
                    raw::NOTHING => Ok(()),
                    raw::SAVE => {
                        // SAFETY: C9: the context's area. C10: symbols.
                        unsafe { cpu.registers.save(Self::area(task)) };
                        self.call(Call::RawSaved);
                        // SAFETY: C17: done just now.
                        unsafe { raw::saved(word) };
                        Ok(())
                    }
                    code => Err(refusal(code)),
                }
            }
            Form::Session => match task.open(&mut off)? {
                TaskState::RegistersOnly(session) => {
                    self.call(Call::SessionPrepare);
                    session.switch_prepare();
                    Ok(())
                }
                _ => Ok(()),
            },
            Form::Inside => self.switch_between(Some(task), None, &mut off),
            Form::Switch => self.switch_steps(&mut off, Some(task), None),
            Form::Call => {
                self.call(Call::Prepare);
                task.switch_prepare(&off)
            }
        }
    }

    /// By whichever of the ways it goes to user mode.
    pub(super) fn enter(
        &self,
        cpu: &Cpu,
        which: usize,
        task: &Context,
        form: Form,
        user: User,
    ) -> Result<(), Error> {
        let mut off = Off::new(cpu);
        let runs = || {
            if cpu.words.fpu.gate() != 1 {
                self.line.report(|| String::from("user mode on a CPU that is not open"));
            }
            self.runs(cpu, which, user, "user mode");
        };
        match form {
            Form::Switch => {
                // Out of memory, or to itself.
                let prev = (!self.saved(which)).then_some(task);
                self.switch_steps(&mut off, prev, Some(task))?;
                runs();
            }
            Form::Call => {
                self.call(Call::Return);
                let ready = task.switch_return(&mut off)?;
                runs();
                drop(ready);
            }
            Form::Inside => {
                drop(off);
                self.enter_inside(cpu, which, task)?;
                let mut off = Off::new(cpu);
                self.call(Call::SwitchIn);
                task.switch_in(&mut off)?;
                runs();
            }
            Form::Session => {
                let ready = match task.open(&mut off)? {
                    TaskState::RegistersOnly(session) => {
                        drop(session);
                        return self.enter(cpu, which, task, Form::Call, user);
                    }
                    TaskState::Both(session) => {
                        self.call(Call::BothReturn);
                        session.switch_return()
                    }
                    TaskState::MemoryOnly(session) if user == User::Looks => {
                        self.call(Call::MemoryReturn);
                        session.switch_return()?
                    }
                    TaskState::MemoryOnly(session) => {
                        self.call(Call::WritableReturn);
                        session.make_memory_valid_write().switch_return()?
                    }
                };
                runs();
                drop(ready);
            }
            Form::Plan | Form::RoundTrip => {
                self.call(Call::BeginUser);
                let pending = task.begin_user(&mut off)?;
                self.call(Call::UserSteps);
                let UserSteps { restore_from, save_to, mask, word, live, saved } = *pending.steps();
                self.mask(mask);
                if let Some(from) = NonNull::new(restore_from.cast_mut()) {
                    // SAFETY: C9: `pending`'s area. C10: symbols.
                    if let Err(why) = unsafe { cpu.registers.restore(from) } {
                        self.call(Call::UserFailed);
                        return Err(pending.failed(why));
                    }
                }
                if form == Form::Plan {
                    self.call(Call::UserRestored);
                    // SAFETY: C12, C13: done just now.
                    let ready = unsafe { pending.restored() };
                    runs();
                    drop(ready);
                    return Ok(());
                }
                // SAFETY: `pending`'s word, an atomic of the context that it borrows.
                let word = unsafe { AtomicU64::from_ptr(word) };
                word.store(live, Relaxed);
                runs();
                // SAFETY: C9: `pending`'s area. C10: symbols.
                unsafe { cpu.registers.save(area(save_to)) };
                word.store(saved, Relaxed);
                self.call(Call::UserRoundTrip);
                // SAFETY: C12, C13, C14: done just now.
                unsafe { pending.round_trip_done() };
                if !self.saved(which) {
                    self.line.report(|| format!("not saved by a round trip: context {which}"));
                }
            }
            Form::Raw => {
                let word = std::ptr::from_ref(task).cast();
                self.call(Call::RawReturn);
                // SAFETY: C16: both live, interrupts off. C17: obeyed below.
                match unsafe { raw::switch_return(word, &cpu.words.fpu) } {
                    raw::NOTHING | raw::MARKED => {}
                    raw::RESTORE => {
                        // SAFETY: C9: the context's area. C10: symbols.
                        let restored = unsafe { cpu.registers.restore(Self::area(task)) };
                        restored.map_err(Error::RestoreFailed)?;
                        self.call(Call::RawRestored);
                        // SAFETY: C17: done just now.
                        unsafe { raw::restored(word, &cpu.words.fpu) };
                    }
                    code => return Err(refusal(code)),
                }
                runs();
            }
        }
        Ok(())
    }

    pub(super) fn mask(&self, mask: u64) {
        if mask != self.cpus[0].registers.plan_word() {
            self.line.report(|| format!("a plan with the mask {mask:#x}"));
        }
    }

    fn section(&self, cpu: &Cpu, by_closure: bool) -> Result<(), Error> {
        let current = cpu.current.get().map(|task| self.slots[task].fpu.borrow());
        let told = current.as_ref().map(|task| {
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

    fn persistent(&self, cpu: &Cpu, of: Of, user: User) -> Result<(), Error> {
        let Some(which) = self.which(cpu, of) else { unreachable!("asked before") };
        let persistent = self.slots[which].fpu.borrow();
        let current = cpu.current.get().map(|task| self.slots[task].fpu.borrow());
        let told = current.as_ref().map(|task| task.context());
        self.call(Call::Persistent);
        Pin(cpu, Level::Task).run_guest(persistent.context(), told, || {
            self.line.step();
            self.runs(cpu, which, user, "a persistent run");
            if self.line.calm() {
                let was = self.line.mask();
                self.elsewhere(self.line.cpu(), which);
                self.line.unmask(was);
            }
            self.line.step();
        })
    }

    fn reset(&self, cpu: &Cpu, of: Of) -> Result<(), Error> {
        let Some(which) = self.which(cpu, of) else { unreachable!("asked before") };
        let slot = &self.slots[which];
        self.call(Call::Reset);
        slot.fpu.borrow().reset(&mut Pin(cpu, Level::Task))?;
        slot.expected.set(INITIAL);
        Ok(())
    }

    fn verify(&self, cpu: &Cpu, of: Of, changed: bool) -> Result<(), Error> {
        let Some(which) = self.which(cpu, of) else { unreachable!("asked before") };
        let context = self.slots[which].fpu.borrow();
        self.call(Call::Verify);
        let own = self.cpus.iter().zip(&self.scratch).find(|(own, _)| std::ptr::eq(*own, cpu));
        let Some((_, scratch)) = own else { unreachable!("one of the machine's") };
        let mut scratch = scratch.borrow_mut();
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

pub(super) fn area(base: *mut u8) -> NonNull<u8> {
    let Some(area) = NonNull::new(base) else { unreachable!("a plan has an area") };
    area
}

/// The error of a number of the raw layer.
fn refusal(code: u32) -> Error {
    match code {
        raw::BUSY => Error::Busy,
        raw::LIVE_ELSEWHERE => Error::LiveElsewhere { cpu: 0 },
        raw::LOST => Error::Lost,
        raw::EXHAUSTED => Error::Exhausted,
        _ => Error::CpuOffline,
    }
}
