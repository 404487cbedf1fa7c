//! Odd command lines, and terminals that are narrow.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    process::{Command, Output},
};

use fpu_examples::{args, boot, cooperative, xstate};

#[path = "support/program.rs"]
mod support;
use support::program;

const PROGRAMS: [&str; 4] = [
    env!("CARGO_BIN_EXE_demo"),
    env!("CARGO_BIN_EXE_xstate"),
    env!("CARGO_BIN_EXE_boot"),
    env!("CARGO_BIN_EXE_cooperative"),
];
const NAMES: [&str; 4] = ["demo", "xstate", "boot", "cooperative"];
/// Options that take a value, by program, and whether a number is one.
const VALUED: [&[(&str, bool)]; 4] = [
    &[("--seed", true), ("--runs", true), ("--rung", false), ("--svg", false), ("--break", false)],
    &[
        ("--cpuid", false),
        ("--svg", false),
        ("--layout", false),
        ("map", false),
        ("decode", false),
        ("encode", false),
    ],
    &[
        ("--machine", false),
        ("--cpuid", false),
        ("--torture", true),
        ("--cpus", true),
        ("--seconds", true),
        ("--seed", true),
        ("--rung", false),
        ("--fault", false),
    ],
    &[("--seed", true), ("--switches", true), ("--break", false)],
];

fn error(program: usize, args: Vec<OsString>) -> Option<String> {
    match program {
        0 => args::parse(args).err(),
        1 => xstate::args::parse(args).err(),
        2 => boot::args::parse(args).err(),
        _ => cooperative::args::parse(args).err(),
    }
}
fn run(at: usize, args: &[OsString]) -> Output {
    program(PROGRAMS[at]).args(args).output().expect("it can be started")
}
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
/// `name value`, and `name=value` where the name is an option's.
fn spellings(name: &str, value: &OsStr) -> Vec<Vec<OsString>> {
    let mut spellings = vec![vec![name.into(), value.to_owned()]];
    if name.starts_with("--") {
        let joined = [name.as_bytes(), b"=", value.as_bytes()].concat();
        spellings.push(vec![OsString::from_vec(joined)]);
    }
    spellings
}

#[test]
fn a_value_that_is_wrong_is_an_error_that_names_its_option() {
    for (program, options) in VALUED.iter().enumerate() {
        for (name, number) in *options {
            // No file is meant by a dash or by nothing; only a path need not be UTF-8.
            let is_file =
                ["--svg", "map", "decode"].contains(name) || (program, *name) == (1, "--cpuid");
            let mut values: Vec<&[u8]> = vec![b""];
            if *name == "decode" {
                values.push(b"--"); // a dash is standard input
            } else if is_file {
                values.push(b"-");
            } else {
                values.extend([&b"\xff"[..], b"a\xffb", b"no such\nthing", b"--json"]);
            }
            if *number {
                values.extend([&b"-1"[..], b"+1", b"1.5", b"0x", b"18446744073709551616", b" 1"]);
            }
            for value in values {
                for args in spellings(name, OsStr::from_bytes(value)) {
                    let why = error(program, args.clone());
                    let why =
                        why.unwrap_or_else(|| panic!("{args:?} of {} passed", NAMES[program]));
                    assert!(why.starts_with(name), "{args:?}: {why}");
                    let first = why.lines().next().unwrap_or_default();
                    assert!(why.lines().count() == 1 || first.ends_with("; there are"), "{why:?}");
                }
            }
            let why = error(program, vec![name.into()]).expect("no value");
            assert!(why.starts_with(&format!("{name} needs a ")), "{why}");
        }
    }
}

#[test]
fn a_path_need_not_be_utf_8() {
    for (program, name) in [(0, "--svg"), (1, "--svg"), (1, "--cpuid"), (1, "map"), (1, "decode")] {
        for args in spellings(name, OsStr::from_bytes(b"/tmp/\xff.svg")) {
            assert_eq!(error(program, args), None, "{name} of {}", NAMES[program]);
        }
    }
}

#[test]
fn any_command_line_is_understood_or_refused_in_one_line() {
    let words: [&[u8]; 28] = [
        b"--json",
        b"--seed",
        b"--seed=7",
        b"-1",
        b"7",
        b"\xff",
        b"--\xff",
        b"--svg=\xff",
        b"-",
        b"--",
        b"--cpus=2",
        b"--all",
        b"--rung",
        b"xsave",
        b"--break",
        b"--fault",
        b"skip-save",
        b"batch",
        b"decode",
        b"encode",
        b"frame",
        b"--layout",
        b"--text",
        b"map",
        b"--cpuid",
        b"via",
        b"a\nb",
        b"",
    ];
    let mut seed = 1u64;
    let mut random = |most: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % most
    };
    let (mut understood, mut refused) = (0, 0);
    for _ in 0..30_000 {
        let args: Vec<OsString> = (0..random(5))
            .map(|_| OsString::from_vec(words[random(words.len())].to_vec()))
            .collect();
        for program in 0..NAMES.len() {
            match error(program, args.clone()) {
                None => understood += 1,
                Some(why) => {
                    refused += 1;
                    assert!(!why.is_empty() && !why.contains(['\x1b', '\0']), "{args:?}: {why:?}");
                    let first = why.lines().next().unwrap_or_default();
                    assert!(why.lines().count() == 1 || first.ends_with("; there are"), "{why:?}");
                }
            }
        }
    }
    assert!(understood > 1000 && refused > 1000, "{understood} understood, {refused} refused");
}

