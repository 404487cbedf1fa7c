//! Registers as text: written by `decode --text`, read by `encode`.

use std::{collections::BTreeMap, fmt};

use fpu_x86::Components;

use super::{
    reading::{Kind, Origin, Reading},
    registers::{self, Register},
    show,
    words::{component, quoted},
};

/// Lines are added to a string, which takes every write.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        let _infallible = std::fmt::Write::write_fmt(&mut $out, format_args!("{}\n", format_args!($($arg)*)));
    }};
}

/// An image.
#[must_use]
pub fn write(reading: &Reading<'_>, origin: &Origin) -> String {
    let mut out = String::new();
    thread(&mut out, origin);
    line!(out, "# {}", show::kind(reading));
    let user = Components::from_bits_retain(reading.room).difference(Components::SUPERVISOR);
    let enabled = match reading.kind {
        Kind::Compacted => Some(user.bits()),
        _ => reading.xcr0,
    };
    if let Some(bits) = enabled {
        line!(out, "xcr0 {bits:#x}");
    }
    let legacy = reading.frame.is_some_and(|frame| frame.legacy.is_some());
    if reading.kind != Kind::Fxsave && !legacy {
        let user = Components::from_bits_retain(reading.present).difference(Components::SUPERVISOR);
        line!(out, "xstate_bv {:#x}", user.bits());
    }
    for (register, value) in registers::of_image(reading) {
        line!(out, "{register} {value}");
    }
    for (number, _) in registers::nameless(reading) {
        line!(out, "# {} is present, and not in this text", component(number));
    }
    out
}

fn thread(out: &mut String, origin: &Origin) {
    if let Some(heading) = show::heading(origin) {
        line!(*out, "# {heading}");
        line!(*out, "thread {}", origin.id.unwrap_or_default());
    }
}

/// A thread without registers.
#[must_use]
pub fn nothing(origin: &Origin) -> String {
    let mut out = String::new();
    thread(&mut out, origin);
    out + "# no registers of the FPU\n"
}

/// A place in the text, line and column from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A fault of a text, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The place.
    pub at: At,
    /// The reason.
    pub why: String,
}

impl Wrong {
    /// At a place of the text.
    pub fn new(at: At, why: impl Into<String>) -> Self {
        Self { at, why: why.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.at.line, self.at.column, self.why)
    }
}

/// One thread's registers.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    /// The place where the thread begins.
    pub at: At,
    /// The number of `thread`, if that is there.
    pub id: Option<u32>,
    /// The components that are enabled, if the text says so.
    pub xcr0: Option<(u64, At)>,
    /// The components that are present, if the text says so.
    pub xstate_bv: Option<(u64, At)>,
    /// The values, the lowest byte first, of a vector register by its longest name. Their lengths are those of the names
    /// in the text.
    pub values: BTreeMap<Register, (Vec<u8>, At)>,
}

impl Thread {
    /// What is present: what the text says, or else what holds the registers that it names.
    #[must_use]
    pub fn present(&self) -> Components {
        let named = self.values.iter().map(|(register, (value, _))| named(*register, value));
        let all = named.fold(Components::empty(), |all, (register, _)| all | register.components());
        self.xstate_bv.map_or(all, |(bits, _)| Components::from_bits_retain(bits))
    }

    /// Where the text says that a component is present.
    #[must_use]
    pub fn place(&self, component: Components) -> At {
        let mut values = self.values.iter();
        let first = values.find(|(register, (value, _))| {
            named(**register, value).0.components().intersects(component)
        });
        let first = first.map(|(_, (_, at))| *at);
        first.or(self.xstate_bv.map(|(_, at)| at)).unwrap_or(self.at)
    }
}

/// The register as it was named, and its value.
fn named(register: Register, value: &[u8]) -> (Register, &[u8]) {
    match register {
        Register::Vector(_, n) => (Register::Vector(value.len(), n), value),
        other => (other, value),
    }
}

/// Reads a text. There is at least one thread.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn read(text: &str) -> Result<Vec<Thread>, Wrong> {
    let mut threads: Vec<Thread> = Vec::new();
    let mut last = At { line: 1, column: 1 };
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = words(line, number);
        let Some((name, at)) = words.next() else { continue };
        last = at;
        let end = At { line: number, column: line.chars().count() + 1 };
        let (value, value_at) = words
            .next()
            .ok_or_else(|| Wrong::new(end, format!("{} needs a value", quoted(name))))?;
        if let Some((more, at)) = words.next() {
            let why = format!("{} behind the value (a comment begins with #)", quoted(more));
            return Err(Wrong::new(at, why));
        }
        if name == "thread" {
            let id = value.parse().ok().filter(|_| value.bytes().all(|c| c.is_ascii_digit()));
            let no = || {
                Wrong::new(value_at, format!("{} is no decimal number of 32 bits", quoted(value)))
            };
            threads.push(Thread { at, id: Some(id.ok_or_else(no)?), ..Thread::default() });
            continue;
        }
        if threads.is_empty() {
            threads.push(Thread { at, ..Thread::default() });
        }
        let Some(thread) = threads.last_mut() else { continue };
        set(thread, (name, at), (value, value_at))?;
    }
    if threads.is_empty() {
        return Err(Wrong::new(last, "no register, and nothing else"));
    }
    threads.iter().try_for_each(check)?;
    Ok(threads)
}

