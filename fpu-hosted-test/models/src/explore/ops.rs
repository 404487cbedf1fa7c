//! What a kernel can do, as data, so that a trace can be printed and played again.

use super::{
    line::Irq,
    machine::User::{self, Clears, Looks, Writes},
    state::Order,
    Bounds,
};

/// Which context an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The task that is current on the CPU.
    Current,
    /// The guest.
    Guest,
}
use Of::{Current, Guest};

/// How a task is switched out, or in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `switch_prepare`, `switch_return`.
    Call,
    /// A plan, executed.
    Plan,
    /// A plan that takes the task out and back in.
    RoundTrip,
    /// The raw layer.
    Raw,
    /// A session.
    Session,
    /// `switch` with nobody on the other side; then, where the task goes on, `switch_in`.
    Inside,
    /// The steps of a switch, executed.
    Switch,
}

/// What is done with an open session before it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Nothing.
    Nothing,
    /// Reads the image.
    Reads,
    /// Writes the image.
    Writes,
    /// Reads it, then writes it.
    ReadsThenWrites,
    /// Takes what would let it write, and writes nothing.
    WritesNothing,
    /// Drops the claim of state 2a.
    Invalidates,
    /// Loads the registers.
    Loads,
    /// Loads the registers, which fails.
    LoadFails,
    /// Writes the image, then loads it.
    WritesThenLoads,
    /// Writes the image, then loads it, which fails.
    WritesThenLoadFails,
    /// Loads the registers, then writes the image.
    LoadsThenWrites,
}

/// An operation on one CPU, about one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A task becomes current.
    Become,
    /// It does, and runs in user mode.
    Takes,
    /// The current task is switched out.
    Out(Form),
    /// The same, decided and not executed.
    DropPendingSave,
    /// The current task enters and leaves user mode.
    Enter(Form, User),
    /// It does not: the restore fails.
    EnterFails(Form),
    /// A plan for it is dropped.
    DropPendingUser,
    /// A session.
    Session(Of, Does),
    /// A session of a task that is current nowhere, by whoever holds its context exclusively.
    Held(Does),
    /// The registers, as they are, become the current task's, which goes on in them.
    Adopt(User),
    /// From the current task, if there is one, to the next in one call.
    Switch(User),
    /// The next does not run: the restore fails.
    SwitchFails,
    /// A session on what memory holds, without an instruction.
    Saved(Of, Does),
    /// Its area is replaced, by one with more room or with the least.
    Replace(Of, bool),
    /// So is that of a task that is current nowhere, by whoever holds its context exclusively.
    HeldReplace(bool),
    /// A kernel FPU section.
    Section,
    /// The same by closure.
    WithSection,
    /// A section whose save is executed; or it is only decided.
    SectionSteps(bool),
    /// A guest runs by steps that are executed.
    GuestSteps(Of, User),
    /// It does not: the restore fails.
    GuestStepsFail,
    /// A run of it is decided and not executed.
    DropGuest(Of),
    /// A persistent context runs.
    Persistent(Of, User),
    /// It does not: the restore fails.
    PersistentFails,
    /// The current task forks into another context.
    Fork,
    /// It does so out of memory, without an instruction.
    ForkSaved,
    /// The steps of one switch from the current task to another, which enters and leaves user mode.
    SwitchTo(User),
    /// The same, except that the restore fails.
    SwitchToFails,
    /// The same, decided and not executed.
    DropSwitch,
    /// The current task, or the guest, goes back to the initial state.
    Reset(Of),
    /// The registers are compared with memory.
    Verify(Of),
    /// Kernel code has changed registers that are claimed; the comparison finds it.
    Finds(Of),
    /// The idle loop.
    Idle,
    /// The claims end; registers are overwritten if so.
    Invalidate(bool),
    /// The power was gone.
    Resume,
    /// The CPU goes offline and loses its registers.
    Offline,
    /// The CPU goes online again.
    Online,
    /// The CPU goes online under a number that no CPU has had, because its own is used up.
    OnlineAnew,
    /// A stopped task, or the guest, is read.
    StoppedRead,
    /// It is written.
    StoppedWrite,
    /// A task that is current nowhere, or the guest, ends; its memory is another's.
    Exit,
    /// The current task ends.
    ExitCurrent,
    /// A task's context changes places in memory with the guest's.
    Swap,
    /// Kernel code uses the registers outside a section, which breaks K9.
    Clobber,
}

