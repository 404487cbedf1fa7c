//! Long random runs against an oracle that knows nothing of the scheme: for each task, the registers
//! it must find.

use core::ptr::NonNull;
use fpu_core::{
    verify::{Scratch, Verified},
    CpuLifecycle, Error, KernelFpu, KernelUnits, RawFpu, RestoreFault, TaskFpu,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Interrupt, Registers, SimArea, SimCpu, SimFpu, SimStopped, COMPONENTS, LAYOUT},
    Random,
};
use std::cell::{Cell, RefCell};

const CPUS: usize = 3;
const TASKS: usize = 5;
const GUESTS: usize = 2;
const NAMES: [&str; 16] = [
    "switch",
    "switch by plan",
    "return",
    "return by plan",
    "return by session",
    "sections",
    "session read",
    "session write",
    "stopped read/write",
    "fork",
    "exec",
    "exit and reuse",
    "cpu off/on, resume",
    "guest",
    "verify",
    "idle",
];

/// A context and what it must find next.
struct Slot {
    context: Box<Task>,
    expect: RefCell<Registers>,
}
impl Slot {
    fn new() -> Self {
        Self { context: Box::new(new_task()), expect: RefCell::new(Registers::initial()) }
    }
}

struct World {
    cpus: Vec<SimCpu>,
    tasks: Vec<Slot>,
    guests: Vec<Slot>,
    /// Which task is current on each CPU.
    current: [Cell<Option<usize>>; CPUS],
    random: RefCell<Random>,
    interrupts: Cell<(u64, u64)>,
    failures: Cell<u64>,
    /// Where registers are saved to be compared; one is enough, as one CPU runs at a time.
    scratch: RefCell<Scratch<SimFpu, SimArea>>,
    agreed: Cell<u64>,
    /// Times the idle loop gave up registers, and found nothing to give up.
    idled: Cell<(u64, u64)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let cpus: Vec<_> = (0..CPUS).map(|number| SimCpu::online(number as u32)).collect();
        let scratch = Scratch::new(cpus[0].fpu(), SimArea::new()).expect("the area fits");
        Self {
            cpus,
            tasks: (0..TASKS).map(|_| Slot::new()).collect(),
            guests: (0..GUESTS).map(|_| Slot::new()).collect(),
            current: Default::default(),
            random: RefCell::new(Random::new(seed)),
            interrupts: Cell::default(),
            failures: Cell::default(),
            scratch: RefCell::new(scratch),
            agreed: Cell::default(),
            idled: Cell::default(),
        }
    }
    fn below(&self, limit: usize) -> usize {
        self.random.borrow_mut().below(limit)
    }
    fn word(&self) -> u64 {
        self.random.borrow_mut().word()
    }
    fn current(&self, cpu: usize) -> Option<&Slot> {
        self.current[cpu].get().map(|task| &self.tasks[task])
    }
    /// A task that is current nowhere.
    fn idle_task(&self) -> Option<usize> {
        let first = self.below(TASKS);
        (0..TASKS)
            .map(|n| (first + n) % TASKS)
            .find(|&task| self.current.iter().all(|current| current.get() != Some(task)))
    }
    /// The task writes some of its registers, or all.
    fn user_mode(&self, cpu: usize, expect: &mut Registers) {
        let fpu = self.cpus[cpu].fpu();
        match self.below(4) {
            0 => {}
            1 => {
                *expect = Registers::pattern(self.word(), self.word());
                fpu.load(expect);
            }
            _ => {
                let (component, value) = (self.below(COMPONENTS), self.word());
                let value = value & LAYOUT[component].legal;
                fpu.write_one(component, 0, value);
                expect.component_mut(component)[0] = value;
            }
        }
    }
    /// An interrupt on this CPU that uses vector registers.
    fn interrupt(&self, cpu: usize) {
        let current = self.current(cpu).map(|slot| slot.context.context());
        let (ran, refused) = self.interrupts.get();
        let seed = ran ^ 0xF00;
        let section =
            self.cpus[cpu]
                .interrupted()
                .with_kernel_fpu(current, KernelUnits::ALL, || self.cpus[cpu].fpu().scribble(seed));
        self.interrupts.set(match section {
            Ok(()) => (ran + 1, refused),
            Err(Error::Busy | Error::CpuOffline) => (ran, refused + 1),
            Err(why) => panic!("an interrupt's section: {why}"),
        });
    }

    fn leave(&self, c: usize, by_steps: bool) {
        let (Some(slot), cpu) = (self.current(c), &self.cpus[c]) else { return };
        if !by_steps {
            return slot.context.switch_prepare(&cpu.irqs_off()).expect("it is current here");
        }
        let mut irqs = cpu.irqs_off();
        if let Some(pending) = slot.context.begin_switch_out(&mut irqs).expect("it is current here")
        {
            let area = NonNull::new(pending.steps().save_to).expect("an area");
            // SAFETY: C9: `pending`'s area. C10: simulated registers.
            unsafe { cpu.fpu().save(area) };
            // SAFETY: C15: done just now.
            unsafe { pending.saved() };
        }
    }
    fn switch(&self, c: usize, by_steps: bool) {
        self.leave(c, by_steps);
        let previous = self.current[c].take();
        // A debugger, while the registers still hold the task.
        if let Some(task) = previous.filter(|_| self.below(3) == 0) {
            self.stopped(task);
        }
        // Sometimes to idle, sometimes straight back.
        self.current[c].set(match self.below(4) {
            0 => None,
            1 => previous,
            _ => self.idle_task(),
        });
    }
    fn enter(&self, c: usize) {
        let (Some(slot), cpu) = (self.current(c), &self.cpus[c]) else { return };
        let fails = self.below(16) == 0;
        cpu.fpu().fail_restore(u64::from(fails));
        let mut irqs = cpu.irqs_off();
        match slot.context.switch_return(&mut irqs) {
            Ok(ready) => {
                self.arrives(c, slot);
                drop(ready);
            }
            Err(Error::RestoreFailed(RestoreFault(14))) if fails => {
                self.failures.set(self.failures.get() + 1);
            }
            Err(why) => panic!("return on CPU {c}: {why}"),
        }
        cpu.fpu().fail_restore(0);
    }
    /// This kernel keeps its duties, so nothing is ever found.
    fn verify(&self, c: usize) {
        let Some(slot) = self.current(c) else { return };
        let mut pin = self.cpus[c].preempt_off();
        let found = slot.context.verify_registers(&mut pin, &mut self.scratch.borrow_mut());
        match found {
            Ok(Verified::Agreed) => self.agreed.set(self.agreed.get() + 1),
            Ok(_) => {}
            Err(why) => panic!("a right kernel is accused on CPU {c}: {why}"),
        }
    }
    fn arrives(&self, c: usize, slot: &Slot) {
        let mut expect = slot.expect.borrow_mut();
        assert_eq!(self.cpus[c].fpu().registers(), *expect, "user mode on CPU {c}");
        self.user_mode(c, &mut expect);
    }
    fn enter_by_steps(&self, c: usize) {
        let (Some(slot), cpu) = (self.current(c), &self.cpus[c]) else { return };
        let mut irqs = cpu.irqs_off();
        let pending = slot.context.begin_user(&mut irqs).expect("it is current here");
        if self.below(8) == 0 {
            return drop(pending); // decided, then not done
        }
        let steps = *pending.steps();
        if let Some(from) = NonNull::new(steps.restore_from.cast_mut()) {
            // SAFETY: C9: `pending`'s area. C10: simulated registers.
            unsafe { cpu.fpu().restore(from) }.expect("a good image");
        }
        if self.below(2) == 0 {
            // SAFETY: C12, C13: done just now.
            let ready = unsafe { pending.restored() };
            self.arrives(c, slot);
            return drop(ready);
        }
        // SAFETY: `pending`'s word, which no other code accesses now.
        unsafe { steps.word.write_volatile(steps.live) };
        self.arrives(c, slot);
        // SAFETY: as for the restore.
        unsafe { cpu.fpu().save(NonNull::new(steps.save_to).expect("an area")) };
        // SAFETY: `pending`'s word, a `u64` that no other code accesses now.
        unsafe { steps.word.write_volatile(steps.saved) };
        // SAFETY: C12, C13, C14: done just now.
        unsafe { pending.round_trip_done() };
    }
    fn enter_by_session(&self, c: usize) {
        let Some(slot) = self.current(c) else { return };
        let mut irqs = self.cpus[c].irqs_off();
        let session = slot.context.open(&mut irqs).expect("free").make_memory_valid_write();
        let ready = session.make_registers_valid().expect("a good image").switch_return();
        self.arrives(c, slot);
        drop(ready);
    }
    fn sections(&self, c: usize) {
        let cpu = &self.cpus[c];
        for _ in 0..=self.below(3) {
            let current = self.current(c).map(|slot| slot.context.context());
            let section = cpu.preempt_off().with_kernel_fpu(current, KernelUnits::ALL, || {
                cpu.fpu().scribble(self.word());
            });
            section.expect("free");
        }
    }
    fn session(&self, c: usize, write: bool) {
        let Some(slot) = self.current(c) else { return };
        let mut pin = self.cpus[c].preempt_off();
        let session = slot.context.open(&mut pin).expect("free").make_memory_valid_read();
        let mut expect = slot.expect.borrow_mut();
        assert_eq!(session.image().registers(), *expect, "read by a session on CPU {c}");
        if write {
            *expect = Registers::pattern(self.word(), self.word());
            let mut session = session.make_memory_valid_write();
            session.image_mut().set(&expect);
            if self.below(2) == 0 {
                drop(session.make_registers_valid().expect("a good image"));
            }
        }
    }
    fn stopped(&self, task: usize) {
        let slot = &self.tasks[task];
        let mut proof = SimStopped::of(slot.context.context());
        let mut expect = slot.expect.borrow_mut();
        let stopped = slot.context.stopped(&mut proof).expect("it was switched out");
        assert_eq!(stopped.image().registers(), *expect, "read while stopped");
        if self.below(2) == 0 {
            *expect = Registers::pattern(self.word(), self.word());
            stopped.make_memory_valid_write().image_mut().set(&expect);
        }
    }
    fn exec(&self, c: usize) {
        let Some(slot) = self.current(c) else { return };
        slot.context.reset(&mut self.cpus[c].preempt_off()).expect("free");
        *slot.expect.borrow_mut() = Registers::initial();
    }
    fn off_and_on(&self, c: usize) {
        let cpu = &self.cpus[c];
        self.leave(c, false);
        if self.below(2) == 0 {
            cpu.irqs_off().fpu_offline().expect("online");
            cpu.fpu().lose_power();
            // SAFETY: K15, K16: the number it had, its words kept.
            unsafe { cpu.irqs_off().fpu_online(c as u32) }.expect("offline");
        } else {
            let irqs = &mut cpu.irqs_off();
            cpu.fpu().lose_power();
            irqs.fpu_resume().expect("online");
        }
    }
    /// Switched out to the idle loop, and perhaps straight back.
    fn idle(&self, c: usize) {
        self.leave(c, false);
        let (given_up, not) = self.idled.get();
        self.idled.set(match self.cpus[c].preempt_off().fpu_idle() {
            Ok(true) => (given_up + 1, not),
            Ok(false) => (given_up, not + 1),
            Err(why) => panic!("idle on CPU {c}: {why}"),
        });
        if self.below(2) == 0 {
            self.enter(c);
        }
    }
    fn guest(&self, c: usize) {
        let (cpu, guest) = (&self.cpus[c], &self.guests[self.below(GUESTS)]);
        let current = self.current(c).map(|slot| slot.context.context());
        let ran = cpu.preempt_off().run_guest(guest.context.context(), current, || {
            let mut expect = guest.expect.borrow_mut();
            assert_eq!(cpu.fpu().registers(), *expect, "the guest on CPU {c}");
            self.user_mode(c, &mut expect);
        });
        ran.expect("free");
    }
    fn fork(&mut self, c: usize) {
        let (Some(parent), Some(child)) = (self.current[c].get(), self.idle_task()) else { return };
        let mut fresh = Slot::new();
        let slot = &self.tasks[parent];
        let pin = &mut self.cpus[c].preempt_off();
        slot.context.fork_into(pin, &mut fresh.context).expect("free");
        let mut expect = slot.expect.borrow().clone();
        expect.component_mut(3).fill(0); // the tile is not inherited
        *fresh.expect.get_mut() = expect;
        self.tasks[child] = fresh;
    }
    /// The current task ends, live or not, and another one begins at the same address.
    fn exit_and_reuse(&mut self, c: usize) {
        let Some(task) = self.current[c].take() else { return };
        let fpu = self.cpus[c].fpu();
        let Ok(fresh) = TaskFpu::new(fpu, SimArea::new()) else { panic!("the area fits") };
        *self.tasks[task].context = fresh; // drops the old one in place
        *self.tasks[task].expect.get_mut() = Registers::initial();
    }

    fn operation(&mut self) -> usize {
        let (which, c) = (self.below(NAMES.len()), self.below(CPUS));
        match which {
            9 => self.fork(c),
            11 => self.exit_and_reuse(c),
            _ => {
                let at = self.below(48) as u64; // 0: no interrupt
                let world = &*self;
                let handler = || world.interrupt(c);
                let operation = || match which {
                    0 => world.switch(c, false),
                    1 => world.switch(c, true),
                    2 => {
                        world.verify(c);
                        world.enter(c);
                    }
                    3 => world.enter_by_steps(c),
                    4 => world.enter_by_session(c),
                    5 => world.sections(c),
                    6 => world.session(c, false),
                    7 => world.session(c, true),
                    8 => world.idle_task().into_iter().for_each(|task| world.stopped(task)),
                    10 => world.exec(c),
                    12 => world.off_and_on(c),
                    13 => world.guest(c),
                    15 => world.idle(c),
                    _ => world.verify(c),
                };
                world.cpus[c].inject(at, Interrupt::Maskable, &handler, operation);
            }
        }
        which
    }
}

