//! The picture: transfers over the number of CPUs, both in powers.

use crate::{
    canvas::Canvas,
    scenarios::{lines_of_a_context, Cost, Scenario, SIZES},
    table::{Table, IMAGE},
};

const WIDTH: f64 = 980.0;
const HEIGHT: f64 = 600.0;
/// Of the plot.
const LEFT: f64 = 76.0;
const RIGHT: f64 = 600.0;
const TOP: f64 = 104.0;
const BOTTOM: f64 = 536.0;

const INK: &str = "#24292f";
const GREY: &str = "#6e7781";
/// The palette of Okabe and Ito, whose colours colour-blind readers tell apart. Controls are dashed too.
const CORE: &str = "#0072b2";
const CONTROL: &str = "#d55e00";

fn x(at: usize) -> f64 {
    LEFT + (RIGHT - LEFT) * at as f64 / (SIZES.len() - 1) as f64
}
/// 0 has a place too.
fn y(transfers: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * (1.0 + transfers).log2() / 1025f64.log2()
}

/// One line of the picture, and what stands at its end.
struct Curve<'t> {
    costs: &'t [Cost],
    colour: &'static str,
    dash: &'static str,
    label: [String; 2],
}

impl Canvas {
    fn axes(&mut self) {
        let grey = format!(r#"fill="{GREY}" text-anchor="middle""#);
        for transfers in [0, 1, 10, 100, 1000] {
            let at = y(f64::from(transfers));
            self.path(
                &format!("M{LEFT} {at:.1}H{RIGHT}"),
                r##"stroke="#d8dee4" stroke-width="1""##,
            );
            let rest = format!(r#"fill="{GREY}" text-anchor="end""#);
            self.text((LEFT - 10.0, at + 4.0), 12.0, &rest, &transfers.to_string());
        }
        for (at, cpus) in SIZES.iter().enumerate() {
            self.text((x(at), BOTTOM + 26.0), 12.0, &grey, &cpus.to_string());
        }
        self.text(((LEFT + RIGHT) / 2.0, BOTTOM + 48.0), 12.0, &grey, "CPUs");
    }
    fn curve(&mut self, curve: &Curve<'_>) {
        let points: Vec<_> =
            curve.costs.iter().enumerate().map(|(at, cost)| (x(at), y(cost.transfers()))).collect();
        let colour = curve.colour;
        let d: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let dash = curve.dash;
        let rest = format!(r#"fill="none" stroke="{colour}" stroke-width="2.4" {dash}"#);
        self.path(&format!("M{}", d.join("L")), &rest);
        for (x, y) in &points {
            self.dot((*x, *y, 3.4), &format!(r#"fill="{colour}""#));
        }
        let Some((_, end)) = points.last() else { return };
        let bold = format!(r#"fill="{colour}" font-weight="600""#);
        let [name, about] = &curve.label;
        self.text((RIGHT + 20.0, end - 2.0), 13.0, &bold, name);
        self.text((RIGHT + 20.0, end + 13.0), 11.5, &format!(r#"fill="{GREY}""#), about);
    }
}

/// The whole document.
#[must_use]
pub fn document(table: &Table) -> String {
    let mut canvas = Canvas::new((WIDTH, HEIGHT), "");
    let bold = format!(r#"fill="{INK}" font-weight="700""#);
    let grey = format!(r#"fill="{GREY}""#);
    canvas.text((LEFT, 36.0), 18.0, &bold, "Cache lines that come from another CPU, per operation");
    let about = "The core's own code on simulated CPUs: its words, and images of x87, SSE and AVX. Both scales are in powers.";
    canvas.text((LEFT, 58.0), 12.0, &grey, about);
    canvas.text(
        (LEFT, 76.0),
        12.0,
        &grey,
        "Drawn by: cargo run --release -p fpu-scale -- --svg FILE",
    );
    canvas.axes();
    let of = |scenario: Scenario| {
        let at = Scenario::ALL.iter().position(|other| *other == scenario).unwrap_or_default();
        table.core[at].costs.as_slice()
    };
    let label = |name: &str, about: String| [name.to_owned(), about];
    let lines = lines_of_a_context(IMAGE);
    let mut curves = vec![
        Curve {
            costs: of(Scenario::Switch),
            colour: CORE,
            dash: "",
            label: label(
                "fpu-core: 0 where no task moves",
                "switch, wake, system call, section, guest".into(),
            ),
        },
        Curve {
            costs: of(Scenario::Migration),
            colour: CORE,
            dash: "",
            label: label(
                &format!("fpu-core: a migration, {lines}"),
                "the task's word, and its image".into(),
            ),
        },
        Curve {
            costs: of(Scenario::DebuggerWrites),
            colour: CORE,
            dash: "",
            label: label(
                &format!("fpu-core: a debugger writes, {}", 2 * lines),
                "to the debugger's CPU, and back".into(),
            ),
        },
    ];
    let abouts = [
        "a switch; 16 bytes a CPU, without padding",
        "a switch; no stamps, every CPU's owner read",
    ];
    let names = ["control: 4 CPUs' words in a line", "control: owners looked through"];
    for ((row, name), about) in table.controls.iter().zip(names).zip(abouts) {
        let dash = r#"stroke-dasharray="6 4""#;
        let label = label(name, about.into());
        curves.push(Curve { costs: &row.costs, colour: CONTROL, dash, label });
    }
    curves.iter().for_each(|curve| canvas.curve(curve));
    canvas.finish()
}
