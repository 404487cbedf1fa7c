//! The tables, for people: at most 118 columns.

use crate::{report::Style, xstate::show::wrapped};

use super::{
    faults::Fault,
    judge::{caught, Verdict},
    params::{MIGRATIONS, SWITCHES},
    run::Run,
    serial::Report,
};

/// The widest line.
pub const WIDTH: usize = 118;

/// One line of the machines' table, of texts.
fn cells(cells: [&str; 14]) -> String {
    let [machine, on, rung, xcr0, xss, switches, moves, sections, busy, saves, restores, skipped, wrong, seconds] =
        cells;
    format!(
        "{machine:<12} {on:<5} {rung:<8} {xcr0:>7} {xss:>7}  {switches:>8} {moves:>7}  {sections:>8} {busy:>7}  \
         {saves:>8} {restores:>8} {skipped:>7}  {wrong:>7}  {seconds:>5}"
    )
}

/// The heading of the machines' table.
#[must_use]
pub fn heading(style: Style) -> String {
    let groups = ["", "", "", "", "", "", "", "-- in interru", "pts --", "", "", "", "mis-", ""];
    let heads = [
        "machine", "", "rung", "XCR0", "XSS", "switches", "moves", "sections", "refused", "saves",
        "restores", "skipped", "matches", "secs",
    ];
    let (groups, heads) = (cells(groups), cells(heads));
    let groups = groups.replace("-- in interru  pts --", "in interrupts:");
    let rule = "-".repeat(heads.len());
    format!("{}\n{}\n{}\n", style.dim(groups.trim_end()), style.bold(&heads), style.dim(&rule))
}

fn figures(run: &Run, report: &Report) -> String {
    let counts = &report.counts;
    let number = |count: u64| count.to_string();
    let [switches, moves, sections, busy, saves, restores, skipped, wrong] = [
        counts.switches,
        counts.migrations,
        counts.irq_sections,
        counts.busy,
        counts.saves,
        counts.restores,
        counts.skipped,
        counts.mismatches,
    ]
    .map(number);
    cells([
        run.job.machine.name,
        run.job.machine.emulator.name(),
        &report.rung.to_uppercase(),
        report.xcr0.as_deref().unwrap_or("-"),
        report.xss.as_deref().unwrap_or("-"),
        &switches,
        &moves,
        &sections,
        &busy,
        &saves,
        &restores,
        &skipped,
        &wrong,
        &format!("{:.1}", run.seconds),
    ])
}

/// One machine's lines.
#[must_use]
pub fn row(run: &Run, style: Style) -> String {
    const INDENT: usize = 19;
    let (machine, emulator) = (run.job.machine.name, run.job.machine.emulator.name());
    let said = |word: &str, why: &str| wrapped(&format!("{word} {why}"), WIDTH - INDENT, INDENT);
    let label = format!("{machine:<12} {emulator:<5} ");
    match (&run.verdict, &run.report) {
        (Verdict::Pass, Some(report)) => figures(run, report) + "\n",
        (Verdict::Skip(why), _) => style.dim(&(label + &said("skipped:", why))) + "\n",
        (verdict, report) => {
            let word = if matches!(verdict, Verdict::Hung(_)) { "HUNG:" } else { "FAILED:" };
            let why = said(word, verdict.why().unwrap_or("no reason given"));
            match report {
                None => style.bad(&(label + &why)) + "\n",
                Some(report) => {
                    let why = style.bad(&format!("{:INDENT$}{why}", ""));
                    format!("{}\n{why}\n", figures(run, report))
                }
            }
        }
    }
}

/// What it came to.
#[must_use]
pub fn conclusion(runs: &[Run], style: Style) -> String {
    let (passed, failed, skipped) = tally(runs);
    let reports = || runs.iter().filter_map(|run| run.report.as_ref());
    let checks: u64 = reports().map(|report| report.counts.checks).sum();
    let wrong: u64 = reports().map(|report| report.counts.mismatches).sum();
    let mut text = format!("{passed} passed, {failed} failed, {skipped} skipped");
    if checks > 0 {
        text += &format!("; every register compared {checks} times, {wrong} mismatches");
    }
    match (passed, failed) {
        (1.., 0) => style.good(&text),
        _ => style.bad(&text),
    }
}

/// What each machine had to reach.
#[must_use]
pub fn goals(cpus: u32) -> String {
    if cpus > 1 {
        format!("{cpus} CPUs each; every task {SWITCHES} switches and {MIGRATIONS} moves at least")
    } else {
        format!("one CPU each; every task {SWITCHES} switches at least")
    }
}

/// How many passed, failed (or hung), were skipped.
#[must_use]
pub fn tally(runs: &[Run]) -> (usize, usize, usize) {
    let count = |is: fn(&Verdict) -> bool| runs.iter().filter(|run| is(&run.verdict)).count();
    let failed = |v: &Verdict| matches!(v, Verdict::Fail(_) | Verdict::Hung(_));
    (count(|v| *v == Verdict::Pass), count(failed), count(|v| matches!(v, Verdict::Skip(_))))
}

/// The heading of the controls' table.
#[must_use]
pub fn controls_heading(style: Style) -> String {
    let heads =
        format!("{:<16} {:<10} {:>5}  {:<6}  {}", "fault", "machine", "secs", "", "what it said");
    format!("{}\n{}\n", style.bold(&heads), style.dim(&"-".repeat(WIDTH)))
}

/// One control's lines.
#[must_use]
pub fn control(fault: Fault, run: &Run, style: Style) -> String {
    const INDENT: usize = 43;
    let (name, machine, seconds) = (fault.name(), run.job.machine.name, run.seconds);
    let (word, said) = match (&run.verdict, caught(fault, &run.verdict)) {
        (Verdict::Skip(why), _) => (style.dim("skip  "), why.clone()),
        (verdict, Ok(())) => (style.good("caught"), verdict.why().unwrap_or_default().into()),
        (_, Err(why)) => (style.bad("MISSED"), why),
    };
    let said = wrapped(&said, WIDTH - INDENT, INDENT);
    format!("{name:<16} {machine:<10} {seconds:>5.1}  {word}  {said}\n")
}
