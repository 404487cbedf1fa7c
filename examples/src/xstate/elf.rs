//! The notes of an ELF64 core file, found by their headers: of the file no more is read.

use super::{
    bytes::{u16_at, u32_at, u64_at, Malformed},
    input::Input,
};

/// The save area of a thread, in the standard format.
pub const NT_X86_XSTATE: u32 = 0x202;
/// Where the components lie in it: four words each.
pub const NT_X86_XSAVE_LAYOUT: u32 = 0x205;
/// A thread's identity and general registers; the first note of each thread.
pub const NT_PRSTATUS: u32 = 1;
/// x87 and SSE alone: the 512 bytes of FXSAVE.
pub const NT_PRFPREG: u32 = 2;

/// The first four bytes.
pub const MAGIC: &[u8] = b"\x7fELF";
const HEADER: usize = 64;
const ET_CORE: u16 = 4;
/// The architecture, in the ELF header.
pub const EM_X86_64: u16 = 62;
const PT_NOTE: u32 = 4;
const PHENT: usize = 56;
/// More program headers than this are counted in the first section header.
const PN_XNUM: u16 = 0xFFFF;
/// No core file comes near these; a damaged one, or overlapping segments of one, could.
const MOST_HEADERS: u64 = 1 << 20;
const MOST_NOTES: usize = 1 << 16;
/// Headers that are read at once.
const AT_ONCE: usize = 1024;
/// Longer names of owners are cut.
const OWNER: usize = 32;

/// One note, without its contents.
#[derive(Clone, Debug)]
pub struct Note {
    /// Who defined it, without the final zero.
    pub owner: Vec<u8>,
    /// Which one.
    pub kind: u32,
    /// Bytes of its contents.
    pub len: u32,
    /// Where its header begins in the file.
    pub head: u64,
    /// Where the contents do.
    pub at: u64,
}

/// The notes that are whole, in the order of the file, and what is wrong with others.
#[derive(Debug, Default)]
pub struct Notes {
    /// The notes.
    pub whole: Vec<Note>,
    /// Why there may be more.
    pub wrong: Vec<Malformed>,
}

/// The name of the machine whose number is in `e_machine`.
fn machine(number: u16) -> &'static str {
    match number {
        2 | 18 | 43 => "SPARC",
        3 => "i386, a 32-bit program",
        8 => "MIPS",
        20 => "PowerPC",
        21 => "PowerPC64",
        22 => "s390",
        40 => "ARM",
        50 => "Itanium",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => "another machine",
    }
}

/// Checks that the header is that of a core file of this architecture. Returns the place and the number of its program
/// headers.
fn header(input: &Input) -> Result<(u64, u64), Malformed> {
    let file = input.bytes(0, HEADER);
    let ends = |name, at| Malformed::new(name, at, input.len(), "the file ends before it");
    let class = *file.get(4).ok_or_else(|| ends("EI_CLASS", 4))?;
    let order = *file.get(5).ok_or_else(|| ends("EI_DATA", 5))?;
    if order != 1 {
        let name = if order == 2 { "big-endian" } else { "no byte order" };
        return Err(Malformed::new("EI_DATA", 5, order, format!("{name}, not little-endian (1)")));
    }
    let kind = u16_at(&file, 16).ok_or_else(|| ends("e_type", 16))?;
    let number = u16_at(&file, 18).ok_or_else(|| ends("e_machine", 18))?;
    if number != EM_X86_64 {
        let why = format!("{}, not x86-64 (62)", machine(number));
        return Err(Malformed::new("e_machine", 18, number, why));
    }
    if class != 2 {
        return Err(Malformed::new("EI_CLASS", 4, class, "not a 64-bit ELF file (2)"));
    }
    if kind != ET_CORE {
        return Err(Malformed::new("e_type", 16, kind, "not that of a core file (4)"));
    }
    let table = u64_at(&file, 32).ok_or_else(|| ends("e_phoff", 32))?;
    let entry = u16_at(&file, 54).ok_or_else(|| ends("e_phentsize", 54))?;
    if usize::from(entry) != PHENT {
        return Err(Malformed::new("e_phentsize", 54, entry, format!("not {PHENT}")));
    }
    let count = u16_at(&file, 56).ok_or_else(|| ends("e_phnum", 56))?;
    if count != PN_XNUM {
        return Ok((table, count.into()));
    }
    let sections = u64_at(&file, 40).ok_or_else(|| ends("e_shoff", 40))?;
    let counted = sections.checked_add(44).and_then(|info| input.array(info));
    let outside =
        || Malformed::new("e_shoff", 40, sections, "the section header is not within the file");
    Ok((table, u32::from_le_bytes(counted.ok_or_else(outside)?).into()))
}

