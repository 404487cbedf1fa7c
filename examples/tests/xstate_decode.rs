//! What `xstate decode` reads: images that this CPU wrote, core files, and damaged ones.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{ffi::c_void, ptr::NonNull};

use fpu_core::{Area as Memory, RawFpu, SaveArea};
use fpu_examples::{
    report::Style,
    xstate::{
        area::{Area, Kind, Software},
        decode::{self, Origin},
        words::Words,
    },
};
use fpu_hosted_test::{
    real::{run_between, Classes, RegFile},
    Random,
};
use fpu_x86::{Components, CpuidInfo, ForeignImage, Format, Plan, SaveInstruction};

/// What a thunk saves to.
struct Target<'a> {
    plan: &'a Plan,
    area: NonNull<u8>,
}

unsafe extern "C" fn save(target: *mut c_void) {
    // SAFETY: C33: `image` passes a `Target`, which outlives the call.
    let target = unsafe { &*target.cast::<Target<'_>>() };
    // SAFETY: C9: the area is the caller's own, and large enough.
    unsafe { target.plan.save(target.area) };
}

/// The area that this CPU writes with the registers holding what `registers` holds.
fn image(plan: &Plan, registers: &RegFile) -> Vec<u8> {
    let area = Memory::<16384>::new();
    assert!(plan.area_len() <= 16384);
    // SAFETY: C9: the area is our own, and large enough.
    unsafe { plan.write_initial(area.base()) };
    let mut target = Target { plan, area: area.base() };
    let mut after = registers.clone();
    // SAFETY: C31: the classes were detected. C33: `save` takes a `Target`, and is one instruction
    // and two compares.
    unsafe { run_between(registers, save, (&raw mut target).cast(), &mut after) };
    let written: *const u8 = area.base().as_ptr();
    // SAFETY: valid area (C9); `write_initial` has initialised it, and nothing writes any more.
    unsafe { std::slice::from_raw_parts(written, plan.area_len()) }.to_vec()
}

/// A plan for each instruction that can be used here.
fn plans() -> Vec<Plan> {
    let best = Plan::detect_user(Components::all()).expect("a plan");
    SaveInstruction::ALL
        .into_iter()
        .filter_map(|rung| best.clone().with_save_instruction(rung).ok())
        .collect()
}

fn facts() -> CpuidInfo {
    CpuidInfo::from_cpuid(Words::of_this_cpu()).expect("a CPU")
}

fn decoded(bytes: &[u8]) -> Result<String, String> {
    let facts = facts();
    let origin = Origin { facts: &facts, named: false, plan: None };
    decode::file(bytes, origin, Style::detect()).map_err(|why| why.to_string())
}

#[test]
fn what_this_cpu_saves_is_what_is_decoded() {
    let classes = Classes::detect();
    let registers = RegFile::pattern(0x5EED, classes);
    let facts = facts();
    for plan in plans() {
        let bytes = image(&plan, &registers);
        let area = Area::new(&bytes, 0, &facts).expect("well-formed");
        assert_eq!(format!("{:?}", area.kind), format!("{:?}", plan.format()));
        // The file holds neither bounds nor tiles; whether the CPU calls them in use is its own affair.
        let due = plan.components().difference(Components::MPX | Components::AMX).bits();
        assert_eq!(area.present & due, due, "what is not initial is in use");
        assert_eq!(area.present & !plan.components().bits(), 0);
        assert_eq!((area.word(0), area.word(2)), (registers.fcw(), registers.fsw()));
        assert_eq!(area.mxcsr(), Some(registers.mxcsr()));
        let wide = [Components::SSE, Components::AVX, Components::ZMM_HI256, Components::HI16_ZMM];
        let held = wide.map(|component| plan.components().contains(component));
        for n in 0..32 {
            let expected: Vec<u8> =
                registers.vector(n).iter().flat_map(|word| word.to_le_bytes()).collect();
            let used = match n {
                0..16 => [(16, held[0]), (32, held[1]), (64, held[2])],
                _ => [(0, true), (0, true), (64, held[3])],
            };
            let used =
                used.iter().filter(|(_, held)| *held).map(|(len, _)| *len).max().unwrap_or(0);
            let seen = area.vector(n);
            assert_eq!(seen[..used], expected[..used], "vector {n}, {:?}", plan.save_instruction());
            assert!(seen[used..].iter().all(|byte| *byte == 0), "vector {n}");
        }
        for n in 0..8 {
            let (significand, head) = registers.x87(n);
            let register = area.st(n);
            assert_eq!(register[..8], significand.to_le_bytes());
            assert_eq!(register[8..], head.to_le_bytes());
        }
        let origin = Origin { facts: &facts, named: false, plan: Some(&plan) };
        let shown = decode::file(&bytes, origin, Style::detect()).expect("well-formed");
        let verdict = shown.contains("a task of this machine could have these registers");
        assert_eq!(verdict, plan.format() != Format::Compacted, "{shown}");
        if plan.components().contains(Components::AVX512) {
            let row = [7, 6, 5, 4].map(|n| format!("{:016x}", registers.vector(17)[n])).join("_");
            assert!(shown.contains(&format!("zmm17  {row}\n")), "{shown}");
            assert!(shown.contains(&format!("k5     {:016x}\n", registers.mask(5))), "{shown}");
        }
        assert!(shown.contains(&format!("  {:#010x}  ", registers.mxcsr())), "{shown}");
    }
}

#[test]
fn absent_components_are_said_to_be_initial() {
    // The CPU may leave out what is initial, and need not (SDM vol. 1, 13.6).
    let registers = RegFile::initial(Classes::detect());
    let optimised = |plan: &Plan| {
        matches!(plan.save_instruction(), SaveInstruction::Xsavec | SaveInstruction::Xsaveopt)
    };
    for plan in plans().iter().filter(|plan| optimised(plan)) {
        let bytes = image(plan, &registers);
        let shown = decoded(&bytes).expect("well-formed");
        if bytes[512] & 1 != 0 {
            println!(
                "SKIP: {:?}: this CPU calls initial x87 registers in use",
                plan.save_instruction()
            );
            continue;
        }
        let initial = shown.lines().find(|line| line.starts_with("initial "));
        assert!(
            initial.is_some_and(|line| line.contains("X87")),
            "{:?}: {shown}",
            plan.save_instruction()
        );
        assert!(!shown.contains("FCW"), "{shown}");
    }
    // Old bytes in the place of an absent component are nothing.
    let registers = RegFile::pattern(3, Classes::detect());
    for plan in plans().iter().filter(|plan| plan.save_instruction() != SaveInstruction::Fxsave) {
        let mut bytes = image(plan, &registers);
        bytes[512..520].fill(0);
        let shown = decoded(&bytes).expect("well-formed");
        for word in ["zmm", "ymm", "xmm", "FCW", "OPMASK  "] {
            assert!(!shown.contains(word), "{:?}: {shown}", plan.save_instruction());
        }
        for (name, _) in plan.components().iter_names().filter(|(_, one)| one.number().is_some()) {
            assert!(shown[shown.find("initial").unwrap_or(0)..].contains(name), "{shown}");
        }
        // With SSE present, the upper parts of the same registers are still absent.
        bytes[512..520].copy_from_slice(&Components::LEGACY.bits().to_le_bytes());
        let partly = decoded(&bytes).expect("well-formed");
        assert!(partly.contains("xmm15 ") && !partly.contains("ymm"), "{partly}");
        assert!(!partly.contains("zmm"), "{partly}");
        // In the standard format MXCSR is loaded even then.
        let mxcsr = format!("MXCSR       {:#010x}", registers.mxcsr());
        assert_eq!(
            shown.contains(&mxcsr),
            plan.save_instruction() != SaveInstruction::Xsavec,
            "{shown}"
        );
    }
}

/// Notes as in a core file, in one segment.
fn core(notes: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let padded = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(4), 0);
    let mut segment = Vec::new();
    for (owner, kind, desc) in notes {
        for word in [owner.len() as u32 + 1, desc.len() as u32, *kind] {
            segment.extend(word.to_le_bytes());
        }
        segment.extend(owner.as_bytes());
        segment.push(0);
        padded(&mut segment);
        segment.extend(*desc);
        padded(&mut segment);
    }
    let mut file = vec![0; 64 + 56];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &4u16.to_le_bytes()); // e_type
    put(18, &62u16.to_le_bytes()); // e_machine
    put(32, &64u64.to_le_bytes()); // e_phoff
    put(54, &56u16.to_le_bytes()); // e_phentsize
    put(56, &1u16.to_le_bytes()); // e_phnum
    put(64, &4u32.to_le_bytes()); // p_type
    put(72, &120u64.to_le_bytes()); // p_offset
    put(96, &(segment.len() as u64).to_le_bytes()); // p_filesz
    file.extend(segment);
    file
}

