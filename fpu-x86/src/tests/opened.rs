//! A debugger's calls on a stopped task and on a session, formats of other plans, and frames that change while they are read.

use std::{println, vec, vec::Vec};

use fpu_core::{Error, KernelFpu, KernelUnits};

use crate::{
    components::Components,
    fields::{set, MXCSR},
    foreign::{Beyond, ForeignError, ForeignRules},
    image::{Image, ImageMut},
    plan::Plan,
    regset::tests::{random_area, same, some},
    signal::{DeliverError, SigreturnError},
    tests::{
        corpus,
        sample::{self, Random},
        simulated::{supervisor, Cpu, Soft, Task, Traced, Vector},
        words,
    },
    x87::Selectors,
};

/// A task that ran on CPU 0 with these registers, was switched out there, and is still claimed there.
fn stopped(cpus: &[Cpu], registers: &[u8]) -> Task {
    let task = cpus[0].task();
    cpus[0].enter(&task);
    cpus[0].load(registers);
    task.switch_prepare(&Soft(&cpus[0])).unwrap();
    assert!(task.registers_valid(&Soft(&cpus[0])));
    task
}

fn registers(plan: &Plan, random: &mut Random) -> Vec<u8> {
    let supervisor = plan.components() & Components::SUPERVISOR;
    random_area(plan, some(plan, random) | supervisor, random)
}

/// For every recorded CPU: what a debugger reads is what the task has, what it sets is what the task goes on with, and what
/// is refused changes neither the image nor who claims it.
#[test]
fn a_debugger_reads_and_sets_a_stopped_task() {
    let mut random = Random(51);
    let mut plans = corpus::plans();
    plans.push(("a shadow stack".into(), sample::kernel()));
    let mut set_whole = 0;
    for (name, plan) in &plans {
        let (format, cpus) = (plan.user_format(), Cpu::some(plan, 2));
        for n in 0..6 {
            let (before, wanted) = (registers(plan, &mut random), registers(plan, &mut random));
            let task = stopped(&cpus, &before);
            let has = format.components().contains(Components::PKRU);
            let pkru = has.then(|| random.word() as u32);
            let mut xstate = vec![0; format.xstate_len()];
            {
                let mut proof = Traced(&cpus[1], &task);
                let stopped = task.stopped(&mut proof).unwrap();
                format.write_xstate(&stopped.image(), pkru, &mut xstate).unwrap();
                same(&Image::new(&before, plan), &stopped.image(), name);
            }
            // As it was read, and as a debugger changes it.
            let mut changed = vec![0; format.xstate_len()];
            format.write_xstate(&Image::new(&wanted, plan), pkru, &mut changed).unwrap();
            let mut legacy = [0; 512];
            format.write_prfpreg(&Image::new(&wanted, plan), &mut legacy).unwrap();

            // Refused: MXCSR, where that is looked at; too short.
            let memory = cpus[1].memory(&task);
            let mut wrong = legacy;
            wrong[MXCSR + 3] = 0x80;
            let open = |cpu: &Cpu, bytes: &mut [u8]| {
                let mut pin = Soft(cpu);
                let session = task.open(&mut pin).unwrap().make_memory_valid_read();
                match bytes.len() {
                    512 => format.set_prfpreg(session, bytes).map(|()| None),
                    _ => format.set_xstate(session, bytes),
                }
            };
            let stop = |cpu: &Cpu, bytes: &mut [u8]| {
                let mut proof = Traced(cpu, &task);
                let stopped = task.stopped(&mut proof).unwrap();
                match bytes.len() {
                    512 => format.set_prfpreg(stopped, bytes).map(|()| None),
                    _ => format.set_xstate(stopped, bytes),
                }
            };
            let session = n % 2 == 1;
            let apply = |bytes: &mut [u8]| match session {
                true => open(&cpus[1], bytes),
                false => stop(&cpus[1], bytes),
            };
            let bits = 1 << 31;
            assert_eq!(apply(&mut wrong), Err(ForeignError::ReservedMxcsr { bits }), "{name}");
            let (len, need) = (xstate.len() - 1, xstate.len());
            let refused = apply(&mut xstate.clone()[..len]);
            assert_eq!(refused, Err(ForeignError::WrongLength { len, need }), "{name}");
            assert_eq!(cpus[1].memory(&task), memory, "{name}");
            assert!(task.registers_valid(&Soft(&cpus[0])), "{name}: the claim stands");

            // Taken: the claim ends, and the task has them wherever it runs.
            if n % 3 == 2 {
                assert_eq!(apply(&mut legacy), Ok(None), "{name}");
            } else {
                assert_eq!(apply(&mut changed), Ok(pkru), "{name}");
                set_whole += 1;
            }
            assert!(!task.registers_valid(&Soft(&cpus[0])), "{name}: no claim is left");
            let after = cpus[n % 2].enter(&task);
            let mut expected = before.clone();
            let from = Image::new(&wanted, plan);
            if n % 3 == 2 {
                let mut image = ImageMut::new(&mut expected, plan);
                image.set_x87(&from.x87());
                image.set_mxcsr(from.mxcsr()).unwrap();
                (0..16).for_each(|n| image.set_xmm(n, from.xmm(n).unwrap()).unwrap());
                // As the image has it, beyond what an opcode has.
                expected[6..8].copy_from_slice(&from.fop().to_le_bytes());
                same(&Image::new(&expected, plan), &Image::new(&after, plan), name);
            } else {
                same(&from, &Image::new(&after, plan), name);
            }
            assert_eq!(supervisor(&after, plan), supervisor(&before, plan), "{name}");
        }
    }
    println!("{} plans, {set_whole} sets set", plans.len());
    assert!(plans.len() > 60);
}

