//! Both tasks of a switch by its steps, executed as assembly does.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fpu_core::{Error, Level, Pinned, RawFpu, SwitchSteps};

use super::{
    apply::area,
    backend::{Context, Cpu, Off, Pin},
    calls::Call,
    machine::{Machine, User},
};

impl Machine {
    /// Whoever leaves is saved, and whoever comes is loaded, where that is due.
    pub(super) fn switch_steps(
        &self,
        off: &mut Off<'_>,
        prev: Option<&Context>,
        next: Option<&Context>,
    ) -> Result<(), Error> {
        self.call(Call::SwitchPlan);
        let steps = SwitchSteps::plan(off, prev.map(Context::context), next.map(Context::context))?;
        self.mask(steps.mask);
        let registers = off.backend();
        // SAFETY: C39: the word of a context that is borrowed.
        let commit = |word, value| unsafe { AtomicU64::from_ptr(word) }.store(value, Relaxed);
        if !steps.save_to.is_null() {
            // SAFETY: C9: that context's area. C10: symbols.
            unsafe { registers.save(area(steps.save_to)) };
            commit(steps.save_word, steps.saved);
        }
        let mut restored = Ok(());
        if !steps.restore_from.is_null() {
            // SAFETY: C9: the area of the context that is next. C10: symbols.
            restored = unsafe { registers.restore(area(steps.restore_from.cast_mut())) };
            if restored.is_ok() {
                commit(steps.restore_word, steps.live);
            }
        }
        self.call(Call::SwitchDone);
        steps.done(off, restored)
    }

    /// From the current task to another, which runs in user mode.
    pub(super) fn switch_to(&self, cpu: &Cpu, which: usize, user: User) -> Result<(), Error> {
        let prev = cpu.current.get().map(|task| self.slots[task].fpu.borrow());
        let next = self.slots[which].fpu.borrow();
        let switched = self.switch_steps(&mut Off::new(cpu), prev.as_deref(), Some(&next));
        if let Ok(()) | Err(Error::RestoreFailed(_)) = switched {
            cpu.current.set(Some(which));
        }
        switched?;
        self.runs(cpu, which, user, "user mode after a switch");
        Ok(())
    }

    /// Planned and not executed.
    pub(super) fn drop_switch(&self, cpu: &Cpu, which: usize) -> Result<(), Error> {
        let prev = cpu.current.get().map(|task| self.slots[task].fpu.borrow());
        let next = self.slots[which].fpu.borrow();
        let prev = prev.as_ref().map(|task| task.context());
        SwitchSteps::plan(&mut Off::new(cpu), prev, Some(next.context())).map(drop)
    }

    /// A fork out of memory.
    pub(super) fn fork_saved(&self, cpu: &Cpu, child: usize) -> Result<(), Error> {
        self.with_current(cpu, |which, task| {
            let (mut pin, child) = (Pin(cpu, Level::Task), &self.slots[child]);
            let session = task.open_saved(&mut pin)?;
            self.line.step();
            self.call(Call::ReadFork);
            session.fork_into(&mut child.fpu.borrow_mut());
            child.expected.set(self.slots[which].expected.get());
            Ok(())
        })
    }
}
