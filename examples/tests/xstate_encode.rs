//! `xstate encode`: texts of every recorded CPU become files of every kind, and are found in them again; files that other
//! software wrote are made again from their text; gdb opens the core files.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use fpu_examples::xstate::{
    decode::Form,
    encode::{encode, Kind, Machine},
    input::Input,
    registers::Register,
    request::{self, Recorded},
};
use fpu_hosted_test::Random;
use fpu_x86::{Components, CpuidInfo, ForeignLayout};

#[path = "support/decoding.rs"]
mod decoding;
use decoding::decode_as;
#[path = "support/program.rs"]
mod program;
use program::text as utf8;

struct Cpu {
    name: String,
    facts: CpuidInfo,
    enabled: Components,
    complete: bool,
}

impl Cpu {
    fn machine(&self) -> Machine<'_> {
        Machine { facts: &self.facts, mxcsr_mask: 0xFFFF, enabled: self.enabled }
    }
}

/// Every recorded CPU that has FXSAVE: of those with XSAVE once with what was enabled, once with all.
fn cpus() -> Vec<Cpu> {
    let mut cpus = Vec::new();
    for lines in [
        include_str!("../../fpu-x86/testdata/xsave_layouts.jsonl"),
        include_str!("../../fpu-x86/testdata/no_xsave.jsonl"),
        include_str!("../../fpu-x86/testdata/quirks.jsonl"),
    ] {
        for line in lines.lines() {
            let Ok(Recorded { words, bitmap, brand }) = request::read_cpu(line) else { continue };
            let Ok(facts) = CpuidInfo::from_cpuid(words) else { continue };
            let all = facts.supported_user().difference(Components::LWP);
            let enabled = bitmap.map_or(all, |bits| all & Components::from_bits_retain(bits));
            for enabled in [all, enabled] {
                cpus.push(Cpu {
                    name: brand.clone().unwrap_or_default(),
                    facts: facts.clone(),
                    enabled,
                    complete: line.contains("\"status\":\"complete\""),
                });
            }
        }
    }
    cpus
}

/// A value that the CPU's own instructions take.
fn value(register: Register, kind: Kind, random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; register.size()];
    random.fill(&mut bytes);
    match register {
        Register::Fop => bytes[1] &= 7,
        Register::Fip | Register::Fdp if kind == Kind::Frame32 => bytes[4..].fill(0),
        Register::Mxcsr => bytes[2..].fill(0),
        Register::BoundConfig => bytes = 0x7FFF_1234_5003u64.to_le_bytes().into(),
        Register::BoundStatus => bytes = 0x7FFF_1234_5002u64.to_le_bytes().into(),
        Register::TileConfig => {
            bytes.fill(0);
            (bytes[0], bytes[16], bytes[48]) = (1, 64, 16);
        }
        // As often as not the upper parts are zero.
        Register::Vector(..) => {
            let len = [16, 32, 64][random.below(3)];
            bytes[len..].fill(0);
        }
        _ => {}
    }
    bytes
}

/// A text as `decode` writes it, of components that are enabled.
fn text(cpu: &Cpu, kind: Kind, random: &mut Random) -> String {
    let has_header = cpu.facts.xsave() && kind != Kind::Fxregs;
    let holds = if has_header { cpu.enabled } else { Components::LEGACY };
    let mut present = holds & Components::from_bits_retain(random.word() | random.word());
    if !has_header || matches!(kind, Kind::Frame | Kind::Frame32) {
        present |= Components::LEGACY;
    }
    let mut out = String::new();
    if has_header {
        let (enabled, present) = (cpu.enabled.bits(), present.bits());
        out += &format!("xcr0 {enabled:#x}\nxstate_bv {present:#x}\n");
    }
    let sse = present.contains(Components::SSE);
    for register in Register::all() {
        let mut value = value(register, kind, random);
        match register {
            Register::Mxcsr if kind == Kind::Compacted && !sse => continue,
            Register::Mxcsr if !sse => value = vec![0x80, 0x1F, 0, 0],
            Register::Mxcsr => {}
            Register::Vector(..) => {
                // Each part is in a component of its own.
                for (from, to) in [(0, 16), (16, 32), (32, 64)] {
                    let Register::Vector(_, n) = register else { unreachable!() };
                    let lower = Register::Vector(from, n).components();
                    let part = Register::Vector(to, n).components();
                    let part = if from == 0 || n >= 16 { part } else { part.difference(lower) };
                    if !present.contains(part) {
                        value[from..to].fill(0);
                    }
                }
            }
            _ if !present.contains(register.components()) => continue,
            _ => {}
        }
        if random.below(4) == 0 && register != Register::Mxcsr {
            value.fill(0);
        }
        let last = value.iter().rposition(|byte| *byte != 0);
        let fixed =
            register <= Register::Fdp || matches!(register, Register::Mxcsr | Register::Pkru);
        match (register, last) {
            (_, None) if !fixed => {}
            (Register::Vector(_, n), Some(last)) => {
                let len = [16, 32, 64].into_iter().find(|len| last < *len).expect("of 64");
                let register = Register::Vector(len, n);
                out += &format!("{register} {}\n", register.hex(&value[..len]));
            }
            _ => out += &format!("{register} {}\n", register.hex(&value)),
        }
    }
    out
}

