//! What the x86 backend does to this CPU's real registers, instruction by instruction.
//!
//! The conformance suite asks the same of every backend; here is what only XSAVE has: the header, the
//! MXCSR rules of the two formats, faults and their fixup, 64-bit pointers.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{
    arch::{asm, x86_64::__cpuid_count},
    ffi::c_void,
    ptr::{addr_of_mut, NonNull},
};
use fpu_core::{KernelUnits, RawFpu, RestoreFault};
use fpu_hosted_test::{
    conformance::{Harness, Step},
    real::{
        keeps_x87_pointers, refuses_reserved_mxcsr, run_between, RealHarness, RegFile, ANY_MXCSR,
        NO_POINTERS,
    },
};
use fpu_x86::{Components, Format, ImageError, Plan, SaveInstruction};

#[path = "support/real.rs"]
mod support;
use support::*;

/// XSAVE (enabled by the system), XSAVEOPT and XSAVEC, by CPUID's own bits: std's detection answers for
/// what compiled code may use, and calls XSAVE absent where AVX is.
// The instruction is there; SSE2 has it. Unsafe in older compilers.
#[allow(unused_unsafe)]
fn saves() -> [bool; 3] {
    // SAFETY: every 64-bit CPU has CPUID; leaf 0xD is asked for only where XSAVE is there.
    unsafe {
        let xsave = __cpuid_count(1, 0).ecx & 3 << 26 == 3 << 26;
        let more = if xsave { __cpuid_count(0xD, 1).eax } else { 0 };
        [xsave, xsave && more & 1 != 0, xsave && more & 2 != 0]
    }
}
fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the system has enabled XSAVE, so XGETBV is there.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high) };
    u64::from(high) << 32 | u64::from(low)
}

#[test]
fn the_plan_is_of_this_cpu() {
    let plan = Plan::detect_user(Components::all()).unwrap();
    println!("{:?} {:?}, {} bytes", plan.save_instruction(), plan.components(), plan.area_len());
    // What XCR0 has enabled a task can hold, and a plan may leave nothing of that out.
    let [xsave, xsaveopt, xsavec] = saves();
    let xcr0 = if xsave { xcr0() } else { Components::LEGACY.bits() };
    for component in [Components::AVX, Components::AVX512] {
        let there = xcr0 & component.bits() == component.bits();
        assert_eq!(plan.components().contains(component), there, "{component:?}");
        if !there {
            println!("SKIP: this CPU or its system has no {component:?}");
        }
    }
    let best = [
        (xsavec, SaveInstruction::Xsavec),
        (xsaveopt, SaveInstruction::Xsaveopt),
        (xsave, SaveInstruction::Xsave),
        (true, SaveInstruction::Fxsave),
    ];
    assert_eq!(
        Some(plan.save_instruction()),
        best.iter().find(|(there, _)| *there).map(|(_, rung)| *rung)
    );
    let unseen =
        plan.components().difference(RealHarness::new(plan).parts().iter().copied().collect());
    if !unseen.is_empty() {
        println!("SKIP: registers of {unseen:?}: the register file does not hold them");
    }
}

#[test]
fn every_register_survives_every_rung() {
    for_each_rung(|h| {
        let what = format!("{:?}, {}", h.fpu().save_instruction(), h.classes().describe());
        println!("{what}");
        for seed in 0..200 {
            let (one, two) = (h.pattern(2 * seed, every(h)), h.pattern(2 * seed + 1, every(h)));
            let (mut a, mut b) = (saved(h, &one), saved(h, &two));
            let mut scratch = Memory::new(h.fpu());
            for (at, expect) in [(a.base(), &one), (b.base(), &two), (a.base(), &one)] {
                let after = run(h, &[Step::Restore(at), Step::Save(scratch.base())]);
                same(&after, &expect.0, &what);
            }
        }
    });
}

#[test]
fn bytes_of_absent_components_never_surface() {
    for_each_rung(|h| {
        if h.fpu().format() == Format::Legacy {
            return println!("FXSAVE has no absent components: nothing to try");
        }
        let full = h.pattern(1, every(h));
        let other = h.pattern(2, every(h));
        for (bit, component) in h.parts().to_vec().into_iter().enumerate() {
            let mut memory = saved(h, &full);
            assert_eq!(memory.word(HEADER) & component.bits(), component.bits());
            // The bytes stay; only the header says that they are nothing.
            memory.0[HEADER] &= !(component.bits() as u8);
            let mut expect = h.pattern(1, every(h) & !(1 << bit)).0;
            if component == Components::SSE && h.fpu().format() == Format::Standard {
                expect.set_mxcsr(full.0.mxcsr()); // loaded from memory whatever the header says
            }
            let after = run(h, &[Step::Load(&other), Step::Restore(memory.base())]);
            let what = format!("{:?} without {component:?}", h.fpu().save_instruction());
            same(&after, &expect, &what);
            // SAFETY: C9, C11: an image, and no other code has it.
            let view = h.view(unsafe { h.fpu().image(memory.base()) }).unwrap();
            same(&view.0, &expect, &format!("the view of {what}"));
        }
    });
}

