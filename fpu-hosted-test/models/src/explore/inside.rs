//! Kernels that restore inside the switch, and registers that become a context.

use fpu_core::{switch, Error, TaskFpu};

use super::{
    backend::{Context, Cpu, Off},
    calls::Call,
    image::{Symbol, DEFAULTS, KERNEL, TORN},
    machine::Machine,
    ops::{Move, User},
};

/// Contents that no context expects have no name.
fn has_name(contents: Symbol) -> bool {
    ![TORN, KERNEL, DEFAULTS].contains(&contents)
}

impl Machine {
    /// C38: if the registers are unchanged since a restore from this context's area, memory holds them now. Of contents
    /// without a name the search cannot say whether memory holds them. The search leaves out registers that are
    /// unchanged since a restore from another area: a save to this area takes no notice of that address, and the states
    /// would double.
    pub(super) fn can_adopt(&self, cpu: &Cpu, which: usize) -> bool {
        let (context, holds) = (self.slots[which].fpu.borrow(), cpu.registers.holds.get());
        let area = Self::area(&context).as_ptr() as usize;
        match cpu.registers.unmodified.get() {
            0 => true,
            from => from == area && has_name(holds) && Self::memory(&context) == holds,
        }
    }

    /// The registers as they are become the current task's state, and the task keeps running in them.
    pub(super) fn adopt(
        &self,
        cpu: &Cpu,
        which: usize,
        task: &Context,
        user: User,
    ) -> Result<(), Error> {
        let (expected, was) = (&self.slots[which].expected, self.slots[which].expected.get());
        expected.set(cpu.registers.holds.get());
        self.call(Call::Adopt);
        let mut off = Off::new(cpu);
        // SAFETY: C37: what was live here is this context's own, if anything. C38: `can_adopt`.
        if let Err(why) = unsafe { task.adopt(&mut off) } {
            expected.set(was);
            return Err(why);
        }
        if !has_name(expected.get()) {
            // The contents get a name, and stay as they are.
            expected.set(self.fresh());
            cpu.registers.holds.set(expected.get());
        }
        self.runs(cpu, which, user, "registers that were adopted");
        Ok(())
    }

    /// The next task is current nowhere, or is the one that is current here.
    pub(super) fn allows_switch(&self, step: Move) -> bool {
        let (cpu, next) = (&self.cpus[usize::from(step.cpu)], usize::from(step.context));
        let stays = cpu.current.get() == Some(next);
        let loads = !step.op.fails() || !self.held(cpu, next);
        next != self.guest() && (stays || self.current_nowhere(next)) && loads
    }

    /// From the current task, if there is one, to the next, in one call.
    pub(super) fn switch(&self, cpu: &Cpu, next: usize, user: User) -> Result<(), Error> {
        let prev = self.current(cpu);
        let mut off = Off::new(cpu);
        self.switch_between(prev.as_deref(), Some(&self.slots[next].fpu.borrow()), &mut off)?;
        cpu.current.set(Some(next));
        self.runs(cpu, next, user, "a task that was switched to");
        Ok(())
    }

    pub(super) fn switch_between(
        &self,
        prev: Option<&Context>,
        next: Option<&Context>,
        off: &mut Off<'_>,
    ) -> Result<(), Error> {
        self.call(Call::Switch);
        Ok(switch(prev.map(TaskFpu::context), next.map(TaskFpu::context), off)?)
    }

    /// The restore in the switch; interrupts come between it and the return path.
    pub(super) fn enter_inside(
        &self,
        cpu: &Cpu,
        which: usize,
        task: &Context,
    ) -> Result<(), Error> {
        let mut off = Off::new(cpu);
        self.switch_between(None, Some(task), &mut off)?;
        self.judge(which, cpu.registers.holds.get(), "registers restored inside the switch");
        drop(off);
        self.line.step();
        Ok(())
    }
}
