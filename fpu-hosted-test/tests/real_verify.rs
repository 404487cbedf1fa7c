//! Images of this CPU's real registers compared: on every rung a save agrees with the image that was
//! restored, whatever lies in the two areas, and every register that changes is named.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use core::{
    arch::asm,
    ffi::c_void,
    ptr::{addr_of_mut, NonNull},
};
use fpu_core::{
    observe::Counters,
    verify::{CompareFpu, Difference, Scratch, Verified, VerifyError},
    Area, CpuFpu, CpuLifecycle, Pinned, RawFpu, TaskFpu,
};
use fpu_hosted_test::{
    conformance::{Harness, Step},
    real::{keeps_x87_pointers, random_image, run_between, RegFile, Seen, NO_POINTERS},
    Random,
};
use fpu_x86::{Components, ForeignImage, Format, Plan};

#[path = "support/real.rs"]
mod support;
use support::*;
#[path = "support/witness.rs"]
mod witness;
use witness::Liar;

fn compare(plan: &Plan, one: &mut Memory, other: &mut Memory) -> Result<(), Difference> {
    // SAFETY: C9, C11: images of this plan in areas of ours.
    unsafe { plan.same_state(one.base(), other.base()) }
}

#[test]
fn a_save_agrees_with_the_image_it_was_restored_from() {
    for_each_rung(|h| {
        let full = h.pattern(77, every(h));
        for seed in 0..40 {
            for set in 0..=every(h) {
                let registers = h.pattern(seed, set);
                // The areas hold something else before, or are fresh.
                let mut area = if seed % 2 == 0 { saved(h, &full) } else { Memory::new(h.fpu()) };
                let mut scratch = saved(h, &full);
                let (to, elsewhere) = (area.base(), scratch.base());
                run(h, &[Step::Load(&registers), Step::Save(to), Step::Save(elsewhere)]);
                let what = format!("{:?}, {set:#b}", h.fpu().save_instruction());
                assert_eq!(compare(h.fpu(), &mut area, &mut scratch), Ok(()), "{what}: saved");
                let other = h.pattern(seed + 1000, every(h));
                run(h, &[Step::Load(&other), Step::Restore(to), Step::Save(elsewhere)]);
                assert_eq!(compare(h.fpu(), &mut area, &mut scratch), Ok(()), "{what}: restored");
                // A save where it came from may leave out everything.
                run(h, &[Step::Load(&other), Step::Restore(to), Step::Save(to)]);
                assert_eq!(compare(h.fpu(), &mut area, &mut scratch), Ok(()), "{what}: in place");
            }
        }
    });
}

/// What is changed in a file, and the component and the place in the image that must be named.
type Change = (String, Box<dyn Fn(&mut RegFile)>, Components, usize);

fn changes(plan: &Plan, parts: &[Components]) -> Vec<Change> {
    let mut all: Vec<Change> = Vec::new();
    let mut put = |name: String, change: Box<dyn Fn(&mut RegFile)>, component, offset| {
        all.push((name, change, component, offset));
    };
    put("fcw".into(), Box::new(|f| f.set_fcw(f.fcw() ^ 0x400)), Components::X87, 0);
    put("fsw".into(), Box::new(|f| f.set_fsw(f.fsw() ^ 0x4000)), Components::X87, 2);
    put("ftw".into(), Box::new(|f| f.set_ftw(f.ftw() ^ 0x10)), Components::X87, 4);
    for n in 0..8 {
        let low = Box::new(move |f: &mut RegFile| {
            let (significand, rest) = f.x87(n);
            f.set_x87(n, significand ^ 1, rest);
        });
        put(format!("st{n}"), low, Components::X87, 32 + 16 * n);
        let high = Box::new(move |f: &mut RegFile| {
            let (significand, rest) = f.x87(n);
            f.set_x87(n, significand, rest ^ 0x8000);
        });
        put(format!("the sign of st{n}"), high, Components::X87, 32 + 16 * n);
    }
    put("mxcsr".into(), Box::new(|f| f.set_mxcsr(f.mxcsr() ^ 1)), Components::SSE, 24);
    for n in 0..16 {
        let change = Box::new(move |f: &mut RegFile| f.vector_mut(n)[1] ^= 1 << 63);
        put(format!("xmm{n}"), change, Components::SSE, 160 + 16 * n);
    }
    let place = |component| plan.place(component).map_or(0, |(offset, _)| offset);
    for (component, first, word, bytes) in [
        (Components::AVX, 0, 2, 16),
        (Components::ZMM_HI256, 0, 4, 32),
        (Components::HI16_ZMM, 16, 0, 64),
    ] {
        for n in (0..16).filter(|_| parts.contains(&component)) {
            let change = Box::new(move |f: &mut RegFile| f.vector_mut(first + n)[word] ^= 1);
            let at = place(component) + bytes * n;
            put(format!("{component:?} {}", first + n), change, component, at);
        }
    }
    for n in (0..8).filter(|_| parts.contains(&Components::OPMASK)) {
        let change = Box::new(move |f: &mut RegFile| *f.mask_mut(n) ^= 1);
        put(format!("k{n}"), change, Components::OPMASK, place(Components::OPMASK) + 8 * n);
    }
    all
}

