//! Scripts: the actions of the CPUs, as an array of small operations, and the results that they must have.
//!
//! The builder keeps a model of its own of whose state is where (owners and generations, not words
//! and stamps) and writes into every operation what the kernel under test must do there: the counts
//! are compared with it afterwards.

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The task enters user mode, looks at its registers, changes them, and enters the kernel with them
    /// live.
    User,
    /// As [`User`](Self::User), and kernel entry begins with the save.
    UserSave,
    /// The task is switched out.
    Out,
    /// The idle loop runs.
    Idle,
    /// A kernel thread runs.
    KThread,
    /// A kernel FPU section that changes every register.
    Section,
    /// The task ends, its registers wherever they are.
    Exit,
    /// A new task in the same memory.
    Spawn,
    /// A tracer on this CPU writes one register of the stopped task.
    Poke,
    /// The current task forks; the child is `other`.
    Fork,
    /// The current task, or a kernel thread, runs a virtual CPU: the guest `other` looks at its registers
    /// and changes them.
    Guest,
}

/// The saves and restores that an operation must do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// A restore.
    pub restore: bool,
    /// No restore, although the task had been switched out or saved: the registers still hold it.
    pub skip: bool,
    /// A save.
    pub save: bool,
    /// The save of the task that runs a guest, besides the guest's own.
    pub host_save: bool,
}

/// One operation of a script.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The kind.
    pub kind: Kind,
    /// The CPU.
    pub cpu: u8,
    /// The task.
    pub task: u8,
    /// The child of a fork, or the guest.
    pub other: u8,
    /// Whether the task runs on another CPU next.
    pub migrates: bool,
    /// Whether this is the task's first user mode since it was switched in; of a guest's run, whether its host has not
    /// been in user mode since.
    pub switched_in: bool,
    /// The number of operations on this task before this one.
    pub turn: u32,
    /// The number of operations on `other` before this one.
    pub other_turn: u32,
    /// The saves and restores that the kernel on `fpu-core` must do.
    pub due: Due,
}

/// Operations in an order in which they are right; CPUs run theirs at the same time, a task's
/// operations keep their order.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The operations.
    pub ops: Vec<Op>,
    /// Times that a CPU changed what it runs; the run of a guest is one.
    pub switches: u64,
    /// Times that a task or a guest ran on another CPU than before.
    pub migrations: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Idle,
    Thread,
    Task(u8),
}

#[derive(Clone, Copy)]
struct Model {
    /// Counts changes of the state; registers that hold an older one are stale.
    version: u64,
    memory_valid: bool,
    turn: u32,
    last_cpu: Option<u8>,
    /// Index of the last switch-out, to be told whether the task migrates.
    last_out: Option<usize>,
    /// Not in user mode since it was switched in.
    fresh: bool,
}

/// Builds a script; tasks have to be switched in before they do anything.
pub struct Builder {
    script: Script,
    tasks: Vec<Model>,
    current: [Who; 2],
    /// Whose state, of which version, each CPU's registers hold.
    holds: [Option<(u8, u64)>; 2],
}

impl Builder {
    /// For that many tasks, all new; both CPUs idle.
    #[must_use]
    pub fn new(tasks: usize) -> Self {
        let task = Model {
            version: 0,
            memory_valid: true,
            turn: 0,
            last_cpu: None,
            last_out: None,
            fresh: true,
        };
        Self {
            script: Script::default(),
            tasks: vec![task; tasks],
            current: [Who::Idle; 2],
            holds: [None; 2],
        }
    }

    fn push(&mut self, kind: Kind, cpu: u8, task: Option<u8>, due: Due) {
        let mut turn = 0;
        if let Some(t) = task {
            turn = self.tasks[usize::from(t)].turn;
            self.tasks[usize::from(t)].turn += 1;
        }
        self.script.ops.push(Op {
            kind,
            cpu,
            task: task.unwrap_or(NO_TASK),
            other: NO_TASK,
            migrates: false,
            switched_in: false,
            turn,
            other_turn: 0,
            due,
        });
    }
    fn resident(&self, cpu: u8, task: u8) -> bool {
        self.holds[usize::from(cpu)] == Some((task, self.tasks[usize::from(task)].version))
    }
    fn task_on(&self, cpu: u8) -> Option<u8> {
        match self.current[usize::from(cpu)] {
            Who::Task(t) => Some(t),
            _ => None,
        }
    }
    /// Tells whether the task is current on some CPU.
    #[must_use]
    pub fn is_current(&self, task: u8) -> bool {
        self.current.contains(&Who::Task(task))
    }
    /// The task that `cpu` runs.
    #[must_use]
    pub fn current(&self, cpu: u8) -> Option<u8> {
        self.task_on(cpu)
    }

