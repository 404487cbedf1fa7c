//! State on demand on this CPU's registers. Components that every program may use play the part of AMX's tiles, so that
//! saves and restores by room are tried on any CPU with AVX; tiles themselves where there are any. IA32_XFD is the system's.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{arch::asm, cell::Cell, ffi::c_void, ptr::addr_of_mut};
use fpu_core::{
    grow::{GrowFpu, NoRoom},
    observe::Counters,
    Area, CpuFpu, CpuLifecycle, Error, RawFpu, RestoreFault, TaskFpu, TheBackend,
};
use fpu_hosted_test::{
    conformance::{self, Harness},
    real::{run_between, RealHarness, RegFile},
};
use fpu_x86::{Components, DynamicPlan, Format, Plan, Room, SaveInstruction, XfdCopy};

#[path = "support/real.rs"]
mod support;
use support::*;
#[path = "support/allocator.rs"]
mod allocator;
use allocator::allocations;

/// What the kernel's IA32_XFD would be.
#[derive(Debug, Default)]
struct Program(Cell<u64>);
// SAFETY: K20: a cell of one thread, which plays one CPU; the register itself is the system's.
unsafe impl XfdCopy for Program {
    fn get(&self) -> u64 {
        self.0.get()
    }
    unsafe fn set(&self, xfd: u64) {
        self.0.set(xfd);
    }
    unsafe fn write(&self, _: u64) -> Result<(), RestoreFault> {
        Ok(())
    }
}
type Dynamic = DynamicPlan<Program>;

fn on_demand(plan: &Plan, components: Components) -> Dynamic {
    // SAFETY: C46: the tests save what they have loaded, and say where that is more than there is room for.
    unsafe { DynamicPlan::for_program(plan.clone(), components, Program::default()) }.unwrap()
}

