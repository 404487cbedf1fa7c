//! What is refused of state on demand, one case for each way: every number in a request for permission, every value of
//! IA32_XFD_ERR, every length and every misalignment of an area, for the plans of recorded CPUs. Nothing has changed after
//! any of them.

use core::ptr::NonNull;
use std::{boxed::Box, format, string::String, vec::Vec};

use fpu_core::{
    grow::ReplaceRefusal, Area, AreaError, CpuFpu, CpuLifecycle, RawArea, SaveArea, TaskFpu,
    TheBackend,
};

use super::{tests::Cpu, *};
use crate::tests::corpus;

const TILES: Components = Components::TILEDATA;

/// A plan of each kind that there is, with tiles on demand or without.
fn dynamic() -> Vec<(String, DynamicPlan<Cpu>)> {
    let plans = corpus::plans().into_iter();
    plans.map(|(name, plan)| (name, DynamicPlan::new(plan, Cpu::new()).unwrap())).collect()
}

/// All numbers up to 4096, each bit of 64 alone and beside the one that may be asked for, and the last ones.
fn numbers() -> impl Iterator<Item = u64> {
    let bits = (0..64).flat_map(|bit| [1 << bit, 18 | 1 << bit, !(1 << bit)]);
    (0..=4096).chain(bits).chain(u64::MAX - 64..=u64::MAX)
}

/// Every number: granted is what comes on demand, and nothing else; a refusal asks about no stack and changes neither set.
#[test]
fn every_number_is_granted_or_refused_by_name() {
    let (mut granted, mut refused) = (0, 0);
    for (name, plan) in dynamic() {
        for number in numbers() {
            for whose in [Whose::Host, Whose::Guest] {
                let process = Permissions::new();
                let (mut asked, on_demand) = (false, plan.on_demand() == TILES);
                let stacks = |_| {
                    asked = true;
                    true
                };
                let done = process.request(&plan, number, whose, stacks);
                let sets = [process.of(Whose::Host), process.of(Whose::Guest)];
                let expected = match number {
                    18 if on_demand => Ok(()),
                    0..=18 => Err(PermissionError::NotOnDemand { number }),
                    _ => Err(PermissionError::Unknown { number }),
                };
                assert_eq!(done, expected, "{name}: {number:#x}");
                let index = usize::from(whose == Whose::Guest);
                if done.is_err() {
                    assert!(sets == [Components::empty(); 2] && !asked, "{name}: {number:#x}");
                    refused += 1;
                } else {
                    assert_eq!((sets[index], sets[1 - index]), (TILES, Components::empty()));
                    assert_eq!(asked, whose == Whose::Host);
                    granted += 1;
                }
            }
        }
    }
    assert!(granted >= 6 && refused > 100_000, "{granted} granted, {refused} refused");
}

/// IA32_XFD_ERR with no bit, each bit, each pair, all named sets, and all at once; in user mode and in the kernel; for each
/// room and none; with each permission. The answer is that of the table in words, and the permissions are what they were.
#[test]
fn every_error_has_one_answer() {
    let bits = || 0..64u32;
    let mut errors: Vec<u64> = bits().flat_map(|a| bits().map(move |b| 1 << a | 1 << b)).collect();
    errors.extend([0, u64::MAX, !TILES.bits()]);
    let named = Components::all().bits();
    errors.extend((0..1 << 20).filter(|set| set & !named == 0 && set % 7 == 0));
    let (mut grows, mut total) = (0, 0);
    let plans = dynamic().into_iter().filter(|(_, plan)| plan.on_demand() == TILES);
    let plain = dynamic().into_iter().find(|(_, plan)| plan.on_demand().is_empty());
    for (name, plan) in plans.chain(plain).take(4) {
        let on_demand = plan.on_demand();
        for may in [None, Some(Whose::Guest), Some(Whose::Host)] {
            let process = Permissions::new();
            if let Some(whose) = may {
                let asked = process.request(&plan, 18, whose, |_| true);
                assert_eq!(asked.is_ok(), on_demand == TILES);
            }
            let sets = || [process.of(Whose::Host), process.of(Whose::Guest)];
            let before = sets();
            for error in errors.iter().map(|bits| Components::from_bits_retain(*bits)) {
                for user in [true, false] {
                    for room in [None, Some(Room::Base), Some(Room::Full)] {
                        let unknown = error.difference(on_demand);
                        let expected = if error.is_empty() {
                            Ok(FirstUse::NotOurs)
                        } else if !unknown.is_empty() {
                            Err(FirstUseError::Unknown { components: unknown })
                        } else if !user {
                            Err(FirstUseError::InKernel)
                        } else {
                            match room {
                                None => Err(FirstUseError::NoContext),
                                Some(Room::Full) => Err(FirstUseError::HasRoom),
                                Some(Room::Base) if may != Some(Whose::Host) => Ok(FirstUse::Kill),
                                Some(Room::Base) => {
                                    let room = Room::Full;
                                    Ok(FirstUse::Grow { room, len: plan.area_len_of(room) })
                                }
                            }
                        };
                        let answer = plan.first_use(error, user, room, &process);
                        assert_eq!(answer, expected, "{name}: {error:?} {user} {room:?}");
                        grows += u32::from(matches!(answer, Ok(FirstUse::Grow { .. })));
                        total += 1;
                    }
                }
            }
            assert_eq!(sets(), before, "{name}");
        }
    }
    // One for each plan that has tiles on demand, and each time that the error has their bit alone.
    assert!(grows >= 3 && total > 100_000, "{grows} of {total}");
}

