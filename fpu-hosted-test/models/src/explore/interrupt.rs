//! What strikes an operation at a step: an interrupt on its CPU, or another CPU.

use core::sync::atomic::Ordering::Relaxed;

use fpu_core::{
    observe::Event, session::TaskState, CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits,
    Level,
};

use super::{
    backend::{Context, Cpu, Off, Pin},
    image::TORN,
    line::Around,
    machine::Machine,
    ops::{Irq, Move, User},
    words::{left, number, GATE_OFFLINE, PLENTY},
};

/// The machine as its line knows it.
impl Around for Machine {
    fn struck(&self, cpu: usize, by: Irq) {
        match by {
            Irq::Other { cpu, op, context } => {
                self.meanwhile(Move { cpu, op, context, irq: None });
            }
            Irq::Attempt => self.attempted(cpu),
            irq => {
                let cpu = &self.cpus[cpu];
                if let Err(why) = self.interrupted(cpu, irq) {
                    self.refused_in_interrupt(cpu, why);
                }
            }
        }
    }
    fn seen_by_others(&self) -> Option<u64> {
        self.seen()
    }
    fn observed(&self, cpu: usize, event: Event) {
        self.told(&self.cpus[cpu], event);
    }
}

impl Machine {
    fn interrupted(&self, cpu: &Cpu, irq: Irq) -> Result<(), Error> {
        if self.is_held(cpu) {
            self.locked_out(cpu, irq);
            return Ok(());
        }
        let mut pin = Pin(cpu, Level::HardIrq);
        let current = self.current(cpu);
        let guest = (!self.guest_in_use.get()).then(|| self.slots[self.guest()].fpu.borrow());
        let (current, guest) = (current.as_deref(), guest.as_deref().map(|holder| &**holder));
        match irq {
            Irq::Nmi => self.non_maskable(cpu, current, guest),
            // A load of the guest would overwrite a task that is live here, which is a mistake of another kind.
            Irq::Forgets if !self.free(cpu) => {}
            Irq::Forgets => self.forgets(pin, guest)?,
            Irq::Offline => {
                pin.fpu_offline()?;
                cpu.registers.change(TORN);
            }
            Irq::Online if cpu.words.gate() != GATE_OFFLINE => {}
            Irq::Online => {
                cpu.registers.disables.set(true);
                // SAFETY: K15: the CPU keeps its number to itself. K16: its words are kept.
                unsafe { pin.fpu_online(number(cpu.words.resident()))? };
                self.uses_registers(pin, current, guest);
            }
            // The task that runs as a guest's thread is not the one that goes on.
            Irq::Loads => {
                if let Some(task) = current {
                    task.switch_in(&mut Off::new(cpu))?;
                }
            }
            Irq::SectionThenGuest => self.uses_registers(pin, current, guest),
            _ => self.uses_registers(pin, current, None),
        }
        Ok(())
    }

    /// Reports a refusal that an interrupt of a right kernel does not get.
    fn refused_in_interrupt(&self, cpu: &Cpu, why: Error) {
        let few = why == Error::Exhausted && left(cpu.words.resident()) < PLENTY;
        if !few && !matches!(why, Error::Busy | Error::CpuOffline) {
            self.line.report(|| format!("wrong error: in an interrupt: {why:?}"));
        }
    }

    /// A section, and then the guest.
    fn uses_registers(&self, mut pin: Pin<'_>, current: Option<&Context>, guest: Option<&Context>) {
        let (cpu, told) = (pin.0, current.map(Context::context));
        match pin.kernel_fpu(told, KernelUnits::ALL) {
            Ok(section) => {
                self.computes(cpu);
                drop(section);
            }
            Err(why) => self.refused_in_interrupt(cpu, why),
        }
        let Some(guest) = guest else { return };
        let run = || self.runs(cpu, self.guest(), User::Writes, "a run in an interrupt");
        if let Err(why) = pin.run_guest(guest.context(), told, run) {
            self.refused_in_interrupt(cpu, why);
        }
    }

    /// Opens a session of the guest, loads it three times, and never ends it.
    fn forgets(&self, mut pin: Pin<'_>, guest: Option<&Context>) -> Result<(), Error> {
        let Some(guest) = guest else { return Ok(()) };
        let mut state = guest.open(&mut pin)?;
        for _ in 0..3 {
            state = TaskState::Both(state.make_memory_valid_write().make_registers_valid()?);
        }
        std::mem::forget(state);
        self.forgot.set(true);
        Ok(())
    }

    /// The core refuses everything in a non-maskable interrupt, and changes nothing.
    fn non_maskable(&self, cpu: &Cpu, current: Option<&Context>, guest: Option<&Context>) {
        let (mut pin, told) = (Pin(cpu, Level::Nmi), current.map(Context::context));
        let seen = || (cpu.found(), current.map(|task| Self::word(task).load(Relaxed)));
        let before = seen();
        let refused = [
            pin.with_kernel_fpu(told, KernelUnits::ALL, || ()),
            pin.fpu_offline(),
            pin.fpu_resume(),
            pin.fpu_idle().map(drop),
            // SAFETY: K15, K16: refused.
            unsafe { pin.fpu_online(cpu.at as u32) },
        ];
        let opened = guest.map_or(Err(Error::Nmi), |g| g.open(&mut pin).map(drop));
        let reset = guest.map_or(Err(Error::Nmi), |g| g.reset(&mut pin));
        let ran = current
            .or(guest)
            .map_or(Err(Error::Nmi), |it| pin.run_guest(it.context(), None, || ()));
        let all = refused.into_iter().chain([opened, reset, ran]);
        if all.into_iter().any(|result| result != Err(Error::Nmi)) || seen() != before {
            self.line.report(|| String::from("a non-maskable interrupt was not refused"));
        }
    }
}
