//! Copies the sources of `fpu-core`, makes the edits of the fault that `FPU_FAULT` names, if it is one of the
//! protocol's, and puts a `sync.rs` that stands beside the manifest in the place of the core's.

#[path = "../src/edit.rs"]
mod edit;

use std::{collections::BTreeMap, env, fs, path::Path};

/// The edits of each row.
macro_rules! rows {
    ($name:ident: $($fault:ident, $removes:literal => $($model:path)? $([$why:path])?, $breaks:literal, $message:literal,
        $($preemptions:literal,)? $seen:ident($how:tt), $($file:literal: $before:literal => $after:literal),+;)*) => {
        const $name: &[(&str, &[edit::Edit])] =
            &[$((stringify!($fault), &[$(($file, $before, $after)),+])),*];
    };
}
macro_rules! protocol {
    ($($row:tt)*) => { rows! { EDITS: $($row)* } };
}
macro_rules! bound {
    ($($row:tt)*) => { rows! { BOUND: $($row)* } };
}
include!("../src/protocol.rs");
include!("../src/bound.rs");

/// Loom's atomics are not `const`.
const LOOM: &[edit::Edit] = &[("cpu.rs", "pub const fn new() -> Self {", "pub fn new() -> Self {")];

fn main() {
    let variable = |name| env::var(name).unwrap_or_default();
    let (manifest, out) = (variable("CARGO_MANIFEST_DIR"), variable("OUT_DIR"));
    let core = Path::new(&manifest).join("../../../fpu-core/src");
    let mut files = match edit::sources(&core) {
        Ok(files) => files,
        Err(why) => return failed(&format!("{}: {why}", core.display())),
    };
    let fault = variable("FPU_FAULT");
    let edits = EDITS.iter().chain(BOUND).find(|(name, _)| *name == fault);
    if let Some(why) = edits.and_then(|(_, edits)| edit::apply(&mut files, edits).err()) {
        return failed(&format!("the fault {fault}: {why}"));
    }
    if let Ok(sync) = fs::read_to_string(Path::new(&manifest).join("sync.rs")) {
        files.insert("sync.rs".into(), sync);
        if let Err(why) = edit::apply(&mut files, LOOM) {
            return failed(&format!("loom's atomics: {why}"));
        }
    }
    // A crate's attributes belong at the top of its first file, which includes this one.
    if let Some(top) = files.get_mut("lib.rs") {
        *top =
            top.lines().filter(|line| !line.starts_with("#![")).map(|l| format!("{l}\n")).collect();
    }
    if let Err(why) = write(&Path::new(&out).join("src"), &files) {
        return failed(&why.to_string());
    }
    println!("cargo:rustc-env=FPU_SEEDED={}", edits.map_or("", |(name, _)| name));
    println!("cargo:rerun-if-env-changed=FPU_FAULT");
    let mine =
        ["sync.rs", "../core/build.rs", "../src/edit.rs", "../src/protocol.rs", "../src/bound.rs"]
            .map(Path::new);
    // A file that is not there would count as changed, each time.
    for path in mine.into_iter().chain([core.as_path()]).filter(|path| path.exists()) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

fn failed(why: &str) {
    println!("cargo:rerun-if-env-changed=FPU_FAULT");
    eprintln!("{why}");
    std::process::exit(1);
}

fn write(to: &Path, files: &BTreeMap<String, String>) -> std::io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    for (name, text) in files {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap_or(to))?;
        fs::write(path, text)?;
    }
    Ok(())
}