impl Op {
    /// Can an interrupt come? What is done with interrupts off, or without the core, has no steps.
    pub(super) fn interruptible(self) -> bool {
        matches!(
            self,
            Op::Session(..)
                | Op::Held(_)
                | Op::Enter(Form::Inside, _)
                | Op::Section
                | Op::WithSection
                | Op::Persistent(..)
                | Op::PersistentFails
                | Op::Saved(..)
                | Op::SectionSteps(_)
                | Op::GuestSteps(..)
                | Op::GuestStepsFail
                | Op::DropGuest(_)
                | Op::Fork
                | Op::ForkSaved
                | Op::Replace(..)
                | Op::HeldReplace(_)
                | Op::Reset(_)
                | Op::Verify(_)
                | Op::Idle
                | Op::Invalidate(false)
                | Op::Offline
                | Op::Online
                | Op::OnlineAnew
        )
    }
    /// Does a restore fail in it?
    pub(super) fn fails(self) -> bool {
        let loads = [Does::LoadFails, Does::WritesThenLoadFails];
        match self {
            Op::EnterFails(_) | Op::SwitchFails | Op::PersistentFails | Op::SwitchToFails => true,
            Op::GuestStepsFail => true,
            Op::Session(_, does) => loads.contains(&does),
            _ => false,
        }
    }
    /// Is what is refused at its end not all that it did?
    pub(super) fn in_parts(self) -> bool {
        matches!(
            self,
            Op::Enter(Form::Session, _)
                | Op::EnterFails(Form::Session)
                | Op::Session(..)
                | Op::Switch(_)
                | Op::SwitchFails
                | Op::Invalidate(_)
                | Op::Resume
        )
    }
    /// Are the registers overwritten by something that is not the core?
    pub(super) fn overwrites(self) -> bool {
        matches!(self, Op::Invalidate(true) | Op::Resume)
    }
    /// Is it about the CPU that does it, and what is current there?
    pub(super) fn about_cpu(self) -> bool {
        !matches!(self, Op::StoppedRead | Op::StoppedWrite | Op::Exit | Op::Swap)
    }
    /// Is it about a context that it names?
    pub(super) fn about_context(self) -> bool {
        let names = matches!(self, Op::Become | Op::Takes | Op::Held(_) | Op::HeldReplace(_));
        let forks = matches!(self, Op::Fork | Op::ForkSaved);
        let switches = matches!(self, Op::Switch(_) | Op::SwitchFails)
            || matches!(self, Op::SwitchTo(_) | Op::SwitchToFails | Op::DropSwitch);
        names || forks || switches || !self.about_cpu()
    }
    /// Does it use the guest?
    pub(super) fn of_guest(self) -> bool {
        matches!(
            self,
            Op::Session(Guest, _)
                | Op::Saved(Guest, _)
                | Op::Replace(Guest, _)
                | Op::GuestSteps(Guest, _)
                | Op::GuestStepsFail
                | Op::DropGuest(Guest)
                | Op::Persistent(Guest, _)
                | Op::PersistentFails
                | Op::Reset(Guest)
                | Op::Verify(Guest)
                | Op::Finds(Guest)
        )
    }
    /// All of them, each with whether it is about every CPU and about every context.
    pub(super) fn all(bounds: Bounds) -> Vec<(Self, bool, bool)> {
        let mut all = vec![(Op::Become, true, true)];
        let mut add = |op| all.push((op, true, false));
        let forms = [Form::Call, Form::Plan, Form::Raw, Form::Session, Form::Inside, Form::Switch];
        for form in forms {
            add(Op::Out(form));
            add(Op::EnterFails(form));
            for user in [Looks, Writes, Clears] {
                add(Op::Enter(form, user));
            }
        }
        for user in [Looks, Writes, Clears] {
            add(Op::Enter(Form::RoundTrip, user));
            add(Op::Persistent(Guest, user));
            add(Op::Persistent(Current, user));
            add(Op::Adopt(user));
            add(Op::GuestSteps(Guest, user));
            add(Op::GuestSteps(Current, user));
        }
        for of in [Current, Guest] {
            for does in [
                Does::Nothing,
                Does::Reads,
                Does::Writes,
                Does::ReadsThenWrites,
                Does::WritesNothing,
                Does::Invalidates,
                Does::Loads,
                Does::LoadFails,
                Does::WritesThenLoads,
                Does::WritesThenLoadFails,
                Does::LoadsThenWrites,
            ] {
                add(Op::Session(of, does));
            }
            for does in [Does::Nothing, Does::Reads, Does::Writes, Does::ReadsThenWrites] {
                add(Op::Saved(of, does));
            }
            add(Op::Replace(of, false));
            if bounds.grows {
                add(Op::Replace(of, true));
            }
            add(Op::Reset(of));
            add(Op::Verify(of));
            add(Op::Finds(of));
        }
        for op in [
            Op::DropPendingSave,
            Op::DropPendingUser,
            Op::SectionSteps(true),
            Op::SectionSteps(false),
            Op::GuestStepsFail,
            Op::DropGuest(Guest),
            Op::DropGuest(Current),
            Op::Section,
            Op::WithSection,
            Op::PersistentFails,
            Op::Idle,
            Op::Invalidate(false),
            Op::Invalidate(true),
            Op::Resume,
            Op::Offline,
            Op::Online,
            Op::ExitCurrent,
        ] {
            add(op);
        }
        for op in [Op::Fork, Op::ForkSaved, Op::SwitchFails, Op::DropSwitch] {
            all.push((op, true, true));
        }
        // From one task to another.
        let another = bounds.tasks > 1;
        if another {
            all.push((Op::SwitchToFails, true, true));
        }
        for user in [Looks, Writes, Clears] {
            all.push((Op::Switch(user), true, true));
            if another {
                all.push((Op::SwitchTo(user), true, true));
            }
        }
        for does in [Does::Reads, Does::Writes, Does::ReadsThenWrites, Does::WritesNothing] {
            all.push((Op::Held(does), true, true));
        }
        all.push((Op::HeldReplace(false), true, true));
        if bounds.grows {
            all.push((Op::HeldReplace(true), true, true));
        }
        for op in [Op::StoppedRead, Op::StoppedWrite, Op::Exit] {
            all.push((op, false, true));
        }
        if bounds.stamps.is_some() {
            all.push((Op::OnlineAnew, true, false));
        }
        if bounds.others {
            all.push((Op::Takes, true, true));
        }
        if bounds.moves {
            all.push((Op::Swap, false, true));
        }
        if bounds.wrong_kernel {
            all.push((Op::Clobber, true, false));
        }
        all
    }
}

