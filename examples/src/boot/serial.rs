//! The kernel's output on the serial line, and the figures in its last line.

use std::{error, fmt};

use serde_json::{Map, Value};

/// The beginning of the kernel's first line.
pub const FIRST: &str = "fpu-kernel ";
/// The beginning of its last line; a JSON object follows.
pub const LAST: &str = "RESULT ";
/// The beginning of a sign of life.
pub const TICK: &str = "tick ";
/// How a line begins that tells of one thing that CPUID says and the library does not believe.
pub const QUIRK: &str = "quirk: ";

/// Why there are no figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerialError {
    /// The kernel printed nothing.
    Silent,
    /// The kernel began, and did not come to the last line.
    NoResult,
    /// The kernel came to a last line more than once.
    Twice,
    /// The last line is not a whole JSON object.
    Damaged(String),
    /// The object lacks this key.
    Missing(&'static str),
    /// The object holds something else under this name.
    Wrong(&'static str, String),
}

impl fmt::Display for SerialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("the kernel did not say a word"),
            Self::NoResult => f.write_str("the kernel began, and ended without a result"),
            Self::Twice => f.write_str("two results: the kernel was started twice"),
            Self::Damaged(why) => write!(f, "the result is damaged: {why}"),
            Self::Missing(key) => write!(f, "the result has no `{key}`"),
            Self::Wrong(key, value) => write!(f, "the result's `{key}` is {value}"),
        }
    }
}

impl error::Error for SerialError {}

/// The contents of the kernel's last line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The kernel's own verdict.
    pub passed: bool,
    /// The reason of a failure.
    pub why: Option<String>,
    /// The CPU's vendor.
    pub vendor: String,
    /// The instruction that saves.
    pub rung: String,
    /// Bytes of an area.
    pub area: u64,
    /// Bytes of an area with room for tiles, where they come on demand.
    pub area_with_tiles: Option<u64>,
    /// XCR0 in hexadecimal. `None`: without XSAVE.
    pub xcr0: Option<String>,
    /// IA32_XSS in hexadecimal; `0x0` without XSAVES.
    pub xss: Option<String>,
    /// The registers that the tasks hold.
    pub registers: String,
    /// CPUs that took part.
    pub cpus: u64,
    /// Tasks with registers.
    pub tasks: u64,
    /// All counts by name, see [`COUNTS`].
    pub counts: Counts,
    /// What CPUID said that the library did not believe, in its words; from lines of their own.
    pub quirks: Vec<String>,
    /// The whole object.
    pub whole: Map<String, Value>,
}

