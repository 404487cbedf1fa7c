//! The table, for people: 100 columns or a narrower form, colour only where it is wanted.

use std::{ffi::OsStr, io::IsTerminal};

use crate::{
    run::{Kernel, Machine, Mismatch},
    script::Script,
    stats::{Counts, Piece, Samples},
    terminal,
    world::Setup,
};

/// The table's width.
pub const WIDTH: usize = 100;

/// One kernel's part of a row.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Counts.
    pub counts: Counts,
    /// Cycles.
    pub samples: Samples,
}

impl Side {
    /// Cycles per switch, or 0 without any.
    #[must_use]
    pub fn per_switch(&self, switches: u64, overhead: u32) -> u64 {
        let total = self.samples.total(overhead);
        (total + switches / 2).checked_div(switches).unwrap_or(0)
    }
}

/// One scenario's figures.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The scenario's name.
    pub name: &'static str,
    /// The scenario's name in JSON.
    pub id: &'static str,
    /// Switches, the same for both kernels.
    pub switches: u64,
    /// Migrations, the same for both.
    pub migrations: u64,
    /// The number of runs of the script by each kernel.
    pub runs: u64,
    /// The kernel under test.
    pub deferred: Side,
    /// The eager kernel.
    pub eager: Side,
}

impl Row {
    /// Cycles of the eager kernel by those of the kernel on `fpu-core`.
    #[must_use]
    pub fn ratio(&self, overhead: u32) -> f64 {
        let deferred = self.deferred.samples.total(overhead).max(1);
        self.eager.samples.total(overhead) as f64 / deferred as f64
    }
    /// The sum of rows.
    #[must_use]
    pub fn total(rows: &[Self]) -> Self {
        let mut total = Self { name: "total", id: "total", ..Self::default() };
        for row in rows {
            total.switches += row.switches;
            total.migrations += row.migrations;
            for (all, one) in [(&mut total.deferred, &row.deferred), (&mut total.eager, &row.eager)]
            {
                all.counts.add(one.counts);
                all.samples.merge(&one.samples);
            }
        }
        total
    }
    /// Of a script that has not run yet.
    #[must_use]
    pub fn new(name: &'static str, id: &'static str, script: &Script) -> Self {
        let (switches, migrations) = (script.switches, script.migrations);
        Self { name, id, switches, migrations, ..Self::default() }
    }
    /// Returns to user mode in all runs under both kernels.
    #[must_use]
    pub fn checked<'r>(rows: impl IntoIterator<Item = &'r Self>) -> u64 {
        rows.into_iter()
            .map(|r| r.runs * (r.deferred.counts.returns + r.eager.counts.returns))
            .sum()
    }
}

/// Escape sequences, or nothing; and how wide a line may be.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colour: bool,
    columns: usize,
}

impl Style {
    /// Colour on a terminal, unless `NO_COLOR` is set to something or the terminal knows no sequences.
    #[must_use]
    pub fn detect() -> Self {
        let is = |name, what: fn(&OsStr) -> bool| std::env::var_os(name).is_some_and(|v| what(&v));
        let refused = is("NO_COLOR", |value| !value.is_empty());
        let dumb = is("TERM", |value| value == "dumb");
        let colour = std::io::stdout().is_terminal() && !refused && !dumb;
        Self { colour, columns: terminal::columns() }
    }
    /// Without colour, as wide as it gets.
    #[must_use]
    pub fn plain() -> Self {
        Self::of(usize::MAX)
    }
    /// Without colour, in so many columns.
    #[must_use]
    pub fn of(columns: usize) -> Self {
        Self { colour: false, columns }
    }
    /// Tells whether a table of this width has room.
    #[must_use]
    pub fn has(self, width: usize) -> bool {
        width <= self.columns
    }
    /// Columns of a line that has at most so many.
    #[must_use]
    pub fn width(self, most: usize) -> usize {
        self.columns.min(most)
    }
    /// Lines that are too long, broken.
    #[must_use]
    pub fn fold(self, text: &str) -> String {
        terminal::fold(text, self.columns)
    }
    /// Figures of a table that is too wide, each behind what it is.
    #[must_use]
    pub fn figures(self, figures: &[(&str, String)]) -> String {
        terminal::figures(figures, self.columns)
    }
    fn wrap(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
    /// The style of headings and totals.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }
    /// The style of less important text.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }
    /// The style of good results.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }
    /// The style of bad results.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }
}

/// The processor's name, as the system knows it.
#[must_use]
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": ")).map_or("x86-64", |(_, name)| name);
    name.trim().to_owned()
}

