//! Host threads that run virtual CPUs, among threads that do not: random runs over CPUs, against an oracle that knows
//! what each must find in its registers, and a count of the saves and restores that are due. Kernels that do it wrong
//! are noticed.

use fpu_core::{switch, CpuLifecycle, Error, KernelFpu, KernelUnits, TaskFpu};
use fpu_hosted_test::{
    sim::{Interrupt, Registers, SimArea, SimCpu, SimFpu, COMPONENTS, LAYOUT},
    Random,
};
use std::cell::{Cell, RefCell};

const CPUS: usize = 3;
const THREADS: usize = 5;
/// The first threads have a virtual CPU each.
const VCPUS: usize = 3;

/// What a wrong kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// The scheduler saves the thread's own context, whatever is current.
    SavesTheThread,
    /// The thread goes to user mode, and its guest is not saved.
    LeavesTheGuest,
    /// An interrupt's section is told of the thread's own context.
    SectionOfTheThread,
    /// The thread's own context is not saved before its guest is loaded.
    ForgetsTheThread,
    /// "Loaded on this CPU" is a note of the guest, not a question to the words.
    NotesWhereLoaded,
}

/// A context, what it must find next, and the count's view of it.
struct Context {
    fpu: TaskFpu<SimFpu, SimArea>,
    expect: RefCell<Registers>,
    /// Has it run since it was saved?
    ran: Cell<bool>,
    /// The CPU whose registers hold it, unless someone came between there.
    at: Cell<Option<usize>>,
    /// For [`Flaw::NotesWhereLoaded`].
    noted: Cell<Option<usize>>,
}

/// What was done, and what was due by the count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Moves {
    saves: u64,
    restores: u64,
}
impl std::ops::AddAssign for Moves {
    fn add_assign(&mut self, other: Self) {
        self.saves += other.saves;
        self.restores += other.restores;
    }
}

struct World {
    cpus: Vec<SimCpu>,
    /// Threads, then virtual CPUs.
    contexts: Vec<Context>,
    /// Is the thread in its run loop, so that its guest is its current context?
    in_loop: [Cell<bool>; VCPUS],
    current: [Cell<Option<usize>>; CPUS],
    /// Whom this CPU's registers hold, by the count.
    holds: [Cell<Option<usize>>; CPUS],
    random: RefCell<Random>,
    flaw: Option<Flaw>,
    /// Of threads, and of guests.
    due: RefCell<[Moves; 2]>,
    entries: Cell<u64>,
    sections: Cell<(u64, u64)>,
}

type Found = Result<(), String>;

fn of(why: Error) -> String {
    why.to_string()
}

impl World {
    fn new(seed: u64, flaw: Option<Flaw>) -> Self {
        let cpus: Vec<_> = (0..CPUS).map(|number| SimCpu::online(number as u32)).collect();
        let context = |_| Context {
            fpu: TaskFpu::new(cpus[0].fpu(), SimArea::new()).expect("the area fits"),
            expect: RefCell::new(Registers::initial()),
            ran: Cell::new(false),
            at: Cell::new(None),
            noted: Cell::new(None),
        };
        Self {
            contexts: (0..THREADS + VCPUS).map(context).collect(),
            cpus,
            in_loop: Default::default(),
            current: Default::default(),
            holds: Default::default(),
            random: RefCell::new(Random::new(seed)),
            flaw,
            due: RefCell::default(),
            entries: Cell::default(),
            sections: Cell::default(),
        }
    }
    fn below(&self, limit: usize) -> usize {
        self.random.borrow_mut().below(limit)
    }
    fn word(&self) -> u64 {
        self.random.borrow_mut().word()
    }
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
    /// The context that is current in a thread.
    fn of_thread(&self, thread: usize) -> usize {
        let guest = thread < VCPUS && self.in_loop[thread].get();
        if guest {
            THREADS + thread
        } else {
            thread
        }
    }

    // The count: what is due, from who ran where.

    fn counts_save(&self, which: usize) {
        if self.contexts[which].ran.replace(false) {
            self.due.borrow_mut()[usize::from(which >= THREADS)].saves += 1;
        }
    }
    fn counts_entry(&self, c: usize, which: usize) {
        let context = &self.contexts[which];
        if self.holds[c].get() != Some(which) || context.at.get() != Some(c) {
            self.due.borrow_mut()[usize::from(which >= THREADS)].restores += 1;
        }
        self.holds[c].set(Some(which));
        context.at.set(Some(c));
        context.ran.set(true);
    }

    // What the kernel does.

