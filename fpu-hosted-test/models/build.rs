//! Tells the tests whether they are optimised: the `debug_assertions` that they have in every profile do not say.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let level = std::env::var("OPT_LEVEL").unwrap_or_default();
    println!("cargo:rustc-env=FPU_OPT_LEVEL={level}");
}
