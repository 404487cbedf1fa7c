//! Growth that is refused, one case for each way: every length that is too short and every misalignment, from each state of
//! a context, and a first use where no task can have one. The area that the context has is the same byte by byte, the
//! claims and the registers too, and the task goes on.

use core::ptr::NonNull;
use fpu_core::{
    grow::{ReplaceError, ReplaceRefusal},
    Area, AreaError, CpuLifecycle, Error, KernelFpu, KernelUnits, Level, RawArea, TaskFpu,
};
use fpu_hosted_test::sim::{
    Registers, Room, XfdCpu, XfdFpu, XfdPin, AREA_ALIGN, AREA_LEN, BASE_LEN,
};

type Task = TaskFpu<XfdFpu, RawArea>;
/// Larger than any area, and aligned.
type Memory = Area<1024>;

const TILES: u64 = 1 << 3;
const BASE: u64 = TILES - 1;

fn memory() -> NonNull<u8> {
    use fpu_core::SaveArea as _;
    Box::leak(Box::new(Memory::new())).base()
}
fn part(memory: NonNull<u8>, offset: usize, len: usize) -> RawArea {
    assert!(offset + len <= 1024);
    let base = NonNull::new(memory.as_ptr().wrapping_add(offset)).expect("not null");
    // SAFETY: K19: leaked; the tests give these bytes to one value at a time, and read them while no call runs.
    unsafe { RawArea::new(base, len) }
}
fn bytes(memory: NonNull<u8>) -> Vec<u8> {
    // SAFETY: leaked and initialised, and no call runs.
    unsafe { core::slice::from_raw_parts(memory.as_ptr(), 1024) }.to_vec()
}

/// Where the state is before the call.
#[derive(Clone, Copy, Debug)]
enum From {
    Registers,
    Both,
    Memory,
    Elsewhere,
}
const FROM: [From; 4] = [From::Registers, From::Both, From::Memory, From::Elsewhere];

struct World {
    cpus: [XfdCpu; 2],
    task: Task,
    /// The task's area.
    own: NonNull<u8>,
    registers: Registers,
    /// The CPU on which the task runs next.
    next: usize,
}

impl World {
    fn new(from: From) -> Self {
        let mut cpus = [XfdCpu::online(0), XfdCpu::online(1)];
        let own = memory();
        let backend = cpus[0].fpu().the_backend();
        let task = TaskFpu::new(backend, part(own, 0, BASE_LEN)).expect("the area fits");
        drop(task.switch_return(&mut cpus[0]).expect("loads"));
        let registers = Registers::pattern(7, BASE);
        cpus[0].fpu().registers().load(&registers);
        match from {
            From::Registers => {}
            From::Both => task.switch_prepare(&cpus[0]).expect("current"),
            From::Memory => {
                task.switch_prepare(&cpus[0]).expect("current");
                cpus[0].invalidate_registers().expect("online");
            }
            From::Elsewhere => task.switch_prepare(&cpus[0]).expect("current"),
        }
        let next = usize::from(matches!(from, From::Elsewhere));
        Self { cpus, task, own, registers, next }
    }
    /// All that a refusal must leave.
    fn all(&self) -> (Vec<u8>, String, [Registers; 2], [u64; 2]) {
        let xfd = [0, 1].map(|cpu| self.cpus[cpu].fpu().xfd());
        let registers = [0, 1].map(|cpu: usize| self.cpus[cpu].registers());
        (bytes(self.own), format!("{:?}", self.task), registers, xfd)
    }
    /// The task runs, and after a growth it uses tiles.
    fn goes_on(mut self) {
        let cpu = &mut self.cpus[self.next];
        drop(self.task.switch_return(cpu).expect("loads"));
        assert_eq!(cpu.registers(), self.registers);
        assert_eq!((cpu.use_tile0(1), cpu.fpu().take_xfd_err()), (Err(TILES), TILES));
        let new = part(memory(), 0, AREA_LEN);
        let _old = self.task.replace_area(cpu, new, Room::Full).expect("it fits");
        drop(self.task.switch_return(cpu).expect("loads"));
        assert_eq!((cpu.registers(), cpu.use_tile0(1)), (self.registers, Ok(())));
    }
}

