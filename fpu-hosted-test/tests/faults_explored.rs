//! Each seeded fault of the core is given to the explorer too, which must find it at the depth that the table
//! says, or not find it.
#![cfg(fpu_loom)]

use fpu_hosted_test::seeded::{Seen, SEEN};
use std::{path::Path, process::Command};

/// The explorer needs the core's real words and its faults: a build of its own.
#[test]
fn the_explorer_finds_what_the_table_says() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !here.join("../fpu-core").exists() {
        println!("SKIP: fpu-core is not beside this crate (packaged alone)");
        return;
    }
    let output = Command::new(env!("CARGO"))
        .args(["run", "-q", "--release", "-p", "fpu-hosted-test", "--bin", "explore"])
        .args(["--target-dir".as_ref(), here.join("../target/seeded").as_os_str()])
        .args(["--", "--faults"])
        .env("RUSTFLAGS", "--cfg fpu_seeded")
        .current_dir(here)
        .output()
        .expect("cargo starts");
    let (text, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{text}");
    println!("{text}");
    let mut wrong = Vec::new();
    for (name, seen) in SEEN {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let depth = line.and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let expected = match seen {
            Seen::At(depth) => depth.to_string(),
            Seen::Not(_) => String::from("-"),
        };
        if depth != expected {
            wrong.push(format!("{name} is not seen at {expected}: {}", line.unwrap_or("no line")));
        }
    }
    assert_eq!(text.lines().count(), SEEN.len());
    let found = SEEN.iter().filter(|(_, seen)| matches!(seen, Seen::At(_))).count();
    assert!(found >= 45, "only {found} are found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