    /// A section: of the current thread, or of an interrupt.
    fn section(&self, c: usize, in_interrupt: bool) -> Found {
        let cpu = &self.cpus[c];
        let thread = self.current[c].get();
        let named = thread.map(|thread| {
            if self.is(Flaw::SectionOfTheThread) {
                thread
            } else {
                self.of_thread(thread)
            }
        });
        let context = named.map(|named| self.contexts[named].fpu.context());
        let seed = self.word();
        let scribbles = || cpu.fpu().scribble(seed);
        let ran = if in_interrupt {
            cpu.interrupted().with_kernel_fpu(context, KernelUnits::ALL, scribbles)
        } else {
            cpu.preempt_off().with_kernel_fpu(context, KernelUnits::ALL, scribbles)
        };
        let (done, refused) = self.sections.get();
        match ran {
            Ok(()) => {
                self.sections.set((done + 1, refused));
                named.inspect(|named| self.counts_save(*named));
                self.holds[c].set(None);
                Ok(())
            }
            Err(Error::Busy) => {
                self.sections.set((done, refused + 1));
                Ok(())
            }
            Err(why) => Err(of(why)),
        }
    }
    fn save(&self, c: usize, which: usize) -> Found {
        let irqs = self.cpus[c].irqs_off();
        self.contexts[which].fpu.switch_prepare(&irqs).map_err(of)?;
        self.counts_save(which);
        Ok(())
    }
    /// User mode, or a VM entry and the exit from it: the registers are compared, and changed.
    fn enter(&self, c: usize, which: usize) -> Found {
        let (cpu, context) = (&self.cpus[c], &self.contexts[which]);
        let mut irqs = cpu.irqs_off();
        let noted = self.is(Flaw::NotesWhereLoaded) && which >= THREADS;
        let _ready = if noted && context.noted.get() == Some(c) {
            None
        } else {
            Some(context.fpu.switch_return(&mut irqs).map_err(of)?)
        };
        context.noted.set(Some(c));
        self.counts_entry(c, which);
        let mut expect = context.expect.borrow_mut();
        if cpu.fpu().registers() != *expect {
            return Err(format!("context {which} finds other registers on CPU {c}"));
        }
        match self.below(3) {
            0 => {}
            1 => {
                *expect = Registers::pattern(self.word(), self.word());
                cpu.fpu().load(&expect);
            }
            _ => {
                let component = self.below(COMPONENTS);
                let value = self.word() & LAYOUT[component].legal;
                cpu.fpu().write_one(component, 0, value);
                expect.component_mut(component)[0] = value;
            }
        }
        Ok(())
    }
    /// Into the run loop: the guest's context becomes the thread's current one.
    fn begin_loop(&self, c: usize, thread: usize) -> Found {
        let guest = THREADS + thread;
        if self.below(2) == 0 && !self.is(Flaw::ForgetsTheThread) {
            let context = |which: usize| Some(self.contexts[which].fpu.context());
            let mut irqs = self.cpus[c].irqs_off();
            switch(context(thread), context(guest), &mut irqs).map_err(|why| why.to_string())?;
            self.counts_save(thread);
            self.counts_entry(c, guest);
            self.in_loop[thread].set(true);
            return Ok(());
        }
        if !self.is(Flaw::ForgetsTheThread) {
            self.save(c, thread)?;
        }
        self.in_loop[thread].set(true);
        Ok(())
    }
    /// Out of it, on the way to user mode.
    fn end_loop(&self, c: usize, thread: usize) -> Found {
        if !self.is(Flaw::LeavesTheGuest) {
            self.save(c, THREADS + thread)?;
        }
        self.in_loop[thread].set(false);
        self.enter(c, thread)
    }
    /// What is current is looked at or changed, as for a machine's monitor that asks for its guest's registers.
    fn session(&self, c: usize, which: usize) -> Found {
        let context = &self.contexts[which];
        let mut pin = self.cpus[c].preempt_off();
        let opened = context.fpu.open(&mut pin).map_err(of)?;
        let mut expect = context.expect.borrow_mut();
        if self.below(2) == 0 {
            if opened.make_memory_valid_read().image().registers() != *expect {
                return Err(format!("a monitor finds other registers of context {which}"));
            }
        } else {
            let (component, value) = (self.below(COMPONENTS), self.word());
            let value = value & LAYOUT[component].legal;
            opened.make_memory_valid_write().image_mut().set_component(component, &[value]);
            expect.component_mut(component)[0] = value;
            context.at.set(None);
        }
        self.counts_save(which);
        Ok(())
    }
    fn switch_threads(&self, c: usize) -> Found {
        if let Some(thread) = self.current[c].get() {
            let leaves =
                if self.is(Flaw::SavesTheThread) { thread } else { self.of_thread(thread) };
            self.save(c, leaves)?;
        }
        let first = self.below(THREADS);
        let runs_nowhere = |thread: &usize| self.current.iter().all(|at| at.get() != Some(*thread));
        let next = (0..THREADS).map(|n| (first + n) % THREADS).find(runs_nowhere);
        self.current[c].set(match self.below(4) {
            0 => None,
            1 => self.current[c].get(),
            _ => next,
        });
        if self.current[c].get().is_none() && self.below(4) == 0 {
            let mut irqs = self.cpus[c].irqs_off();
            irqs.fpu_resume().map_err(of)?; // the sleep took the registers
            self.cpus[c].fpu().scribble(self.word());
            self.holds[c].set(None);
        }
        Ok(())
    }