/// A CPU on which no instruction is executed.
struct Kernel<'k>(&'k TheBackend<DynamicPlan<Cpu>>, &'k CpuFpu);
fpu_core::witness! {
    // SAFETY: K2 to K8: one thread and its words. K9: contexts are in memory only.
    unsafe impl Pinned + Exclusive + SoftFloat for Kernel<'_> {
        backend: DynamicPlan<Cpu> = |kernel| kernel.0,
        words: CpuFpu = |kernel| kernel.1,
    }
}

const MEMORY: usize = 16384;

/// Memory that is longer than any area, of such bytes, for the rest of the program.
fn memory(byte: u8) -> NonNull<u8> {
    let base = Box::leak(Box::new(Area::<MEMORY>::new())).base();
    // SAFETY: just made.
    unsafe { base.as_ptr().write_bytes(byte, MEMORY) };
    base
}
fn part(memory: NonNull<u8>, offset: usize, len: usize) -> RawArea {
    assert!(offset + len <= MEMORY);
    let base = NonNull::new(memory.as_ptr().wrapping_add(offset)).unwrap();
    // SAFETY: K19: leaked; the test gives these bytes to one value at a time, and reads them while no call runs.
    unsafe { RawArea::new(base, len) }
}
fn bytes(memory: NonNull<u8>) -> Vec<u8> {
    // SAFETY: leaked and initialised, and no call runs.
    unsafe { core::slice::from_raw_parts(memory.as_ptr(), MEMORY) }.to_vec()
}

/// Every length below that of the room and every misalignment, of every recorded plan of a kernel with tiles on demand: the
/// context has the area that it had, with the same bytes, and the refused memory is not written.
#[test]
fn every_area_that_does_not_fit_is_refused() {
    let mut refused = 0;
    for (name, plan) in dynamic().into_iter().filter(|(_, plan)| plan.on_demand() == TILES) {
        let (base, full) = (plan.area_len(), plan.area_len_of(Room::Full));
        // SAFETY: K1: the one of this kernel.
        let plan = unsafe { TheBackend::new(plan) };
        let words = CpuFpu::new();
        let mut cpu = Kernel(&plan, &words);
        // SAFETY: K15, K16: the only CPU, its words new.
        unsafe { cpu.fpu_online(0) }.unwrap();
        let (own, other) = (memory(0x5A), memory(0xA5));
        let mut task = TaskFpu::new(&plan, part(own, 0, base)).unwrap();
        let held = bytes(own);
        let word = format!("{task:?}");
        for (room, need) in [(Room::Base, base), (Room::Full, full)] {
            let short = (0..need).map(|have| (0, have, AreaError::TooSmall { need, have }));
            let wrong = (1..64).map(|offset| (offset, need, AreaError::Misaligned { need: 64 }));
            for (offset, len, why) in short.chain(wrong) {
                let done = task.replace_area(&mut cpu, part(other, offset, len), room);
                let got = done.map(|_| ()).map_err(|refused| refused.why);
                assert_eq!(got, Err(ReplaceRefusal::Area(why)), "{name}");
                refused += 1;
            }
        }
        assert!(bytes(own) == held && format!("{task:?}") == word, "{name}");
        assert!(bytes(other).iter().all(|byte| *byte == 0xA5), "{name}: written");
        // One byte more, and it fits.
        let old = task.replace_area(&mut cpu, part(other, 0, full), Room::Full).unwrap();
        assert_eq!((old.len(), task.room(&cpu)), (base, Room::Full), "{name}");
        assert!(bytes(other)[full..].iter().all(|byte| *byte == 0xA5), "{name}: behind its end");
    }
    assert!(refused > 10_000, "{refused}");
}
