//! Delivery and return, from every state that a task can be in, with a copy that fails at every byte: all or nothing.

#[path = "deliver_nested.rs"]
mod nested;
#[path = "deliver_wrong.rs"]
mod wrong;

use std::{boxed::Box, format, println, string::String, vec, vec::Vec};

use super::*;
use crate::{
    fields::{set, u64_at, MXCSR, XMM, XSTATE_BV},
    image::{write_initial, Image, ImageMut},
    plan::Plan,
    regset::tests::{random_area, some},
    save_instruction::Format,
    tests::{
        sample::{self, Random},
        simulated::{supervisor, Cpu, Soft, Task, Vector},
        words,
    },
};
use fpu_core::{session::ReadSession, SwitchSteps};

/// Where the task's state is when the kernel opens it on CPU 0.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// In the registers of CPU 0 only; memory is stale.
    Registers,
    Both,
    /// In memory; the registers of CPU 0 are another task's.
    Memory,
    /// In memory; the registers of CPU 1 still claim it.
    Moved,
}
const PLACES: [Place; 4] = [Place::Registers, Place::Both, Place::Memory, Place::Moved];

/// What kernel it is: how it opens a task's state, and enters user mode.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kernel {
    SoftFloat,
    /// Compiled with vector instructions, in whose entry nothing is saved: the steps of a save, where one is due.
    Vector,
    /// The same by a switch to no task, after which its own code changes the registers.
    Switching,
}
const KERNELS: [Kernel; 3] = [Kernel::SoftFloat, Kernel::Vector, Kernel::Switching];

struct World<'p> {
    plan: &'p Plan,
    kernel: Kernel,
    cpus: Vec<Cpu>,
    task: Box<Task>,
    other: Box<Task>,
    /// User memory, where the frame's FPU part lies.
    user: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan, kernel: Kernel) -> Self {
        let cpus = Cpu::some(plan, 2);
        let (task, other) = (Box::new(cpus[0].task()), Box::new(cpus[0].task()));
        let (user, buffer) = (vec![0; 16384 + FRONT], vec![0xEE; 16384 + FRONT]);
        Self { plan, kernel, cpus, task, other, user, buffer }
    }
    fn enter(&self, cpu: usize, task: &Task) -> Vec<u8> {
        match self.kernel {
            Kernel::SoftFloat => self.cpus[cpu].enter(task),
            _ => self.cpus[cpu].enter_by_steps(task),
        }
    }
    /// The task leaves that CPU, saved.
    fn leave(&self, cpu: usize) {
        self.task.switch_prepare(&Soft(&self.cpus[cpu])).unwrap();
    }
    /// The task gets these registers, and is in that place.
    fn place(&self, place: Place, registers: &[u8]) {
        let at = usize::from(place == Place::Moved);
        self.enter(at, &self.task);
        self.cpus[at].load(registers);
        if place != Place::Registers {
            self.leave(at);
        }
        if place == Place::Memory {
            self.enter(at, &self.other);
        }
    }
    /// Brings a task that was opened on CPU 0 to CPU 1.
    fn move_on(&self) {
        self.leave(0);
    }
    /// Opens its state, as that kernel does.
    fn with<R>(&self, cpu: usize, run: impl FnOnce(Opener<'_>) -> R) -> R {
        let here = &self.cpus[cpu];
        match self.kernel {
            Kernel::SoftFloat => {
                let mut pin = Soft(here);
                run(Opener::Soft(self.task.open(&mut pin).unwrap().make_memory_valid_read()))
            }
            Kernel::Vector => {
                let mut pin = Vector(here);
                if let Some(pending) = self.task.begin_switch_out(&mut pin).unwrap() {
                    // SAFETY: `pending` is alive. C15: executed just now.
                    unsafe {
                        here.save_by(pending.steps());
                        pending.saved();
                    }
                }
                run(Opener::Vector(self.task.open_saved(&mut pin).unwrap()))
            }
            Kernel::Switching => {
                let mut pin = Vector(here);
                let steps = SwitchSteps::begin(&mut pin, Some(self.task.context()), None).unwrap();
                // SAFETY: C39: executed at once. C40: simulated registers.
                unsafe { here.leave_by(&steps) };
                if !steps.save_to.is_null() {
                    let mut scrambled = here.registers();
                    scrambled[..24].fill(0x55);
                    here.load(&scrambled);
                }
                run(Opener::Vector(self.task.open_saved(&mut pin).unwrap()))
            }
        }
    }
}

