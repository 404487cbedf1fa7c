//! The program: runs the scenarios under both kernels, and reports.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fpu_hosted_test::real::Classes;
use fpu_x86::{Components, Plan, SaveInstruction};

use crate::{
    args::{self, Args, Command},
    bound,
    json::{document, Ending},
    report::{self, heading, mismatch, pieces, table, Row, Style},
    run::{overhead, run, verify, verify_eager, Kernel, Machine, Mismatch},
    scenarios::{self, Scenario, TASKS},
    svg::{self, Panel},
    world::Setup,
};

fn setup(args: &Args) -> Result<Setup, String> {
    let classes = Classes::detect();
    let (plan, classes) = if args.rung == Some(SaveInstruction::Fxsave) {
        // SAFETY: C23: the tasks then use x87 and SSE only; compiled code, which may use more, runs
        // between scripts, and what it leaves there is no task's.
        let plan = unsafe { Plan::detect_user_without(!Components::LEGACY) };
        (plan, Classes::BASE)
    } else {
        (Plan::detect_user(Components::all()), classes)
    };
    let mut plan = plan.map_err(|why| why.to_string())?;
    if let Some(rung) = args.rung {
        plan = plan.with_save_instruction(rung).map_err(|why| why.to_string())?;
    }
    Ok(Setup { plan, classes, seed: args.seed })
}

/// Beside the build, if this program lies in one: in the directory that cargo tags when it makes it, or, if that was
/// there already, in the one above `release/` or `debug/`, where programs lie beside `deps/`.
fn default_svg(exe: &Path) -> PathBuf {
    let tagged = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    let built = exe.parent().filter(|dir| dir.join("deps").is_dir()).and_then(Path::parent);
    tagged.or(built).unwrap_or(Path::new(".")).join("fpu-demo.svg")
}

/// On a busy machine scripts run less often than asked for, so that the whole stays under a minute.
const ENOUGH: Duration = Duration::from_secs(12);

/// Figures so far, and what ended the run early.
#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    /// The bound context's.
    bound: Option<Row>,
    panels: Vec<Panel>,
    end: Option<End>,
}

/// The reason why the demo fails.
enum End {
    Mismatch(Box<Mismatch>, Kernel),
    Failure(String),
}

/// The runs of one scenario, under this kernel and the eager one in turn; the fastest run's cycles count.
fn repeat(
    args: &Args,
    machine: &Machine,
    setup: &Setup,
    scenario: &Scenario,
    tested: Kernel,
    started: Instant,
) -> Result<(Row, Panel), End> {
    let kernels = [tested, Kernel::Eager];
    let mut row = Row::new(scenario.name, scenario.id, &scenario.script);
    let mut flags = Vec::new();
    while row.runs == 0 || (row.runs < args.runs && started.elapsed() < ENOUGH) {
        for kernel in kernels {
            let outcome = run(machine, setup, scenario, kernel).map_err(End::Failure)?;
            if let Some(found) = outcome.mismatch {
                return Err(End::Mismatch(Box::new(found), kernel));
            }
            let (side, verified) = match kernel {
                Kernel::Eager => (&mut row.eager, verify_eager(scenario, &outcome)),
                Kernel::Deferred(_) => (&mut row.deferred, verify(scenario, &outcome)),
                Kernel::Bound => (&mut row.deferred, bound::verify(scenario, &outcome)),
            };
            verified.map_err(|why| End::Failure(format!("{}: {why}", scenario.name)))?;
            // Verified, so the counts are the same every time.
            side.counts = outcome.counts;
            if row.runs == 0 || outcome.samples.total(0) < side.samples.total(0) {
                side.samples = outcome.samples;
            }
            if kernel != Kernel::Eager {
                flags = outcome.flags;
            }
        }
        row.runs += 1;
    }
    let panel = Panel::new(scenario, &flags, [row.deferred.counts, row.eager.counts]);
    Ok((row, panel))
}

fn run_all(args: &Args, machine: &Machine, setup: &Setup, style: Style) -> Results {
    let mut results = Results::default();
    let started = Instant::now();
    let say = |text: &str| {
        if !args.json {
            // If it cannot be written, neither can the table: that is when it is said.
            let _progress = write_out(text);
        }
    };
    let all = scenarios::all(args.seed).into_iter();
    let mut all: Vec<_> = all.map(|one| (one, Kernel::Deferred(args.fault))).collect();
    // The faults are those of the others.
    if args.fault.is_none() {
        all.push((bound::scenario(), Kernel::Bound));
    }
    for (scenario, kernel) in all {
        say(&format!("  {:<24}", scenario.name));
        match repeat(args, machine, setup, &scenario, kernel, started) {
            Ok((row, panel)) => {
                let (ok, about) = (style.good("ok"), style.dim(scenario.about));
                let narrow = !style.has(report::WIDTH);
                say(&format!("{ok}{}{about}\n", if narrow { "\n      " } else { "  " }));
                if kernel == Kernel::Bound {
                    results.bound = Some(row);
                } else {
                    results.rows.push(row);
                    results.panels.push(panel);
                }
            }
            Err(end) => {
                let word = if matches!(end, End::Mismatch(..)) { "mismatch" } else { "failed" };
                say(&format!("{}\n", style.bad(word)));
                results.end = Some(end);
                break;
            }
        }
    }
    results
}

