//! The idle hook on this CPU's registers: without tiles in use nothing is given up and the claim stays; with
//! tiles they are given up, and the task finds them again.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{arch::asm, ffi::c_void, ptr::addr_of_mut};
use fpu_core::{
    observe::{Counters, Totals},
    Area, CpuFpu, CpuLifecycle, Error, IdleFpu, Pinned, TaskFpu,
};
use fpu_hosted_test::{
    conformance::Harness,
    real::{run_between, RegFile},
};
use fpu_x86::{Components, Plan};

#[path = "support/real.rs"]
mod support;
use support::*;
#[path = "support/witness.rs"]
mod witness;
use witness::Liar;

/// TILECFG: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Configuration([u8; 64]);
impl Configuration {
    const NONE: Self = Self([0; 64]);
    fn whole() -> Self {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for tile in 0..8 {
            bytes[16 + 2 * tile] = 64;
            bytes[48 + tile] = 16;
        }
        Self(bytes)
    }
    /// What is in the register.
    fn now() -> Self {
        let mut now = Self([0xA5; 64]);
        // SAFETY: only called where tiles may be used; 64 bytes of ours are written.
        unsafe { asm!("sttilecfg [{}]", in(reg) &mut now, options(nostack, preserves_flags)) };
        now
    }
}
#[repr(C, align(64))]
#[derive(Clone, PartialEq)]
struct Tile([u8; 1024]);

struct Job<'k> {
    cpu: Liar<'k>,
    task: TaskFpu<Plan, Area<16384>>,
    /// What the user code does with tiles: nothing without.
    tile: Option<Tile>,
    idle: [Option<Result<bool, Error>>; 2],
    awake: [Option<bool>; 2],
    /// Tiles in use, as the CPU itself says.
    in_use: Option<bool>,
    claimed: Option<bool>,
    given_up: Option<Configuration>,
    after: Option<(Configuration, Tile)>,
    error: Option<Error>,
}

fn awake(cpu: &Liar<'_>) -> bool {
    // SAFETY: C10: it only asks.
    unsafe { cpu.plan.keeps_awake() }
}

/// What XGETBV says of tiles, where it can be asked.
fn tiles_in_use(plan: &Plan) -> Option<bool> {
    plan.cpuid_info().xgetbv1().then(|| {
        let low: u32;
        // SAFETY: CPUID says that XGETBV takes ECX = 1.
        unsafe { asm!("xgetbv", in("ecx") 1, out("eax") low, out("edx") _) };
        u64::from(low) & Components::AMX.bits() != 0
    })
}

/// The task runs and is switched out, the CPU goes idle, twice, and the task resumes.
unsafe extern "C" fn goes_idle(job: *mut c_void) {
    // SAFETY: a live job.
    let job = unsafe { &mut *job.cast::<Job<'_>>() };
    job.error = trip(job).err();
}

fn trip(job: &mut Job<'_>) -> Result<(), Error> {
    drop(job.task.switch_return(&mut job.cpu)?);
    if let Some(tile) = &job.tile {
        // SAFETY: the process has asked for tiles; the memory is of the sizes that are read.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]", "tileloadd tmm3, [{tile} + {stride}]",
                configuration = in(reg) &Configuration::whole(),
                tile = in(reg) tile,
                stride = in(reg) 64usize,
                options(nostack, preserves_flags, readonly),
            );
        }
    }
    job.task.switch_prepare(&job.cpu)?;
    job.in_use = tiles_in_use(job.cpu.plan);
    job.awake[0] = Some(awake(&job.cpu));
    job.idle[0] = Some(job.cpu.fpu_idle());
    job.awake[1] = Some(awake(&job.cpu));
    job.claimed = Some(job.task.registers_valid(&job.cpu));
    job.given_up = job.tile.as_ref().map(|_| Configuration::now());
    job.idle[1] = Some(job.cpu.fpu_idle());
    drop(job.task.switch_return(&mut job.cpu)?);
    if job.tile.is_some() {
        let (configuration, mut tile) = (Configuration::now(), Tile([0xA5; 1024]));
        if configuration == Configuration::whole() {
            // SAFETY: the CPU has tiles, and this one is configured; 16 rows of 64 bytes are written.
            unsafe {
                asm!(
                    "tilestored [{tile} + {stride}], tmm3",
                    tile = in(reg) &mut tile,
                    stride = in(reg) 64usize,
                    options(nostack, preserves_flags),
                );
            }
        }
        job.after = Some((configuration, tile));
        // SAFETY: tiles that no code needs any more.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
    Ok(())
}

