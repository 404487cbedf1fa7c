//! The benchmark's tables on the documentation's pages: read, filled in, and drawn.
//!
//! A table of one scenario has a column for each class of tasks and a row for each way to switch. A short one, as in the
//! README, has a column for each of some scenarios, with one class of tasks. The picture is drawn from the tables, so that
//! it can be compared with the page on which it stands.

use crate::canvas::Canvas;

/// The classes of tasks, in the order of the columns.
pub const CLASSES: [&str; 6] =
    ["nothing", "SSE", "AVX", "once AVX-512", "AVX-512", "SSE in a small plan"];
/// The line of a page that names the CPU begins with this.
const MEASURED: &str = "Measured on: ";

/// One scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The scenario.
    pub scene: String,
    /// Of each way its name and a cell for each class; the first way has ticks, the others have ratios to it.
    pub rows: Vec<(String, Vec<String>)>,
}

/// All tables of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The CPU and the instruction.
    pub cpu: String,
    /// The scenarios.
    pub all: Vec<Table>,
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// The scenario of which this line begins the table.
fn begins(line: &str) -> Option<&str> {
    let cells = cells(line)?;
    (cells[1..] == CLASSES).then_some(cells[0])
}

impl Table {
    fn text(&self) -> String {
        let line = |first: &str, rest: &[&str]| format!("| {first} | {} |\n", rest.join(" | "));
        let mut out = line(&self.scene, &CLASSES) + "|---|" + &"--:|".repeat(CLASSES.len()) + "\n";
        for (way, row) in &self.rows {
            out += &line(way, &row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        out
    }
    fn cell(&self, way: &str, class: &str) -> Option<&str> {
        let at = CLASSES.iter().position(|name| *name == class)?;
        let (_, row) = self.rows.iter().find(|(name, _)| name == way)?;
        row.get(at).map(String::as_str)
    }
}

impl Tables {
    /// The tables of a page.
    #[must_use]
    pub fn of_page(page: &str) -> Self {
        let mut tables = Self::default();
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            if let Some(cpu) = line.strip_prefix(MEASURED) {
                tables.cpu = cpu.into();
            }
            let Some(scene) = begins(line) else { continue };
            let rows = lines.by_ref().skip(1).map_while(cells);
            let rows =
                rows.map(|row| (row[0].into(), row[1..].iter().map(|c| (*c).into()).collect()));
            tables.all.push(Table { scene: scene.into(), rows: rows.collect() });
        }
        tables
    }
    /// A page of nothing else.
    #[must_use]
    pub fn page(&self) -> String {
        let tables = self.all.iter().map(|table| format!("\n{}", table.text()));
        format!("{MEASURED}{}\n{}", self.cpu, tables.collect::<String>())
    }
    /// The page with these figures in the place of its own: those of each scenario that has a table here, and those of
    /// short tables, whose first cell is a class of tasks with "in use" behind.
    #[must_use]
    pub fn fill(&self, page: &str) -> String {
        let mut out = String::new();
        let mut short: Option<(String, Vec<Option<&Table>>)> = None;
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            if line.starts_with(MEASURED) {
                out += &format!("{MEASURED}{}\n", self.cpu);
                continue;
            }
            if let Some(table) = begins(line).and_then(|scene| self.named(scene)) {
                let behind = lines.by_ref().find(|line| cells(line).is_none());
                out += &table.text();
                out += behind.map_or("", |_| "\n");
                continue;
            }
            let row = cells(line);
            match (&row, &short) {
                (None, _) => short = None,
                (Some(row), None) => {
                    let class = row[0].strip_suffix(" in use").unwrap_or(row[0]);
                    short = Some((class.into(), row.iter().map(|name| self.named(name)).collect()));
                }
                (Some(row), Some((class, columns))) => {
                    let way = row[0].trim_matches('*');
                    let cell = |(old, table): (&&str, &Option<&Table>)| {
                        let new = table.and_then(|table| table.cell(way, class));
                        new.unwrap_or(old).to_owned()
                    };
                    let row: Vec<_> = row.iter().zip(columns).map(cell).collect();
                    let dashes = row.iter().all(|cell| cell.chars().all(|c| "-:".contains(c)));
                    if !dashes {
                        out += &format!("| {} |\n", row.join(" | "));
                        continue;
                    }
                }
            }
            out += line;
            out.push('\n');
        }
        out
    }
    /// The scenario whose name begins so, up to a comma at least.
    fn named(&self, scene: &str) -> Option<&Table> {
        self.all.iter().find(|table| {
            let rest = table.scene.strip_prefix(scene);
            !scene.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
        })
    }
}