/// A task that was not switched out elsewhere is not opened, so nothing of it changes; after every call the CPU is open.
#[test]
fn a_task_that_is_live_elsewhere_is_not_opened() {
    let plan = sample::plan(Components::LEGACY | Components::AVX);
    let cpus = Cpu::some(&plan, 2);
    let live = registers(&plan, &mut Random(52));
    let task = cpus[1].task();
    cpus[1].enter(&task);
    cpus[1].load(&live);
    let elsewhere = Some(Error::LiveElsewhere { cpu: 1 });
    assert_eq!(task.open(&mut Soft(&cpus[0])).err(), elsewhere);
    assert_eq!(task.open_saved(&mut Vector(&cpus[0])).err(), elsewhere);
    assert_eq!(task.stopped(&mut Traced(&cpus[0], &task)).err(), elsewhere);
    assert_eq!(cpus[1].registers(), live);

    let format = plan.user_format();
    let mut buffer = vec![0; 1024];
    let mut pin = Soft(&cpus[1]);
    let section = |pin: &mut Soft<'_>| {
        pin.with_kernel_fpu(Some(task.context()), KernelUnits::NONE, || ()).unwrap();
    };
    for fails in [true, false] {
        let session = task.open(&mut pin).unwrap().make_memory_valid_read();
        let done =
            format.deliver(session, None, &mut buffer, |_| if fails { Err(()) } else { Ok(()) });
        assert_eq!(done.is_err(), fails);
        section(&mut pin);
    }
    for len in [0, 511, 512, 1024] {
        let session = task.open(&mut pin).unwrap().make_memory_valid_read();
        // Bytes of no frame.
        let done = format.sigreturn(session, &mut buffer[..len], |_, bytes| {
            bytes.fill(0xFF);
            Ok::<(), ()>(())
        });
        assert!(matches!(done, Err(SigreturnError::Refused(_))));
        section(&mut pin);
    }
    let session = task.open(&mut pin).unwrap().make_memory_valid_read();
    let short = format.deliver(session, None, &mut buffer[..8], |_| Ok::<(), ()>(()));
    assert!(matches!(short, Err(DeliverError::Image(_))));
    section(&mut pin);
}

