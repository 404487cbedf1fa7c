//! The contents of each CPU's registers over time: spans and marks, from a script and its log.
//!
//! Time is steps, not cycles: an operation begins when its CPU and its task are free, so operations
//! that could run at the same time stand above one another.

use crate::{
    scenarios::TASKS,
    script::{Kind, Op, NO_TASK},
    world::{HOST_SAVED, RESTORED, SAVED, SKIPPED},
};

/// Steps that one picture shows.
pub const STEPS: f64 = 46.0;

/// The contents of a CPU's registers, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A task uses them.
    Live(u8),
    /// The registers still hold a task that does not use them.
    Resident(u8),
    /// The registers hold an older state of a task.
    Stale(u8),
    /// The kernel uses them.
    Section,
    /// Unowned.
    Nobody,
}

/// For a while, on one CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The CPU.
    pub cpu: usize,
    /// The beginning.
    pub from: f64,
    /// The end.
    pub to: f64,
    /// The contents.
    pub content: Content,
}

/// What a CPU runs, for a while, with a label where that is not a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Runs {
    /// The CPU.
    pub cpu: usize,
    /// The beginning.
    pub from: f64,
    /// The end.
    pub to: f64,
    /// Task, or `NO_TASK`.
    pub task: u8,
    /// The label.
    pub label: &'static str,
}

/// Something that happened at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Memory to registers.
    Restore,
    /// No restore was needed.
    Skip,
    /// Registers to memory.
    Save,
    /// A tracer wrote the task's memory.
    Write(u8),
    /// A task ended.
    Exit,
    /// A new one in its memory.
    New(u8),
    /// A child.
    Fork(u8),
}

/// All marks to be drawn for a script's beginning.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// Of registers.
    pub spans: Vec<Span>,
    /// Of CPUs.
    pub runs: Vec<Runs>,
    /// CPU, moment, what.
    pub marks: Vec<(usize, f64, Mark)>,
    /// A task left CPU `.0` at `.1` and entered the other at `.2`.
    pub moves: Vec<(usize, f64, f64, u8)>,
}

fn width(kind: Kind) -> f64 {
    match kind {
        Kind::User | Kind::UserSave | Kind::Guest => 1.6,
        Kind::Out => 0.5,
        Kind::Idle | Kind::KThread => 1.2,
        Kind::Section => 1.1,
        Kind::Exit => 1.2,
        Kind::Spawn | Kind::Poke | Kind::Fork => 2.0,
    }
}

struct Layout {
    timeline: Timeline,
    /// When each CPU, and each task, is free.
    cpu_free: [f64; 2],
    task_free: [f64; TASKS],
    version: [u32; TASKS],
    holds: [Option<(u8, u32)>; 2],
    left: [Option<(usize, f64)>; TASKS],
}

impl Timeline {
    /// Of the operations that fit, with what they did.
    #[must_use]
    pub fn new(ops: &[Op], flags: &[u32]) -> Self {
        let mut layout = Layout {
            timeline: Self::default(),
            cpu_free: [0.0; 2],
            task_free: [0.0; TASKS],
            version: [0; TASKS],
            holds: [None; 2],
            left: [None; TASKS],
        };
        for cpu in 0..2 {
            layout.open(cpu, 0.0, Content::Nobody);
        }
        for (op, flags) in ops.iter().zip(flags) {
            if layout.place(op, *flags) {
                break;
            }
        }
        layout.finish()
    }
}

impl Layout {
    /// The content of a CPU's registers from `at` on.
    fn open(&mut self, cpu: usize, at: f64, content: Content) {
        let spans = &mut self.timeline.spans;
        for span in spans.iter_mut().filter(|span| span.cpu == cpu && span.to > at) {
            span.to = at;
        }
        spans.push(Span { cpu, from: at, to: f64::INFINITY, content });
    }

    /// The task's state has changed: whoever holds another version is out of date.
    fn changed(&mut self, task: u8, at: f64) {
        self.version[usize::from(task)] += 1;
        for cpu in 0..2 {
            if self.holds[cpu].is_some_and(|(held, _)| held == task) {
                self.holds[cpu] = None;
                self.open(cpu, at, Content::Stale(task));
            }
        }
    }

    /// The task, or the guest, uses the registers of the CPU.
    fn user(&mut self, cpu: usize, number: u8, flags: u32, (from, to): (f64, f64)) {
        let task = usize::from(number);
        let entry = match flags {
            f if f & RESTORED != 0 => Some(Mark::Restore),
            f if f & SKIPPED != 0 => Some(Mark::Skip),
            _ => None,
        };
        self.timeline.marks.extend(entry.map(|mark| (cpu, from, mark)));
        if flags & SAVED != 0 {
            self.timeline.marks.push((cpu, to, Mark::Save));
        }
        if let Some((old, left)) = self.left[task].filter(|(old, _)| *old != cpu) {
            self.timeline.moves.push((old, left, from, number));
        }
        self.left[task] = Some((cpu, to));
        // What the other CPU holds of it is now old.
        self.holds[cpu] = None;
        self.changed(number, from);
        self.holds[cpu] = Some((number, self.version[task]));
        self.open(cpu, from, Content::Live(number));
        self.open(cpu, to, Content::Resident(number));
    }

