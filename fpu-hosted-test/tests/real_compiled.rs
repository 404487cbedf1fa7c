//! Values that compiled code holds across a section, a save and a restore, in memory and in vector registers.
//!
//! What the compiler may keep where is told to it by the operands of inline assembly alone, and it uses what it
//! is told in optimised code only. So these tests are worth something in release builds; each has more values than
//! the registers that a list of clobbers could have left out by mistake.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{
    arch::{asm, x86_64::*},
    hint::black_box,
    ptr::NonNull,
};
use fpu_core::{
    observe::Counters, Area, CpuFpu, CpuLifecycle, Error, KernelFpu, KernelUnits, Pinned, RawFpu,
    RestoreFault, TaskFpu,
};
use fpu_hosted_test::{
    conformance::Harness,
    real::{refuses_reserved_mxcsr, RealHarness, ANY_MXCSR},
};
use fpu_x86::{Format, Plan, SaveInstruction};

#[path = "support/witness.rs"]
mod witness;
use witness::Liar;

/// Rounds up, so that a quotient tells with which MXCSR it was computed.
const ROUNDS_UP: u32 = 0x5F80;
const DEFAULT: u32 = 0x1F80;
/// Where MXCSR is in every format.
const MXCSR: usize = 24 / 4;

fn set_mxcsr(value: u32) {
    // SAFETY: a local operand without reserved bits. The compiler takes MXCSR to have its default value; what is
    // computed with another one here is to show just that.
    unsafe { asm!("ldmxcsr dword ptr [{}]", in(reg) &value, options(nostack)) }
}
fn mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: a local operand.
    unsafe { asm!("stmxcsr dword ptr [{}]", in(reg) &mut value, options(nostack)) };
    value
}

/// The plans of every rung.
fn plans() -> Vec<Plan> {
    let (rungs, skipped) = RealHarness::rungs();
    skipped.iter().for_each(|why| println!("SKIP: {why}"));
    rungs.iter().map(|harness| harness.fpu().clone()).collect()
}

/// An area that compiled code reads and writes around a save or restore.
#[repr(C, align(64))]
struct Words([u32; 4096]);

impl Words {
    /// With the initial image.
    fn new(plan: &Plan) -> Self {
        let mut words = Self([0; 4096]);
        assert!(plan.area_len() <= core::mem::size_of_val(&words.0));
        // SAFETY: C9: aligned, long enough, ours.
        unsafe { plan.write_initial(words.area()) };
        words
    }
    fn area(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.0).cast()
    }
}

/// Calls a function for the rung of the plan, which is a constant in it, so that what is compiled is one save and one
/// restore.
macro_rules! for_the_rung {
    ($function:ident($plan:expr $(, $more:expr)*)) => {
        match $plan.save_instruction() {
            SaveInstruction::Fxsave => $function::<{ SaveInstruction::Fxsave as u8 }>($plan $(, $more)*),
            SaveInstruction::Xsave => $function::<{ SaveInstruction::Xsave as u8 }>($plan $(, $more)*),
            SaveInstruction::Xsaveopt => $function::<{ SaveInstruction::Xsaveopt as u8 }>($plan $(, $more)*),
            SaveInstruction::Xsavec => $function::<{ SaveInstruction::Xsavec as u8 }>($plan $(, $more)*),
            other => unreachable!("{other:?} in ring 3"),
        }
    };
}

#[inline(never)]
fn saved_over<const RUNG: u8>(plan: &Plan, old: u32) -> u32 {
    assert_eq!(plan.save_instruction() as u8, RUNG);
    let mut words = Words::new(plan);
    set_mxcsr(ROUNDS_UP);
    words.0[MXCSR] = old;
    // SAFETY: C9: as in `Words`. Nothing is changed in the registers.
    unsafe { plan.save(words.area()) };
    let saved = words.0[MXCSR];
    set_mxcsr(DEFAULT);
    saved
}

