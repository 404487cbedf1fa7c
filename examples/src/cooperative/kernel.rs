//! The scheduler and its tasks.
//!
//! Everything here is compiled with vector instructions. Decisions are made in Rust; registers and stacks are switched by
//! [`switch`](super::switch), which executes the decision.

use std::{
    cell::{Cell, Ref, RefCell, UnsafeCell},
    hint::black_box,
};

use fpu_core::{
    observe::Counters, AreaError, CpuFpu, CpuLifecycle, Error, HeapArea, KernelUnits,
    PendingSection, RestoreFault, SaveSteps, SwitchSteps, TaskFpu, TheBackend,
};
use fpu_hosted_test::{
    real::{load_registers, sane_registers, Classes, RegFile},
    Random,
};
use fpu_x86::Plan;

use super::{
    faults::Fault,
    switch::{begin, switch, Frame, NO_STEPS},
};

/// The number of tasks that can be alive.
pub const TASKS: usize = 6;
/// Words of a task's stack.
const STACK: usize = 1 << 15;
/// A task, or the main thread.
type Who = Option<usize>;

/// The CPU: this thread, which nothing interrupts.
struct ThisCpu<'k>(&'k Kernel);
fpu_core::witness! {
    // SAFETY: K2, K8: one thread, and tasks leave it only where they say so, with no witness alive. K3: its words. K4: the
    // system has its components enabled. K5: one CPU. K6: no signal handler uses the crate. Not soft-float.
    unsafe impl Pinned + Exclusive for ThisCpu<'_> {
        backend: Plan = |cpu| &cpu.0.plan,
        words: CpuFpu = |cpu| &cpu.0.words,
        observe: |cpu, event| cpu.0.counters.record(event.kind),
    }
}

/// A task: its context, its stack, and what its registers must hold.
struct Task {
    fpu: RefCell<TaskFpu<Plan, HeapArea>>,
    stack: UnsafeCell<Vec<u64>>,
    pointer: Cell<usize>,
    frame: UnsafeCell<Frame>,
    expected: RefCell<RegFile>,
    seen: UnsafeCell<RegFile>,
    alive: Cell<bool>,
}

/// The counts for the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Switches between two tasks, or a task and the main thread.
    pub switches: u64,
    /// Switches of a task to itself.
    pub yields: u64,
    /// Comparisons of all registers.
    pub checks: u64,
    /// Sections.
    pub sections: u64,
    /// Forks.
    pub forks: u64,
    /// Images written.
    pub writes: u64,
}

/// The scheduler. It switches also to the main thread, which has no context.
pub struct Kernel {
    /// The backend.
    pub plan: TheBackend<Plan>,
    /// The library's event counters.
    pub counters: Counters,
    words: CpuFpu,
    classes: Classes,
    tasks: Vec<Task>,
    main: (UnsafeCell<Frame>, Cell<usize>),
    /// The steps that are on their way.
    planned: Cell<SwitchSteps>,
    fault: Option<Fault>,
    random: RefCell<Random>,
    seed: Cell<u64>,
    done: Cell<Done>,
    failure: RefCell<Option<String>>,
}

impl Kernel {
    /// Of new tasks; the first three are alive.
    ///
    /// # Errors
    ///
    /// No memory for an area.
    pub fn new(plan: Plan, seed: u64, fault: Option<Fault>) -> Result<Self, AreaError> {
        let (classes, routines) = (Classes::detect(), plan.routines());
        // SAFETY: K1: this program has one plan.
        let plan = unsafe { TheBackend::new(plan) };
        let frame = || {
            UnsafeCell::new(Frame {
                load: std::ptr::null(),
                seen: std::ptr::null_mut(),
                steps: NO_STEPS,
                from: std::ptr::null_mut(),
                to: std::ptr::null(),
                routines,
                fault: 0,
                classes,
                leaves_out: 0,
            })
        };
        let task = |which| -> Result<Task, AreaError> {
            let area = HeapArea::for_backend(&plan)?;
            Ok(Task {
                fpu: RefCell::new(TaskFpu::new(&plan, area)?),
                stack: UnsafeCell::new(vec![0; STACK]),
                pointer: Cell::new(0),
                frame: frame(),
                expected: RefCell::new(RegFile::initial(classes)),
                seen: UnsafeCell::new(RegFile::initial(classes)),
                alive: Cell::new(which < TASKS / 2),
            })
        };
        Ok(Self {
            tasks: (0..TASKS).map(task).collect::<Result<_, _>>()?,
            main: (frame(), Cell::new(0)),
            plan,
            counters: Counters::new(),
            words: CpuFpu::new(),
            classes,
            planned: Cell::new(NO_STEPS),
            fault,
            random: RefCell::new(Random::new(seed)),
            seed: Cell::new(seed),
            done: Cell::new(Done::default()),
            failure: RefCell::new(None),
        })
    }

