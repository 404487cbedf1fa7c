//! The command line.

use std::ffi::OsString;

use super::faults::Fault;
use crate::{options::Options, terminal::entry};

/// The options.
#[derive(Debug)]
pub struct Args {
    /// The seed of the patterns and the choices.
    pub seed: u64,
    /// The number of switches.
    pub switches: u64,
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

fn help() -> String {
    let mut text = String::from(
        "Switches tasks on this machine's real FPU registers in a program that uses them
itself, and checks every register whenever a task goes on.

usage: cooperative [options]

  --seed N       for the register patterns and the choices (default 1)
  --switches N   so many (default 20000)
  --break FAULT  leave a step out; must be noticed and end in exit code 1
  --help         this

faults:
",
    );
    for fault in Fault::ALL {
        text += &entry(fault.name(), 15, fault.about());
    }
    text += "\nexit code: 0 all as expected, 1 a mismatch or a refusal, 2 bad arguments\n";
    text
}

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// One line that names the option and says what is wrong with it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parsed = Args { seed: 1, switches: 20_000, fault: None };
    let mut options = Options::new(args.into_iter());
    while let Some(name) = options.next_name()? {
        match name.as_str() {
            "--help" | "-h" => {
                options.flag()?;
                return Ok(Command::Help(help()));
            }
            "--seed" => parsed.seed = options.number(0, u64::MAX)?,
            "--switches" => parsed.switches = options.number(1, 100_000_000)?,
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
