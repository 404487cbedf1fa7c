//! What switching costs, as ratios to the bare instructions measured in the same run:
//! `cargo bench -p fpu-examples --bench switch`.
//!
//! Rows of 32 steps between two time stamps, all ways and classes in a new order in each round. The minimum, the
//! first quartile and the median of a row are printed; the ratio is that of the first quartiles.

mod classes;
mod demand;
mod moved;
mod owned;
mod peers;
mod published;
mod report;
mod row;
mod scenes;
mod tried;
mod ways;

use std::{
    ffi::c_void,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use fpu_core::HeapArea;
use fpu_examples::{options::Options, ratios};
use fpu_hosted_test::{
    real::{Classes, RegFile},
    Random,
};
use fpu_x86::{Components, Plan, SaveInstruction};

use classes::Class;
use demand::Demand;
use owned::Owned;
use peers::{Bare, Eager, Linux};
use report::{Line, Report};
use row::{Row, Step};
use scenes::{steps, Guest, Idle, Sections, SystemCall, Threads, TwoTasks};
use tried::{PageApart, Trimmed};
use ways::{number, Inline, Raw, Steps, Tasks, Typed, Way, FXSAVE, XSAVE, XSAVEC, XSAVEOPT};

type Failure = Box<dyn std::error::Error>;

/// Steps of a row.
const STEPS: u64 = 32;

const HELP: &str = "\
Measures what each way of switching costs, beside the bare instructions, in
one run.

usage: cargo bench -p fpu-examples --bench switch -- [options]

  --rounds N      rows of every kind (default 2000)
  --class NAME    only tasks that have this in use: nothing, SSE, AVX, AVX-512,
                  once AVX-512, nothing beside AVX, SSE in a small plan
  --json          print one JSON document and nothing else
  --svg FILE      draw the ratios, too (paths count from the package)
  --page FILE     write the figures into the tables of this page (repeatable)
  --help          this

exit code: 0 measured, 1 a way's registers were wrong, a measurement was not
           possible or a file could not be written, 2 bad arguments
";

struct Arguments {
    rounds: u64,
    class: Option<Class>,
    json: bool,
    svg: Option<PathBuf>,
    pages: Vec<PathBuf>,
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut options = Options::new(std::env::args_os().skip(1));
    let mut found =
        Arguments { rounds: 2000, class: None, json: false, svg: None, pages: Vec::new() };
    while let Some(name) = options.next_name()? {
        match name.as_str() {
            // What cargo adds.
            "--bench" => {}
            "--rounds" => found.rounds = options.number(1, 10_000_000)?,
            "--class" => {
                let text = options.text()?;
                let class = Class::ALL.into_iter().find(|class| class.name() == text);
                found.class =
                    Some(class.ok_or_else(|| options.wrong("no such class", text.as_ref()))?);
            }
            "--json" => found.json = true,
            "--svg" => found.svg = Some(options.file()?),
            "--page" => found.pages.push(options.file()?),
            "--help" => return Ok(None),
            other => return Err(options.unknown(other.as_ref())),
        }
    }
    options.flag()?;
    if found.class.is_some() && !found.pages.is_empty() {
        return Err("--class and --page contradict each other".into());
    }
    Ok(Some(found))
}

/// One way, ready to be measured: what it is called, its tasks, and its steps in each scenario.
struct Candidate {
    name: &'static str,
    way: *const c_void,
    tasks: Known,
    scenes: Vec<(&'static str, [Step; 3])>,
}

/// Switches of tasks, or other units, in one step of a scenario.
const SCENES: [(&str, f64); 11] = [
    ("two tasks, a switch", 2.0),
    ("task-idle-task", 1.0),
    ("with kernel threads", 4.0),
    ("system call", 1.0),
    ("3 sections", 1.0),
    ("3 guest exits", 1.0),
    (TRIED, 2.0),
    (SKIPPED[0], 2.0),
    (SKIPPED[1], 1.0),
    (SKIPPED[2], 1.0),
    (SKIPPED[3], 1.0),
];
/// Two tasks, for what is not in the library.
const TRIED: &str = "tried, a switch";
/// For a plan that neither saves nor restores what is initial: two tasks, idle, sections, and guest exits.
pub const SKIPPED: [&str; 4] = [
    "skips initial, a switch",
    "skips initial, task-idle-task",
    "skips initial, 3 sections",
    "skips initial, 3 guest exits",
];

/// The tasks, by what their areas are.
#[derive(Clone, Copy)]
enum Known {
    Inline(&'static Tasks),
    Heap(&'static Tasks<HeapArea>),
    Owned(&'static Owned),
    PageApart(&'static Tasks<PageApart>),
    Demand(&'static Demand),
}
impl From<&'static Demand> for Known {
    fn from(tasks: &'static Demand) -> Self {
        Self::Demand(tasks)
    }
}
impl Known {
    fn refused(self) -> &'static std::sync::atomic::AtomicU32 {
        match self {
            Self::Inline(tasks) => &tasks.refused,
            Self::Heap(tasks) => &tasks.refused,
            Self::PageApart(tasks) => &tasks.refused,
            Self::Owned(owned) => &owned.tasks().refused,
            Self::Demand(tasks) => &tasks.refused,
        }
    }
}
impl From<&'static Owned> for Known {
    fn from(owned: &'static Owned) -> Self {
        Self::Owned(owned)
    }
}
impl From<&'static Tasks> for Known {
    fn from(tasks: &'static Tasks) -> Self {
        Self::Inline(tasks)
    }
}
impl From<&'static Tasks<HeapArea>> for Known {
    fn from(tasks: &'static Tasks<HeapArea>) -> Self {
        Self::Heap(tasks)
    }
}
impl From<&'static Tasks<PageApart>> for Known {
    fn from(tasks: &'static Tasks<PageApart>) -> Self {
        Self::PageApart(tasks)
    }
}

fn candidate<W: Way + 'static, T: Into<Known>>(
    name: &'static str,
    way: W,
    tasks: impl Fn(&'static W) -> T,
    guest: bool,
) -> Candidate {
    // Ways live as long as the program.
    let way: &'static W = Box::leak(Box::new(way));
    let mut all = vec![
        (SCENES[0].0, steps::<W, TwoTasks>()),
        (SCENES[1].0, steps::<W, Idle>()),
        (SCENES[2].0, steps::<W, Threads>()),
        (SCENES[3].0, steps::<W, SystemCall>()),
        (SCENES[4].0, steps::<W, Sections>()),
    ];
    if guest {
        all.push((SCENES[5].0, steps::<W, Guest>()));
    }
    Candidate { name, way: std::ptr::from_ref(way).cast(), tasks: tasks(way).into(), scenes: all }
}

/// The scenarios in which a plan may skip what is initial, of a way that has guests.
fn skipped(one: &Candidate) -> Vec<(&'static str, [Step; 3])> {
    let of = ["two tasks, a switch", "task-idle-task", "3 sections", "3 guest exits"];
    let steps = |name| one.scenes.iter().find(|(scene, _)| *scene == name).map(|found| found.1);
    of.into_iter().zip(SKIPPED).filter_map(|(of, name)| Some((name, steps(of)?))).collect()
}

/// The ways whose instruction is that of the plan, and the others.
fn candidates<const SAVE: u8>(plan: &Plan, class: Class) -> Result<Vec<Candidate>, Failure> {
    let tasks = |instruction: Option<SaveInstruction>| -> Result<Tasks, Failure> {
        let plan = match instruction {
            Some(instruction) => plan.clone().with_save_instruction(instruction)?,
            None => plan.clone(),
        };
        Tasks::new(plan)?.checked()
    };
    let mut all = vec![
        candidate(BARE, Bare::<SAVE>(tasks(None)?), |way| &way.0, true),
        candidate("fpu-core, typed", Typed(tasks(None)?), |way| &way.0, true),
        candidate(HEAP, Typed(Tasks::<HeapArea>::new(plan.clone())?), |way| &way.0, true),
        candidate("fpu-core, bound", Owned::new(tasks(None)?)?, |way| way, false),
        candidate("fpu-core, steps", Steps::<SAVE>(tasks(None)?), |way| &way.0, false),
        candidate("fpu-core, raw", Raw::<SAVE>(tasks(None)?), |way| &way.0, false),
        candidate("as Linux", Linux::<SAVE>::new(tasks(None)?), Linux::tasks, true),
    ];
    if SAVE != FXSAVE {
        let xsave = tasks(Some(SaveInstruction::Xsave))?;
        all.push(candidate(
            "as Asterinas (XSAVE, reloads)",
            Bare::<XSAVE>(xsave),
            |way| &way.0,
            true,
        ));
        if let Ok(optimised) = tasks(Some(SaveInstruction::Xsaveopt)) {
            let way = Eager(Bare::<XSAVEOPT>(optimised));
            all.push(candidate("as Redox (XSAVEOPT, eager)", way, |way| &way.0 .0, true));
        }
        let xsave = plan.clone().with_save_instruction(SaveInstruction::Xsave)?;
        if let Some(published) = published::Published::new(xsave)? {
            all.push(candidate("crate xsave 2.0.2", published, |way| &way.bare.0, true));
        }
        // It saves no more than this.
        if plan.components() == Components::LEGACY {
            let fxsave = tasks(Some(SaveInstruction::Fxsave))?;
            all.push(candidate("bare FXSAVE", Bare::<FXSAVE>(fxsave), |way| &way.0, true));
        }
    }
    let two_tasks = |one: &Candidate| (TRIED, one.scenes[0].1);
    for one in &mut all[..2] {
        one.scenes.push(two_tasks(one));
    }
    let page_apart = Typed(Tasks::<PageApart>::new(plan.clone())?);
    let mut tried =
        vec![candidate("fpu-core, areas a page apart", page_apart, |way| &way.0, false)];
    if SAVE != FXSAVE {
        let trimmed = Trimmed::<SAVE>(tasks(None)?, class.needs().bits());
        tried.push(candidate("bare, only what is in use", trimmed, |way| &way.0, false));
    }
    for mut one in tried {
        one.scenes = vec![two_tasks(&one)];
        all.push(one);
    }
    let skips = Typed(Tasks::<Inline>::new(plan.clone().skipping_initial())?);
    let mut skips = candidate(SKIPS, skips, |way| &way.0, true);
    skips.scenes = skipped(&skips);
    for one in &mut all[..2] {
        one.scenes.extend(skipped(one));
    }
    all.push(skips);
    if class == Class::InitialBesideAvx {
        all.retain_mut(|one| {
            one.scenes.retain(|(scene, _)| SKIPPED.contains(scene));
            !one.scenes.is_empty()
        });
    }
    Ok(all)
}

/// The typed calls with a plan that neither saves nor restores what is initial.
const SKIPS: &str = "fpu-core, typed, skips initial";
/// The typed calls where the context has its area elsewhere.
const HEAP: &str = "fpu-core, typed, HeapArea";

/// The same with state on demand.
const DEMAND: &str = "fpu-core, typed, on demand";

/// The way that others are compared with.
const BARE: &str = "bare instructions";

fn measure(plan: &Plan, class: Class, rounds: u64, lines: &mut Vec<Line>) -> Result<(), Failure> {
    let mut all = match number(plan.save_instruction()) {
        Some(XSAVEC) => candidates::<XSAVEC>(plan, class)?,
        Some(XSAVEOPT) => candidates::<XSAVEOPT>(plan, class)?,
        Some(XSAVE) => candidates::<XSAVE>(plan, class)?,
        _ => candidates::<FXSAVE>(plan, class)?,
    };
    // That class has only the scenarios of the plan that skips, and no plan of tiles on demand skips.
    if plan.components().contains(Components::AVX512) && class != Class::InitialBesideAvx {
        all.push(candidate(DEMAND, Demand::new(plan, class)?, |way| way, false));
    }
    for one in &all {
        match one.tasks {
            Known::Inline(tasks) => class.give(tasks)?,
            Known::Heap(tasks) => class.give(tasks)?,
            Known::Owned(owned) => class.give_owned(owned)?,
            Known::Demand(_) => {}
            Known::PageApart(tasks) => class.give(tasks)?,
        }
    }
    let classes = Classes::detect();
    let (before, mut after) = (RegFile::pattern(7, classes), RegFile::initial(classes));
    let mut rows: Vec<(usize, usize, Vec<u64>)> = Vec::new();
    for (which, one) in all.iter().enumerate() {
        rows.extend((0..one.scenes.len()).map(|scene| (which, scene, Vec::new())));
    }
    let mut expected: Option<RegFile> = None;
    let mut random = Random::new(1);
    for round in 0..rounds {
        for place in (1..rows.len()).rev() {
            rows.swap(place, random.below(place + 1));
        }
        for (which, scene, ticks) in &mut rows {
            let one = &all[*which];
            let [begin, step, end] = one.scenes[*scene].1;
            let mut row = Row { arg: one.way.cast_mut(), begin, step, end, steps: STEPS, ticks: 0 };
            // SAFETY: the way's own steps, which are scalar; files of this CPU's classes.
            unsafe { row.run(&before, &mut after) };
            ticks.push(row.ticks);
            // Task 0 is in the registers at each end, with the same values.
            if round == 0 || round + 1 == rounds {
                let right = expected.get_or_insert_with(|| after.clone());
                if let Some(wrong) = right.first_difference(&after) {
                    return Err(format!(
                        "{}, {}: {wrong} is wrong",
                        one.name, one.scenes[*scene].0
                    )
                    .into());
                }
            }
        }
    }
    for one in &all {
        if one.tasks.refused().load(std::sync::atomic::Ordering::Relaxed) != 0 {
            return Err(format!("{}: the library refused a call", one.name).into());
        }
    }
    let place = |which: usize, scene: usize| {
        let name = all[which].scenes[scene].0;
        SCENES.iter().position(|(scene, _)| *scene == name).unwrap_or_default()
    };
    rows.sort_by_key(|(which, scene, _)| (place(*which, *scene), *which));
    for (which, scene, ticks) in rows {
        let (name, per) = SCENES[place(which, scene)];
        lines.push(Line::new(class.name(), name, all[which].name, ticks, STEPS as f64 * per));
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let mut report = Report::new(&Plan::detect_user(Components::all())?);
    for class in Class::ALL {
        if arguments.class.is_some_and(|only| only != class) {
            continue;
        }
        let plan = match class {
            // SAFETY: C23: the rows leave what the plan leaves out in its initial state.
            Class::SmallPlan => unsafe { Plan::detect_user_without(!Components::LEGACY) }?
                // As a kernel's plan has it.
                .with_save_instruction(SaveInstruction::Fxsave)?,
            _ => Plan::detect_user(Components::LEGACY | Components::AVX | Components::AVX512)?,
        };
        if !plan.components().contains(class.needs()) {
            report.skipped.push(format!("{}: this CPU has it not", class.name()));
            continue;
        }
        measure(&plan, class, arguments.rounds, &mut report.lines)?;
        if class == Class::InitialBesideAvx {
            continue;
        }
        match moved::measure(&plan, class, arguments.rounds.min(2000) as u32) {
            Ok(lines) => report.lines.extend(lines),
            Err(why) => report.skipped.push(format!("{}, moved task: {why}", class.name())),
        }
    }
    Ok(report)
}

/// The picture, and the pages.
fn write(arguments: &Arguments, report: &Report) -> Result<(), String> {
    let tables = report.tables();
    let put = |file: &Path, text: String| {
        fs::write(file, text).map_err(|why| format!("{}: {why}", file.display()))
    };
    if let Some(file) = &arguments.svg {
        put(file, ratios::document(&tables))?;
    }
    for page in &arguments.pages {
        let old = fs::read_to_string(page).map_err(|why| format!("{}: {why}", page.display()))?;
        put(page, tables.fill(&old))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("bench: {why}");
            return ExitCode::from(2);
        }
    };
    let written = run(&arguments).map_err(|why| why.to_string()).and_then(|report| {
        print!("{}", if arguments.json { report.json() } else { report.text() });
        write(&arguments, &report)
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}
