//! A decoded image, as text of at most 100 columns.

use std::fmt::Write;

use fpu_x86::ForeignError;

use crate::report::Style;

use super::{
    bytes::{u16_at, u32_at, u64_at},
    elf,
    reading::{Kind, Origin, Part, Reading},
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

/// Columns behind an indentation.
fn wide(style: Style, indent: usize) -> usize {
    style.width(98).saturating_sub(indent)
}

/// The whole image. `verdict`: whether a task of this machine could have these registers.
#[must_use]
pub fn image(
    reading: &Reading<'_>,
    origin: &Origin,
    verdict: Option<Result<(), ForeignError>>,
    style: Style,
) -> String {
    let mut out = String::new();
    if let Some(heading) = heading(origin) {
        line!(out, "{}", style.bold(&heading));
    }
    head(&mut out, reading, style);
    x87_state(&mut out, reading, style);
    vectors(&mut out, reading, style);
    for number in numbers(reading.present).filter(|n| *n >= 2) {
        component(&mut out, number, &reading.part(number), style);
    }
    let absent = (reading.room | reading.xcr0.unwrap_or_default()) & !reading.present;
    if absent != 0 {
        let text = wrapped(
            &format!("{}: absent, so in the initial state", names(absent)),
            wide(style, 12),
            12,
        );
        line!(out, "{}  {text}", style.bold("initial   "));
    }
    if let Some(verdict) = verdict {
        let text = match verdict {
            Ok(()) => style.good("a task of this machine could have these registers"),
            Err(why) => {
                let text = format!("refused for a task of this machine: {why}");
                style.bad(&wrapped(&text, wide(style, 12), 12))
            }
        };
        line!(out, "{}  {text}", style.bold("restore   "));
    }
    out
}

/// Which thread it is, and where that stands; nothing of a file by itself.
#[must_use]
pub fn heading(origin: &Origin) -> Option<String> {
    let mut text = format!("thread {}", origin.thread?);
    if let Some(id) = origin.id {
        text += &format!(", process {id}");
    }
    if let Some((owner, kind)) = &origin.note {
        if owner == "FreeBSD" {
            text += " of FreeBSD";
        }
        text += &format!(", note at {:#x}", origin.at);
        if *kind == elf::NT_PRFPREG {
            text += ": only NT_PRFPREG, no NT_X86_XSTATE";
        }
    }
    Some(text)
}

/// A thread without registers.
#[must_use]
pub fn nothing(origin: &Origin, style: Style) -> String {
    let heading = heading(origin).unwrap_or_default();
    let why = "no registers of the FPU: neither NT_X86_XSTATE nor NT_PRFPREG";
    format!("{}\n  {}\n", style.bold(&heading), style.bad(why))
}

/// What the image is.
#[must_use]
pub fn kind(reading: &Reading<'_>) -> String {
    let kind = match reading.kind {
        Kind::Fxsave => "FXSAVE image",
        Kind::Standard => "XSAVE area, standard format",
        Kind::Compacted => "XSAVE area, compacted format",
        Kind::Frame => "signal frame, standard format",
        Kind::Frame32 => "signal frame of a 32-bit program, standard format",
    };
    format!("{kind}, {} bytes", reading.len)
}

fn head(out: &mut String, reading: &Reading<'_>, style: Style) {
    let rest = match reading.rest {
        0 => String::new(),
        rest => format!("; {rest} bytes behind it"),
    };
    line!(out, "{}{rest}", style.bold(&kind(reading)));
    let legacy = reading.frame.and_then(|frame| frame.legacy);
    if let Some(why) = legacy {
        let text = wrapped(&format!("only x87 and SSE count: {why}"), wide(style, 12), 12);
        line!(out, "  software  {text}");
    } else if reading.kind != Kind::Fxsave {
        let present = wrapped(&names(reading.present), wide(style, 32), 32);
        line!(out, "  XSTATE_BV {:#018x}  {present}", reading.present);
    }
    if reading.kind == Kind::Compacted {
        let room = wrapped(&names(reading.room), wide(style, 32), 32);
        line!(out, "  XCOMP_BV  {:#018x}  {room}", reading.room | 1 << 63);
    }
    if let Some(bits) = reading.xcr0 {
        line!(out, "  software  {bits:#018x}  {}", wrapped(&names(bits), wide(style, 32), 32));
    }
    if let (Some(frame), None) = (reading.frame, legacy) {
        let (all, size) = (frame.extended_size, frame.xstate_size);
        line!(out, "            image of {size} bytes, frame of {all}");
    }
    let places = reading.places().map(|(number, offset, size)| {
        let known = name(number).map_or_else(|| format!("#{number}"), str::to_owned);
        format!("{known}\u{a0}{offset}+{size}")
    });
    let places = places.collect::<Vec<_>>().join(" ");
    if !places.is_empty() {
        line!(out, "  places    {}", wrapped(&places, wide(style, 12), 12).replace('\u{a0}', " "));
        if let Some(by) = reading.by.filter(|_| reading.kind != Kind::Compacted) {
            line!(out, "            {}", wrapped(&by.words(), wide(style, 12), 12));
        }
    }
}

fn x87_state(out: &mut String, reading: &Reading<'_>, style: Style) {
    if !reading.has(0) {
        return;
    }
    let x87 = reading.image().x87();
    let control = wrapped(&x87::control(x87.fcw), wide(style, 24), 24);
    line!(out, "{}  FCW {:#06x}  {control}", style.bold("x87       "), x87.fcw);
    line!(
        out,
        "            FSW {:#06x}  {}",
        x87.fsw,
        wrapped(&x87::status(x87.fsw), wide(style, 24), 24)
    );
    let used = (0..8).filter(|n| x87.tags >> n & 1 != 0).map(|n| format!("R{n}"));
    let used = used.collect::<Vec<_>>().join(" ");
    let used = if used.is_empty() { "all empty" } else { &used };
    line!(out, "            FTW {:#06x}  {used}", x87.tags);
    line!(out, "            FOP {:#06x}  FIP {:#018x}  FDP {:#018x}", x87.fop, x87.fip, x87.fdp);
    for (index, register) in x87.st.into_iter().enumerate() {
        let physical = (x87.top() + index) & 7;
        let empty = x87.tags >> physical & 1 == 0;
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

fn vectors(out: &mut String, reading: &Reading<'_>, style: Style) {
    if let Some(mxcsr) = reading.mxcsr() {
        let text = wrapped(&x87::mxcsr(mxcsr), wide(style, 24), 24);
        line!(out, "{}  {mxcsr:#010x}  {text}", style.bold("MXCSR     "));
    }
    let vectors = [1, 2, 6, 7].into_iter().any(|number| reading.has(number));
    if !vectors {
        return;
    }
    let mut title = style.bold("vectors   ");
    for index in 0..32 {
        let register = reading.vector(index);
        let (class, used) = match register {
            all if all[32..].iter().any(|byte| *byte != 0) => ("zmm", 64),
            all if all[16..].iter().any(|byte| *byte != 0) => ("ymm", 32),
            all if all[..16].iter().any(|byte| *byte != 0) => ("xmm", 16),
            _ => continue,
        };
        let mut label = format!("{class}{index}");
        // The highest first, as in a number; of a ZMM two halves, and in narrow lines less.
        let words = [4, 2, 1].into_iter().find(|words| 17 * words <= wide(style, 19));
        let words = words.unwrap_or(1);
        for part in register[..used].chunks(8 * words).rev() {
            let digits: Vec<String> = part
                .chunks(8)
                .rev()
                .filter_map(|bytes| u64_at(bytes, 0).map(|word| format!("{word:016x}")))
                .collect();
            line!(out, "{title}  {label:<6} {:>width$}", digits.join("_"), width = 17 * words - 1);
            (title, label) = (" ".repeat(10), String::new());
        }
    }
    if title.starts_with(' ') {
        line!(out, "            all others are zero");
    } else {
        line!(out, "{title}  all are zero");
    }
}

fn component(out: &mut String, number: u32, part: &Part<'_>, style: Style) {
    let title = name(number).map_or_else(|| format!("#{number}"), str::to_owned);
    let bytes: &[u8] = match part {
        Part::Bytes(bytes) => bytes,
        Part::Zero | Part::Unplaced => &[],
    };
    let words = || bytes.chunks_exact(8).filter_map(|word| u64_at(word, 0));
    let mut lines: Vec<String> = Vec::new();
    match number {
        _ if *part == Part::Unplaced => {
            lines.push("present, but this layout has no place for it (--cpuid, --layout)".into())
        }
        2 | 6 | 7 => return, // shown as parts of the registers
        5 => lines.extend(nonzero("k", 0, words())),
        19 => lines.extend(nonzero("r", 16, words())),
        9 => lines.push(pkru(u32_at(bytes, 0).unwrap_or_default())),
        17 if !bytes.is_empty() => lines.extend(tile_configuration(bytes)),
        18 => lines.extend(bytes.chunks(1024).enumerate().filter_map(tile)),
        _ => lines.extend(dump(bytes)),
    }
    if lines.is_empty() {
        lines.push("all zero".into());
    }
    let mut title = style.bold(&format!("{title:<10}"));
    for text in lines {
        line!(out, "{title}  {}", wrapped(&text, wide(style, 12), 12));
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
    let rights = |key: u32| match value >> (2 * key) & 3 {
        3 => 1, // without access it does not matter that a write is refused too
        rights => rights,
    };
    let mut list: Vec<String> = Vec::new();
    let mut key = 0;
    while key < 16 {
        let same = (key..16).take_while(|other| rights(*other) == rights(key));
        let last = key + same.count() as u32 - 1;
        let keys = if last == key { key.to_string() } else { format!("{key}-{last}") };
        match rights(key) {
            0 => {}
            2 => list.push(format!("{keys} read only")),
            _ => list.push(format!("{keys} no access")),
        }
        key = last + 1;
    }
    let list = list.join(", ");
    let list = if list.is_empty() { "every key may read and write" } else { &list };
    format!("{value:#010x}  {list}")
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