/// Without comments.
fn bare(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

fn decoded(bytes: &[u8], layout: Option<&ForeignLayout>) -> Result<String, String> {
    let input = Input::from(bytes.to_vec());
    let (text, wrong) = decode_as(&input, layout.cloned(), None, Form::Text);
    match wrong.first() {
        Some(why) => Err(why.to_string()),
        None => Ok(bare(&text)),
    }
}

#[test]
fn texts_of_every_recorded_cpu_are_found_again_in_every_kind_of_file() {
    let mut random = Random::new(3);
    let (mut found, mut told, mut untold, mut refused) = (0, 0, 0, 0);
    for cpu in cpus() {
        let layout = ForeignLayout::from_cpuid_info(&cpu.facts);
        for (name, kind) in Kind::ALL {
            for round in 0..4 {
                let what =
                    format!("{}, {:#x}, {name}, round {round}", cpu.name, cpu.enabled.bits());
                let mut expected = text(&cpu, kind, &mut random);
                if kind == Kind::Core {
                    let other = text(&cpu, kind, &mut random);
                    expected = format!("thread 7\n{expected}thread 4711\n{other}");
                }
                let bytes = match encode(kind, &expected, &cpu.machine()) {
                    Ok(bytes) => bytes,
                    Err(why) => {
                        // Not described, or not legal together, or no XSAVE where that is asked for.
                        assert!(!cpu.complete && (1..3).contains(&why.at.line), "{what}: {why}");
                        refused += 1;
                        continue;
                    }
                };
                assert_eq!(decoded(&bytes, Some(&layout)).as_ref(), Ok(&expected), "{what}");
                found += 1;
                // Without a word about the CPU it is the same, or it is refused.
                match decoded(&bytes, None) {
                    Ok(again) => {
                        assert_eq!(again, expected, "{what}, told");
                        told += 1;
                    }
                    Err(why) => {
                        assert!(kind != Kind::Core && why.starts_with("XCR0 at "), "{what}: {why}");
                        untold += 1;
                    }
                }
                assert_eq!(encode(kind, &expected, &cpu.machine()), Ok(bytes), "{what}, again");
            }
        }
    }
    println!("{found} files, {told} of them told without the CPU, {untold} not; {refused} refused");
    assert!(found > 2500 && told > 2000 && refused > 50, "{found} {told} {untold} {refused}");
}

/// An Intel server, by leaf 0xD alone.
const SERVER: &str = r#"{"bitmap":"BITMAP","cpuid":{"0xd.0":["602e7","2b00","2b00","0"],
    "0xd.1":["1f","2a00","1800","0"],"0xd.2":["100","240","0","0"],"0xd.5":["40","440","0","0"],
    "0xd.6":["200","480","0","0"],"0xd.7":["400","680","0","0"],"0xd.9":["8","a80","0","0"],
    "0xd.11":["10","0","1","0"],"0xd.17":["40","ac0","2","0"],"0xd.18":["2000","b00","6","0"]}}"#;