/// The format's plan need not be the task's: what the task's cannot hold is refused by field, offset and value.
#[test]
fn frames_of_another_plan_go_in_only_if_they_fit() {
    let large = sample::plan(Components::LEGACY | Components::AVX | Components::AVX512);
    let small = sample::plan(Components::LEGACY | Components::AVX);
    let mut random = Random(53);
    let cpus = Cpu::some(&small, 1);
    let before = registers(&small, &mut random);
    let task = stopped(&cpus, &before);
    let memory = cpus[0].memory(&task);
    let mut put = |present: Components, mxcsr: u32, there: &Plan| {
        let mut area = random_area(there, present, &mut random);
        set(&mut area, MXCSR, mxcsr.to_le_bytes());
        let mut frame = vec![0; 4096];
        let format = there.user_format();
        format.write_frame(&Image::new(&area, there), None, &mut frame).unwrap();
        let mut pin = Soft(&cpus[0]);
        let session = task.open(&mut pin).unwrap().make_memory_valid_read();
        let mut buffer = vec![0; 4096];
        format.sigreturn(session, &mut buffer, |at, bytes| {
            bytes.copy_from_slice(&frame[at..at + bytes.len()]);
            Ok::<(), ()>(())
        })
    };
    let refused = |why| Err(SigreturnError::Refused(why));
    let bits = Components::OPMASK.bits();
    let masks = Components::LEGACY | Components::OPMASK;
    assert_eq!(put(masks, 0x1F80, &large), refused(ForeignError::NotEnabled { bits }));
    let mut other = large.clone();
    other.mxcsr_mask = 0x1_FFFF;
    let bits = 1 << 16;
    assert_eq!(
        put(Components::LEGACY, 0x1_1F80, &other),
        refused(ForeignError::ReservedMxcsr { bits })
    );
    assert_eq!(cpus[0].memory(&task), memory);
    assert!(task.registers_valid(&Soft(&cpus[0])), "the claim stands");
    assert!(put(Components::LEGACY | Components::AVX, 0x1F80, &large).is_ok());
    assert!(!task.registers_valid(&Soft(&cpus[0])));
}

/// Each length of the kernel's buffer that is too short for the frame: refused, with the length that there is and the one
/// that is needed, of a 32-bit program's frame behind FSAVE's image once x87 and SSE are there.
#[test]
fn a_buffer_that_is_too_short_for_a_frame_is_named_by_length() {
    let plan = sample::plan(Components::LEGACY | Components::AVX);
    let (format, cpus) = (plan.user_format(), Cpu::some(&plan, 1));
    let before = registers(&plan, &mut Random(55));
    let task = stopped(&cpus, &before);
    let memory = cpus[0].memory(&task);
    let front = format.frame_len_32() - format.frame_len();
    assert_eq!((front, format.frame_len()), (112, 836));
    for narrow in [false, true] {
        let front = if narrow { front } else { 0 };
        let mut frame = vec![0; front + 836];
        let image = Image::new(&before, &plan);
        let written = match narrow {
            true => format.write_frame_32(&image, Selectors::default(), None, &mut frame),
            false => format.write_frame(&image, None, &mut frame),
        };
        assert_eq!(written, Ok(frame.len()));
        for len in 0..=frame.len() + 8 {
            let (mut buffer, mut fetched) = (vec![0xEE; len], 0);
            let copy = |at: usize, bytes: &mut [u8]| {
                assert_eq!(at, fetched);
                fetched += bytes.len();
                bytes.copy_from_slice(&frame[at..at + bytes.len()]);
                Ok::<(), ()>(())
            };
            let mut pin = Soft(&cpus[0]);
            let session = task.open(&mut pin).unwrap().make_memory_valid_read();
            let returned = match narrow {
                true => format.sigreturn_32(session, &mut buffer, copy),
                false => format.sigreturn(session, &mut buffer, copy),
            };
            let refused =
                |len, need| Err(SigreturnError::Refused(ForeignError::Truncated { len, need }));
            let (expected, due) = match len {
                _ if len < front + 512 => (refused(len, front + 512), 0),
                _ if len < frame.len() => (refused(len - front, 836), len),
                _ => {
                    assert!(returned.is_ok(), "{len}");
                    assert_eq!(fetched, frame.len());
                    continue;
                }
            };
            assert_eq!((returned, fetched), (expected, due), "32 bits: {narrow}, {len}");
            assert_eq!(cpus[0].memory(&task), memory, "{len}");
        }
    }
}

