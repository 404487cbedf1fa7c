//! `xstate decode`: what is in a file.

use fpu_x86::{CpuidInfo, ForeignImage, Plan};

use crate::report::Style;

use super::{
    area::{Area, Kind, LEGACY},
    bytes::{u32_at, Malformed},
    elf::{self, Note},
    layouts::explain,
    show,
    words::{Words, LEAF},
};

/// More of a file is not read: the notes of a core file are in front of the memory it holds.
pub const MOST: u64 = 256 << 20;

/// Whose layout the components of the file have.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The CPU, if it has XSAVE.
    pub facts: &'a CpuidInfo,
    /// It was named on the command line, so that a file's own word does not count.
    pub named: bool,
    /// Whether this plan's tasks could have the registers is said too.
    pub plan: Option<&'a Plan>,
}

/// Decodes a raw area or the areas of a core file, whichever it is.
///
/// # Errors
///
/// The field that is wrong, with its offset in the file.
pub fn file(bytes: &[u8], origin: Origin<'_>, style: Style) -> Result<String, Malformed> {
    if !elf::is_elf(bytes) {
        let area = Area::new(bytes, 0, origin.facts)?;
        return Ok(show::area(&area, style) + &verdict(&area, bytes, origin.plan, style));
    }
    core(&elf::notes(bytes)?, origin, style)
}

fn core(notes: &[Note<'_>], origin: Origin<'_>, style: Style) -> Result<String, Malformed> {
    let record = notes.iter().find(|note| is(note, b"LINUX", elf::NT_X86_XSAVE_LAYOUT));
    let own = match record.filter(|_| !origin.named) {
        Some(note) => Some(recorded(note)?),
        None => None,
    };
    let facts = own.as_ref().unwrap_or(origin.facts);
    let extended = notes.iter().any(|note| is(note, b"LINUX", elf::NT_X86_XSTATE));
    let mut out = String::new();
    let mut thread = 0;
    let mut pid = None;
    for note in notes {
        if is(note, b"CORE", elf::NT_PRSTATUS) {
            // Behind the signal's three words, its number and two sets of signals.
            pid = u32_at(note.desc, 32);
            thread += 1;
        }
        let area = is(note, b"LINUX", elf::NT_X86_XSTATE);
        if !area && (extended || !is(note, b"CORE", elf::NT_PRFPREG)) {
            continue;
        }
        let who = pid.map_or_else(String::new, |pid| format!(", process {pid}"));
        let heading = format!("thread {}{who}, note at {:#x}", thread.max(1), note.at);
        let separator = if out.is_empty() { "" } else { "\n" };
        out += &format!("{separator}{}\n", style.bold(&heading));
        let bytes = if area { note.desc } else { note.desc.get(..LEGACY).unwrap_or(note.desc) };
        let area = Area::new(bytes, note.at, facts)?;
        out += &show::area(&area, style);
        out += &verdict(&area, bytes, origin.plan, style);
    }
    if out.is_empty() {
        let why = "none of the notes is NT_X86_XSTATE (0x202) or NT_PRFPREG (2)";
        return Err(Malformed::new("n_type", 0, why));
    }
    if own.is_some() {
        out += &style.dim("places by the file's own note NT_X86_XSAVE_LAYOUT\n");
    }
    Ok(out)
}

/// What the library's validation of foreign images says; it takes the standard format and FXSAVE's.
fn verdict(area: &Area<'_>, bytes: &[u8], plan: Option<&Plan>, style: Style) -> String {
    let Some(plan) = plan.filter(|_| area.kind != Kind::Compacted) else { return String::new() };
    let mut private = bytes.to_vec();
    let text = match ForeignImage::in_private(&mut private).validate(plan) {
        Ok(_) => style.good("a task of this machine could have these registers"),
        Err(why) => {
            let text = format!("refused for a task of this machine: {why}");
            style.bad(&show::wrapped(&text, 86, 12))
        }
    };
    format!("{}  {text}\n", style.bold("restore   "))
}

fn is(note: &Note<'_>, owner: &[u8], kind: u32) -> bool {
    note.owner == owner && note.kind == kind
}

/// A core file's own word on where its components are: number, size, offset and flags of each, as
/// CPUID would say it.
fn recorded(note: &Note<'_>) -> Result<CpuidInfo, Malformed> {
    const FIELD: &str = "NT_X86_XSAVE_LAYOUT";
    let mut words = Words::default();
    let mut all = 0b11_u64;
    if !note.desc.len().is_multiple_of(16) {
        let why = format!("{} bytes are no whole number of records", note.desc.len());
        return Err(Malformed::new(FIELD, note.at, why));
    }
    for (index, record) in note.desc.chunks_exact(16).enumerate() {
        let word = |at| u32_at(record, at).unwrap_or_default();
        let (number, size, offset, flags) = (word(0), word(4), word(8), word(12));
        if number > 62 || flags & 1 != 0 {
            let why = format!("{number} is no user component");
            return Err(Malformed::new(FIELD, note.at + 16 * index, why));
        }
        // x87 and SSE are described too, in the legacy area.
        if number >= 2 {
            words.set(LEAF, number, [size, offset, flags, 0]);
            all |= 1 << number;
        }
    }
    words.set(LEAF, 0, [all as u32, 576, 576, (all >> 32) as u32]);
    CpuidInfo::from_xsave_leaf(words).map_err(|why| Malformed::new(FIELD, note.at, explain(&why)))
}