/// A session of either kind of kernel.
enum Opener<'s> {
    Soft(ReadSession<'s, Soft<'s>>),
    Vector(ReadSession<'s, Vector<'s>>),
}

/// The kernel's copies. An error is the byte that cannot be copied.
type ToUser<'c> = &'c mut dyn FnMut(&[u8]) -> Result<(), usize>;
type FromUser<'c> = &'c mut dyn FnMut(usize, &mut [u8]) -> Result<(), usize>;

/// What is tried: the calls, or a wrong kernel's. `Err` is a fault of the copy or a refusal.
trait Calls {
    fn deliver(
        &self,
        world: &World<'_>,
        cpu: usize,
        narrow: bool,
        pkru: Option<u32>,
        buffer: &mut [u8],
        copy: ToUser<'_>,
    ) -> Result<usize, DeliverError<usize>> {
        let format = world.plan.user_format();
        world.with(cpu, |opened| match (opened, narrow) {
            (Opener::Soft(it), false) => format.deliver(it, pkru, buffer, copy),
            (Opener::Vector(it), false) => format.deliver(it, pkru, buffer, copy),
            (Opener::Soft(it), true) => format.deliver_32(it, SELECTORS, pkru, buffer, copy),
            (Opener::Vector(it), true) => format.deliver_32(it, SELECTORS, pkru, buffer, copy),
        })
    }
    fn sigreturn(
        &self,
        world: &World<'_>,
        cpu: usize,
        narrow: bool,
        buffer: &mut [u8],
        copy: FromUser<'_>,
    ) -> Result<Returned, SigreturnError<usize>> {
        let format = world.plan.user_format();
        world.with(cpu, |opened| match (opened, narrow) {
            (Opener::Soft(it), false) => format.sigreturn(it, buffer, copy),
            (Opener::Vector(it), false) => format.sigreturn(it, buffer, copy),
            (Opener::Soft(it), true) => format.sigreturn_32(it, buffer, copy),
            (Opener::Vector(it), true) => format.sigreturn_32(it, buffer, copy),
        })
    }
}

struct Right;
impl Calls for Right {}

const SELECTORS: Selectors = Selectors { instruction: 0x33, operand: 0x2B };

/// The user components of two register files, and the supervisor ones, or what differs.
fn compare(plan: &Plan, got: &[u8], expected: &[u8], what: &str) -> Result<(), String> {
    let (one, other) = (Image::new(got, plan), Image::new(expected, plan));
    let user = |image: &Image<'_>| {
        let mut bytes = vec![0; plan.user_format().xstate_len()];
        let written = plan.user_format().write_xstate(image, None, &mut bytes);
        // Present with the initial value or absent.
        bytes[XSTATE_BV..576].fill(0);
        (written, bytes, image.x87())
    };
    if user(&one) != user(&other) || supervisor(got, plan) != supervisor(expected, plan) {
        return Err(format!("{what}: not the registers that are expected"));
    }
    Ok(())
}

/// Initial, but for supervisor components.
fn handlers(plan: &Plan, registers: &[u8]) -> Vec<u8> {
    let mut initial = registers.to_vec();
    if plan.format() == Format::Legacy {
        initial.fill(0);
        write_initial(&mut initial, plan);
        return initial;
    }
    let kept = u64_at(registers, XSTATE_BV) & Components::SUPERVISOR.bits();
    set(&mut initial, XSTATE_BV, kept.to_le_bytes());
    set(&mut initial, MXCSR, 0x1F80u32.to_le_bytes());
    initial
}

