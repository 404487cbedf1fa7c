//! Builds the kernel, which is a workspace of its own, for a target without vector registers.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The target for which the kernel is made.
const BARE: &str = "x86_64-unknown-none";
/// The image is not relocated, and lies below 2 GiB.
const BARE_FLAGS: &str = "-Crelocation-model=static -Ccode-model=small";
/// The target that stands in for [`BARE`], with [`HOST_FLAGS`].
const HOST: &str = "x86_64-unknown-linux-gnu";
/// The flags that make a static kernel without SSE out of the host's target. The kernel brings its linker script
/// itself.
const HOST_FLAGS: &str = "-Clinker=rust-lld -Clinker-flavor=ld.lld -Crelocation-model=static \
    -Cno-redzone=yes -Clink-arg=--no-dynamic-linker -Clink-arg=-static \
    -Clink-arg=--defsym=rust_eh_personality=0 -Ctarget-feature=-sse,-sse2";

/// How the kernel is built here.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The kernel's manifest.
    pub manifest: PathBuf,
    /// rustc's target.
    pub target: &'static str,
    /// `RUSTFLAGS`, which with an explicit target stay away from build scripts.
    pub flags: &'static str,
    /// `CARGO_TARGET_DIR`.
    pub directory: PathBuf,
}

/// Why there is no kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoKernel {
    /// This toolchain cannot build the kernel; the remedy.
    Unsupported(String),
    /// The kernel does not build; cargo's output.
    Broken(String),
}

/// The workspace, and the directory that cargo builds it in.
///
/// # Errors
///
/// This program is not where cargo puts it.
pub fn places() -> Result<(PathBuf, PathBuf), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf);
    let started = std::env::current_dir().ok();
    let is_root = |dir: &PathBuf| dir.join("examples/kernel").is_dir();
    let here = started.iter().flat_map(|dir| dir.ancestors()).map(Path::to_path_buf);
    let root = here.chain(root).find(is_root);
    let root = root.ok_or("no examples/kernel here: start `cargo boot` in the repository")?;
    // Cargo tags the directory, if it has made it; a program lies two levels below it.
    let exe = std::env::current_exe().unwrap_or_default();
    let tagged = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    let target = tagged.or(exe.ancestors().nth(2)).map(Path::to_path_buf);
    Ok((root.clone(), target.unwrap_or_else(|| root.join("target"))))
}

/// Tells whether the toolchain has a standard library for [`BARE`].
fn bare_metal() -> bool {
    let mut command = Command::new("rustc");
    command.args(["--print", "target-libdir", "--target", BARE]).stdin(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success());
    let libdir = output.and_then(|output| String::from_utf8(output.stdout).ok());
    libdir.is_some_and(|dir| Path::new(dir.trim()).is_dir())
}

impl Recipe {
    /// The recipe for this toolchain.
    #[must_use]
    pub fn new(root: &Path, target: &Path) -> Self {
        let (name, flags) = if bare_metal() { (BARE, BARE_FLAGS) } else { (HOST, HOST_FLAGS) };
        Self {
            manifest: root.join("examples/kernel/Cargo.toml"),
            target: name,
            flags,
            directory: target.join("kernel"),
        }
    }

    /// The ELF file, whether it exists or not.
    #[must_use]
    pub fn elf(&self) -> PathBuf {
        self.directory.join(self.target).join("release/kernel")
    }

    /// Builds the kernel.
    ///
    /// # Errors
    ///
    /// The reason why there is no kernel.
    pub fn build(&self) -> Result<PathBuf, NoKernel> {
        let broken = |why: String| NoKernel::Broken(why);
        if !self.manifest.is_file() {
            return Err(broken(format!("no {}", self.manifest.display())));
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        // What `cargo run` says about this program is not for the kernel.
        for (key, _) in std::env::vars_os() {
            let name = key.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&key);
            }
        }
        command.args(["build", "--release", "--target", self.target, "--manifest-path"]);
        command.arg(&self.manifest).stdin(Stdio::null());
        command.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", self.flags);
        command.env("CARGO_TARGET_DIR", &self.directory).env("CARGO_TERM_COLOR", "never");
        let output = command.output().map_err(|why| broken(format!("cargo: {why}")))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(refused(&said, self.target).unwrap_or_else(|| broken(said)));
        }
        let elf = self.elf();
        if elf.is_file() {
            Ok(elf)
        } else {
            Err(broken(format!("cargo built no {}", elf.display())))
        }
    }
}

/// Tells whether this compiler insists on SSE for the stand-in.
fn refused(said: &str, target: &str) -> Option<NoKernel> {
    let insists = said.lines().any(|line| {
        line.starts_with("error") && line.contains("target feature") && line.contains("sse")
    });
    (insists && target == HOST).then(|| {
        let why = "this rustc refuses the host's target without SSE";
        NoKernel::Unsupported(format!("{why}: `rustup target add {BARE}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_insists_on_sse_is_no_broken_kernel() {
        let insists = "error: target feature `sse2` must be enabled to ensure that the ABI holds\n";
        let Some(NoKernel::Unsupported(why)) = refused(insists, HOST) else { panic!("not seen") };
        assert!(why.contains("rustup target add x86_64-unknown-none"));
        assert_eq!(refused(insists, BARE), None);
        let warns = insists.replace("error", "warning") + "error[E0308]: mismatched types\n";
        assert_eq!(refused(&warns, HOST), None);
    }
}