#[test]
fn the_programs_end_in_2_and_say_why_on_one_line() {
    let seed = |value: &[u8]| vec![OsString::from("--seed"), OsString::from_vec(value.to_vec())];
    let wrong = |value: &[u8]| OsString::from_vec(value.to_vec());
    for (at, args, begins) in [
        (0, seed(b"-1"), "--seed: not a number"),
        (2, seed(b"-1"), "--seed: not a number"),
        (0, seed(b"\xff"), "--seed: not a number"),
        (0, vec!["--svg".into(), "-".into()], "--svg: a file is needed"),
        (1, vec!["--svg=-".into()], "--svg: a file is needed"),
        (1, vec!["map".into(), "-".into()], "map: a file is needed"),
        (0, vec![wrong(b"--\xff")], "unknown argument: "),
        (1, vec![wrong(b"\xff")], "unknown argument: "),
        (2, vec![wrong(b"\xff\n")], "unknown argument: "),
        (2, vec!["--rung".into(), wrong(b"\xff")], "--rung: not UTF-8"),
        (2, vec!["--cpuid".into(), wrong(b"\xff")], "--cpuid: not UTF-8"),
    ] {
        let out = run(at, &args);
        let stderr = text(&out.stderr);
        assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(2), ""), "{args:?}");
        assert!(stderr.starts_with(&format!("{}: {begins}", NAMES[at])), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    }
}

/// A build directory of its own, in which the default timeline cannot be written: it is a directory.
#[test]
fn a_default_timeline_that_cannot_be_written_is_said_before_anything_runs() {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("demo-default");
    fs::create_dir_all(place.join("fpu-demo.svg")).expect("ours");
    fs::write(place.join("CACHEDIR.TAG"), "").expect("ours");
    let copy = place.join("demo");
    fs::copy(PROGRAMS[0], &copy).expect("ours");
    let copy = copy.to_str().expect("UTF-8");
    let out = program(copy).arg("--runs=1").output().expect("it can be started");
    let stderr = text(&out.stderr);
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(2), ""), "{stderr}");
    assert!(stderr.starts_with("demo: --svg: ") && stderr.contains("(the default)"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    // A run that draws nothing does not need the place.
    let out = program(copy).args(["--runs=1", "--break=clobber"]).output().expect("as above");
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
}

/// As wide as it is written, where no terminal says how wide it is.
#[test]
fn every_help_fits_79_columns() {
    let source = include_str!("../benches/switch/main.rs");
    let (_, rest) = source.split_once("const HELP: &str = \"").expect("the benchmark's");
    let (bench, _) = rest.split_once("\";").expect("its end");
    let mut helps = vec![("bench", bench.to_owned())];
    for (at, name) in NAMES.into_iter().enumerate() {
        helps.push((name, text(&run(at, &["--help".into()]).stdout)));
    }
    for (name, help) in helps {
        assert!(help.contains("exit code: 0"), "{name}: {help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 79, "{name}: {line}");
        }
    }
}

fn narrow(columns: usize, command: &mut Command) -> String {
    let out = command.env("COLUMNS", columns.to_string()).output().expect("it can be started");
    let stdout = text(&out.stdout);
    for line in stdout.lines() {
        assert!(line.chars().count() <= columns, "{columns} columns: {line}");
    }
    stdout
}

#[test]
fn everything_fits_a_narrow_terminal() {
    for columns in (40..=80).step_by(8) {
        for path in PROGRAMS {
            let help = narrow(columns, program(path).arg("--help"));
            assert!(help.contains("exit code: 0"), "{help}");
        }
        let table = narrow(columns, &mut program(PROGRAMS[1]));
        assert!(table.contains("saves with"), "{table}");
        let list = narrow(columns, program(PROGRAMS[2]).args(["--machine", "list"]));
        assert!(list.contains("icelake"), "{list}");
    }
    let svg = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("narrow.svg");
    for columns in [40, 79] {
        let table = narrow(columns, program(PROGRAMS[0]).arg("--runs=1").arg("--svg").arg(&svg));
        for part in ["two tasks alternate", "mix", "total", "switches ", "skipped ", "ratio "] {
            assert!(table.contains(part), "{part}: {table}");
        }
    }
    fs::remove_file(&svg).expect("ours");
}
