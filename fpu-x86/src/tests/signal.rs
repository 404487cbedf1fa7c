//! Frames: what is written is read again as it was, for every recorded plan; what counts of one, and what is refused.

use std::{println, string::ToString, vec, vec::Vec};

use super::{fsave::FRONT, *};
use crate::{
    fields::MXCSR,
    foreign::Beyond,
    image::{write_initial, ImageMut},
    plan::Plan,
    regset::tests::{no_residue, random_area, same, some},
    save_instruction::{Format, SaveInstruction},
    tests::{
        corpus,
        sample::{self, Random},
        words,
    },
    x87::Selectors,
};

/// As on Goldmont and Tremont: Linux sets OSXSAVE there, so its frames and its NT_X86_XSTATE have the header.
#[test]
fn a_system_without_avx_has_frames_with_a_header() {
    let plan = sample::plan(Components::LEGACY);
    let format = plan.user_format();
    assert_eq!((format.frame_len(), format.xstate_len()), (580, 576));
}

#[test]
fn frames_of_every_recorded_plan_are_read_as_they_were_written() {
    let mut random = Random(31);
    let plans = corpus::plans();
    let (mut full, mut legacy) = (0, 0);
    for (name, plan) in &plans {
        let format = plan.user_format();
        for n in 0..20 {
            let area = random_area(plan, some(plan, &mut random), &mut random);
            let image = Image::new(&area, plan);
            let has = format.components().contains(Components::PKRU);
            let pkru = (has && random.word() % 4 != 0).then(|| random.word() as u32);
            let narrow = n % 2 == 1;
            let selectors = Selectors { instruction: random.word() as u16, operand: n };
            let front = if narrow { FRONT } else { 0 };
            let len = front + format.frame_len();
            let mut out = vec![0xEE; len + 5];
            let written = match narrow {
                true => format.write_frame_32(&image, selectors, pkru, &mut out),
                false => format.write_frame(&image, pkru, &mut out),
            };
            assert_eq!(written, Ok(len), "{name}");
            assert!(out[len..].iter().all(|byte| *byte == 0xEE), "{name}");
            let frame = &out[front..len];
            let header = plan.format() != Format::Legacy;
            let image_len = if header { frame.len() - 4 } else { frame.len() };
            no_residue(&frame[..image_len], plan, header, name);
            let first = frame[..512].try_into().unwrap();
            assert_eq!(format.frame_bytes(&first, LARGEST), frame.len(), "{name}");
            if header {
                assert_eq!(frame[512] & 3, 3, "{name}: x87 and SSE are always there");
            }
            let mut copy = out[..len].to_vec();
            let read = match narrow {
                true => format.read_frame_32(&mut copy),
                false => format.read_frame(&mut copy),
            };
            let read = read.unwrap_or_else(|why| panic!("{name}: {why}"));
            match read.kind() {
                FrameKind::Full(components) => {
                    assert_eq!(components, format.frame_components(), "{name}");
                    full += 1;
                }
                FrameKind::Legacy(why) => {
                    assert_eq!((why, header), (LegacyOnly::Software, false), "{name}");
                    legacy += 1;
                }
            }
            assert_eq!(read.pkru(), has.then(|| pkru.unwrap_or(0)), "{name}");
            let mut area = random_area(plan, some(plan, &mut random), &mut random);
            let mut task = ImageMut::new(&mut area, plan);
            task.replace_with(read.valid()).unwrap();
            if narrow {
                // FSAVE holds the lower halves of the addresses.
                let mut expected = image.x87();
                (expected.fip, expected.fdp) =
                    (expected.fip & 0xFFFF_FFFF, expected.fdp & 0xFFFF_FFFF);
                expected.fop &= 0x7FF;
                assert_eq!(task.as_image().x87(), expected, "{name}");
                task.set_x87(&image.x87());
                let mut wide = area.clone();
                // As the image has them, beyond what an opcode has.
                wide[6..8].copy_from_slice(&image.fop().to_le_bytes());
                same(&image, &Image::new(&wide, plan), name);
            } else {
                same(&image, &task.as_image(), name);
            }
        }
    }
    println!("{} plans, {full} full frames, {legacy} of FXSAVE's", plans.len());
    assert!(plans.len() > 60 && full > 1000 && legacy > 20);
}

