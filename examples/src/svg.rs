//! The picture: one panel a scenario, one lane a CPU.

use crate::{
    canvas::Canvas,
    scenarios::Scenario,
    script::NO_TASK,
    stats::Counts,
    timeline::{Content, Mark, Timeline, STEPS},
};

const WIDTH: f64 = 1360.0;
const LEFT: f64 = 72.0;
const STEP: f64 = 21.6;
const PANEL: f64 = 150.0;
const TOP: f64 = 172.0;
/// Of a lane: the strip of what runs, and the band of what the registers hold.
const STRIP: f64 = 10.0;
const BAND: f64 = 22.0;
const LANE: f64 = 52.0;

/// Of tasks; the palette of Okabe and Ito, whose colours colour-blind readers tell apart, and two greys.
const COLOURS: [&str; 8] =
    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a8a", "#404040"];
/// Of saves and of restores; they differ in lightness too, so that they differ in print.
const SAVES: &str = "#d55e00";
const RESTORES: &str = "#003f66";
const INK: &str = "#24292f";
const GREY: &str = "#6e7781";

/// One scenario's picture.
pub struct Panel {
    name: &'static str,
    about: &'static str,
    timeline: Timeline,
    counts: [Counts; 2],
}

impl Panel {
    /// Makes the picture from the log; the counts are those of the kernel under test and of the eager one.
    #[must_use]
    pub fn new(scenario: &Scenario, flags: &[u32], counts: [Counts; 2]) -> Self {
        let timeline = Timeline::new(&scenario.script.ops, flags);
        Self { name: scenario.name, about: scenario.about, timeline, counts }
    }
}

fn colour(task: u8) -> &'static str {
    COLOURS[usize::from(task) % COLOURS.len()]
}
/// Dark on light colours, white on dark ones.
fn label_on(task: u8) -> &'static str {
    match colour(task) {
        "#0072b2" | "#8a8a8a" | "#404040" | "#d55e00" => "#ffffff",
        _ => INK,
    }
}
fn x(at: f64) -> f64 {
    LEFT + at * STEP
}

