//! `cooperative`: a scheduler in a program that is compiled with vector instructions.
//!
//! Tasks have stacks and FPU contexts of their own, and switch when they say so: to another, to themselves, or to the main
//! thread, which has no context. The steps of each switch come from [`fpu_core::SwitchSteps`], and assembly executes them
//! ([`switch`]) with the two functions that [`fpu_x86::Plan::routines`] hands out. No witness says `SoftFloat`: what a
//! task holds is saved before compiled code runs in its place, in sections, forks and writes of its image too.
//!
//! Each task loads all its registers last before it leaves, and looks at all of them first when it goes on.

pub mod args;
pub mod faults;
pub mod kernel;
pub mod switch;

use std::{
    ffi::OsString,
    io::{self, Write},
};

use fpu_hosted_test::real::{serve_fixups, Classes};
use fpu_x86::{Components, Plan};

use args::{Args, Command};
use kernel::{Done, Kernel, TASKS};

use crate::report::Style;

/// Runs the program. Returns the exit code.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    // So that `cooperative | head` ends it quietly.
    // SAFETY: the default action of a signal, before any thread exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    match args::parse(arguments) {
        Ok(Command::Help(text)) => finish(&text, 0),
        Ok(Command::Run(args)) => match run(&args) {
            Ok(text) => finish(&text, 0),
            Err(text) => finish(&text, 1),
        },
        Err(why) => complain(&why, 2),
    }
}

fn run(args: &Args) -> Result<String, String> {
    serve_fixups();
    let plan = Plan::detect_user(Components::all()).map_err(|why| format!("{why}\n"))?;
    let mut text = format!(
        "{TASKS} tasks in a program compiled with vector instructions, {:?}: {}\n",
        plan.save_instruction(),
        Classes::detect().describe(),
    );
    if let Some(fault) = args.fault {
        text += &format!("seeded fault {}: {}\n", fault.name(), fault.about());
    }
    let kernel = Kernel::new(plan, args.seed, args.fault).map_err(|why| format!("{why}\n"))?;
    match kernel.run(args.switches) {
        Ok(_) if args.fault.is_some() => Err(text + "FAILED the fault was not noticed\n"),
        Ok(done) => Ok(text + &report(&kernel, done)),
        Err(why) => Err(format!("{text}{why}\n")),
    }
}

fn report(kernel: &Kernel, done: Done) -> String {
    let Done { switches, yields, checks, sections, forks, writes } = done;
    let told = kernel.counters.totals();
    format!(
        "{switches} switches and {yields} yields: {} saves, {} restores
{sections} sections, {forks} forks, {writes} images written
every register checked {checks} times, 0 mismatches\n",
        told.saved, told.restored
    )
}

fn finish(text: &str, code: u8) -> u8 {
    let mut out = io::stdout().lock();
    let folded = Style::detect().fold(text);
    match out.write_all(folded.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(why) => complain(&format!("standard output: {why}"), 1),
    }
}

fn complain(why: &str, code: u8) -> u8 {
    // The exit code says it where nothing can be written.
    let _told = writeln!(io::stderr(), "cooperative: {why}");
    code
}