/// AVX-512, and nothing else: 2688 bytes.
fn plan() -> Plan {
    sample::plan(Components::LEGACY | Components::AVX | Components::AVX512)
}

/// A frame with all registers random.
fn frame(plan: &Plan) -> Vec<u8> {
    let area = random_area(plan, plan.components(), &mut Random(8));
    let mut out = vec![0; plan.user_format().frame_len()];
    plan.user_format().write_frame(&Image::new(&area, plan), None, &mut out).unwrap();
    out
}

fn with(frame: &[u8], at: usize, value: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + value.len()].copy_from_slice(value);
    frame
}

#[test]
fn software_words_that_do_not_fit_leave_the_legacy_area() {
    let plan = plan();
    let frame = frame(&plan);
    let word = |value: u32| value.to_le_bytes();
    let size = |value| LegacyOnly::XstateSize { value };
    let magic2 = |offset, value| LegacyOnly::Magic2 { offset, value };
    let at = |offset: usize| u32_at(&frame, offset);
    for (bytes, why) in [
        (with(&frame, 464, &word(0)), LegacyOnly::Magic1 { value: 0 }),
        (with(&frame, 464, &word(MAGIC2)), LegacyOnly::Magic1 { value: MAGIC2 }),
        (with(&frame, 480, &word(0)), size(0)),
        (with(&frame, 480, &word(575)), size(575)),
        (with(&frame, 480, &word(LARGEST as u32 + 1)), size(LARGEST as u32 + 1)),
        (with(&frame, 480, &word(u32::MAX)), size(u32::MAX)),
        (with(&frame, 468, &word(2687)), LegacyOnly::ExtendedSize { value: 2687 }),
        (with(&frame, 468, &word(0)), LegacyOnly::ExtendedSize { value: 0 }),
        (with(&frame, 480, &word(832)), magic2(832, at(832))),
        (with(&frame, 2688, &word(MAGIC1)), magic2(2688, MAGIC1)),
    ] {
        let mut copy = bytes.clone();
        let read = plan.user_format().read_frame(&mut copy).unwrap();
        assert_eq!(read.kind(), FrameKind::Legacy(why));
        assert!(!why.to_string().is_empty());
        let image = read.valid().image();
        assert_eq!(image.present(), Components::LEGACY);
        assert_eq!(
            (&image.xmm(15).unwrap()[..], image.ymm_hi(15)),
            (&bytes[400..416], Some([0; 16]))
        );
        // Bytes behind do not matter, nor is there any need of them.
        let mut short = bytes[..512].to_vec();
        if !matches!(why, LegacyOnly::Magic2 { .. }) {
            assert!(plan.user_format().read_frame(&mut short).is_ok());
        }
    }
    // Nothing lies between the image and the end of all: as for Linux, that is no reason to refuse.
    let format = plan.user_format();
    let mut equal = with(&frame, 468, &word(2688));
    let kind = format.read_frame(&mut equal).map(|read| read.kind());
    assert_eq!(kind, Ok(FrameKind::Full(format.frame_components())));
    // What has not been copied is not taken for missing.
    for len in [512, 2688, 2691] {
        let refused = plan.user_format().read_frame(&mut frame[..len].to_vec()).map(drop);
        assert_eq!(refused, Err(ForeignError::Truncated { len, need: 2692 }));
    }
    let refused = plan.user_format().read_frame(&mut [0; 511]).map(drop);
    assert_eq!(refused, Err(ForeignError::Truncated { len: 511, need: 512 }));
}