#[test]
fn the_initial_image_is_the_initial_state_over_any_bytes() {
    for_each_rung(|h| {
        let other = h.pattern(3, every(h));
        for poison in [0x00, 0x5A, 0xFF] {
            let mut memory = Memory([poison; 16384]);
            // SAFETY: C9: aligned, long enough, ours.
            unsafe { h.fpu().write_initial(memory.base()) };
            let after = run(h, &[Step::Load(&other), Step::Restore(memory.base())]);
            same(&after, &RegFile::initial(h.classes()), &format!("over {poison:#x}"));
            let len = h.fpu().area_len();
            assert!(memory.0[32..HEADER].iter().all(|byte| *byte == 0));
            assert!(memory.0[len..].iter().all(|byte| *byte == poison));
            if len > HEADER {
                let compact = u64::from(h.fpu().format() == Format::Compacted);
                let xcomp = compact * (1 << 63 | h.fpu().components().bits());
                assert_eq!((memory.word(HEADER), memory.word(HEADER + 8)), (0, xcomp));
                assert!(memory.0[HEADER + 16..len].iter().all(|byte| *byte == 0));
            }
        }
    });
}

#[test]
fn mxcsr_is_kept_when_all_vectors_are_initial() {
    for_each_rung(|h| {
        let mut registers = h.pattern(0, 0);
        registers.0.set_mxcsr(0x7F80);
        let other = h.pattern(4, every(h));
        let mut memory = saved(h, &registers);
        let after = run(h, &[Step::Load(&other), Step::Restore(memory.base())]);
        same(&after, &registers.0, &format!("{:?}", h.fpu().save_instruction()));
        // SAFETY: C9, C11: an image, and no other code has it.
        assert_eq!(unsafe { h.fpu().image(memory.base()) }.mxcsr(), 0x7F80);
    });
}

#[test]
fn a_first_write_brings_the_rest_of_its_component_initial() {
    for_each_rung(|h| {
        if h.fpu().format() == Format::Legacy {
            return println!("FXSAVE has no absent components: nothing to try");
        }
        let parts = h.parts().to_vec();
        for component in parts {
            let mut memory = Memory::new(h.fpu());
            let len = h.fpu().area_len();
            // Old bytes wherever they do not count.
            memory.0[..24].fill(0xEE);
            memory.0[32..HEADER].fill(0xEE);
            if h.fpu().format() == Format::Compacted {
                memory.0[24..28].fill(0xEE); // MXCSR is absent with SSE
            }
            memory.0[HEADER + 64..len].fill(0xEE);
            let mut expect = RegFile::initial(h.classes());
            // SAFETY: C9, C11: an image, and no other code has it.
            let mut image = unsafe { h.fpu().image_mut(memory.base()) };
            match component {
                Components::X87 => {
                    image.set_st(3, [1; 10]).unwrap();
                    expect.set_x87(3, 0x0101_0101_0101_0101, 0x0101);
                    expect.set_ftw(1 << 3);
                }
                Components::SSE => {
                    image.set_xmm(5, [1; 16]).unwrap();
                    expect.vector_mut(5)[..2].fill(0x0101_0101_0101_0101);
                }
                Components::AVX => {
                    image.set_ymm_hi(5, [1; 16]).unwrap();
                    expect.vector_mut(5)[2..4].fill(0x0101_0101_0101_0101);
                }
                Components::OPMASK => {
                    image.set_opmask(5, 9).unwrap();
                    *expect.mask_mut(5) = 9;
                }
                Components::ZMM_HI256 => {
                    image.set_zmm_hi256(5, [1; 32]).unwrap();
                    expect.vector_mut(5)[4..].fill(0x0101_0101_0101_0101);
                }
                _ => {
                    image.set_zmm_hi16(21, [1; 64]).unwrap();
                    expect.vector_mut(21).fill(0x0101_0101_0101_0101);
                }
            }
            assert_eq!(image.as_image().present(), component);
            let other = h.pattern(5, every(h));
            let after = run(h, &[Step::Load(&other), Step::Restore(memory.base())]);
            same(&after, &expect, &format!("{:?}, {component:?}", h.fpu().save_instruction()));
        }
    });
}

