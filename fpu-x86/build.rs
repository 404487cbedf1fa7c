//! Says which items newer than the oldest supported compiler may be used.
use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let minor = env::var_os("RUSTC")
        .and_then(|rustc| Command::new(rustc).arg("--version").output().ok())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .and_then(|text| text.split('.').nth(1)?.parse::<u32>().ok())
        .unwrap_or(0);
    if minor >= 81 {
        println!("cargo:rustc-cfg=fpu_core_error");
    }
}
