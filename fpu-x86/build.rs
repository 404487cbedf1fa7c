//! Says whether the instructions are for this target, and which items newer than the oldest supported compiler may be
//! used.
use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if has_instructions() {
        println!("cargo:rustc-cfg=fpu_instructions");
    }
    let minor = env::var_os("RUSTC")
        .and_then(|rustc| Command::new(rustc).arg("--version").output().ok())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .and_then(|text| text.split('.').nth(1)?.parse::<u32>().ok())
        .unwrap_or(0);
    if minor >= 78 {
        println!("cargo:rustc-cfg=fpu_diagnostics");
    }
    if minor >= 81 {
        println!("cargo:rustc-cfg=fpu_core_error");
    }
}

/// The assembly is for ELF: every kernel target, and Linux and BSD hosts. Elsewhere the crate builds without
/// instructions: bits, layouts and image views.
fn has_instructions() -> bool {
    let is = |name: &str, value: &str| {
        env::var(format!("CARGO_CFG_TARGET_{name}")).as_deref() == Ok(value)
    };
    let other = is("OS", "windows") || is("OS", "uefi") || is("VENDOR", "apple");
    is("ARCH", "x86_64") && is("POINTER_WIDTH", "64") && !other
}