#[test]
fn a_stack_register_written_is_not_empty() {
    for_each_rung(|h| {
        for top in 0..8 {
            let mut memory = Memory::new(h.fpu());
            // SAFETY: C9, C11: an image, and no other code has it.
            let mut image = unsafe { h.fpu().image_mut(memory.base()) };
            image.set_fsw(top << 11);
            image.set_st(2, [0xFF; 10]).unwrap();
            assert_eq!(image.as_image().st(2), Some([0xFF; 10]));
            let after = run(h, &[Step::Restore(memory.base())]);
            assert_eq!((after.fsw(), after.ftw()), (top << 11, 1 << ((top + 2) % 8)));
            assert_eq!(after.x87(2), (u64::MAX, u16::MAX));
        }
    });
}

#[test]
fn writes_that_a_restore_would_refuse_are_refused() {
    let refuses = refuses_reserved_mxcsr();
    for_each_rung(|h| {
        let mut memory = Memory::new(h.fpu());
        let before = memory.0;
        // SAFETY: C9, C11: an image, and no other code has it.
        let mut image = unsafe { h.fpu().image_mut(memory.base()) };
        let mask = h.fpu().mxcsr_mask();
        // Bit 6, DAZ, came later than the others (SDM vol. 1, 10.2.3.4).
        assert_eq!(mask & 0xFFBF, 0xFFBF);
        // AMD has bit 17, so which bits are reserved is asked of the CPU.
        assert_eq!(mask >> 31, 0);
        for bits in (0..32).map(|bit| 1 << bit).filter(|bit| mask & bit == 0) {
            assert_eq!(image.set_mxcsr(0x1F80 | bits), Err(ImageError::ReservedMxcsr { bits }));
        }
        let none = |component, index| Err(ImageError::NoRegister { component, index });
        assert_eq!(image.set_xmm(16, [1; 16]), none(Components::SSE, 16));
        assert_eq!(image.set_st(8, [1; 10]), none(Components::X87, 8));
        for component in [Components::X87, Components::SSE, Components::PKRU, Components::AVX512] {
            let refused = Err(ImageError::NotWritable { component });
            assert_eq!(image.write(component, 0, &[1]), refused);
        }
        let component = Components::AVX;
        if h.fpu().components().contains(component) {
            assert_eq!(image.set_ymm_hi(16, [1; 16]), none(component, 16));
            for at in [255, usize::MAX] {
                let refused = Err(ImageError::OutOfRange { component, at, len: 2 });
                assert_eq!(image.write(component, at, &[1; 2]), refused);
            }
        } else {
            assert_eq!(image.set_ymm_hi(0, [1; 16]), Err(ImageError::NotManaged { component }));
        }
        assert!(memory.0 == before, "a refused write changes nothing");
        // The CPU refuses each bit that the mask does not allow, and accepts all that it does.
        let full = h.pattern(10, every(h));
        if !refuses {
            println!("SKIP: {ANY_MXCSR}");
        }
        for bit in (0..32).filter(|bit| refuses && mask & 1 << bit == 0) {
            let mut spoiled = saved(h, &full);
            spoiled.0[24 + bit / 8] |= 1 << (bit % 8);
            let answer = attempt(h, &[Step::Restore(spoiled.base())]);
            assert_eq!(answer.restored, Err(RestoreFault(13)), "MXCSR bit {bit}");
        }
        // SAFETY: C9, C11: an image, and no other code has it.
        unsafe { h.fpu().image_mut(memory.base()) }.set_mxcsr(mask).unwrap();
        let after = run(h, &[Step::Restore(memory.base())]);
        assert_eq!(after.mxcsr(), mask);
    });
}