/// What a frame has beyond the plan is refused, left out, or left out and named.
#[test]
fn a_return_names_what_was_left_out_if_it_is_asked_to() {
    let large = sample::plan(Components::LEGACY | Components::AVX | Components::AVX512);
    let small = sample::plan(Components::LEGACY | Components::AVX);
    let (format, cpus) = (small.user_format(), Cpu::some(&small, 1));
    let mut random = Random(56);
    let (masks, shared) = (Components::OPMASK, Components::LEGACY | Components::AVX);
    for present in [shared, shared | masks] {
        let beyond = present.intersection(masks);
        let area = random_area(&large, present, &mut random);
        let image = Image::new(&area, &large);
        let mut frames = [vec![0; 4096], vec![0; 4096]];
        let writer = large.user_format();
        writer.write_frame(&image, None, &mut frames[0]).unwrap();
        let selectors = Selectors::default();
        writer.write_frame_32(&image, selectors, None, &mut frames[1]).unwrap();
        for (narrow, frame) in [false, true].into_iter().zip(&frames) {
            for rule in [Beyond::Refuse, Beyond::Drop, Beyond::Report] {
                let before = registers(&small, &mut random);
                let (rules, task) = (ForeignRules::new().beyond(rule), stopped(&cpus, &before));
                let copy = |at: usize, bytes: &mut [u8]| {
                    bytes.copy_from_slice(&frame[at..at + bytes.len()]);
                    Ok::<(), ()>(())
                };
                let (mut pin, mut buffer) = (Soft(&cpus[0]), vec![0; 4096]);
                let session = task.open(&mut pin).unwrap().make_memory_valid_read();
                let returned = match narrow {
                    true => format.sigreturn_32_by(&rules, session, &mut buffer, copy),
                    false => format.sigreturn_by(&rules, session, &mut buffer, copy),
                };
                let after = cpus[0].enter(&task);
                if rule == Beyond::Refuse && !beyond.is_empty() {
                    let why = ForeignError::NotEnabled { bits: beyond.bits() };
                    assert_eq!((returned, after), (Err(SigreturnError::Refused(why)), before));
                    continue;
                }
                let named = if rule == Beyond::Report { beyond } else { Components::empty() };
                assert_eq!(returned.map(|it| it.beyond), Ok(named), "32 bits: {narrow}, {rule:?}");
                let after = Image::new(&after, &small);
                assert_eq!((after.xmm(7), after.ymm_hi(7)), (image.xmm(7), image.ymm_hi(7)));
            }
        }
    }
}

/// A kernel that does not switch PKRU gets no value of it, whatever the debugger's bytes have.
#[test]
fn a_regset_has_rights_only_for_a_format_that_has_them() {
    // The rights lie in the middle, so the format without them has as many bytes.
    let plan = words::tiles().plan().unwrap();
    let (format, cpus) = (plan.user_format(), Cpu::some(&plan, 1));
    let without = format.without_pkru();
    assert_eq!(without.xstate_len(), format.xstate_len());
    let before = random_area(&plan, Components::LEGACY, &mut Random(57));
    let task = stopped(&cpus, &before);
    for pkru in [None, Some(0), Some(5)] {
        let mut xstate = vec![0; format.xstate_len()];
        format.write_xstate(&Image::new(&before, &plan), pkru, &mut xstate).unwrap();
        for (format, rights) in [(format, Some(pkru.unwrap_or(0))), (without, None)] {
            let mut proof = Traced(&cpus[0], &task);
            let stopped = task.stopped(&mut proof).unwrap();
            assert_eq!(format.set_xstate(stopped, &mut xstate.clone()), Ok(rights), "{pkru:?}");
        }
    }
}

