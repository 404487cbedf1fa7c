//! Every seeded fault of the core, each in a build of its own, which must fail as its row says.
//!
//! ```text
//! cargo run --release -p fpu-models --bin faults -- [NAME...]
//! ```
//!
//! Prints what libtest would, a test for each fault. The first is the control, a build without a fault.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, ExitCode},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Mutex,
    },
    thread,
};

use fpu_models::{
    edit,
    model::{
        table::{By, Row, MODELS, PROTOCOL},
        violation, Model, MOST_PREEMPTIONS,
    },
    seeded::{bounds, is_of_traps, search, Seen},
};

/// The argument of the build that has one fault, or none.
const ONE: &str = "--one";
const CONTROL: &str = "no_fault";

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names.first().is_some_and(|word| word == ONE) {
        return one();
    }
    let rows = PROTOCOL.iter().map(|row| row.name);
    let all: Vec<&str> = [CONTROL].into_iter().chain(rows).collect();
    if let Some(unknown) = names.iter().find(|name| !all.contains(&name.as_str())) {
        eprintln!("no fault of the protocol is called {unknown}");
        return ExitCode::from(2);
    }
    let wanted: Vec<&str> = all
        .into_iter()
        .filter(|name| names.is_empty() || names.iter().any(|n| n == name))
        .collect();
    println!("running {} tests", wanted.len());
    let failed = run_all(&wanted);
    if !failed.is_empty() {
        println!("\nfailures:\n");
        for (name, said) in &failed {
            println!("---- {name} stdout ----\n{said}\n");
        }
        println!("\nfailures:");
        for (name, _) in &failed {
            println!("    {name}");
        }
    }
    let (verdict, code) =
        if failed.is_empty() { ("ok", ExitCode::SUCCESS) } else { ("FAILED", ExitCode::FAILURE) };
    let passed = wanted.len() - failed.len();
    println!("\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored", failed.len());
    code
}

/// What failed, in the order of the table, and what it said.
fn run_all<'n>(wanted: &[&'n str]) -> Vec<(&'n str, String)> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    // Each worker has a directory to build in, where the copies take turns. With more workers the builds of loom would
    // take more time than those of the copies.
    let workers = thread::available_parallelism().map_or(1, usize::from).min(4);
    thread::scope(|scope| {
        for worker in 0..workers {
            let (next, failed) = (&next, &failed);
            scope.spawn(move || loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(name) = wanted.get(at) else { return };
                let result = build_and_run(name, worker);
                let word = if result.is_ok() { "ok" } else { "FAILED" };
                println!("test {name} ... {word}");
                match result {
                    Ok(said) => println!("{said}"),
                    Err(why) => failed.lock().expect("no thread panicked").push((at, *name, why)),
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no thread panicked");
    failed.sort_unstable();
    failed.into_iter().map(|(_, name, why)| (name, why)).collect()
}

fn build_and_run(name: &str, worker: usize) -> Result<String, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Some((_, edits)) = PROTOCOL.iter().find(|row| row.name == name).and_then(|row| row.edits)
    {
        let core = here.join("../../fpu-core/src");
        let mut files = edit::sources(&core).map_err(|why| format!("{}: {why}", core.display()))?;
        edit::apply(&mut files, edits)?;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target =
        std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| here.join("../../target").into());
    let output = Command::new(cargo)
        .args(["run", "-q", "--profile", "faults", "-p", "fpu-models", "--bin", "faults"])
        .args([
            "--target-dir".as_ref(),
            Path::new(&target).join(format!("faults/{worker}")).as_os_str(),
        ])
        .args(["--", ONE])
        .env("FPU_FAULT", if name == CONTROL { "" } else { name })
        .env_remove("RUSTFLAGS")
        .current_dir(here)
        .output()
        .map_err(|why| format!("cargo: {why}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let (said, complaint) = (text(&output.stdout), text(&output.stderr));
    // A fault that was built says what is wrong.
    Err(if said.is_empty() {
        format!("the copy does not build:\n{complaint}")
    } else {
        said + &complaint
    })
}

/// The fault of this build: the model and the explorer must find it, and say what the table says.
fn one() -> ExitCode {
    let name = fpu_core_loom::FAULT;
    let Some(row) = PROTOCOL.iter().find(|row| row.name == name) else { return control() };
    let mut wrong = Vec::new();
    match row.by {
        By::Model(model, preemptions) => modelled(row, model, preemptions, &mut wrong),
        By::Explorer(_) => wrong.extend(unnoticed(row)),
    }
    wrong.extend(explored(row));
    verdict(&wrong)
}

/// The model must find it, call it what the row says, and need as many preemptions.
fn modelled(row: &Row, model: &'static Model, preemptions: usize, wrong: &mut Vec<String>) {
    let Some(found) = violation(model, Some(row.fault), MOST_PREEMPTIONS) else {
        return wrong.push(format!("the model {} does not notice it", model.name));
    };
    let said = found.message.lines().next().unwrap_or_default();
    println!("{} in execution {}: {said}", model.name, found.execution);
    if !found.message.contains(row.message) {
        wrong.push(format!("the model {} does not call it {}: {said}", model.name, row.message));
    }
    if found.preemptions != preemptions {
        wrong.push(format!("with {} preemptions, not {preemptions}", found.preemptions));
    }
}

/// Where the row names no model, none finds the fault without a preemption. The row would have to name one that did.
fn unnoticed(row: &Row) -> Vec<String> {
    let notices = |model: &&&'static Model| violation(model, Some(row.fault), 0);
    let found = MODELS.iter().filter_map(|model| Some((model, notices(&model)?)));
    found.map(|(m, found)| format!("the model {} notices it: {}", m.name, found.message)).collect()
}

fn explored(row: &Row) -> Option<String> {
    let (seen, _) = row.edits?;
    if fpu_core::FAULT != row.name {
        return Some(format!("the explorer's copy has not {} but {:?}", row.name, fpu_core::FAULT));
    }
    let (states, said) = search(row.name, seen);
    println!("by the explorer, in {states} states: {said:?}");
    match (seen, said) {
        // Where the row names a model, it has the model's words.
        (Seen::At(depth), Some((at, what)))
            if at == depth && (row.model().is_some() || what.contains(row.message)) =>
        {
            None
        }
        (Seen::Not(_), None) => None,
        (seen, said) => Some(format!("the explorer is to see it {seen:?}, not {said:?}")),
    }
}

/// Without a fault the models pass, and the explorer finds nothing, within the bounds in which the faults are found.
fn control() -> ExitCode {
    let (mut wrong, mut searched) = (Vec::new(), BTreeSet::new());
    if fpu_core::FAULT != fpu_core_loom::FAULT {
        wrong.push(format!("the explorer's copy has the fault {}", fpu_core::FAULT));
    }
    for row in PROTOCOL {
        if let By::Model(model, preemptions) = row.by {
            if let Some(found) = violation(model, None, preemptions) {
                wrong.push(format!("the model {} fails: {}", model.name, found.message));
            }
        }
        let Some((seen, _)) = row.edits else { continue };
        let search_of = match is_of_traps(row.name) {
            true => format!("traps, {seen:?}"),
            false => format!("{:?}", bounds(row.name, seen)),
        };
        if searched.insert(search_of) {
            if let (_, Some((_, what))) = search(row.name, seen) {
                wrong.push(format!("the explorer finds {what}"));
            }
        }
    }
    verdict(&wrong)
}

fn verdict(wrong: &[String]) -> ExitCode {
    for why in wrong {
        println!("{why}");
    }
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
