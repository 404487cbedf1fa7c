//! Child processes with captured output, and the outcome of a step.

use std::{
    fs::File,
    io::Read as _,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::tests_run;

/// Longest a single child may take. The whole must stay far inside an hour.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// The packages that are published.
pub const LIBRARIES: [&str; 3] = ["fpu-core", "fpu-x86", "fpu-hosted-test"];

/// The outcome of a step.
#[derive(Debug)]
pub enum Outcome {
    /// `count` checks; `note` is shown with `--verbose`, and tables always.
    Passed {
        count: usize,
        note: String,
    },
    /// Tests ran, some may have failed or said that they could not run.
    Tests(tests_run::Counts, String),
    /// As [`Tests`](Self::Tests), with a table that is always shown.
    Table(tests_run::Counts, String),
    Failed(String),
    Skipped(String),
}

impl Outcome {
    pub fn one() -> Self {
        Outcome::Passed { count: 1, note: String::new() }
    }
    /// Passed if the child succeeded; failed, with its output, otherwise.
    pub fn of(result: Result<String, String>) -> Self {
        result.map_or_else(Outcome::Failed, |_| Outcome::one())
    }
}

/// The facts that the steps need.
#[derive(Debug)]
pub struct Suite {
    /// The workspace.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// The names with `--only`.
    pub only: Vec<String>,
    pub verbose: bool,
}

impl Suite {
    /// `cargo ARGS` in the workspace.
    pub fn cargo(&self, args: &[&str]) -> Cmd {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        Cmd::new(&cargo).args(args).dir(&self.root).env("CARGO_TARGET_DIR", &self.target)
    }
    /// Builds the documentation of the libraries, without a broken link.
    pub fn documentation(&self) -> Result<String, String> {
        let packages = LIBRARIES.iter().flat_map(|package| ["-p", package]);
        let args: Vec<_> = ["doc", "-q", "--no-deps"].into_iter().chain(packages).collect();
        self.cargo(&args).env("RUSTDOCFLAGS", "-Dwarnings").ok()
    }
    /// The first of these programs that can be started.
    pub fn tool(&self, names: &[&str]) -> Option<String> {
        let starts = |name: &&&str| {
            let mut command = Command::new(name);
            command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        names.iter().find(starts).map(|name| (*name).to_owned())
    }
}

/// One child process.
#[derive(Debug)]
pub struct Cmd {
    command: Command,
    shown: String,
    limit: Duration,
}

impl Cmd {
    pub fn new(program: &str) -> Self {
        let mut command = Command::new(program);
        // The variables by which `cargo run` tells this program about itself are not for the children.
        for (key, _) in std::env::vars() {
            if key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_") {
                command.env_remove(key);
            }
        }
        command.env("CARGO_TERM_COLOR", "never").env_remove("RUSTFLAGS");
        let shown = program.rsplit('/').next().unwrap_or(program).to_owned();
        Self { command, shown, limit: LIMIT }
    }
    pub fn args(mut self, args: &[&str]) -> Self {
        for arg in args {
            self.command.arg(arg);
            self.shown = format!("{} {arg}", self.shown);
        }
        self
    }
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        if key != "CARGO_TARGET_DIR" {
            self.shown = format!("{key}={:?} {}", value.as_ref(), self.shown);
        }
        self.command.env(key, value);
        self
    }
    /// Without these variables.
    pub fn unset(mut self, keys: &[&str]) -> Self {
        for key in keys {
            self.command.env_remove(key);
        }
        self
    }
    pub fn dir(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Standard output if it succeeded, else the end of everything it said.
    pub fn ok(self) -> Result<String, String> {
        let done = self.run()?;
        if done.success {
            Ok(done.stdout)
        } else {
            Err(done.tail())
        }
    }

    /// Runs it to its end, or to the limit.
    pub fn run(mut self) -> Result<Done, String> {
        let could_not = |why: std::io::Error| format!("{}: {why}", self.shown);
        // Files, not pipes: a full pipe would stop the child, and a grandchild that lives on would
        // keep it open.
        let stamp = format!("fpu-suite-{}-{:?}", std::process::id(), std::thread::current().id());
        let base = std::env::temp_dir().join(stamp);
        let (out, err) = (base.with_extension("out"), base.with_extension("err"));
        let files = File::create(&out).and_then(|o| Ok((o, File::create(&err)?)));
        let (out_file, err_file) = files.map_err(could_not)?;
        self.command.stdin(Stdio::null()).stdout(out_file).stderr(err_file);
        let mut child = self.command.spawn().map_err(could_not)?;
        let started = Instant::now();
        let mut late = false;
        let status = loop {
            match child.try_wait().map_err(could_not)? {
                Some(status) => break status,
                None if started.elapsed() > self.limit && !late => {
                    late = true;
                    // Cargo's children are what hangs; they come first, as they are found by it.
                    let mut doomed = descendants(child.id());
                    doomed.push(child.id());
                    let pids = doomed.iter().map(u32::to_string);
                    Command::new("kill").arg("-KILL").args(pids).status().map_err(could_not)?;
                }
                None => sleep(Duration::from_millis(20)),
            }
        };
        let read = |path: &PathBuf| {
            let mut bytes = Vec::new();
            let read = File::open(path).and_then(|mut f| f.read_to_end(&mut bytes));
            let removed = std::fs::remove_file(path);
            read.and(removed).map(|()| String::from_utf8_lossy(&bytes).into_owned())
        };
        let stdout = read(&out).map_err(could_not)?;
        let mut stderr = read(&err).map_err(could_not)?;
        if late {
            stderr.push_str(&format!("\nended after {} s: it hung\n", self.limit.as_secs()));
        }
        let success = status.success() && !late;
        let signal = if late { None } else { status.signal() };
        Ok(Done { shown: self.shown, success, signal, stdout, stderr })
    }
}

/// The processes that a process has started, and theirs. They stay in our process group, so that an
/// interrupt from the keyboard ends them too.
fn descendants(of: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in parentheses, may hold anything; the parent is the second field after it.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// A child that has ended.
#[derive(Debug)]
pub struct Done {
    pub shown: String,
    pub success: bool,
    /// The signal that ended the child, if this program did not.
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The end of what it said, the command first.
    pub fn tail(&self) -> String {
        let mut text = format!("$ {}\n", self.shown);
        for part in [&self.stderr, &self.stdout] {
            let lines: Vec<&str> = part.lines().filter(|l| !is_progress(l)).collect();
            let from = lines.len().saturating_sub(60);
            if from > 0 {
                text.push_str("...\n");
            }
            for line in &lines[from..] {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

fn is_progress(line: &str) -> bool {
    let line = line.trim_start();
    ["Compiling ", "Checking ", "Downloaded ", "Downloading ", "Updating ", "Locking ", "Blocking "]
        .iter()
        .any(|start| line.starts_with(start))
        || (line.starts_with("test ") && line.ends_with("... ok"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_ended_with_its_children() {
        // A number of this process alone: another suite may run the same test.
        let time = format!("31.{}", std::process::id());
        let script = format!("echo begun; sleep {time} & wait");
        let mut command = Cmd::new("sh").args(&["-c", script.as_str()]);
        command.limit = Duration::from_secs(1);
        let done = command.run().unwrap();
        assert!(!done.success && done.stdout == "begun\n" && done.stderr.contains("it hung"));
        let lives = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                line == format!("sleep\0{time}\0").as_bytes()
            })
        };
        // Killed is not yet gone: under load that takes a while. It would sleep for 31 s.
        let asked = Instant::now();
        while lives() {
            assert!(asked.elapsed() < Duration::from_secs(20), "a grandchild lives on");
            sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn output_is_kept_apart_and_failure_is_seen() {
        let done = Cmd::new("sh").args(&["-c", "echo out; echo err >&2; exit 3"]).run().unwrap();
        assert!(!done.success);
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", "err\n"));
        assert!(Cmd::new("no-such-program").run().is_err());
    }
}
