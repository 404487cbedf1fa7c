//! The library crates without the standard library, as a kernel would link them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    object,
    run::{Cmd, Outcome, Suite},
    toolchains,
};

const TARGET: &str = "x86_64-unknown-none";

/// The symbols that any kernel supplies; nothing else may be left undefined.
const SUPPLIED: &[&str] = &["memcpy", "memmove", "memset", "memcmp", "bcmp", "rust_eh_personality"];

/// Tells whether `x86_64-unknown-none` is installed. Otherwise the host's target stands in for it.
fn bare_metal() -> bool {
    let libdir = Cmd::new("rustc").args(&["--print", "target-libdir", "--target", TARGET]).ok();
    libdir.is_ok_and(|dir| PathBuf::from(dir.trim()).is_dir())
}

/// The check and its target, for the list.
pub fn abouts() -> (&'static str, &'static str) {
    if bare_metal() {
        (
            "a small kernel's static library, for x86_64-unknown-none: nothing of std or alloc, no panic",
            "the same library: no vector register outside of the backend's instructions",
        )
    } else {
        (
            "a small kernel's static library, #![no_std] for the host: nothing of std or alloc, no panic",
            "the same for the host without SSE: no vector register outside of the backend's instructions",
        )
    }
}

/// Copies `fpu-hosted-test/nostd` to where it is outside of the workspace, with its lock file.
fn source(suite: &Suite) -> Result<PathBuf, String> {
    let source = suite.root.join("fpu-hosted-test/nostd");
    let copy = suite.target.join("nostd-source");
    let io = |why: std::io::Error| format!("{}: {why}", copy.display());
    let manifest = fs::read_to_string(source.join("Cargo.toml")).map_err(io)?;
    let manifest = manifest.replace("../../", &format!("{}/", suite.root.display()));
    fs::create_dir_all(copy.join("src")).map_err(io)?;
    fs::write(copy.join("Cargo.toml"), manifest).map_err(io)?;
    fs::copy(source.join("src/lib.rs"), copy.join("src/lib.rs")).map_err(io)?;
    fs::copy(suite.root.join("Cargo.lock"), copy.join("Cargo.lock")).map_err(io)?;
    Ok(copy)
}

/// Builds the copy and returns the library.
fn build(suite: &Suite, directory: &str, rustflags: &str) -> Result<PathBuf, String> {
    let (copy, target) = (source(suite)?, suite.target.join(directory));
    let mut command = suite.cargo(&["build", "--release"]);
    let mut library = target.clone();
    if bare_metal() {
        command = command.args(&["--target", TARGET]);
        library.push(TARGET);
    } else {
        command = command.env("RUSTFLAGS", rustflags);
    }
    command.dir(&copy).env("CARGO_TARGET_DIR", &target).ok()?;
    Ok(library.join("release/libfpu_nostd.a"))
}

/// Nothing of `std` or `alloc`, no panic, and nothing undefined except what every kernel has.
pub fn symbols(suite: &Suite) -> Outcome {
    let Some(nm) = suite.tool(&["nm", "llvm-nm"]) else {
        return Outcome::Skipped("no nm or llvm-nm: install the package binutils".into());
    };
    match build(suite, "nostd", "") {
        Ok(library) => symbols_of(&nm, &library, true),
        Err(why) => Outcome::Failed(why),
    }
}

/// Panics are what this compiler leaves of them; an older one may leave more.
fn symbols_of(nm: &str, library: &Path, panics: bool) -> Outcome {
    let listed = Cmd::new(nm).args(&["-P", &library.to_string_lossy()]).ok();
    match listed.and_then(|text| foreign(&text, panics)) {
        Err(why) => Outcome::Failed(why),
        Ok(found) if found.is_empty() => Outcome::one(),
        Ok(found) => {
            let found = found.into_iter().collect::<Vec<_>>().join("\n");
            Outcome::Failed(format!("the library needs or holds what a kernel has not:\n{found}"))
        }
    }
}

/// Our functions, compiled for a kernel without vector instructions, hold none.
pub fn no_sse(suite: &Suite) -> Outcome {
    let Some(objdump) = suite.tool(&["objdump", "llvm-objdump"]) else {
        return Outcome::Skipped("no objdump or llvm-objdump: install the package binutils".into());
    };
    match build(suite, "nostd-no-sse", "-Ctarget-feature=-sse,-sse2") {
        Err(why) if why.contains("target feature `sse") && why.contains("error: ") => {
            let why = format!(
                "this rustc refuses the host's target without SSE: `rustup target add {TARGET}`"
            );
            Outcome::Skipped(why)
        }
        Err(why) => Outcome::Failed(why),
        Ok(library) => vectors_of(&objdump, &library),
    }
}

fn vectors_of(objdump: &str, library: &Path) -> Outcome {
    let functions = match object::disassembly(objdump, library) {
        Ok(functions) => functions,
        Err(why) => return Outcome::Failed(why),
    };
    let ours = functions.iter().filter(|(name, _)| {
        name.starts_with("nostd_") || name.contains("fpu_core") || name.contains("fpu_x86")
    });
    let (mut seen, mut wrong) = (0, Vec::new());
    for (name, body) in ours {
        seen += 1;
        for insn in
            body.iter().filter(|i| i.touches_fpu() && !object::BACKEND.contains(&i.last_word()))
        {
            wrong.push(format!("{name}: {} {}", insn.mnemonic, insn.operands));
        }
    }
    if !functions.contains_key("nostd_switch") {
        wrong.push("the library does not hold its own `nostd_switch`: nothing was checked".into());
    }
    if wrong.is_empty() {
        Outcome::Passed { count: 1, note: format!("{seen} functions\n") }
    } else {
        Outcome::Failed(wrong.join("\n"))
    }
}

