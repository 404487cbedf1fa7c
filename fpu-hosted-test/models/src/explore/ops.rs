//! What a kernel can do, as data, so that a trace can be printed and played again.

use super::state::Order;

/// Which context an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The task that is current on the CPU.
    Current,
    /// The guest.
    Guest,
}
use Of::Guest;

/// What user code does to its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// User code only looks, so that the backend can leave out a save.
    Looks,
    /// User code computes something new.
    Writes,
    /// User code brings its registers to their initial state, so that a save leaves them out.
    Clears,
}

/// How a task is switched out, or in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `switch_prepare`, `switch_return`.
    Call,
    /// A plan, executed.
    Plan,
    /// A plan that restores a task, lets it run, and saves it.
    RoundTrip,
    /// The raw layer.
    Raw,
    /// A session.
    Session,
    /// `switch` from or to no task; then, where the task resumes, `switch_in`.
    Inside,
    /// The steps of a switch, executed.
    Switch,
}

/// What kernel code does with an open session before it drops the session.
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
    /// Ends the claims so that it could write, and writes nothing.
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

/// An operation on one CPU, about one context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A task becomes current.
    Become,
    /// A task becomes current and runs in user mode.
    Takes,
    /// The kernel switches the current task out.
    Out(Form),
    /// The core decides the steps of the switch-out, and the kernel executes none.
    DropPendingSave,
    /// The current task enters and leaves user mode.
    Enter(Form, User),
    /// The current task does not enter user mode: the restore fails.
    EnterFails(Form),
    /// The core decides the steps to user mode, and the kernel executes none.
    DropPendingUser,
    /// A session.
    Session(Of, Does),
    /// A session of a task that is current nowhere, by kernel code that holds its context exclusively.
    Held(Does),
    /// The registers, as they are, become the current task's, which keeps running in them.
    Adopt(User),
    /// One call switches from the current task, if there is one, to the next.
    Switch(User),
    /// The next task does not run: the restore fails.
    SwitchFails,
    /// A session on what memory holds, without an instruction.
    Saved(Of, Does),
    /// The context gets another area, with more room or with the least.
    Replace(Of, bool),
    /// So does that of a task that is current nowhere, by whoever holds its context exclusively.
    HeldReplace(bool),
    /// A kernel FPU section.
    Section,
    /// A kernel FPU section by closure.
    WithSection,
    /// The core decides the steps of a section, and the kernel executes them if so.
    SectionSteps(bool),
    /// A guest runs by steps that the kernel executes.
    GuestSteps(Of, User),
    /// The guest does not run by steps: the restore fails.
    GuestStepsFail,
    /// The core decides the steps of a guest's run, and the kernel executes none.
    DropGuest(Of),
    /// A persistent context runs.
    Persistent(Of, User),
    /// The persistent context does not run: the restore fails.
    PersistentFails,
    /// The current task forks into another context.
    Fork,
    /// The current task forks out of memory, without an instruction.
    ForkSaved,
    /// The steps of one switch from the current task to another, which enters and leaves user mode.
    SwitchTo(User),
    /// The steps of one switch, whose restore fails.
    SwitchToFails,
    /// The core decides the steps of one switch, and the kernel executes none.
    DropSwitch,
    /// The current task, or the guest, goes back to the initial state.
    Reset(Of),
    /// The core compares the registers with memory.
    Verify(Of),
    /// Kernel code changes registers that are claimed; the comparison finds the change.
    Finds(Of),
    /// The idle loop.
    Idle,
    /// The kernel ends the claims, and overwrites the registers if so.
    Invalidate(bool),
    /// The CPU resumes after its power was gone.
    Resume,
    /// The CPU goes offline and loses its registers.
    Offline,
    /// The CPU goes online again.
    Online,
    /// The CPU goes online under a number that no CPU has had, because its own is used up.
    OnlineAnew,
    /// A debugger reads a stopped task, or the guest.
    StoppedRead,
    /// A debugger writes a stopped task, or the guest.
    StoppedWrite,
    /// A task that is current nowhere, or the guest, ends, and a new one gets its memory.
    Exit,
    /// The current task ends, and a new one gets its memory.
    ExitCurrent,
    /// A task's context changes places in memory with the guest's.
    Swap,
    /// Kernel code uses the registers outside a section, which breaks K9.
    Clobber,
    /// A bound task becomes current, runs in user mode, and leaves without a call.
    BoundRuns(User),
    /// The same in a kernel without user mode, with interrupts before the second `switch_in`.
    BoundRunsInside(User),
    /// The bound task does not run: the restore fails.
    BoundFails,
    /// A session of a bound task.
    BoundSession(Does),
    /// A bound task goes back to the initial state.
    BoundReset,
    /// The kernel saves the context whose save is deferred.
    Settle,
    /// A bound task ends, and a new one gets its slot.
    BoundExit,
    /// A bound task is unbound, runs on another CPU where one is free, or here, and is bound again.
    BoundMoves,
}

