//! What an operation must have come to, apart from a right state: it opens what it closed, refuses on a CPU that is not
//! open, moves no contents without need, and leaves alone what it has only looked at.

use core::sync::atomic::Ordering::Relaxed;

use fpu_core::{
    observe::{Event, EventKind},
    CpuWords, Error,
};

use super::{
    backend::Cpu,
    machine::Machine,
    ops::{Does, Form, Irq, Move, Of, Op},
    state::{CpuState, State},
    words::{number, GATE_OFFLINE, GATE_OPEN, MEMORY, NOWHERE, RESERVE},
};

impl Machine {
    /// Reports words, registers and memory that do not agree with what the core tells of a context.
    pub(super) fn told(&self, cpu: &Cpu, event: Event) {
        let steps = cpu.registers.by_steps.get();
        let said = match event.kind {
            EventKind::Saved if steps > 0 => {
                cpu.registers.by_steps.set(steps - 1);
                Some(false)
            }
            EventKind::Saved | EventKind::Unchanged => cpu.registers.said.take(),
            _ => None,
        };
        if !self.line.calm() {
            return;
        }
        for slot in &self.slots {
            let Ok(context) = slot.fpu.try_borrow() else { continue };
            if context.address() != event.context {
                continue;
            }
            let (word, expected) = (Self::word(&context).load(Relaxed), slot.expected.get());
            let (memory, registers) = (Self::memory(&context), cpu.registers.holds.get());
            // The core tells of a plan's load when the plan has saved too.
            let op = self.in_use.get().map(|(_, op)| op);
            let guest = matches!(op, Some(Op::GuestSteps(..)));
            let trip = guest || matches!(op, Some(Op::Enter(Form::RoundTrip, _)));
            let here = guest || number(word) == number(cpu.words.resident());
            let wrong = match (event.kind, said) {
                (EventKind::Saved, None) => "saved, and nobody was asked",
                (EventKind::Saved, Some(true)) => "told of a save that was left out",
                (EventKind::Unchanged, None | Some(false)) => "a save is left out that is due",
                _ => "",
            };
            if !wrong.is_empty() {
                self.line.report(|| String::from(wrong));
            }
            let right = match event.kind {
                EventKind::Saved | EventKind::Unchanged | EventKind::Unloaded => {
                    word & MEMORY != 0 && memory == expected
                }
                EventKind::Restored | EventKind::Skipped => registers == expected,
                EventKind::Loaded => here && (word & MEMORY == 0 || trip) && registers == expected,
                EventKind::Invalidated => word == NOWHERE,
                _ => word & MEMORY != 0,
            };
            if !right {
                self.line.report(|| format!("told of too early or too late: {:?}", event.kind));
            }
        }
    }

    /// Reports what the operation did not come to.
    pub(super) fn check_after(&self, step: Move, before: &State, done: Result<(), Error>) {
        let after = self.state();
        if self.cpus.iter().any(|cpu| cpu.registers.section.take().is_some()) {
            self.line.report(|| String::from("the end of a section is not told"));
        }
        if !self.forgot.get() {
            for (c, (was, is)) in before.cpus.iter().zip(&after.cpus).enumerate() {
                self.check_gate(step, c, was, is, done);
            }
        }
        if step.irq.is_none() {
            self.check_claims(step, before, &after, done);
            if done.is_ok() {
                self.check_needs(step, before, &after);
            }
        }
    }

    /// Code that closes a CPU opens it, and a CPU goes offline and online only where the kernel says so.
    fn check_gate(
        &self,
        step: Move,
        c: usize,
        was: &CpuState,
        is: &CpuState,
        done: Result<(), Error>,
    ) {
        let by_other = match step.irq {
            Some((_, Irq::Other { cpu, op, .. })) if usize::from(cpu) == c => Some(op),
            _ => None,
        };
        let own = (usize::from(step.cpu) == c && done.is_ok()).then_some(step.op);
        let does = |ops: &[Op]| [own, by_other].iter().flatten().any(|op| ops.contains(op));
        let comes = does(&[Op::Online, Op::OnlineAnew]);
        let stays = is.gate == GATE_OPEN && (is.open || is.left <= RESERVE);
        let gone = is.gate == GATE_OFFLINE && !is.open;
        let irq = usize::from(step.cpu) == c && step.irq.is_some_and(|(_, irq)| irq.is_lifecycle());
        let right = if irq && (was.gate == GATE_OFFLINE || was.is_open()) {
            stays || gone
        } else if was.gate == GATE_OFFLINE {
            is.gate == GATE_OFFLINE && own != Some(Op::Online) || comes && is.is_open()
        } else if was.is_open() {
            stays && own != Some(Op::Offline) || does(&[Op::Offline]) && gone
        } else {
            true
        };
        if !right {
            self.line.report(|| format!("CPU {c} is left with the gate at {}", is.gate));
        }
    }

    /// An operation that was to end the claims has ended them.
    fn check_claims(&self, step: Move, before: &State, after: &State, done: Result<(), Error>) {
        let cpu = usize::from(step.cpu);
        let ends = match step.op {
            // Where no stamp is left, the claim ends all the same.
            Op::Invalidate(_) | Op::Resume => matches!(done, Ok(()) | Err(Error::Exhausted)),
            Op::Section | Op::WithSection | Op::SectionSteps(true) => done.is_ok(),
            Op::GuestSteps(..) => done.is_ok(),
            _ => false,
        };
        let opened = before.cpus[cpu].is_open() && after.cpus[cpu].is_open();
        if ends && opened && after.contexts.iter().any(|it| it.held(cpu)) {
            self.line.report(|| String::from("a claim that was to end stands"));
        }
    }

