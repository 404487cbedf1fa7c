//! Hands the linker script to the linker by its absolute path.
use std::{env, path::Path};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let script = Path::new(&root).join("link.ld");
    println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    for file in ["build.rs", "link.ld", "src"] {
        println!("cargo:rerun-if-changed={file}");
    }
}