    fn leave(&mut self, cpu: u8, next: Who) {
        if self.current[usize::from(cpu)] == next {
            return;
        }
        self.script.switches += 1;
        if let Some(t) = self.task_on(cpu) {
            let save = !self.tasks[usize::from(t)].memory_valid;
            self.tasks[usize::from(t)].memory_valid = true;
            self.tasks[usize::from(t)].last_out = Some(self.script.ops.len());
            self.push(Kind::Out, cpu, Some(t), Due { save, ..Due::default() });
        }
        self.current[usize::from(cpu)] = next;
    }
    /// The CPU goes idle.
    pub fn idle(&mut self, cpu: u8) -> &mut Self {
        self.leave(cpu, Who::Idle);
        self.push(Kind::Idle, cpu, None, Due::default());
        self
    }
    /// The CPU runs a kernel thread.
    pub fn kthread(&mut self, cpu: u8) -> &mut Self {
        self.leave(cpu, Who::Thread);
        self.push(Kind::KThread, cpu, None, Due::default());
        self
    }
    /// The CPU switches to a task (which stays in the kernel until [`user`](Self::user)).
    ///
    /// # Panics
    ///
    /// If the task is current on the other CPU: the script would be wrong.
    pub fn switch_to(&mut self, cpu: u8, task: u8) -> &mut Self {
        assert!(self.task_on(cpu ^ 1) != Some(task), "task {task} is current elsewhere");
        if self.task_on(cpu) != Some(task) {
            self.leave(cpu, Who::Task(task));
            let model = &mut self.tasks[usize::from(task)];
            model.fresh = true;
            if model.last_cpu.is_some_and(|last| last != cpu) {
                self.script.migrations += 1;
                if let Some(out) = model.last_out {
                    self.script.ops[out].migrates = true;
                }
            }
            model.last_cpu = Some(cpu);
        }
        self
    }
    fn enter_user(&mut self, cpu: u8, save: bool) -> &mut Self {
        let t = self.task_on(cpu).expect("a task is current");
        let resident = self.resident(cpu, t);
        let model = &mut self.tasks[usize::from(t)];
        let skip = resident && model.memory_valid;
        let due = Due { restore: !resident, skip, save, host_save: false };
        assert!(!save || model.memory_valid, "the save on entry comes with a switch");
        model.memory_valid = save;
        model.version += 1; // it changes its registers
        let (version, switched_in) = (model.version, std::mem::take(&mut model.fresh));
        let kind = if save { Kind::UserSave } else { Kind::User };
        self.push(kind, cpu, Some(t), due);
        self.script.ops.last_mut().expect("just pushed").switched_in = switched_in;
        self.holds[usize::from(cpu)] = Some((t, version));
        self
    }
    /// The current task runs in user mode and enters the kernel with its registers live.
    pub fn user(&mut self, cpu: u8) -> &mut Self {
        self.enter_user(cpu, false)
    }
    /// The current task runs in user mode; the kernel saves first thing on entry.
    pub fn user_save(&mut self, cpu: u8) -> &mut Self {
        self.enter_user(cpu, true)
    }
    /// A kernel FPU section, on behalf of whatever is current.
    pub fn section(&mut self, cpu: u8) -> &mut Self {
        let task = self.task_on(cpu);
        let mut save = false;
        if let Some(t) = task {
            let model = &mut self.tasks[usize::from(t)];
            assert!(!model.fresh, "an eager kernel would save what it has not loaded yet");
            save = !std::mem::replace(&mut model.memory_valid, true);
        }
        self.push(Kind::Section, cpu, task, Due { save, ..Due::default() });
        self.holds[usize::from(cpu)] = None;
        self
    }
    /// The current task ends while its registers are what they are; the CPU goes on with idle.
    pub fn exit(&mut self, cpu: u8) -> &mut Self {
        let t = self.task_on(cpu).expect("a task is current");
        self.push(Kind::Exit, cpu, Some(t), Due::default());
        self.current[usize::from(cpu)] = Who::Idle;
        self.script.switches += 1;
        self
    }
    /// A new task in the memory of one that is not current.
    pub fn spawn(&mut self, cpu: u8, task: u8) -> &mut Self {
        assert!(!self.is_current(task), "task {task} is current");
        self.push(Kind::Spawn, cpu, Some(task), Due::default());
        let model = &mut self.tasks[usize::from(task)];
        model.version += 1;
        model.memory_valid = true;
        model.last_cpu = None;
        model.last_out = None;
        self
    }
    /// A tracer on `cpu` writes a register of a task that is not current.
    pub fn poke(&mut self, cpu: u8, task: u8) -> &mut Self {
        assert!(!self.is_current(task), "task {task} is not stopped");
        self.push(Kind::Poke, cpu, Some(task), Due::default());
        self.tasks[usize::from(task)].version += 1;
        self
    }
    /// The current task forks into the memory of one that is not current.
    pub fn fork(&mut self, cpu: u8, child: u8) -> &mut Self {
        let t = self.task_on(cpu).expect("a task is current");
        assert!(!self.is_current(child), "task {child} is current");
        let save = !std::mem::replace(&mut self.tasks[usize::from(t)].memory_valid, true);
        self.push(Kind::Fork, cpu, Some(t), Due { save, ..Due::default() });
        let model = &mut self.tasks[usize::from(child)];
        let op = self.script.ops.last_mut().expect("just pushed");
        (op.other, op.other_turn) = (child, model.turn);
        model.turn += 1;
        model.version += 1;
        model.memory_valid = true;
        model.last_cpu = None;
        model.last_out = None;
        self
    }
    /// What is current on `cpu`, a task or not, runs the guest once; it leaves with its registers saved.
    pub fn guest(&mut self, cpu: u8, guest: u8) -> &mut Self {
        assert!(!self.is_current(guest), "guest {guest} is current as a task");
        let host = self.task_on(cpu);
        let resident = self.resident(cpu, guest);
        let (mut host_save, mut fresh) = (false, false);
        if let Some(t) = host {
            let model = &mut self.tasks[usize::from(t)];
            host_save = !std::mem::replace(&mut model.memory_valid, true);
            fresh = model.fresh;
        }
        let due = Due { restore: !resident, skip: resident, save: true, host_save };
        self.push(Kind::Guest, cpu, host, due);
        let model = &mut self.tasks[usize::from(guest)];
        let op = self.script.ops.last_mut().expect("just pushed");
        (op.other, op.other_turn, op.switched_in) = (guest, model.turn, fresh);
        model.turn += 1;
        model.version += 1; // it changes its registers
        self.script.migrations += u64::from(model.last_cpu.is_some_and(|last| last != cpu));
        model.last_cpu = Some(cpu);
        self.holds[usize::from(cpu)] = Some((guest, model.version));
        self.script.switches += 1;
        self
    }
    /// Ends the script: both CPUs switch to idle.
    #[must_use]
    pub fn finish(mut self) -> Script {
        self.idle(0);
        self.idle(1);
        self.script
    }
}