/// Every length below that of the room, and every offset from the alignment, for both rooms and from each state.
#[test]
fn an_area_too_short_or_misaligned_leaves_the_old_one_as_it_is() {
    let mut refused = 0;
    for from in FROM {
        let mut world = World::new(from);
        let (before, other) = (world.all(), memory());
        // SAFETY: leaked, and no call runs.
        unsafe { other.as_ptr().write_bytes(0xA5, 1024) };
        for (room, need) in [(Room::Base, BASE_LEN), (Room::Full, AREA_LEN)] {
            let short =
                (0..need).map(|have| (part(other, 0, have), AreaError::TooSmall { need, have }));
            let wrong = (1..AREA_ALIGN).map(|offset| {
                (part(other, offset, need), AreaError::Misaligned { need: AREA_ALIGN })
            });
            for (area, expected) in short.chain(wrong) {
                let cpu = &mut world.cpus[world.next];
                let done = world.task.replace_area(cpu, area, room);
                let ReplaceError { why, .. } = done.unwrap_err();
                assert_eq!(why, ReplaceRefusal::Area(expected), "{from:?} {room:?}");
                assert_eq!(world.all(), before, "{from:?} {room:?} {expected:?}");
                refused += 1;
            }
        }
        assert!(bytes(other).iter().all(|byte| *byte == 0xA5), "the refused area was written");
        world.goes_on();
    }
    assert_eq!(refused, 4 * (BASE_LEN + AREA_LEN + 2 * (AREA_ALIGN - 1)));
}

/// Kernel code uses tiles where no task can: in a section of a task, in a section of an interrupt, in a kernel thread. The
/// CPU says #NM; a growth there is refused, and nothing has changed when the section has ended.
#[test]
fn a_first_use_in_the_kernel_changes_nothing() {
    for level in [Level::Task, Level::SoftIrq, Level::HardIrq] {
        for units in [KernelUnits::NONE, KernelUnits::ALL] {
            for named in [true, false] {
                let mut world = World::new(From::Both);
                let cpu = &world.cpus[0];
                let (area, word, _, xfd) = world.all();
                let mut pin = XfdPin(cpu, level);
                // The section ends its borrow of the context before it begins.
                let named = named.then(|| world.task.context());
                let section = pin.kernel_fpu(named, units).expect("open");
                assert_eq!((cpu.use_tile0(5), cpu.fpu().take_xfd_err()), (Err(TILES), TILES));
                for handler in [level, Level::Nmi] {
                    let new = part(memory(), 0, AREA_LEN);
                    let mut pin = XfdPin(cpu, handler);
                    let done = world.task.replace_area(&mut pin, new, Room::Full);
                    let expected = if handler == Level::Nmi { Error::Nmi } else { Error::Busy };
                    let why = done.unwrap_err().why;
                    assert_eq!(why, ReplaceRefusal::Refused(expected), "{level:?} {handler:?}");
                }
                drop(section);
                let after = world.all();
                assert_eq!((after.0, after.1, after.3), (area, word, xfd), "{level:?} {units:?}");
                world.goes_on();
            }
        }
    }
    // A kernel thread: the task was switched out, and what it had enabled is what the thread has.
    let world = World::new(From::Both);
    let before = world.all();
    assert_eq!(
        (world.cpus[0].use_tile0(5), world.cpus[0].fpu().take_xfd_err()),
        (Err(TILES), TILES)
    );
    assert_eq!(world.all(), before);
    world.goes_on();
}

/// Every CPU that may not touch the context, and a CPU that is offline: for both rooms.
#[test]
fn a_growth_by_another_cpu_is_refused_while_registers_are_the_only_copy() {
    for room in [Room::Base, Room::Full] {
        for offline in [false, true] {
            let mut world = World::new(From::Registers);
            if offline {
                world.cpus[1].fpu_offline().expect("no guard is open");
            }
            let before = world.all();
            let new = part(memory(), 0, AREA_LEN);
            let done = world.task.replace_area(&mut world.cpus[1], new, room);
            let why = if offline { Error::CpuOffline } else { Error::LiveElsewhere { cpu: 0 } };
            assert_eq!(done.unwrap_err().why, ReplaceRefusal::Refused(why));
            assert_eq!(world.all(), before, "{room:?}");
            world.goes_on();
        }
    }
}