/// The compiler must not take what it wrote before a save for what is there after it.
#[test]
fn memory_is_read_again_after_a_save() {
    for plan in plans() {
        // Every save writes an MXCSR that is not the initial one (SDM vol. 1, 13.7 to 13.10).
        let saved = for_the_rung!(saved_over(&plan, black_box(7)));
        assert_eq!(saved, ROUNDS_UP, "{:?}", plan.save_instruction());
    }
}

#[inline(never)]
fn restored_from<const RUNG: u8>(plan: &Plan, new: u32) -> Result<(), RestoreFault> {
    assert_eq!((plan.save_instruction() as u8, plan.scrubs()), (RUNG, false));
    let mut words = Words::new(plan);
    words.0[MXCSR] = new;
    // SAFETY: C9: as in `Words`. C10: the compiler is told by the operands what it loads, which is the subject.
    unsafe { plan.restore(words.area()) }
}

/// What is written before a restore must be in memory when it comes, although nothing reads it after it.
#[test]
fn memory_is_written_before_a_restore() {
    if !refuses_reserved_mxcsr() {
        println!("SKIP: {ANY_MXCSR}");
        return;
    }
    for plan in plans() {
        if plan.scrubs() {
            println!(
                "SKIP: {:?}: the scrub before a restore reads memory",
                plan.save_instruction()
            );
            continue;
        }
        // Bit 31 is reserved. Without a header bit for SSE the compacted form does not look at it (SDM vol. 1, 13.8.2).
        if plan.format() != Format::Compacted {
            let refused = for_the_rung!(restored_from(&plan, black_box(1 << 31)));
            assert_eq!(refused, Err(RestoreFault(13)), "{:?}", plan.save_instruction());
        }
        assert_eq!(for_the_rung!(restored_from(&plan, black_box(DEFAULT))), Ok(()));
    }
}

/// Holds a value in each of the 16 registers while the steps are executed.
macro_rules! held_in_all {
    ($class:ident, $load:ident, $store:ident, $from:ident, $to:ident, $steps:expr) => {
        held_in_all!(@ $class, $load, $store, $from, $to, $steps;
            a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7 i 8 j 9 k 10 l 11 m 12 n 13 o 14 p 15)
    };
    (@ $class:ident, $load:ident, $store:ident, $from:ident, $to:ident, $steps:expr; $($name:ident $n:literal)*) => {{
        // SAFETY: unaligned loads from and stores to arrays of vectors; the caller has the CPU's feature. Behind an
        // empty asm the compiler does not know a value, so it cannot load or compute it again.
        unsafe {
            $(let mut $name = $load($from[$n].as_ptr());)*
            $(asm!("/* {} */", inout($class) $name, options(pure, nomem, nostack, preserves_flags));)*
            let answer = $steps;
            $($store($to[$n].as_mut_ptr(), $name);)*
            answer
        }
    }};
}

#[inline(never)]
fn xmm_held<const RUNG: u8>(
    plan: &Plan,
    (initial, scratch): (NonNull<u8>, NonNull<u8>),
    from: &[[f64; 2]; 16],
    to: &mut [[f64; 2]; 16],
) -> Result<(), RestoreFault> {
    assert_eq!(plan.save_instruction() as u8, RUNG);
    held_in_all!(xmm_reg, _mm_loadu_pd, _mm_storeu_pd, from, to, {
        plan.save(scratch);
        plan.restore(initial)
    })
}

#[target_feature(enable = "avx")]
#[inline(never)]
unsafe fn ymm_held<const RUNG: u8>(
    plan: &Plan,
    (initial, scratch): (NonNull<u8>, NonNull<u8>),
    from: &[[f64; 4]; 16],
    to: &mut [[f64; 4]; 16],
) -> Result<(), RestoreFault> {
    assert_eq!(plan.save_instruction() as u8, RUNG);
    held_in_all!(ymm_reg, _mm256_loadu_pd, _mm256_storeu_pd, from, to, {
        plan.save(scratch);
        plan.restore(initial)
    })
}

