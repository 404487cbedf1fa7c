//! `cargo boot`: the example kernel on emulated CPUs, its verdict, and a table of both.

pub mod args;
pub mod bochs;
pub mod child;
pub mod controls;
pub mod cpuid;
pub mod document;
#[allow(missing_docs)] // It speaks for itself: every fault says what it does.
#[path = "../../kernel/src/faults.rs"]
pub mod faults;
pub mod host;
pub mod image;
pub mod judge;
pub mod kernel;
pub mod machines;
pub mod params;
pub mod qemu;
pub mod run;
pub mod serial;
#[path = "../../kernel/src/sizes.rs"]
pub mod sizes;
pub mod symbols;
pub mod table;

use std::{
    cell::RefCell,
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::Command as Process,
};

use crate::report::Style;

use args::{Args, Command, Which};
use host::Host;
use judge::Verdict;
use kernel::{NoKernel, Recipe};
use machines::Emulator;
use run::{Job, Kernel, Run};

/// Runs the program. Returns the exit code.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    // So that `cargo boot | head` ends it quietly.
    // SAFETY: the default action of a signal, before any thread exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let command = match args::parse(arguments) {
        Ok(Command::Help(text)) => return finish(&Style::detect().fold(&text), 0),
        Ok(command) => command,
        Err(why) => return complain(&why, 2),
    };
    let (root, target) = match kernel::places() {
        Ok(places) => places,
        Err(why) => return complain(&why, 1),
    };
    let recipe = Recipe::new(&root, &target);
    match command {
        Command::Help(text) => finish(&text, 0),
        Command::List => finish(&Style::detect().fold(&list(&Host::new(&target))), 0),
        Command::Words => finish(&cpuid::list(), 0),
        Command::Fetch => fetch(&root, &target),
        Command::Build { json } => build(&recipe, json),
        Command::Boot(args) => match recipe.build() {
            Ok(elf) => match std::fs::read(&elf) {
                Ok(bytes) => boot(&args, &Kernel { elf, bytes, target }),
                Err(why) => complain(&format!("{}: {why}", elf.display()), 1),
            },
            Err(why) => no_kernel(&args, &why),
        },
    }
}

/// The machines, and which of them this host can run.
fn list(host: &Host) -> String {
    let style = Style::detect();
    let mut text = format!("{}\n\n", host.describe());
    for machine in machines::ALL {
        let state = match host.has(machine) {
            Ok(()) if machine.emulator == Emulator::Kvm => style.dim("if ring 0 runs natively"),
            Ok(()) => style.good("runs here"),
            Err(why) => style.bad(&why),
        };
        let (name, emulator, about) = (machine.name, machine.emulator.name(), machine.about);
        text += &format!("  {name:<12}  {emulator:<5}  {about:<56}  {state}\n");
    }
    text
}

fn fetch(root: &Path, target: &Path) -> u8 {
    let script = root.join("examples/kernel/bochs3.sh");
    let status = Process::new("bash").arg(&script).arg(target.join("bochs3")).status();
    match status {
        Ok(status) if status.success() => 0,
        Ok(_) => complain("Bochs could not be fetched", 1),
        Err(why) => complain(&format!("{}: {why}", script.display()), 1),
    }
}

fn build(recipe: &Recipe, json: bool) -> u8 {
    let result = recipe.build();
    let code = u8::from(result.is_err());
    match (&result, json) {
        (_, true) => finish(&format!("{}\n", document::built(recipe, &result)), code),
        (Ok(elf), false) => finish(&format!("{}\n", elf.display()), 0),
        (Err(NoKernel::Unsupported(why) | NoKernel::Broken(why)), false) => complain(why, 1),
    }
}

fn no_kernel(args: &Args, why: &NoKernel) -> u8 {
    let said = match why {
        NoKernel::Unsupported(why) => format!("SKIPPED: {why}"),
        NoKernel::Broken(why) => format!("the kernel does not build:\n{why}"),
    };
    if args.json {
        return finish(&format!("{}\n", document::without_kernel(why)), 1);
    }
    complain(&said, 1)
}

/// Where people read: standard output, unless a document goes there.
fn say(args: &Args, text: &str) {
    // If it cannot be written, neither can the end: that is when it is said.
    let _written = if args.json {
        io::stderr().lock().write_all(text.as_bytes())
    } else {
        let mut out = io::stdout().lock();
        out.write_all(Style::detect().fold(text).as_bytes()).and_then(|()| out.flush())
    };
}