/// All notes. The counts and sizes in the file are not trusted: what they name is looked at as far as it is there.
///
/// # Errors
///
/// The field that is not as in a core file of this architecture.
pub fn notes(input: &Input) -> Result<Notes, Malformed> {
    let (table, count) = header(input)?;
    let mut notes = Notes::default();
    let mut at = table;
    let mut left = count.min(MOST_HEADERS);
    while left > 0 {
        let most = left.min(AT_ONCE as u64) as usize;
        let bytes = input.bytes(at, most * PHENT);
        for header in bytes.chunks_exact(PHENT) {
            if u32_at(header, 0) == Some(PT_NOTE) {
                segment(input, header, at, &mut notes);
            }
            at += PHENT as u64;
            left -= 1;
        }
        if bytes.len() < most * PHENT {
            let why = format!("{count} program headers, of which {left} are not within the file");
            notes.wrong.push(Malformed::new("e_phoff", 32, table, why));
            return Ok(notes);
        }
    }
    if count > MOST_HEADERS {
        let why = format!("{count} program headers, at most {MOST_HEADERS} are looked at");
        notes.wrong.push(Malformed::new("e_phnum", 56, count, why));
    }
    Ok(notes)
}

/// The notes of one segment, as far as they are whole.
fn segment(input: &Input, header: &[u8], header_at: u64, notes: &mut Notes) {
    let long = |at| u64_at(header, at).unwrap_or_default(); // a header is whole
    let (from, size) = (long(8), long(32));
    let Some(end) = from.checked_add(size) else {
        let why = format!("{size} bytes of notes at {from:#x}: the sum has over 64 bits");
        notes.wrong.push(Malformed::new("p_filesz", header_at + 32, size, why));
        return;
    };
    let mut at = from;
    while at < end {
        // An end that is not aligned has no note behind it.
        let rest = end - at;
        let wrong = if notes.whole.len() == MOST_NOTES {
            let why = format!("more than {MOST_NOTES} notes");
            Malformed::new("p_filesz", header_at + 32, size, why)
        } else {
            match note(input, at, rest) {
                Ok((note, next)) => {
                    notes.whole.push(note);
                    at += next;
                    continue;
                }
                Err(why) => why,
            }
        };
        notes.wrong.push(wrong);
        return;
    }
}

/// The note at `at`, of whose segment `rest` bytes are left, and how far it is to the next one.
fn note(input: &Input, at: u64, rest: u64) -> Result<(Note, u64), Malformed> {
    const HEAD: u64 = 12;
    let head = input.bytes(at, HEAD as usize + OWNER);
    let (Some(name), Some(len), Some(kind)) =
        (u32_at(&head, 0), u32_at(&head, 4), u32_at(&head, 8))
    else {
        return Err(Malformed::new("n_namesz", at, input.len(), "the file ends before the note"));
    };
    if rest < HEAD {
        return Err(Malformed::new("n_namesz", at, name, "the segment ends within the note"));
    }
    // Both lengths are 32 bits wide, so sums of them do not overflow.
    let from = HEAD + u64::from(name).next_multiple_of(4);
    let to = from + u64::from(len);
    if HEAD + u64::from(name) > rest {
        let why = format!("a name of {name} bytes leaves the segment");
        return Err(Malformed::new("n_namesz", at, name, why));
    }
    if to > rest {
        let why = format!("contents of {len} bytes leave the segment");
        return Err(Malformed::new("n_descsz", at + 4, len, why));
    }
    if at.saturating_add(to) > input.len() {
        let there = input.len().saturating_sub(at.saturating_add(from));
        let why = format!("contents of {len} bytes, of which the file has {there}");
        return Err(Malformed::new("n_descsz", at + 4, len, why));
    }
    let owner = head.get(HEAD as usize..).unwrap_or_default();
    let owner = owner.get(..name as usize).unwrap_or(owner);
    let owner = owner.strip_suffix(b"\0").unwrap_or(owner).to_vec();
    Ok((Note { owner, kind, len, head: at, at: at + from }, to.next_multiple_of(4)))
}
