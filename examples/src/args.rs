//! The command line.

use std::{ffi::OsString, path::PathBuf};

use fpu_x86::SaveInstruction;

use crate::{faults::Fault, options::Options, terminal::entry};

/// The options.
#[derive(Debug)]
pub struct Args {
    /// The seed of the patterns and the mix.
    pub seed: u64,
    /// The number of runs of each script under each kernel.
    pub runs: u64,
    /// The save instruction, if not the best.
    pub rung: Option<SaveInstruction>,
    /// The file of the timeline, if not the default one.
    pub svg: Option<PathBuf>,
    /// Print one JSON document instead of the table.
    pub json: bool,
    /// The seeded fault.
    pub fault: Option<Fault>,
}

/// The action.
#[derive(Debug)]
pub enum Command {
    /// Run.
    Run(Args),
    /// Print this and succeed.
    Help(String),
}

/// The rungs by name.
pub const RUNGS: [(&str, SaveInstruction); 4] = [
    ("xsavec", SaveInstruction::Xsavec),
    ("xsaveopt", SaveInstruction::Xsaveopt),
    ("xsave", SaveInstruction::Xsave),
    ("fxsave", SaveInstruction::Fxsave),
];

fn help() -> String {
    let mut text = String::from(
        "Switches tasks on this machine's real FPU registers, checks every register at
every return to user mode, and compares with an eager kernel.

usage: demo [options]

  --seed N       for the register patterns and the mix (default 1)
  --runs N       of each script under each kernel, the fastest counts
                 (default 5)
  --rung NAME    save with xsavec, xsaveopt, xsave or fxsave (default: the best
                 there is)
  --svg FILE     write the timeline there (default: fpu-demo.svg in the target
                 directory)
  --json         print one JSON document and nothing else
  --break FAULT  seed a fault into the kernel; must end in a named mismatch and
                 exit code 1
  --help         this

faults:
",
    );
    for fault in Fault::ALL {
        text += &entry(fault.name(), 15, fault.about());
    }
    text += "
exit code: 0 all as expected, 1 a mismatch or a failed check, 2 bad arguments,
           or a timeline that cannot be written, before anything has run
";
    text
}

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// One line that names the option and says what is wrong with it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parsed = Args { seed: 1, runs: 5, rung: None, svg: None, json: false, fault: None };
    let mut options = Options::new(args.into_iter());
    while let Some(name) = options.next_name()? {
        match name.as_str() {
            "--help" | "-h" => {
                options.flag()?;
                return Ok(Command::Help(help()));
            }
            "--json" => parsed.json = true,
            "--svg" => parsed.svg = Some(options.file()?),
            "--seed" => parsed.seed = options.number(0, u64::MAX)?,
            "--runs" => parsed.runs = options.number(1, 1000)?,
            "--rung" => {
                let text = options.text()?;
                let known = RUNGS.into_iter().find(|(name, _)| *name == text);
                let unknown = || {
                    let names = RUNGS.map(|(name, _)| name).join(", ");
                    options.wrong(&format!("no such rung ({names})"), text.as_ref())
                };
                parsed.rung = Some(known.ok_or_else(unknown)?.1);
            }
            "--break" => {
                let text = options.text()?;
                let unknown = || options.wrong("no such fault (--help lists them)", text.as_ref());
                parsed.fault = Some(Fault::named(&text).ok_or_else(unknown)?);
            }
            other => return Err(options.unknown(other.as_ref())),
        }
    }
    Ok(Command::Run(parsed))
}
