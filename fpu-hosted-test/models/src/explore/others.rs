//! Another CPU's whole operation at a step of this CPU's, and another CPU's attempt to take what is in use.

use core::sync::atomic::Ordering::Relaxed;

use fpu_core::{CpuWords, Error};

use super::{
    backend::{Cpu, Off},
    machine::Machine,
    ops::{Move, Of, Op},
    words::{left, MEMORY, PLENTY},
};

impl Machine {
    /// The contexts that an operation uses, one bit each.
    fn uses(&self, step: Move) -> u8 {
        let mut used = 0;
        if step.op.about_cpu() {
            used |= self.cpus[usize::from(step.cpu)].current.get().map_or(0, |task| 1 << task);
        }
        if step.op.about_context() {
            used |= 1 << step.context;
        }
        if step.op.of_guest() || step.op == Op::Swap {
            used |= 1 << self.guest();
        }
        used
    }

    /// Could another CPU carry out the other operation during the first? Each uses what the other does not (K5, K10).
    pub(super) fn apart(&self, first: Move, other: Move) -> bool {
        let cpus = first.cpu != other.cpu || !first.op.about_cpu() || !other.op.about_cpu();
        cpus && self.uses(first) & self.uses(other) == 0
    }

    /// What other CPUs could find in memory, as one number; `None` while a context is borrowed exclusively.
    pub(super) fn seen(&self) -> Option<u64> {
        let mut seen = 1u64;
        for slot in &self.slots {
            let context = slot.fpu.try_borrow().ok()?;
            for part in [Self::word(&context).load(Relaxed), u64::from(Self::memory(&context))] {
                seen = (seen ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
            }
        }
        Some(seen)
    }

    /// Another CPU carries out a whole operation.
    pub(super) fn meanwhile(&self, step: Move) {
        let cpu = &self.cpus[usize::from(step.cpu)];
        let (gate, open, left) = (cpu.words.gate(), cpu.is_open(), left(cpu.words.resident()));
        let in_use = self.guest_in_use.get();
        let done = self.apply(step);
        self.guest_in_use.set(in_use);
        if let Err(why) = done {
            if !self.rightly_refused(step.op, gate, open, left, why) {
                self.line.report(|| format!("refused on another CPU: {why:?}"));
            }
        }
    }

    /// Code that makes memory differ from some CPU's registers ends that CPU's claim first. So at every step, too, an
    /// image shows what the registers of other CPUs claim.
    fn claims_of_others_hold(&self, at: usize) {
        for (which, slot) in self.slots.iter().enumerate() {
            let Ok(context) = slot.fpu.try_borrow() else { continue };
            let word = Self::word(&context).load(Relaxed);
            for cpu in self.cpus.iter().filter(|cpu| cpu.at != at) {
                let claimed = cpu.words.resident() | MEMORY == word;
                if claimed && cpu.registers.holds.get() != Self::memory(&context) {
                    self.line.report(|| {
                        format!(
                            "written while CPU {} claims what was there: context {which}",
                            cpu.at
                        )
                    });
                }
            }
        }
    }

    /// Another CPU tries to take what this CPU is using, which breaks K5. The core refuses, or the other CPU loads what is
    /// right. Then the machine puts back what the attempt has changed.
    pub(super) fn attempted(&self, at: usize) {
        self.claims_of_others_hold(at);
        let Some((which, op)) = self.in_use.get() else { return };
        if matches!(op, Op::Reset(_) | Op::Adopt(_) | Op::ExitCurrent) {
            // On the way to the initial state, or to that of the registers, there are two right answers.
            return;
        }
        let can =
            |cpu: &&Cpu| cpu.at != at && cpu.is_open() && left(cpu.words.resident()) == PLENTY;
        let Some(cpu) = self.cpus.iter().find(can) else { return };
        let Ok(context) = self.slots[which].fpu.try_borrow() else { return };
        let (word, resident) = (Self::word(&context).load(Relaxed), cpu.words.resident());
        let (holds, from) = (cpu.registers.holds.get(), cpu.registers.unmodified.get());
        match context.switch_return(&mut Off::new(cpu)).map(drop) {
            Ok(()) => self.judge(which, cpu.registers.holds.get(), "a CPU that took it in between"),
            Err(Error::LiveElsewhere { .. }) => {}
            Err(why) => self.line.report(|| format!("wrong error: taken in between: {why:?}")),
        }
        cpu.registers.change(holds);
        cpu.registers.unmodified.set(from);
        Self::word(&context).store(word, Relaxed);
        // SAFETY: the word that was there.
        unsafe { cpu.words.set_resident(resident) };
    }

    /// Notes the context that an operation uses, which another CPU might try to take.
    pub(super) fn note_in_use(&self, step: Move) {
        let cpu = &self.cpus[usize::from(step.cpu)];
        let which = match step.op {
            op if op.of_guest() => self.which(cpu, Of::Guest),
            op if op.about_cpu() => self.which(cpu, Of::Current),
            _ => None,
        };
        self.in_use.set(which.map(|which| (which, step.op)));
    }
}
