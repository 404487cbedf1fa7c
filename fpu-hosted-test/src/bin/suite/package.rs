//! `cargo package` of the library crates, and what is in the packages.

use crate::run::{Cmd, Outcome, Suite};

const CRATES: [&str; 3] = ["fpu-core", "fpu-x86", "fpu-hosted-test"];
const MUST_HOLD: [&str; 4] = ["Cargo.toml", "README.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// All three in one call: cargo resolves what they need of each other from the packages themselves.
pub fn check(suite: &Suite) -> Outcome {
    let mut args = vec!["package", "--allow-dirty"];
    args.extend(CRATES.iter().flat_map(|name| ["-p", name]));
    let done = match suite.cargo(&args).run() {
        Ok(done) => done,
        Err(why) => return Outcome::Failed(why),
    };
    if !done.success || done.stderr.contains("manifest has no") {
        return Outcome::Failed(done.tail());
    }
    for name in CRATES {
        if let Err(why) = holds(suite, name) {
            return Outcome::Failed(why);
        }
    }
    Outcome::Passed { count: CRATES.len(), note: String::new() }
}

/// The licences are links in the repository and must be files in the package.
fn holds(suite: &Suite, name: &str) -> Result<(), String> {
    let prefix = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
    let archive = suite.target.join("package").join(format!("{prefix}.crate"));
    let archive = archive.to_string_lossy().into_owned();
    let list = Cmd::new("tar").args(&["-tvzf", &archive]).ok()?;
    for file in MUST_HOLD {
        let path = format!(" {prefix}/{file}");
        let Some(line) = list.lines().find(|line| line.ends_with(&path)) else {
            return Err(format!("{archive} does not hold {file}"));
        };
        if !line.starts_with('-') {
            return Err(format!("{archive}: {file} is not a file: {line}"));
        }
        let empty = line.split_whitespace().nth(2) == Some("0");
        if empty {
            return Err(format!("{archive}: {file} is empty"));
        }
    }
    Ok(())
}
