//! The command line.

use std::{ffi::OsString, path::PathBuf};

use super::{encode::Kind, whose};
use crate::options::Options;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The table.
    Table,
    /// The picture, to this file.
    Map(PathBuf),
    /// What is in a file.
    Decode {
        /// It; `-` is standard input.
        file: PathBuf,
        /// How the registers are written.
        as_what: As,
        /// Whose layout it has, if that is known.
        layout: Option<String>,
    },
    /// Bytes of a text.
    Encode {
        /// What they are to be.
        kind: Kind,
        /// The text; `-` is standard input.
        text: PathBuf,
        /// Where they go; `-` is standard output.
        file: PathBuf,
    },
    /// JSON lines.
    Batch,
    /// Print this and succeed.
    Print(String),
}

/// How `decode` writes registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// For people.
    Show,
    /// For `encode`.
    Text,
    /// JSON lines.
    Json,
}

/// The whole line.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub command: Command,
    /// Another CPU's words.
    pub cpuid: Option<PathBuf>,
}

const HELP: &str = include_str!("help.txt");

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// One line that says what is wrong.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, String> {
    let (mut command, mut cpuid) = (None, None);
    let (mut form, mut layout) = (None, None);
    let mut options = Options::new(options_first(args.into_iter().collect()).into_iter());
    let mut set = |new: Command| match &command {
        None => {
            command = Some(new);
            Ok(())
        }
        Some(_) => Err(String::from("more than one command (--help lists them)")),
    };
    while let Some(name) = options.next_name()? {
        match name.as_str() {
            "--help" | "-h" => {
                options.flag()?;
                return Ok(print(HELP.into()));
            }
            "--version" | "-V" => {
                options.flag()?;
                return Ok(print(concat!("xstate ", env!("CARGO_PKG_VERSION"), "\n").into()));
            }
            "--svg" | "map" => set(Command::Map(options.file()?))?,
            "decode" => {
                let file = options.file_or_pipe()?;
                set(Command::Decode { file, as_what: As::Show, layout: None })?;
            }
            "encode" => {
                let name = options.text().map_err(|why| format!("{why}: KIND TEXT FILE"))?;
                let known = Kind::ALL.into_iter().find(|(known, _)| *known == name);
                let unknown = || {
                    let names = Kind::ALL.map(|(name, _)| name).join(", ");
                    options.wrong(&format!("no such kind ({names})"), name.as_ref())
                };
                let (_, kind) = known.ok_or_else(unknown)?;
                let (text, file) = (options.file_or_pipe()?, options.file_or_pipe()?);
                set(Command::Encode { kind, text, file })?;
            }
            "batch" => set(Command::Batch)?,
            "--cpuid" if cpuid.is_some() => return Err("--cpuid twice".into()),
            "--cpuid" => cpuid = Some(options.file()?),
            "--text" | "--json" if form.is_some() => {
                return Err("--text and --json: one of them, once".into());
            }
            "--text" => form = Some(As::Text),
            "--json" => form = Some(As::Json),
            "--layout" if layout.is_some() => return Err("--layout twice".into()),
            "--layout" => {
                let name = options.text().map_err(|why| format!("{why}: KIND TEXT FILE"))?;
                if name != "here" && whose::named(&name).is_none() {
                    let what = "no such layout (here, intel, amd, zen2)";
                    return Err(options.wrong(what, name.as_ref()));
                }
                layout = Some(name);
            }
            other => return Err(options.unknown(other.as_ref())),
        }
    }
    let mut command = command.unwrap_or(Command::Table);
    if command == Command::Batch && cpuid.is_some() {
        return Err("batch takes no --cpuid: each line has its own".into());
    }
    match &mut command {
        Command::Decode { as_what, layout: of, .. } => {
            (*as_what, *of) = (form.unwrap_or(As::Show), layout);
        }
        _ if form.is_some() || layout.is_some() => {
            return Err("--text, --json and --layout belong to decode".into());
        }
        _ => {}
    }
    Ok(Args { command, cpuid })
}

/// Options between a command and its operands, moved in front of the command.
fn options_first(mut args: Vec<OsString>) -> Vec<OsString> {
    let any = |arg: &OsString, names: &[&str]| names.iter().any(|name| arg == name);
    // A file can have the name of a command.
    let named = |at: usize| at > 0 && any(&args[at - 1], &["--cpuid", "--svg"]);
    let is_command = |at: &usize| any(&args[*at], &["decode", "encode", "map"]) && !named(*at);
    let Some(mut command) = (0..args.len()).find(is_command) else { return args };
    while let Some(next) = args.get(command + 1) {
        let option = next.as_encoded_bytes().starts_with(b"--") && next.len() > 2;
        let count = if any(next, &["--cpuid", "--layout", "--svg"]) { 2 } else { 1 };
        if !option || args.len() <= command + count {
            break;
        }
        args[command..=command + count].rotate_left(1);
        command += count;
    }
    args
}

fn print(text: String) -> Args {
    Args { command: Command::Print(text), cpuid: None }
}