    /// Runs the tasks for so many switches, from the main thread.
    ///
    /// # Errors
    ///
    /// The fault that a task found, or the library's refusal.
    pub fn run(&self, switches: u64) -> Result<Done, String> {
        // SAFETY: K15, K16: the only CPU, its words new.
        unsafe { ThisCpu(self).fpu_online(0) }.map_err(|why| why.to_string())?;
        for which in (0..TASKS).filter(|which| self.tasks[*which].alive.get()) {
            self.lay_out(which);
        }
        while self.done.get().switches < switches {
            let next = self.pick().or(Some(0));
            self.go(None, next, None, next);
            if let Some(why) = self.failure.take() {
                return Err(why);
            }
        }
        Ok(self.done.get())
    }

    fn below(&self, limit: usize) -> usize {
        self.random.borrow_mut().below(limit)
    }
    fn count(&self, change: impl FnOnce(&mut Done)) {
        let mut done = self.done.get();
        change(&mut done);
        self.done.set(done);
    }
    /// A task that is alive, or the main thread.
    fn pick(&self) -> Who {
        let first = self.below(TASKS + 2);
        (first < TASKS).then(|| {
            let alive = |which: &usize| self.tasks[*which].alive.get();
            (0..TASKS).map(|n| (first + n) % TASKS).find(alive).unwrap_or(0)
        })
    }
    /// A new stack for it.
    fn lay_out(&self, which: usize) {
        let task = &self.tasks[which];
        // SAFETY: the task is not on its stack: it is new, or has ended.
        let stack = unsafe { &mut *task.stack.get() };
        let kernel = std::ptr::from_ref(self) as usize;
        task.pointer.set(begin(stack, task.frame.get(), body, kernel, which));
        // SAFETY: no switch uses the frame of a task that is new or has ended.
        unsafe { (*task.frame.get()).seen = task.seen.get() };
    }

    /// Leaves the stack of `me` (the main thread's if there is none) for that of `to`, the registers of `prev` for those of
    /// `next`, and returns when `me` goes on.
    fn go(&self, me: Who, to: Who, prev: Who, next: Who) {
        let loads = me.is_some() && prev == me;
        let steps = {
            let (prev, next) = (self.fpu(prev), self.fpu(next));
            let context = |fpu| Option::map(fpu, TaskFpu::context);
            let (prev, next) = (context(prev.as_deref()), context(next.as_deref()));
            match SwitchSteps::begin(&mut ThisCpu(self), prev, next) {
                Ok(steps) => steps,
                Err(why) => return self.fails(me, &format!("refused: {why}")),
            }
        };
        self.planned.set(steps);
        self.count(|done| match me == to {
            true => done.yields += u64::from(prev == next),
            false => done.switches += 1,
        });
        self.execute(me, to, loads, steps);
        self.arrived(me);
    }

    /// What assembly does of it: whoever leaves has what it must hold in its registers, if it loads them.
    fn execute(&self, me: Who, to: Who, loads: bool, steps: SwitchSteps) {
        let (stack, expected) = (self.stack(me), me.map(|me| self.tasks[me].expected.as_ptr()));
        let expected = expected.map_or(std::ptr::null(), <*mut RegFile>::cast_const);
        // SAFETY: its frame is used by `switch` only, in which it is not.
        let frame = unsafe { &mut *stack.0 };
        frame.load = if loads { expected } else { std::ptr::null() };
        frame.steps = steps;
        (frame.from, frame.to) = (stack.1, self.stack(to).1);
        frame.leaves_out = self.fault.map_or(0, Fault::bit);
        // SAFETY: C41: just filled in.
        unsafe { switch(frame) };
    }