/// Runs the program. Returns the exit code.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    // So that `demo | head` ends it quietly.
    // SAFETY: the default action of a signal, before any thread exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let args = match args::parse(arguments) {
        Ok(Command::Run(args)) => args,
        Ok(Command::Help(text)) => return finish(&text, 0),
        Err(why) => return complain(&why, 2),
    };
    let picture = args
        .svg
        .clone()
        .unwrap_or_else(|| default_svg(&std::env::current_exe().unwrap_or_default()));
    // A seeded fault leaves nothing to draw; where it goes is wrong or right all the same.
    if args.svg.is_some() || args.fault.is_none() {
        if let Err(why) = can_write(&picture) {
            let place = if args.svg.is_some() { "" } else { " (the default)" };
            return complain(&format!("--svg: {picture:?}{place}: {why}"), 2);
        }
    }
    let prepared = setup(&args);
    let (machine, setup) = match (Machine::new(), prepared) {
        (Ok(machine), Ok(setup)) => (machine, setup),
        (Err(why), _) => return complain(&why.to_string(), 1),
        (_, Err(why)) => return complain(&why, 1),
    };
    let style = Style::detect();
    if !args.json {
        let mut text = heading(&machine, &setup, TASKS) + "\n\n";
        if let Some(fault) = args.fault {
            text += &format!("seeded fault {}: {}\n\n", style.bold(fault.name()), fault.about());
        }
        // As for the progress.
        let _heading = write_out(&text);
    }
    let overhead = overhead();
    let mut results = run_all(&args, &machine, &setup, style);
    if let (Some(fault), None) = (args.fault, &results.end) {
        let why = format!("the seeded fault {} was not noticed", fault.name());
        results.end = Some(End::Failure(why));
    }
    // What came of the timeline: where it is, or why it is not.
    let timeline = if results.end.is_none() {
        svg::best_first(&mut results.panels);
        let document = svg::document(&results.panels, &heading(&machine, &setup, TASKS));
        match std::fs::write(&picture, document) {
            Ok(()) => Ok(picture),
            Err(why) => Err(format!("{}: {why}", picture.display())),
        }
    } else {
        Err("not written: a run that fails is not drawn".into())
    };
    let code = u8::from(results.end.is_some() || timeline.is_err());
    if args.json {
        let mut end = Ending {
            fault: args.fault,
            svg: timeline.as_ref().ok().map(|path| path.display().to_string()),
            ..Ending::default()
        };
        match (&results.end, &timeline) {
            (Some(End::Mismatch(found, _)), _) => end.mismatch = Some(found),
            (Some(End::Failure(why)), _) | (None, Err(why)) => end.failure = Some(why),
            (None, Ok(_)) => {}
        }
        let (rows, bound) = (&results.rows, results.bound.as_ref());
        let document = document(&machine, &setup, rows, bound, overhead, &end) + "\n";
        match io::stdout().lock().write_all(document.as_bytes()) {
            Ok(()) => code,
            Err(why) => complain(&format!("standard output: {why}"), 1),
        }
    } else {
        let mut text = conclusion(&results, overhead, style);
        match &timeline {
            Ok(path) => text += &format!("timeline: {}\n", path.display()),
            Err(why) if results.end.is_none() || args.svg.is_some() => {
                text += &format!("{} {why}\n", style.bad("timeline:"));
            }
            Err(_) => {}
        }
        finish(&text, code)
    }
}

/// Tells whether a file can be written there. A file that does not exist yet does not exist afterwards.
fn can_write(path: &Path) -> io::Result<()> {
    let new = !path.exists();
    OpenOptions::new().append(true).create(true).open(path)?;
    if new {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(Style::detect().fold(text).as_bytes())?;
    out.flush()
}

/// Writes the last of the output. Returns the exit code, which tells the end even where nothing can be written.
fn finish(text: &str, code: u8) -> u8 {
    match write_out(text) {
        Ok(()) => code,
        Err(why) => complain(&format!("standard output: {why}"), 1),
    }
}

fn complain(why: &str, code: u8) -> u8 {
    // The exit code says it where nothing can be written.
    let _told = writeln!(io::stderr(), "demo: {why}");
    code
}

fn conclusion(results: &Results, overhead: u32, style: Style) -> String {
    match &results.end {
        Some(End::Mismatch(found, kernel)) => {
            format!("\n{}\n", mismatch(found, *kernel, style).trim_end())
        }
        Some(End::Failure(why)) => format!("\n{} {why}\n", style.bad("FAILED")),
        None => {
            let checked = Row::checked(results.rows.iter().chain(&results.bound));
            let bound = results.bound.as_ref().map(|row| report::bound(row, overhead, style));
            let verdict = format!("every register of {checked} returns checked, 0 mismatches");
            format!(
                "\n{}\n{}\n{}\n\n{}\n",
                table(&results.rows, overhead, style),
                bound.unwrap_or_default(),
                pieces(&results.rows, overhead),
                style.good(&verdict)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_lies_beside_the_build() {
        let name = format!("fpu-demo-build-{}", std::process::id());
        let target = std::env::temp_dir().join(name);
        std::fs::create_dir_all(target.join("release/deps")).expect("a directory");
        let exe = target.join("release/demo");
        let untagged = default_svg(&exe);
        std::fs::write(target.join("CACHEDIR.TAG"), "").expect("a file");
        let tagged = default_svg(&exe);
        std::fs::remove_dir_all(&target).expect("ours");
        assert_eq!((&untagged, &tagged), (&target.join("fpu-demo.svg"), &untagged));
        // Installed, or not known.
        assert_eq!(default_svg(&exe), Path::new("./fpu-demo.svg"));
        assert_eq!(default_svg(Path::new("")), Path::new("./fpu-demo.svg"));
    }
}
