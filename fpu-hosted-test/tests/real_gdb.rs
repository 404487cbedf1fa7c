//! Core files that we write, opened by gdb: it finds the registers by XCR0 and the length, whichever maker's layout.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{collections::BTreeMap, fs, process::Command};

use fpu_core::RawFpu;
use fpu_hosted_test::real::{set_registers, Classes, RegFile};
use fpu_x86::{Components, CpuidInfo, ForeignLayout, Plan, UserFormat};
use raw_cpuid::CpuIdResult;

mod support {
    pub mod real;
}
use support::real::Memory;

/// A machine with AVX-512 whose leaf 0xD has these offsets of OPMASK, the two of ZMM, and PKRU.
fn machine(offsets: [u32; 4]) -> Plan {
    let [opmask, upper, high, pkru] = offsets;
    let words = move |leaf, sub| {
        let four = match (leaf, sub) {
            (0, _) => [0x16, 0, 0, 0],
            (1, _) => [0, 0, 3 << 26, 3 << 24],
            (0xD, 0) => [0x2E7, pkru + 8, pkru + 8, 0],
            (0xD, 1) => [7, 2440, 0, 0],
            (0xD, 2) => [256, 576, 0, 0],
            (0xD, 5) => [64, opmask, 0, 0],
            (0xD, 6) => [512, upper, 0, 0],
            (0xD, 7) => [1024, high, 0, 0],
            (0xD, 9) => [8, pkru, 0, 0],
            _ => [0; 4],
        };
        let [eax, ebx, ecx, edx] = four;
        CpuIdResult { eax, ebx, ecx, edx }
    };
    let facts =
        CpuidInfo::from_cpuid(words).unwrap().with_xcr0(Components::from_bits_retain(0x2E7));
    Plan::for_user(facts, 0x2_FFFF, Components::all()).unwrap()
}

fn note(owner: &str, kind: u32, description: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [owner.len() as u32 + 1, description.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    note.extend(owner.as_bytes());
    note.resize((note.len() + 1).next_multiple_of(4), 0);
    note.extend(description);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// A core file without memory, of threads with these registers and rights.
fn core(format: UserFormat<'_>, plan: &Plan, threads: &[(RegFile, u32)]) -> Vec<u8> {
    let mut notes = Vec::new();
    for (n, (registers, pkru)) in threads.iter().enumerate() {
        let mut area = Memory::new(plan);
        // SAFETY: C9, C11: our own area, which holds an image.
        let mut image = unsafe { plan.image_mut(area.base()) };
        set_registers(&mut image, registers);
        let image = image.as_image();
        let (mut xstate, mut legacy) = (vec![0; format.xstate_len()], [0; 512]);
        format.write_xstate(&image, Some(*pkru), &mut xstate).unwrap();
        format.write_prfpreg(&image, &mut legacy).unwrap();
        let mut status = [0; 336];
        status[32] = 77 + n as u8;
        notes.extend(note("CORE", 1, &status));
        notes.extend(note("CORE", 2, &legacy));
        notes.extend(note("LINUX", 0x202, &xstate));
    }
    let mut layout = vec![0; format.layout_len()];
    format.write_layout(&mut layout).unwrap();
    notes.extend(note("LINUX", 0x205, &layout));
    let mut file = vec![0x7F, b'E', b'L', b'F', 2, 1, 1];
    file.resize(16, 0);
    file.extend([4, 0, 62, 0, 1, 0, 0, 0]); // a core file, of x86-64
    file.extend([0; 8]);
    file.extend(64u64.to_le_bytes()); // where the program headers stand
    file.extend([0; 12]);
    file.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    file.extend([4, 0, 0, 0, 0, 0, 0, 0]); // notes
    for word in [120, 0, 0, notes.len() as u64, 0, 4] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(notes);
    file
}

/// What gdb says to expressions in threads, all of them hexadecimal numbers in braces or alone.
fn ask(file: &str, expressions: &[(usize, String)]) -> Vec<Vec<u64>> {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", &format!("core-file {file}")]);
    for (thread, expression) in expressions {
        let thread = format!("thread {}", thread + 1);
        gdb.args(["-ex", &thread, "-ex", &format!("output/x {expression}")]);
        gdb.args(["-ex", "echo \\n= \\n"]);
    }
    let done = gdb.output().unwrap();
    let (out, errors) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let answers: Vec<Vec<u64>> = out
        .split("\n= ")
        .map(|answer| {
            let last = answer.lines().last().unwrap_or_default();
            let words = last.split(|c: char| !c.is_ascii_alphanumeric());
            let numbers = words.filter_map(|word| word.strip_prefix("0x"));
            numbers.filter_map(|hex| u64::from_str_radix(hex, 16).ok()).collect()
        })
        .collect();
    assert!(answers.len() > expressions.len(), "{out}{errors}");
    answers
}

/// The version of gdb, or why there is none.
fn gdb() -> Result<u32, String> {
    let done = Command::new("gdb").arg("--version").output().map_err(|_| "no gdb".to_owned())?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let last = text.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    let major = last.split('.').next().and_then(|major| major.parse().ok());
    major.ok_or_else(|| format!("gdb does not tell its version: {text}"))
}

/// Core files in the layout of one machine, of images of both: where they differ, that is a conversion.
fn check(to: &Plan) {
    let classes = Classes::BASE.with(Classes::AVX).with(Classes::AVX512).with(Classes::WIDE_MASKS);
    let threads = [5, 6, 7].map(|n| (RegFile::pattern(n, classes), 0x5555_5554 ^ n as u32));
    let mut expected: BTreeMap<(usize, String), Vec<u64>> = BTreeMap::new();
    for (thread, (registers, pkru)) in threads.iter().enumerate() {
        let mut expect = |name: String, value| expected.insert((thread, name), value);
        for n in 0..32 {
            expect(format!("$zmm{n}.v8_int64"), registers.vector(n).to_vec());
        }
        for n in 0..8 {
            expect(format!("$k{n}"), vec![registers.mask(n)]);
        }
        expect("$pkru".into(), vec![(*pkru).into()]);
        expect("(unsigned)$mxcsr".into(), vec![registers.mxcsr().into()]);
        expect("$fctrl".into(), vec![registers.fcw().into()]);
    }
    let expressions: Vec<(usize, String)> = expected.keys().cloned().collect();
    for (from, what) in [(intel(), "Intel's"), (amd(), "AMD's")] {
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(format!("fpu-core-file-{process}-{thread:?}"));
        fs::write(&path, core(to.user_format(), &from, &threads)).unwrap();
        let answers = ask(&path.to_string_lossy(), &expressions);
        fs::remove_file(&path).unwrap();
        for ((expression, expected), answer) in expected.iter().zip(&answers) {
            assert_eq!(answer, expected, "an image of {what}: {expression:?}");
        }
    }
    println!("{} registers of three threads in two core files", expected.len());
}

fn intel() -> Plan {
    machine([1088, 1152, 1664, 2688])
}
fn amd() -> Plan {
    machine([832, 896, 1408, 2432])
}

#[test]
fn gdb_finds_our_registers_in_intels_layout() {
    match gdb() {
        Ok(_) => check(&intel()),
        Err(why) => println!("SKIP: {why}"),
    }
}

#[test]
fn gdb_finds_our_registers_in_amds_layout() {
    assert_eq!(ForeignLayout::of(&amd()).place(Components::OPMASK), Some((832, 64)));
    match gdb() {
        Ok(major) if major >= 14 => check(&amd()),
        Ok(major) => println!("SKIP: gdb {major} does not know AMD's layout, 14 does"),
        Err(why) => println!("SKIP: {why}"),
    }
}