fn values<const WORDS: usize>() -> [[f64; WORDS]; 16] {
    core::array::from_fn(|n| core::array::from_fn(|word| (100 * n + word + 1) as f64))
}

/// A restore of the initial state zeroes every vector register, so what the compiler left in one is gone.
#[test]
fn values_in_vector_registers_outlive_a_save_and_a_restore() {
    for plan in plans() {
        let (mut initial, mut scratch) = (Words::new(&plan), Words::new(&plan));
        let areas = (initial.area(), scratch.area());
        let (from, mut to) = (values::<2>(), [[0.0; 2]; 16]);
        let answer = for_the_rung!(xmm_held(&plan, areas, &from, &mut to));
        assert_eq!((answer, to), (Ok(()), from), "xmm, {:?}", plan.save_instruction());
        if !is_x86_feature_detected!("avx") {
            println!("SKIP: no AVX: {:?} with ymm registers", plan.save_instruction());
            continue;
        }
        let (from, mut to) = (values::<4>(), [[0.0; 4]; 16]);
        // SAFETY: the CPU has AVX.
        let answer = unsafe { for_the_rung!(ymm_held(&plan, areas, &from, &mut to)) };
        assert_eq!((answer, to), (Ok(()), from), "ymm, {:?}", plan.save_instruction());
    }
}

type Task = TaskFpu<Plan, Area<4096>>;

/// The quotients of three sections: what is computed in each is the same, so it could be computed once, before
/// all of them, where MXCSR is the task's.
#[inline(never)]
fn in_a_loop(
    cpu: &mut Liar<'_>,
    task: &Task,
    (x, y): (f64, f64),
    quotients: &mut [f64],
) -> Result<(), Error> {
    set_mxcsr(ROUNDS_UP);
    for quotient in quotients {
        drop(task.switch_return(cpu)?);
        set_mxcsr(ROUNDS_UP);
        *quotient = cpu.with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || x / y)?;
    }
    Ok(())
}

/// The quotient of a section, which is used under a condition only, after the task's registers are back: it could be
/// computed there.
#[inline(never)]
fn used_later(
    cpu: &mut Liar<'_>,
    task: &Task,
    (x, y, used): (f64, f64, bool),
) -> Result<Option<f64>, Error> {
    drop(task.switch_return(cpu)?);
    set_mxcsr(ROUNDS_UP);
    let quotient = cpu.with_kernel_fpu(Some(task.context()), KernelUnits::ALL, || x / y)?;
    drop(task.switch_return(cpu)?);
    Ok(used.then_some(quotient))
}

/// A closure runs with the kernel's MXCSR, which rounds to nearest, and neither before nor after.
#[test]
fn what_a_section_computes_is_computed_inside() {
    let (one, three) = (black_box(1.0), black_box(3.0));
    let nearest = one / three;
    for plan in plans() {
        let words = CpuFpu::new();
        let mut cpu = Liar { words: &words, plan: &plan, counters: Counters::new() };
        // SAFETY: K15: one CPU. K16: its words are new.
        unsafe { cpu.fpu_online(0) }.unwrap();
        let task = Task::new(cpu.backend(), Area::new()).unwrap();
        let mut quotients = [0.0; 3];
        let answer = in_a_loop(&mut cpu, &task, (one, three), black_box(&mut quotients));
        set_mxcsr(DEFAULT);
        assert_eq!(
            (answer, quotients),
            (Ok(()), [nearest; 3]),
            "in a loop, {:?}",
            plan.save_instruction()
        );
        let quotient = used_later(&mut cpu, &task, black_box((one, three, true)));
        let live = mxcsr();
        set_mxcsr(DEFAULT);
        assert_eq!(quotient, Ok(Some(nearest)), "used later, {:?}", plan.save_instruction());
        assert_eq!(live, ROUNDS_UP, "the task's MXCSR, {:?}", plan.save_instruction());
    }
}
