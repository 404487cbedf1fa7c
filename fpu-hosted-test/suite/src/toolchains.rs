//! The library crates on compilers older than the one at hand. Nothing is downloaded here.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::run::{Cmd, Outcome, Suite, LIBRARIES};

/// The command that fetches Debian's compiler.
pub const FETCH: &str = "`bash .ci/rustc-web` fetches Debian's older compiler (about 140 MB)";

/// The build of both libraries, in debug and with every feature.
const BUILD: [&str; 7] =
    ["build", "--offline", "-p", "fpu-core", "-p", "fpu-x86", "--features=fpu-core/alloc"];

/// The minor version of the compiler at hand.
pub fn minor() -> Option<u32> {
    let version = Cmd::new("rustc").args(&["--version"]).ok().ok()?;
    version.split('.').nth(1)?.parse().ok()
}

/// The directory of what `.ci/rustc-web` has fetched.
pub fn debian_rustc(suite: &Suite) -> Option<PathBuf> {
    let rustc = suite.target.join("rustc-web/rustc");
    rustc.is_file().then_some(rustc)
}

/// Builds on Debian's compiler, by the cargo at hand.
pub fn debian(suite: &Suite) -> Outcome {
    let Some(rustc) = debian_rustc(suite) else {
        return Outcome::Skipped(format!("no rustc-web: {FETCH}"));
    };
    let version = match Cmd::new(&rustc.to_string_lossy()).args(&["--version"]).ok() {
        Ok(version) => version,
        Err(why) => return Outcome::Failed(why),
    };
    let command = suite.cargo(&BUILD).env("RUSTC", &rustc);
    match command.env("CARGO_TARGET_DIR", suite.target.join("rustc-web-build")).ok() {
        Ok(_) => Outcome::Passed { count: 1, note: version },
        Err(why) => Outcome::Failed(why),
    }
}

/// The oldest that the libraries promise to build on, as the workspace's manifest says.
fn promised(manifest: &str) -> Option<&str> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \""))?;
    line.strip_suffix('"')
}

/// The toolchain of that version among those that rustup has.
fn among<'l>(list: &'l str, version: &str) -> Option<&'l str> {
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.into_iter().find(|name| {
        let rest = name.strip_prefix(version);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    })
}

/// Builds on the oldest compiler that is promised, by its own cargo: a newer cargo gives a compiler options that it
/// does not know.
pub fn oldest(suite: &Suite) -> Outcome {
    let manifest = fs::read_to_string(suite.root.join("Cargo.toml")).unwrap_or_default();
    let Some(version) = promised(&manifest) else {
        return Outcome::Failed("Cargo.toml names no rust-version".into());
    };
    let list = Cmd::new("rustup").args(&["toolchain", "list"]).ok().unwrap_or_default();
    let Some(toolchain) = among(&list, version) else {
        let get = format!("`rustup toolchain install {version} --profile minimal`");
        return Outcome::Skipped(format!("no Rust {version}: {get}"));
    };
    let source = suite.target.join("oldest-source");
    if let Err(why) = workspace(suite, &source, &manifest) {
        return Outcome::Failed(format!("{}: {why}", source.display()));
    }
    let command = Cmd::new("rustup").args(&["run", toolchain, "cargo"]).args(&BUILD).dir(&source);
    // What rustup said to this program is of another toolchain.
    let command = command.unset(&["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTDOC"]);
    match command.env("CARGO_TARGET_DIR", suite.target.join("oldest")).ok() {
        Ok(_) => Outcome::Passed { count: 1, note: format!("{toolchain}\n") },
        Err(why) => Outcome::Failed(why),
    }
}

/// A workspace of the libraries alone: an older cargo reads neither the present lock file's format nor
/// each of the other members' manifests.
fn workspace(suite: &Suite, into: &Path, manifest: &str) -> std::io::Result<()> {
    fs::create_dir_all(into)?;
    let manifest: String = manifest
        .lines()
        .filter(|line| !line.starts_with("exclude"))
        .map(|line| match line.starts_with("members") {
            true => format!("members = {LIBRARIES:?}\n"),
            false => format!("{line}\n"),
        })
        .collect();
    // Of another package, which is not here.
    let manifest = manifest.split("[profile.dev.package").next().unwrap_or_default().to_owned();
    fs::write(into.join("Cargo.toml"), manifest)?;
    let lock = fs::read_to_string(suite.root.join("Cargo.lock"))?;
    // The two formats differ in the addresses of git repositories, of which there are none.
    fs::write(into.join("Cargo.lock"), lock.replace("\nversion = 4\n", "\nversion = 3\n"))?;
    for member in LIBRARIES {
        let link = into.join(member);
        if !link.exists() {
            symlink(suite.root.join(member), &link)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promised_version_is_found_among_toolchains() {
        assert_eq!(promised("edition = \"2021\"\nrust-version = \"1.75\"\n"), Some("1.75"));
        assert_eq!(promised("[package]\n"), None);
        let list = "stable-x (active)\n1.7-x\n1.750.0-x\n1.75.0-x86_64-unknown-linux-gnu\n";
        assert_eq!(among(list, "1.75"), Some("1.75.0-x86_64-unknown-linux-gnu"));
        assert_eq!(among("1.75-x\n", "1.75"), Some("1.75-x"));
        assert_eq!(among("stable-x (active)\n", "1.75"), None);
    }
}