impl Canvas {
    fn content(&mut self, place: (f64, f64, f64, f64), content: Content) {
        match content {
            Content::Live(t) => self.rect(place, &format!(r#"fill="{}""#, colour(t))),
            Content::Resident(t) => {
                self.rect(place, &format!(r#"fill="{}" fill-opacity="0.30""#, colour(t)));
            }
            Content::Stale(t) => {
                self.rect(place, &format!(r#"fill="{}" fill-opacity="0.10""#, colour(t)));
                self.rect(place, r#"fill="url(#stale)""#);
            }
            Content::Section => self.rect(place, r##"fill="#57606a""##),
            Content::Nobody => self.rect(place, r##"fill="#eef0f2""##),
        }
        let (px, py, w, h) = place;
        let label = match content {
            Content::Live(t) | Content::Resident(t) if w > 15.0 => Some(t),
            _ => None,
        };
        if let Some(t) = label {
            let live = matches!(content, Content::Live(_));
            let fill = if live { label_on(t) } else { INK };
            let rest = format!(r#"fill="{fill}" text-anchor="middle" font-weight="600""#);
            self.text((px + w / 2.0, py + h / 2.0 + 4.0), 11.0, &rest, &format!("T{t}"));
        }
    }

    /// A restore points up into the registers, a save down out of them.
    fn mark(&mut self, at: f64, band: f64, mark: Mark) {
        let below = band + BAND;
        let small = r#"text-anchor="middle" font-weight="600""#;
        let ink = format!(r#"fill="{INK}" {small}"#);
        match mark {
            Mark::Restore => {
                let d = format!("M{:.1} {:.1}l-4.2 8h8.4z", at + 4.0, below + 1.5);
                self.path(&d, &format!(r#"fill="{RESTORES}""#));
            }
            Mark::Save => {
                let d = format!("M{:.1} {:.1}l-4.2 -8h8.4z", at - 4.0, below + 9.5);
                self.path(&d, &format!(r#"fill="{SAVES}""#));
            }
            Mark::Skip => {
                let rest = format!(r##"fill="#ffffff" stroke="{RESTORES}" stroke-width="1.8""##);
                self.dot((at + 4.0, below + 5.5, 3.6), &rest);
            }
            Mark::Exit => self.text((at, band - STRIP + 4.0), 9.5, &ink, "exit"),
            Mark::New(t) => {
                let rest = format!(r#"fill="{}" {small}"#, colour(t));
                self.text((at, band - STRIP + 4.0), 9.5, &rest, &format!("new T{t}"));
            }
            Mark::Write(t) => {
                let rest = format!(r#"fill="{}" {small}"#, colour(t));
                self.text((at, band - STRIP + 4.0), 9.5, &rest, &format!("write T{t}"));
            }
            Mark::Fork(t) => {
                let rest = format!(r#"fill="{}" {small}"#, colour(t));
                self.text((at, band - STRIP + 4.0), 9.5, &rest, &format!("fork T{t}"));
            }
        }
    }

    fn panel(&mut self, panel: &Panel, top: f64) {
        let bold = format!(r#"fill="{INK}" font-weight="700""#);
        let grey = format!(r#"fill="{GREY}""#);
        self.text((LEFT, top), 14.0, &bold, panel.name);
        let after = LEFT + 8.6 * panel.name.len() as f64 + 10.0;
        self.text((after, top), 12.0, &grey, panel.about);
        let band = |cpu: usize| top + 14.0 + STRIP + 6.0 + cpu as f64 * LANE;
        for cpu in 0..2 {
            let rest = format!(r#"fill="{INK}" text-anchor="end""#);
            self.text((LEFT - 8.0, band(cpu) + 15.0), 12.0, &rest, &format!("CPU {cpu}"));
            self.rect((LEFT, band(cpu), STEPS * STEP, BAND), r##"fill="#eef0f2""##);
        }
        for span in &panel.timeline.spans {
            let place = (x(span.from), band(span.cpu), (span.to - span.from) * STEP, BAND);
            self.content(place, span.content);
        }
        for runs in &panel.timeline.runs {
            let (from, w) = (x(runs.from), (runs.to - runs.from) * STEP);
            let strip = band(runs.cpu) - STRIP;
            if runs.task != NO_TASK {
                let rest = format!(r#"fill="{}""#, colour(runs.task));
                self.rect((from, strip + 6.0, w, 3.0), &rest);
            }
            // In the strip of the same thing before, one label is enough.
            let repeated = panel.timeline.runs.iter().any(|before| {
                before.cpu == runs.cpu
                    && before.label == runs.label
                    && (before.to - runs.from).abs() < 1e-6
            });
            if !runs.label.is_empty() && w > 20.0 && !repeated {
                let rest = format!(r#"fill="{GREY}" text-anchor="middle""#);
                self.text((from + w / 2.0, strip + 5.0), 8.5, &rest, runs.label);
            }
        }
        for (old, left, arrived, task) in &panel.timeline.moves {
            let (x0, x1) = (x(*left), x(*arrived));
            let (y0, y1) = match old {
                0 => (band(0) + BAND, band(1)),
                _ => (band(1), band(0) + BAND),
            };
            let bend = (x1 - x0).max(12.0) * 0.5;
            let d = format!(
                "M{x0:.1} {y0:.1}C{:.1} {y0:.1} {:.1} {y1:.1} {x1:.1} {y1:.1}",
                x0 + bend,
                x1 - bend
            );
            let c = colour(*task);
            self.path(
                &d,
                &format!(r#"fill="none" stroke="{c}" stroke-width="1.6" stroke-dasharray="4 2.5""#),
            );
            self.dot((x1, y1, 2.6), &format!(r#"fill="{c}""#));
        }
        for (cpu, at, mark) in &panel.timeline.marks {
            self.mark(x(*at), band(*cpu), *mark);
        }
        self.bars(panel, top);
    }

    /// Saves and restores of the whole scenario, beside the eager kernel's.
    fn bars(&mut self, panel: &Panel, top: f64) {
        let left = x(STEPS) + 24.0;
        let room = WIDTH - left - 24.0;
        let [deferred, eager] = panel.counts;
        let scale = room / (eager.saves + eager.restores).max(1) as f64;
        let rows = [("fpu-core", deferred), ("eager", eager)];
        for (n, (name, counts)) in rows.into_iter().enumerate() {
            let y = top + 26.0 + n as f64 * LANE;
            self.text((left, y - 6.0), 11.0, &format!(r#"fill="{INK}""#), name);
            let (saves, restores) = (counts.saves as f64 * scale, counts.restores as f64 * scale);
            self.rect((left, y, room, 11.0), r##"fill="#f3f4f6""##);
            self.rect((left, y, saves, 11.0), &format!(r#"fill="{SAVES}""#));
            self.rect((left + saves, y, restores, 11.0), &format!(r#"fill="{RESTORES}""#));
            let figures = format!("{} saves, {} restores", counts.saves, counts.restores);
            self.text((left, y + 22.0), 10.0, &format!(r#"fill="{GREY}""#), &figures);
        }
    }

    fn legend(&mut self, top: f64) {
        let ink = format!(r#"fill="{INK}""#);
        let mut at = LEFT;
        let spans = [
            (Content::Live(0), "in user mode"),
            (Content::Resident(0), "still holds the task"),
            (Content::Stale(0), "an old state: out of date"),
            (Content::Section, "kernel FPU section"),
            (Content::Nobody, "unowned"),
        ];
        for (content, label) in spans {
            self.content((at, top - 12.0, 26.0, 15.0), content);
            self.text((at + 32.0, top), 11.5, &ink, label);
            at += 32.0 + 6.4 * label.len() as f64 + 20.0;
        }
        for (mark, label) in
            [(Mark::Restore, "restore"), (Mark::Skip, "restore skipped"), (Mark::Save, "save")]
        {
            let shift = if mark == Mark::Save { 8.0 } else { 0.0 };
            self.mark(at + shift, top - 9.0 - BAND, mark);
            self.text((at + 14.0, top), 11.5, &ink, label);
            at += 14.0 + 6.4 * label.len() as f64 + 20.0;
        }
        let dash = r##"fill="none" stroke="#0072b2" stroke-width="1.6" stroke-dasharray="4 2.5""##;
        self.path(&format!("M{at:.1} {:.1}h24", top - 4.0), dash);
        self.text((at + 30.0, top), 11.5, &ink, "migration");
        // The second line: the strip above a lane, and the bars.
        let second = top + 20.0;
        let mut at = LEFT;
        for task in 0..4 {
            let rest = format!(r#"fill="{}""#, colour(task));
            self.rect((at + 7.0 * f64::from(task), second - 6.0, 6.0, 3.0), &rest);
        }
        let label = "above a lane: the task that the CPU runs, in its colour";
        self.text((at + 34.0, second), 11.5, &ink, label);
        at += 34.0 + 6.4 * label.len() as f64 + 20.0;
        for (fill, label) in [(SAVES, "bar: saves"), (RESTORES, "bar: restores")] {
            let rest = format!(r#"fill="{fill}""#);
            self.rect((at, second - 9.0, 22.0, 11.0), &rest);
            self.text((at + 28.0, second), 11.5, &ink, label);
            at += 28.0 + 6.4 * label.len() as f64 + 20.0;
        }
    }
}

/// The scenarios by what `fpu-core` leaves out of the eager kernel's saves and restores, most first.
pub fn best_first(panels: &mut [Panel]) {
    panels.sort_by_key(|panel| {
        let [ours, eager] = panel.counts.map(|counts| counts.saves + counts.restores);
        std::cmp::Reverse((eager.saturating_sub(ours) * 1000).checked_div(eager))
    });
}

/// The whole document.
#[must_use]
pub fn document(panels: &[Panel], heading: &str) -> String {
    let height = TOP + PANEL * panels.len() as f64;
    let defs = concat!(
        r##"<defs><pattern id="stale" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">"##,
        r##"<rect width="1.6" height="6" fill="#8c959f" fill-opacity="0.55"/></pattern></defs>"##
    );
    let mut canvas = Canvas::new((WIDTH, height), defs);
    let bold = format!(r#"fill="{INK}" font-weight="700""#);
    canvas.text((LEFT, 36.0), 20.0, &bold, "Whose state is in which CPU's registers");
    for (n, line) in heading.lines().enumerate() {
        let at = (LEFT, 56.0 + 16.0 * n as f64);
        canvas.text(at, 12.0, &format!(r#"fill="{GREY}""#), line);
    }
    canvas.legend(100.0);
    let note = "Time goes in steps, not cycles. Lanes show how a scenario begins, bars count all of it. The scenario that saves most is first.";
    canvas.text((LEFT, 138.0), 11.5, &format!(r#"fill="{GREY}""#), note);
    for (n, panel) in panels.iter().enumerate() {
        canvas.panel(panel, TOP + PANEL * n as f64);
    }
    canvas.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        scenarios::TASKS,
        script::{Builder, Kind},
        world::{RESTORED, SAVED, SKIPPED},
    };

    /// Shapes of restore, save and skip marks; each is once in the legend.
    fn marks(picture: &str) -> [usize; 3] {
        let restore = &format!("l-4.2 8h8.4z\" fill=\"{RESTORES}\"");
        let save = &format!("l-4.2 -8h8.4z\" fill=\"{SAVES}\"");
        let skip = &format!("fill=\"#ffffff\" stroke=\"{RESTORES}\"");
        [restore, save, skip].map(|shape| picture.matches(shape).count() - 1)
    }

    #[test]
    fn every_mark_is_drawn_and_in_the_legend() {
        let mut b = Builder::new(TASKS);
        b.switch_to(0, 2).user(0).idle(0).switch_to(0, 2).user(0).section(0).user(0);
        b.idle(0).switch_to(1, 2).user(1);
        let script = b.finish();
        let flag = |due, bit| if due { bit } else { 0 };
        let flags: Vec<u32> = script
            .ops
            .iter()
            .map(|op| {
                let due = op.due;
                flag(due.restore, RESTORED) | flag(due.skip, SKIPPED) | flag(due.save, SAVED)
            })
            .collect();
        let scenario = Scenario {
            name: "small",
            id: "small",
            about: "known",
            script,
            least_skipped: 0,
            least_migrations: 0,
            least_of: (Kind::User, 0),
        };
        let panel = Panel::new(&scenario, &flags, [Counts::default(); 2]);
        let picture = document(&[panel], "heading");
        // Loaded, found, loaded after the section, loaded elsewhere; saved at each switch and by the
        // section.
        assert_eq!(marks(&picture), [3, 4, 1]);
        assert_eq!(marks(&document(&[], "heading")), [0, 0, 0], "the legend's own");
        for entry in [
            "in user mode",
            "still holds the task",
            "out of date",
            "kernel FPU section",
            "unowned",
            ">restore<",
            ">restore skipped<",
            ">save<",
            ">migration<",
            "above a lane",
            "bar: saves",
            "bar: restores",
        ] {
            assert!(picture.contains(entry), "{entry}");
        }
    }

    /// An sRGB colour in linear light.
    fn channels(colour: &str) -> [f64; 3] {
        [1, 3, 5].map(|at| {
            let byte = u8::from_str_radix(&colour[at..at + 2], 16).expect("hexadecimal");
            (f64::from(byte) / 255.0).powf(2.2)
        })
    }

    /// As a reader sees it who has no L, no M or no S cones, in linear light. The matrices are those of
    /// Machado, Oliveira and Fernandes (2009) for full severity.
    fn seen_without([r, g, b]: [f64; 3], cones: usize) -> [f64; 3] {
        const MATRICES: [[[f64; 3]; 3]; 3] = [
            [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
            [
                [0.367322, 0.860646, -0.227968],
                [0.280085, 0.672501, 0.047413],
                [-0.011820, 0.042940, 0.968881],
            ],
            [
                [1.255528, -0.076749, -0.178779],
                [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900],
            ],
        ];
        MATRICES[cones].map(|[x, y, z]| x * r + y * g + z * b)
    }

    #[test]
    fn saves_and_restores_differ_for_every_reader() {
        for cones in 0..3 {
            let light = |colour| {
                let [r, g, b] = seen_without(channels(colour), cones).map(|c| c.clamp(0.0, 1.0));
                0.2126 * r + 0.7152 * g + 0.0722 * b
            };
            // WCAG 2 asks for 3 of what stands on a background; beside each other they have shape too.
            let contrast = (light(SAVES) + 0.05) / (light(RESTORES) + 0.05);
            assert!(contrast >= 2.0, "without cones {cones}: {contrast}");
            for colour in [SAVES, RESTORES] {
                let contrast = 1.05 / (light(colour) + 0.05);
                assert!(contrast >= 3.0, "{colour} on white, without cones {cones}: {contrast}");
            }
        }
    }

    #[test]
    fn the_scenario_that_saves_most_is_first() {
        let script = Builder::new(TASKS).finish();
        let panel = |name, ours, eager| {
            let counts = |saves| Counts { saves, ..Counts::default() };
            let timeline = Timeline::new(&script.ops, &[]);
            Panel { name, about: "", timeline, counts: [counts(ours), counts(eager)] }
        };
        let mut panels =
            [panel("none", 9, 9), panel("half", 5, 10), panel("empty", 0, 0), panel("most", 1, 4)];
        best_first(&mut panels);
        assert_eq!(panels.map(|panel| panel.name), ["most", "half", "none", "empty"]);
    }
}
