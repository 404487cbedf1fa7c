//! What `xstate decode` reads: images that this CPU wrote, and core files.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{ffi::c_void, ptr::NonNull};

use fpu_core::{Area as Memory, RawFpu, SaveArea};
use fpu_examples::xstate::{
    decode::Form,
    dump::Notes,
    reading::{Frame, Kind, Raw},
    whose::Whose,
    words::Words,
};
use fpu_hosted_test::real::{run_between, Classes, RegFile};
use fpu_x86::{Components, CpuidInfo, ForeignLayout, Format, Plan, SaveInstruction};

#[path = "support/program.rs"]
mod program;
#[path = "support/decoding.rs"]
mod support;
use program::{program, text};
use support::{decoded, facts};

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

fn raw(bytes: &[u8]) -> Raw {
    Raw { bytes: bytes.to_vec(), whole: bytes.len(), base: 0, file: true }
}

#[test]
fn what_this_cpu_saves_is_what_is_decoded() {
    let classes = Classes::detect();
    let registers = RegFile::pattern(0x5EED, classes);
    let facts = facts();
    for plan in plans() {
        let bytes = image(&plan, &registers);
        let mut raw = raw(&bytes);
        let told = raw.tell(&Whose::new(&facts, None), None).expect("this machine's");
        let area = raw.read(&told).expect("well-formed");
        let kind = match plan.format() {
            Format::Compacted => Kind::Compacted,
            Format::Standard => Kind::Standard,
            _ => Kind::Fxsave,
        };
        assert_eq!(area.kind, kind);
        // The file holds neither bounds nor tiles; whether the CPU calls them in use is its own affair.
        let due = plan.components().difference(Components::MPX | Components::AMX).bits();
        assert_eq!(area.present & due, due, "what is not initial is in use");
        assert_eq!(area.present & !plan.components().bits(), 0);
        let x87 = area.image().x87();
        assert_eq!((x87.fcw, x87.fsw), (registers.fcw(), registers.fsw()));
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
            let register = x87.st[n];
            assert_eq!(register[..8], significand.to_le_bytes());
            assert_eq!(register[8..], head.to_le_bytes());
        }
        let (shown, wrong) = support::decode(bytes, None, Some(&plan));
        assert_eq!(wrong, []);
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
        let shown = support::shown(&bytes);
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
        let shown = support::shown(&bytes);
        for word in ["zmm", "ymm", "xmm", "FCW", "OPMASK  "] {
            assert!(!shown.contains(word), "{:?}: {shown}", plan.save_instruction());
        }
        for (name, _) in plan.components().iter_names().filter(|(_, one)| one.number().is_some()) {
            assert!(shown[shown.find("initial").unwrap_or(0)..].contains(name), "{shown}");
        }
        // With SSE present, the upper parts of the same registers are still absent.
        bytes[512..520].copy_from_slice(&Components::LEGACY.bits().to_le_bytes());
        let partly = support::shown(&bytes);
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
    let mut all = Notes::default();
    notes.iter().for_each(|(owner, kind, contents)| all.add(owner, *kind, contents));
    all.file()
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
    let shown = support::shown(&file);
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
    // Without the extended notes, the older ones; and a thread without either is not dropped.
    let file = core(&[
        ("CORE", 1, &status[0]),
        ("CORE", 2, &area[..512]),
        ("CORE", 1, &status[1]),
        ("CORE", 1, &status[0]),
        ("LINUX", 0x202, &area),
        ("LINUX", 0x205, &layout),
    ]);
    let shown = support::shown(&file);
    for line in [
        "thread 1, process 4711, note at 0x1f0: only NT_PRFPREG, no NT_X86_XSTATE\nFXSAVE image",
        "thread 2, process 4712\n  no registers of the FPU: neither NT_X86_XSTATE nor NT_PRFPREG\n",
        "thread 3, process 4711, note at ",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    for (file, why) in [
        (core(&[("CORE", 6, &status[0])]), "n_type at offset 128 is 0x6: no notes of threads"),
        (core(&[("CORE", 6, &status[0])]), "there are CORE 0x6"),
        (core(&[("LINUX", 0x202, &area[..540])]), "length at offset 680 is 0x21c: "),
        (
            core(&[("LINUX", 0x205, &layout[..17]), ("LINUX", 0x202, &area)]),
            "length at offset 157 is 0x11: ",
        ),
        (
            core(&[("LINUX", 0x205, &[7; 16]), ("LINUX", 0x202, &area)]),
            "layout note at offset 140 is 0x7070707:",
        ),
    ] {
        let (shown, wrong) = decoded(&file);
        let said = wrong.first().map(ToString::to_string).unwrap_or_default();
        assert!(said.contains(why) && shown.is_empty(), "{said}, {why}");
    }
}

#[test]
fn a_wrong_field_is_named_with_its_offset_and_value() {
    let Some(plan) =
        plans().into_iter().find(|plan| plan.save_instruction() == SaveInstruction::Xsave)
    else {
        println!("SKIP: no XSAVE here");
        return;
    };
    let registers = RegFile::pattern(1, Classes::detect());
    let good = image(&plan, &registers);
    let said = |bytes: &[u8]| {
        let (shown, wrong) = decoded(bytes);
        assert!(shown.is_empty(), "{shown}");
        wrong.first().expect("a wrong image").to_string()
    };
    let wrong = |at: usize, bytes: &[u8]| {
        let mut area = good.clone();
        area[at..at + bytes.len()].copy_from_slice(bytes);
        said(&area)
    };
    let all = plan.components().bits();
    for (said, why) in [
        (said(&good[..100]), "length at offset 100 is 0x64: "),
        (said(&good[..575]), "length at offset 575 is 0x23f: "),
        (wrong(24, &(1u32 << 30).to_le_bytes()), "MXCSR at offset 24 is 0x"),
        (wrong(512, &(all | 1 << 63).to_le_bytes()), "XSTATE_BV at offset 512 is 0x80000000000000"),
        (wrong(512, &(all | 1 << 12).to_le_bytes()), "XSTATE_BV at offset 512 is 0x1000: "),
        (wrong(520, &1u64.to_le_bytes()), "XCOMP_BV at offset 520 is 0x1: "),
        (wrong(520, &(1u64 << 63).to_le_bytes()), "which XCOMP_BV lacks"),
        (wrong(520, &(1u64 << 63 | 1 << 61 | all).to_le_bytes()), "XCOMP_BV at offset 520 is 0xa"),
        (wrong(575, &[7]), "reserved at offset 575 is 0x7: "),
    ] {
        assert!(said.contains(why), "{said}\n{why}");
    }
    if plan.components().contains(Components::AVX) {
        let said = said(&good[..700]);
        assert!(said.contains("length at offset 700 is 0x2bc: "), "{said}");
    }
    // A component that this CPU lacks is shown as far as its place is known.
    let mut area = good.clone();
    area[512..520].copy_from_slice(&(all | 1 << 40).to_le_bytes());
    let shown = support::shown(&area);
    assert!(
        shown.contains("\n#40         present, but this layout has no place for it"),
        "{shown}"
    );
}

#[test]
fn stack_registers_are_shown_with_their_physical_ones() {
    let mut area = vec![0; 512];
    area[2..5].copy_from_slice(&[0x00, 0x30, 0xC0]); // TOP 6, R6 and R7 in use
    area[39..42].copy_from_slice(&[0x80, 0xFF, 0x3F]); // 1
    area[64..72].copy_from_slice(&1u64.to_le_bytes()); // left behind in an empty register
    let shown = support::shown(&area);
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
    let given = ForeignLayout::from_cpuid_info(&facts);
    area.extend(0x4650_5845u32.to_le_bytes());
    area.extend([0; 12]);
    let mut raw = raw(&area);
    let told = raw.tell(&Whose::new(&facts, Some(given)), None).expect("it is given");
    let seen = raw.read(&told).expect("well-formed");
    let frame = Frame { extended_size: 900, xstate_size: 896, legacy: None };
    assert_eq!((seen.frame, seen.kind, seen.rest), (Some(frame), Kind::Frame, 12));
    assert_eq!((seen.xcr0, seen.len), (Some(0x207), 896));
}

#[test]
fn a_narrow_terminal_breaks_lines_and_no_word() {
    let name = format!("fpu-xstate-{}-narrow.bin", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, include_bytes!("../../fpu-x86/testdata/images/kvm.bin")).expect("ours");
    let name = path.to_str().expect("UTF-8");
    let run = |args: &[&str]| {
        let done = program(env!("CARGO_BIN_EXE_xstate")).args(args).output();
        done.expect("xstate can be started")
    };
    let wide = text(&run(&["decode", name]).stdout);
    for columns in [24usize, 80] {
        let mut narrow = program(env!("CARGO_BIN_EXE_xstate"));
        narrow.args(["decode", name]).env("COLUMNS", columns.to_string());
        let shown = text(&narrow.output().expect("xstate can be started").stdout);
        assert!(shown.lines().all(|line| line.chars().count() <= columns), "{shown}");
        // Where it can be helped, a row keeps its columns.
        let row = shown.lines().any(|line| line.starts_with("vectors     zmm0   11d7620f889b4bea"));
        assert!(row || columns < 40, "{shown}");
        let bare = |text: &str| text.replace([' ', '\n', '_'], "");
        assert_eq!(bare(&shown), bare(&wide));
    }
    // What programs read is never broken.
    for form in ["--text", "--json"] {
        let mut whole = program(env!("CARGO_BIN_EXE_xstate"));
        whole.args(["decode", form, name]).env("COLUMNS", "24");
        let whole = text(&whole.output().expect("xstate can be started").stdout);
        assert_eq!(whole, text(&run(&["decode", form, name]).stdout));
    }
    std::fs::remove_file(&path).expect("ours");
}

/// What other software wrote, by itself and in notes without a layout note, has on every CPU the registers that its
/// writer noted.
#[test]
fn images_of_others_have_the_registers_that_their_writers_noted() {
    macro_rules! image {
        ($name:literal) => {
            &include_bytes!(concat!("../../fpu-x86/testdata/images/", $name))[..]
        };
    }
    let values = include_str!("../../fpu-x86/testdata/images/values.txt");
    let frame_values = include_str!("../../fpu-x86/testdata/images/values-frame.txt");
    let status = [0; 336];
    for (name, image, values, owner, high) in [
        ("frame", image!("frame.bin"), frame_values, None, true),
        ("kvm", image!("kvm.bin"), values, None, true),
        ("pku", image!("pku-xstate.bin"), values, Some("LINUX"), true),
        ("zen4", image!("zen4-xstate.bin"), values, Some("LINUX"), false),
        ("freebsd", image!("freebsd-xstate.bin"), values, Some("FreeBSD"), true),
    ] {
        let file = match owner {
            None => image.to_vec(),
            Some("LINUX") => core(&[("CORE", 1, &status), ("LINUX", 0x202, image)]),
            Some(owner) => core(&[(owner, 1, &status), (owner, 0x202, image)]),
        };
        let (text, wrong) = support::decode_as(&file.into(), None, None, Form::Text);
        assert_eq!(wrong, [], "{name}");
        let seen = |register: &str| {
            let named = |line: &&str| line.split(' ').next() == Some(register);
            let value = text.lines().find(named).and_then(|line| line.split(' ').nth(1));
            value.unwrap_or_default().replace('_', "").trim_start_matches("0x").to_owned()
        };
        let mut compared = 0;
        for line in values.lines() {
            let (register, expected) = line.split_once(' ').expect("a value");
            let number = register.trim_start_matches("zmm");
            let widths = ["xmm", "ymm", "zmm"].map(|class| seen(&format!("{class}{number}")));
            let seen = if number == register { seen(register) } else { widths.concat() };
            let absent = !high && number.parse().is_ok_and(|number: u32| number >= 16);
            let expected = if absent { "" } else { expected.trim_start_matches('0') };
            assert_eq!(seen.trim_start_matches('0'), expected, "{name}: {register}");
            compared += 1;
        }
        assert_eq!(compared, 40, "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_decoded_is_an_error_of_one_line() {
    let name = format!("fpu-xstate-{}-bad.bin", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, [0; 100]).expect("ours");
    let name = path.to_str().expect("UTF-8");
    let decode = |name: &str| {
        let done = program(env!("CARGO_BIN_EXE_xstate")).args(["decode", name]).output();
        done.expect("xstate can be started")
    };
    for (name, why) in
        [(name, "length at offset 100 is 0x64: "), ("/nonexistent/file", "No such file")]
    {
        let out = decode(name);
        assert_eq!((out.status.code(), out.stdout.len()), (Some(1), 0));
        let said = text(&out.stderr);
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
    }
    std::fs::write(&path, [0; 512]).expect("ours");
    let out = decode(name);
    std::fs::remove_file(&path).expect("ours");
    assert_eq!(out.status.code(), Some(0));
    assert!(text(&out.stdout).starts_with("FXSAVE image, 512 bytes"));
}
