//! The command line.

use std::{ffi::OsString, path::PathBuf};

use crate::options::Options;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// The table.
    Table,
    /// The picture, to this file.
    Map(PathBuf),
    /// What is in this file.
    Decode(PathBuf),
    /// JSON lines.
    Batch,
    /// Print this and succeed.
    Print(String),
}

/// The whole line.
#[derive(Debug, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub command: Command,
    /// Another CPU's words.
    pub cpuid: Option<PathBuf>,
}

const HELP: &str = "\
Shows the XSAVE area: this machine's, another CPU's, or the one in a file.

usage: xstate [--cpuid FILE]              the plan and both layouts, as a table
       xstate [--cpuid FILE] map FILE     both layouts as a picture (SVG); also: --svg FILE
       xstate [--cpuid FILE] decode FILE  the registers in a file: a raw XSAVE or FXSAVE area, or
                                          the NT_X86_XSTATE notes of an ELF core file
       xstate batch                       layouts for JSON lines, from standard input

  --cpuid FILE  a CPU other than this one: a line as for batch, of which \"cpuid\" is needed. Its
                \"bitmap\", if there is one, says what is enabled; else it is all that XCR0 can be.
                A core file's own layout note is believed unless this is given.
  --help        this
  --version     the version

batch: one request a line,
  {\"id\":ANY,\"cpuid\":{\"0xLEAF.SUBLEAF\":[EAX,EBX,ECX,EDX],...},\"bitmap\":\"0x..\"}
and one line of answer to each, in order, which is one of
  {\"id\":ANY,\"bitmap\":\"0x..\",\"standard\":{\"size\":N,\"offsets\":{\"2\":[OFFSET,SIZE],...}},
   \"compacted\":{\"size\":N,\"offsets\":{...}}}
  {\"id\":ANY,\"error\":\"...\"}
LEAF is hexadecimal, SUBLEAF decimal, the four words are strings of hexadecimal digits; only leaf
0xd is looked at. \"standard\" has the user components of the bitmap, \"compacted\" all. Any subset
of what the CPU describes is laid out, legal in XCR0 or not. The empty one too: 576 bytes are the
legacy area and the header, and there x87 and SSE lie. Errors are: a component that the CPU does not
have or describe, or that lies in the header or in another; bit 63; no leaf 0xd, or an empty one;
every line that is no request, an empty one too, or one of over 16 MiB. The \"id\" of an error is null
if it could not be read.

exit code: 0 done (batch: whatever the answers), 1 input that cannot be read or is malformed,
           2 bad arguments
";

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// One line that says what is wrong.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, String> {
    let (mut command, mut cpuid) = (None, None);
    let mut options = Options::new(args.into_iter());
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
            "decode" => set(Command::Decode(options.file()?))?,
            "batch" => set(Command::Batch)?,
            "--cpuid" if cpuid.is_some() => return Err("--cpuid twice".into()),
            "--cpuid" => cpuid = Some(options.file()?),
            other => return Err(options.unknown(other.as_ref())),
        }
    }
    let command = command.unwrap_or(Command::Table);
    if command == Command::Batch && cpuid.is_some() {
        return Err("batch takes no --cpuid: each line has its own".into());
    }
    Ok(Args { command, cpuid })
}

fn print(text: String) -> Args {
    Args { command: Command::Print(text), cpuid: None }
}