fn idles<'k>(plan: &'k Plan, words: &'k CpuFpu, file: &RegFile, tile: Option<Tile>) -> Job<'k> {
    let mut cpu = Liar { words, plan, counters: Counters::new() };
    // SAFETY: K15, K16: the only CPU of this kernel, its words new.
    unsafe { cpu.fpu_online(0) }.unwrap();
    let task = TaskFpu::new(cpu.backend(), Area::new()).unwrap();
    let mut job = Job {
        cpu,
        task,
        tile,
        idle: [None; 2],
        awake: [None; 2],
        in_use: None,
        claimed: None,
        given_up: None,
        after: None,
        error: None,
    };
    let mut dump = file.clone();
    // SAFETY: C31: the harness's classes. C33: a live job; what it leaves in the registers is dumped and not
    // looked at.
    unsafe { run_between(file, goes_idle, addr_of_mut!(job).cast(), &mut dump) };
    job
}

/// On every rung, and with every register of the harness in use; also where AMX is in the plan.
#[test]
fn without_tiles_in_use_nothing_is_given_up_and_the_claim_stays() {
    for_each_rung(|h| {
        let (words, plan) = (CpuFpu::new(), h.fpu().clone());
        let registers = h.pattern(3, every(h));
        let job = idles(&plan, &words, &registers.0, None);
        let what = format!("{:?}, {:?}", plan.save_instruction(), plan.components());
        println!("{what}: {:?}", job.idle);
        assert_eq!(job.error, None, "{what}");
        if plan.components().intersects(Components::AMX) && !plan.cpuid_info().xgetbv1() {
            return println!("SKIP: {what}: this CPU cannot be asked what is in use");
        }
        if job.in_use == Some(true) {
            // It may (SDM vol. 1, 13.6).
            assert_eq!(job.awake[0], Some(true), "{what}");
            return println!("SKIP: {what}: this CPU calls initial tiles in use");
        }
        assert_eq!(job.awake, [Some(false); 2], "{what}");
        assert_eq!(job.idle, [Some(Ok(false)); 2], "{what}");
        assert_eq!(job.claimed, Some(true), "{what}");
        let Totals { saved, restored, skipped, invalidated, .. } = job.cpu.counters.totals();
        // Coming online told of one.
        assert_eq!((saved, restored, skipped, invalidated), (1, 1, 1, 1), "{what}");
    });
}

/// Asks the system for tiles, which it keeps from processes that do not.
fn may_use_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    // SAFETY: it changes nothing but what this process may do.
    let refused = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, 18) };
    refused == 0
}

#[test]
fn tiles_in_use_are_given_up_and_come_back() {
    let mut tried = 0;
    for_each_rung(|h| {
        let (words, plan) = (CpuFpu::new(), h.fpu().clone());
        if !plan.components().contains(Components::AMX) {
            return println!("{:?}: no tiles in {:?}", plan.save_instruction(), plan.components());
        }
        if !may_use_tiles() {
            return println!(
                "SKIP: {:?}: the system refuses tiles to this process",
                plan.save_instruction()
            );
        }
        let tile = Tile(core::array::from_fn(|at| at as u8 ^ (at >> 8) as u8));
        let registers = h.pattern(4, every(h));
        let job = idles(&plan, &words, &registers.0, Some(tile.clone()));
        let what = format!("{:?}, {:?}", plan.save_instruction(), plan.components());
        println!("{what}: {:?}", job.idle);
        assert_eq!(job.error, None, "{what}");
        assert_eq!(job.awake[0], Some(true), "{what}: in use, and not seen");
        assert_eq!(job.idle[0], Some(Ok(true)), "{what}");
        assert_eq!(job.claimed, Some(false), "{what}: the claim on what was given up");
        assert_eq!(job.given_up, Some(Configuration::NONE), "{what}: still configured");
        // A CPU may call initial tiles in use; this only says which it is.
        println!("{what}: after that in use: {:?}", job.awake[1]);
        let (configuration, found) = job.after.expect("the task came back");
        assert_eq!(configuration, Configuration::whole(), "{what}");
        assert!(found == tile, "{what}: another tile");
        let Totals { saved, restored, skipped, .. } = job.cpu.counters.totals();
        assert_eq!((saved, restored, skipped), (1, 2, 0), "{what}");
        tried += 1;
    });
    if tried == 0 {
        println!(
            "SKIP: no tiles in user mode here: what is given up is tried on CPUs with AMX only"
        );
    }
}
