//! `xstate`: the save area in a table, a picture, files of many kinds, and for other CPUs.

pub mod args;
pub mod batch;
pub mod bytes;
pub mod decode;
pub mod dump;
pub mod elf;
pub mod encode;
pub mod input;
pub mod json;
pub mod layouts;
pub mod map;
pub mod reading;
pub mod registers;
pub mod request;
pub mod show;
pub mod subject;
pub mod table;
pub mod text;
pub mod whose;
pub mod words;
pub mod x87;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::Path,
};

use fpu_x86::ForeignLayout;

use crate::report::Style;
use args::{Args, As, Command};
use decode::{Form, Known};
use input::Input;
use subject::Subject;
use whose::Whose;

/// Runs the program; returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args = match args::parse(args) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("xstate: {why}");
            return 2;
        }
    };
    let done = match run(&args) {
        Ok(text) => print(&Style::detect().fold(&text)),
        Err(why) => Err(why),
    };
    match done {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("xstate: {why}");
            1
        }
    }
}

fn run(args: &Args) -> Result<String, String> {
    let subject = || match &args.cpuid {
        None => Subject::this_machine(),
        Some(path) => Subject::recorded(path),
    };
    match &args.command {
        Command::Print(text) => Ok(text.clone()),
        Command::Table => table::table(&subject()?, Style::detect()),
        Command::Map(path) => {
            let picture = map::document(&subject()?)?;
            std::fs::write(path, picture).map_err(|why| of_file(path, &why))?;
            Ok(String::new())
        }
        Command::Decode { file, as_what, layout } => {
            decode(&subject()?, args, file, *as_what, layout)
        }
        Command::Encode { kind, text, file } => {
            let subject = subject()?;
            let input = Input::open(text).map_err(|why| of_file(text, &why))?;
            let read = input.text().map_err(|why| of_file(text, &why))?;
            let bytes = encode::encode(*kind, &read, &subject.machine());
            let bytes = bytes.map_err(|why| of_file(text, &why))?;
            write(file, &bytes).map_err(|why| of_file(file, &why))?;
            Ok(String::new())
        }
        Command::Batch => match batch::run(io::stdin().lock(), io::stdout().lock()) {
            Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(format!("batch: {why}")),
            _ => Ok(String::new()),
        },
    }
}

fn decode(
    subject: &Subject,
    args: &Args,
    file: &Path,
    as_what: As,
    layout: &Option<String>,
) -> Result<String, String> {
    let given = match layout.as_deref() {
        Some("here") | None => args.cpuid.is_some() || layout.is_some(),
        Some(_) => false,
    };
    let given = match layout.as_deref().and_then(whose::named) {
        Some(layout) => Some(layout),
        None => given.then(|| ForeignLayout::from_cpuid_info(&subject.facts)),
    };
    let whose = Whose::new(&subject.facts, given);
    let plan = subject.plan.as_ref().and_then(|plan| plan.as_ref().ok());
    let known = Known { whose: &whose, plan };
    let style = Style::detect();
    let form = match as_what {
        As::Show => Form::Show(style),
        As::Text => Form::Text,
        As::Json => Form::Json,
    };
    let input = Input::open(file).map_err(|why| of_file(file, &why))?;
    let wrong = decode::decode(&input, &known, form, |text| match as_what {
        As::Show => print(&style.fold(text)),
        As::Text | As::Json => print(text),
    })?;
    if as_what == As::Json {
        let errors: String = wrong.iter().map(json::wrong).collect();
        print(&errors)?;
    }
    let lines: Vec<String> = wrong.iter().map(|why| of_file(file, why)).collect();
    match &lines[..] {
        [] => Ok(String::new()),
        lines => Err(lines.join("\nxstate: ")),
    }
}

fn of_file(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

/// To a file, or to standard output for `-`.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.as_os_str() != "-" {
        return std::fs::write(path, bytes);
    }
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        return Err(io::Error::other("bytes are not for a terminal"));
    }
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(why),
        _ => Ok(()),
    }
}

/// To a pipe that may be closed early, as by `head`.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(format!("output: {why}")),
        _ => Ok(()),
    }
}