    fn fpu(&self, of: Who) -> Option<Ref<'_, TaskFpu<Plan, HeapArea>>> {
        of.map(|which| self.tasks[which].fpu.borrow())
    }
    fn stack(&self, of: Who) -> (*mut Frame, *mut usize) {
        match of {
            Some(which) => (self.tasks[which].frame.get(), self.tasks[which].pointer.as_ptr()),
            None => (self.main.0.get(), self.main.1.as_ptr()),
        }
    }

    /// On the stack of `me`, after whoever switched here.
    fn arrived(&self, me: Who) {
        // SAFETY: as in `go`.
        let fault = unsafe { (*self.stack(me).0).fault };
        let restored = if fault == 0 { Ok(()) } else { Err(RestoreFault(fault)) };
        if let Err(why) = self.planned.get().done(&ThisCpu(self), restored) {
            self.fails(me, &why.to_string());
        }
    }

    /// Notes what was wrong; the call does not return to a task.
    fn fails(&self, me: Who, what: &str) {
        let Some(which) = me else {
            self.failure.borrow_mut().get_or_insert(format!("main thread: {what}"));
            return;
        };
        self.failure.borrow_mut().get_or_insert(format!("task {which}: {what}"));
        self.planned.set(NO_STEPS);
        // SAFETY: as in `go`.
        let frame = unsafe { &mut *self.stack(me).0 };
        (frame.load, frame.steps) = (std::ptr::null(), NO_STEPS);
        (frame.from, frame.to) = (self.stack(me).1, self.stack(None).1);
        loop {
            // SAFETY: C41: nothing is saved or loaded.
            unsafe { switch(frame) };
        }
    }

    /// Checks that the task found in its registers what it left there.
    fn check(&self, me: usize, when: &str) {
        let task = &self.tasks[me];
        // SAFETY: `switch` writes it only while the task resumes.
        let (expected, seen) = (task.expected.borrow(), unsafe { &*task.seen.get() });
        self.count(|done| done.checks += 1);
        if let Some(register) = expected.first_difference(seen) {
            let (expected, seen) = (register.value(&expected), register.value(seen));
            let text = format!(
                "MISMATCH {when}: register {register}: expected {expected:#x}, seen {seen:#x}"
            );
            self.fails(Some(me), &text);
        }
    }

    /// Chooses the registers that the task holds from now on.
    fn computes(&self, me: usize) {
        self.seed.set(self.seed.get().wrapping_add(1));
        self.tasks[me].expected.borrow_mut().quiet_set_pattern(self.seed.get());
    }

    /// The body of a task: one action after the other, as long as it lives.
    fn live(&self, me: usize) -> ! {
        self.arrived(Some(me));
        self.check(me, "when it began");
        loop {
            let free = (0..TASKS).find(|which| !self.tasks[*which].alive.get());
            match (self.below(12), free) {
                (0 | 1, _) => self.section(me),
                (2, Some(child)) => self.fork(me, child),
                (3, _) => self.write(me),
                (4, _) if me >= TASKS / 2 => self.end(me),
                _ => {
                    self.computes(me);
                    let next = self.pick();
                    self.go(Some(me), next, Some(me), next);
                    self.check(me, "after a switch");
                }
            }
        }
    }

    /// Runs `code` while memory holds the task, and brings its registers back.
    fn saved(&self, me: usize, code: impl FnOnce(&Task) -> Result<(), Error>) {
        let here = Some(me);
        self.computes(me);
        self.go(here, here, here, None);
        if let Err(why) = code(&self.tasks[me]) {
            self.fails(here, &format!("refused: {why}"));
        }
        self.go(here, here, None, here);
    }

    /// Vector code, with other control words.
    fn section(&self, me: usize) {
        self.count(|done| done.sections += 1);
        self.computes(me);
        let here = Some(me);
        if let Err(why) = self.in_section(me) {
            self.fails(here, &format!("refused: {why}"));
        }
        self.go(here, here, None, here);
        self.check(me, "after a section");
    }

    fn in_section(&self, me: usize) -> Result<(), Error> {
        let scribble = RegFile::pattern(!self.seed.get(), self.classes);
        let (mut cpu, fpu) = (ThisCpu(self), self.tasks[me].fpu.borrow());
        let pending = PendingSection::begin(&mut cpu, Some(fpu.context()), KernelUnits::ALL)?;
        if let (Some(save), true) = (pending.steps(), self.fault != Some(Fault::SectionUnsaved)) {
            let SaveSteps { save_to, mask, word: save_word, saved } = *save;
            let steps = SwitchSteps { save_to, save_word, saved, mask, ..NO_STEPS };
            self.execute(Some(me), Some(me), true, steps);
        }
        // SAFETY: C42: just executed, if the fault does not leave it out. Compiled code needs its control words only.
        let section = unsafe { pending.saved() };
        let words: Vec<f32> = (0..64u8).map(f32::from).collect();
        let sum: f32 = black_box(&words).iter().map(|word| word * 2.0).sum();
        assert_eq!(black_box(sum), 4032.0);
        // SAFETY: C31: this CPU's classes. C32: at once.
        unsafe { load_registers(&scribble) };
        // SAFETY: file of this CPU (C31); what they hold is not needed.
        unsafe { sane_registers(self.classes) };
        drop(section);
        Ok(())
    }

    /// The child begins with what the task holds.
    fn fork(&self, me: usize, child: usize) {
        self.count(|done| done.forks += 1);
        self.saved(me, |task| {
            let mut cpu = ThisCpu(self);
            let (fpu, mut into) = (task.fpu.borrow(), self.tasks[child].fpu.borrow_mut());
            fpu.open_saved(&mut cpu)?.fork_into(&mut into);
            Ok(())
        });
        self.check(me, "after a fork");
        let expected = self.tasks[me].expected.borrow().clone();
        *self.tasks[child].expected.borrow_mut() = expected;
        self.lay_out(child);
        self.tasks[child].alive.set(true);
    }

    /// The task's image is read, and two of its registers are written.
    fn write(&self, me: usize) {
        self.count(|done| done.writes += 1);
        let mut read = None;
        self.saved(me, |task| {
            let (mut cpu, fpu) = (ThisCpu(self), task.fpu.borrow());
            let session = fpu.open_saved(&mut cpu)?;
            read = session.image().xmm(5);
            let mut session = session.make_memory_valid_write();
            let mut image = session.image_mut();
            let mut expected = task.expected.borrow_mut();
            let mxcsr = expected.mxcsr() ^ 0x6000; // another rounding
            let value = u128::from(self.seed.get()) << 64 | 0x5EED;
            if image.set_xmm(9, value.to_le_bytes()).is_err() || image.set_mxcsr(mxcsr).is_err() {
                return Err(Error::Lost);
            }
            expected.vector_mut(9)[..2].copy_from_slice(&[0x5EED, self.seed.get()]);
            expected.set_mxcsr(mxcsr);
            Ok(())
        });
        self.check(me, "after its image was written");
        let [low, high, ..] = *self.tasks[me].expected.borrow().vector(5);
        if read != Some((u128::from(high) << 64 | u128::from(low)).to_le_bytes()) {
            self.fails(Some(me), "MISMATCH in its image: xmm5");
        }
    }

    /// Ends the task. Its registers stay as they are, and its context waits for a fork.
    fn end(&self, me: usize) {
        self.tasks[me].alive.set(false);
        let next = self.pick();
        self.go(Some(me), next, None, next);
        self.fails(Some(me), "goes on after its end");
    }
}

extern "C" fn body(kernel: usize, me: usize) -> ! {
    // SAFETY: `lay_out` put the scheduler's address there, whose `run` waits on the main thread's stack.
    let kernel = unsafe { &*(kernel as *const Kernel) };
    kernel.live(me)
}
