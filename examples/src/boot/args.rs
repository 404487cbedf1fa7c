//! The command line.

use std::ffi::OsString;

use crate::{options::Options, terminal::entry};

use super::{
    cpuid::{self, Recorded},
    faults::Fault,
    machines::{self, Machine, RUNGS},
    params::Params,
};

/// The machines.
#[derive(Debug, PartialEq, Eq)]
pub enum Which {
    /// The best machine that this host can run.
    Best,
    /// These machines.
    Named(Vec<&'static Machine>),
    /// All machines that this host can run.
    All,
}

/// The options.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// The machines.
    pub which: Which,
    /// The parameters of each kernel.
    pub params: Params,
    /// The recorded words with which to run, if any.
    pub cpuid: Vec<&'static Recorded>,
    /// Run every seeded fault once.
    pub controls: bool,
    /// Run all machines together for so many minutes.
    pub torture: Option<u64>,
    /// Write one JSON document to standard output.
    pub json: bool,
    /// Show what the kernel says.
    pub verbose: bool,
}

/// The action.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Boot.
    Boot(Args),
    /// Name the machines, and say which of them can run here.
    List,
    /// Name the recorded CPUID words that are built in.
    Words,
    /// Build the kernel and say where it is.
    Build {
        /// Whether to print a JSON document.
        json: bool,
    },
    /// Fetch Bochs.
    Fetch,
    /// Print this and succeed.
    Help(String),
}

fn help() -> String {
    let mut text = String::from(
        "Boots the example kernel on emulated CPUs: tasks in ring 3, preempted and moved
between CPUs, check every register; interrupts use the FPU in between.

usage: cargo boot [options]      on the best machine that this host can run

  --machine NAME    on this machine (repeatable); `--machine list` names them
  --all             on every machine that this host can run
  --controls        every seeded fault once; each must fail, and say how
  --cpuid WHAT      CPUID says to the library what was recorded elsewhere
                    (repeatable). WHAT: a name (`--cpuid list`), `all` of
                    these, or a file of JSON lines:
                    {\"name\":\"..\",\"xcr0\":\"0x7\",\"cpuid\":{\"0xd.0\":..,
                     \"0x1.0\":[\"0x..\",\"0x..\",\"0x..\",\"0x..\"]}}
                    Without --machine it runs on one that has what the words
                    promise.
  --torture MINUTES so long, over all machines together, or those named

  --cpus N          CPUs of the machine, 1 to 8 (default 2)
  --seconds N       at least so long in the machine's own time (default 0:
                    until its goals are reached)
  --seed N          for the register patterns and for what happens when
                    (default 1)
  --rung NAME       save with xsaves, xsavec, xsaveopt, xsave or fxsave
                    (default: the best there is)
  --check           compare the registers with what they should hold at every
                    switch
  --fault NAME      do one thing wrong; must end in a failure that names what
                    broke, and exit code 1

  --json            one JSON document on standard output; the table goes to
                    standard error
  --verbose         show what the kernel says
  --build-only      build the kernel, print the path of the ELF file
  --fetch-bochs     fetch Bochs 3 from Debian's archive into the target
                    directory
  --help            this

faults:
",
    );
    for fault in Fault::ALL {
        text += &entry(fault.name(), 16, fault.about());
    }
    text += "\nexit code: 0 passed, 1 failed or nothing could run, 2 bad arguments\n";
    text
}

/// The machines and what they are for, one a line.
#[must_use]
pub fn list() -> String {
    let line = |m: &Machine| format!("  {:<12}  {:<5}  {}\n", m.name, m.emulator.name(), m.about);
    machines::ALL.iter().map(line).collect()
}

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// What is wrong, with the option's name; one line, or a list of what could have been meant.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let (mut params, mut named, mut other) = (Params::default(), Vec::new(), None);
    let (mut all, mut controls, mut json, mut verbose) = (false, false, false, false);
    let (mut torture, mut recorded) = (None, Vec::new());
    let mut options = Options::new(args.into_iter());
    while let Some(name) = options.next_name()? {
        match name.as_str() {
            "--help" | "-h" => {
                options.flag()?;
                return Ok(Command::Help(help()));
            }
            "--all" => all = true,
            "--controls" => controls = true,
            "--json" => json = true,
            "--verbose" => verbose = true,
            "--check" => params.check = true,
            "--build-only" => other = Some(Command::Build { json: false }),
            "--fetch-bochs" => other = Some(Command::Fetch),
            "--torture" => torture = Some(options.number(1, 10_000)?),
            "--cpus" => params.cpus = options.number(1, 8)? as u32,
            "--seconds" => params.seconds = options.number(0, 1_000_000)?,
            "--seed" => params.seed = options.number(0, u64::MAX)?,
            "--rung" => {
                let text = options.text()?;
                let known = RUNGS.into_iter().find(|rung| *rung == text);
                let unknown = || {
                    options.wrong(&format!("no such rung ({})", RUNGS.join(", ")), text.as_ref())
                };
                params.rung = Some(known.ok_or_else(unknown)?);
            }
            "--fault" => {
                let text = options.text()?;
                let unknown = || options.wrong("no such fault (--help lists them)", text.as_ref());
                params.fault = Some(Fault::named(&text).ok_or_else(unknown)?);
            }
            "--cpuid" => {
                let text = options.text()?;
                if text == "list" {
                    return Ok(Command::Words);
                }
                recorded.extend(cpuid::load(&text).map_err(|why| format!("--cpuid: {why}"))?);
            }
            "--machine" => {
                let text = options.text()?;
                if text == "list" {
                    return Ok(Command::List);
                }
                let unknown = || {
                    let wrong = options.wrong("no such machine", text.as_ref());
                    format!("{wrong}; there are\n{}", list())
                };
                named.push(machines::named(&text).ok_or_else(unknown)?);
            }
            other => return Err(options.unknown(other.as_ref())),
        }
    }
    let two = |one: &str, other: &str| Err(format!("{one} and {other} contradict each other"));
    if all && !named.is_empty() {
        return two("--all", "--machine");
    }
    if controls && params.fault.is_some() {
        return two("--controls", "--fault");
    }
    if torture.is_some() && (controls || params.seconds > 0 || params.fault.is_some()) {
        let against = if controls { "--controls" } else { "--seconds or --fault" };
        return two("--torture", against);
    }
    if !recorded.is_empty() && (all || controls || torture.is_some()) {
        return two("--cpuid", "--all, --controls or --torture");
    }
    params.limit += params.seconds;
    match other {
        Some(Command::Build { .. }) => return Ok(Command::Build { json }),
        Some(other) => return Ok(other),
        None => {}
    }
    let which = match named.is_empty() {
        false => Which::Named(named),
        true if all || torture.is_some() => Which::All,
        true => Which::Best,
    };
    Ok(Command::Boot(Args { which, params, cpuid: recorded, controls, torture, json, verbose }))
}
