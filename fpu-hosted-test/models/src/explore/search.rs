//! The search: breadth first over canonical states, until there is no new one.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use fpu_core::{CpuLifecycle, CpuWords, Error, Level};

use super::{
    backend::Pin,
    bounds::Bounds,
    found::{Found, Violation},
    line::Around,
    machine::Machine,
    ops::{on, Irq, Move, Op},
    state::{Order, Packed, State},
    words::{number, GATE_OFFLINE},
};

#[derive(Default)]
struct Mix(u64);
impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u128(byte.into());
        }
    }
    fn write_u128(&mut self, value: u128) {
        let halves = (value >> 64) as u64 ^ (value as u64).rotate_left(29);
        self.0 = (self.0 ^ halves).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }
}

/// What came of one move.
struct Came {
    to: Packed,
    order: Order,
    /// Steps at which an interrupt could come.
    steps: u16,
    delivered: bool,
    wrong: Option<String>,
}

struct Search {
    machine: &'static Machine,
    bounds: Bounds,
    orders: Vec<Order>,
    moves: Vec<Move>,
    irqs: Vec<Irq>,
    known: HashMap<Packed, u32, BuildHasherDefault<Mix>>,
    states: Vec<Packed>,
    /// The state before each state, and the move that first led from there.
    links: Vec<(u32, Move)>,
    operations: u64,
    applied: Vec<Op>,
    /// Whose turn it is among moves of one kind.
    turn: usize,
}

impl Search {
    fn new(bounds: Bounds) -> Self {
        Self {
            machine: started(bounds),
            bounds,
            orders: bounds.orders(),
            moves: bounds.moves(),
            irqs: bounds.irqs(),
            known: HashMap::default(),
            states: Vec::new(),
            links: Vec::new(),
            operations: 0,
            applied: Vec::new(),
            turn: 0,
        }
    }

    /// Searches until no state is new, something is wrong, or the depth is reached.
    fn run(mut self) -> Found {
        let (root, _) = self.pack(&self.machine.state());
        self.known.insert(root, 0);
        self.states.push(root);
        self.links.push((0, on(0, Op::Become, 0)));
        let (mut depth, mut level_ends, mut violation) = (0, 1, None);
        let mut next = 0;
        let mut closed = true;
        while next < self.states.len() && violation.is_none() {
            if next == level_ends {
                (depth, level_ends) = (depth + 1, self.states.len());
                if self.bounds.depth.is_some_and(|most| depth >= most) {
                    closed = false;
                    break;
                }
            }
            violation = self.all_from(next).err();
            next += 1;
        }
        Found {
            bounds: self.bounds,
            operations: self.operations,
            states: self.states.len(),
            depth: if violation.is_some() { depth + 1 } else { depth },
            closed: closed && violation.is_none(),
            never_applied: self.never_applied(),
            called: self.machine.called.names(),
            violation,
        }
    }

    fn never_applied(&self) -> Vec<String> {
        let all = self.bounds.operations();
        let never = all.iter().filter(|op| !self.applied.contains(op));
        never.map(|op| format!("{op:?}")).collect()
    }

    fn all_from(&mut self, index: usize) -> Result<(), Violation> {
        let from = self.states[index];
        let state = self.unpack(from);
        self.machine.load(&state);
        let allowed = self.moves.iter().copied().filter(|step| self.machine.allows(*step));
        let allowed: Vec<Move> = allowed.collect();
        let kinds = if self.bounds.others { self.kinds(&state, &allowed) } else { Vec::new() };
        for &step in &allowed {
            if !self.applied.contains(&step.op) {
                self.applied.push(step.op);
            }
            let steps = self.go(index, &state, step)?;
            if self.bounds.interrupts {
                self.go(index, &state, step.interrupted(1, Irq::Nmi))?;
            }
            if self.bounds.others {
                self.with_others(index, &state, step, &kinds)?;
            }
            if !step.op.interruptible() {
                continue;
            }
            for i in 0..self.irqs.len() {
                let irq = self.irqs[i];
                if irq.is_lifecycle() && !could_come(irq, step, &state) {
                    continue;
                }
                if irq != Irq::Section && (step.op.fails() || step.op.of_guest()) {
                    continue;
                }
                // A right kernel begins no operation that a load of its current task, just before, would make wrong.
                if irq == Irq::Loads && !self.allowed_after_load(&state, step) {
                    continue;
                }
                for at in 1..=steps {
                    self.go(index, &state, step.interrupted(at, irq))?;
                }
            }
        }
        Ok(())
    }

