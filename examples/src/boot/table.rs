//! The tables, for people: 118 columns, or a narrower form.

use crate::{report::Style, xstate::show::wrapped};

use super::{
    faults::Fault,
    judge::Verdict,
    params::{Params, MIGRATIONS, SWITCHES},
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
        "{machine:<11} {on:<5} {rung:<8} {xcr0:>7} {xss:>6}  {switches:>8} {moves:>7}  {sections:>8} {busy:>7}  \
         {saves:>8} {restores:>8} {skipped:>7} {wrong:>7} {seconds:>5}"
    )
}

/// The heading of the machines' table.
#[must_use]
pub fn heading(style: Style) -> String {
    if !style.has(WIDTH) {
        return String::new();
    }
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

/// One line of the table of recorded words.
fn words_cells(cells: [&str; 10]) -> String {
    let [words, machine, rung, xcr0, xss, quirks, switches, checks, wrong, seconds] = cells;
    format!(
        "{words:<24} {machine:<11} {rung:<8} {xcr0:>7} {xss:>6}  {quirks:>6}  {switches:>8}  {checks:>8} {wrong:>10} \
         {seconds:>5}"
    )
}

/// The heading of the table of recorded words.
#[must_use]
pub fn words_heading(style: Style) -> String {
    if !style.has(WIDTH) {
        return String::new();
    }
    let heads = words_cells([
        "CPUID says",
        "on",
        "rung",
        "XCR0",
        "XSS",
        "quirks",
        "switches",
        "checks",
        "mismatches",
        "secs",
    ]);
    format!("{}\n{}\n", style.bold(&heads), style.dim(&"-".repeat(heads.len())))
}

/// The figures where the table is too wide: some lines below the machine's name.
fn narrow(run: &Run, report: &Report, style: Style) -> String {
    let counts = &report.counts;
    let name = format!("{} {}", run.job.machine.name, run.job.machine.emulator.name());
    let name = match run.job.params.cpuid {
        Some(recorded) => style.fold(&format!("{} on {name}", recorded.name)),
        None => name,
    };
    let or_none = |word: &Option<String>| word.as_deref().unwrap_or("-").to_owned();
    let lines: [&[(&str, String)]; 4] = [
        &[
            ("rung", report.rung.to_uppercase()),
            ("XCR0", or_none(&report.xcr0)),
            ("XSS", xss(report).to_owned()),
            ("quirks", report.quirks.len().to_string()),
        ],
        &[
            ("switches", counts.switches.to_string()),
            ("moves", counts.migrations.to_string()),
            ("in interrupts: sections", counts.irq_sections.to_string()),
            ("refused", counts.busy.to_string()),
        ],
        &[
            ("saves", counts.saves.to_string()),
            ("restores", counts.restores.to_string()),
            ("skipped", counts.skipped.to_string()),
        ],
        &[
            ("checks", counts.checks.to_string()),
            ("mismatches", counts.mismatches.to_string()),
            ("secs", format!("{:.1}", run.seconds)),
        ],
    ];
    let lines = lines.map(|figures| style.figures(figures)).concat();
    format!("{name}\n{}", lines.trim_end())
}

/// The name in front of a line.
fn label(run: &Run) -> (String, usize) {
    let machine = run.job.machine.name;
    match run.job.params.cpuid {
        None => (format!("{machine:<11} {:<5} ", run.job.machine.emulator.name()), 18),
        Some(recorded) => (format!("{:<24} {machine:<11} ", shortened(&recorded.name, 24)), 37),
    }
}

/// The components that the kernel enables in `IA32_XSS`; empty without XSAVE.
fn xss(report: &Report) -> &str {
    report.xss.as_deref().filter(|_| report.xcr0.is_some()).unwrap_or("-")
}

fn figures(run: &Run, report: &Report, style: Style) -> String {
    if !style.has(WIDTH) {
        return narrow(run, report, style);
    }
    let counts = &report.counts;
    let number = |count: u64| count.to_string();
    if let Some(recorded) = run.job.params.cpuid {
        return words_cells([
            &shortened(&recorded.name, 24),
            run.job.machine.name,
            &report.rung.to_uppercase(),
            report.xcr0.as_deref().unwrap_or("-"),
            xss(report),
            &report.quirks.len().to_string(),
            &number(counts.switches),
            &number(counts.checks),
            &number(counts.mismatches),
            &format!("{:.1}", run.seconds),
        ]);
    }
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
        xss(report),
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
    style.fold(&unfolded(run, style))
}

fn unfolded(run: &Run, style: Style) -> String {
    let (label, indent) = match style.has(WIDTH) {
        true => label(run),
        false => (format!("{} ", label(run).0.trim_end()), 2),
    };
    let said = |word: &str, why: &str| match style.has(WIDTH) {
        true => wrapped(&format!("{word} {why}"), WIDTH - indent, indent),
        false => format!("{word} {why}"),
    };
    match (&run.verdict, &run.report) {
        (Verdict::Pass, Some(report)) => figures(run, report, style) + "\n",
        (Verdict::Skip(why), _) => style.dim(&(label + &said("skipped:", why))) + "\n",
        (verdict, report) => {
            let word = if matches!(verdict, Verdict::Hung(_)) { "HUNG:" } else { "FAILED:" };
            let why = said(word, verdict.why().unwrap_or("no reason given"));
            match report {
                None => style.bad(&(label + &why)) + "\n",
                Some(report) => {
                    let why = style.bad(&format!("{:indent$}{why}", ""));
                    format!("{}\n{why}\n", figures(run, report, style))
                }
            }
        }
    }
}

/// The totals.
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

/// The outcome of a seeded fault on each machine, one a line.
#[must_use]
pub fn noticed(runs: &[Run], style: Style) -> String {
    let ran = runs.iter().filter(|run| !matches!(run.verdict, Verdict::Skip(_)));
    let line = |run: &Run| {
        let name = run.job.machine.name;
        Some(match run.caught()? {
            Ok(()) => style.good(&format!("\n{name}: the seeded fault was noticed, as it must be")),
            Err(_) => {
                style.bad(&format!("\n{name}: the seeded fault was not noticed as it must be"))
            }
        })
    };
    ran.filter_map(line).collect()
}

/// Bytes of areas where there are two sizes, one machine a line.
#[must_use]
pub fn areas(runs: &[Run]) -> String {
    let line = |run: &Run| {
        let (name, report) = (run.job.machine.name, run.report.as_ref()?);
        let (area, with) = (report.area, report.area_with_tiles?);
        Some(format!("\n{name}: {area} bytes an area, {with} with tiles"))
    };
    runs.iter().filter_map(line).collect()
}

/// The goals of each machine.
#[must_use]
pub fn goals(params: &Params) -> String {
    let Params { cpus, seed, .. } = params;
    let (seed, rung) = match params.rung {
        Some(rung) => (seed, format!("; saved with {}", rung.to_uppercase())),
        None => (seed, String::new()),
    };
    if *cpus > 1 {
        format!(
            "{cpus} CPUs each; every task is switched {SWITCHES} times and moved {MIGRATIONS} times at \
             least; seed {seed}{rung}"
        )
    } else {
        format!("one CPU each; every task is switched {SWITCHES} times at least; seed {seed}{rung}")
    }
}

/// The numbers of runs that passed, failed (or hung), were skipped.
#[must_use]
pub fn tally(runs: &[Run]) -> (usize, usize, usize) {
    let count = |is: fn(&Verdict) -> bool| runs.iter().filter(|run| is(&run.verdict)).count();
    let failed = |v: &Verdict| matches!(v, Verdict::Fail(_) | Verdict::Hung(_));
    (count(|v| *v == Verdict::Pass), count(failed), count(|v| matches!(v, Verdict::Skip(_))))
}

/// The heading of the controls' table.
#[must_use]
pub fn controls_heading(style: Style) -> String {
    if !style.has(WIDTH) {
        return String::new();
    }
    let heads = format!("{:<16} {:<11} {:>4}  {}", "seeded fault", "machine", "secs", "caught by");
    format!("{}\n{}\n", style.bold(&heads), style.dim(&"-".repeat(WIDTH)))
}

/// One control's lines. What was caught is on one line, if need be without its end, which is a number.
#[must_use]
pub fn control(fault: Fault, run: &Run, style: Style) -> String {
    const INDENT: usize = 35;
    let (name, machine, seconds) = (fault.name(), run.job.machine.name, run.seconds);
    let whole = |why: &str| match style.has(WIDTH) {
        true => wrapped(why, WIDTH - INDENT, INDENT),
        false => why.to_owned(),
    };
    let said = match (&run.verdict, run.caught()) {
        (Verdict::Skip(why), _) => style.dim(&whole(&format!("skipped: {why}"))),
        (_, Some(Err(why))) => style.bad(&whole(&format!("MISSED: {why}"))),
        (verdict, _) => shortened(verdict.why().unwrap_or_default(), WIDTH - INDENT),
    };
    if !style.has(WIDTH) {
        return style.fold(&format!("{name} on {machine}, {seconds:.1} s\n  {said}\n"));
    }
    format!("{name:<16} {machine:<11} {seconds:>4.1}  {said}\n")
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    text.chars().take(width - 2).chain("..".chars()).collect()
}
