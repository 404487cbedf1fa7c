//! The figures, for people and for programs.

use std::fmt::Write as _;

use fpu_examples::ratios::{Table, Tables, CLASSES};
use fpu_x86::Plan;
use serde_json::json;

use crate::{BARE, SKIPPED};

/// One way in one scenario, for one class of tasks.
pub struct Line {
    pub class: &'static str,
    pub scene: &'static str,
    pub way: &'static str,
    /// Ticks: the minimum, the first quartile, the median.
    pub ticks: [f64; 3],
}

impl Line {
    /// Of the ticks of rows, each of so many units.
    pub fn new(
        class: &'static str,
        scene: &'static str,
        way: &'static str,
        mut rows: Vec<u64>,
        units: f64,
    ) -> Self {
        rows.sort_unstable();
        let at = |numerator: usize| {
            rows.get(rows.len() * numerator / 4).map_or(f64::NAN, |ticks| *ticks as f64 / units)
        };
        Self { class, scene, way, ticks: [at(0), at(1), at(2)] }
    }
}

/// All of a run.
pub struct Report {
    cpu: String,
    /// The CPU and the instruction, for a page.
    measured: String,
    plan: String,
    pub lines: Vec<Line>,
    /// What was not measured, and why.
    pub skipped: Vec<String>,
}

impl Report {
    pub fn new(plan: &Plan) -> Self {
        let cpuid = raw_cpuid::CpuId::new();
        let brand = cpuid.get_processor_brand_string();
        let cpu =
            brand.map_or("a CPU without name".into(), |brand| brand.as_str().trim().to_owned());
        let model = cpuid.get_feature_info().map_or(String::new(), |info| {
            format!(", family {:x}h, model {:x}h", info.family_id(), info.model_id())
        });
        let instruction = format!("{:?}", plan.save_instruction()).to_uppercase();
        let measured = format!("{cpu}{model}, {instruction}");
        let plan = format!("{:?}64, {:?}", plan.save_instruction(), plan.components())
            .to_uppercase()
            .replace("COMPONENTS", "");
        Self { cpu, measured, plan, lines: Vec::new(), skipped: Vec::new() }
    }
    /// The bare instructions of the same class and scenario.
    fn bare(&self, line: &Line) -> Option<&Line> {
        self.lines
            .iter()
            .find(|bare| (bare.class, bare.scene, bare.way) == (line.class, line.scene, BARE))
    }
    /// For pages: of bare instructions the ticks, of others the ratios, with fewer digits where threads hand over a task.
    pub fn tables(&self) -> Tables {
        let mut all: Vec<Table> = Vec::new();
        for line in &self.lines {
            let Some(class) = CLASSES.iter().position(|class| *class == line.class) else {
                continue;
            };
            // Their page has a table of its own, with a class more.
            if SKIPPED.contains(&line.scene) {
                continue;
            }
            let at = all.iter().position(|table| table.scene == line.scene).unwrap_or_else(|| {
                all.push(Table { scene: line.scene.into(), rows: Vec::new() });
                all.len() - 1
            });
            let rows = &mut all[at].rows;
            let at = rows.iter().position(|(way, _)| way == line.way).unwrap_or_else(|| {
                rows.push((line.way.into(), vec!["-".into(); CLASSES.len()]));
                rows.len() - 1
            });
            let digits = if line.scene == crate::moved::SCENE { 2 } else { 3 };
            rows[at].1[class] = match self.bare(line) {
                Some(bare) if line.way != BARE => {
                    format!("{:.digits$}", line.ticks[1] / bare.ticks[1])
                }
                _ => format!("{:.0}", line.ticks[1]),
            };
        }
        Tables { cpu: self.measured.clone(), all }
    }
    pub fn text(&self) -> String {
        let mut out = format!("{}; {}\nticks of the time-stamp counter; x: ratio to the bare instructions, of the first quartiles\nno register changes between a restore and the next save, which is the best case of XSAVEOPT\n", self.cpu, self.plan);
        let mut head = ("", "");
        for line in &self.lines {
            if head != (line.class, line.scene) {
                head = (line.class, line.scene);
                let _ = writeln!(
                    out,
                    "\n{:<40}{:>9}{:>9}{:>9}{:>8}",
                    format!("{}: {}", line.class, line.scene),
                    "least",
                    "quarter",
                    "median",
                    "x"
                );
            }
            let ratio = self.bare(line).map_or(f64::NAN, |bare| line.ticks[1] / bare.ticks[1]);
            let [least, quarter, median] = line.ticks;
            let _ = writeln!(
                out,
                "  {:<38}{least:>9.1}{quarter:>9.1}{median:>9.1}{ratio:>8.3}",
                line.way
            );
        }
        for why in &self.skipped {
            let _ = writeln!(out, "\nnot measured: {why}");
        }
        out
    }
    pub fn json(&self) -> String {
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| {
                let [least, quarter, median] = line.ticks;
                json!({
                    "class": line.class, "scenario": line.scene, "way": line.way,
                    "least": least, "first_quartile": quarter, "median": median,
                    "ratio": self.bare(line).map(|bare| quarter / bare.ticks[1]),
                })
            })
            .collect();
        let all = json!({ "cpu": self.cpu, "plan": self.plan, "lines": lines, "not_measured": self.skipped });
        format!("{all:#}\n")
    }
}