fn boot(args: &Args, kernel: &Kernel) -> u8 {
    let host = Host::new(&kernel.target);
    let style = if args.json { Style::plain() } else { Style::detect() };
    let show = |job: &Job, line: &str| {
        if args.verbose {
            let name = job.params.cpuid.map_or(job.machine.name, |recorded| &recorded.name);
            say(args, &format!("{} {line}\n", style.dim(&format!("{name}|"))));
        }
    };
    // With `--verbose` the table comes in one piece, behind what the machines say.
    let held = RefCell::new(String::new());
    let line = |text: &str| {
        if args.verbose {
            held.borrow_mut().push_str(text);
        } else {
            say(args, text);
        }
    };
    let runs = if args.controls {
        all_controls(args, kernel, &host, style, &show, &line)
    } else {
        say(args, &format!("{}\n{}\n\n", host.describe(), table::goals(&args.params)));
        if let Some(fault) = args.params.fault {
            let name = style.bold(fault.name());
            say(args, &format!("seeded fault {name}: {}\n\n", fault.about()));
        }
        let words = !args.cpuid.is_empty();
        line(&if words { table::words_heading(style) } else { table::heading(style) });
        let each = |run: &Run| line(&table::row(run, style));
        match &args.which {
            _ if words => run::all(kernel, &host, &recorded(args, &host), &show, each),
            Which::Best => best(args, kernel, &host, &show, each),
            Which::All => {
                let all: Vec<_> = machines::ALL.iter().collect();
                run::all(kernel, &host, &jobs(args, &host, &all), &show, each)
            }
            Which::Named(named) => run::all(kernel, &host, &jobs(args, &host, named), &show, each),
        }
    };
    let (passed, failed, _) =
        if args.controls { controls::tally(&runs) } else { table::tally(&runs) };
    // A seeded fault that the kernel does not notice is no success.
    let code = u8::from(failed > 0 || passed == 0 || args.params.fault.is_some());
    let end = if args.controls {
        controls_conclusion(&runs, style)
    } else {
        table::conclusion(&runs, style) + &table::areas(&runs) + &table::noticed(&runs, style)
    };
    let table = held.into_inner();
    let between = if table.is_empty() { "" } else { "\n" };
    say(args, &format!("{between}{table}\n{end}\n"));
    if args.json {
        return finish(&format!("{}\n", document::document(&runs, args.controls)), code);
    }
    finish("", code)
}

/// The runs on these machines.
fn jobs(args: &Args, host: &Host, machines: &[&'static machines::Machine]) -> Vec<Job> {
    let mut params = args.params;
    if let Some(minutes) = args.torture {
        // Shares of the host's CPUs, so that all together take that long where time passes alike.
        let weight = |m: &&&machines::Machine| m.weight(params.cpus).min(host.cpus);
        let runnable = machines.iter().filter(|m| host.can_run(m, &params).is_ok());
        let total: usize = runnable.map(|m| weight(&m)).sum();
        params.seconds = minutes * 60 * host.cpus as u64 / total.max(1) as u64;
        params.limit += params.seconds;
    }
    machines.iter().map(|&machine| Job { machine, params }).collect()
}

/// Every recorded machine on every machine that was named, or on the one that has what its words promise.
fn recorded(args: &Args, host: &Host) -> Vec<Job> {
    let mut jobs = Vec::new();
    for cpuid in args.cpuid.iter().copied() {
        let params = params::Params { cpuid: Some(cpuid), ..args.params };
        match &args.which {
            Which::Named(named) => {
                jobs.extend(named.iter().map(|&machine| Job { machine, params }))
            }
            _ => {
                let runs = |machine: &_| host.can_run(machine, &params).is_ok();
                jobs.extend(cpuid.machine(runs).map(|machine| Job { machine, params }));
            }
        }
    }
    jobs
}

/// The first of the best that does run; those that do not are shown too.
fn best(
    args: &Args,
    kernel: &Kernel,
    host: &Host,
    show: &(dyn Fn(&Job, &str) + Sync),
    mut each: impl FnMut(&Run),
) -> Vec<Run> {
    let mut runs = Vec::new();
    for machine in machines::BEST.iter().filter_map(|name| machines::named(name)) {
        let job = Job { machine, params: args.params };
        let run = run::boot(kernel, host, job, &|line| show(&job, line));
        each(&run);
        let ran = !matches!(run.verdict, Verdict::Skip(_));
        runs.push(run);
        if ran {
            break;
        }
    }
    runs
}

fn all_controls(
    args: &Args,
    kernel: &Kernel,
    host: &Host,
    style: Style,
    show: &(dyn Fn(&Job, &str) + Sync),
    line: &dyn Fn(&str),
) -> Vec<Run> {
    let asked: &[_] = if let Which::Named(named) = &args.which { named } else { &[] };
    let jobs = controls::jobs(host, &args.params, asked);
    say(args, &format!("{}; each fault must end in a failure that names it\n\n", host.describe()));
    line(&table::controls_heading(style));
    let each = |run: &Run| {
        if let Some(fault) = run.job.params.fault {
            line(&table::control(fault, run, style));
        }
    };
    run::all(kernel, host, &jobs, show, each)
}

fn controls_conclusion(runs: &[Run], style: Style) -> String {
    let (passed, failed, skipped) = controls::tally(runs);
    let text = format!("{passed} faults caught, {failed} missed, {skipped} skipped");
    match (passed, failed) {
        (1.., 0) => style.good(&text),
        _ => style.bad(&text),
    }
}

/// Writes the last of the output. Returns the exit code, which tells the end even where nothing can be written.
fn finish(text: &str, code: u8) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(why) => complain(&format!("standard output: {why}"), 1),
    }
}

fn complain(why: &str, code: u8) -> u8 {
    // The exit code says it where nothing can be written.
    let _told = writeln!(io::stderr(), "boot: {why}");
    code
}