    /// Tells whether the move would be right too if the interrupt that loads had come before it.
    fn allowed_after_load(&self, state: &State, step: Move) -> bool {
        self.machine.load(state);
        self.machine.struck(usize::from(step.cpu), Irq::Loads);
        self.machine.allows(step)
    }

    /// Moves by what they come to: another CPU sees nothing else of them.
    fn kinds(&self, state: &State, allowed: &[Move]) -> Vec<Vec<Move>> {
        let mut kinds: Vec<(_, Vec<Move>)> = Vec::new();
        let (cpus, contexts) = (self.bounds.cpus, self.bounds.contexts());
        for &step in allowed {
            self.machine.load(state);
            carry_out(self.machine, step);
            let (to, _) = self.machine.state().pack(&[Order::SAME], cpus, contexts);
            let key = (step.op.about_cpu().then_some(step.cpu), to);
            match kinds.iter_mut().find(|(known, _)| *known == key) {
                Some((_, moves)) => moves.push(step),
                None => kinds.push((key, vec![step])),
            }
        }
        kinds.into_iter().map(|(_, moves)| moves).collect()
    }

    /// Carries out a move with what other CPUs can do meanwhile: one move of each kind, in turn, wherever they would find
    /// other memory than before.
    fn with_others(
        &mut self,
        index: usize,
        state: &State,
        step: Move,
        kinds: &[Vec<Move>],
    ) -> Result<(), Violation> {
        self.machine.line.note_changes();
        self.try_move(state, step);
        let steps = self.machine.line.take_changes();
        if steps.is_empty() {
            return Ok(());
        }
        self.go(index, state, step.interrupted(1, Irq::Attempt))?;
        for kind in kinds {
            self.machine.load(state);
            let apart: Vec<_> =
                kind.iter().filter(|other| self.machine.apart(step, **other)).collect();
            if apart.is_empty() {
                continue;
            }
            for &at in &steps {
                self.turn = self.turn.wrapping_add(1);
                let other = *apart[self.turn % apart.len()];
                self.go(index, state, step.meanwhile(at, other))?;
            }
        }
        Ok(())
    }

    /// Carries out one move from a state. Returns the steps at which an interrupt could come.
    fn go(&mut self, index: usize, state: &State, step: Move) -> Result<u16, Violation> {
        self.operations += 1;
        let mut came = self.try_move(state, step);
        if came.wrong.is_none() && !self.known.contains_key(&came.to) {
            came.wrong = self.check();
            if came.wrong.is_none() {
                self.known.insert(came.to, self.states.len() as u32);
                self.states.push(came.to);
                self.links.push((index as u32, step));
            }
        }
        came.wrong.map_or(Ok(came.steps), |what| Err(self.violation(index, step, what)))
    }

    fn try_move(&self, state: &State, step: Move) -> Came {
        let machine = self.machine;
        machine.load(state);
        let wrong = carry_out(machine, step);
        let (to, order) = self.pack(&machine.state());
        Came { to, order, steps: machine.line.steps(), delivered: machine.line.delivered(), wrong }
    }

    fn check(&self) -> Option<String> {
        self.machine.check(&self.machine.state());
        self.machine.line.take_wrong()
    }

    fn pack(&self, state: &State) -> (Packed, Order) {
        state.pack(&self.orders, self.bounds.cpus, self.bounds.contexts())
    }
    fn unpack(&self, packed: Packed) -> State {
        State::unpack(packed, self.bounds.cpus, self.bounds.contexts())
    }

    /// The trace that leads there, under the names that CPUs and tasks had at the beginning.
    fn violation(&self, index: usize, last: Move, what: String) -> Violation {
        let mut way = vec![last];
        let mut at = index;
        while at != 0 {
            way.push(self.links[at].1);
            at = self.links[at].0 as usize;
        }
        way.reverse();
        let fresh = started(self.bounds);
        let (mut from, mut names) = self.pack(&fresh.state());
        let mut trace = Vec::new();
        for step in way {
            let came = self.try_move(&self.unpack(from), step);
            debug_assert!(step.irq.is_none() || came.delivered);
            trace.push(step.relabel(names));
            (from, names) = (came.to, names.then(came.order));
        }
        Violation { what, bounds: self.bounds, trace }
    }
}

