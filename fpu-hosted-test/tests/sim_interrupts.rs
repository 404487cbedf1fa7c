//! Kernel FPU use in an interrupt, at every step of every operation.
//!
//! Each operation is run once for each of its steps, with an interrupt there that begins a section,
//! scribbles over every register and ends it. The section must have been refused, or harmless: after
//! the operation the task must find exactly the registers that the operation should leave it with.

use fpu_core::{
    session::TaskState,
    verify::{Scratch, VerifyError},
    CpuLifecycle, CpuWords, Error, KernelFpu, KernelUnits, Level, Pinned, RawFpu,
};
use fpu_hosted_test::{
    doc::{new_task, Task},
    sim::{Interrupt, Registers, SimArea, SimCpu},
};
use std::cell::{Cell, RefCell};

/// The state in which an operation finds the task.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    RegistersOnly,
    Both,
    MemoryOnly,
}
const STATES: [From; 3] = [From::RegistersOnly, From::Both, From::MemoryOnly];

/// A CPU, its current task and what that task must find next.
struct World {
    cpu: SimCpu,
    task: Task,
    mine: RefCell<Registers>,
    child: RefCell<Task>,
    guest: Task,
    of_guest: RefCell<Registers>,
}

fn leave(cpu: &SimCpu, task: &Task) {
    task.switch_prepare(&cpu.irqs_off()).expect("it is current here");
}

impl World {
    fn new(from: From) -> Self {
        let (cpu, task, guest) = (SimCpu::online(3), new_task(), new_task());
        let (mine, of_guest) = (Registers::pattern(1, 0b1101), Registers::pattern(2, 0b0110));
        let entered = cpu.preempt_off().run_guest(guest.context(), None, || {
            cpu.fpu().load(&of_guest);
        });
        entered.expect("free");
        drop(task.switch_return(&mut cpu.irqs_off()).expect("free"));
        cpu.fpu().load(&mine);
        if from != From::RegistersOnly {
            leave(&cpu, &task);
        }
        if from == From::MemoryOnly {
            cpu.irqs_off().invalidate_registers().expect("online");
            cpu.fpu().scribble(3);
        }
        let (mine, of_guest) = (RefCell::new(mine), RefCell::new(of_guest));
        Self { cpu, task, mine, child: RefCell::new(new_task()), guest, of_guest }
    }
    fn now_has(&self, registers: &Registers) {
        *self.mine.borrow_mut() = registers.clone();
    }
    /// The way to user mode, and what the task finds there.
    fn check(&self, what: &str) {
        let ready = self.task.switch_return(&mut self.cpu.irqs_off()).map(drop);
        assert_eq!(ready, Ok(()), "{what}: the CPU cannot be used any more");
        assert_eq!(self.cpu.fpu().registers(), *self.mine.borrow(), "{what}: wrong registers");
        leave(&self.cpu, &self.task);
        let ran = self.cpu.preempt_off().run_guest(self.guest.context(), None, || {
            let found = self.cpu.fpu().registers();
            assert_eq!(found, *self.of_guest.borrow(), "{what}: the guest's registers are wrong");
        });
        assert_eq!(ran, Ok(()), "{what}");
        let ready = self.task.switch_return(&mut self.cpu.irqs_off()).map(drop);
        assert_eq!((ready, self.cpu.fpu().registers()), (Ok(()), self.mine.borrow().clone()));
    }
}

/// What interrupts can do during an operation.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Interrupts are on: somewhere a section runs, somewhere it is refused.
    Open,
    /// The witness is exclusive: they come only after.
    Exclusive,
}

struct Operation {
    name: &'static str,
    kind: Kind,
    from: &'static [From],
    run: fn(&World) -> Result<(), Error>,
}
const fn operation(
    name: &'static str,
    kind: Kind,
    from: &'static [From],
    run: fn(&World) -> Result<(), Error>,
) -> Operation {
    Operation { name, kind, from, run }
}

fn written() -> Registers {
    Registers::pattern(77, 0b0111)
}

/// User mode and the trip back, by the steps form, as assembly does it.
fn steps_round_trip(world: &World) -> Result<(), Error> {
    let mut irqs = world.cpu.irqs_off();
    let fpu = world.cpu.fpu();
    let pending = world.task.begin_user(&mut irqs)?;
    let steps = *pending.steps();
    let at = |area: *mut u8| core::ptr::NonNull::new(area);
    if let Some(from) = at(steps.restore_from.cast_mut()) {
        // SAFETY: C9: `pending`'s area. C10: simulated registers.
        unsafe { fpu.restore(from) }.expect("a good image");
    }
    // SAFETY: `pending`'s word, which no other code accesses now.
    unsafe { steps.word.write_volatile(steps.live) };
    assert_eq!(fpu.registers(), *world.mine.borrow());
    fpu.load(&written());
    world.now_has(&written());
    // SAFETY: as for the restore.
    unsafe { fpu.save(at(steps.save_to).expect("an area")) };
    // SAFETY: `pending`'s word, a `u64` that no other code accesses now.
    unsafe { steps.word.write_volatile(steps.saved) };
    // SAFETY: C12, C13, C14: done just now.
    unsafe { pending.round_trip_done() };
    Ok(())
}