/// One step of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub(super) cpu: u8,
    pub(super) context: u8,
    pub(super) op: Op,
    pub(super) irq: Option<(u16, Irq)>,
}

/// An operation on a CPU, about a context where the operation is about one.
#[must_use]
pub const fn on(cpu: u8, op: Op, context: u8) -> Move {
    Move { cpu, context, op, irq: None }
}

impl Move {
    /// With an interrupt at this step of it, counted from 1.
    #[must_use]
    pub const fn interrupted(self, step: u16, irq: Irq) -> Self {
        Self { irq: Some((step, irq)), ..self }
    }
    /// While another CPU carries out a whole operation at this step of it, counted from 1, those with interrupts off
    /// included.
    #[must_use]
    pub const fn meanwhile(self, step: u16, other: Self) -> Self {
        let Self { cpu, op, context, .. } = other;
        self.interrupted(step, Irq::Other { cpu, op, context })
    }
    /// The same with other names.
    pub(super) fn relabel(self, names: Order) -> Self {
        let cpu = |old: u8| names.cpus[usize::from(old)];
        let context = |old: u8| names.contexts[usize::from(old)];
        let irq = self.irq.map(|(step, irq)| match irq {
            Irq::Other { cpu: c, op, context: t } => {
                (step, Irq::Other { cpu: cpu(c), op, context: context(t) })
            }
            irq => (step, irq),
        });
        Self { cpu: cpu(self.cpu), context: context(self.context), irq, ..self }
    }
}

impl std::fmt::Display for Move {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "on({}, Op::", self.cpu)?;
        let text = format!("{:?}", self.op);
        // The operation's own parts by their paths.
        match text.split_once('(') {
            None => f.write_str(&text)?,
            Some((name, parts)) => {
                let parts = parts.trim_end_matches(')').split(", ");
                let parts: Vec<_> = parts.map(|part| path(name, part)).collect();
                write!(f, "{name}({})", parts.join(", "))?;
            }
        }
        write!(f, ", {})", self.context)?;
        match self.irq {
            None => Ok(()),
            Some((step, Irq::Other { cpu, op, context })) => {
                write!(f, ".meanwhile({step}, {})", on(cpu, op, context))
            }
            Some((step, irq)) => write!(f, ".interrupted({step}, Irq::{irq:?})"),
        }
    }
}

fn path(name: &str, part: &str) -> String {
    let of = match part {
        "true" | "false" => return part.into(),
        "Current" | "Guest" => "Of",
        "Clears" | "Looks" | "Writes" if !["Session", "Held", "Saved"].contains(&name) => "User",
        "Call" | "Plan" | "RoundTrip" | "Raw" | "Session" | "Inside" | "Switch" => "Form",
        _ => "Does",
    };
    format!("{of}::{part}")
}
