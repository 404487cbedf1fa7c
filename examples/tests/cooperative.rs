//! The cooperative scheduler as it is used: every register of every task, and every step that is left out noticed.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::process::Output;

use fpu_examples::cooperative::faults::Fault;

#[path = "support/program.rs"]
mod support;
use support::program;

fn cooperative(args: &[&str]) -> Output {
    let program = program(env!("CARGO_BIN_EXE_cooperative")).args(args).output();
    program.expect("it can be started")
}
fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
/// The number in front of `what`.
fn number(text: &str, what: &str) -> u64 {
    let words: Vec<_> = text.split([' ', '\n']).collect();
    let at = words.iter().position(|word| word.trim_end_matches([',', ':']) == what);
    let at = at.unwrap_or_else(|| panic!("no {what}: {text}"));
    words[at - 1].parse().unwrap_or_else(|_| panic!("{what} is not counted: {text}"))
}

#[test]
fn every_register_of_every_task_is_as_expected() {
    for seed in ["1", "2", "0x5eed"] {
        let out = cooperative(&["--seed", seed]);
        let stdout = text(&out.stdout);
        assert_eq!(out.status.code(), Some(0), "{stdout}{}", text(&out.stderr));
        assert!(stdout.contains(" 0 mismatches"), "{stdout}");
        assert!(number(&stdout, "switches") >= 20_000, "{stdout}");
        for what in ["yields", "sections", "forks", "images"] {
            assert!(number(&stdout, what) > 100, "{what}: {stdout}");
        }
        // Whoever is loaded was saved, or had just been made.
        let (saves, restores) = (number(&stdout, "saves"), number(&stdout, "restores"));
        assert!(saves > 10_000 && restores > 10_000, "{stdout}");
        assert!(number(&stdout, "times") > 20_000 / 2, "{stdout}");
    }
}

#[test]
fn every_step_that_is_left_out_is_noticed() {
    for fault in Fault::ALL {
        let found = match fault {
            Fault::SkipSave | Fault::SkipRestore | Fault::SkipLive => "MISMATCH ",
            Fault::SectionUnsaved => "MISMATCH after a section",
            Fault::ComputesFirst => "register xmm3[0]",
            Fault::SkipSaved => "refused: the ",
        };
        for seed in ["1", "7"] {
            let out = cooperative(&["--break", fault.name(), "--seed", seed]);
            let stdout = text(&out.stdout);
            assert_eq!(out.status.code(), Some(1), "{fault:?}: {stdout}{}", text(&out.stderr));
            let named = stdout.contains("\ntask ") || stdout.contains("\nmain thread: ");
            assert!(named && stdout.contains(found), "{fault:?}: {stdout}");
        }
    }
}

#[test]
fn help_lists_every_fault() {
    let help = cooperative(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for fault in Fault::ALL {
        assert!(text(&help.stdout).contains(fault.name()), "{fault:?}");
    }
}
