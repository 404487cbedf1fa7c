//! How a task leaves a CPU and enters user mode: by each of the core's forms.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use fpu_core::{raw, session::TaskState, CpuWords, Error, RawFpu, UserSteps};

use super::{
    backend::{Context, Cpu, Off},
    calls::Call,
    deferred::area,
    machine::Machine,
    ops::{Form, User},
    words::GATE_OPEN,
};

impl Machine {
    /// The task leaves the CPU.
    pub(super) fn out(&self, cpu: &Cpu, task: &Context, form: Form) -> Result<(), Error> {
        let mut off = Off::new(cpu);
        match form {
            Form::Plan | Form::RoundTrip => {
                self.call(Call::BeginOut);
                let Some(pending) = task.begin_switch_out(&mut off)? else { return Ok(()) };
                self.call(Call::OutSteps);
                let steps = *pending.steps();
                self.mask(steps.mask);
                // SAFETY: C9: `pending`'s area. C10: symbols.
                unsafe { cpu.registers.save_by_steps(area(steps.save_to)) };
                self.call(Call::OutSaved);
                // SAFETY: C15: done just now.
                unsafe { pending.saved() };
                Ok(())
            }
            Form::Raw => {
                let word = std::ptr::from_ref(task).cast();
                self.call(Call::RawOut);
                // SAFETY: C16: both live, interrupts off. C17: obeyed below.
                match unsafe { raw::switch_out(word, cpu.words) } {
                    raw::NOTHING => Ok(()),
                    raw::SAVE => {
                        // SAFETY: C9: the context's area. C10: symbols.
                        unsafe { cpu.registers.save_by_steps(Self::area(task)) };
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

    /// The task enters user mode and leaves it.
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
            if cpu.words.gate() != GATE_OPEN {
                self.line.report(|| String::from("user mode on a CPU that is not open"));
            }
            self.runs(cpu, which, user, "user mode");
        };
        match form {
            Form::Switch => {
                // From no task if memory holds the task, and otherwise from the task to itself.
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
                unsafe { cpu.registers.save_by_steps(area(save_to)) };
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
                if !self.settled(cpu) {
                    // These functions have no witness that knows of it.
                    cpu.bound().settle(&mut off)?;
                }
                self.call(Call::RawReturn);
                // SAFETY: C16: both live, interrupts off. C17: obeyed below.
                match unsafe { raw::switch_return(word, cpu.words) } {
                    raw::NOTHING | raw::MARKED => {}
                    raw::RESTORE => {
                        // SAFETY: C9: the context's area. C10: symbols.
                        let restored = unsafe { cpu.registers.restore(Self::area(task)) };
                        restored.map_err(Error::RestoreFailed)?;
                        self.call(Call::RawRestored);
                        // SAFETY: C17: done just now.
                        unsafe { raw::restored(word, cpu.words) };
                    }
                    code => return Err(refusal(code)),
                }
                runs();
            }
        }
        Ok(())
    }
}

/// The error that a number of the raw layer means.
fn refusal(code: u32) -> Error {
    match code {
        raw::BUSY => Error::Busy,
        raw::LIVE_ELSEWHERE => Error::LiveElsewhere { cpu: 0 },
        raw::LOST => Error::Lost,
        raw::EXHAUSTED => Error::Exhausted,
        _ => Error::CpuOffline,
    }
}