/// The words of a line up to a comment.
fn words(line: &str, number: usize) -> impl Iterator<Item = (&str, At)> {
    let text = line.split('#').next().unwrap_or_default();
    let mut at = 0;
    text.split_whitespace().map(move |word| {
        // It is there, for it was split off.
        let from = at + text[at..].find(word).unwrap_or_default();
        at = from + word.len();
        (word, At { line: number, column: text[..from].chars().count() + 1 })
    })
}

fn set(thread: &mut Thread, (name, at): (&str, At), value: (&str, At)) -> Result<(), Wrong> {
    let twice =
        |before: At| Err(Wrong::new(at, format!("{name}: line {} has set it", before.line)));
    let set = match name {
        "xcr0" => Some(&mut thread.xcr0),
        "xstate_bv" => Some(&mut thread.xstate_bv),
        _ => None,
    };
    if let Some(set) = set {
        if let Some((_, before)) = set {
            return twice(*before);
        }
        let bytes = number(name, 64, value)?;
        let word = bytes.try_into().map(u64::from_le_bytes).unwrap_or_default(); // of 64 bits
        *set = Some((word, value.1));
        return Ok(());
    }
    let Some(register) = Register::named(name) else {
        let why = format!("{} is no register (--help lists them)", quoted(name));
        return Err(Wrong::new(at, why));
    };
    let bytes = number(name, register.bits(), value)?;
    let key = match register {
        Register::Vector(_, n) => Register::Vector(64, n),
        other => other,
    };
    if let Some((_, before)) = thread.values.get(&key) {
        return twice(*before);
    }
    thread.values.insert(key, (bytes, at));
    Ok(())
}

/// A hexadecimal number of so many bits, the lowest byte first. `0x` may be in front, and `_` between digits.
fn number(name: &str, bits: usize, (text, at): (&str, At)) -> Result<Vec<u8>, Wrong> {
    let wrong = |why: String| Err(Wrong::new(at, format!("{name}: {why}")));
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let mut bytes = vec![0; bits.div_ceil(8)];
    let mut used = 0;
    for c in digits.chars().rev().filter(|c| *c != '_') {
        let Some(digit) = c.to_digit(16) else {
            return wrong(format!("{} is no hexadecimal number", quoted(text)));
        };
        let fits = (bits.saturating_sub(4 * used)).min(4);
        if digit >> fits != 0 || used >= 2 * bytes.len() {
            return wrong(format!("{} has more than {bits} bits", quoted(text)));
        }
        bytes[used / 2] |= (digit as u8) << (4 * (used % 2));
        used += 1;
    }
    match used {
        0 => wrong(format!("{} is no hexadecimal number", quoted(text))),
        _ => Ok(bytes),
    }
}

/// Everything that is not zero has to be in a component that the text calls present. MXCSR is in none: the standard format
/// has it in any case.
fn check(thread: &Thread) -> Result<(), Wrong> {
    let Some((bits, _)) = thread.xstate_bv else { return Ok(()) };
    for (register, (value, at)) in &thread.values {
        let (register, value) = named(*register, value);
        if register == Register::Mxcsr {
            continue;
        }
        let needed = match register {
            Register::Vector(_, n @ 0..16) => {
                let parts = [16, 32, 64].into_iter().scan(0, |from, to| {
                    let part = value.get(*from..to.min(value.len())).unwrap_or_default();
                    *from = to;
                    let only = Register::Vector(to, n).components();
                    Some(if part.iter().any(|byte| *byte != 0) {
                        only
                    } else {
                        Components::empty()
                    })
                });
                let lower =
                    [Components::empty(), Components::SSE, Components::SSE | Components::AVX];
                parts
                    .zip(lower)
                    .fold(Components::empty(), |all, (part, lower)| all | part.difference(lower))
            }
            _ => register.components(),
        };
        let missing = needed.difference(Components::from_bits_retain(bits));
        if let Some(number) = missing.numbers().next() {
            let why = format!("{register} is in {}, which xstate_bv lacks", component(number));
            return Err(Wrong::new(*at, why));
        }
    }
    Ok(())
}