/// The machine that the demo runs on, in two lines.
#[must_use]
pub fn heading(machine: &Machine, setup: &Setup, tasks: usize) -> String {
    let [first, second] = machine.cores;
    let cpus = if machine.shared() {
        format!("both CPUs on core {first}, the only one this process may use")
    } else {
        format!("CPUs 0 and 1 on cores {first} and {second}")
    };
    format!(
        "{}: {}\n{}, {} bytes an area; {cpus}; {tasks} tasks; seed {}",
        cpu_name(),
        setup.classes.describe(),
        format!("{:?}64", setup.plan.save_instruction()).to_uppercase(),
        setup.plan.area_len(),
        setup.seed
    )
}

/// A ratio in at most five columns.
fn times(ratio: f64) -> String {
    let mut texts = [2, 1, 0].into_iter().map(|digits| format!("{ratio:.digits$}x"));
    texts.find(|text| text.len() <= 5).unwrap_or_else(|| ">999x".into())
}

fn line(row: &Row, overhead: u32) -> String {
    let (deferred, eager) = (row.deferred.counts, row.eager.counts);
    format!(
        "{:<22}{:>9}{:>8} {:>7}{:>9}{:>8} {:>8}{:>9} {:>5}{:>6}{:>6}",
        row.name,
        row.switches,
        deferred.returns,
        deferred.saves,
        deferred.restores,
        deferred.skipped,
        eager.saves,
        eager.restores,
        row.deferred.per_switch(row.switches, overhead),
        row.eager.per_switch(row.switches, overhead),
        times(row.ratio(overhead)),
    )
}

/// A row where the table is too wide: its figures in a few lines below its name.
fn record(row: &Row, overhead: u32, style: Style) -> String {
    let (deferred, eager) = (row.deferred.counts, row.eager.counts);
    let cycles = |side: &Side| side.per_switch(row.switches, overhead).to_string();
    let lines: [&[(&str, String)]; 4] = [
        &[("switches", row.switches.to_string()), ("returns", deferred.returns.to_string())],
        &[
            ("fpu-core: saves", deferred.saves.to_string()),
            ("restores", deferred.restores.to_string()),
            ("skipped", deferred.skipped.to_string()),
        ],
        &[("eager: saves", eager.saves.to_string()), ("restores", eager.restores.to_string())],
        &[
            ("cycles a switch: fpu-core", cycles(&row.deferred)),
            ("eager", cycles(&row.eager)),
            ("ratio", times(row.ratio(overhead))),
        ],
    ];
    let figures = lines.map(|figures| style.figures(figures));
    format!("{}\n{}", row.name, figures.concat())
}

/// The table with its total; on a terminal of few columns without columns of its own.
#[must_use]
pub fn table(rows: &[Row], overhead: u32, style: Style) -> String {
    if !style.has(WIDTH) {
        let mut text: String = rows.iter().map(|row| record(row, overhead, style)).collect();
        text += &style.bold(record(&Row::total(rows), overhead, style).trim_end());
        return text + "\n";
    }
    let groups = format!(
        "{:<39} {:^24} {:^17} {:>17}",
        "", "----- fpu-core -----", "-- eager --", "cycles a switch"
    );
    let heads = format!(
        "{:<22}{:>9}{:>8} {:>7}{:>9}{:>8} {:>8}{:>9} {:>5}{:>6}{:>6}",
        "scenario",
        "switches",
        "returns",
        "saves",
        "restores",
        "skipped",
        "saves",
        "restores",
        "core",
        "eager",
        "ratio"
    );
    let rule = "-".repeat(heads.len());
    let mut text = style.dim(groups.trim_end()) + "\n" + &style.bold(&heads) + "\n" + &rule + "\n";
    for row in rows {
        text += &(line(row, overhead) + "\n");
    }
    text + &rule + "\n" + &style.bold(&line(&Row::total(rows), overhead)) + "\n"
}