/// Checks that library for the kernel's own target, by whichever compiler can build for it: rustup's, or
/// Debian's with the sources of `core`. Both checks are done on it.
pub fn on_bare_metal(suite: &Suite) -> Outcome {
    let tools = (suite.tool(&["nm", "llvm-nm"]), suite.tool(&["objdump", "llvm-objdump"]));
    let (Some(nm), Some(objdump)) = tools else {
        return Outcome::Skipped("no nm or objdump: install the package binutils".into());
    };
    let library = if bare_metal() {
        build(suite, "nostd", "")
    } else if let Some(rustc) = toolchains::debian_rustc(suite) {
        build_with_core(suite, &rustc)
    } else {
        let why = format!("no compiler for {TARGET}: `rustup target add {TARGET}`, or ");
        return Outcome::Skipped(why + toolchains::FETCH);
    };
    let library = match library {
        Err(why) if why.contains("you're using offline mode") => {
            let why = "the crates that core needs are not here; remove target/rustc-web, then ";
            return Outcome::Skipped(format!("{why}{}", toolchains::FETCH));
        }
        Err(why) => return Outcome::Failed(why),
        Ok(library) => library,
    };
    for outcome in [symbols_of(&nm, &library, false), vectors_of(&objdump, &library)] {
        if !matches!(outcome, Outcome::Passed { .. }) {
            return outcome;
        }
    }
    Outcome::Passed { count: 3, note: String::new() }
}

fn build_with_core(suite: &Suite, rustc: &Path) -> Result<PathBuf, String> {
    let target = suite.target.join("nostd-bare-metal");
    let args = ["build", "--release", "--offline", "-Zbuild-std=core", "--target", TARGET];
    let command = suite.cargo(&args).env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    command.dir(source(suite)?).env("CARGO_TARGET_DIR", &target).ok()?;
    Ok(target.join(TARGET).join("release/libfpu_nostd.a"))
}

/// Checks that the conformance suite builds without the standard library and on `fpu-core` alone, for authors who try a
/// backend on bare metal.
pub fn conformance(suite: &Suite) -> Outcome {
    let package = ["-p", "fpu-hosted-test", "--no-default-features"];
    let tree = suite.cargo(&["tree", "-e", "normal", "--prefix", "none"]).args(&package).ok();
    let ours = |line: &&str| line.starts_with("fpu-hosted-test ") || line.starts_with("fpu-core ");
    match tree.as_ref().map(|text| text.lines().filter(|line| !ours(line)).collect::<String>()) {
        Ok(others) if others.is_empty() => {}
        Ok(others) => return Outcome::Failed(format!("it depends on {others}")),
        Err(why) => return Outcome::Failed(why.clone()),
    }
    let mut build = suite.cargo(&["build", "--lib"]).args(&package);
    if bare_metal() {
        build = build.args(&["--target", TARGET]);
    }
    Outcome::of(build.env("CARGO_TARGET_DIR", suite.target.join("nostd-conformance")).ok())
}

/// Symbols of `std` and `alloc`, those of panics that our code has or needs, and those that it needs and nothing in the
/// library defines. (The toolchain's own members, of which a linker takes what is needed, are incomplete by themselves.)
fn foreign(nm: &str, panics: bool) -> Result<BTreeSet<String>, String> {
    let (mut defined, mut needed) = (BTreeSet::new(), BTreeSet::new());
    let (mut found, mut ours) = (BTreeSet::new(), false);
    for line in nm.lines() {
        if let Some((_, member)) = line.strip_suffix("]:").and_then(|l| l.split_once('[')) {
            ours = member.starts_with("fpu_nostd");
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(kind)) = (words.next(), words.next()) else { continue };
        if kind.len() != 1 {
            continue;
        }
        if panics && ours && name.contains("4core9panicking") {
            found.insert(name.to_owned());
        }
        if kind != "U" {
            defined.insert(name.to_owned());
        } else if ours {
            needed.insert(name.to_owned());
        }
    }
    if !defined.contains("nostd_switch") {
        return Err("the library does not hold its own `nostd_switch`: nothing was checked".into());
    }
    let hosted = |name: &&String| {
        ["3std", "5alloc", "__rust_alloc", "__rdl_", "malloc", "pthread"]
            .iter()
            .any(|part| name.contains(part))
    };
    found.extend(defined.iter().filter(hosted).cloned());
    let left = needed.difference(&defined);
    found.extend(
        left.filter(|n| !SUPPLIED.contains(&n.as_str()) && *n != "_GLOBAL_OFFSET_TABLE_").cloned(),
    );
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_has_not_is_named() {
        let clean = "lib.a[mulvti3.o]:\n__udivti3 U\nlib.a[fpu_nostd-1.o]:\nnostd_switch T 0 10\nmemcpy U\nhelper U\nhelper T 10 5\n";
        assert!(foreign(clean, true).unwrap().is_empty());
        let dirty = format!("{clean}write U\n_ZN3std2io5stdio6_print17h00E T 0 1\n");
        let found: Vec<_> = foreign(&dirty, true).unwrap().into_iter().collect();
        assert_eq!(found, ["_ZN3std2io5stdio6_print17h00E", "write"]);
        let panic = "_ZN4core9panicking5panic17h00E";
        let panics = format!("lib.a[core-1.o]:\n{panic} T 0 1\n{clean}{panic} U\n");
        assert_eq!(foreign(&panics, true).unwrap().len(), 1);
        assert!(foreign(&panics, false).unwrap().is_empty());
        assert!(foreign("memcpy U\n", true).is_err());
    }
}