fn server(bitmap: u64) -> Cpu {
    let line = SERVER.replace('\n', "").replace("BITMAP", &format!("{bitmap:#x}"));
    let Recorded { words, .. } = request::read_cpu(&line).expect("words");
    let facts = CpuidInfo::from_xsave_leaf(words).expect("a leaf");
    let enabled = Components::from_bits_retain(bitmap);
    Cpu { name: "server".into(), facts, enabled, complete: true }
}

/// What Linux and KVM wrote, made again from what is decoded of it.
#[test]
fn files_of_others_are_made_again_byte_for_byte() {
    for (kind, bytes, enabled) in [
        (Kind::Frame, &include_bytes!("../../fpu-x86/testdata/images/frame.bin")[..], 0xE7),
        (Kind::Kvm, include_bytes!("../../fpu-x86/testdata/images/kvm.bin"), 0xE7),
        (Kind::Xstate, include_bytes!("../../fpu-x86/testdata/images/pku-xstate.bin"), 0x2E7),
    ] {
        let text = decoded(
            bytes,
            ForeignLayout::told_by(Components::from_bits_retain(0x2E7), 2696).as_ref(),
        );
        let text = text.expect("an image");
        let again = encode(kind, &text, &server(enabled).machine()).expect("a text");
        // Into a frame the CPU itself writes the registers, and leaves on the stack what lay between them.
        let kept = |at: &usize| {
            kind != Kind::Frame || !(416..464).contains(at) && !(832..1088).contains(at)
        };
        let differs = (0..bytes.len()).filter(kept).find(|at| again.get(*at) != Some(&bytes[*at]));
        assert_eq!((again.len(), differs), (bytes.len(), None), "{kind:?}");
    }
}

#[test]
fn an_error_names_line_and_column() {
    let cpu = server(0x2E7);
    for (kind, text, why) in [
        (Kind::Frame, "", "line 1, column 1: no register"),
        (Kind::Frame, "# only\n\n # this", "line 1, column 1: no register"),
        (Kind::Frame, "fcw", "line 1, column 4: \"fcw\" needs a value"),
        (Kind::Frame, "fcw # 7", "line 1, column 8: \"fcw\" needs a value"),
        (Kind::Frame, "fcw 1\n\tfoo 7", "line 2, column 2: \"foo\" is no register"),
        (Kind::Frame, "fcw 1 2", "line 1, column 7: \"2\" behind the value"),
        (Kind::Frame, "é 1", "line 1, column 1: \"é\" is no register"),
        (Kind::Frame, "fcw é", "line 1, column 5: fcw: \"é\" is no hexadecimal number"),
        (Kind::Frame, "fcw 0x", "line 1, column 5: fcw: \"0x\" is no hexadecimal number"),
        (Kind::Frame, "fcw ___", "line 1, column 5: fcw: \"___\" is no hexadecimal number"),
        (Kind::Frame, "fcw -1", "line 1, column 5: fcw: \"-1\" is no hexadecimal number"),
        (Kind::Frame, "fcw 10000", "line 1, column 5: fcw: \"10000\" has more than 16 bits"),
        (Kind::Frame, "fop 800", "line 1, column 5: fop: \"800\" has more than 11 bits"),
        (Kind::Frame, "xmm16 1\nxmm17 1\nymm16 2", "line 3, column 1: ymm16: line 1 has set it"),
        (Kind::Frame, "xcr0 7\nxcr0 7", "line 2, column 1: xcr0: line 1 has set it"),
        (
            Kind::Frame,
            "xcr0 7\nk1 7",
            "line 2, column 1: an image with XCR0 0x7 cannot hold component 5 (OPMASK)",
        ),
        (Kind::Frame, "fcw 1\nxcr0 5", "line 2, column 6: xcr0 0x5: no value that XCR0 can have"),
        (
            Kind::Frame,
            "xcr0 f",
            "line 1, column 6: xcr0 0xf: the machine lacks component 3 (BNDREGS)",
        ),
        (
            Kind::Frame,
            "xstate_bv 7\nk1 7",
            "line 2, column 1: k1 is in component 5 (OPMASK), which xstate_bv",
        ),
        (
            Kind::Frame,
            "xstate_bv 3\nymm1 1_0000000000000000_0000000000000000",
            "line 2, column 1: ymm1 is in component 2 (AVX)",
        ),
        (
            Kind::Frame,
            "xstate_bv 1003",
            "line 1, column 11: an image with XCR0 0x2e7 cannot hold component 12 (CET_S)",
        ),
        (
            Kind::Frame,
            "mxcsr 10000",
            "line 1, column 1: mxcsr: MXCSR at offset 24 has bits 0x10000",
        ),
        (Kind::Frame, "xcr0 602e7\nfcw 0\n tilecfg 5", "line 3, column 2: "),
        (Kind::Frame, "thread 1\nfcw 1\nthread 2", "line 3, column 1: a second thread"),
        (Kind::Frame, "thread 0x1", "line 1, column 8: \"0x1\" is no decimal number of 32 bits"),
        (
            Kind::Fxregs,
            "xmm1 7\nymm2 7",
            "line 2, column 1: an image of FXSAVE's cannot hold component 2",
        ),
        (
            Kind::Frame32,
            "fcw 7\nfip 100000000",
            "line 2, column 1: fip: FSAVE's image has 32 bits of it",
        ),
        (
            Kind::Core,
            "thread 1\nxcr0 7\nthread 2\nxcr0 3",
            "line 4, column 6: xcr0: 0x3, but the first",
        ),
    ] {
        let said = encode(kind, text, &cpu.machine()).expect_err(text).to_string();
        assert!(said.starts_with(why), "{text:?}: {said}");
    }
}

