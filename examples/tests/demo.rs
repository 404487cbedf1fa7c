//! The demo as it is used: exit codes, figures that add up, and every seeded fault named.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{path::PathBuf, process::Output};

use fpu_examples::{args::RUNGS, faults::Fault};

#[path = "support/program.rs"]
mod support;
use support::{program, text};

fn demo(args: &[&str]) -> Output {
    let program = program(env!("CARGO_BIN_EXE_demo")).args(args).output();
    program.expect("the demo can be started")
}
fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("fpu-demo-{}-{name}.svg", std::process::id()))
}

/// The number after `"key":`, in the text after the first `after`.
fn number(json: &str, after: &str, key: &str) -> u64 {
    let rest = &json[json.find(after).unwrap_or_else(|| panic!("no {after}"))..];
    let key = format!("\"{key}\":");
    let rest = &rest[rest.find(&key).unwrap_or_else(|| panic!("no {key} after {after}"))..];
    let digits: String = rest[key.len()..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{key} is not a number"))
}

/// Strings end, brackets match, and nothing follows.
fn check_structure(json: &str) {
    let (mut open, mut string, mut escaped) = (Vec::new(), false, false);
    for (at, c) in json.trim_end().char_indices() {
        if string {
            (string, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        assert!(at == 0 || !open.is_empty(), "text after the document");
        match c {
            '"' => string = true,
            '{' => open.push('}'),
            '[' => open.push(']'),
            '}' | ']' => assert_eq!(open.pop(), Some(c), "at {at}"),
            c => assert!(c.is_ascii_alphanumeric() || ",:.- ".contains(c), "{c:?} at {at}"),
        }
    }
    assert!(open.is_empty() && !string);
    assert!(!json.contains(",,") && !json.contains(",}") && !json.contains(",]"));
}

#[test]
fn every_register_of_every_return_is_as_expected() {
    let svg = file("plain");
    let out = demo(&["--runs=1", "--svg", svg.to_str().expect("UTF-8")]);
    let stdout = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{stdout}{}", text(&out.stderr));
    assert!(stdout.contains("returns checked, 0 mismatches"), "{stdout}");
    assert!(stdout.contains("\nbound task, idle, task    40000   20000       0        1   19999 "));
    assert!(stdout.lines().all(|line| line.chars().count() <= 100 || line.starts_with("timeline")));
    assert!(!stdout.contains('\x1b'), "no colour into a pipe");
    let picture = std::fs::read_to_string(&svg).expect("the timeline");
    std::fs::remove_file(&svg).expect("ours");
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    assert_eq!(picture.matches("<text").count(), picture.matches("</text>").count());
    for name in ["CPU 0", "CPU 1", "migration ping-pong", "restore skipped", "write T"] {
        assert!(picture.contains(name), "{name}");
    }
}

#[test]
fn the_counts_add_up() {
    let svg = file("json");
    let out =
        demo(&["--json", "--seed", "0x2a", "--runs", "2", "--svg", svg.to_str().expect("UTF-8")]);
    std::fs::remove_file(&svg).expect("ours");
    let json = text(&out.stdout);
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(0), ""), "{json}");
    check_structure(&json);
    assert_eq!(number(&json, "\"seed\"", "seed"), 42);
    let rows: Vec<_> = json.match_indices("{\"id\":").map(|(at, _)| &json[at..]).collect();
    let (bound, rows) = rows.split_last().expect("rows");
    let (total, rows) = rows.split_last().expect("rows");
    assert_eq!(rows.len(), 10);
    for side in ["\"deferred\":", "\"eager\":"] {
        for key in ["returns", "saves", "restores", "skipped"] {
            let sum: u64 = rows.iter().map(|row| number(row, side, key)).sum();
            assert_eq!(sum, number(total, side, key), "{side} {key}");
        }
    }
    for key in ["switches", "migrations"] {
        let sum: u64 = rows.iter().map(|row| number(row, "{", key)).sum();
        assert_eq!(sum, number(total, "{", key), "{key}");
    }
    let [deferred, eager] =
        ["\"deferred\":", "\"eager\":"].map(|side| number(total, side, "returns"));
    assert_eq!(deferred, eager, "the same scripts");
    let runs = rows.iter().chain([bound]).map(|row| {
        let returns =
            number(row, "\"deferred\":", "returns") + number(row, "\"eager\":", "returns");
        assert!((1..=2).contains(&number(row, "{", "runs")));
        number(row, "{", "runs") * returns
    });
    assert_eq!(number(&json, "\"returns_checked\"", "returns_checked"), runs.sum::<u64>());
    assert_eq!(number(&json, "\"mismatches\"", "mismatches"), 0);
    // A bound context is loaded once and never saved, an eager kernel's at each of its switches.
    assert!(json.contains("\"bound\":{\"id\":\"bound-task-idle-task\""), "{json}");
    let counts = ["returns", "saves", "restores", "skipped"];
    let of = |side| counts.map(|key| number(bound, side, key));
    assert_eq!(of("\"deferred\":"), [20_000, 0, 1, 19_999]);
    assert_eq!(of("\"eager\":"), [20_000, 20_000, 20_000, 0]);
    // What it is for: fewer restores than the eager kernel, and no more saves.
    let skipped = number(total, "\"deferred\":", "skipped");
    assert!(skipped > 20_000, "{skipped}");
    for key in ["saves", "restores"] {
        assert!(number(total, "\"deferred\":", key) < number(total, "\"eager\":", key), "{key}");
    }
}

#[test]
fn every_seeded_fault_ends_in_a_named_mismatch() {
    // Where it must show, and what the report must hold.
    let place = |fault| match fault {
        Fault::SkipRestore | Fault::SkipSave | Fault::SkipCommit | Fault::WrongTask => {
            ("two tasks alternate", "register ")
        }
        Fault::Clobber => ("task, idle, task", "register xmm3[0]"),
        Fault::SkipInvalidate => ("kernel thread bounces", "register "),
        Fault::StaleClaim => ("migration ping-pong", "register "),
        Fault::NoHandover => ("migration ping-pong", "live in the registers of CPU "),
        Fault::InheritClaim => ("exit and address reuse", "register "),
        Fault::LostWrite => ("stopped-task write", "register "),
    };
    for fault in Fault::ALL {
        let out = demo(&["--runs", "1", "--break", fault.name()]);
        let stdout = text(&out.stdout);
        assert_eq!(out.status.code(), Some(1), "{fault:?}: {stdout}");
        let at = stdout.find("MISMATCH task ").unwrap_or_else(|| panic!("{fault:?}: {stdout}"));
        let (scenario, detail) = place(fault);
        let report = &stdout[at..];
        assert!(report.contains(&format!("scenario \"{scenario}\"")), "{fault:?}: {report}");
        assert!(report.contains(detail), "{fault:?}: {report}");
        for word in [" on CPU ", "  register ", "  expected 0x", "  seen     0x"] {
            assert!(report.contains(word), "{fault:?}: {report}");
        }
        let json = demo(&[&format!("--break={}", fault.name()), "--json", "--runs=1"]);
        let document = text(&json.stdout);
        assert_eq!(json.status.code(), Some(1));
        check_structure(&document);
        assert_eq!(number(&document, "\"mismatches\"", "mismatches"), 1);
        assert!(document.contains(&format!("\"fault\":\"{}\"", fault.name())));
    }
}

#[test]
fn every_rung_runs_or_says_why_not() {
    let mut ran = 0;
    for (name, _) in RUNGS {
        let svg = file(name);
        let out =
            demo(&["--json", "--runs", "1", "--rung", name, "--svg", svg.to_str().expect("UTF-8")]);
        if out.status.success() {
            std::fs::remove_file(&svg).expect("ours");
            assert!(text(&out.stdout).contains(&format!("\"rung\":\"{name}\"")));
            ran += 1;
        } else {
            assert_eq!(out.status.code(), Some(1));
            assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{name}");
        }
    }
    assert!(ran >= 1, "FXSAVE at least");
}

#[test]
fn help_lists_every_fault_and_bad_arguments_are_refused() {
    let help = demo(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    // Long lines are broken.
    let help = text(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for fault in Fault::ALL {
        assert!(help.contains(fault.name()) && help.contains(fault.about()), "{fault:?}");
    }
    for bad in [
        &["--nonsense"][..],
        &["--break"],
        &["--break", "everything"],
        &["--seed", "many"],
        &["--runs", "0"],
        &["--rung", "xsaves"],
        &["--json=yes"],
        &["extra"],
    ] {
        let out = demo(bad);
        assert_eq!(out.status.code(), Some(2), "{bad:?}");
        assert!(out.stdout.is_empty(), "{bad:?}");
        assert_eq!(text(&out.stderr).lines().count(), 1, "{bad:?}");
    }
}

#[test]
fn what_cannot_be_written_is_said_and_loses_nothing() {
    // Before anything runs.
    let out = demo(&["--runs=1", "--svg", "/no/such/directory/at.svg"]);
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(2), ""));
    let stderr = text(&out.stderr);
    assert!(stderr.starts_with("demo: --svg: \"/no/such/directory/at.svg\": "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    // After: the figures are there all the same.
    let out = demo(&["--runs=1", "--svg=/dev/full"]);
    let stdout = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("returns checked, 0 mismatches"), "{stdout}");
    assert!(stdout.contains("timeline: /dev/full: "), "{stdout}");
    // A run that fails is not drawn, and says so.
    let svg = file("broken");
    let out = demo(&["--runs=1", "--break=clobber", "--svg", svg.to_str().expect("UTF-8")]);
    let stdout = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1));
    assert!(stdout.contains("MISMATCH") && stdout.contains("timeline: not written"), "{stdout}");
    assert!(!svg.exists());
    // No panic, one line, for the text and for the document.
    for args in [&["--help"][..], &["--json", "--runs=1", "--break=clobber"], &["--break=clobber"]]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux");
        let mut program = program(env!("CARGO_BIN_EXE_demo"));
        let out = program.args(args).stdout(full).output().expect("the demo can be started");
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        let stderr = text(&out.stderr);
        assert!(stderr.starts_with("demo: standard output: "), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    }
}
