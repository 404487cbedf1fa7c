//! A decoded area, as text of at most 100 columns.

use std::fmt::Write;

use crate::report::Style;

use super::{
    area::{Area, Kind, Software},
    bytes::{u16_at, u32_at, u64_at},
    words::{name, numbers},
    x87,
};

/// Lines are added to a string, which takes every write.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{ let _infallible = writeln!($out, $($arg)*); }};
}

/// Names of the components of a set, separated by spaces.
#[must_use]
pub fn names(bits: u64) -> String {
    let names = numbers(bits).map(|n| name(n).map_or_else(|| format!("#{n}"), str::to_owned));
    names.collect::<Vec<_>>().join(" ")
}

/// `text` broken at spaces into lines of at most `width` characters, all but the first indented.
pub(crate) fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let (mut out, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        if used > 0 && used + 1 + word.len() > width {
            let _infallible = write!(out, "\n{:indent$}", "");
            used = 0;
        }
        if used > 0 {
            out.push(' ');
            used += 1;
        }
        out += word;
        used += word.len();
    }
    out
}

/// The whole area.
#[must_use]
pub fn area(area: &Area<'_>, style: Style) -> String {
    let mut out = String::new();
    head(&mut out, area, style);
    x87_state(&mut out, area, style);
    vectors(&mut out, area, style);
    for number in numbers(area.present).filter(|n| *n >= 2) {
        if let Some(bytes) = area.bytes(number) {
            component(&mut out, number, bytes, style);
        }
    }
    let absent = area.room & !area.present;
    if absent != 0 {
        let text = wrapped(&format!("{}: absent, so in the initial state", names(absent)), 86, 12);
        line!(out, "{}  {text}", style.bold("initial   "));
    }
    out
}

fn head(out: &mut String, area: &Area<'_>, style: Style) {
    let (kind, len) = match area.kind {
        Kind::Legacy => ("FXSAVE image", area.region.len),
        Kind::Standard => ("XSAVE area, standard format", area.region.len),
        Kind::Compacted => ("XSAVE area, compacted format", area.region.len),
    };
    let rest = match area.rest() {
        0 => String::new(),
        rest => format!("; {rest} bytes behind it"),
    };
    line!(out, "{}, {len} bytes{rest}", style.bold(kind));
    if area.kind != Kind::Legacy {
        let present = wrapped(&names(area.present), 62, 32);
        line!(out, "  XSTATE_BV {:#018x}  {present}", area.present);
    }
    if area.kind == Kind::Compacted {
        let room = wrapped(&names(area.room), 62, 32);
        line!(out, "  XCOMP_BV  {:#018x}  {room}", area.room | 1 << 63);
    }
    match area.software {
        Software::None => {}
        Software::Enabled(bits) => {
            line!(out, "  software  {bits:#018x}  {}", wrapped(&names(bits), 62, 32));
        }
        Software::Frame { extended_size, enabled, size } => {
            line!(out, "  software  {enabled:#018x}  {}", wrapped(&names(enabled), 62, 32));
            line!(out, "            signal frame: area of {size} bytes, frame {extended_size}");
        }
    }
    let places = area.region.places.iter().map(|(number, (offset, size))| {
        let known = name(*number).map_or_else(|| format!("#{number}"), str::to_owned);
        format!("{known}\u{a0}{offset}+{size}")
    });
    let places = places.collect::<Vec<_>>().join(" ");
    if !places.is_empty() {
        line!(out, "  places    {}", wrapped(&places, 82, 12).replace('\u{a0}', " "));
    }
}

fn x87_state(out: &mut String, area: &Area<'_>, style: Style) {
    if !area.has(0) {
        return;
    }
    let (fcw, fsw) = (area.word(0), area.word(2));
    let tags = area.word(4) & 0xFF;
    let control = wrapped(&x87::control(fcw), 74, 24);
    line!(out, "{}  FCW {fcw:#06x}  {control}", style.bold("x87       "));
    line!(out, "            FSW {fsw:#06x}  {}", wrapped(&x87::status(fsw), 74, 24));
    let used = (0..8).filter(|n| tags >> n & 1 != 0).map(|n| format!("R{n}"));
    let used = used.collect::<Vec<_>>().join(" ");
    let used = if used.is_empty() { "all empty" } else { &used };
    line!(out, "            FTW {tags:#06x}  {used}");
    let (fop, fip, fdp) = (area.word(6), area.pointer(8), area.pointer(16));
    line!(out, "            FOP {fop:#06x}  FIP {fip:#018x}  FDP {fdp:#018x}");
    let top = fsw >> 11 & 7;
    for index in 0..8u16 {
        let (physical, register) = ((top + index) & 7, area.st(index.into()));
        let empty = tags >> physical & 1 == 0;
        if empty && register == [0; 10] {
            continue;
        }
        let hex: String = register.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        let value = x87::value(register);
        let text = format!("st({index}) R{physical}  {hex}  {value}");
        let text = if empty { style.dim(&format!("{text} (empty)")) } else { text };
        line!(out, "            {text}");
    }
}