#[test]
fn every_register_that_changes_is_named() {
    for_each_rung(|h| {
        for empty in [false, true] {
            let mut held = h.pattern(5, every(h));
            if empty {
                held.0.set_ftw(0); // the x87 registers are saved all the same
            }
            let mut area = saved(h, &held);
            let mut scratch = Memory::new(h.fpu());
            let all = changes(h.fpu(), h.parts());
            println!("{:?}: {} changes", h.fpu().save_instruction(), all.len());
            for (name, change, component, offset) in all {
                let mut changed = held.clone();
                change(&mut changed.0);
                // As a kernel does it: in the registers, behind the back of who restored.
                let steps =
                    [Step::Restore(area.base()), Step::Load(&changed), Step::Save(scratch.base())];
                run(h, &steps);
                let component = component.number().unwrap();
                let difference = Difference { component, offset: offset as u32 };
                let found = compare(h.fpu(), &mut area, &mut scratch);
                assert_eq!(found, Err(difference), "{:?}: {name}", h.fpu().save_instruction());
            }
        }
    });
}

/// The last instruction's addresses and opcode, where all CPUs keep them.
#[test]
fn the_x87_pointers_count_while_an_exception_is_pending() {
    if !keeps_x87_pointers() {
        return println!("SKIP: {NO_POINTERS}");
    }
    for_each_rung(|h| {
        let mut held = h.pattern(6, every(h));
        for pending in [true, false] {
            held.0.set_fcw(0x37B); // division by zero is not masked
            held.0.set_fsw(if pending { 0x8084 } else { 0 });
            held.0.set_x87_pointers(0x1234_5678_9ABC, 0x7654_3210_FEDC, 0x5EA);
            let (mut area, mut scratch) = (saved(h, &held), Memory::new(h.fpu()));
            run(h, &[Step::Restore(area.base()), Step::Save(scratch.base())]);
            let what = format!("{:?}, pending: {pending}", h.fpu().save_instruction());
            assert_eq!(compare(h.fpu(), &mut area, &mut scratch), Ok(()), "{what}");
            for (fip, fdp, fop, offset) in [
                (0x1234_5678_9ABD, 0x7654_3210_FEDC, 0x5EA, 8),
                (0x1234_5678_9ABC, 0x7655_3210_FEDC, 0x5EA, 16),
                (0x1234_5678_9ABC, 0x7654_3210_FEDC, 0x5EB, 6),
            ] {
                let mut changed = held.clone();
                changed.0.set_x87_pointers(fip, fdp, fop);
                run(h, &[Step::Load(&changed), Step::Save(scratch.base())]);
                let expect = match pending {
                    true => Err(Difference { component: 0, offset }),
                    false => Ok(()),
                };
                assert_eq!(compare(h.fpu(), &mut area, &mut scratch), expect, "{what}");
            }
        }
    });
}

/// Bits that this CPU fixes or computes, in images that it did not make itself: whatever validation or
/// the view lets in, a save after its restore agrees.
#[test]
fn whatever_can_be_written_agrees_after_a_restore() {
    let pointers = keeps_x87_pointers();
    if !pointers {
        println!("SKIP: {NO_POINTERS}");
    }
    for_each_rung(|h| {
        let (plan, full) = (h.fpu().clone(), h.pattern(8, every(h)));
        let what = plan.save_instruction();
        let mut words = Random::new(9);
        let (mut image, mut private) = (Vec::new(), vec![0; plan.foreign_len()]);
        let mut agreed = 0;
        for round in 0..6000 {
            let mut area = saved(h, &full);
            // SAFETY: C9, C11: an image, and no other code has it.
            let mut view = unsafe { plan.image_mut(area.base()) };
            if round % 2 == 0 {
                random_image(&plan, &mut words, &mut image);
                let copy = ForeignImage::copy(&image, &mut private);
                let Ok(valid) = copy.and_then(|foreign| foreign.validate(&plan)) else { continue };
                view.replace_with(&valid).unwrap();
            } else {
                view.set_fcw(words.word() as u16);
                view.set_fsw(words.word() as u16);
                view.set_x87_pointers(words.word(), words.word(), words.word() as u16);
                view.set_tags(words.word() as u8);
                view.set_mxcsr(words.word() as u32 & plan.mxcsr_mask()).unwrap();
            }
            if !pointers {
                view.set_x87_pointers(0, 0, 0);
            }
            let mut scratch = saved(h, &full);
            run(h, &[Step::Restore(area.base()), Step::Save(scratch.base())]);
            let found = compare(&plan, &mut area, &mut scratch);
            assert_eq!(found, Ok(()), "{what:?}, round {round}: a right kernel is accused");
            agreed += 1;
        }
        println!("{what:?}: {agreed} images agreed");
        assert!(agreed > 3000);
    });
}

