//! The save area as a picture (SVG): both formats side by side, ribbons from one to the other.

use std::fmt::Write;

use crate::canvas::Canvas;

use super::{
    bytes::{EXTENDED, LEGACY},
    layouts::{Layouts, Region},
    show::names,
    subject::Subject,
    table::about,
    words::name,
};

const WIDTH: f64 = 1076.0;
const TOP: f64 = 142.0;
/// Left edges of the two columns, and their width.
const COLUMNS: [f64; 2] = [126.0, 660.0];
const COLUMN: f64 = 290.0;
/// Pixels a byte, where it is to scale.
const SCALE: f64 = 0.27;
/// No piece is lower, so that its label has room.
const LEAST: f64 = 19.0;
/// Larger pieces are cut.
const CUT: u32 = 1024;
/// Pixels a byte of what is beyond.
const BEYOND: f64 = 0.008;

const INK: &str = "#24292f";
const GREY: &str = "#6e7781";
/// By number; of components that CPUs have together, no two neighbours are alike.
const COLOURS: [&str; 13] = [
    "#6d7f3a", "#3d8f6e", "#94674a", "#d1495b", "#8e6bbf", "#2a9d9d", "#e08a1e", "#5b8def",
    "#4a9a4a", "#7a8b2f", "#b0578d", "#b08d00", "#a3576b",
];

/// What a piece of the area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// A part of the legacy area, or the header.
    Fixed(&'static str, &'static str, &'static str),
    /// An extended component.
    Component(u32),
    /// Nothing.
    Gap,
}

/// One piece.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from: u32,
    size: u32,
    content: Content,
    /// Where it is drawn.
    y: f64,
    height: f64,
}

const FIXED: [(u32, u32, Content); 7] = [
    (0, 24, Content::Fixed("X87", "control, status, tags, pointers", "#4e79a7")),
    (24, 8, Content::Fixed("MXCSR", "and its mask", "#7f9fc4")),
    (32, 128, Content::Fixed("X87", "ST0-7, 16 bytes each", "#4e79a7")),
    (160, 256, Content::Fixed("SSE", "XMM0-15", "#7f9fc4")),
    (416, 48, Content::Fixed("reserved", "", "#eef0f2")),
    (464, 48, Content::Fixed("software", "", "#e2e5e9")),
    (512, 64, Content::Fixed("header", "XSTATE_BV, XCOMP_BV", "#57606a")),
];

fn height(size: u32) -> f64 {
    let whole = f64::from(size.min(CUT)) * SCALE;
    (whole + f64::from(size.saturating_sub(CUT)) * BEYOND).max(LEAST)
}

/// The pieces of one area from its beginning to its end, gaps too.
fn pieces(region: &Region) -> Vec<Piece> {
    let mut spans: Vec<(u32, u32, Content)> = FIXED.to_vec();
    let places = region.places.iter();
    spans.extend(places.map(|(n, (from, size))| (*from, *size, Content::Component(*n))));
    spans.sort_by_key(|(from, ..)| *from);
    let (mut pieces, mut y, mut end) = (Vec::new(), TOP, 0);
    let mut put = |from, size, content| {
        pieces.push(Piece { from, size, content, y, height: height(size) });
        y += height(size);
    };
    for (from, size, content) in spans {
        if from > end {
            put(end, from - end, Content::Gap);
        }
        put(from, size, content);
        end = from + size;
    }
    pieces
}

fn colour(content: Content) -> &'static str {
    match content {
        Content::Fixed(_, _, colour) => colour,
        Content::Component(number) => COLOURS[number as usize % COLOURS.len()],
        Content::Gap => "url(#gap)",
    }
}