fn begin_switch_out(world: &World) -> Result<(), Error> {
    let mut irqs = world.cpu.irqs_off();
    if let Some(pending) = world.task.begin_switch_out(&mut irqs)? {
        let area = core::ptr::NonNull::new(pending.steps().save_to).expect("an area");
        // SAFETY: C9: `pending`'s area. C10: simulated registers.
        unsafe { world.cpu.fpu().save(area) };
        // SAFETY: C15: done just now.
        unsafe { pending.saved() };
    }
    Ok(())
}

const OPERATIONS: [Operation; 20] = [
    operation("switch_prepare", Kind::Exclusive, &STATES, |w| {
        w.task.switch_prepare(&w.cpu.irqs_off())
    }),
    operation("switch_return", Kind::Exclusive, &STATES, |w| {
        let mut irqs = w.cpu.irqs_off();
        let ready = w.task.switch_return(&mut irqs)?;
        assert_eq!(w.cpu.fpu().registers(), *w.mine.borrow(), "user mode begins with these");
        w.cpu.fpu().load(&written());
        w.now_has(&written());
        drop(ready);
        Ok(())
    }),
    operation("begin_user", Kind::Exclusive, &STATES, steps_round_trip),
    operation("begin_switch_out", Kind::Exclusive, &STATES, begin_switch_out),
    operation("session switch_return", Kind::Exclusive, &STATES, |w| {
        let mut irqs = w.cpu.irqs_off();
        let session = w.task.open(&mut irqs)?.make_memory_valid_write();
        drop(session.make_registers_valid()?.switch_return());
        assert_eq!(w.cpu.fpu().registers(), *w.mine.borrow());
        Ok(())
    }),
    operation("open and drop", Kind::Open, &STATES, |w| {
        w.task.open(&mut w.cpu.preempt_off()).map(drop)
    }),
    operation("session read", Kind::Open, &STATES, |w| {
        let mut pin = w.cpu.preempt_off();
        let session = w.task.open(&mut pin)?.make_memory_valid_read();
        assert_eq!(session.image().registers(), *w.mine.borrow(), "the image read");
        Ok(())
    }),
    operation("session write", Kind::Open, &STATES, |w| {
        let mut pin = w.cpu.preempt_off();
        let mut session = w.task.open(&mut pin)?.make_memory_valid_write();
        assert_eq!(session.image().registers(), *w.mine.borrow(), "the image before the write");
        session.image_mut().set(&written());
        w.now_has(&written());
        Ok(())
    }),
    operation("make_registers_valid", Kind::Open, &STATES, |w| {
        w.task.open(&mut w.cpu.preempt_off())?.make_registers_valid()
    }),
    operation("write and load", Kind::Open, &STATES, |w| {
        let mut pin = w.cpu.preempt_off();
        let mut session = w.task.open(&mut pin)?.make_memory_valid_write();
        session.image_mut().set(&written());
        w.now_has(&written());
        drop(session.make_registers_valid()?);
        Ok(())
    }),
    operation("verify_registers", Kind::Open, &STATES, |w| {
        let mut pin = w.cpu.preempt_off();
        let mut scratch = Scratch::new(w.cpu.fpu(), SimArea::new()).expect("the area fits");
        match w.task.verify_registers(&mut pin, &mut scratch) {
            Ok(_) => Ok(()),
            Err(VerifyError::Refused(why)) => Err(why),
            Err(why) => panic!("a right kernel is accused: {why}"),
        }
    }),
    operation("session switch_prepare", Kind::Open, &[From::RegistersOnly], |w| {
        if let TaskState::RegistersOnly(s) = w.task.open(&mut w.cpu.preempt_off())? {
            s.switch_prepare();
        } // else an interrupt has saved it
        Ok(())
    }),
    operation("section", Kind::Open, &STATES, |w| {
        let mut pin = w.cpu.preempt_off();
        let section = pin.kernel_fpu(Some(w.task.context()), KernelUnits::ALL)?;
        w.cpu.fpu().scribble(5);
        let inside = w.cpu.fpu().registers();
        assert_ne!(section.cpu().words().gate(), 0); // an instruction boundary inside
        assert_eq!(w.cpu.fpu().registers(), inside, "somebody else used the section's registers");
        Ok(())
    }),
    operation("nested section", Kind::Open, &STATES, |w| {
        let mut pin = w.cpu.preempt_off();
        let section = pin.kernel_fpu(Some(w.task.context()), KernelUnits::ALL)?;
        let inner = w.cpu.preempt_off().with_kernel_fpu(None, KernelUnits::ALL, || ());
        assert_eq!(inner, Err(Error::Busy));
        drop(section);
        Ok(())
    }),
    operation("run_guest", Kind::Open, &STATES, |w| {
        let current = Some(w.task.context());
        w.cpu.preempt_off().run_guest(w.guest.context(), current, || {
            assert_eq!(w.cpu.fpu().registers(), *w.of_guest.borrow(), "the guest's registers");
            w.cpu.fpu().load(&written());
            *w.of_guest.borrow_mut() = written();
        })
    }),
    operation("invalidate_registers", Kind::Open, &[From::Both, From::MemoryOnly], |w| {
        w.cpu.preempt_off().invalidate_registers()?;
        w.cpu.fpu().scribble(6);
        Ok(())
    }),
    operation("idle", Kind::Open, &[From::Both, From::MemoryOnly], |w| {
        // The task's tile is in use; a section that comes first leaves one in use too.
        assert_eq!(w.cpu.preempt_off().fpu_idle(), Ok(true));
        Ok(())
    }),
    operation("reset", Kind::Open, &STATES, |w| {
        w.task.reset(&mut w.cpu.preempt_off())?;
        w.now_has(&Registers::initial());
        Ok(())
    }),
    operation("fork", Kind::Open, &STATES, |w| {
        let mut child = w.child.borrow_mut();
        w.task.fork_into(&mut w.cpu.preempt_off(), &mut child)?;
        let mut expect = w.mine.borrow().clone();
        expect.component_mut(3).fill(0); // a child does not inherit the tile
        let mut proof = fpu_hosted_test::sim::SimStopped::of(child.context());
        let got = child.stopped(&mut proof).expect("a child runs nowhere").image().registers();
        assert_eq!(got, expect, "what the child inherits");
        Ok(())
    }),
    operation("offline and online", Kind::Open, &[From::Both, From::MemoryOnly], |w| {
        w.cpu.preempt_off().fpu_offline()?;
        let refused = w.task.switch_return(&mut w.cpu.irqs_off()).err();
        assert_eq!(refused, Some(Error::CpuOffline), "an interrupt opened it again");
        w.cpu.fpu().lose_power();
        // SAFETY: K15, K16: the number it had, its words kept.
        unsafe { w.cpu.preempt_off().fpu_online(3) }
    }),
];

