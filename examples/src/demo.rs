//! The program: runs the scenarios under both kernels, and reports.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use fpu_hosted_test::real::Classes;
use fpu_x86::{Components, Plan, Rung};

use crate::{
    args::{self, Args, Command},
    json::{document, Ending},
    report::{heading, mismatch, pieces, table, Row, Side, Style},
    run::{overhead, run, verify, verify_eager, Kernel, Machine, Mismatch},
    scenarios::{self, TASKS},
    svg::{self, Panel},
    world::Setup,
};

fn setup(args: &Args) -> Result<Setup, String> {
    let classes = Classes::detect();
    let (plan, classes) = if args.rung == Some(Rung::Fxsave) {
        // SAFETY: X1: the tasks then use x87 and SSE only; compiled code, which may use more, runs
        // between scripts, and what it leaves there is no task's.
        let plan = unsafe { Plan::detect_user_without(!Components::LEGACY) };
        (plan, Classes::BASE)
    } else {
        (Plan::detect_user(Components::all()), classes)
    };
    let mut plan = plan.map_err(|why| why.to_string())?;
    if let Some(rung) = args.rung {
        plan = plan.with_rung(rung).map_err(|why| why.to_string())?;
    }
    Ok(Setup { plan, classes, seed: args.seed })
}

/// Beside the build, if this is one.
fn default_svg() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let target = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    target.unwrap_or(Path::new(".")).join("fpu-demo.svg")
}

/// Figures so far, and what ended the run early.
struct Results {
    rows: Vec<Row>,
    panels: Vec<Panel>,
    mismatch: Option<(Mismatch, &'static str)>,
    failure: Option<String>,
}

fn run_all(args: &Args, machine: &Machine, setup: &Setup, style: Style) -> Results {
    let mut results = Results { rows: vec![], panels: vec![], mismatch: None, failure: None };
    let say = |text: &str| {
        if !args.json {
            print!("{text}");
            // A closed pipe is noticed by the next print.
            let _flushed = std::io::stdout().flush();
        }
    };
    for scenario in scenarios::all(args.seed) {
        say(&format!("  {:<24}", scenario.name));
        let mut sides = Vec::new();
        let mut flags = Vec::new();
        for kernel in [Kernel::Lazy(args.fault), Kernel::Eager] {
            let outcome = match run(machine, setup, &scenario, kernel) {
                Ok(outcome) => outcome,
                Err(why) => {
                    say("\n");
                    results.failure = Some(why);
                    return results;
                }
            };
            if let Some(found) = outcome.mismatch {
                say(&format!("{}\n", style.bad("mismatch")));
                let name = if kernel == Kernel::Eager { "eager kernel" } else { "fpu-core" };
                results.mismatch = Some((found, name));
                return results;
            }
            let verified = match kernel {
                Kernel::Eager => verify_eager(&scenario, &outcome),
                Kernel::Lazy(_) => verify(&scenario, &outcome),
            };
            if let Err(why) = verified {
                say(&format!("{}\n", style.bad("failed")));
                results.failure = Some(format!("{}: {why}", scenario.name));
                return results;
            }
            if kernel != Kernel::Eager {
                flags = outcome.flags;
            }
            sides.push(Side { counts: outcome.counts, samples: outcome.samples });
        }
        let Ok(sides) = <[Side; 2]>::try_from(sides) else { unreachable!("two kernels") };
        say(&format!("{}  {}\n", style.good("ok"), style.dim(scenario.about)));
        let row = Row::new(scenario.name, scenario.id, &scenario.script, sides);
        let counts = [row.lazy.counts, row.eager.counts];
        results.panels.push(Panel::new(&scenario, &flags, counts));
        results.rows.push(row);
    }
    results
}

/// Runs the program; the exit code.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = String>) -> u8 {
    // So that `demo | head` ends it quietly.
    // SAFETY: the default action of a signal, before any thread exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let args = match args::parse(arguments) {
        Ok(Command::Run(args)) => args,
        Ok(Command::Help(text)) => {
            print!("{text}");
            return 0;
        }
        Err(why) => {
            eprintln!("demo: {why}");
            return 2;
        }
    };
    let prepared = setup(&args);
    let (machine, setup) = match (Machine::new(), prepared) {
        (Ok(machine), Ok(setup)) => (machine, setup),
        (Err(why), _) => return cannot(&why.to_string()),
        (_, Err(why)) => return cannot(&why),
    };
    let style = Style::detect();
    if !args.json {
        println!("{}\n", heading(&machine, &setup, TASKS));
        if let Some(fault) = args.fault {
            println!("seeded fault {}: {}\n", style.bold(fault.name()), fault.about());
        }
    }
    let overhead = overhead();
    let mut results = run_all(&args, &machine, &setup, style);
    if let (Some(fault), None, None) = (args.fault, &results.mismatch, &results.failure) {
        results.failure = Some(format!("the seeded fault {} was not noticed", fault.name()));
    }
    let mut written = None;
    if results.mismatch.is_none() && results.failure.is_none() {
        let path = args.svg.clone().unwrap_or_else(default_svg);
        match std::fs::write(
            &path,
            svg::document(&results.panels, &heading(&machine, &setup, TASKS)),
        ) {
            Ok(()) => written = Some(path),
            Err(why) => results.failure = Some(format!("{}: {why}", path.display())),
        }
    }
    if args.json {
        let end = Ending {
            fault: args.fault,
            mismatch: results.mismatch.as_ref().map(|(found, _)| found),
            failure: results.failure.as_deref(),
            svg: written.as_ref().map(|path| path.display().to_string()),
        };
        println!("{}", document(&machine, &setup, &results.rows, overhead, &end));
    } else {
        conclude(&results, overhead, style, written.as_deref());
    }
    u8::from(results.mismatch.is_some() || results.failure.is_some())
}

fn cannot(why: &str) -> u8 {
    eprintln!("demo: {why}");
    1
}

fn conclude(results: &Results, overhead: u32, style: Style, svg: Option<&Path>) {
    println!();
    if !results.rows.is_empty() {
        println!("{}", table(&results.rows, overhead, style));
        println!("{}\n", pieces(&results.rows, overhead));
    }
    if let Some((found, kernel)) = &results.mismatch {
        println!("{}", mismatch(found, kernel, style).trim_end());
        return;
    }
    if let Some(why) = &results.failure {
        println!("{} {why}", style.bad("FAILED"));
        return;
    }
    let total = Row::total(&results.rows);
    let verdict = format!(
        "every register of {} returns checked, 0 mismatches",
        total.lazy.counts.returns + total.eager.counts.returns
    );
    println!("{}", style.good(&verdict));
    if let Some(path) = svg {
        println!("timeline: {}", path.display());
    }
}