#[test]
fn frames_of_smaller_and_larger_machines_say_where_their_end_is() {
    let (small, large) =
        (sample::plan(Components::LEGACY | Components::AVX), sample::plans().remove(0));
    let plan = plan();
    for from in [&small, &large] {
        let present = from.components() & (Components::LEGACY | Components::AVX);
        let area = random_area(from, present, &mut Random(5));
        let image = Image::new(&area, from);
        let mut out = vec![0; from.user_format().frame_len()];
        from.user_format().write_frame(&image, None, &mut out).unwrap();
        let read = plan.user_format().read_frame(&mut out).unwrap();
        assert_eq!(read.kind(), FrameKind::Full(from.user_format().frame_components()));
        same(&image, &read.valid().image(), "another machine");
    }
    // Nothing of it fits behind its own end.
    let mut short = frame(&plan);
    short[480..484].copy_from_slice(&832u32.to_le_bytes());
    short[832..836].copy_from_slice(&MAGIC2.to_le_bytes());
    let refused = plan.user_format().read_frame(&mut short).map(drop);
    assert_eq!(refused, Err(ForeignError::Truncated { len: 832, need: 1152 }));
    // What the other one has more than this machine.
    let mut area = random_area(
        &large,
        large.components() & !Components::AMX & !Components::BNDCSR,
        &mut Random(6),
    );
    area[514] |= 2;
    let image = Image::new(&area, &large);
    assert!(image.present().contains(Components::BNDREGS));
    let mut out = vec![0; large.user_format().frame_len()];
    area = area.clone();
    let (tilecfg, _) = large.place(Components::TILECFG).unwrap();
    area[tilecfg..tilecfg + 64].fill(0);
    large.user_format().write_frame(&Image::new(&area, &large), Some(9), &mut out).unwrap();
    let refused = plan.user_format().read_frame(&mut out.clone()).map(drop);
    let bits = (Components::BNDREGS | Components::PKRU).bits();
    assert_eq!(refused, Err(ForeignError::NotEnabled { bits }));
    let rules = ForeignRules::new().beyond(Beyond::Report);
    let read = plan.user_format().read_frame_by(&rules, &mut out).unwrap();
    assert_eq!(read.valid().beyond().bits(), bits);
    assert_eq!(read.pkru(), None);

    let mut out = vec![0; large.user_format().frame_len_32()];
    let image = Image::new(&area, &large);
    large.user_format().write_frame_32(&image, Selectors::default(), Some(9), &mut out).unwrap();
    let refused = plan.user_format().read_frame_32(&mut out.clone()).map(drop);
    assert_eq!(refused, Err(ForeignError::NotEnabled { bits }));
    let read = plan.user_format().read_frame_32_by(&rules, &mut out).unwrap();
    assert_eq!(read.valid().beyond().bits(), bits);
    assert_eq!(read.valid().image().xmm(3), image.xmm(3));
}

#[test]
fn only_the_components_that_software_names_are_taken() {
    let plan = plan();
    let frame = frame(&plan);
    for named in [0, 1, 2, 3, 4, 0x27, 0xE6, 0xE7, u64::MAX] {
        let mut bytes = with(&frame, 472, &named.to_le_bytes());
        let read = plan.user_format().read_frame(&mut bytes).unwrap();
        let image = read.valid().image();
        assert_eq!(image.present().bits(), 0xE7 & named);
        let mxcsr = if named & 2 != 0 { u32_at(&frame, MXCSR) } else { 0x1F80 };
        assert_eq!(image.mxcsr(), mxcsr, "{named:#x}");
        let mut area = random_area(&plan, plan.components(), &mut Random(9));
        let mut task = ImageMut::new(&mut area, &plan);
        task.replace_with(read.valid()).unwrap();
        same(&image, &task.as_image(), "a task");
    }
    // Bits of MXCSR are looked at only where it is loaded.
    let wrong = with(&frame, MXCSR, &u32::MAX.to_le_bytes());
    let refused = plan.user_format().read_frame(&mut wrong.clone()).map(drop);
    assert!(matches!(refused, Err(ForeignError::ReservedMxcsr { .. })));
    let mut unasked = with(&wrong, 472, &1u64.to_le_bytes());
    assert!(plan.user_format().read_frame(&mut unasked).is_ok());
}

#[test]
fn refusals_name_field_offset_and_value() {
    let plan = plan();
    let frame = frame(&plan);
    for (at, value, field, said) in [
        (24, &[0xFF; 4][..], "MXCSR", 0xFFFF_0000),
        (514, &[1], "XSTATE_BV", 1 << 16),
        (519, &[0x10], "XSTATE_BV", 1 << 60),
        (520, &[1], "XCOMP_BV", 1),
        (527, &[0x80], "XCOMP_BV", 1 << 63),
        (540, &[9], "reserved", 9),
    ] {
        let before = with(&frame, at, value);
        let mut bytes = before.clone();
        let refused = plan.user_format().read_frame(&mut bytes).map(drop).unwrap_err();
        let offset = if field == "XSTATE_BV" {
            512
        } else if field == "XCOMP_BV" {
            520
        } else {
            at
        };
        assert_eq!((refused.field(), refused.offset(), refused.value()), (field, offset, said));
        assert_eq!(bytes, before, "nothing was changed");
    }
}

