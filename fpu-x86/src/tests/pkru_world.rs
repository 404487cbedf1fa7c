//! Two CPUs and two tasks whose PKRU is moved by the library's own functions, and what each should have.

use std::{cell::Cell, mem::forget};

use crate::pkru::{
    register::{self, Register, Scope},
    task::{TaskPkru, Word},
    value::Pkru,
};

pub(super) const DEFAULT: u32 = 0x5555_5554;
/// What tasks and debuggers write.
pub(super) const A: u32 = 0x1110;
/// What an interrupt's scope has, and other threads leave in the register.
const INTERRUPT: u32 = 0x2220;
const LEFT: u32 = 0x3330;
/// What a scope has, by how many are around it.
const RIGHTS: [u32; 2] = [0x4440, 0];

/// A kernel, or a library, that does one thing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    NoSwitch,
    NothingSaved,
    SavedBehindTheWrite,
    HandlerKeepsRights,
    FrameOfHandler,
    FrameOfScope,
    FrameWithOwnRights,
    FailedDeliveryCounts,
    AbsentKeeps,
    ScopeForgotten,
    ScopeEndsAsItBegan,
    CountedBeforeRestored,
    OpenedOnce,
    DebuggerWritesTheRegistersWord,
    DebuggerReadsTheRegistersWord,
    ForkTakesMemory,
    ForkTakesDefault,
    ExecKeeps,
    SetWithinScope,
    WritesNotCounted,
    BegunWithinScope,
}

/// All of a world that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct State {
    pub(super) cpus: [Cpu; 2],
    pub(super) tasks: [Task; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Cpu {
    pub(super) register: u32,
    /// `None`: a kernel thread without user memory.
    pub(super) runs: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Task {
    pub(super) lives: bool,
    saved: u32,
    word: (u32, u16),
    /// What its open scopes will put back.
    outer: [u32; 2],
    /// How many there are, what it should have in user mode, and in its handler's frame.
    pub(super) scopes: usize,
    pub(super) user: u32,
    pub(super) frame: Option<Frame>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Frame {
    /// `None`: XSTATE_BV\[9\] is clear.
    holds: Option<u32>,
    means: u32,
}

/// What happens in the middle of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// An interrupt accesses user memory.
    Interrupt,
    /// Another thread runs meanwhile; a debugger may write; and the task goes on elsewhere.
    Preempted { written: bool, moved: bool },
}

pub(super) const EVENTS: [Event; 5] = [
    Event::Interrupt,
    Event::Preempted { written: false, moved: false },
    Event::Preempted { written: false, moved: true },
    Event::Preempted { written: true, moved: false },
    Event::Preempted { written: true, moved: true },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Switch { cpu: usize, next: Option<usize> },
    User(usize, u32),
    Set(usize, u32),
    Open(usize),
    Close(usize),
    Deliver(usize, Result<(), ()>),
    Clear(usize),
    Return(usize),
    Exec(usize),
    Fork(usize),
    Exit(usize),
    Debug(usize, u32),
}

pub(super) struct World {
    cells: [TaskPkru; 2],
    state: Cell<State>,
    pub(super) wrong: Option<Wrong>,
    event: Cell<Option<(usize, Event)>>,
    /// What a debugger has written in the middle of a call.
    debugged: Cell<Option<u32>>,
    pub(super) broken: Cell<Option<&'static str>>,
}

/// The register of a CPU, or of the one where a task runs.
struct On<'w> {
    world: &'w World,
    task: Option<usize>,
    cpu: usize,
    may_move: bool,
    /// Nothing happens in the middle of what happens in the middle.
    quiet: bool,
}

impl On<'_> {
    fn hook(&self) {
        let Some((steps, event)) = self.world.event.get().filter(|_| !self.quiet) else { return };
        self.world.event.set(steps.checked_sub(1).map(|left| (left, event)));
        if let (0, Some(task)) = (steps, self.task) {
            self.world.happens(event, task, self.cpu());
        }
    }

    fn cpu(&self) -> usize {
        self.task.filter(|_| self.may_move).map_or(self.cpu, |task| self.world.cpu_of(task))
    }
}