/// The row of the bound context, which is not in the total, in the table's columns.
#[must_use]
pub fn bound(row: &Row, overhead: u32, style: Style) -> String {
    let figures = match style.has(WIDTH) {
        true => line(row, overhead) + "\n",
        false => record(row, overhead, style),
    };
    let about = "Bound to its CPU, a context is saved only when other code needs the registers:";
    format!("{}\n{figures}", style.dim(about))
}

/// The cost of the pieces, over all scenarios.
#[must_use]
pub fn pieces(rows: &[Row], overhead: u32) -> String {
    let total = Row::total(rows);
    let mut list = Vec::new();
    for (name, piece) in [
        ("restore", Piece::Restore),
        ("skipped restore", Piece::Skip),
        ("save", Piece::OutSave),
        ("nothing due", Piece::OutNothing),
    ] {
        if let Some((_, median)) = total.deferred.samples.min_and_median(piece, overhead) {
            // A piece that is as short as a pair of stamps has no figure.
            let figure = if median == 0 { format!("< {overhead}") } else { median.to_string() };
            list.push(format!("{name} {figure}"));
        }
    }
    let most = rows.iter().map(|row| row.runs).max().unwrap_or(0);
    format!(
        "Switches: a CPU changes what it runs. Returns: to user mode, to a guest. Skipped: no restore needed.\n\
         Ratio: the eager kernel's cycles by those of the kernel on fpu-core. Above 1 fpu-core wins; below,\n\
         as where no restore can be skipped, its bookkeeping costs more than it saves.\n\
         Counts are of one run of {most}; cycles of the fastest: TSC, bookkeeping included, {overhead} of measuring\n\
         subtracted, without the slowest 5 %.\nMedians: {}.",
        list.join(", ")
    )
}

/// A mismatch, in full.
#[must_use]
pub fn mismatch(found: &Mismatch, kernel: Kernel, style: Style) -> String {
    let reborn = match found.generation {
        0 => String::new(),
        n => format!(" (number {} in its memory)", n + 1),
    };
    let place = format!(
        "task {}{reborn} on CPU {}, scenario \"{}\", step {}, {}",
        found.task,
        found.cpu,
        found.scenario,
        found.step,
        match kernel {
            Kernel::Deferred(None) => "kernel on fpu-core".into(),
            Kernel::Deferred(Some(fault)) => format!("kernel broken by {}", fault.name()),
            Kernel::Bound => "kernel on fpu-core, bound context".into(),
            Kernel::Eager => "eager kernel".into(),
        }
    );
    let mut text = format!("{} {place}\n", style.bad("MISMATCH"));
    if let Some((register, expected, seen)) = found.register {
        text += &format!(
            "  register {register}\n  expected {expected:#018x}\n  seen     {seen:#018x}\n"
        );
    }
    if let Some(refused) = found.refused {
        text += &format!("  fpu-core refused: {refused}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_leaves_a_blank_before_it() {
        let of = [0.98, 9.994, 9.996, 23.14, 99.96, 231.4, 1e6].map(times);
        assert_eq!(of, ["0.98x", "9.99x", "10.0x", "23.1x", "100x", "231x", ">999x"]);
    }

    #[test]
    fn a_ratio_above_one_is_in_favour_of_the_kernel_under_test() {
        let mut row = Row { switches: 4, ..Row::default() };
        for _ in 0..4 {
            row.deferred.samples.add(Piece::Skip, 110);
            row.eager.samples.add(Piece::Restore, 260);
            row.eager.samples.add(Piece::OutSave, 160);
        }
        // 4 of 100, and 4 of 250 and 150, after 10 cycles of measuring each.
        assert_eq!(row.ratio(10), 4.0);
        assert_eq!((row.deferred.per_switch(4, 10), row.eager.per_switch(4, 10)), (100, 400));
        let swapped =
            Row { deferred: row.eager.clone(), eager: row.deferred.clone(), ..row.clone() };
        assert_eq!(swapped.ratio(10), 0.25);
        assert_eq!(Row::total(&[row, swapped]).ratio(10), 1.0);
    }
}