/// Defines [`Counts`] and [`COUNTS`].
macro_rules! counts {
    ($($(#[$doc:meta])+ $name:ident)+) => {
        /// The number of each event.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])+ pub $name: u64,)+ }
        /// The names of the counts.
        pub const COUNTS: &[&str] = &[$(stringify!($name)),+];
        impl Counts {
            fn read(object: &Map<String, Value>) -> Result<Self, SerialError> {
                Ok(Self { $($name: number(object, stringify!($name))?,)+ })
            }
        }
    };
}

counts! {
    /// Changes of what a CPU runs.
    switches
    /// The count of the task that had the fewest.
    least_switches
    /// Tasks that went on on another CPU.
    migrations
    /// The count of the task that had the fewest.
    least_migrations
    /// Switches that the timer forced.
    preemptions
    /// Those that had to wait for the end of a system call, of the task that had the fewest.
    least_deferred
    /// Times that a task compared its registers.
    checks
    /// Times that it found another value.
    mismatches
    /// Saves.
    saves
    /// Restores.
    restores
    /// Returns to a task that found its registers in place.
    skipped
    /// Kernel FPU sections of threads and system calls.
    sections
    /// Kernel FPU sections of interrupts.
    irq_sections
    /// Sections that were refused.
    busy
    /// Of these, those that had interrupted a worker's section or guest.
    worker_busy
    /// Non-maskable interrupts, which are always refused.
    nmis
    /// Instructions of sessions and sections that were single-stepped. Switches run with interrupts off.
    steps
    /// Sections after such an instruction.
    step_sections
    /// Images that the CPU refused to load, as it must.
    bad_images
    /// Those after which the fault handler set RIP only, so that the error has no vector.
    rip_only
    /// Tasks that ended, their memory used again.
    exits
    /// Children that found in their registers what their parents had.
    forks
    /// Programs that began with initial registers in a task that had others.
    execs
    /// Unmasked x87 errors that tasks raised, and that came to the kernel as #MF.
    x87_errors
    /// Signals delivered to tasks.
    signals
    /// Times that a frame could be copied, to or from the task's memory, at the second attempt only.
    signal_retries
    /// Signals whose handlers have returned.
    signal_returns
    /// Edits of frames that the interrupted programs found in their registers.
    signal_edits
    /// Tasks that ended because the frame to which they returned was refused.
    junk_frames
    /// Stopped tasks whose registers a debugger has read, and they were what the tasks had.
    trace_reads
    /// Those whose registers it has changed.
    trace_writes
    /// Such changes that the tasks found in their registers.
    trace_edits
    /// CPUs taken off and on.
    offline
    /// Resumes after registers were lost.
    resumes
    /// Rounds of guests, which find what they left in the registers.
    guests
    /// Entries into virtual CPUs, each with its exit.
    vm_entries
    /// Those that an interrupt ended.
    vm_interrupts
    /// Times that a virtual CPU compared its registers.
    vm_rounds
    /// Virtual CPUs that went on on another CPU.
    vm_migrations
    /// Values of XCR0 that they were given.
    vm_xcr0
    /// Those that they were refused, as they must.
    vm_refused
    /// Saves of their registers that were not needed, of one at each exit.
    vm_saves_avoided
    /// Restores of their registers that were not needed, of one at each entry.
    vm_restores_avoided
    /// First uses of tiles after which the task had an area with room.
    tiles_given
    /// First uses of tiles by tasks without permission, which ended.
    tiles_refused
    /// First uses of tiles for which there was no memory, so that the task tried again later.
    tiles_retried
    /// Those after which the task ended.
    tiles_ended
    /// Areas with room for tiles that exec gave back.
    tiles_shrunk
    /// Times that a task compared its tiles.
    tile_checks
    /// Forks of tasks that had tiles.
    tile_forks
    /// First uses of registers that were trapped, in threads of ring 0.
    first_uses
    /// Sections in interrupts of threads that could be trapped.
    trap_sections
    /// Times that a CPU went to sleep.
    idle
    /// Times that it had to give registers up for that: AMX tiles.
    released
    /// Comparisons of registers with claims at a switch.
    verified
}

fn get<'a>(object: &'a Map<String, Value>, key: &'static str) -> Result<&'a Value, SerialError> {
    object.get(key).ok_or(SerialError::Missing(key))
}
fn number(object: &Map<String, Value>, key: &'static str) -> Result<u64, SerialError> {
    let value = get(object, key)?;
    value.as_u64().ok_or_else(|| SerialError::Wrong(key, value.to_string()))
}
fn text(object: &Map<String, Value>, key: &'static str) -> Result<String, SerialError> {
    let value = get(object, key)?;
    let wrong = || SerialError::Wrong(key, value.to_string());
    value.as_str().map(str::to_owned).ok_or_else(wrong)
}
fn text_or_null(
    object: &Map<String, Value>,
    key: &'static str,
) -> Result<Option<String>, SerialError> {
    match get(object, key)? {
        Value::Null => Ok(None),
        _ => text(object, key).map(Some),
    }
}

impl Report {
    /// Reads the object of the last line.
    ///
    /// # Errors
    ///
    /// What is missing or wrong.
    pub fn parse(object: &str) -> Result<Self, SerialError> {
        let damaged = |why: serde_json::Error| SerialError::Damaged(why.to_string());
        let whole: Map<String, Value> = serde_json::from_str(object).map_err(damaged)?;
        let verdict = text(&whole, "verdict")?;
        let passed = match verdict.as_str() {
            "pass" => true,
            "fail" => false,
            _ => return Err(SerialError::Wrong("verdict", verdict)),
        };
        Ok(Self {
            passed,
            why: text_or_null(&whole, "why")?,
            vendor: text(&whole, "vendor")?,
            rung: text(&whole, "rung")?,
            area: number(&whole, "area")?,
            area_with_tiles: whole.get("area_with_tiles").and_then(Value::as_u64),
            xcr0: text_or_null(&whole, "xcr0")?,
            xss: text_or_null(&whole, "xss")?,
            registers: text(&whole, "registers")?,
            cpus: number(&whole, "cpus")?,
            tasks: number(&whole, "tasks")?,
            counts: Counts::read(&whole)?,
            quirks: Vec::new(),
            whole,
        })
    }
}

/// Tells whether the kernel began.
#[must_use]
pub fn begun(serial: &str) -> bool {
    serial.lines().any(|line| line.starts_with(FIRST))
}

/// Tells whether the kernel came to its last line, perhaps not to the end of the line.
#[must_use]
pub fn ended(serial: &str) -> bool {
    serial.lines().any(|line| line.starts_with(LAST))
}

/// The figures in the output.
///
/// # Errors
///
/// The reason why there are none.
pub fn read(serial: &str) -> Result<Report, SerialError> {
    if !begun(serial) {
        return Err(SerialError::Silent);
    }
    let mut results = serial.lines().filter_map(|line| line.strip_prefix(LAST));
    let first = results.next().ok_or(SerialError::NoResult)?;
    if results.next().is_some() {
        return Err(SerialError::Twice);
    }
    let mut report = Report::parse(first)?;
    let quirks = serial.lines().filter_map(|line| line.trim_end().strip_prefix(QUIRK));
    report.quirks = quirks.map(str::to_owned).collect();
    let said = number(&report.whole, "quirks")?;
    if said != report.quirks.len() as u64 {
        return Err(SerialError::Wrong(
            "quirks",
            format!("{said}, and {} lines", report.quirks.len()),
        ));
    }
    Ok(report)
}

/// The last lines that say something, one after the other; long ones without their ends.
#[must_use]
pub fn tail(serial: &str, lines: usize) -> String {
    const LONGEST: usize = 160;
    let says = |line: &&str| !line.is_empty() && !line.starts_with(TICK);
    let said: Vec<&str> = serial.lines().map(str::trim).filter(says).collect();
    let from = said.len().saturating_sub(lines);
    let line = |line: &&str| match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}..", &line[..end]),
        None => (*line).to_owned(),
    };
    said[from..].iter().map(line).collect::<Vec<_>>().join(" | ")
}