#[test]
fn a_32_bit_frame_has_x87_in_front() {
    let plan = plan();
    let area = random_area(&plan, plan.components(), &mut Random(10));
    let image = Image::new(&area, &plan);
    let format = plan.user_format();
    let mut out = vec![0; format.frame_len_32()];
    format.write_frame_32(&image, Selectors::default(), None, &mut out).unwrap();
    assert_eq!(out.len(), 112 + 2692);
    assert_eq!((u32_at(&out, 108) as u16, out[110], out[111]), (image.fsw(), 0, 0));
    // The size of all counts FSAVE's part, that of the image does not.
    assert_eq!((u32_at(&out, 112 + 468), u32_at(&out, 112 + 480)), (112 + 2692, 2688));
    // A handler changes the control word in the one place that counts.
    out[..2].copy_from_slice(&0x27Fu16.to_le_bytes());
    let read = format.read_frame_32(&mut out).unwrap();
    assert_eq!((read.valid().image().fcw(), read.valid().image().st(3)), (0x27F, image.st(3)));
    for len in [0, 107, 112, 623] {
        let refused = format.read_frame_32(&mut out[..len]).map(drop);
        assert_eq!(refused, Err(ForeignError::Truncated { len, need: 624 }));
    }
    // Only FXSAVE's part behind it.
    let mut short = out[..624].to_vec();
    short[112 + 464..112 + 468].fill(0);
    let read = format.read_frame_32(&mut short).unwrap();
    assert_eq!(read.kind(), FrameKind::Legacy(LegacyOnly::Magic1 { value: 0 }));
}

#[test]
fn a_frame_has_tiles_with_permission_only() {
    let plan = words::tiles().plan().unwrap();
    let format = plan.user_format();
    // SAFETY: C24: nothing is restored.
    let with = unsafe { format.with_tiles() };
    assert_eq!((format.frame_len(), with.frame_len()), (2820, 11012));
    assert_eq!((format.min_signal_stack(736 + FRONT), with.min_signal_stack(0)), (3760, 11104));
    let mut area = vec![0; plan.area_len()];
    write_initial(&mut area, &plan);
    area[514] |= 4;
    let image = Image::new(&area, &plan);
    let mut out = vec![0xEE; with.frame_len()];
    let tiles = ImageError::NotManaged { component: Components::TILEDATA };
    assert_eq!(format.write_frame(&image, None, &mut out), Err(tiles));
    assert!(out.iter().all(|byte| *byte == 0xEE));
    assert_eq!(with.write_frame(&image, None, &mut out), Ok(11012));
    out[2816] = 1;
    let mut copy = out.clone();
    let read = with.read_frame(&mut copy).unwrap();
    assert!(read.valid().image().present().contains(Components::TILEDATA));
    // The other task's permission does not help this one; as for Linux, XSTATE_BV may have them.
    let refused = format.read_frame(&mut out.clone()).map(drop);
    assert_eq!(refused, Err(ForeignError::NotPermitted { bits: 1 << 18 }));
}

#[test]
fn a_frame_without_rights_has_the_initial_ones() {
    let plan = words::server().plan().unwrap();
    let format = plan.user_format();
    let mut area = vec![0; plan.area_len()];
    write_initial(&mut area, &plan);
    let mut out = vec![0; format.frame_len()];
    format.write_frame(&Image::new(&area, &plan), Some(0x5555_5554), &mut out).unwrap();
    let rights = |bytes: &[u8]| format.read_frame(&mut bytes.to_vec()).unwrap().pkru();
    assert_eq!(rights(&out), Some(0x5555_5554));
    assert_eq!(rights(&with(&out, 513, &[0])), Some(0), "absent");
    assert_eq!(rights(&with(&out, 472, &0xE7u64.to_le_bytes())), Some(0), "not named");
    assert_eq!(rights(&with(&out, 464, &[0; 4])), Some(0), "x87 and SSE only");
    // A kernel that does not switch them has no place for them, and no opinion.
    let without = format.without_pkru();
    assert_eq!(without.frame_len(), 2692);
    let refused = without.write_frame(&Image::new(&area, &plan), Some(1), &mut out);
    assert_eq!(refused, Err(ImageError::NotManaged { component: Components::PKRU }));
    assert_eq!(without.read_frame(&mut out).unwrap().pkru(), None);
    // Nor has a frame of FXSAVE.
    let plan = sample::plan(Components::LEGACY).with_save_instruction(SaveInstruction::Fxsave);
    let plan = plan.unwrap();
    let (format, mut area) = (plan.user_format(), vec![0; plan.area_len()]);
    write_initial(&mut area, &plan);
    let (image, mut out) = (Image::new(&area, &plan), vec![0xEE; format.frame_len_32()]);
    assert_eq!(format.frame_len(), 512);
    for pkru in [0, 1] {
        assert_eq!(format.write_frame(&image, Some(pkru), &mut out), refused);
        let narrow = format.write_frame_32(&image, Selectors::default(), Some(pkru), &mut out);
        assert_eq!((narrow, out.iter().all(|byte| *byte == 0xEE)), (refused, true));
    }
    assert_eq!(format.write_frame(&image, None, &mut out), Ok(512));
}