    /// True if the picture is full.
    fn place(&mut self, op: &Op, flags: u32) -> bool {
        let cpu = usize::from(op.cpu);
        let task = (op.task != NO_TASK).then_some(usize::from(op.task));
        let child = (op.other != NO_TASK).then_some(usize::from(op.other));
        let mut from = self.cpu_free[cpu];
        for t in task.into_iter().chain(child) {
            from = from.max(self.task_free[t]);
        }
        let to = from + width(op.kind);
        if to > STEPS {
            return true;
        }
        self.cpu_free[cpu] = to;
        for t in task.into_iter().chain(child) {
            self.task_free[t] = to;
        }
        let middle = (from + to) / 2.0;
        let mut label = "";
        match op.kind {
            Kind::User | Kind::UserSave => self.user(cpu, op.task, flags, (from, to)),
            Kind::Guest => {
                if flags & HOST_SAVED != 0 {
                    self.timeline.marks.push((cpu, from, Mark::Save));
                }
                label = "guest";
                self.user(cpu, op.other, flags, (from, to));
            }
            Kind::Out => {
                if flags & SAVED != 0 {
                    self.timeline.marks.push((cpu, middle, Mark::Save));
                }
            }
            Kind::Idle => label = "idle",
            Kind::KThread => label = "kernel",
            Kind::Section => {
                if flags & SAVED != 0 {
                    self.timeline.marks.push((cpu, from, Mark::Save));
                }
                label = "FPU";
                self.holds[cpu] = None;
                self.open(cpu, from + 0.15, Content::Section);
                self.open(cpu, to - 0.1, Content::Nobody);
            }
            Kind::Exit => self.timeline.marks.push((cpu, middle, Mark::Exit)),
            Kind::Spawn => {
                self.changed(op.task, middle);
                self.left[usize::from(op.task)] = None;
                self.timeline.marks.push((cpu, middle, Mark::New(op.task)));
            }
            Kind::Poke => {
                self.changed(op.task, middle);
                self.timeline.marks.push((cpu, middle, Mark::Write(op.task)));
            }
            Kind::Fork => {
                if flags & SAVED != 0 {
                    self.timeline.marks.push((cpu, from, Mark::Save));
                }
                self.changed(op.other, middle);
                self.left[usize::from(op.other)] = None;
                self.timeline.marks.push((cpu, middle, Mark::Fork(op.other)));
            }
        }
        // A tracer, and whoever makes a task, is idle or in another task's system call: not the task.
        let tenant = if matches!(op.kind, Kind::Poke | Kind::Spawn) { NO_TASK } else { op.task };
        self.timeline.runs.push(Runs { cpu, from, to, task: tenant, label });
        false
    }

    fn finish(mut self) -> Timeline {
        let end = self.cpu_free[0].max(self.cpu_free[1]);
        let spans = &mut self.timeline.spans;
        for span in spans.iter_mut() {
            span.to = span.to.min(end);
        }
        spans.retain(|span| span.to - span.from > 1e-6);
        self.timeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Builder;

    #[test]
    fn a_move_leaves_stale_registers_behind() {
        let mut b = Builder::new(TASKS);
        b.switch_to(0, 2).user(0).idle(0).switch_to(1, 2).user(1);
        let ops = b.finish().ops;
        let flags: Vec<u32> =
            ops.iter().map(|op| if op.due.restore { RESTORED } else { 0 }).collect();
        let t = Timeline::new(&ops, &flags);
        let of = |cpu| {
            let spans = t.spans.iter().filter(move |span| span.cpu == cpu);
            spans.map(|span| span.content).collect::<Vec<_>>()
        };
        use Content::*;
        assert_eq!(of(0), [Live(2), Resident(2), Stale(2)]);
        assert_eq!(of(1), [Nobody, Live(2), Resident(2)]);
        assert_eq!(t.moves.len(), 1);
        assert_eq!(t.marks.iter().filter(|mark| mark.2 == Mark::Restore).count(), 2);
        for cpu in 0..2 {
            let mut spans: Vec<_> = t.spans.iter().filter(|span| span.cpu == cpu).collect();
            spans.sort_by(|a, b| a.from.total_cmp(&b.from));
            assert!(spans.windows(2).all(|two| two[0].to <= two[1].from + 1e-9), "they overlap");
        }
    }
}
