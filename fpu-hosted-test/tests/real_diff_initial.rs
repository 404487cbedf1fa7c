//! A plan that neither saves nor restores what is initial, beside the same plan without that, on this CPU's registers:
//! the same operations, and the same registers in every task at every return.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{
    arch::asm,
    ffi::c_void,
    ptr::{addr_of_mut, NonNull},
};
use fpu_core::{
    observe::{Counters, Totals},
    verify::CompareFpu,
    Area, CpuFpu, CpuLifecycle, Error, KernelFpu, KernelUnits, RawFpu, TaskFpu, TheBackend,
};
use fpu_hosted_test::{
    conformance::{self, Harness, Step},
    real::{dump_registers, load_registers, run_between, Classes, RealHarness, RegFile},
    Random,
};
use fpu_x86::{Plan, SaveInstruction};

#[path = "support/real.rs"]
mod support;
use support::*;
#[path = "support/witness.rs"]
mod witness;
use witness::Liar;

const TASKS: usize = 3;

/// What user code does.
#[derive(Clone, Copy, Debug)]
enum User {
    Looks,
    /// Writes all registers.
    Loads(usize),
    Mxcsr(u32),
    Fcw(u16),
    /// Writes zeros to a register of x87, and one of SSE.
    Zeros,
    Fninit,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The task enters user mode, and its code does this.
    Runs(usize, User),
    Leaves(usize),
    /// The kernel uses the registers while the task is current.
    Section(usize),
    /// The kernel makes the image of a task that has left initial, or writes one register. Compiled code of these calls may
    /// use registers, so no claim on them may stand.
    Resets(usize),
    Writes(usize, u8),
    /// A virtual CPU, the second, runs on behalf of a task that has left.
    Guest(usize, usize, User),
}

/// A kernel with one CPU, and what it is to do.
struct Kernel<'k> {
    cpu: Liar<'k>,
    tasks: [TaskFpu<Plan, Area<16384>>; TASKS],
    ops: Vec<Op>,
    files: &'k [RegFile],
    /// What each run found in the registers.
    found: Vec<RegFile>,
    runs: usize,
    error: Option<Error>,
}

/// # Safety
///
/// The registers are the task's, and compiled code in between leaves them alone.
unsafe fn user(code: User, files: &[RegFile]) {
    // SAFETY: C31: files of this CPU's classes. The values are legal; the instructions are of every 64-bit CPU.
    unsafe {
        match code {
            User::Looks => {}
            User::Loads(file) => load_registers(&files[file]),
            User::Mxcsr(value) => asm!("ldmxcsr [{}]", in(reg) &value, options(nostack)),
            User::Fcw(value) => asm!("fldcw [{}]", in(reg) &value, options(nostack)),
            User::Zeros => {
                asm!("fninit", "fldz", "pxor xmm3, xmm3", out("xmm3") _, options(nostack))
            }
            User::Fninit => asm!("fninit", options(nostack)),
        }
    }
}

/// What the guest finds is dumped. One argument, so that the closure has one pointer, which the core moves in a general
/// register.
fn guest_code(run: &mut (&mut RegFile, User, &[RegFile])) {
    let (found, code, files) = run;
    // SAFETY: C31: files of this CPU's classes. The registers are the guest's.
    unsafe {
        dump_registers(&mut **found);
        user(*code, files);
    }
}