/// XSAVEOPT may leave out what has not changed since the restore from the same address: under the
/// protocol (a save only by whom the registers hold) nothing is lost, whatever happens in between.
#[test]
fn leaving_out_the_unmodified_loses_nothing() {
    for_each_rung(|h| {
        let what = format!("{:?}", h.fpu().save_instruction());
        for round in 0..50 {
            let (one, two) = (h.pattern(9 + round, every(h)), h.pattern(1009 + round, every(h)));
            let (mut a, mut b) = (saved(h, &one), saved(h, &two));
            // Untouched since the restore, a save may leave everything out.
            let steps = [Step::Restore(a.base()), Step::Save(a.base()), Step::Restore(b.base())];
            run(h, &steps);
            let after = run(h, &[Step::Restore(a.base())]);
            same(&after, &one.0, &what);
            // Every component alone is changed since the restore.
            for (bit, component) in h.parts().to_vec().into_iter().enumerate() {
                let changed = h.pattern(2009 + round, 1 << bit);
                let mut a = saved(h, &one);
                let at = a.base();
                run(h, &[Step::Restore(at), Step::Load(&changed), Step::Save(at)]);
                let after = run(h, &[Step::Load(&two), Step::Restore(at)]);
                same(&after, &changed.0, &format!("{what}, {component:?}"));
            }
            // A section of the kernel in between: saved before it, restored after it.
            let steps = [
                Step::Restore(a.base()),
                Step::Save(a.base()),
                Step::Defaults(KernelUnits::ALL),
                Step::Restore(a.base()),
                Step::Save(a.base()),
            ];
            run(h, &steps);
            let after = run(h, &[Step::Load(&two), Step::Restore(a.base())]);
            same(&after, &one.0, &format!("{what}, a section in between"));
        }
        println!("{what}: {}", observe_modified_optimisation(h));
    });
}

/// What the thunks below work on.
struct Job<'a> {
    plan: &'a Plan,
    area: NonNull<u8>,
    /// An XMM register's place in the area.
    hole: NonNull<u64>,
    ip: u64,
}

/// Restores, writes to memory behind the backend's back, and saves: against the protocol.
unsafe extern "C" fn poison_between(job: *mut c_void) {
    // SAFETY: a live job; C9: its area; C10: nothing but integers around.
    unsafe {
        let job = &*job.cast::<Job<'_>>();
        if job.plan.restore(job.area).is_ok() {
            job.hole.as_ptr().write_volatile(0xDEAD);
            job.plan.save(job.area);
        }
    }
}

/// Says whether this CPU leaves out of a save what is unmodified, so that one knows what the test above
/// was up against.
fn observe_modified_optimisation(h: &mut RealHarness) -> &'static str {
    let full = h.pattern(99, every(h));
    for _ in 0..100 {
        let mut memory = saved(h, &full);
        let area = memory.base();
        let hole = NonNull::from(&mut memory.0[160 + 16 * 3]).cast();
        let mut job = Job { plan: h.fpu(), area, hole, ip: 0 };
        let mut after = full.0.clone();
        let job = addr_of_mut!(job).cast();
        // SAFETY: C31: the harness's classes. C33: a live job, and integers only.
        unsafe { run_between(&full.0, poison_between, job, &mut after) };
        if memory.word(160 + 16 * 3) == 0xDEAD {
            return "leaves out what is unmodified";
        }
    }
    "saves what is unmodified too"
}

/// A division by zero at a known address, unmasked and so pending (some CPUs save the pointers only
/// then), and a save.
unsafe extern "C" fn divide_and_save(job: *mut c_void) {
    // SAFETY: a live job; the harness resets the x87 unit afterwards, before anything waits for it. C9: its area.
    // C10: only integers around.
    unsafe {
        let job = &mut *job.cast::<Job<'_>>();
        asm!(
            "fninit",
            "push 0x37B",
            "fldcw [rsp]",
            "pop {0}",
            "fld1",
            "fldz",
            "lea {0}, [rip + 2f]",
            "2: fdivp",
            out(reg) job.ip,
        );
        job.plan.save(job.area);
    }
}

#[test]
fn the_x87_instruction_pointer_has_64_bits() {
    if !keeps_x87_pointers() {
        return println!("SKIP: {NO_POINTERS}");
    }
    for_each_rung(|h| {
        let initial = h.pattern(0, 0);
        let (mut memory, mut again) = (Memory::new(h.fpu()), Memory::new(h.fpu()));
        let area = memory.base();
        let mut job = Job { plan: h.fpu(), area, hole: area.cast(), ip: 0 };
        let mut after = initial.0.clone();
        let argument = addr_of_mut!(job).cast();
        // SAFETY: C31: the harness's classes. C33: a live job, and no vector code.
        unsafe { run_between(&initial.0, divide_and_save, argument, &mut after) };
        let ip = job.ip;
        assert!(ip > u64::from(u32::MAX), "the test is linked above 4 GiB");
        run(h, &[Step::Restore(area), Step::Save(again.base())]);
        for area in [area, again.base()] {
            // SAFETY: C9, C11: an image, and no other code has it.
            let image = unsafe { h.fpu().image(area) };
            assert_eq!(image.fip(), ip, "{:?}", h.fpu().save_instruction());
            assert_eq!((image.fcw(), image.fsw() & 0x84), (0x37B, 0x84), "pending");
        }
    });
}
