//! `xstate`: the save area in a table, a picture, a file, and for other CPUs.

pub mod area;
pub mod args;
pub mod batch;
pub mod bytes;
pub mod decode;
pub mod elf;
pub mod layouts;
pub mod map;
pub mod request;
pub mod show;
pub mod subject;
pub mod table;
pub mod words;
pub mod x87;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use crate::report::Style;
use args::{Args, Command};
use decode::Origin;
use subject::Subject;

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
        Command::Decode(path) => {
            let subject = subject()?;
            let plan = subject.plan.as_ref().and_then(|plan| plan.as_ref().ok());
            let origin = Origin { facts: &subject.facts, named: args.cpuid.is_some(), plan };
            let bytes = read(path, decode::MOST).map_err(|why| of_file(path, &why))?;
            decode::file(&bytes, origin, Style::detect()).map_err(|why| of_file(path, &why))
        }
        Command::Batch => match batch::run(io::stdin().lock(), io::stdout().lock()) {
            Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(format!("batch: {why}")),
            _ => Ok(String::new()),
        },
    }
}

fn of_file(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// To a pipe that may be closed early, as by `head`.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(format!("output: {why}")),
        _ => Ok(()),
    }
}