fn run(seed: u64, operations: usize) {
    let mut world = World::new(seed);
    let mut done = [0_u64; NAMES.len()];
    for _ in 0..operations {
        done[world.operation()] += 1;
    }
    // At the end every task comes home somewhere and finds its own.
    for task in 0..TASKS {
        let on = world.current.iter().position(|current| current.get() == Some(task));
        let c = on.unwrap_or(task % CPUS);
        if on.is_none() {
            world.leave(c, false);
            world.current[c].set(Some(task));
        }
        let slot = &world.tasks[task];
        drop(slot.context.switch_return(&mut world.cpus[c].irqs_off()).expect("free"));
        assert_eq!(world.cpus[c].fpu().registers(), *slot.expect.borrow(), "at the end");
    }
    let sum = |of: fn(&fpu_core::observe::Totals) -> u64| -> u64 {
        world.cpus.iter().map(|cpu| of(&cpu.totals())).sum()
    };
    let (saved, restored, skipped) = (sum(|t| t.saved), sum(|t| t.restored), sum(|t| t.skipped));
    let (ran, refused) = world.interrupts.get();
    println!(
        "seed {seed}: {operations} operations, {saved} saved, {restored} restored, {skipped} \
         skipped, {} restores failed, {} agreed, {ran} interrupts ran, {refused} refused",
        world.failures.get(),
        world.agreed.get()
    );
    for (name, done) in NAMES.iter().zip(done) {
        assert!(done > 0, "{name} never happened");
    }
    for (what, happened) in [
        ("a skipped restore", skipped),
        ("a failed restore", world.failures.get()),
        ("an agreement of registers and memory", world.agreed.get()),
        ("an idle CPU that gave up registers", world.idled.get().0),
        ("an idle CPU that had none to give up", world.idled.get().1),
        ("an interrupt that ran", ran),
        ("an interrupt that was refused", refused),
    ] {
        assert!(happened > 0, "{what} never happened");
    }
    assert_eq!(sum(|t| t.failed), world.failures.get());
}

#[test]
fn every_task_always_finds_its_own_registers() {
    for seed in 1..=8 {
        run(seed, 5_000);
    }
}