#[derive(Default, Debug)]
struct Count {
    injected: u64,
    ran: Cell<u64>,
    refused: Cell<u64>,
    held_back: u64,
}

/// The handler: a section that scribbles, told of the task it interrupted.
fn interrupt(world: &World, count: &Count, level: Level) {
    let (cpu, task, units) = (&world.cpu, Some(world.task.context()), KernelUnits::ALL);
    let code = || cpu.fpu().scribble(99);
    let section = match level {
        Level::SoftIrq => cpu.soft_interrupted().with_kernel_fpu(task, units, code),
        _ => cpu.interrupted().with_kernel_fpu(task, units, code),
    };
    match section {
        Ok(()) => count.ran.set(count.ran.get() + 1),
        Err(Error::Busy | Error::CpuOffline) => count.refused.set(count.refused.get() + 1),
        Err(why) => panic!("an unexpected refusal: {why}"),
    }
}

#[test]
fn a_section_at_every_step_of_every_operation_is_refused_or_harmless() {
    println!("{:24} level   steps injected   ran refused after", "operation");
    let levels = [Level::HardIrq, Level::SoftIrq];
    for (Operation { name, kind, from, run }, level) in
        OPERATIONS.iter().flat_map(|operation| levels.map(|level| (operation, level)))
    {
        let (mut count, mut most) = (Count::default(), 0);
        for &from in *from {
            for at in 1.. {
                let world = World::new(from);
                let what = format!("{name} from {from:?}, {level:?} at step {at}");
                let handler = || interrupt(&world, &count, level);
                let (answer, injection) =
                    world.cpu.inject(at, Interrupt::Maskable, &handler, || run(&world));
                assert_eq!(answer, Ok(()), "{what}: the operation itself must not fail");
                most = most.max(injection.steps);
                if at > injection.steps {
                    assert!(!injection.delivered, "{what}");
                    break;
                }
                assert!(injection.delivered, "{what}: it was never delivered");
                if *kind == Kind::Exclusive {
                    assert!(injection.held_back, "{what}: it came in between");
                }
                count.injected += 1;
                count.held_back += u64::from(injection.held_back);
                world.check(&what);
            }
        }
        let Count { injected, ran, refused, held_back } = &count;
        let (ran, refused) = (ran.get(), refused.get());
        println!("{name:24} {level:?} {most:5} {injected:8} {ran:5} {refused:7} {held_back:5}");
        assert_eq!(*injected, ran + refused, "{name}");
        match kind {
            Kind::Open => assert!(ran > 0 && refused > 0, "{name}: {count:?}"),
            Kind::Exclusive => assert!(ran == *injected && *held_back == ran, "{name}: {count:?}"),
        }
    }
}