/// In [`Op::task`]: none.
pub const NO_TASK: u8 = u8::MAX;

impl Script {
    /// How many operations must do what `what` picks.
    #[must_use]
    pub fn count(&self, what: impl Fn(&Op) -> bool) -> u64 {
        self.ops.iter().filter(|op| what(op)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(script: &Script) -> String {
        let letter = |op: &Op| match op.due {
            Due { host_save: true, skip: true, .. } => 'H',
            Due { host_save: true, .. } => 'h',
            Due { restore: true, save: true, .. } => 'B',
            Due { restore: true, .. } => 'R',
            Due { skip: true, save: true, .. } => 'K',
            Due { skip: true, .. } => 'k',
            Due { save: true, .. } => 's',
            _ => '.',
        };
        script.ops.iter().map(letter).collect()
    }

    #[test]
    fn the_model_knows_the_table_of_the_thread() {
        let mut b = Builder::new(2);
        // First load, live return, save at switch-out, idle, back: skipped.
        b.switch_to(0, 0).user(0).user(0).idle(0).switch_to(0, 0).user(0);
        assert_eq!(dues(&b.script), "R.s.k");
        // Moves to CPU 1: saved, restored there; CPU 0 holds an old version.
        b.idle(0).switch_to(1, 0).user_save(1).idle(1).switch_to(0, 0).user(0);
        assert_eq!(&dues(&b.script)[5..], "s.B..R");
        // A section takes the registers once; the second one has nothing to save.
        b.section(0).section(0).user(0);
        assert_eq!(&dues(&b.script)[11..], "s.R");
        // A tracer's write drops the claim.
        b.idle(0).poke(1, 0).switch_to(0, 0).user(0);
        assert_eq!(&dues(&b.script)[14..], "s..R");
        // Fork saves and keeps the parent's registers; the child is loaded.
        b.fork(0, 1).user(0).idle(0).switch_to(0, 1).user(0);
        assert_eq!(&dues(&b.script)[18..], "sks.R");
        // A new task in the same memory is loaded.
        b.exit(0).spawn(0, 1).switch_to(0, 1).user(0);
        assert_eq!(&dues(&b.script)[23..], "..R");
        let script = b.finish();
        assert_eq!((script.migrations, script.count(|op| op.migrates)), (2, 2));
        assert_eq!(script.count(|op| op.kind == Kind::User && !op.switched_in), 3);
    }

    #[test]
    fn the_model_knows_whom_a_guest_finds() {
        let mut b = Builder::new(4);
        // The host is saved once; the guest is loaded once, and found twice.
        b.switch_to(0, 0).user(0).guest(0, 3).guest(0, 3).guest(0, 3);
        assert_eq!(dues(&b.script), "RhKK");
        // Idle and a switch leave it alone; the host's user mode, a section and a tracer do not.
        b.idle(0).switch_to(0, 0).guest(0, 3).user(0).guest(0, 3).section(0).guest(0, 3);
        assert_eq!(&dues(&b.script)[4..], "..KRh.B");
        b.idle(0).guest(0, 3).poke(1, 3).guest(0, 3);
        assert_eq!(&dues(&b.script)[11..], "..K.B");
        // It moves: the first CPU holds an old state of it.
        b.guest(1, 3).guest(0, 3);
        assert_eq!(&dues(&b.script)[16..], "BB");
        assert_eq!(b.finish().migrations, 2);
    }
}