impl Register for On<'_> {
    fn read(&self) -> u32 {
        self.hook();
        let value = self.world.state.get().cpus[self.cpu()].register;
        self.hook();
        value
    }
    fn write(&self, value: u32) {
        self.hook();
        self.world.put(self.cpu(), value);
        self.hook();
    }
}

impl World {
    pub(super) fn of(state: State, wrong: Option<Wrong>) -> Self {
        let cells = state.tasks.map(|task| {
            let cell = TaskPkru::new(Pkru::from_bits(task.saved));
            let (user, scopes) = match task.word {
                // Another thread's, which has ended within a scope.
                _ if !task.lives => (LEFT, 1),
                // Outside of scopes it does not count, not even if a debugger writes the same.
                (_, 0) => (A, 0),
                word => word,
            };
            let word = Word { user, scopes, writes: 0 };
            assert!(cell.replace(cell.word(), word));
            cell
        });
        let (event, debugged, broken) = (Cell::new(None), Cell::new(None), Cell::new(None));
        Self { cells, state: Cell::new(state), wrong, event, debugged, broken }
    }

    /// What counts of it: a running task's saved value does not, nor does the other word outside of scopes.
    pub(super) fn state(&self) -> State {
        let mut state = self.state.get();
        for (task, cell) in state.tasks.iter_mut().zip(&self.cells) {
            let word = cell.word();
            (task.saved, task.word) = (cell.saved(), (word.user, word.scopes));
        }
        for at in 0..2 {
            let task = &mut state.tasks[at];
            if task.word.1 == 0 {
                task.word.0 = 0;
            }
            task.outer[task.scopes.min(2)..].fill(0);
            if state.cpus.iter().any(|cpu| cpu.runs == Some(at)) {
                task.saved = 0;
            }
            if !task.lives {
                *task = Task::default();
            }
        }
        state
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.get();
        change(&mut state);
        self.state.set(state);
    }

    fn put(&self, cpu: usize, value: u32) {
        self.change(|state| state.cpus[cpu].register = value);
    }

    fn register(&self, cpu: usize) -> u32 {
        self.state.get().cpus[cpu].register
    }

    fn cpu_of(&self, task: usize) -> usize {
        usize::from(self.state.get().cpus[0].runs != Some(task))
    }

    fn must(&self, holds: bool, what: &'static str) {
        if !holds && self.broken.get().is_none() {
            self.broken.set(Some(what));
        }
    }

