//! Starting a program of this package as cargo started the test, and what it says.
#![allow(dead_code)] // each of the tests uses a part

use std::process::Command;

/// Cargo's runner for this target, if the environment names one: an emulator runs only what it is given, and
/// a program that a test starts is to run on the same CPU as the test.
const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";

/// The program, to be given arguments.
pub fn program(path: &str) -> Command {
    let runner = std::env::var(RUNNER).unwrap_or_default();
    let mut words = runner.split_whitespace();
    let mut command = match words.next() {
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.args(words).arg(path);
            command
        }
        None => Command::new(path),
    };
    // Tests read tables of the usual width, whatever terminal they are started from.
    command.env_remove("COLUMNS");
    command
}

/// What it wrote.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