const WIDTH: f64 = 1230.0;
const TOP: f64 = 150.0;
/// Of a panel: its width, the room for names in front of the plot, and that of the plot.
const PANEL: f64 = 600.0;
const NAMES: f64 = 196.0;
const PLOT: f64 = 280.0;
/// Between two ways, and between two classes of one way.
const ROW: f64 = 34.0;
const LANE: f64 = 4.6;
/// The highest ratio that has a place.
const MOST: f64 = 2.0;

const INK: &str = "#24292f";
const GREY: &str = "#6e7781";
/// Of classes; the palette of Okabe and Ito, whose colours colour-blind readers tell apart, and a grey. The classes of a
/// way stand below one another in this order, too.
const COLOURS: [&str; 6] = ["#8a8a8a", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"];

impl Canvas {
    fn grid(&mut self, left: f64, top: f64, height: f64) {
        for step in 0..=4u8 {
            let ratio = f64::from(step) / 2.0;
            let x = left + PLOT * ratio / MOST;
            let rest = match step {
                2 => format!(r#"stroke="{INK}" stroke-width="1.4""#),
                _ => r##"stroke="#d8dee4" stroke-width="1""##.into(),
            };
            self.path(&format!("M{x:.1} {top:.1}v{height:.1}"), &rest);
            let rest = format!(r#"fill="{GREY}" text-anchor="middle""#);
            self.text((x, top + height + 15.0), 10.5, &rest, &ratio.to_string());
        }
    }
    fn scene(&mut self, table: &Table, left: f64, top: f64) {
        let bold = format!(r#"fill="{INK}" font-weight="700""#);
        self.text((left, top), 13.5, &bold, &table.scene);
        let ways = table.rows.get(1..).unwrap_or_default();
        let plot = left + NAMES;
        for at in (0..ways.len()).step_by(2) {
            let place = (left - 6.0, top + 12.0 + ROW * at as f64, PANEL - 34.0, ROW);
            self.rect(place, r##"fill="#f6f8fa""##);
        }
        self.grid(plot, top + 12.0, ROW * ways.len() as f64);
        for (at, (way, cells)) in ways.iter().enumerate() {
            let middle = top + 12.0 + ROW * (at as f64 + 0.5);
            let weight = if way.starts_with("fpu-core") { "600" } else { "400" };
            let rest = format!(r#"fill="{INK}" font-weight="{weight}""#);
            self.text((left, middle + 4.0), 11.0, &rest, &way.replace('`', ""));
            let ratios: Vec<Option<f64>> = cells.iter().map(|cell| cell.parse().ok()).collect();
            for (class, ratio) in ratios.iter().enumerate() {
                let Some(ratio) = ratio else { continue };
                let x = plot + PLOT * ratio.min(MOST) / MOST;
                let y = middle + LANE * (class as f64 - 2.5);
                self.dot((x, y, 3.0), &format!(r#"fill="{}""#, COLOURS[class % COLOURS.len()]));
            }
            let known = || ratios.iter().flatten().copied();
            let (least, most) = (known().fold(f64::MAX, f64::min), known().fold(0.0, f64::max));
            if least <= most {
                let rest = format!(r#"fill="{GREY}""#);
                let range = format!("{least:.2} to {most:.2}");
                self.text((plot + PLOT + 10.0, middle + 4.0), 10.5, &rest, &range);
            }
        }
    }
}

/// The picture.
#[must_use]
pub fn document(tables: &Tables) -> String {
    // The library is one of the ways in the others.
    let all: Vec<&Table> =
        tables.all.iter().filter(|table| !table.scene.starts_with("tried")).collect();
    let height = |pair: &[&Table]| {
        let rows = pair.iter().map(|table| table.rows.len().saturating_sub(1)).max();
        ROW * rows.unwrap_or_default() as f64 + 62.0
    };
    let whole = TOP + all.chunks(2).map(height).sum::<f64>();
    let mut canvas = Canvas::new((WIDTH, whole), "");
    let bold = format!(r#"fill="{INK}" font-weight="700""#);
    let (ink, grey) = (format!(r#"fill="{INK}""#), format!(r#"fill="{GREY}""#));
    canvas.text((40.0, 36.0), 18.0, &bold, "What switching costs: ratios to the bare instructions");
    canvas.text((40.0, 58.0), 12.0, &grey, &tables.cpu);
    let about = "First quartiles of one run. 1 is the save and the restore instruction alone; left of it is less. Models of other kernels, not those kernels.";
    canvas.text((40.0, 76.0), 12.0, &grey, about);
    canvas.text((40.0, 94.0), 12.0, &grey, "cargo bench -p fpu-examples --bench switch");
    canvas.text((40.0, 122.0), 12.0, &ink, "In use:");
    let mut at = 100.0;
    for (class, colour) in CLASSES.iter().zip(COLOURS) {
        canvas.dot((at, 118.0, 4.5), &format!(r#"fill="{colour}""#));
        canvas.text((at + 10.0, 122.0), 12.0, &ink, class);
        at += 10.0 + 7.4 * class.len() as f64 + 24.0;
    }
    let mut top = TOP + 8.0;
    for pair in all.chunks(2) {
        for (column, table) in pair.iter().enumerate() {
            canvas.scene(table, 40.0 + PANEL * column as f64, top);
        }
        top += height(pair);
    }
    canvas.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "Text.\nMeasured on: a CPU\n\n\
        | two tasks, a switch | nothing | SSE | AVX | once AVX-512 | AVX-512 | SSE in a small plan |\n\
        |---|--:|--:|--:|--:|--:|--:|\n\
        | bare instructions | 1 | 2 | 3 | 4 | 5 | 6 |\n\
        | ours | 1.001 | 1.002 | 1.003 | 1.004 | 1.005 | - |\n\nMore.\n";
    const SHORT: &str = "| AVX in use | how | two tasks |\n|---|---|--:|\n\
        | bare instructions | - | 0 |\n| **ours** | well | 0 |\n| theirs | badly | 7 |\n\nEnd.\n";

    #[test]
    fn a_page_is_read_and_filled() {
        let tables = Tables::of_page(PAGE);
        assert_eq!((tables.cpu.as_str(), tables.all.len()), ("a CPU", 1));
        assert_eq!(tables.all[0].cell("ours", "AVX"), Some("1.003"));
        assert_eq!(tables.fill(PAGE), PAGE, "nothing changes");
        assert_eq!(Tables::of_page(&tables.page()), tables);
        let other = PAGE.replace("1.003", "9").replace("a CPU", "another");
        assert_eq!(Tables::of_page(&other).fill(PAGE), other);
        let short = SHORT.replace("| - | 0", "| - | 3").replace("well | 0", "well | 1.003");
        assert_eq!(tables.fill(SHORT), short, "a way that was not measured stays");
    }

    #[test]
    fn a_picture_has_a_dot_for_each_ratio() {
        let picture = document(&Tables::of_page(PAGE));
        let dots = |radius: &str| picture.matches(&format!(r#"r="{radius}""#)).count();
        assert_eq!((dots("4.5"), dots("3")), (CLASSES.len(), 5), "the legend, and ours");
        assert!(picture.contains("1.00 to 1.00") && picture.contains("a CPU"));
    }
}