unsafe extern "C" fn script(kernel: *mut c_void) {
    // SAFETY: a live kernel.
    let kernel = unsafe { &mut *kernel.cast::<Kernel<'_>>() };
    kernel.error = perform(kernel).err();
}

fn perform(kernel: &mut Kernel<'_>) -> Result<(), Error> {
    for nth in 0..kernel.ops.len() {
        match kernel.ops[nth] {
            Op::Runs(task, code) => {
                drop(kernel.tasks[task].switch_return(&mut kernel.cpu)?);
                let run = kernel.runs;
                // SAFETY: C31: files of this CPU's classes, as long as there are operations. The registers are the task's.
                unsafe {
                    dump_registers(&mut kernel.found[run]);
                    user(code, kernel.files);
                }
                kernel.runs += 1;
            }
            Op::Leaves(task) => kernel.tasks[task].switch_prepare(&kernel.cpu)?,
            Op::Section(task) => {
                let current = Some(kernel.tasks[task].context());
                let file: *const RegFile = &kernel.files[0];
                kernel.cpu.with_kernel_fpu(current, KernelUnits::ALL, || {
                    // SAFETY: C31, C32: a file of this CPU's classes; the next return restores.
                    unsafe { load_registers(file) }
                })?;
            }
            Op::Resets(task) => kernel.tasks[task].reset(&mut kernel.cpu)?,
            Op::Writes(task, value) => {
                let session = kernel.tasks[task].open(&mut kernel.cpu)?;
                session
                    .make_memory_valid_write()
                    .image_mut()
                    .set_fcw(0x300 | u16::from(value & 0x3F));
            }
            Op::Guest(task, guest, code) => {
                let current = Some(kernel.tasks[task].context());
                let persistent = kernel.tasks[guest].context();
                let mut run = (&mut kernel.found[kernel.runs], code, kernel.files);
                kernel.cpu.run_guest(persistent, current, || guest_code(&mut run))?;
                kernel.runs += 1;
            }
        }
    }
    Ok(())
}

struct Done {
    totals: Totals,
    found: Vec<RegFile>,
    tasks: [TaskFpu<Plan, Area<16384>>; TASKS],
}

fn done(plan: &Plan, classes: Classes, files: &[RegFile], ops: &[Op]) -> Done {
    let words = CpuFpu::new();
    let mut cpu = Liar { words: &words, plan, counters: Counters::new() };
    // SAFETY: K15, K16: the only CPU, its words new.
    unsafe { cpu.fpu_online(0) }.unwrap();
    // SAFETY: K1: this plan.
    let backend = unsafe { TheBackend::from_ref(plan) };
    let tasks = core::array::from_fn(|_| TaskFpu::new(backend, Area::new()).unwrap());
    let found = vec![RegFile::initial(classes); ops.len()];
    let mut kernel = Kernel { cpu, tasks, ops: ops.to_vec(), files, found, runs: 0, error: None };
    let before = RegFile::initial(classes);
    let mut after = before.clone();
    // SAFETY: C31: this CPU's classes. C33: a live kernel; what is compiled here moves integers.
    unsafe { run_between(&before, script, addr_of_mut!(kernel).cast(), &mut after) };
    assert_eq!(kernel.error, None, "{ops:?}");
    let Kernel { cpu, tasks, mut found, runs, .. } = kernel;
    found.truncate(runs);
    Done { totals: cpu.counters.totals(), found, tasks }
}

/// Both plans: the same in the registers at every return, and the same images in the end. What the plan that skips told.
#[track_caller]
fn same_with_and_without(h: &RealHarness, files: &[RegFile], ops: &[Op]) -> (Totals, Totals) {
    let (plan, classes) = (h.fpu(), h.classes());
    let skips = plan.clone().skipping_initial();
    let (with, without) = (done(&skips, classes, files, ops), done(plan, classes, files, ops));
    for (run, (is, should)) in with.found.iter().zip(&without.found).enumerate() {
        same(is, should, &format!("{:?}, run {run} of {ops:?}", plan.save_instruction()));
    }
    for (one, other) in with.tasks.into_iter().zip(without.tasks) {
        let (mut one, mut other) = (one.into_area(), other.into_area());
        let at = |area: &mut Area<16384>| fpu_core::SaveArea::base(area);
        // SAFETY: C9, C11: images of plans that differ in how they restore; ours alone.
        let images = unsafe { plan.same_state(at(&mut one), at(&mut other)) };
        assert_eq!(images, Ok(()), "{:?}, images after {ops:?}", plan.save_instruction());
    }
    (with.totals, without.totals)
}

fn for_each_that_skips(mut test: impl FnMut(&mut RealHarness)) {
    for_each_rung(|h| {
        if h.fpu().clone().skipping_initial().skips_initial() {
            return test(h);
        }
        let rung = h.fpu().save_instruction();
        if rung != SaveInstruction::Fxsave {
            println!(
                "SKIP: {rung:?}: XGETBV does not tell what is in use, or restores are scrubbed"
            );
        }
    });
}

/// A restore of an initial image, and what the CPU says to be in use then.
struct Asked<'p> {
    plan: &'p Plan,
    area: NonNull<u8>,
    in_use: u64,
}
unsafe extern "C" fn asks(asked: *mut c_void) {
    // SAFETY: a live one.
    let asked = unsafe { &mut *asked.cast::<Asked<'_>>() };
    let (low, high): (u32, u32);
    // SAFETY: C9, C10: an image of this plan, and registers that no code needs. A plan that skips has this XGETBV.
    unsafe {
        if asked.plan.restore(asked.area).is_err() {
            return;
        }
        asm!("xgetbv", in("ecx") 1, out("eax") low, out("edx") high, options(nostack));
    }
    asked.in_use = (u64::from(high) << 32 | u64::from(low)) & asked.plan.plan_word();
}
/// Tells whether the CPU notices that registers are initial. It need not (SDM vol. 1, 13.6).
fn notices(plan: &Plan, classes: Classes) -> bool {
    let mut memory = Memory::new(plan);
    let mut asked = Asked { plan, area: memory.base(), in_use: u64::MAX };
    let mut after = RegFile::initial(classes);
    let before = RegFile::pattern(1, classes);
    // SAFETY: C31: this CPU's classes. C33: a live argument; integers only.
    unsafe { run_between(&before, asks, addr_of_mut!(asked).cast(), &mut after) };
    if asked.in_use != 0 {
        println!("SKIP: this CPU says {:#x} of initial registers", asked.in_use);
    }
    asked.in_use == 0
}

#[test]
fn plans_that_skip_conform() {
    for_each_that_skips(|h| {
        let skips = h.fpu().clone().skipping_initial();
        let report = conformance::check(&mut RealHarness::new(skips));
        assert!(report.passed(), "{:?}: {report}", h.fpu().save_instruction());
        // A program cannot make the first use of a register trap.
        let skipped = report.checks.iter().filter(|check| check.name.starts_with("trap-")).count();
        assert_eq!(report.counts(), (report.checks.len() - skipped, 0, skipped), "{report}");
    });
}

/// What is not executed cannot be refused: a restore is left out exactly if nothing is in use and the image is initial.
#[test]
fn a_restore_is_left_out_of_initial_registers_only() {
    for_each_that_skips(|h| {
        let plan = h.fpu().clone().skipping_initial();
        if !notices(&plan, h.classes()) {
            return;
        }
        let rung = plan.save_instruction();
        let mut skips = RealHarness::new(plan);
        let (mut initial, mut refused) = (Memory::new(h.fpu()), Memory::new(h.fpu()));
        refused.0[HEADER + 16] = 1; // reserved
        let steps = [Step::Restore(initial.base()), Step::Restore(refused.base())];
        assert_eq!(attempt(&mut skips, &steps).restored, Ok(()), "{rung:?}: restored all the same");
        for bit in 0..h.components() {
            let registers = h.pattern(u64::from(bit), 1 << bit);
            let steps = [Step::Load(&registers), Step::Restore(refused.base())];
            let part = h.parts()[bit as usize];
            assert!(
                attempt(&mut skips, &steps).restored.is_err(),
                "{rung:?}: left out over {part:?}"
            );
        }
        let mut mxcsr = h.pattern(0, 0);
        mxcsr.0.set_mxcsr(0x3F80);
        let steps =
            [Step::Restore(initial.base()), Step::Load(&mxcsr), Step::Restore(refused.base())];
        assert!(attempt(&mut skips, &steps).restored.is_err(), "{rung:?}: left out over MXCSR");
        // Every image that is not initial is loaded, if only for MXCSR.
        let mut with_mxcsr = saved(h, &mxcsr);
        let steps = [Step::Restore(initial.base()), Step::Restore(with_mxcsr.base())];
        same(&run(&mut skips, &steps), &mxcsr.0, &format!("{rung:?}: MXCSR alone"));
    });
}

#[test]
fn two_initial_tasks_switch_without_a_save() {
    for_each_that_skips(|h| {
        if !notices(h.fpu(), h.classes()) {
            return;
        }
        let round =
            [Op::Runs(0, User::Looks), Op::Leaves(0), Op::Runs(1, User::Looks), Op::Leaves(1)];
        let ops = round.repeat(5);
        let (with, without) = same_with_and_without(h, &[], &ops);
        let rung = h.fpu().save_instruction();
        assert_eq!((with.saved, with.unchanged), (0, 10), "{rung:?}");
        assert_eq!((without.saved, without.unchanged), (10, 0), "{rung:?}");
        assert_eq!((with.restored, with.loaded), (without.restored, without.loaded), "{rung:?}");
    });
}

/// The task that uses registers is saved and restored each time, and the other one is initial each time.
#[test]
fn an_initial_task_beside_every_component() {
    for_each_that_skips(|h| {
        let noticed = notices(h.fpu(), h.classes());
        for (bit, part) in h.parts().to_vec().into_iter().enumerate() {
            let files: Vec<_> = (0..4).map(|seed| h.pattern(9 + seed, 1 << bit).0).collect();
            let mut ops = Vec::new();
            for file in 0..files.len() {
                ops.extend([Op::Runs(0, User::Loads(file)), Op::Leaves(0)]);
                ops.extend([Op::Runs(1, User::Looks), Op::Leaves(1)]);
            }
            let (with, without) = same_with_and_without(h, &files, &ops);
            assert_eq!(without.saved, 8);
            assert!(with.saved >= 4, "{part:?} is not saved");
            if noticed {
                assert_eq!((with.saved, with.unchanged), (4, 4), "{part:?}");
            }
        }
    });
}

/// What a task writes is there when it runs again, however little that is.
#[test]
fn the_least_that_a_task_can_write() {
    for_each_that_skips(|h| {
        for code in [User::Mxcsr(0x3F80), User::Mxcsr(0x1F81), User::Fcw(0x27F), User::Fcw(0x37E)] {
            let ops = [
                Op::Runs(0, code),
                Op::Leaves(0),
                Op::Runs(1, User::Looks),
                Op::Leaves(1),
                Op::Runs(0, User::Looks),
                Op::Leaves(0),
            ];
            let (with, _) = same_with_and_without(h, &[], &ops);
            assert!(with.saved >= 2, "{code:?} is not saved: {with:?}");
        }
        for code in [User::Zeros, User::Fninit, User::Mxcsr(0x1F80), User::Fcw(0x37F)] {
            let other = [Op::Runs(1, User::Loads(0)), Op::Leaves(1)];
            let own = [Op::Runs(0, code), Op::Leaves(0)];
            let files = [h.pattern(3, every(h)).0];
            same_with_and_without(h, &files, &[own, other, own, other].concat());
        }
    });
}

/// Sections, sessions, resets, writes and guests among the switches; half of the tasks never use a register for a while.
#[test]
fn random_operations_come_to_the_same() {
    const RUNS: usize = 300;
    if cfg!(debug_assertions) {
        println!("SKIP: unoptimised code moves values through XMM registers between two calls");
        return;
    }
    for_each_that_skips(|h| {
        let mut random = Random::new(20);
        let (mut left_out, mut saved) = (0, 0);
        for run in 0..RUNS {
            let files: Vec<_> = (0..6)
                .map(|n| {
                    let all = every(h);
                    let parts =
                        [0, all, random.word() & all, 1 << random.below(h.components() as usize)];
                    h.pattern(run as u64 * 8 + n, parts[random.below(4)]).0
                })
                .collect();
            let ops = sequence(&mut random, files.len());
            let (with, _) = same_with_and_without(h, &files, &ops);
            left_out += with.unchanged;
            saved += with.saved;
        }
        println!("{:?}: {saved} saves, {left_out} left out", h.fpu().save_instruction());
        assert!(saved > 0);
        if notices(h.fpu(), h.classes()) {
            assert!(left_out > RUNS as u64, "{left_out}");
        }
    });
}

fn sequence(random: &mut Random, files: usize) -> Vec<Op> {
    let mut ops = Vec::new();
    let code = |random: &mut Random| match random.below(12) {
        0 => User::Loads(random.below(files)),
        1 => User::Mxcsr([0x1F80, 0x3F80, 0x1FBF][random.below(3)]),
        2 => User::Fcw([0x37F, 0x27F][random.below(2)]),
        3 => User::Zeros,
        4 => User::Fninit,
        _ => User::Looks,
    };
    let mut current = 0;
    ops.push(Op::Runs(0, User::Looks));
    for _ in 0..40 {
        match random.below(12) {
            0..=4 => {
                ops.push(Op::Leaves(current));
                current = random.below(TASKS);
                ops.push(Op::Runs(current, code(random)));
            }
            5 => ops.extend([Op::Section(current), Op::Runs(current, code(random))]),
            6 => {
                ops.extend([Op::Leaves(current), Op::Resets(current)]);
                ops.push(Op::Runs(current, code(random)));
            }
            7 => {
                ops.extend([Op::Leaves(current), Op::Writes(current, random.word() as u8)]);
                ops.push(Op::Runs(current, code(random)));
            }
            8 => {
                ops.push(Op::Leaves(current));
                ops.push(Op::Guest(current, (current + 1) % TASKS, code(random)));
                ops.push(Op::Runs(current, code(random)));
            }
            _ => ops.push(Op::Runs(current, code(random))),
        }
    }
    ops.push(Op::Leaves(current));
    ops
}