/// A machine whose CPUs are online.
fn started(bounds: Bounds) -> &'static Machine {
    let machine = Machine::new(bounds.cpus, bounds.tasks + bounds.bound);
    machine.line.arm(0, None);
    for (at, cpu) in machine.cpus.iter().enumerate() {
        cpu.registers.tells.set(bounds.unchanged);
        // SAFETY: K15: each has its own number. K16: the words are new.
        let online = unsafe { Pin(cpu, Level::Task).fpu_online(at as u32) };
        debug_assert_eq!(online, Ok(()));
        // The states that follow rely on it that each CPU's word has its number.
        debug_assert_eq!(number(cpu.words.resident()), at as u32);
    }
    machine.bind_some(bounds.bound);
    if let Some(stamps) = bounds.stamps {
        machine.leave(stamps);
    }
    machine
}

/// Tells whether an interrupt of this operation could find the CPU offline, or online without a current task.
fn could_come(irq: Irq, step: Move, state: &State) -> bool {
    let cpu = &state.cpus[usize::from(step.cpu)];
    let offline = cpu.gate == GATE_OFFLINE;
    match irq {
        Irq::Online => offline || step.op == Op::Offline,
        _ => {
            let comes = matches!(step.op, Op::Online | Op::OnlineAnew);
            // A bound task is current while it runs.
            let runs = matches!(step.op, Op::BoundRunsInside(_));
            cpu.current.is_none() && !runs && (!offline || comes)
        }
    }
}

/// Carries out one move. Returns what was wrong with it.
fn carry_out(machine: &Machine, step: Move) -> Option<String> {
    let before = machine.state();
    machine.note_in_use(step);
    machine.line.arm(usize::from(step.cpu), step.irq);
    for cpu in &machine.cpus {
        cpu.registers.saves.set(0);
        cpu.registers.said.set(None);
        cpu.registers.by_steps.set(0);
        cpu.registers.restores.set(0);
    }
    let done = machine.apply(step);
    machine.line.disarm();
    machine.check_after(step, &before, done);
    if let Err(why) = done {
        let cpu = before.cpus[usize::from(step.cpu)];
        let by_irq = match step.irq {
            Some((_, Irq::Online)) => why == Error::CpuOnline,
            Some((_, Irq::Offline)) => why == Error::CpuOffline,
            _ => false,
        };
        let rightly = machine.rightly_refused(step.op, cpu.gate, cpu.is_open(), cpu.left, why);
        if !by_irq && !rightly {
            machine.line.report(|| format!("refused: {why:?}"));
        }
        let interrupted = step.irq.is_some_and(|(_, irq)| irq != Irq::Nmi);
        let whole = !(why == Error::Exhausted && step.op.in_parts());
        if whole && !matches!(why, Error::RestoreFailed(_)) && !interrupted {
            let mut after = machine.state();
            if step.op.overwrites() {
                for (after, before) in after.cpus.iter_mut().zip(&before.cpus) {
                    (after.holds, after.from) = (before.holds, before.from);
                }
            }
            if after != before {
                machine.line.report(|| format!("a refusal ({why:?}) has changed something"));
            }
        }
    }
    machine.line.take_wrong()
}

/// Visits every state that a right kernel can bring the core into.
#[must_use]
pub fn explore(bounds: Bounds) -> Found {
    Search::new(bounds).run()
}

/// Plays a trace on one machine of so many CPUs, tasks and stamps from the beginning, without renumbering.
///
/// # Errors
///
/// What was wrong, and at which move.
pub fn replay(bounds: Bounds, trace: &[Move]) -> Result<(), String> {
    let machine = started(bounds);
    for (nth, &step) in trace.iter().enumerate() {
        if !machine.allows(step) {
            return Err(format!("move {nth} is not allowed: {step}"));
        }
        let wrong = carry_out(machine, step).or_else(|| {
            machine.check(&machine.state());
            machine.line.take_wrong()
        });
        if let Some(what) = wrong {
            return Err(format!("move {nth}, {step}: {what}"));
        }
    }
    Ok(())
}