/// One save or restore; no register is touched besides.
struct Call<'p> {
    plan: &'p Dynamic,
    area: core::ptr::NonNull<u8>,
    restores: bool,
    refused: bool,
}
unsafe extern "C" fn call(argument: *mut c_void) {
    // SAFETY: `moved` passes a live one.
    let call = unsafe { &mut *argument.cast::<Call<'_>>() };
    // SAFETY: C9: the caller's area. C10: `run_between` keeps nothing in the registers.
    unsafe {
        if call.restores {
            call.refused = call.plan.restore(call.area).is_err();
        } else {
            call.plan.save(call.area);
        }
    }
}
/// What the registers hold after a save or a restore, with `file` in them before.
fn moved(plan: &Dynamic, file: &RegFile, memory: &mut Memory, restores: bool) -> RegFile {
    let mut call_of = Call { plan, area: memory.base(), restores, refused: false };
    let mut dump = file.clone();
    // SAFETY: C31: the harness's classes. C33: a live call.
    unsafe { run_between(file, call, addr_of_mut!(call_of).cast(), &mut dump) };
    assert!(!call_of.refused, "a legal image was refused");
    dump
}
/// A new context's area; what lies behind its room is poison.
fn base_area(plan: &Dynamic) -> Box<Memory> {
    let mut memory = Box::new(Memory([0x5A; 16384]));
    // SAFETY: C9: aligned, long enough, ours.
    unsafe { plan.write_initial(memory.base()) };
    memory
}
fn grown(plan: &Dynamic, from: &mut Memory) -> Box<Memory> {
    let mut memory = Box::new(Memory([0x5A; 16384]));
    // SAFETY: C9: two areas, aligned, long enough, ours.
    let done = unsafe { plan.move_image(from.base(), memory.base(), Room::Full) };
    assert_eq!(done, Ok(()));
    memory
}
fn inside(plan: &Dynamic, memory: &Memory, room: Room, what: &str) {
    let behind = &memory.0[plan.area_len_of(room)..];
    assert!(behind.iter().all(|byte| *byte == 0x5A), "{what}: a byte behind the room is written");
}

/// The parts that can play on demand, of which a harness sees all; and the bits of the others.
fn casts(h: &RealHarness) -> Vec<(Components, u64)> {
    let sets = [Components::HI16_ZMM, Components::AVX512, Components::AVX | Components::AVX512];
    let of = |set: Components| {
        let seen: Components = h.parts().iter().copied().collect();
        let others = h.parts().iter().enumerate().filter(|(_, part)| !set.contains(**part));
        let others = others.fold(0, |bits, (bit, _)| bits | 1 << bit);
        (set.intersection(seen), others)
    };
    let mut casts: Vec<_> = sets.into_iter().map(of).filter(|(set, _)| !set.is_empty()).collect();
    casts.dedup();
    casts
}

/// It is a backend like any other, in the areas of its new contexts; the suite guards the bytes behind them.
#[test]
fn it_conforms() {
    for harness in RealHarness::rungs().0 {
        let rung = harness.fpu().save_instruction();
        for (set, _) in casts(&harness) {
            if rung == SaveInstruction::Fxsave {
                continue;
            }
            let plan = harness.fpu().clone();
            for plan in [plan.clone(), plan.skipping_initial()] {
                let dynamic = on_demand(&plan, set);
                let harness = RealHarness::new(plan).counting(allocations);
                let report = conformance::check(&mut harness.of_backend(dynamic, set));
                println!("{rung:?}, {set:?} on demand: {report}");
                assert!(report.passed(), "{report}");
                // It traps no first use.
                let traps = report.checks.iter().filter(|check| check.name.starts_with("trap-"));
                let traps = traps.count();
                assert_eq!(report.counts(), (report.checks.len() - traps, 0, traps), "{report}");
            }
        }
    }
}

/// A save writes what the area has room for, and no byte beyond, whatever is in use; a restore brings the rest to its
/// initial state.
#[test]
fn saves_and_restores_go_by_the_room() {
    let mut tried = 0;
    for_each_rung(|h| {
        let rung = h.fpu().save_instruction();
        if rung == SaveInstruction::Fxsave {
            return;
        }
        for (set, others) in casts(h) {
            let (plan, what) = (on_demand(h.fpu(), set), format!("{rung:?}, {set:?} on demand"));
            let (all, part) = (h.pattern(1, every(h)).0, h.pattern(2, others).0);
            // In the standard format another component may lie behind, as MPX does behind AVX.
            let (base, full) = (plan.area_len(), plan.area_len_of(Room::Full));
            let may_lie_behind = h.fpu().format() == Format::Standard;
            assert!(base < full || base == full && may_lie_behind, "{what}: {base}, {full}");
            let mut base = base_area(&plan);
            let mut full = grown(&plan, &mut base);
            let initial = h.pattern(0, 0).0;
            same(&moved(&plan, &all, &mut full, true), &initial, &what);

            moved(&plan, &all, &mut full, false);
            inside(&plan, &full, Room::Full, &what);
            let software = base.0[464..512].to_vec();
            moved(&plan, &part, &mut base, false);
            inside(&plan, &base, Room::Base, &what);
            assert_eq!(base.0[464..512], software, "{what}: software's bytes are written");
            // From one to the other, with everything in use before.
            for _ in 0..2 {
                same(&moved(&plan, &part, &mut full, true), &all, &what);
                same(&moved(&plan, &all, &mut base, true), &part, &what);
            }
            // What grows goes on with what it held, and can then hold all.
            let mut larger = grown(&plan, &mut base);
            same(&moved(&plan, &all, &mut larger, true), &part, &what);
            moved(&plan, &all, &mut larger, false);
            inside(&plan, &larger, Room::Full, &what);
            same(&moved(&plan, &part, &mut larger, true), &all, &what);
            // SAFETY: C9: two areas, aligned, long enough, ours.
            let shrunk = unsafe { plan.move_image(larger.base(), base.base(), Room::Base) };
            assert_eq!(shrunk, Err(NoRoom), "{what}");

            // More in use than there is room for, which breaks C46: it is lost, and nothing is overwritten.
            let mut base = base_area(&plan);
            moved(&plan, &all, &mut base, false);
            inside(&plan, &base, Room::Base, &what);
            // SAFETY: C9, C11: aligned, long enough, ours, and holds an image.
            let present = unsafe { plan.image(base.base()) }.present();
            assert!(!present.intersects(set), "{what}: {present:?}");
            let mut without = h.pattern(1, others).0;
            without.set_mxcsr(all.mxcsr());
            same(&moved(&plan, &all, &mut base, true), &without, &what);
            tried += 1;
        }
    });
    if tried == 0 {
        println!("SKIP: this CPU or its system has no AVX, so there is nothing to come on demand");
    }
}

/// One CPU of this program's.
struct Cpu<'k> {
    words: &'k CpuFpu,
    plan: &'k Dynamic,
    counters: Counters,
}
fpu_core::witness! {
    // SAFETY: K2 to K8: one thread, its words and plan, no interrupts. K9 (soft-float) is not kept; what the test looks at
    // are tiles, which compiled code does not use.
    unsafe impl Pinned + Exclusive + SoftFloat for Cpu<'_> {
        backend: Dynamic = |cpu| {
            // SAFETY: K1: one plan.
            unsafe { TheBackend::from_ref(cpu.plan) }
        },
        words: CpuFpu = |cpu| cpu.words,
        observe: |cpu, event| cpu.counters.record(event.kind),
    }
}

#[repr(C, align(64))]
#[derive(Clone, PartialEq)]
struct Tile([u8; 1024]);
/// TILECFG: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration([u8; 64]);

type Task = TaskFpu<Dynamic, Area<16384>>;

struct Job<'k> {
    cpu: Cpu<'k>,
    with: Task,
    without: Task,
    tile: Tile,
    found: Option<Tile>,
    /// Of the task without room: its configuration, and whether tiles are in use.
    others: Option<(Configuration, u64)>,
    error: Option<Error>,
}