/// Any user registers, and supervisor ones that the plan has.
fn registers(plan: &Plan, random: &mut Random) -> Vec<u8> {
    let supervisor = plan.components() & Components::SUPERVISOR;
    random_area(plan, some(plan, random) | supervisor, random)
}

/// The retry, on the CPU of the first try or on another.
const NEXT: [usize; 2] = [0, 1];

/// One delivery whose first copy fails at byte `at`, and then succeeds on CPU `next`.
fn delivery(
    calls: &impl Calls,
    world: &mut World<'_>,
    (place, narrow, at, next): (Place, bool, usize, usize),
    random: &mut Random,
) -> Result<(), String> {
    let (plan, format) = (world.plan, world.plan.user_format());
    let what = format!("{place:?}, {:?}, 32 bits: {narrow}, at {at}, then {next}", world.kernel);
    let before = registers(plan, random);
    let has = format.components().contains(Components::PKRU);
    let pkru = has.then(|| random.word() as u32);
    world.place(place, &before);
    let memory = world.cpus[0].memory(&world.task);
    assert_eq!(memory.is_none(), place == Place::Registers, "{what}");

    let (mut user, mut buffer) = (vec![0; world.user.len()], vec![0xEE; world.buffer.len()]);
    let failed = calls.deliver(world, 0, narrow, pkru, &mut buffer, &mut |part| {
        let at = at.min(part.len());
        user[..at].copy_from_slice(&part[..at]);
        Err(at)
    });
    let len = if narrow { format.frame_len_32() } else { format.frame_len() };
    if failed != Err(DeliverError::FaultIn(at.min(len))) {
        return Err(format!("{what}: {failed:?}"));
    }
    // Memory is as before, or holds what the registers held.
    let after = world.cpus[0].memory(&world.task).ok_or_else(|| format!("{what}: not saved"))?;
    if after != memory.unwrap_or_else(|| before.clone()) {
        return Err(format!("{what}: the image has changed"));
    }
    if next == 1 {
        world.move_on();
    } else {
        // The kernel does as if there had been no signal, meanwhile: the registers are there.
        compare(plan, &world.enter(0, &world.task), &before, &what)?;
    }

    let delivered = calls.deliver(world, next, narrow, pkru, &mut buffer, &mut |part| {
        user[..part.len()].copy_from_slice(part);
        Ok(())
    });
    if delivered != Ok(len) {
        return Err(format!("{what}: then {delivered:?}"));
    }
    if buffer[len..].iter().any(|byte| *byte != 0xEE) {
        return Err(format!("{what}: bytes behind the frame were written"));
    }
    // The frame is what the registers were.
    let (mut expected, image) = (vec![0; len], Image::new(&before, plan));
    let written = match narrow {
        true => format.write_frame_32(&image, SELECTORS, pkru, &mut expected),
        false => format.write_frame(&image, pkru, &mut expected),
    };
    if written != Ok(len) || user[..len] != expected {
        return Err(format!("{what}: the frame is not that of the registers"));
    }
    // And the handler's are initial, wherever it runs.
    let start = handlers(plan, &before);
    compare(plan, &world.enter(next, &world.task), &start, &what)?;

    // The handler returns, with other registers, from there.
    world.user[..len].copy_from_slice(&user[..len]);
    Ok(())
}