#[test]
fn a_non_maskable_interrupt_at_every_step_is_refused() {
    let mut refused_in_all = 0;
    for Operation { name, from, run, .. } in OPERATIONS {
        let refused = Cell::new(0);
        for &from in from {
            for at in 1.. {
                let world = World::new(from);
                let handler = || {
                    let task = Some(world.task.context());
                    let cpu = &world.cpu;
                    let section = cpu.nmi().with_kernel_fpu(task, KernelUnits::ALL, || ());
                    assert_eq!(section, Err(Error::Nmi), "{name}");
                    assert_eq!(cpu.nmi().invalidate_registers(), Err(Error::Nmi), "{name}");
                    assert_eq!(cpu.nmi().fpu_idle(), Err(Error::Nmi), "{name}");
                    assert_eq!(cpu.nmi().fpu_offline(), Err(Error::Nmi), "{name}");
                    refused.set(refused.get() + 1);
                };
                let (answer, injection) =
                    world.cpu.inject(at, Interrupt::NonMaskable, &handler, || run(&world));
                let what = format!("{name} from {from:?}, NMI at step {at}");
                assert_eq!(answer, Ok(()), "{what}");
                if at > injection.steps {
                    break;
                }
                // Also where interrupts are off: nothing holds it back.
                assert!(injection.delivered && !injection.held_back, "{what}");
                world.check(&what);
            }
        }
        assert!(refused.get() > 0, "{name}");
        refused_in_all += refused.get();
    }
    println!("{refused_in_all} non-maskable interrupts, all refused");
}

#[test]
fn two_sections_in_a_row_at_every_step_are_refused_or_harmless() {
    let mut tried = 0;
    for Operation { name, from, run, .. } in OPERATIONS {
        for &from in from {
            for at in 1.. {
                let (world, count) = (World::new(from), Count::default());
                let handler = || {
                    interrupt(&world, &count, Level::HardIrq);
                    interrupt(&world, &count, Level::SoftIrq);
                };
                let (answer, injection) =
                    world.cpu.inject(at, Interrupt::Maskable, &handler, || run(&world));
                assert_eq!(answer, Ok(()), "{name}");
                if at > injection.steps {
                    break;
                }
                let (ran, refused) = (count.ran.get(), count.refused.get());
                assert!((ran, refused) == (2, 0) || (ran, refused) == (0, 2), "{name} at {at}");
                world.check(&format!("{name} from {from:?}, two interrupts at step {at}"));
                tried += 1;
            }
        }
    }
    println!("{tried} times two interrupts");
    assert!(tried > 0);
}

/// The handler of a kernel without user mode: its last step is `switch_in` of the task that it interrupted. Where it has
/// struck inside a call that has shut the gate, a load is refused, and so is a section.
#[test]
fn a_handler_may_load_the_task_again_at_every_step() {
    const LIVE: [&str; 3] = ["invalidate_registers", "idle", "offline and online"];
    let (mut loaded, mut refused) = (0, 0);
    // Those that want a task that was switched out are not called while one is loaded.
    let operations = OPERATIONS.iter().filter(|operation| !LIVE.contains(&operation.name));
    for Operation { name, from, run, .. } in operations {
        for (&from, section) in from.iter().flat_map(|from| [(from, false), (from, true)]) {
            for at in 1.. {
                let (world, count) = (World::new(from), Count::default());
                let handler = || {
                    if section {
                        interrupt(&world, &count, Level::HardIrq);
                    }
                    match world.task.switch_in(&mut world.cpu.interrupted()) {
                        Ok(()) => loaded += 1,
                        Err(why) => {
                            assert_eq!((why, count.ran.get()), (Error::Busy, 0), "{name} at {at}");
                            refused += 1;
                        }
                    }
                };
                let handler = core::cell::RefCell::new(handler);
                let (answer, injection) =
                    world.cpu.inject(at, Interrupt::Maskable, &|| (handler.borrow_mut())(), || {
                        run(&world)
                    });
                assert_eq!(answer, Ok(()), "{name} from {from:?}, at step {at}");
                world.check(&format!("{name} from {from:?}, a handler that loads at step {at}"));
                if at > injection.steps {
                    break;
                }
            }
        }
    }
    println!("{loaded} times the task was loaded or live, {refused} refused");
    assert!(loaded > 0 && refused > 0);
}