unsafe extern "C" fn uses_tiles(job: *mut c_void) {
    // SAFETY: a live job.
    let job = unsafe { &mut *job.cast::<Job<'_>>() };
    job.error = trip(job).err();
}

/// A task loads a tile; one without room for tiles runs; the first one finds its tile.
fn trip(job: &mut Job<'_>) -> Result<(), Error> {
    let mut configuration = Configuration([0; 64]);
    configuration.0[0] = 1;
    for tile in 0..8 {
        configuration.0[16 + 2 * tile] = 64;
        configuration.0[48 + tile] = 16;
    }
    drop(job.with.switch_return(&mut job.cpu)?);
    // SAFETY: the process has asked for tiles; the memory is of the sizes that are read.
    unsafe {
        asm!(
            "ldtilecfg [{configuration}]", "tileloadd tmm3, [{tile} + {stride}]",
            configuration = in(reg) &configuration,
            tile = in(reg) &job.tile,
            stride = in(reg) 64usize,
            options(nostack, preserves_flags, readonly),
        );
    }
    job.with.switch_prepare(&job.cpu)?;
    drop(job.without.switch_return(&mut job.cpu)?);
    let (mut theirs, mut in_use) = (Configuration([0xA5; 64]), 0u32);
    // SAFETY: the process has tiles; 64 bytes of ours are written.
    unsafe { asm!("sttilecfg [{}]", in(reg) &mut theirs, options(nostack, preserves_flags)) };
    if job.cpu.plan.plan().cpuid_info().xgetbv1() {
        // SAFETY: CPUID says that XGETBV takes ECX = 1.
        unsafe { asm!("xgetbv", in("ecx") 1, out("eax") in_use, out("edx") _) };
    }
    job.others = Some((theirs, u64::from(in_use)));
    job.without.switch_prepare(&job.cpu)?;
    drop(job.with.switch_return(&mut job.cpu)?);
    let mut found = Tile([0xA5; 1024]);
    // SAFETY: the tile is configured, as the task that configured it runs; 16 rows of 64 bytes are written.
    unsafe {
        asm!(
            "tilestored [{tile} + {stride}], tmm3", "tilerelease",
            tile = in(reg) &mut found,
            stride = in(reg) 64usize,
            options(nostack, preserves_flags),
        );
    }
    job.found = Some(found);
    Ok(())
}

/// Asks the system for tiles, which it keeps from processes that do not.
fn may_use_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    // SAFETY: it changes nothing but what this process may do.
    let refused = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, 18) };
    refused == 0
}

#[test]
fn tiles_are_those_of_the_task_with_room() {
    let mut tried = 0;
    for_each_rung(|h| {
        if !h.fpu().components().contains(Components::AMX) || !may_use_tiles() {
            return;
        }
        let plan = on_demand(h.fpu(), Components::TILEDATA);
        let what = format!("{:?}", h.fpu().save_instruction());
        assert_eq!(plan.area_len_of(Room::Full) - plan.area_len(), 8192, "{what}");
        let words = CpuFpu::new();
        let mut cpu = Cpu { words: &words, plan: &plan, counters: Counters::new() };
        // SAFETY: K15, K16: the only CPU of this kernel, its words new.
        unsafe { cpu.fpu_online(0) }.unwrap();
        let new =
            |cpu: &Cpu<'_>| TaskFpu::new(fpu_core::Pinned::backend(cpu), Area::new()).unwrap();
        let (mut with, without) = (new(&cpu), new(&cpu));
        with.replace_area(&mut cpu, Area::new(), Room::Full).unwrap();
        assert_eq!((with.room(&cpu), without.room(&cpu)), (Room::Full, Room::Base), "{what}");
        let tile = Tile(core::array::from_fn(|at| at as u8 ^ (at >> 8) as u8));
        let mut job =
            Job { cpu, with, without, tile: tile.clone(), found: None, others: None, error: None };
        let registers = h.pattern(5, every(h)).0;
        let mut dump = registers.clone();
        // SAFETY: C31: the harness's classes. C33: a live job; what it leaves in the registers is dumped and not
        // looked at.
        unsafe { run_between(&registers, uses_tiles, addr_of_mut!(job).cast(), &mut dump) };
        assert_eq!(job.error, None, "{what}");
        let (configuration, in_use) = job.others.expect("it ran");
        assert_eq!(configuration.0, [0; 64], "{what}: another's configuration");
        // A CPU may call initial tiles in use (SDM vol. 1, 13.6); this only says which it is.
        println!("{what}: in use by the task without room: {in_use:#x}");
        assert!(job.found == Some(tile), "{what}: another tile");
        // Tiles in an image leave room for them only.
        let mut cpu = job.cpu;
        let with = job.with;
        with.reset(&mut cpu).unwrap();
        assert_eq!(with.room(&cpu), Room::Base, "{what}");
        tried += 1;
    });
    if tried == 0 {
        println!(
            "SKIP: no tiles in user mode here: tiles on demand are tried on CPUs with AMX only"
        );
    }
}