/// One return whose copy fails at byte `at`, and then succeeds on CPU `next`; the frame lies in user memory.
fn returning(
    calls: &impl Calls,
    world: &mut World<'_>,
    (place, narrow, at, next): (Place, bool, usize, usize),
    random: &mut Random,
) -> Result<(), String> {
    let (plan, format) = (world.plan, world.plan.user_format());
    let what = format!("{place:?}, {:?}, 32 bits: {narrow}, at {at}, then {next}", world.kernel);
    let mut frame = world.user.clone();
    let mut private = frame.clone();
    let read = match narrow {
        true => format.read_frame_32(&mut private),
        false => format.read_frame(&mut private),
    };
    let read = read.map_err(|why| format!("{what}: {why}"))?;
    let expected = Returned { kind: read.kind(), pkru: read.pkru(), beyond: Components::empty() };
    let handler = registers(plan, random);
    let mut interrupted = handler.clone();
    ImageMut::new(&mut interrupted, plan).replace_with(read.valid()).unwrap();

    world.place(place, &handler);
    let memory = world.cpus[0].memory(&world.task);
    let mut buffer = vec![0xEE; world.buffer.len()];
    let first = 512 + if narrow { FRONT } else { 0 };
    let whole = {
        let legacy = frame[first - 512..first].try_into().unwrap();
        first - 512 + format.frame_bytes(&legacy, buffer.len())
    };
    let at = at.min(whole - 1);
    let (mut fetched, mut twice) = (0, false);
    let failed = calls.sigreturn(world, 0, narrow, &mut buffer, &mut |from, bytes| {
        twice |= from != fetched;
        fetched += bytes.len();
        let there = at.clamp(from, from + bytes.len());
        bytes[..there - from].copy_from_slice(&frame[from..there]);
        if there < from + bytes.len() {
            Err(there)
        } else {
            Ok(())
        }
    });
    if twice || failed != Err(SigreturnError::FaultIn(at)) {
        return Err(format!("{what}: {failed:?}, a byte twice or none: {twice}"));
    }
    let after = world.cpus[0].memory(&world.task).ok_or_else(|| format!("{what}: not saved"))?;
    if after != memory.unwrap_or_else(|| handler.clone()) {
        return Err(format!("{what}: the image has changed"));
    }
    // A frame that is refused changes nothing either.
    let wrong = first - 512 + MXCSR + 3;
    frame[wrong] ^= 0x80;
    let refused = calls.sigreturn(world, 0, narrow, &mut buffer, &mut |from, bytes| {
        bytes.copy_from_slice(&frame[from..from + bytes.len()]);
        Ok(())
    });
    frame[wrong] ^= 0x80;
    if !matches!(refused, Err(SigreturnError::Refused(_))) {
        return Err(format!("{what}: {refused:?}"));
    }
    if Some(after) != world.cpus[0].memory(&world.task) {
        return Err(format!("{what}: the image has changed by a refused frame"));
    }
    if next == 1 {
        world.move_on();
    } else {
        compare(plan, &world.enter(0, &world.task), &handler, &what)?;
    }
    let returned = calls.sigreturn(world, next, narrow, &mut buffer, &mut |from, bytes| {
        bytes.copy_from_slice(&frame[from..from + bytes.len()]);
        Ok(())
    });
    if returned != Ok(expected) {
        return Err(format!("{what}: {returned:?}"));
    }
    compare(plan, &world.enter(next, &world.task), &interrupted, &what)
}

/// Every kind of plan: with supervisor state, and in each format.
fn plans() -> Vec<Plan> {
    let mut plans = sample::plans();
    plans.push(sample::kernel());
    plans
}

/// Bytes at which a copy fails: one of those that matter, and any. Every one has a test of its own.
fn bytes(plan: &Plan, narrow: bool, random: &mut Random) -> [usize; 2] {
    let format = plan.user_format();
    let len = if narrow { format.frame_len_32() } else { format.frame_len() };
    let front = if narrow { FRONT } else { 0 };
    let ends = [0, 1, front, front + 24, front + 511, front + 512, front + 576, len - 4, len - 1];
    let end = ends[random.below(ends.len() as u64) as usize];
    [end.min(len - 1), random.below(len as u64) as usize]
}

/// Delivery and return in each world, with these calls; how many, or the first that is wrong.
fn every_way(calls: &impl Calls, plan: &Plan, random: &mut Random) -> Result<usize, String> {
    let mut done = 0;
    for kernel in KERNELS {
        for place in PLACES {
            for narrow in [false, true] {
                for at in bytes(plan, narrow, random) {
                    for next in NEXT {
                        let mut world = World::new(plan, kernel);
                        delivery(calls, &mut world, (place, narrow, at, next), random)?;
                        let mut again = World::new(plan, kernel);
                        again.user = world.user;
                        returning(calls, &mut again, (place, narrow, at, next), random)?;
                        done += 1;
                    }
                }
            }
        }
    }
    Ok(done)
}