    fn on(&self, task: usize, quiet: bool) -> On<'_> {
        On { world: self, task: Some(task), cpu: 0, may_move: true, quiet }
    }

    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == Some(wrong)
    }

    fn switch(&self, cpu: usize, next: Option<usize>, quiet: bool) {
        let prev = self.state.get().cpus[cpu].runs;
        let on = On { world: self, task: prev, cpu, may_move: false, quiet };
        let (from, to) = (prev.map(|at| &self.cells[at]), next.map(|at| &self.cells[at]));
        match self.wrong {
            Some(Wrong::NoSwitch) => {}
            Some(Wrong::NothingSaved) => register::switch(&on, None, to),
            Some(Wrong::SavedBehindTheWrite) => {
                register::switch(&on, None, to);
                register::switch(&on, from, None);
            }
            _ => register::switch(&on, from, to),
        }
        self.change(|state| state.cpus[cpu].runs = next);
    }

    fn debug(&self, at: usize, value: u32) {
        match self.wrong {
            Some(Wrong::DebuggerWritesTheRegistersWord) => self.cells[at].save(value),
            Some(Wrong::WritesNotCounted) => {
                let cell = &self.cells[at];
                let writes = cell.word().writes;
                cell.set_value(Pkru::from_bits(value));
                assert!(cell.replace(cell.word(), Word { writes, ..cell.word() }));
            }
            _ => self.cells[at].set_value(Pkru::from_bits(value)),
        }
        self.debugged.set(Some(value));
        self.change(|state| state.tasks[at].user = value);
    }

    fn read(&self, at: usize) -> u32 {
        match self.wrong {
            Some(Wrong::DebuggerReadsTheRegistersWord) => self.cells[at].saved(),
            _ => self.cells[at].value().bits(),
        }
    }

    fn happens(&self, event: Event, task: usize, cpu: usize) {
        match event {
            Event::Interrupt => {
                let before = self.register(cpu);
                let on = On { world: self, task: None, cpu, may_move: false, quiet: true };
                let rights = Pkru::from_bits(INTERRUPT);
                let scope = Scope::open(&on, &self.cells[task], rights);
                self.must(self.register(cpu) == INTERRUPT, "an interrupt's rights");
                drop(scope);
                self.must(self.register(cpu) == before, "what an interrupt leaves");
            }
            Event::Preempted { written, moved } => {
                self.switch(cpu, None, true);
                self.put(cpu, LEFT);
                if written {
                    self.debug(task, A);
                }
                self.switch(if moved { 1 - cpu } else { cpu }, Some(task), true);
            }
        }
    }

    fn open(&self, at: usize) {
        let (on, cell) = (self.on(at, false), &self.cells[at]);
        let depth = self.state.get().tasks[at].scopes;
        let rights = Pkru::from_bits(RIGHTS[depth]);
        let outer = if self.is(Wrong::OpenedOnce) {
            let (word, now) = (cell.word(), on.read());
            let user = if word.scopes == 0 { now } else { word.user };
            let _lost = cell.replace(cell.word(), Word { user, scopes: word.scopes + 1, ..word });
            on.write(rights.bits());
            now
        } else {
            let scope = Scope::open(&on, cell, rights);
            let outer = scope.outer;
            forget(scope);
            outer
        };
        self.change(|state| {
            let task = &mut state.tasks[at];
            task.outer[depth] = outer;
            task.scopes += 1;
        });
    }

    fn close(&self, at: usize) {
        let (on, thread) = (self.on(at, false), &self.cells[at]);
        let depth = self.state.get().tasks[at].scopes - 1;
        let outer = self.state.get().tasks[at].outer[depth];
        let word = thread.word();
        let ended = Word { scopes: word.scopes - 1, ..word };
        match self.wrong {
            Some(Wrong::ScopeForgotten) => assert!(thread.replace(word, ended)),
            Some(Wrong::ScopeEndsAsItBegan) => {
                on.write(outer);
                let word = thread.word();
                assert!(thread.replace(word, Word { scopes: word.scopes - 1, ..word }));
            }
            Some(Wrong::CountedBeforeRestored) => {
                assert!(thread.replace(word, ended));
                on.write(if ended.scopes == 0 { word.user } else { outer });
            }
            _ => drop(Scope { on: &on, thread, outer }),
        }
        self.change(|state| state.tasks[at].scopes = depth);
    }

    fn deliver(&self, at: usize, written: Result<(), ()>) {
        let (on, cell) = (self.on(at, false), &self.cells[at]);
        let before = self.state.get().tasks[at].user;
        let frame = Cell::new(None);
        let write = |interrupted: Pkru| {
            let cpu = self.cpu_of(at);
            self.must(self.register(cpu) == 0, "a frame is written with all keys");
            on.hook();
            let cpu = self.cpu_of(at);
            self.must(self.register(cpu) == 0, "a frame is written with all keys to its end");
            frame.set(Some(interrupted.bits()));
            written
        };
        let default = Pkru::from_bits(DEFAULT);
        let done = match self.wrong {
            Some(Wrong::HandlerKeepsRights) => {
                let interrupted = register::current(&on, cell);
                let _scope = Scope::open(&on, cell, Pkru::INITIAL);
                write(interrupted)
            }
            Some(Wrong::FrameOfHandler) => {
                let _scope = Scope::open(&on, cell, Pkru::INITIAL);
                register::set_current(&on, cell, default);
                write(register::current(&on, cell))
            }
            Some(Wrong::FrameOfScope) => {
                register::deliver(&on, cell, default, |_| write(Pkru::from_bits(on.read())))
            }
            Some(Wrong::FrameWithOwnRights) => {
                let done = write(register::current(&on, cell));
                register::set_current(&on, cell, default);
                done
            }
            Some(Wrong::FailedDeliveryCounts) => {
                let done = register::deliver(&on, cell, default, write);
                register::set_current(&on, cell, default);
                done
            }
            _ => register::deliver(&on, cell, default, write),
        };
        self.must(done == written, "the answer of the frame's writer");
        let holds = frame.get();
        let either = holds == Some(before) || holds == self.debugged.get();
        self.must(holds.is_some() && either, "the frame's value");
        let means = holds.unwrap_or(0);
        self.settle(at, if written.is_ok() { DEFAULT } else { before });
        if written.is_ok() {
            self.change(|state| state.tasks[at].frame = Some(Frame { holds, means }));
        }
    }

    /// The task has a value, or what a debugger wrote behind that: which came last, the task itself says.
    fn settle(&self, at: usize, value: u32) {
        let now = register::current(&self.on(at, true), &self.cells[at]).bits();
        let user = self.debugged.get().filter(|debugged| *debugged == now).unwrap_or(value);
        self.change(|state| state.tasks[at].user = user);
    }

    fn set(&self, at: usize, value: u32) {
        let on = self.on(at, false);
        if self.is(Wrong::SetWithinScope) {
            on.write(value);
        } else {
            register::set_current(&on, &self.cells[at], Pkru::from_bits(value));
        }
        self.settle(at, value);
    }

    /// Runs an operation, with an event behind so many steps of it. True if the event happened.
    pub(super) fn run(&self, op: Op, event: Option<(usize, Event)>) -> bool {
        self.event.set(event);
        self.debugged.set(None);
        match op {
            Op::Switch { cpu, next } => self.switch(cpu, next, false),
            Op::User(at, value) => {
                self.put(self.cpu_of(at), value);
                self.change(|state| state.tasks[at].user = value);
            }
            Op::Set(at, value) => self.set(at, value),
            Op::Open(at) => self.open(at),
            Op::Close(at) => self.close(at),
            Op::Deliver(at, written) => self.deliver(at, written),
            Op::Clear(at) => {
                let frame = Some(Frame { holds: None, means: 0 });
                self.change(|state| state.tasks[at].frame = frame);
            }
            Op::Return(at) => {
                let frame = self.state.get().tasks[at].frame.unwrap_or_default();
                if frame.holds.is_some() || !self.is(Wrong::AbsentKeeps) {
                    self.set(at, frame.holds.unwrap_or(0));
                }
                self.change(|state| {
                    state.tasks[at].user = frame.means;
                    state.tasks[at].frame = None;
                });
            }
            Op::Exec(at) => {
                if !self.is(Wrong::ExecKeeps) {
                    self.set(at, DEFAULT);
                }
                self.change(|state| {
                    state.tasks[at].user = DEFAULT;
                    state.tasks[at].frame = None;
                });
            }
            Op::Fork(at) => {
                let value = match self.wrong {
                    Some(Wrong::ForkTakesMemory) => self.cells[at].value(),
                    Some(Wrong::ForkTakesDefault) => Pkru::from_bits(DEFAULT),
                    _ => register::current(&self.on(at, false), &self.cells[at]),
                };
                match self.wrong {
                    Some(Wrong::BegunWithinScope) => self.cells[1 - at].set_value(value),
                    _ => self.cells[1 - at].begin(value),
                }
                self.change(|state| {
                    let user = state.tasks[at].user;
                    state.tasks[1 - at] = Task { lives: true, user, ..Task::default() };
                });
            }
            Op::Exit(at) => {
                self.switch(self.cpu_of(at), None, false);
                self.change(|state| state.tasks[at].lives = false);
            }
            Op::Debug(at, value) => self.debug(at, value),
        }
        let happened = event.is_some() && self.event.get().is_none();
        self.event.set(None);
        self.judge();
        happened
    }

    /// Each task runs with its rights, each access of the kernel is with the right ones, and a debugger sees the task's.
    fn judge(&self) {
        for (at, task) in self.state.get().tasks.into_iter().enumerate().filter(|it| it.1.lives) {
            let due = if task.scopes == 0 { task.user } else { RIGHTS[task.scopes - 1] };
            if self.state.get().cpus.iter().any(|cpu| cpu.runs == Some(at)) {
                self.must(self.register(self.cpu_of(at)) == due, "a running task's register");
                let now = register::current(&self.on(at, true), &self.cells[at]);
                self.must(now.bits() == task.user, "the current task's value");
            } else {
                self.must(self.read(at) == task.user, "a stopped task's value");
            }
        }
    }
}
