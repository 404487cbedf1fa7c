//! Sessions that end at each of their stages.

use fpu_core::{
    session::{ReadSession, TaskState},
    Error, Level,
};

use super::{
    backend::{Cpu, Pin},
    calls::Call,
    holder::Holder,
    image::{ImageMut, Symbol},
    machine::Machine,
    ops::{Does, Of},
};

impl Machine {
    pub(super) fn allows_session(&self, cpu: &Cpu, of: Of, does: Does) -> bool {
        let Some(which) = self.which(cpu, of) else { return false };
        // A load overwrites a task that is live here: kernel code that loads the guest has saved that task.
        self.allows_does(cpu, which, does, of == Of::Current || self.free(cpu))
    }
    pub(super) fn allows_does(&self, cpu: &Cpu, which: usize, does: Does, loads: bool) -> bool {
        let held = self.held(cpu, which);
        match does {
            Does::Nothing
            | Does::Reads
            | Does::Writes
            | Does::ReadsThenWrites
            | Does::WritesNothing => true,
            Does::Invalidates => held && self.saved(which),
            Does::Loads | Does::WritesThenLoads | Does::WritesThenLoadFails => loads,
            Does::LoadFails | Does::LoadsThenWrites => loads && !held,
        }
    }

    /// Opens a session of the context that is current here, or that the caller holds exclusively.
    pub(super) fn session(&self, cpu: &Cpu, which: usize, does: Does) -> Result<(), Error> {
        let mut pin = Pin(cpu, Level::Task);
        let context = self.slots[which].fpu.borrow();
        let state = self.opened(&context, &mut pin)?;
        self.line.step();
        self.named(&state);
        let reads = |image: Symbol| self.judge(which, image, "a session's image");
        let writes = |image: ImageMut<'_>| {
            self.writes(which, image);
            self.line.step();
        };
        match does {
            Does::Nothing => drop(state),
            Does::Reads => match state {
                TaskState::RegistersOnly(session) => {
                    self.call(Call::SessionRead);
                    let both = session.make_memory_valid_read();
                    self.call(Call::SessionImage);
                    reads(both.image());
                }
                TaskState::Both(session) => reads(session.image()),
                TaskState::MemoryOnly(session) => reads(session.image()),
            },
            Does::Writes | Does::WritesNothing => {
                let mut session = match state {
                    TaskState::RegistersOnly(session) => {
                        self.call(Call::RegistersWrite);
                        session.make_memory_valid_write()
                    }
                    TaskState::Both(session) => {
                        self.call(Call::BothWrite);
                        session.make_memory_valid_write()
                    }
                    TaskState::MemoryOnly(session) => {
                        self.call(Call::MemoryWrite);
                        session.make_memory_valid_write()
                    }
                };
                reads(session.image());
                if does == Does::Writes {
                    self.call(Call::SessionImageMut);
                    writes(session.image_mut());
                }
            }
            Does::ReadsThenWrites => {
                self.call(Call::StateRead);
                let session = state.make_memory_valid_read();
                self.call(Call::ReadImage);
                reads(session.image());
                self.line.step();
                self.call(Call::ReadWrite);
                let mut session = match session {
                    ReadSession::MemoryOnly(session) => session.make_memory_valid_write(),
                    both => both.make_memory_valid_write(),
                };
                writes(session.image_mut());
            }
            Does::Invalidates => {
                if let TaskState::Both(session) = state {
                    self.call(Call::SessionInvalidate);
                    drop(session.invalidate_registers());
                }
            }
            Does::Loads | Does::LoadFails => {
                self.call(Call::StateLoad);
                cpu.registers.fails.set(does == Does::LoadFails);
                state.make_registers_valid()?;
            }
            Does::WritesThenLoads | Does::WritesThenLoadFails => {
                self.call(Call::StateWrite);
                let mut session = state.make_memory_valid_write();
                writes(session.image_mut());
                self.call(Call::SessionLoad);
                cpu.registers.fails.set(does == Does::WritesThenLoadFails);
                let both = session.make_registers_valid()?;
                self.judge(which, cpu.registers.holds.get(), "the registers after a load");
                drop(both);
            }
            Does::LoadsThenWrites => {
                // Unless an interrupt's section came before.
                let TaskState::MemoryOnly(session) = state else { return Ok(()) };
                let both = session.make_registers_valid()?;
                self.line.step();
                let mut session = both.invalidate_registers();
                writes(session.image_mut());
            }
        }
        Ok(())
    }

    /// Opens a session on what memory holds, without an instruction.
    pub(super) fn saved_session(&self, cpu: &Cpu, which: usize, does: Does) -> Result<(), Error> {
        let mut pin = Pin(cpu, Level::Task);
        let context = self.slots[which].fpu.borrow();
        self.call(Call::OpenSaved);
        let session = context.open_saved(&mut pin)?;
        self.line.step();
        if matches!(does, Does::Reads | Does::ReadsThenWrites) {
            self.judge(which, session.image(), "an image in memory");
        }
        if matches!(does, Does::Writes | Does::ReadsThenWrites) {
            let mut session = session.make_memory_valid_write();
            self.line.step();
            self.writes(which, session.image_mut());
        }
        Ok(())
    }

    fn named<C: fpu_core::SoftFloat>(&self, state: &TaskState<'_, C>) {
        self.call(Call::StateName);
        let right = match state {
            TaskState::RegistersOnly(_) => "registers only",
            TaskState::Both(_) => "both",
            TaskState::MemoryOnly(_) => "memory only",
        };
        if state.name() != right {
            self.line.report(|| format!("{right} is called {}", state.name()));
        }
    }

    /// Opens the state, wherever the context is.
    fn opened<'s, 'c>(
        &self,
        holder: &'s Holder,
        pin: &'s mut Pin<'c>,
    ) -> Result<TaskState<'s, Pin<'c>>, Error> {
        match holder {
            Holder::Bound(Some(bound)) => {
                self.call(Call::BoundOpen);
                bound.open(pin)
            }
            own => {
                self.call(Call::Open);
                own.open(pin)
            }
        }
    }
}