/// Any text is taken, or refused at a place that is in it.
#[test]
fn damaged_texts_are_taken_or_refused_at_a_place() {
    let cpu = server(0x6_02E7);
    let mut random = Random::new(8);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..3_000 {
        let (_, kind) = Kind::ALL[round % Kind::ALL.len()];
        let mut bytes = text(&cpu, kind, &mut random).into_bytes();
        for _ in 0..=random.below(2) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(at + 1),
                1 => bytes[at] = b" \n#0x_zg\t"[random.below(9)],
                2 => bytes.insert(at, b" \n#0x_zg\t"[random.below(9)]),
                _ => drop(bytes.remove(at)),
            }
            bytes.push(b'\n');
        }
        let text = String::from_utf8(bytes).expect("ASCII");
        match encode(kind, &text, &cpu.machine()) {
            Ok(_) => taken += 1,
            Err(why) => {
                refused += 1;
                let line = text.lines().nth(why.at.line - 1).map(|line| line.chars().count());
                let inside = line.is_some_and(|len| (1..=len + 1).contains(&why.at.column));
                assert!(inside && why.to_string().lines().count() == 1, "{why}: {text}");
            }
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > 300 && refused > 300, "{taken} {refused}");
}

#[test]
fn texts_and_files_go_through_pipes() {
    let run = |args: &[&str], input: &[u8]| {
        let mut program = program::program(env!("CARGO_BIN_EXE_xstate"));
        program.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().expect("xstate can be started");
        child.stdin.take().expect("a pipe").write_all(input).expect("it reads all");
        child.wait_with_output().expect("it ends")
    };
    let text = b"fcw 0x27f\nmxcsr 0x1fa0\nxmm3 7\n";
    for (kind, _) in Kind::ALL {
        let made = run(&["encode", kind, "-", "-"], text);
        if kind != "frame" && kind != "frame-32" && kind != "fxregs" && !decoding::facts().xsave() {
            println!("SKIP: no XSAVE here, so no {kind}");
            continue;
        }
        assert_eq!(made.status.code(), Some(0), "{kind}: {}", utf8(&made.stderr));
        let shown = utf8(&run(&["decode", "-"], &made.stdout).stdout);
        assert!(
            shown.contains("xmm3 ")
                && shown.contains("restore     a task") != (kind == "compacted"),
            "{shown}"
        );
        let again = utf8(&run(&["decode", "--text", "-"], &made.stdout).stdout);
        assert!(again.contains("\nxmm3 0000000000000000_0000000000000007\n"), "{again}");
    }
    let refused = run(&["encode", "frame", "-", "-"], b"fcw\xff 7");
    assert!(utf8(&refused.stderr).ends_with("xstate: -: line 1: not UTF-8\n"));
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _absent_already = std::fs::remove_file(&self.0);
    }
}

