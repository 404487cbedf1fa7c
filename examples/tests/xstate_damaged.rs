//! Files that are cut, changed in a byte, or random: `xstate decode` shows what is there or refuses it by field, offset
//! and value. It does not panic, and takes neither memory nor time by a length that it reads.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Output, Stdio},
};

use fpu_examples::{
    report::Style,
    xstate::{
        bytes::Malformed,
        decode::Form,
        dump::Notes,
        encode::{encode, Kind, Machine},
        input::Input,
        request,
    },
};
use fpu_hosted_test::Random;
use fpu_x86::{Components, CpuidInfo, ForeignImage, ForeignLayout, Plan};

#[path = "support/decoding.rs"]
mod decoding;
use decoding::{decode_as, decoded};
#[path = "support/program.rs"]
mod program;
use program::text;

/// Registers of every component, as far as a machine has them.
const TEXT: &str = "fcw 27f\nfsw 3800\nftw 80\nst0 4000c90fdaa22168c235\nmxcsr 1fa0\nxmm3 7\n";
const WIDE: &str = "ymm4 1_0000000000000000_0000000000000000\nzmm17 7\nk1 ff\nzmm5 5\n";
const RIGHTS: &str = "pkru 55555554\n";

/// A recorded CPU, by what it enables.
fn recorded(bitmap: u64) -> CpuidInfo {
    let corpus = include_str!("../../fpu-x86/testdata/xsave_layouts.jsonl");
    // Of those that describe every component.
    let complete = corpus.lines().filter(|line| line.contains("\"status\":\"complete\""));
    let cpus = complete.filter_map(|line| request::read_cpu(line).ok());
    let mut facts = cpus.filter_map(|cpu| CpuidInfo::from_cpuid(cpu.words).ok());
    let facts = facts.find(|facts| facts.supported_user().bits() == bitmap);
    facts.expect("there is such a CPU")
}

fn made(kind: Kind, facts: &CpuidInfo) -> Vec<u8> {
    let enabled = facts.supported_user();
    let mut text = TEXT.to_owned();
    for (set, more) in [(Components::AVX512, WIDE), (Components::PKRU, RIGHTS)] {
        if enabled.contains(set) && kind != Kind::Fxregs {
            text += more;
        }
    }
    if kind == Kind::Core {
        text = format!("thread 7\n{text}thread 8\n{text}");
    }
    let machine = Machine { facts, mxcsr_mask: 0xFFFF, enabled };
    encode(kind, &text, &machine).expect("a text")
}

/// Every kind of file, of a CPU without AVX-512, one with it, and one with AMX.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for bitmap in [0x7, 0x2E7, 0x6_02E7] {
        let facts = recorded(bitmap);
        for (name, kind) in Kind::ALL {
            seeds.push((format!("{name} {bitmap:#x}"), made(kind, &facts)));
        }
    }
    let mut notes = Notes::default();
    let image = include_bytes!("../../fpu-x86/testdata/images/freebsd-xstate.bin");
    notes.add("FreeBSD", 1, &[0; 48]);
    notes.add("FreeBSD", 0x202, image);
    seeds.push(("FreeBSD".into(), notes.file()));
    seeds
}

/// What is said about bytes is well-formed, whatever they are.
fn check(what: &str, bytes: Vec<u8>) -> (bool, bool) {
    let (shown, wrong) = decoded(&bytes);
    for why in &wrong {
        let said = why.to_string();
        let named = format!("{} at offset {} is {:#x}: ", why.field, why.offset, why.value);
        assert!(said.starts_with(&named) && said.lines().count() == 1, "{what}: {said}");
        assert!(!why.field.is_empty() && !why.why.is_empty(), "{what}: {said}");
    }
    assert!(!shown.is_empty() || !wrong.is_empty(), "{what}: neither shown nor refused");
    let wide = shown.lines().find(|line| line.chars().count() > 100);
    assert_eq!(wide, None, "{what}");
    (!shown.is_empty(), wrong.is_empty())
}

#[test]
fn every_truncation_is_shown_or_refused() {
    let (mut all, mut refused) = (0, 0);
    for (name, seed) in seeds() {
        assert_eq!(check(&name, seed.clone()), (true, true), "{name} is whole");
        // Behind the fields of headers, of which each length is tried, of all 7.
        let short = (0..seed.len()).filter(|len| *len < 1400 || len % 7 == 0);
        for len in short {
            let (_, whole) = check(&format!("{name} of {len} bytes"), seed[..len].to_vec());
            all += 1;
            refused += u32::from(!whole);
        }
    }
    println!("{all} truncations, {refused} of them refused");
    assert!(refused > all / 2, "{refused} of {all}");
}