/// A save elsewhere does not change what the CPU remembers of the last restore: the next save to the
/// task's own area may leave out what is unmodified, and nothing else.
#[test]
fn a_save_elsewhere_leaves_the_next_save_whole() {
    for_each_rung(|h| {
        for (bit, component) in h.parts().to_vec().into_iter().enumerate() {
            for round in 0..30 {
                let one = h.pattern(10 + round, every(h));
                let changed = h.pattern(10 + round, every(h) ^ 1 << bit);
                let other = h.pattern(3000 + round, every(h));
                let (mut area, mut scratch) = (saved(h, &one), Memory::new(h.fpu()));
                let (to, elsewhere) = (area.base(), scratch.base());
                let steps =
                    [Step::Load(&other), Step::Restore(to), Step::Save(elsewhere), Step::Save(to)];
                run(h, &steps);
                let after = run(h, &[Step::Load(&other), Step::Restore(to)]);
                let what = format!("{:?}, {component:?}", h.fpu().save_instruction());
                same(&after, &one.0, &what);
                let steps = [
                    Step::Restore(to),
                    Step::Save(elsewhere),
                    Step::Load(&changed),
                    Step::Save(to),
                    Step::Load(&other),
                    Step::Restore(to),
                ];
                let after = run(h, &steps);
                same(&after, &changed.0, &what);
            }
        }
    });
}

struct Job<'k> {
    cpu: Liar<'k>,
    task: TaskFpu<Plan, Area<16384>>,
    scratch: Scratch<Plan, Area<16384>>,
    found: Option<Result<Verified, VerifyError>>,
    after: Option<bool>,
}

/// Switches the task in and out, computes with vector registers, and asks.
unsafe extern "C" fn computes_in_the_kernel(job: *mut c_void) {
    // SAFETY: a live job.
    let job = unsafe { &mut *job.cast::<Job<'_>>() };
    let entered = job.task.switch_return(&mut job.cpu).map(drop);
    let left = job.task.switch_prepare(&job.cpu);
    if (entered, left) != (Ok(()), Ok(())) {
        return;
    }
    // SAFETY: registers that the compiler is told of.
    unsafe { asm!("pcmpeqd xmm15, xmm15", "pcmpeqd xmm7, xmm7", out("xmm15") _, out("xmm7") _) };
    job.found = Some(job.task.verify_registers(&mut job.cpu, &mut job.scratch));
    job.after = Some(job.task.switch_return(&mut job.cpu).is_ok());
}

#[test]
fn a_kernel_compiled_with_sse_is_found_out() {
    for_each_rung(|h| {
        let (words, plan) = (CpuFpu::new(), h.fpu().clone());
        let mut cpu = Liar { words: &words, plan: &plan, counters: Counters::new() };
        // SAFETY: K15, K16: the only CPU of this kernel, its words new.
        unsafe { cpu.fpu_online(0) }.unwrap();
        let task = TaskFpu::new(cpu.backend(), Area::new()).unwrap();
        let scratch = Scratch::new(cpu.backend(), Area::new()).unwrap();
        let mut job = Box::new(Job { cpu, task, scratch, found: None, after: None });
        let file = RegFile::initial(h.classes());
        let mut dump = file.clone();
        let argument = addr_of_mut!(*job).cast();
        // SAFETY: C31: the harness's classes. C33: a live job; what it leaves in the registers is dumped and
        // not looked at.
        unsafe { run_between(&file, computes_in_the_kernel, argument, &mut dump) };
        let what = format!("{:?}: {:?}", plan.save_instruction(), job.found);
        println!("{what}");
        assert!(matches!(job.found, Some(Err(VerifyError::Disagreement(_)))), "{what}");
        assert_eq!(job.after, Some(true), "{what}");
        let totals = job.cpu.counters.totals();
        assert_eq!((totals.restored, totals.skipped), (2, 0), "{what}: loaded from memory");
    });
}

#[test]
fn absent_components_agree_with_their_initial_values() {
    for_each_rung(|h| {
        if h.fpu().format() == Format::Legacy {
            return println!("FXSAVE has no absent components: nothing to try");
        }
        let initial: Seen = h.pattern(0, 0);
        let (mut area, mut fresh) = (saved(h, &initial), Memory::new(h.fpu()));
        for (bit, component) in h.parts().to_vec().into_iter().enumerate() {
            let registers = h.pattern(4, 1 << bit);
            let mut other = saved(h, &registers);
            let found = compare(h.fpu(), &mut fresh, &mut other).map_err(|found| found.component);
            assert_eq!(found, Err(component.number().unwrap()));
        }
        for bits in [0, h.fpu().components().bits()] {
            // Zeros in every place; the header says that they count, or that they do not.
            let mut image = Memory::new(h.fpu());
            image.0[HEADER..HEADER + 8].copy_from_slice(&bits.to_le_bytes());
            let base: NonNull<u8> = image.base();
            run(h, &[Step::Restore(base), Step::Save(area.base())]);
            for other in [&mut area, &mut fresh] {
                assert_eq!(compare(h.fpu(), &mut image, other), Ok(()), "{bits:#x}");
            }
        }
    });
}
