//! How large a machine a search has, and what can happen to it.

use super::ops::{
    on, Does, Form, Irq, Move,
    Of::{Current, Guest},
    Op,
    User::{Clears, Looks, Writes},
};
use super::state::Order;

/// How large a machine, and what can happen to it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// CPUs, at most 3.
    pub cpus: usize,
    /// Tasks, at most 3; a guest comes on top.
    pub tasks: usize,
    /// An interrupt at each step of each operation that allows one, with a section, or a section and the guest; and
    /// a non-maskable one at every step.
    pub interrupts: bool,
    /// An interrupt that opens a session, loads it three times, and forgets it.
    pub forgotten: bool,
    /// An interrupt that brings the CPU online, or takes it offline, at each step of each operation that allows one.
    pub lifecycle: bool,
    /// A whole operation of another CPU at each step of each operation, and its attempt to take what is in use.
    pub others: bool,
    /// Contexts change places in memory.
    pub moves: bool,
    /// Contexts that the first CPU owns, at most 2, beside the tasks.
    pub bound: usize,
    /// Areas have more room and less.
    pub grows: bool,
    /// Witness and backend say so where memory holds what the registers hold. Otherwise they always say no, which is as
    /// right.
    pub unchanged: bool,
    /// So many stamps of its number are left to each CPU, at most 11. Then the CPU takes a number that none has had.
    pub stamps: Option<u8>,
    /// Kernel code breaks a duty, which the search must find.
    pub wrong_kernel: bool,
    /// The search goes no more moves than this from the beginning.
    pub depth: Option<usize>,
}

impl Bounds {
    /// What the suite runs.
    pub const SUITE: Self = Self {
        cpus: 2,
        tasks: 2,
        interrupts: true,
        forgotten: true,
        lifecycle: true,
        others: false,
        moves: false,
        bound: 0,
        grows: false,
        unchanged: false,
        stamps: None,
        wrong_kernel: false,
        depth: None,
    };
    /// What the suite runs with areas that grow.
    pub const GROWS: Self =
        Self { tasks: 1, forgotten: false, lifecycle: false, grows: true, ..Self::SUITE };
    /// What the suite runs where saves are left out.
    pub const UNCHANGED: Self =
        Self { forgotten: false, lifecycle: false, unchanged: true, ..Self::SUITE };
    /// What the suite runs with another CPU's operations.
    pub const OTHERS: Self =
        Self { interrupts: false, forgotten: false, lifecycle: false, others: true, ..Self::SUITE };

    /// What the suite runs with contexts that a CPU owns.
    pub const BOUND: Self = Self { cpus: 1, tasks: 1, bound: 2, ..Self::SUITE };

    /// The tasks, the contexts that a CPU owns, and the guest after them.
    pub(super) fn contexts(self) -> usize {
        self.tasks + self.bound + 1
    }
    /// The orders of CPUs and tasks that are one state. A CPU that owns contexts differs from others.
    pub(super) fn orders(self) -> Vec<Order> {
        Order::all(if self.bound > 0 { 0 } else { self.cpus }, self.tasks)
    }
    /// The interrupts that can come at any step that is not masked.
    pub(super) fn irqs(self) -> Vec<Irq> {
        let mut irqs = Vec::new();
        if self.interrupts {
            irqs.extend([Irq::Section, Irq::SectionThenGuest, Irq::Loads]);
        }
        if self.lifecycle {
            irqs.extend([Irq::Online, Irq::Offline]);
        }
        if self.forgotten {
            irqs.push(Irq::Forgets);
        }
        irqs
    }
    /// The operations, on each CPU and with each context where that makes a difference.
    pub(super) fn moves(self) -> Vec<Move> {
        let mut moves = Vec::new();
        for op in self.operations() {
            let cpus = if op.about_cpu() { self.cpus } else { 1 };
            let contexts = if op.about_context() { self.contexts() } else { 1 };
            for cpu in 0..cpus {
                moves.extend((0..contexts).map(|context| on(cpu as u8, op, context as u8)));
            }
        }
        moves
    }
    /// The operations.
    pub(super) fn operations(self) -> Vec<Op> {
        let mut all = vec![Op::Become];
        let forms = [Form::Call, Form::Plan, Form::Raw, Form::Session, Form::Inside, Form::Switch];
        for form in forms {
            all.push(Op::Out(form));
            all.push(Op::EnterFails(form));
            for user in [Looks, Writes, Clears] {
                all.push(Op::Enter(form, user));
            }
        }
        for user in [Looks, Writes, Clears] {
            all.push(Op::Enter(Form::RoundTrip, user));
            all.push(Op::Persistent(Guest, user));
            all.push(Op::Persistent(Current, user));
            all.push(Op::Adopt(user));
            all.push(Op::GuestSteps(Guest, user));
            all.push(Op::GuestSteps(Current, user));
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
                all.push(Op::Session(of, does));
            }
            for does in [Does::Nothing, Does::Reads, Does::Writes, Does::ReadsThenWrites] {
                all.push(Op::Saved(of, does));
            }
            all.push(Op::Replace(of, false));
            if self.grows {
                all.push(Op::Replace(of, true));
            }
            all.push(Op::Reset(of));
            all.push(Op::Verify(of));
            all.push(Op::Finds(of));
        }
        all.extend([
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
            Op::Fork,
            Op::ForkSaved,
            Op::SwitchFails,
            Op::DropSwitch,
            Op::HeldReplace(false),
        ]);
        if self.grows {
            all.push(Op::HeldReplace(true));
        }
        // From one task to another.
        let another = self.tasks > 1;
        if another {
            all.push(Op::SwitchToFails);
        }
        for user in [Looks, Writes, Clears] {
            all.push(Op::Switch(user));
            if another {
                all.push(Op::SwitchTo(user));
            }
        }
        for does in [Does::Reads, Does::Writes, Does::ReadsThenWrites, Does::WritesNothing] {
            all.push(Op::Held(does));
        }
        all.extend([Op::StoppedRead, Op::StoppedWrite, Op::Exit]);
        if self.stamps.is_some() {
            all.push(Op::OnlineAnew);
        }
        if self.others {
            all.push(Op::Takes);
        }
        if self.moves {
            all.push(Op::Swap);
        }
        if self.bound > 0 {
            all.extend([Op::BoundFails, Op::BoundReset, Op::Settle, Op::BoundExit, Op::BoundMoves]);
            for user in [Looks, Writes, Clears] {
                all.extend([Op::BoundRuns(user), Op::BoundRunsInside(user)]);
            }
            for does in [
                Does::Nothing,
                Does::Reads,
                Does::ReadsThenWrites,
                Does::WritesNothing,
                Does::Invalidates,
                Does::Loads,
                Does::LoadFails,
                Does::WritesThenLoads,
            ] {
                all.push(Op::BoundSession(does));
            }
        }
        if self.wrong_kernel {
            all.push(Op::Clobber);
        }
        all
    }
}