    fn step(&self, c: usize) -> Found {
        let Some(thread) = self.current[c].get() else { return self.switch_threads(c) };
        let which = self.of_thread(thread);
        match self.below(16) {
            0 | 1 => self.switch_threads(c),
            2 => self.section(c, false),
            3 => self.section(c, true),
            4 => self.session(c, which),
            5 if which >= THREADS => self.end_loop(c, thread),
            _ if which >= THREADS => {
                for _ in 0..=self.below(30) {
                    self.entries.set(self.entries.get() + 1);
                    self.enter(c, which)?;
                }
                Ok(())
            }
            5..=9 if thread < VCPUS => self.begin_loop(c, thread),
            _ => self.enter(c, which),
        }
    }
    /// One operation on some CPU, in a third of them with an interrupt at a random step.
    fn walk(&self, steps: u32) -> Found {
        for _ in 0..steps {
            let c = self.below(CPUS);
            if self.below(3) != 0 {
                self.step(c)?;
                continue;
            }
            let in_handler = RefCell::new(Ok(()));
            let handler = || *in_handler.borrow_mut() = self.section(c, true);
            let at = 1 + self.below(12) as u64;
            self.cpus[c].inject(at, Interrupt::Maskable, &handler, || self.step(c)).0?;
            in_handler.into_inner()?;
        }
        Ok(())
    }
    fn done(&self) -> Moves {
        let mut sum = Moves::default();
        for cpu in self.cpus.iter().map(SimCpu::totals) {
            sum += Moves { saves: cpu.saved, restores: cpu.restored };
        }
        sum
    }
}

/// Every thread and every guest finds its registers; nothing is saved or restored but what is due; and for the guests
/// that is a small part of the save and the restore that a swap at each exit makes.
#[test]
fn a_guest_is_a_context_that_is_kept_over_its_exits() {
    let (mut entries, mut sections, mut guests) = (0, (0, 0), Moves::default());
    for seed in 0..60 {
        let world = World::new(seed, None);
        if let Err(why) = world.walk(2000) {
            panic!("seed {seed}: {why}");
        }
        let [mut due, of_guests] = *world.due.borrow();
        due += of_guests;
        assert_eq!(world.done(), due, "seed {seed}: done, and due");
        guests += of_guests;
        entries += world.entries.get();
        let (done, refused) = world.sections.get();
        sections = (sections.0 + done, sections.1 + refused);
    }
    println!("{entries} VM entries, {guests:?}; by a swap at each exit {entries} each");
    assert!(sections.0 > 10_000 && sections.1 > 100, "sections and refused ones: {sections:?}");
    assert!(guests.saves * 8 < entries && guests.restores * 8 < entries && guests.saves > 5_000);
}

/// Nobody comes between: one restore for any number of exits, and one save when the thread leaves.
#[test]
fn exits_cost_nothing_while_the_thread_stays_in_the_kernel() {
    let world = World::new(1, None);
    world.current[0].set(Some(0));
    world.enter(0, 0).expect("user mode");
    world.save(0, 0).expect("into the loop");
    world.in_loop[0].set(true);
    let before = world.done();
    for _ in 0..1000 {
        world.enter(0, THREADS).expect("a VM entry");
    }
    world.save(0, THREADS).expect("the thread is switched out");
    let after = world.done();
    assert_eq!((after.saves - before.saves, after.restores - before.restores), (1, 1));
    // It comes back to the same CPU, where only idle was.
    world.enter(0, THREADS).expect("a VM entry");
    assert_eq!(world.done().restores, after.restores);
}

#[test]
fn wrong_hypervisors_are_noticed() {
    for flaw in [
        Flaw::SavesTheThread,
        Flaw::LeavesTheGuest,
        Flaw::SectionOfTheThread,
        Flaw::ForgetsTheThread,
        Flaw::NotesWhereLoaded,
    ] {
        let noticed = (0..20).find_map(|seed| World::new(seed, Some(flaw)).walk(2000).err());
        println!("{flaw:?}: {}", noticed.as_deref().unwrap_or("-"));
        assert!(noticed.is_some(), "{flaw:?} is not noticed");
    }
}
