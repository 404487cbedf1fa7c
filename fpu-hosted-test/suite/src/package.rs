//! `cargo package` of the library crates, what is in the packages, and whether they build from it.

use std::{fs, path::Path};

use crate::run::{Cmd, Outcome, Suite, LIBRARIES};

const MUST_HOLD: [&str; 4] = ["Cargo.toml", "README.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// All three in one call: cargo resolves what they need of each other from the packages themselves.
///
/// The step builds the packages itself. Cargo's own verification unpacks into the user's registry cache and takes what
/// it finds there under the same version, which is the last run's.
pub fn check(suite: &Suite) -> Outcome {
    let mut args = vec!["package", "--allow-dirty", "--no-verify"];
    args.extend(LIBRARIES.iter().flat_map(|name| ["-p", name]));
    let done = match suite.cargo(&args).run() {
        Ok(done) => done,
        Err(why) => return Outcome::Failed(why),
    };
    if !done.success || done.stderr.contains("manifest has no") {
        return Outcome::Failed(done.tail());
    }
    let unpacked = suite.target.join("package-unpacked");
    let built = LIBRARIES.iter().try_for_each(|name| holds(suite, name));
    match built.and_then(|()| unpack(suite, &unpacked)).and_then(|()| build(suite, &unpacked)) {
        Ok(()) => Outcome::Passed { count: LIBRARIES.len(), note: String::new() },
        Err(why) => Outcome::Failed(why),
    }
}

fn full_name(name: &str) -> String {
    format!("{name}-{}", env!("CARGO_PKG_VERSION"))
}

fn archive(suite: &Suite, name: &str) -> String {
    let file = suite.target.join("package").join(format!("{}.crate", full_name(name)));
    file.to_string_lossy().into_owned()
}

/// The licences and the guides are links in the repository and must be files in the package.
fn holds(suite: &Suite, name: &str) -> Result<(), String> {
    let archive = archive(suite, name);
    let list = Cmd::new("tar").args(&["-tvzf", &archive]).ok()?;
    let must_hold = MUST_HOLD.into_iter().map(str::to_owned).chain(guides(suite, name));
    for file in must_hold {
        let path = format!(" {}/{file}", full_name(name));
        let Some(line) = list.lines().find(|line| line.ends_with(&path)) else {
            return Err(format!("{archive} does not hold {file}"));
        };
        if !line.starts_with('-') {
            return Err(format!("{archive}: {file} is not a file: {line}"));
        }
        if line.split_whitespace().nth(2) == Some("0") {
            return Err(format!("{archive}: {file} is empty"));
        }
    }
    Ok(())
}

/// The pages that the crate's documentation includes.
fn guides(suite: &Suite, name: &str) -> Vec<String> {
    let entries = fs::read_dir(suite.root.join(name).join("docs"));
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.map(|name| format!("docs/{}", name.to_string_lossy())).collect()
}

fn unpack(suite: &Suite, into: &Path) -> Result<(), String> {
    let io = |why: std::io::Error| format!("{}: {why}", into.display());
    if into.exists() {
        fs::remove_dir_all(into).map_err(io)?;
    }
    fs::create_dir_all(into).map_err(io)?;
    for name in LIBRARIES {
        let into = into.to_string_lossy();
        Cmd::new("tar").args(&["-xzf", &archive(suite, name), "-C", &into]).ok()?;
    }
    // Of each other they take what is in the packages, not what is in the repository.
    let mut manifest =
        String::from("[workspace]\nresolver = \"2\"\nmembers = [\"fpu-*\"]\n\n[patch.crates-io]\n");
    for name in LIBRARIES {
        manifest.push_str(&format!("{name} = {{ path = \"{}\" }}\n", full_name(name)));
    }
    fs::write(into.join("Cargo.toml"), manifest).map_err(io)?;
    fs::copy(suite.root.join("Cargo.lock"), into.join("Cargo.lock")).map_err(io).map(|_| ())
}

fn build(suite: &Suite, unpacked: &Path) -> Result<(), String> {
    let command = suite.cargo(&["build", "--workspace"]).dir(unpacked);
    command.env("CARGO_TARGET_DIR", suite.target.join("package-build")).ok().map(|_| ())
}