impl Op {
    /// Tells whether an interrupt can come. An operation with interrupts off, or without the core, has no step for one.
    pub(super) fn interruptible(self) -> bool {
        matches!(
            self,
            Op::Session(..)
                | Op::Held(_)
                | Op::Enter(Form::Inside, _)
                | Op::Section
                | Op::WithSection
                | Op::Persistent(..)
                | Op::BoundRunsInside(_)
                | Op::BoundSession(_)
                | Op::BoundReset
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
    /// Tells whether a restore fails in the operation.
    pub(super) fn fails(self) -> bool {
        let loads = [Does::LoadFails, Does::WritesThenLoadFails];
        match self {
            Op::EnterFails(_) | Op::SwitchFails | Op::PersistentFails | Op::SwitchToFails => true,
            Op::GuestStepsFail => true,
            Op::Session(_, does) | Op::BoundSession(does) => loads.contains(&does),
            Op::BoundFails => true,
            _ => false,
        }
    }
    /// Tells whether the operation can have done a part before the core refuses the rest.
    pub(super) fn in_parts(self) -> bool {
        matches!(
            self,
            Op::Enter(Form::Session, _)
                | Op::EnterFails(Form::Session)
                | Op::Session(..)
                | Op::BoundSession(_)
                | Op::Switch(_)
                | Op::SwitchFails
                | Op::Invalidate(_)
                | Op::Resume
        )
    }
    /// Tells whether something other than the core overwrites the registers.
    pub(super) fn overwrites(self) -> bool {
        matches!(self, Op::Invalidate(true) | Op::Resume)
    }
    /// Tells whether the operation is about the CPU that carries it out, and the task that is current there.
    pub(super) fn about_cpu(self) -> bool {
        !matches!(self, Op::StoppedRead | Op::StoppedWrite | Op::Exit | Op::Swap)
    }
    /// Tells whether the operation is about a context that it names.
    pub(super) fn about_context(self) -> bool {
        let names = matches!(self, Op::Become | Op::Takes | Op::Held(_) | Op::HeldReplace(_));
        let forks = matches!(self, Op::Fork | Op::ForkSaved);
        let switches = matches!(self, Op::Switch(_) | Op::SwitchFails)
            || matches!(self, Op::SwitchTo(_) | Op::SwitchToFails | Op::DropSwitch);
        names || forks || switches || self.of_bound() || !self.about_cpu()
    }
    /// Tells whether the operation is about a context that a CPU owns.
    pub(super) fn of_bound(self) -> bool {
        matches!(self, Op::BoundRuns(_) | Op::BoundRunsInside(_) | Op::BoundFails)
            || matches!(self, Op::BoundSession(_) | Op::BoundReset | Op::Settle)
            || matches!(self, Op::BoundExit | Op::BoundMoves)
    }
    /// Tells whether the operation uses the guest.
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
}

/// What comes at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irq {
    /// A section.
    Section,
    /// A section and then the guest, so that the core issues stamps to others.
    SectionThenGuest,
    /// Loads the current task, as the last step of a handler in a kernel without user mode.
    Loads,
    /// Opens a session of the guest, loads it three times, and never ends it.
    Forgets,
    /// Brings an offline CPU online; then a section and the guest.
    Online,
    /// Takes the CPU offline, where no task is current.
    Offline,
    /// Comes at every step, non-maskable: the core refuses everything that it tries.
    Nmi,
    /// No interrupt: another CPU carries out an operation, from its beginning to its end.
    Other {
        /// The other CPU.
        cpu: u8,
        /// What it does.
        op: Op,
        /// With that context.
        context: u8,
    },
    /// No interrupt: at every step, another CPU attempts to take what is in use.
    Attempt,
}

impl Irq {
    /// Tells whether the operation can take the CPU offline, or bring it online.
    pub(super) fn is_lifecycle(self) -> bool {
        matches!(self, Irq::Online | Irq::Offline)
    }
    /// Tells whether it comes from another CPU, which masked interrupts do not keep away.
    pub(super) fn is_from_another(self) -> bool {
        matches!(self, Irq::Other { .. } | Irq::Attempt)
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
    /// While another CPU carries out a whole operation at this step of it, counted from 1. Here steps with interrupts
    /// off count too.
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
        "Clears" | "Looks" | "Writes"
            if !["Session", "Held", "Saved", "BoundSession"].contains(&name) =>
        {
            "User"
        }
        "Call" | "Plan" | "RoundTrip" | "Raw" | "Session" | "Inside" | "Switch" => "Form",
        _ => "Does",
    };
    format!("{of}::{part}")
}