/// The FPU's part at a multiple of 64, the whole below it at a multiple of 16, and as Linux has it 8 less.
#[test]
fn the_least_signal_stack_has_room_wherever_it_ends() {
    for (name, plan) in corpus::plans() {
        let format = plan.user_format();
        for other in (0..1024).step_by(8) {
            let least = format.min_signal_stack(other);
            let taken = |end: usize| {
                let part = (end - format.frame_len()) & !63;
                end - (((part - other) & !15) - 8)
            };
            let most = (65_536..65_600).map(taken).max().unwrap();
            assert!((most..most + 32).contains(&least), "{name}: {least}, and {other}: {most}");
            assert_eq!(least % 16, 0, "{name}");
        }
        assert!(format.min_signal_stack(usize::MAX) > usize::MAX - 16, "{name}");
    }
}

/// Where CPUID puts the highest component, up to the 1 MiB that a plan takes.
#[test]
fn frames_of_odd_words_are_read_however_long_they_are() {
    let mut random = Random(83);
    for offset in [15_360, 15_361, 16_384, 1 << 19, (1 << 20) - 1024] {
        let words = words::server().with(0xD, 7, [1024, offset, 0, 0]);
        for plan in [words.plan().unwrap(), words.kernel(Components::USER).unwrap()] {
            let (format, len) = (plan.user_format(), offset as usize + 1024);
            let area = random_area(&plan, plan.user_components(), &mut random);
            let image = Image::new(&area, &plan);
            let mut frame = vec![0; len + 4];
            assert_eq!(format.write_frame(&image, None, &mut frame), Ok(len + 4));
            let first = frame[..512].try_into().unwrap();
            assert_eq!(format.frame_bytes(&first, 1 << 21), len + 4);
            let read = format.read_frame(&mut frame).unwrap();
            assert_eq!(read.kind(), FrameKind::Full(format.components()));
            same(&read.valid().image(), &image, "a long frame");
        }
    }
}

/// Bytes of any kind: an answer, and no more of them looked at than there are.
#[test]
fn random_frames_are_taken_or_refused() {
    let mut random = Random(12);
    let (mut full, mut legacy, mut refused) = (0, 0, 0);
    for plan in sample::plans() {
        for _ in 0..300 {
            let area = random_area(&plan, some(&plan, &mut random), &mut random);
            let mut out = vec![0; plan.user_format().frame_len()];
            plan.user_format().write_frame(&Image::new(&area, &plan), None, &mut out).unwrap();
            for _ in 0..random.word() % 4 {
                let from = [24, 464, 468, 472, 480, 512, 520, out.len() - 4];
                let at = from[random.word() as usize % from.len()] + random.word() as usize % 4;
                let at = at.min(out.len() - 1);
                out[at] ^= 1 << (random.word() % 8);
            }
            if random.word() % 8 == 0 {
                out.truncate(random.word() as usize % (out.len() + 1));
            }
            match plan.user_format().read_frame(&mut out) {
                Ok(read) => {
                    let mut area = random_area(&plan, some(&plan, &mut random), &mut random);
                    let mut task = ImageMut::new(&mut area, &plan);
                    task.replace_with(read.valid()).unwrap();
                    same(&read.valid().image(), &task.as_image(), "a random frame");
                    match read.kind() {
                        FrameKind::Full(_) => full += 1,
                        FrameKind::Legacy(_) => legacy += 1,
                    }
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("{full} full, {legacy} legacy only, {refused} refused");
    assert!(full > 300 && legacy > 300 && refused > 300);
}