fn vectors(out: &mut String, area: &Area<'_>, style: Style) {
    if let Some(mxcsr) = area.mxcsr() {
        let text = wrapped(&x87::mxcsr(mxcsr), 74, 24);
        line!(out, "{}  {mxcsr:#010x}  {text}", style.bold("MXCSR     "));
    }
    let vectors = [1, 2, 6, 7].into_iter().any(|number| area.has(number));
    if !vectors {
        return;
    }
    let mut title = style.bold("vectors   ");
    for index in 0..32 {
        let register = area.vector(index);
        let (class, used) = match register {
            all if all[32..].iter().any(|byte| *byte != 0) => ("zmm", 64),
            all if all[16..].iter().any(|byte| *byte != 0) => ("ymm", 32),
            all if all[..16].iter().any(|byte| *byte != 0) => ("xmm", 16),
            _ => continue,
        };
        let mut label = format!("{class}{index}");
        // The highest first, as in a number; two halves of a ZMM in two lines.
        for half in register[..used].chunks(32).rev() {
            let words: Vec<String> = half
                .chunks(8)
                .rev()
                .filter_map(|bytes| u64_at(bytes, 0).map(|word| format!("{word:016x}")))
                .collect();
            line!(out, "{title}  {label:<6} {:>67}", words.join("_"));
            (title, label) = (" ".repeat(10), String::new());
        }
    }
    if title.starts_with(' ') {
        line!(out, "            all others are zero");
    } else {
        line!(out, "{title}  all are zero");
    }
}

fn component(out: &mut String, number: u32, bytes: &[u8], style: Style) {
    let title = name(number).map_or_else(|| format!("#{number}"), str::to_owned);
    let words = || bytes.chunks_exact(8).filter_map(|word| u64_at(word, 0));
    let mut lines: Vec<String> = Vec::new();
    match number {
        2 | 6 | 7 => return, // shown as parts of the registers
        5 => lines.extend(nonzero("k", 0, words())),
        19 => lines.extend(nonzero("r", 16, words())),
        9 => lines.extend(u32_at(bytes, 0).map(pkru)),
        17 => lines.extend(tile_configuration(bytes)),
        18 => lines.extend(bytes.chunks(1024).enumerate().filter_map(tile)),
        _ => lines.extend(dump(bytes)),
    }
    if lines.is_empty() {
        lines.push("all zero".into());
    }
    let mut title = style.bold(&format!("{title:<10}"));
    for text in lines {
        line!(out, "{title}  {}", wrapped(&text, 86, 12));
        title = " ".repeat(10);
    }
}

fn nonzero(
    class: &'static str,
    first: usize,
    words: impl Iterator<Item = u64>,
) -> impl Iterator<Item = String> {
    let shown = words.enumerate().filter(|(_, word)| *word != 0);
    shown
        .map(move |(index, word)| format!("{:<6} {word:016x}", format!("{class}{}", first + index)))
}

fn pkru(value: u32) -> String {
    let keys = (0..16).filter_map(|key| match value >> (2 * key) & 3 {
        0 => None,
        2 => Some(format!("{key} read only")),
        _ => Some(format!("{key} no access")),
    });
    let keys = keys.collect::<Vec<_>>().join(", ");
    let keys = if keys.is_empty() { "every key may read and write" } else { &keys };
    format!("{value:#010x}  {keys}")
}

fn tile_configuration(bytes: &[u8]) -> Vec<String> {
    let (palette, start) = (bytes.first().copied(), bytes.get(1).copied());
    let mut lines = vec![format!(
        "palette {}, start row {}",
        palette.unwrap_or_default(),
        start.unwrap_or_default()
    )];
    for tile in 0..8 {
        let (columns, rows) = (u16_at(bytes, 16 + 2 * tile), bytes.get(48 + tile));
        if let (Some(columns), Some(rows)) = (columns, rows) {
            if columns != 0 || *rows != 0 {
                lines.push(format!("tmm{tile}   {rows} rows of {columns} bytes"));
            }
        }
    }
    lines
}

fn tile((index, bytes): (usize, &[u8])) -> Option<String> {
    let used = bytes.chunks(64).filter(|row| row.iter().any(|byte| *byte != 0)).count();
    let first = bytes.iter().position(|byte| *byte != 0)?;
    let words = bytes.get(first & !7..).and_then(|rest| u64_at(rest, 0)).unwrap_or_default();
    Some(format!(
        "tmm{index}   {used} rows are not zero; row {}, byte {}: {words:016x}",
        first / 64,
        (first % 64) & !7
    ))
}

/// Other components: rows that are not zero, by offset in the component.
fn dump(bytes: &[u8]) -> Vec<String> {
    const MOST: usize = 16;
    let rows = bytes.chunks(16).enumerate().filter(|(_, row)| row.iter().any(|byte| *byte != 0));
    let mut lines: Vec<String> = rows
        .map(|(index, row)| {
            let hex = row.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            format!("+{:<5} {hex}", 16 * index)
        })
        .collect();
    if lines.len() > MOST {
        let more = lines.len() - MOST;
        lines.truncate(MOST);
        lines.push(format!("and {more} rows more"));
    }
    lines
}