#[test]
fn every_change_of_a_byte_in_a_header_is_shown_or_refused() {
    let (mut all, mut refused) = (0, 0);
    for (name, seed) in seeds() {
        let front = if name.starts_with("frame-32") { 112 } else { 0 };
        let fields: Vec<usize> = match &seed[..4] {
            // The two headers, and those of the notes.
            b"\x7fELF" => (0..140).chain((0..seed.len()).filter(|at| note(&seed, *at))).collect(),
            _ => {
                (0..32).chain(460..576).map(|at| front + at).filter(|at| *at < seed.len()).collect()
            }
        };
        for at in fields {
            for value in [0, 1, 2, 3, 4, 7, 8, 0x10, 0x20, 0x40, 0x7F, 0x80, 0xC0, 0xFE, 0xFF] {
                let mut bytes = seed.clone();
                bytes[at] = value;
                let (_, whole) = check(&format!("{name}, byte {at} = {value:#x}"), bytes);
                all += 1;
                refused += u32::from(!whole);
            }
        }
    }
    println!("{all} changes, {refused} of them refused");
    assert!(refused > all / 20 && refused < all, "{refused} of {all}");
}

/// Is this byte in the header of a note?
fn note(file: &[u8], at: usize) -> bool {
    let mut from = 120;
    while let Some(head) = file.get(from..from + 12) {
        if (from..from + 20).contains(&at) {
            return true;
        }
        let word = |n: usize| u32::from_le_bytes([head[n], head[n + 1], head[n + 2], head[n + 3]]);
        from += 12 + (word(0).next_multiple_of(4) + word(4).next_multiple_of(4)) as usize;
    }
    false
}

#[test]
fn random_changes_are_shown_or_refused_and_valid_images_are_shown() {
    let seeds = seeds();
    let mut random = Random::new(5);
    let values =
        [0, 1, 2, 0x7F, 0xFF, 0x200, 0xFFFF, 1 << 31, u32::MAX.into(), 1 << 62, 1 << 63, u64::MAX];
    // Where the fields are; elsewhere is data, which cannot be wrong.
    let fields = [
        0, 4, 16, 18, 24, 28, 32, 40, 54, 56, 64, 72, 96, 120, 124, 128, 464, 468, 480, 512, 520,
        528,
    ];
    let (mut accepted, mut refused, mut taken) = (0, 0, 0);
    let plan = Plan::detect_user(Components::all()).expect("a plan");
    for round in 0..6_000 {
        let (name, seed) = &seeds[round % seeds.len()];
        let mut bytes = seed.clone();
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
        let image = name.starts_with("xstate") || name.starts_with("fxregs");
        let mut private = bytes.clone();
        let valid = image && ForeignImage::in_private(&mut private).validate(&plan).is_ok();
        taken += u32::from(valid);
        let (_, whole) = check(&format!("round {round}, {name}"), bytes);
        accepted += u32::from(whole);
        refused += u32::from(!whole);
    }
    println!("{accepted} decoded, {taken} of them valid for a task here, {refused} refused");
    assert!(accepted > 1000 && refused > 1000, "{accepted} {taken} {refused}");
}

#[test]
fn random_bytes_are_shown_or_refused() {
    let mut random = Random::new(9);
    for round in 0..2_000 {
        let mut bytes = vec![0; random.below(5000)];
        random.fill(&mut bytes);
        let magic: &[u8] = match round % 3 {
            0 => b"",
            1 => b"\x7fELF\x02\x01\x01",
            _ => &[0x7F, 3, 0, 0],
        };
        if let Some(head) = bytes.get_mut(..magic.len()) {
            head.copy_from_slice(magic);
        }
        if let Some(core) = bytes.get_mut(16..20).filter(|_| round % 3 == 1) {
            core.copy_from_slice(&[4, 0, 62, 0]);
        }
        check(&format!("round {round}"), bytes);
    }
}

struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("fpu-xstate-{}-{name}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _absent_already = std::fs::remove_file(&self.0);
    }
}

fn xstate(args: &[&str], input: Stdio) -> Output {
    let mut program = program::program(env!("CARGO_BIN_EXE_xstate"));
    program.args(args).stdin(input).output().expect("xstate can be started")
}