/// Another size than the task's plan has is another register: CPUID decides how large tiles are.
#[test]
fn a_component_of_another_size_does_not_go_into_a_task() {
    let large = words::tiles().plan().unwrap();
    let small = words::tiles().with(0xD, 18, [4096, 2816, 6, 0]).plan().unwrap();
    let cpus = Cpu::some(&small, 1);
    let before = random_area(&small, Components::LEGACY | Components::AVX, &mut Random(58));
    let component = Components::TILEDATA;
    for present in [Components::LEGACY, Components::LEGACY | component] {
        let area = random_area(&large, present, &mut Random(59));
        // SAFETY: C24: no register is restored but simulated ones.
        let format = unsafe { large.user_format().without_pkru().with_tiles() };
        let mut xstate = vec![0; format.xstate_len()];
        format.write_xstate(&Image::new(&area, &large), None, &mut xstate).unwrap();
        let task = stopped(&cpus, &before);
        let memory = cpus[0].memory(&task);
        let mut proof = Traced(&cpus[0], &task);
        let set = format.set_xstate(task.stopped(&mut proof).unwrap(), &mut xstate);
        if present.contains(component) {
            let why = ForeignError::OtherSize { component, offset: 2816, size: 8192 };
            assert_eq!(set, Err(why));
            assert_eq!(cpus[0].memory(&task), memory);
            assert!(task.registers_valid(&Soft(&cpus[0])), "the claim stands");
        } else {
            assert_eq!(set, Ok(None), "what both have goes in");
        }
    }
}

/// A program that changes its frame between the two copies harms itself: what is taken is what the copies gave.
#[test]
fn a_frame_that_changes_while_it_is_read_is_the_copy() {
    let plan = sample::plan(Components::LEGACY | Components::AVX);
    let (format, cpus) = (plan.user_format(), Cpu::some(&plan, 1));
    let mut random = Random(54);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..2000 {
        let mut frames = [0, 1].map(|_| {
            let area = registers(&plan, &mut random);
            let mut frame = vec![0; format.frame_len()];
            format.write_frame(&Image::new(&area, &plan), None, &mut frame).unwrap();
            frame
        });
        for _ in 0..random.below(4) {
            let (frame, at) = (random.below(2) as usize, 464 + random.below(120) as usize);
            frames[frame][at] ^= 1 << random.below(8);
        }
        let before = registers(&plan, &mut random);
        let task = stopped(&cpus, &before);
        let mut pin = Soft(&cpus[0]);
        let session = task.open(&mut pin).unwrap().make_memory_valid_read();
        let (mut buffer, mut copies, mut all) = (vec![0; 1024], 0, Vec::new());
        let returned = format.sigreturn(session, &mut buffer, |at, bytes| {
            // The second copy is of the other frame.
            let from = frames[copies].iter().skip(at).chain(core::iter::repeat(&0xEE));
            bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            all.extend_from_slice(bytes);
            copies += 1;
            Ok::<(), ()>(())
        });
        assert!(copies <= 2);
        let after = cpus[0].enter(&task);
        match (returned, format.read_frame(&mut all)) {
            (Ok(_), Ok(frame)) => {
                same(&frame.valid().image(), &Image::new(&after, &plan), "the copy");
                taken += 1;
            }
            (Err(SigreturnError::Refused(one)), Err(other)) => {
                assert_eq!(one, other);
                assert_eq!(after, before);
                refused += 1;
            }
            (one, other) => panic!("{one:?}, {:?}", other.map(|frame| frame.kind())),
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > 500 && refused > 100);
}
