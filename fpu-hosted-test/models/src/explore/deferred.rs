//! Switches, sections and guests by their steps, executed as assembly does.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use fpu_core::{
    Error, KernelUnits, Level, PendingGuest, PendingSection, Pinned, RawFpu, SwitchSteps,
};

use super::{
    backend::{Context, Cpu, Off, Pin},
    calls::Call,
    machine::Machine,
    ops::User,
};

/// The area that steps name.
pub(super) fn area(base: *mut u8) -> NonNull<u8> {
    let Some(area) = NonNull::new(base) else { unreachable!("steps have an area") };
    area
}

impl Machine {
    /// Saves the task that leaves and loads the task that comes, where that is due.
    pub(super) fn switch_steps(
        &self,
        off: &mut Off<'_>,
        prev: Option<&Context>,
        next: Option<&Context>,
    ) -> Result<(), Error> {
        self.call(Call::SwitchSteps);
        let steps =
            SwitchSteps::begin(off, prev.map(Context::context), next.map(Context::context))?;
        self.mask(steps.mask);
        let registers = off.backend();
        // SAFETY: C39: the word of a context that is borrowed.
        let commit = |word, value| unsafe { AtomicU64::from_ptr(word) }.store(value, Relaxed);
        if !steps.save_to.is_null() {
            // SAFETY: C9: that context's area. C10: symbols.
            unsafe { registers.save_by_steps(area(steps.save_to)) };
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

    /// Switches from the current task to another, which runs in user mode.
    pub(super) fn switch_to(&self, cpu: &Cpu, which: usize, user: User) -> Result<(), Error> {
        let prev = self.current(cpu);
        let next = self.slots[which].fpu.borrow();
        let switched = self.switch_steps(&mut Off::new(cpu), prev.as_deref(), Some(&next));
        if let Ok(()) | Err(Error::RestoreFailed(_)) = switched {
            cpu.current.set(Some(which));
        }
        switched?;
        self.runs(cpu, which, user, "user mode after a switch");
        Ok(())
    }

    /// Decides the steps of that switch, and executes none.
    pub(super) fn drop_switch(&self, cpu: &Cpu, which: usize) -> Result<(), Error> {
        let prev = self.current(cpu);
        let next = self.slots[which].fpu.borrow();
        let prev = prev.as_deref().map(Context::context);
        SwitchSteps::begin(&mut Off::new(cpu), prev, Some(next.context())).map(drop)
    }

    /// Forks out of memory.
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

    /// A section by its steps, which are executed if so.
    pub(super) fn section_steps(&self, cpu: &Cpu, executed: bool) -> Result<(), Error> {
        let current = self.current(cpu);
        let told = current.as_deref().map(Context::context);
        let mut pin = Pin(cpu, Level::Task);
        self.call(Call::SectionBegin);
        let pending = PendingSection::begin(&mut pin, told, KernelUnits::ALL)?;
        self.line.step();
        if !executed {
            return Ok(());
        }
        self.call(Call::SectionSteps);
        if let Some(steps) = pending.steps() {
            self.mask(steps.mask);
            // SAFETY: C9: the area of a context that is borrowed. C10: symbols.
            unsafe { cpu.registers.save_by_steps(area(steps.save_to)) };
        }
        self.call(Call::SectionSaved);
        // SAFETY: C42: done just now.
        let section = unsafe { pending.saved() };
        self.computes(section.cpu().0);
        drop(section);
        Ok(())
    }

    /// A guest's run by its steps, which are executed if user code runs.
    pub(super) fn guest_steps(
        &self,
        cpu: &Cpu,
        which: usize,
        user: Option<User>,
    ) -> Result<(), Error> {
        let guest = self.slots[which].fpu.borrow();
        let current = self.current(cpu);
        let told = current.as_deref().map(Context::context);
        let mut pin = Pin(cpu, Level::Task);
        self.call(Call::GuestBegin);
        let pending = PendingGuest::begin(&mut pin, guest.context(), told)?;
        self.line.step();
        let Some(user) = user else { return Ok(()) };
        self.call(Call::GuestSteps);
        let steps = *pending.steps();
        self.mask(steps.mask);
        // SAFETY: C43: the word of a context that is borrowed.
        let commit = |word, value| unsafe { AtomicU64::from_ptr(word) }.store(value, Relaxed);
        if !steps.host_save_to.is_null() {
            // SAFETY: C9: that context's area. C10: symbols.
            unsafe { cpu.registers.save_by_steps(area(steps.host_save_to)) };
            commit(steps.host_word, steps.host_saved);
        }
        // SAFETY: C9: the guest's area. C10: symbols; the host's are saved.
        if let Err(why) = unsafe { cpu.registers.restore(area(steps.area)) } {
            self.call(Call::GuestFailed);
            // SAFETY: C43: so far.
            return Err(unsafe { pending.failed(why) });
        }
        commit(steps.word, steps.live);
        self.runs(cpu, which, user, "a guest's run by steps");
        self.refused_by_others(which);
        self.line.step();
        // SAFETY: C9: the guest's area. C10: a save changes no symbol.
        unsafe { cpu.registers.save_by_steps(area(steps.area)) };
        commit(steps.word, steps.saved);
        self.call(Call::GuestDone);
        // SAFETY: C43: done just now.
        unsafe { pending.done() };
        Ok(())
    }
}