/// A core file whose notes are behind `gap` bytes of nothing, which take no room on the disk.
fn sparse(path: &Temporary, gap: u64, whole: &[u8]) -> File {
    let file = File::create(&path.0).expect("a file");
    let mut head = whole[..120].to_vec();
    head[72..80].copy_from_slice(&(120 + gap).to_le_bytes());
    file.write_all_at(&head, 0).expect("written");
    file.write_all_at(&whole[120..], 120 + gap).expect("written");
    file
}

#[test]
fn notes_are_found_wherever_they_are() {
    let core = made(Kind::Core, &recorded(0x2E7));
    let (expected, wrong) = decoded(&core);
    assert_eq!(wrong, []);
    for gap in [0, 300 << 20, 5 << 40] {
        let path = Temporary::new("sparse.core");
        drop(sparse(&path, gap, &core));
        let name = path.0.to_str().expect("UTF-8");
        let input = File::open(&path.0).expect("a file");
        for (name, input) in [(name, Stdio::null()), ("-", input.into())] {
            let done = xstate(&["decode", name], input);
            assert_eq!((done.status.code(), text(&done.stderr)), (Some(0), String::new()));
            let shown = text(&done.stdout);
            let lines = |text: &str| {
                let kept = text
                    .lines()
                    .filter(|line| !line.starts_with(['t', 'r']) && !line.starts_with("   "));
                kept.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(lines(&shown), lines(&expected), "{gap:#x}");
            assert_eq!(shown.matches("\nXSAVE area").count(), 2, "{shown}");
        }
    }
}

/// What is read is bounded by constants, whatever counts and sizes a file of that length names.
#[test]
fn counts_and_sizes_of_a_huge_file_are_not_trusted() {
    let core = made(Kind::Core, &recorded(0x2E7));
    for (at, value, why) in [
        (56usize, &u16::MAX.to_le_bytes()[..], "e_phnum at offset 56 is 0xffff"),
        (32, &(4u64 << 40).to_le_bytes(), ""),
        (96, &(5u64 << 40).to_le_bytes(), ""),
        (96, &u64::MAX.to_le_bytes(), "p_filesz at offset 96 is 0xffffffffffffffff"),
        (72, &(3u64 << 40).to_le_bytes(), ""),
        (124, &u32::MAX.to_le_bytes(), "n_descsz at offset 124 is 0xffffffff"),
        (120, &u32::MAX.to_le_bytes(), "n_namesz at offset 120 is 0xffffffff"),
    ] {
        let path = Temporary::new("huge.core");
        let file = sparse(&path, 0, &core);
        file.write_all_at(value, at as u64).expect("written");
        file.set_len(6 << 40).expect("no room on the disk");
        let done = xstate(&["decode", path.0.to_str().expect("UTF-8")], Stdio::null());
        let said = text(&done.stderr);
        assert!(said.contains(why) && done.status.code().is_some(), "{at}: {said}");
        assert!(why.is_empty() || done.status.code() == Some(1), "{at}: {said}");
    }
    // As many program headers as the first section header says, of a file that is as long.
    let path = Temporary::new("headers.core");
    let file = sparse(&path, 0, &core);
    for (at, value) in [(32, 1u64 << 30), (40, 1 << 20), (44 + (1 << 20), u64::from(u32::MAX))] {
        file.write_all_at(&value.to_le_bytes(), at).expect("written");
    }
    file.write_all_at(&u16::MAX.to_le_bytes(), 56).expect("written");
    file.set_len(6 << 40).expect("no room on the disk");
    let done = xstate(&["decode", path.0.to_str().expect("UTF-8")], Stdio::null());
    let said = text(&done.stderr);
    assert!(
        said.contains("e_phnum at offset 56 is 0xffffffff: 4294967295 program headers"),
        "{said}"
    );
}

#[test]
fn whole_threads_of_a_truncated_core_file_are_shown() {
    let core = made(Kind::Core, &recorded(0x2E7));
    let path = Temporary::new("cut.core");
    std::fs::write(&path.0, &core[..core.len() - 100]).expect("a file");
    let done = xstate(&["decode", path.0.to_str().expect("UTF-8")], Stdio::null());
    let (shown, said) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(1));
    assert!(shown.contains("thread 1, process 7") && shown.contains("\nXSAVE area"), "{shown}");
    assert!(shown.contains("thread 2, process 8") && shown.contains("only NT_PRFPREG"), "{shown}");
    assert!(
        said.contains("n_descsz at offset ") && said.contains(" of which the file has "),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// A page as KVM writes it, whose length tells nothing: by what is in it.
#[test]
fn an_image_is_read_with_its_own_layout_or_refused() {
    let facts = recorded(0x2E7);
    let machine = |text: &str| {
        let machine =
            Machine { facts: &facts, mxcsr_mask: 0xFFFF, enabled: facts.supported_user() };
        encode(Kind::Kvm, text, &machine).expect("a text")
    };
    let layout = ForeignLayout::from_cpuid_info(&facts);
    for text in [
        "ymm3 7_0000000000000000_0000000000000000\n",
        "zmm3 7_0000000000000000_0000000000000000_0000000000000000_0000000000000000\n",
        "k1 7\n",
        "pkru 7\n",
        "zmm16 7\n",
        "xstate_bv 0x2e7\n",
    ] {
        let page = Input::from(machine(text));
        let without_comment = |(text, wrong): (String, Vec<Malformed>)| {
            let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
            (lines.collect::<Vec<_>>(), wrong)
        };
        let read = |layout| without_comment(decode_as(&page, layout, None, Form::Text));
        let given = read(Some(layout.clone()));
        assert_eq!(read(None), given, "{text}");
        assert_eq!(given.1, [], "{text}");
    }
    // Where two layouts have other registers, in bytes that both have.
    let mut page = machine("xstate_bv 0x42\n");
    page[1300] = 7;
    let (shown, wrong) = decoded(&page);
    let said = wrong.first().map(ToString::to_string).unwrap_or_default();
    assert!(shown.is_empty() && said.starts_with("XCR0 at offset 464 is 0x2e7: "), "{said}");
    assert!(said.contains("2 makers' layouts, in which registers differ"), "{said}");
    // Bytes in none: the file is no such page.
    page[4000] = 7;
    let (shown, wrong) = decoded(&page);
    let said = wrong.first().map(ToString::to_string).unwrap_or_default();
    assert!(shown.is_empty() && said.contains("4096 bytes of no layout that is known"), "{said}");
}

#[test]
fn other_machines_files_are_refused_by_name() {
    let core = made(Kind::Core, &recorded(0x7));
    for (at, value, why) in [
        (5usize, &[2u8][..], "EI_DATA at offset 5 is 0x2: big-endian"),
        (18, &[183, 0], "e_machine at offset 18 is 0xb7: AArch64, not x86-64 (62)"),
        (18, &[3, 0], "e_machine at offset 18 is 0x3: i386, a 32-bit program"),
        (18, &[9, 9], "e_machine at offset 18 is 0x909: another machine"),
        (4, &[1], "EI_CLASS at offset 4 is 0x1: not a 64-bit ELF file"),
        (16, &[3, 0], "e_type at offset 16 is 0x3: not that of a core file (4)"),
        (54, &[57, 0], "e_phentsize at offset 54 is 0x39: not 56"),
    ] {
        let mut bytes = core.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        let (shown, wrong) = decoded(&bytes);
        let said = wrong.first().map(ToString::to_string).unwrap_or_default();
        assert!(shown.is_empty() && said.starts_with(why), "{said}");
    }
}

#[test]
fn json_has_a_line_for_each_image_and_each_refusal() {
    let mut core = made(Kind::Core, &recorded(0x2E7));
    let (_, wrong) = decode_as(&Input::from(core.clone()), None, None, Form::Show(Style::plain()));
    assert_eq!(wrong, []);
    let second = core.windows(8).rposition(|eight| eight == 0x2E7u64.to_le_bytes());
    core[second.expect("XCR0") + 60] = 7; // a reserved byte of the second header
    let path = Temporary::new("json.core");
    std::fs::write(&path.0, &core).expect("a file");
    let done = xstate(&["decode", "--json", path.0.to_str().expect("UTF-8")], Stdio::null());
    assert_eq!(done.status.code(), Some(1));
    let lines: Vec<serde_json::Value> =
        text(&done.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["process"], &lines[0]["registers"]["pkru"]),
        (&7.into(), &"0x55555554".into())
    );
    assert_eq!(
        (&lines[1]["error"]["field"], &lines[1]["error"]["value"]),
        (&"reserved".into(), &"0x7".into())
    );
}