impl Canvas {
    fn piece(&mut self, column: usize, piece: &Piece) {
        let x = COLUMNS[column];
        let Piece { size, content, y, height, .. } = *piece;
        let fill = colour(content);
        self.rect((x, y, COLUMN, height), &format!(r##"fill="{fill}" stroke="#ffffff""##));
        if size > CUT {
            self.cut(x, y + height * 0.72);
        }
        let (title, detail) = match content {
            Content::Fixed(title, detail, _) => (title.to_owned(), detail),
            Content::Component(n) => {
                (name(n).map_or_else(|| format!("component {n}"), str::to_owned), about(n))
            }
            Content::Gap => ("unused".into(), ""),
        };
        let pale = matches!(content, Content::Gap | Content::Fixed("reserved" | "software", ..));
        let ink = if pale { GREY } else { "#ffffff" };
        let number = match content {
            Content::Component(n) => format!("{n}  "),
            _ => String::new(),
        };
        let two_lines = height >= 34.0;
        let base = if two_lines { y + height / 2.0 - 3.0 } else { y + height / 2.0 + 4.0 };
        let weight = if pale { 400 } else { 700 };
        let rest = format!(r#"fill="{ink}" font-weight="{weight}" xml:space="preserve""#);
        self.text((x + 10.0, base), 12.0, &rest, &format!("{number}{title}"));
        let plain = format!(r#"fill="{ink}""#);
        if two_lines {
            self.text((x + 10.0, base + 15.0), 11.0, &plain, detail);
        } else if !detail.is_empty() {
            let after = x + 22.0 + 8.3 * (number.len() + title.len()) as f64;
            self.text((after, base), 10.5, &plain, detail);
        }
        let rest = format!(r#"fill="{ink}" text-anchor="end""#);
        self.text((x + COLUMN - 9.0, base), 11.0, &rest, &format!("{size}"));
    }

    /// A white zigzag: something is left out.
    fn cut(&mut self, x: f64, y: f64) {
        let mut d = format!("M{x:.1} {y:.1}");
        for step in 0..20 {
            let dy = if step % 2 == 0 { -6.0 } else { 6.0 };
            let _infallible = write!(d, "l{:.2} {dy}", COLUMN / 20.0);
        }
        self.path(&d, r##"fill="none" stroke="#ffffff" stroke-width="4""##);
    }

    /// The offset of each piece, outside of the columns.
    fn offset(&mut self, column: usize, y: f64, offset: u32, bold: bool) {
        let (x, anchor) = match column {
            0 => (COLUMNS[0] - 12.0, "end"),
            _ => (COLUMNS[1] + COLUMN + 12.0, "start"),
        };
        let (tick, ink) = if column == 0 { (x + 3.0, INK) } else { (x - 12.0, INK) };
        self.path(&format!("M{tick:.1} {y:.1}h9"), r##"stroke="#afb8c1""##);
        let weight = if bold { 700 } else { 400 };
        let rest = format!(r#"fill="{ink}" font-weight="{weight}" text-anchor="{anchor}""#);
        self.text((x, y + 4.0), 11.0, &rest, &offset.to_string());
        let hex_x = if column == 0 { x - 46.0 } else { x + 46.0 };
        let rest = format!(r#"fill="{GREY}" text-anchor="{anchor}""#);
        self.text((hex_x, y + 4.0), 9.5, &rest, &format!("{offset:#x}"));
    }

    fn ribbon(&mut self, left: &Piece, right: &Piece) {
        let (x0, x1) = (COLUMNS[0] + COLUMN, COLUMNS[1]);
        let middle = (x0 + x1) / 2.0;
        let (a, b) = (left.y, left.y + left.height);
        let (c, d) = (right.y, right.y + right.height);
        let path = format!(
            "M{x0:.1} {a:.1}C{middle:.1} {a:.1} {middle:.1} {c:.1} {x1:.1} {c:.1}V{d:.1}\
             C{middle:.1} {d:.1} {middle:.1} {b:.1} {x0:.1} {b:.1}z"
        );
        let fill = colour(left.content);
        self.path(&path, &format!(r#"fill="{fill}" fill-opacity="0.22""#));
    }
}

/// The whole document.
///
/// # Errors
///
/// CPUID contradicts itself, or there is no XSAVE.
pub fn document(subject: &Subject) -> Result<String, String> {
    if !subject.facts.xsave() {
        return Err("there is no XSAVE here, so no area to draw".into());
    }
    let all = subject.enabled | subject.supervisor_enabled().unwrap_or(0);
    let layouts = Layouts::new(&subject.facts, all)?;
    let regions = [&layouts.standard, &layouts.compacted];
    let columns = regions.map(pieces);
    let bottom = |pieces: &[Piece]| pieces.last().map_or(TOP, |last| last.y + last.height);
    let end = bottom(&columns[0]).max(bottom(&columns[1]));
    let height = end + 74.0;
    let defs = concat!(
        r##"<defs><pattern id="gap" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">"##,
        r##"<rect width="7" height="7" fill="#f6f8fa"/><rect width="1.5" height="7" fill="#c3cad1"/></pattern></defs>"##
    );
    let mut canvas = Canvas::new((WIDTH, height), defs);
    heading(&mut canvas, subject, all, regions);
    for left in &columns[0] {
        let right = columns[1].iter().find(|right| match left.content {
            Content::Gap => false,
            Content::Fixed(..) => left.from == right.from,
            content => content == right.content,
        });
        if let Some(right) = right {
            canvas.ribbon(left, right);
        }
    }
    for (column, pieces) in columns.iter().enumerate() {
        for piece in pieces {
            canvas.piece(column, piece);
            let part = [0, LEGACY as u32, EXTENDED as u32].contains(&piece.from);
            canvas.offset(column, piece.y, piece.from, part);
        }
        canvas.offset(column, bottom(pieces), regions[column].len, true);
    }
    legend(&mut canvas, end + 34.0);
    Ok(canvas.finish())
}

fn heading(canvas: &mut Canvas, subject: &Subject, all: u64, regions: [&Region; 2]) {
    let bold = format!(r#"fill="{INK}" font-weight="700""#);
    let ink = format!(r#"fill="{INK}""#);
    let grey = format!(r#"fill="{GREY}""#);
    canvas.text((COLUMNS[0], 38.0), 20.0, &bold, "Where the registers are saved");
    let line = format!("{}, {}: components {all:#x}", subject.title, subject.source);
    canvas.text((COLUMNS[0], 58.0), 12.0, &grey, &line);
    let mut line = names(all);
    if all != subject.enabled {
        line += " (the supervisor ones are those that give the CPU's own size)";
    }
    canvas.text((COLUMNS[0], 75.0), 11.0, &grey, &line);
    let titles = [
        ("Standard format", "XSAVE, XSAVEOPT; what leaves the kernel"),
        ("Compacted format", "XSAVEC, XSAVES; supervisor state too"),
    ];
    for (column, (title, detail)) in titles.into_iter().enumerate() {
        let x = COLUMNS[column];
        canvas.text((x, TOP - 28.0), 14.0, &bold, title);
        canvas.text((x, TOP - 12.0), 11.0, &grey, detail);
        let rest = format!(r#"{ink} font-weight="700" text-anchor="end""#);
        let size = format!("{} bytes", regions[column].len);
        canvas.text((x + COLUMN, TOP - 28.0), 14.0, &rest, &size);
    }
}

fn legend(canvas: &mut Canvas, y: f64) {
    let grey = format!(r#"fill="{GREY}""#);
    let x = COLUMNS[0];
    canvas.rect((x, y - 10.0, 20.0, 12.0), r##"fill="url(#gap)" stroke="#d0d7de""##);
    canvas.text((x + 28.0, y), 11.0, &grey, "no component is there");
    let text = format!(
        "Numbers in the columns are bytes, outside offsets. To scale from {:.0} to {CUT} bytes; smaller \
         pieces are drawn higher, larger ones cut.",
        (LEAST / SCALE).ceil()
    );
    canvas.text((x, y + 20.0), 11.0, &grey, &text);
}
