//! Every check of this repository behind one command: `cargo suite`.
//!
//! Runs each as child processes, shows progress, and ends in a table and the line
//! `N passed, N failed, N skipped`. Nothing passes silently: what could not run is counted and
//! listed with its reason, and a step in which no test ran has failed.
#![allow(clippy::print_literal)]

mod api;
mod bench;
mod boot;
mod cpus;
mod crash;
mod duties;
mod habits;
mod hygiene;
mod imports;
mod libtest;
mod museum;
mod nostd;
mod object;
mod package;
mod run;
mod source;
mod steps;
mod tests_run;
mod toolchains;

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use run::{Outcome, Suite};

const HELP: &str = "\
cargo suite [OPTIONS]: every check of this repository

  --list        name the checks, or those of --only, and do nothing
  --only NAME   only this check (repeatable; a name's beginning is enough)
  --quick       leave the slow ones out, and say so
  --verbose     show what the checks print, and each instruction of the
                object-code check
";

#[derive(Debug, Default)]
struct Options {
    list: bool,
    only: Vec<String>,
    quick: bool,
    verbose: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => options.list = true,
            "--quick" => options.quick = true,
            "--verbose" => options.verbose = true,
            "--only" => options.only.push(args.next().ok_or("--only needs a name")?),
            "--help" | "-h" => return Err(String::new()),
            other => return Err(format!("unknown option `{other}`")),
        }
    }
    Ok(options)
}

/// One line of the summary.
struct Row {
    name: String,
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
    took: Duration,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprint!("{}{}{HELP}", why, if why.is_empty() { "" } else { "\n" });
            return ExitCode::from(2);
        }
    };
    let Some(root) = hygiene::workspace_root() else {
        eprintln!("the workspace is neither here nor where this program was built");
        return ExitCode::from(2);
    };
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = root.join(target.unwrap_or_else(|| "target".into()));
    let only = options.only.clone();
    let suite = Suite { root, target, only, verbose: options.verbose };

    let steps = steps::all(&suite);
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|only| name.starts_with(only.as_str()))
    };
    if let Some(unknown) =
        options.only.iter().find(|only| !steps.iter().any(|s| s.name.starts_with(only.as_str())))
    {
        eprintln!("no check is named `{unknown}`; `cargo suite --list` names them");
        return ExitCode::from(2);
    }
    if options.list {
        for step in steps.iter().filter(|step| wanted(&step.name)) {
            println!("{:<18} {}{}", step.name, step.about, if step.slow { " (slow)" } else { "" });
        }
        return ExitCode::SUCCESS;
    }

    let started = Instant::now();
    let mut rows = Vec::new();
    for step in steps.iter().filter(|step| wanted(&step.name)) {
        print!("{:<18} {} ", step.name, step.about);
        flush();
        let began = Instant::now();
        let outcome = if options.quick && step.slow {
            Outcome::Skipped("left out by --quick".into())
        } else {
            (step.check)(&suite)
        };
        let row = finish(&step.name, outcome, began.elapsed(), options.verbose);
        rows.push(row);
    }
    summary(&rows, started.elapsed())
}

/// Shows how a step ended.
fn finish(name: &str, outcome: Outcome, took: Duration, verbose: bool) -> Row {
    let mut row = Row { name: name.into(), passed: 0, failed: 0, skipped: Vec::new(), took };
    let mut said = String::new();
    match outcome {
        Outcome::Passed { count, note } => {
            row.passed = count;
            // Tables are worth reading even when all is well.
            if verbose || note.lines().count() > 1 {
                said = note;
            }
        }
        Outcome::Tests(counts, output) => {
            row.count(counts);
            if verbose || row.failed > 0 {
                said = output;
            }
        }
        Outcome::Table(counts, table) => {
            row.count(counts);
            said = table;
        }
        Outcome::Failed(why) => {
            row.failed = 1;
            said = why;
        }
        Outcome::Skipped(why) => row.skipped.push(why),
    }
    println!();
    println!("  {}", row.verdict());
    for line in said.lines() {
        println!("  | {line}");
    }
    flush();
    row
}

impl Row {
    fn count(&mut self, counts: tests_run::Counts) {
        self.passed = counts.passed;
        self.failed = counts.failed;
        self.skipped = counts.skipped;
    }
    fn verdict(&self) -> String {
        let word = match (self.failed, self.passed, self.skipped.len()) {
            (0, 0, _) => "SKIPPED",
            (0, ..) => "ok",
            _ => "FAILED",
        };
        let mut text = format!("{word:<7} {} passed", self.passed);
        if self.failed > 0 {
            text.push_str(&format!(", {} failed", self.failed));
        }
        if !self.skipped.is_empty() {
            text.push_str(&format!(", {} skipped", self.skipped.len()));
        }
        format!("{text}  {:.1} s", self.took.as_secs_f64())
    }
}

fn summary(rows: &[Row], took: Duration) -> ExitCode {
    println!("\n{:<18} {:>7} {:>7} {:>7} {:>8}", "check", "passed", "failed", "skipped", "seconds");
    for row in rows {
        println!(
            "{:<18} {:>7} {:>7} {:>7} {:>8.1}{}",
            row.name,
            row.passed,
            row.failed,
            row.skipped.len(),
            row.took.as_secs_f64(),
            if row.failed > 0 { "  <- FAILED" } else { "" },
        );
    }
    println!("{:<18} {:>32.1}", "all", took.as_secs_f64());
    if rows.iter().any(|row| !row.skipped.is_empty()) {
        println!("\nskipped:");
        for row in rows {
            let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
            for why in &row.skipped {
                *reasons.entry(why).or_default() += 1;
            }
            for (why, times) in reasons {
                let times = if times == 1 { String::new() } else { format!(" ({times} times)") };
                println!("  {}: {why}{times}", row.name);
            }
        }
    }
    let sum = |count: fn(&Row) -> usize| rows.iter().map(count).sum::<usize>();
    let failed = sum(|row| row.failed);
    let (passed, skipped) = (sum(|row| row.passed), sum(|row| row.skipped.len()));
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 || passed == 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn flush() {
    // A closed pipe is not the checks' failure.
    drop(std::io::stdout().flush());
}

#[cfg(test)]
#[test]
fn the_help_fits_79_columns() {
    assert!(HELP.lines().all(|line| line.chars().count() <= 79), "{HELP}");
}
