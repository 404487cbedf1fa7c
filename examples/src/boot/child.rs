//! An emulator as a child process: what it says goes to files, and it never outlives us.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::serial;

/// A file of the run's directory, by the name that both emulators use.
pub const SERIAL: &str = "serial";
const OUTPUT: &str = "output";
/// From the result to the end of the process.
const SWITCH_OFF: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
/// What one look counts at most.
const MOST: Duration = Duration::from_millis(200);

/// A child that has ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// The output on the serial line.
    pub serial: String,
    /// The emulator's own output.
    pub stderr: String,
    /// The exit code, unless a signal ended the child.
    pub code: Option<i32>,
    /// Whether the run had to end the child.
    pub late: bool,
    /// The time without output because of which it ended the child.
    pub still: Option<Duration>,
    /// The time that the child took.
    pub seconds: f64,
}

/// The system's error does not say which.
fn make(directory: &Path) -> io::Result<()> {
    let named = |why: io::Error| {
        let said = format!("the directory {}: {why}", directory.display());
        io::Error::new(why.kind(), said)
    };
    fs::create_dir_all(directory).map_err(named)
}

/// A directory for one run, gone when it is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes a new directory under `target`. Removes those that a killed process has left, with the lock files in them.
    ///
    /// # Errors
    ///
    /// The directory cannot be made; the error names it.
    pub fn new(target: &Path, name: &str) -> io::Result<Self> {
        let all = target.join("boot");
        make(&all)?;
        for entry in fs::read_dir(&all)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.rsplit('-').next().and_then(|pid| pid.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                // If another process was faster, that is as good.
                let _removed = fs::remove_dir_all(entry.path());
            }
        }
        let own = all.join(format!("{name}-{}", std::process::id()));
        make(&own)?;
        Ok(Self(own))
    }
    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left to the next run if it cannot be removed.
        let _removed = fs::remove_dir_all(&self.0);
    }
}

/// Shows the lines of a growing file.
struct Tail<'a> {
    path: PathBuf,
    whole: Vec<u8>,
    shown: usize,
    show: &'a dyn Fn(&str),
}

impl Tail<'_> {
    /// Reads the output so far.
    fn more(&mut self) -> io::Result<()> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        file.seek(SeekFrom::Start(self.whole.len() as u64))?;
        file.read_to_end(&mut self.whole)?;
        while let Some(length) = self.whole[self.shown..].iter().position(|byte| *byte == b'\n') {
            let line = &self.whole[self.shown..self.shown + length];
            (self.show)(printable(line).trim_end());
            self.shown += length + 1;
        }
        Ok(())
    }
    fn text(&self) -> String {
        printable(&self.whole)
    }
}

/// A kernel that fails may say anything; a terminal must not obey it.
fn printable(bytes: &[u8]) -> String {
    let shown = |c: char| if c.is_control() && !"\r\n\t".contains(c) { '?' } else { c };
    String::from_utf8_lossy(bytes).chars().map(shown).collect()
}

/// The child, ended if we leave early.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Tells whether the emulator's own output says that the run will never end.
fn doomed(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(18).any(|part| part == b"KVM internal error"))
}

/// The time that a run may take, in the host's time.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the kernel's first line.
    pub first: Duration,
    /// From one line to the next, once it has begun.
    pub next: Duration,
    /// In all.
    pub whole: Duration,
}

/// Runs `command` in the directory until it ends, or its time is up; `show` gets each line of the serial
/// output as it comes.
///
/// # Errors
///
/// It cannot be started, or its files not be read.
pub fn run(
    mut command: Command,
    scratch: &Scratch,
    patience: Patience,
    show: &dyn Fn(&str),
) -> io::Result<Ended> {
    let output = scratch.path().join(OUTPUT);
    let file = File::create(&output)?;
    command.current_dir(scratch.path()).stdin(Stdio::null());
    command.stdout(file.try_clone()?).stderr(file);
    // SAFETY: between fork and exec only prctl is called, which may be called there: it neither
    // allocates nor locks. It ends the emulator when this thread ends, however that comes about.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let mut child = Guard(command.spawn()?);
    let (started, mut said) = (Instant::now(), None);
    let path = scratch.path().join(SERIAL);
    let mut tail = Tail { path, whole: Vec::new(), shown: 0, show };
    let mut late = false;
    // Not counted while this process itself does not run.
    let (mut looked, mut quiet, mut still) = (started, Duration::ZERO, None);
    let status = loop {
        let status = child.0.try_wait()?;
        let before = tail.whole.len();
        tail.more()?;
        quiet += looked.elapsed().min(MOST);
        looked = Instant::now();
        if tail.whole.len() > before {
            quiet = Duration::ZERO;
        }
        if let Some(status) = status {
            break status;
        }
        if said.is_none() && serial::ended(&tail.text()) {
            said = Some(Instant::now());
        }
        let stands = said.is_some_and(|since: Instant| since.elapsed() > SWITCH_OFF);
        let silent = started.elapsed() > patience.first && !serial::begun(&tail.text());
        if quiet > patience.next && said.is_none() && serial::begun(&tail.text()) {
            still = Some(patience.next);
        }
        if still.is_some()
            || stands
            || silent
            || started.elapsed() > patience.whole
            || doomed(&output)
        {
            late = true;
            child.0.kill()?;
            break child.0.wait()?;
        }
        sleep(POLL);
    };
    let stderr = printable(&fs::read(&output)?);
    let seconds = started.elapsed().as_secs_f64();
    Ok(Ended { serial: tail.text(), stderr, code: status.code(), late, still, seconds })
}