    /// The operation has moved nothing that was there already, and what it was to move is there.
    fn check_needs(&self, step: Move, before: &State, after: &State) {
        let cpu = usize::from(step.cpu);
        let open = before.cpus[cpu].is_open();
        let of = match step.op {
            Op::Session(of, _) | Op::Saved(of, _) | Op::Persistent(of, _) | Op::Verify(of) => of,
            Op::GuestSteps(of, _) | Op::Replace(of, _) => of,
            _ => Of::Current,
        };
        let which = match step.op {
            Op::Held(_) | Op::HeldReplace(_) | Op::Switch(_) => Some(usize::from(step.context)),
            _ if of == Of::Guest => Some(self.guest()),
            _ => before.cpus[cpu].current,
        };
        let was = which.map(|which| before.contexts[which]);
        let is = which.map(|which| after.contexts[which]);
        let held = open && was.is_some_and(|it| it.held(cpu));
        let saved = was.is_some_and(|it| it.saved());
        let registers = &self.cpus[cpu].registers;
        // A save that was deferred comes first, where the operation takes the registers.
        let deferred = |it: &usize| self.is_bound(*it) && !before.contexts[*it].saved();
        let deferred =
            open && (0..self.slots.len()).any(|it| deferred(&it) && before.contexts[it].held(cpu));
        let (saves, restores) = (registers.saves.get(), registers.restores.get());
        let complain = |what: &str| self.line.report(|| String::from(what));

        let refuses = match step.op {
            Op::Enter(..)
            | Op::Session(..)
            | Op::Section
            | Op::WithSection
            | Op::Persistent(..) => true,
            Op::Held(_) | Op::Adopt(_) | Op::Switch(_) => true,
            Op::Replace(..) | Op::HeldReplace(_) => true,
            Op::Saved(..) | Op::ForkSaved => true,
            Op::SectionSteps(_) | Op::GuestSteps(..) | Op::DropGuest(_) => true,
            Op::SwitchTo(_) | Op::SwitchToFails | Op::DropSwitch => true,
            Op::Fork | Op::Reset(_) | Op::Verify(_) | Op::Idle | Op::Invalidate(_) => true,
            Op::Resume | Op::DropPendingUser => true,
            op if op.of_bound() => true,
            // A CPU can go offline where no stamp is left.
            Op::Offline => before.cpus[cpu].left > RESERVE,
            _ => false,
        };
        if refuses && !open {
            complain("not refused on a CPU that is not open");
        }
        let loads = match step.op {
            // These steps load what memory holds in any case.
            Op::Enter(Form::Switch, _) => !saved,
            Op::Enter(..) | Op::Switch(_) | Op::DropPendingUser | Op::Persistent(..) => true,
            Op::Session(_, does) => does == Does::Loads,
            Op::Adopt(_) => {
                return self.check_adopted(is.is_some_and(|it| it.held(cpu) && !it.saved()))
            }
            _ => false,
        };
        if loads && held && restores > 0 {
            complain("registers are loaded that hold it already");
        }
        let sections = [Op::Section, Op::WithSection, Op::SectionSteps(true)];
        let leaves = [Op::DropPendingSave, Op::Fork].contains(&step.op)
            || sections.contains(&step.op)
            || matches!(step.op, Op::Out(_) | Op::Session(..) | Op::Held(_))
            || matches!(step.op, Op::Saved(..) | Op::ForkSaved)
            || matches!(step.op, Op::Replace(..) | Op::HeldReplace(_));
        if leaves && saved && saves > u16::from(deferred) {
            complain("an image is saved that is valid already");
        }
        let valid = match step.op {
            Op::Session(_, Does::Reads) | Op::Persistent(..) | Op::Fork | Op::Held(_) => true,
            Op::ForkSaved | Op::Replace(..) | Op::HeldReplace(_) => true,
            Op::GuestSteps(..) | Op::SectionSteps(true) => is.is_some(),
            Op::Enter(form, _) => form == Form::RoundTrip,
            _ => false,
        };
        if valid && !is.is_some_and(|it| it.saved()) {
            complain("an image that was saved is not valid");
        }
        let loaded = match step.op {
            Op::Session(_, does) => matches!(does, Does::Loads | Does::WritesThenLoads),
            Op::Enter(..) | Op::Switch(_) | Op::Persistent(..) => true,
            _ => false,
        };
        if loaded && !is.is_some_and(|it| it.held(cpu)) {
            complain("registers that were loaded are not claimed");
        }
        let looks = match step.op {
            Op::Session(_, Does::Nothing)
            | Op::Verify(_)
            | Op::StoppedRead
            | Op::DropPendingSave => true,
            Op::Saved(_, Does::Nothing | Does::Reads) => true,
            Op::SectionSteps(false) => true,
            Op::DropGuest(_) => !deferred,
            Op::Session(_, Does::Reads) | Op::Held(Does::Reads) => saved,
            Op::DropPendingUser => held,
            _ => false,
        };
        if let (Op::Switch(_), Some(prev)) = (step.op, before.cpus[cpu].current) {
            let leaves = Some(prev) != which;
            let due = deferred || leaves && !before.contexts[prev].saved();
            if leaves && !after.contexts[prev].saved() || saves != u16::from(due) {
                complain("a switch saves what is not due, or leaves out what is");
            }
        }
        if looks && (after.contexts != before.contexts || after.cpus != before.cpus) {
            complain("looking has changed something");
        }
    }

    /// Registers that were adopted are claimed, and are the only copy. The core moves nothing for that.
    fn check_adopted(&self, live: bool) {
        let moved = self
            .cpus
            .iter()
            .any(|cpu| cpu.registers.saves.get() + cpu.registers.restores.get() > 0);
        if !live || moved {
            self.line.report(|| String::from("registers that were adopted are not the task's"));
        }
    }
}
