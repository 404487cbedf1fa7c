//! Another CPU's whole operation at a step of one, and another CPU's attempt to take what is in use.

use core::sync::atomic::Ordering::Relaxed;

use fpu_core::{CpuWords, Error};

use super::{
    backend::{Cpu, Off},
    machine::Machine,
    ops::{Form, Move, Of, Op},
    words::{left, MEMORY, OPEN, PLENTY},
};

/// The gate of a CPU that is not online, and of one that is open.
const GATES: [u64; 2] = [0, 1];

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

    /// Could another CPU carry this out while the first is on its way? Each uses what the other does not (K5, K10).
    pub(super) fn apart(&self, first: Move, other: Move) -> bool {
        let cpus = first.cpu != other.cpu || !first.op.about_cpu() || !other.op.about_cpu();
        cpus && self.uses(first) & self.uses(other) == 0
    }

    /// What other CPUs could find in memory, as one number; `None` while that cannot be asked.
    pub(super) fn seen_by_others(&self) -> Option<u64> {
        let mut seen = 1u64;
        for slot in &self.slots {
            let context = slot.fpu.try_borrow().ok()?;
            for part in [Self::word(&context).load(Relaxed), u64::from(Self::memory(&context))] {
                seen = (seen ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
            }
        }
        Some(seen)
    }

    /// Another CPU carries out a whole operation at a step of one.
    pub(super) fn meanwhile(&self, step: Move) {
        let cpu = &self.cpus[usize::from(step.cpu)];
        let found = (cpu.words.fpu.gate(), cpu.words.fpu.resident());
        let in_use = self.guest_in_use.get();
        let done = self.apply(step);
        self.guest_in_use.set(in_use);
        if let Err(why) = done {
            let open = found.0 == GATES[1] && found.1 & OPEN != 0;
            if !self.rightly_refused(step.op, found.0, open, left(found.1), why) {
                self.line.report(|| format!("refused on another CPU: {why:?}"));
            }
        }
    }

    /// May a right kernel be refused so, on a CPU that was found so?
    pub(super) fn rightly_refused(
        &self,
        op: Op,
        gate: u64,
        open: bool,
        left: u8,
        why: Error,
    ) -> bool {
        match why {
            Error::CpuOffline => gate == GATES[0],
            Error::Busy => gate != GATES[0] && !open || self.forgot.get(),
            Error::RestoreFailed(_) => op.fails(),
            // Some take a few stamps, and so does an interrupt.
            Error::Exhausted => left < PLENTY && op != Op::OnlineAnew,
            _ => false,
        }
    }

    /// Code that makes memory differ from some CPU's registers ends that CPU's claim first: what other CPUs claim, an
    /// image shows at every step too.
    fn claims_of_others_hold(&self, at: usize) {
        for (which, slot) in self.slots.iter().enumerate() {
            let Ok(context) = slot.fpu.try_borrow() else { continue };
            let word = Self::word(&context).load(Relaxed);
            for (c, cpu) in self.cpus.iter().enumerate().filter(|(c, _)| *c != at) {
                let claimed = cpu.words.fpu.resident() | MEMORY == word;
                if claimed && cpu.registers.holds.get() != Self::memory(&context) {
                    self.line.report(|| {
                        format!("written while CPU {c} claims what was there: context {which}")
                    });
                }
            }
        }
    }

    /// Another CPU tries to take what this one is using, which breaks K5. It is told so, or loads what is right.
    /// Afterwards all is as it was.
    pub(super) fn attempted(&self, at: usize) {
        self.claims_of_others_hold(at);
        let Some((which, op)) = self.in_use.get() else { return };
        if matches!(op, Op::Reset(_) | Op::Adopt(_) | Op::ExitCurrent) {
            // On the way to the initial state, or to that of the registers, there are two right answers.
            return;
        }
        let can = |cpu: &&Cpu| {
            let word = cpu.words.fpu.resident();
            cpu.words.fpu.gate() == GATES[1] && word & OPEN != 0 && left(word) == PLENTY
        };
        let mut others = self.cpus.iter().enumerate().filter(|(c, _)| *c != at).map(|(_, cpu)| cpu);
        let Some(cpu) = others.find(can) else { return };
        let Ok(context) = self.slots[which].fpu.try_borrow() else { return };
        let (word, resident) = (Self::word(&context).load(Relaxed), cpu.words.fpu.resident());
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
        unsafe { cpu.words.fpu.set_resident(resident) };
    }

    /// Notes what an operation uses that another CPU might try to take.
    pub(super) fn note_in_use(&self, step: Move) {
        let cpu = &self.cpus[usize::from(step.cpu)];
        let which = match step.op {
            op if op.of_guest() => self.which(cpu, Of::Guest),
            op if op.about_cpu() => self.which(cpu, Of::Current),
            _ => None,
        };
        self.in_use.set(which.map(|which| (which, step.op)));
    }

    /// A task becomes current and runs, as one operation.
    pub(super) fn takes(&self, cpu: &Cpu, context: usize) -> Result<(), Error> {
        cpu.current.set(Some(context));
        let user = super::User::Writes;
        let went =
            self.with_current(cpu, |which, task| self.enter(cpu, which, task, Form::Call, user));
        if went.is_err() {
            cpu.current.set(None);
        }
        went
    }
}