/// The layout that gdb knows from version 7 on, and of another maker's machine from 14 on.
#[test]
fn gdb_opens_the_core_files() {
    if Command::new("gdb").arg("--version").output().is_err() {
        println!("SKIP: no gdb");
        return;
    }
    let cpu = server(0x2E7);
    let mut random = Random::new(11);
    let both = [7, 4711].map(|id| {
        let text = format!("thread {id}\n{}", text(&cpu, Kind::Core, &mut random));
        // gdb takes what is absent for what lies there; here it is all there.
        text.lines()
            .filter(|line| !line.starts_with("xstate_bv"))
            .map(|line| format!("{line}\n"))
            .collect()
    });
    let both: [String; 2] = both;
    let path = Temporary(std::env::temp_dir().join(format!("fpu-encoded-{}", std::process::id())));
    let bytes = encode(Kind::Core, &both.concat(), &cpu.machine()).expect("a text");
    std::fs::write(&path.0, bytes).expect("a file");
    let mut checked = 0;
    for (thread, text) in both.iter().enumerate() {
        let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').expect("a value");
            let (name, count) = match Register::named(name) {
                Some(Register::Vector(_, n)) => (format!("$zmm{n}.v8_int64"), 8),
                Some(Register::Mask(_) | Register::Pkru) => (format!("${name}"), 1),
                _ => continue,
            };
            let hex = value.trim_start_matches("0x");
            let words =
                hex.split('_').rev().map(|word| u64::from_str_radix(word, 16).expect("hex"));
            let mut words: Vec<u64> = words.collect();
            words.resize(count, 0);
            expected.insert(name, words);
        }
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-ex", &format!("core-file {}", path.0.display())]);
        gdb.args(["-ex", &format!("thread {}", thread + 1)]);
        for name in expected.keys() {
            gdb.args(["-ex", &format!("output/x {name}"), "-ex", "echo \\n= \\n"]);
        }
        let done = gdb.output().expect("gdb can be started");
        let out = String::from_utf8_lossy(&done.stdout).into_owned();
        let answers: Vec<Vec<u64>> = out
            .split("\n= ")
            .map(|answer| {
                let last = answer.lines().last().unwrap_or_default();
                let words = last.split(|c: char| !c.is_ascii_alphanumeric());
                let numbers = words.filter_map(|word| word.strip_prefix("0x"));
                numbers.filter_map(|hex| u64::from_str_radix(hex, 16).ok()).collect()
            })
            .collect();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(answers.len() > expected.len(), "{out}{errors}");
        for ((name, expected), answer) in expected.iter().zip(&answers) {
            assert_eq!(answer, expected, "thread {}: {name}\n{errors}", thread + 1);
            checked += 1;
        }
    }
    println!("{checked} registers of two threads");
    assert!(checked > 20);
}

/// The page's text, on the page's machine, is the page's core file; and cut short it is refused as there.
#[test]
fn the_page_shows_what_the_program_says() {
    let page = include_str!("../../docs/xstate.md");
    let blocks: Vec<&str> = page.split("\n```").collect();
    let block = |start: &str| {
        let found = blocks.iter().find_map(|block| block.strip_prefix(start));
        found.unwrap_or_else(|| panic!("no block {start}"))
    };
    let cut = block("text\nxstate: cut.core: ");
    let words = block("json\n");
    let input = format!("fcw {}\n", block("text\nfcw "));
    let shown = format!("thread 1{}\n", block("text\nthread 1"));
    let Recorded { words, .. } = request::read_cpu(words).expect("words");
    let facts = CpuidInfo::from_xsave_leaf(words).expect("a leaf");
    let machine = Machine { enabled: facts.supported_user(), facts: &facts, mxcsr_mask: 0xFFFF };
    let mut core = encode(Kind::Core, &input, &machine).expect("a text");
    // Whether a task could have them is a matter of the machine that reads it.
    let expected = shown.split("restore ").next().expect("text");
    assert_eq!(decoding::decoded(&core), (expected.to_owned(), vec![]));
    core.truncate(1400);
    let (_, wrong) = decoding::decoded(&core);
    assert_eq!(wrong.first().map(ToString::to_string).as_deref(), Some(cut));
    for (kind, _) in Kind::ALL {
        assert!(page.contains(&format!("`{kind}`")), "{kind}");
    }
}
