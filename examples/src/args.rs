//! The command line.

use std::path::PathBuf;

use fpu_x86::Rung;

use crate::faults::Fault;

/// What was asked for.
#[derive(Debug)]
pub struct Args {
    /// For the patterns and the mix.
    pub seed: u64,
    /// How often each script runs under each kernel.
    pub runs: u64,
    /// The instruction, if not the best.
    pub rung: Option<Rung>,
    /// Where the timeline goes, if not to the default place.
    pub svg: Option<PathBuf>,
    /// One JSON document instead of the table.
    pub json: bool,
    /// The seeded fault.
    pub fault: Option<Fault>,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Run.
    Run(Args),
    /// Print this and succeed.
    Help(String),
}

/// The rungs by name.
pub const RUNGS: [(&str, Rung); 4] = [
    ("xsavec", Rung::Xsavec),
    ("xsaveopt", Rung::Xsaveopt),
    ("xsave", Rung::Xsave),
    ("fxsave", Rung::Fxsave),
];

fn help() -> String {
    let mut text = String::from(
        "Switches tasks on this machine's real FPU registers, checks every register at every return to
user mode, and compares with an eager kernel.

usage: demo [options]

  --seed N       for the register patterns and the mix (default 1)
  --runs N       of each script under each kernel, the fastest counts (default 5)
  --rung NAME    save with xsavec, xsaveopt, xsave or fxsave (default: the best there is)
  --svg FILE     write the timeline there (default: fpu-demo.svg in the target directory)
  --json         print one JSON document and nothing else
  --break FAULT  seed a fault into the kernel; must end in a named mismatch and exit code 1
  --help         this

faults:
",
    );
    for fault in Fault::ALL {
        text += &format!("  {:<16} {}\n", fault.name(), fault.about());
    }
    text += "\nexit code: 0 all as expected, 1 a mismatch or a failed check, 2 bad arguments\n";
    text
}

pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// One line that says what is wrong.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut parsed = Args { seed: 1, runs: 5, rung: None, svg: None, json: false, fault: None };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let (name, attached) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let flag = matches!(name, "--json" | "--help" | "-h");
        if flag && attached.is_some() {
            return Err(format!("{name} takes no value"));
        }
        let mut value = || {
            attached.clone().or_else(|| args.next()).ok_or_else(|| format!("{name} needs a value"))
        };
        match name {
            "--help" | "-h" => return Ok(Command::Help(help())),
            "--json" => parsed.json = true,
            "--svg" => parsed.svg = Some(value()?.into()),
            "--seed" => {
                let text = value()?;
                parsed.seed = number(&text).ok_or_else(|| format!("not a number: {text}"))?;
            }
            "--runs" => {
                let text = value()?;
                let runs = number(&text).filter(|runs| (1..=1000).contains(runs));
                parsed.runs = runs.ok_or_else(|| format!("not a number from 1 to 1000: {text}"))?;
            }
            "--rung" => {
                let text = value()?;
                let known = RUNGS.into_iter().find(|(name, _)| *name == text);
                let (_, rung) = known.ok_or_else(|| {
                    format!("no such rung: {text} (xsavec, xsaveopt, xsave, fxsave)")
                })?;
                parsed.rung = Some(rung);
            }
            "--break" => {
                let text = value()?;
                let fault = Fault::named(&text)
                    .ok_or_else(|| format!("no such fault: {text} (--help lists them)"))?;
                parsed.fault = Some(fault);
            }
            _ => return Err(format!("unknown argument: {arg} (--help lists them)")),
        }
    }
    Ok(Command::Run(parsed))
}