/// An area of a CPU that places AVX at 640 and PKRU at 576, as a kernel dumps it.
fn foreign() -> (Vec<u8>, Vec<u8>) {
    let mut area = vec![0; 896];
    let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0x37Fu16.to_le_bytes());
    put(24, &0x1F80u32.to_le_bytes());
    put(28, &0xFFFFu32.to_le_bytes());
    put(160, &[0x11; 16]);
    put(464, &0x207u64.to_le_bytes());
    put(512, &0x206u64.to_le_bytes());
    put(576, &0x24u32.to_le_bytes());
    put(640, &[0x22; 16]);
    let record = [[2u32, 256, 640, 0], [9, 8, 576, 0]];
    (area, record.iter().flatten().flat_map(|word| word.to_le_bytes()).collect())
}

#[test]
fn core_files_are_decoded_thread_by_thread() {
    let (area, layout) = foreign();
    let mut status = [vec![0; 336], vec![0; 336]];
    for (status, pid) in status.iter_mut().zip([4711u32, 4712]) {
        status[32..36].copy_from_slice(&pid.to_le_bytes());
    }
    let file = core(&[
        ("CORE", 1, &status[0]),
        ("CORE", 2, &area[..512]),
        ("LINUX", 0x202, &area),
        ("LINUX", 0x205, &layout),
        ("CORE", 1, &status[1]),
        ("LINUX", 0x202, &area),
    ]);
    let shown = decoded(&file).expect("well-formed");
    for line in [
        "thread 1, process 4711",
        "thread 2, process 4712",
        "places    AVX 640+256 PKRU 576+8",
        "ymm0   2222222222222222_2222222222222222_1111111111111111_1111111111111111",
        "PKRU        0x00000024  1 no access, 2 read only",
        "initial     X87: absent, so in the initial state",
    ] {
        assert_eq!(
            shown.matches(line).count(),
            2 - usize::from(line.starts_with("thread")),
            "{line}\n{shown}"
        );
    }
    // Without the extended notes, the older ones.
    let shown = decoded(&core(&[("CORE", 1, &status[0]), ("CORE", 2, &area[..512])]));
    assert!(shown.expect("well-formed").contains("FXSAVE image"));
    for (file, why) in [
        (core(&[("CORE", 1, &status[0])]), "n_type at offset 0: none of the notes"),
        (core(&[("LINUX", 0x202, &area[..540])]), "header at offset 652: 28 of its 64 bytes"),
        (core(&[("LINUX", 0x205, &layout[..17]), ("LINUX", 0x202, &area)]), "offset 140: 17 bytes"),
        (file[..130].to_vec(), "p_offset at offset 72: the notes"),
    ] {
        let said = decoded(&file).expect_err(why);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn a_wrong_field_is_named_with_its_offset() {
    let Some(plan) =
        plans().into_iter().find(|plan| plan.save_instruction() == SaveInstruction::Xsave)
    else {
        println!("SKIP: no XSAVE here");
        return;
    };
    let registers = RegFile::pattern(1, Classes::detect());
    let good = image(&plan, &registers);
    let wrong = |at: usize, bytes: &[u8]| {
        let mut area = good.clone();
        area[at..at + bytes.len()].copy_from_slice(bytes);
        decoded(&area).expect_err("a wrong area")
    };
    let all = plan.components().bits();
    for (said, why) in [
        (decoded(&good[..100]).expect_err("short"), "legacy area at offset 0: 100 bytes"),
        (decoded(&good[..575]).expect_err("short"), "header at offset 512: 63 of its 64"),
        (wrong(24, &(1u32 << 30).to_le_bytes()), "MXCSR at offset 24: 0x40000000: bits 0x40000000"),
        (wrong(512, &(all | 1 << 40).to_le_bytes()), "XSTATE_BV at offset 512"),
        (wrong(512, &(all | 1 << 63).to_le_bytes()), "XSTATE_BV at offset 512"),
        (wrong(520, &1u64.to_le_bytes()), "XCOMP_BV at offset 520: 0x1, must be 0"),
        (wrong(520, &(1u64 << 63).to_le_bytes()), "is present but not in XCOMP_BV"),
        (wrong(520, &(1u64 << 63 | 1 << 61 | all).to_le_bytes()), "XCOMP_BV at offset 520"),
        (wrong(575, &[7]), "reserved header byte at offset 575: 0x07, must be 0"),
    ] {
        assert!(said.contains(why), "{said}\n{why}");
    }
    if plan.components().contains(Components::AVX) {
        let said = decoded(&good[..700]).expect_err("short");
        assert!(said.contains("at offset 576: 256 bytes, but the area ends at 700"), "{said}");
    }
}

#[test]
fn stack_registers_are_shown_with_their_physical_ones() {
    let mut area = vec![0; 512];
    area[2..5].copy_from_slice(&[0x00, 0x30, 0xC0]); // TOP 6, R6 and R7 in use
    area[39..42].copy_from_slice(&[0x80, 0xFF, 0x3F]); // 1
    area[64..72].copy_from_slice(&1u64.to_le_bytes()); // left behind in an empty register
    let shown = decoded(&area).expect("well-formed");
    for line in [
        "FSW 0x3000  TOP 6",
        "FTW 0x00c0  R6 R7",
        "st(0) R6  3fff8000000000000000  1",
        "st(1) R7  00000000000000000000  0",
        "st(2) R0  00000000000000000001  ~3.64519953e-4951 (empty)",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(!shown.contains("st(3)"), "empty and zero: {shown}");
}

#[test]
fn a_signal_frame_names_its_sizes() {
    let mut area = foreign().0;
    for (at, word) in [(464, 0x4650_5853u32), (468, 900), (472, 0x207), (476, 0), (480, 896)] {
        area[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    let mut words = Words::default();
    words.set(0xD, 0, [0x207, 896, 896, 0]);
    words.set(0xD, 2, [256, 640, 0, 0]);
    words.set(0xD, 9, [8, 576, 0, 0]);
    let facts = CpuidInfo::from_xsave_leaf(words).expect("a leaf");
    let seen = Area::new(&area, 0, &facts).expect("well-formed");
    let frame = Software::Frame { extended_size: 900, enabled: 0x207, size: 896 };
    assert_eq!((seen.software, seen.kind, seen.rest()), (frame, Kind::Standard, 0));
}

#[test]
fn damaged_files_are_refused_or_decoded_but_never_fatal() {
    let (area, layout) = foreign();
    let registers = RegFile::pattern(2, Classes::detect());
    let mut seeds: Vec<Vec<u8>> = plans().iter().map(|plan| image(plan, &registers)).collect();
    seeds.push(area[..512].to_vec());
    seeds.push(core(&[
        ("CORE", 1, &[0; 336]),
        ("LINUX", 0x202, &area),
        ("LINUX", 0x205, &layout),
        ("LINUX", 0x202, &area),
    ]));
    seeds.push(core(&[("CORE", 1, &[0; 336]), ("CORE", 2, &area[..512])]));
    let mut random = Random::new(5);
    let values =
        [0, 1, 2, 0x7F, 0xFF, 0x200, 0xFFFF, 1 << 31, u32::MAX.into(), 1 << 62, 1 << 63, u64::MAX];
    // Where the fields are; elsewhere is data, which cannot be wrong.
    let fields =
        [0, 4, 16, 18, 24, 28, 32, 40, 54, 56, 64, 72, 96, 120, 124, 128, 464, 512, 520, 528];
    let (mut accepted, mut refused, mut taken) = (0, 0, 0);
    let plan = Plan::detect_user(Components::all()).expect("a plan");
    for round in 0..6_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=random.below(3) {
            let at = match random.below(2) {
                0 => fields[random.below(fields.len())],
                _ => random.below(bytes.len().max(1)),
            };
            match random.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.extend(vec![0xA5; random.below(600)]),
                2 => {
                    let value = values[random.below(values.len())].to_le_bytes();
                    let width = [1, 2, 4, 8][random.below(4)];
                    if let Some(field) = bytes.get_mut(at..at + width) {
                        field.copy_from_slice(&value[..width]);
                    }
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << random.below(8);
                    }
                }
            }
        }
        // The library's validation is the stricter one: it also asks what tasks may have.
        let mut private = bytes.clone();
        let core = bytes.starts_with(b"\x7fELF");
        let valid = !core && ForeignImage::in_private(&mut private).validate(&plan).is_ok();
        taken += usize::from(valid);
        let read = decoded(&bytes);
        assert!(read.is_ok() || !valid, "validated, but {read:?}");
        match read {
            Ok(shown) => {
                accepted += 1;
                let wide = shown.lines().find(|line| line.chars().count() > 100);
                assert_eq!(wide, None);
            }
            Err(why) => {
                refused += 1;
                assert!(why.contains(" at offset ") && why.lines().count() == 1, "{why}");
            }
        }
    }
    println!("{accepted} decoded, {taken} of them valid for a task here, {refused} refused");
    assert!(accepted > 1000 && taken > 300 && refused > 1000, "{accepted} {taken} {refused}");
}