#[test]
fn all_or_nothing_from_every_state() {
    let mut random = Random(41);
    let mut done = 0;
    for plan in plans() {
        done += every_way(&Right, &plan, &mut random).unwrap_or_else(|why| panic!("{why}"));
    }
    println!("{done} deliveries and returns, each with a copy that fails and one that does not");
    assert!(done > 900);
}

#[test]
fn the_copy_fails_at_every_byte() {
    let plan = sample::plan(Components::LEGACY | Components::AVX);
    let mut random = Random(42);
    let mut done = 0;
    for narrow in [false, true] {
        let front = if narrow { FRONT } else { 0 };
        for at in 0..front + plan.user_format().frame_len() {
            let place = PLACES[at % PLACES.len()];
            let (kernel, next) = (KERNELS[at % KERNELS.len()], at / 2 % 2);
            let mut world = World::new(&plan, kernel);
            delivery(&Right, &mut world, (place, narrow, at, next), &mut random).unwrap();
            let mut again = World::new(&plan, kernel);
            again.user = world.user;
            returning(&Right, &mut again, (place, narrow, at, next), &mut random).unwrap();
            done += 1;
        }
    }
    println!("{done} bytes");
}

/// Tiles need a permission, in a frame and out of it; without one nothing happens to the task that has them all the same.
#[test]
fn tiles_are_delivered_and_returned_with_permission_only() {
    let plan = words::tiles().plan().unwrap();
    let without = plan.user_format().without_pkru();
    // SAFETY: C24: no register is restored but simulated ones.
    let with = unsafe { without.with_tiles() };
    let mut before = random_area(&plan, Components::LEGACY | Components::AMX, &mut Random(44));
    let (config, len) = plan.place(Components::TILECFG).unwrap();
    before[config..config + len].fill(0);
    (before[config], before[config + 16], before[config + 48]) = (1, 64, 16);
    for place in PLACES {
        let world = World::new(&plan, Kernel::SoftFloat);
        world.place(place, &before);
        let (mut user, mut buffer) = (Vec::new(), vec![0; 16384]);
        let mut deliver = |format: UserFormat<'_>| {
            world.with(0, |opened| match opened {
                Opener::Soft(it) => format.deliver(it, None, &mut buffer, |part| {
                    user = part.to_vec();
                    Ok::<(), ()>(())
                }),
                Opener::Vector(_) => unreachable!("it is a soft-float kernel"),
            })
        };
        let tiles = ImageError::NotManaged { component: Components::TILEDATA };
        assert_eq!(deliver(without), Err(DeliverError::Image(tiles)));
        compare(&plan, &world.enter(0, &world.task), &before, "no permission").unwrap();
        assert_eq!(deliver(with), Ok(with.frame_len()));
        let start = world.enter(0, &world.task);
        compare(&plan, &start, &handlers(&plan, &before), "the handler").unwrap();

        let mut sigreturn = |format: UserFormat<'_>| {
            world.with(0, |opened| match opened {
                Opener::Soft(it) => format.sigreturn(it, &mut buffer, |at, bytes| {
                    bytes.copy_from_slice(&user[at..at + bytes.len()]);
                    Ok::<(), ()>(())
                }),
                Opener::Vector(_) => unreachable!("it is a soft-float kernel"),
            })
        };
        let bits = Components::TILEDATA.bits();
        let refused = SigreturnError::Refused(ForeignError::NotPermitted { bits });
        assert_eq!(sigreturn(without), Err(refused));
        compare(&plan, &world.enter(0, &world.task), &start, "refused").unwrap();
        assert!(sigreturn(with).is_ok());
        compare(&plan, &world.enter(0, &world.task), &before, "returned").unwrap();
    }
}
