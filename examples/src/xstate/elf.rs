//! The notes of an ELF64 core file.

use super::bytes::{array, u16_at, u32_at, u64_at, Malformed};

/// The save area of a thread, in the standard format.
pub const NT_X86_XSTATE: u32 = 0x202;
/// Where the components lie in it: four words each.
pub const NT_X86_XSAVE_LAYOUT: u32 = 0x205;
/// A thread's identity and general registers; the first note of each thread.
pub const NT_PRSTATUS: u32 = 1;
/// x87 and SSE alone: the 512 bytes of FXSAVE.
pub const NT_PRFPREG: u32 = 2;

const MAGIC: &[u8] = b"\x7fELF";
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_NOTE: u32 = 4;
const PHENT: usize = 56;
/// More program headers than this are counted in the first section header.
const PN_XNUM: u16 = 0xFFFF;
/// No core file comes near; overlapping segments of a damaged one could.
const MOST_NOTES: usize = 1 << 16;

/// One note.
#[derive(Clone, Copy, Debug)]
pub struct Note<'a> {
    /// Who defined it, without the final zero.
    pub owner: &'a [u8],
    /// Which one.
    pub kind: u32,
    /// Its contents.
    pub desc: &'a [u8],
    /// Where the contents begin in the file.
    pub at: usize,
}

/// Does it say so?
#[must_use]
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

fn field<T>(value: Option<T>, name: &str, at: usize) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed::new(name, at, "the file ends before it"))
}

/// All notes, in the order of the file.
///
/// # Errors
///
/// The field that is not as in a core file of this architecture.
pub fn notes(file: &[u8]) -> Result<Vec<Note<'_>>, Malformed> {
    let [class, order] = field(array(file, 4), "e_ident", 4)?;
    if (class, order) != (2, 1) {
        return Err(Malformed::new("e_ident", 4, "not a little-endian 64-bit ELF file"));
    }
    let kind = field(u16_at(file, 16), "e_type", 16)?;
    if kind != ET_CORE {
        return Err(Malformed::new("e_type", 16, format!("{kind}, not that of a core file (4)")));
    }
    let machine = field(u16_at(file, 18), "e_machine", 18)?;
    if machine != EM_X86_64 {
        return Err(Malformed::new("e_machine", 18, format!("{machine}, not x86-64 (62)")));
    }
    let table = field(u64_at(file, 32), "e_phoff", 32)?;
    let entry = field(u16_at(file, 54), "e_phentsize", 54)?;
    if usize::from(entry) != PHENT {
        return Err(Malformed::new("e_phentsize", 54, format!("{entry}, not {PHENT}")));
    }
    let count = program_headers(file)?;
    let headers = table.try_into().ok().and_then(|from: usize| {
        let size = count.checked_mul(PHENT)?;
        Some((from, file.get(from..from.checked_add(size)?)?))
    });
    let (from, headers) = headers.ok_or_else(|| {
        let why = format!("{count} program headers at {table:#x} are not within the file");
        Malformed::new("e_phoff", 32, why)
    })?;
    let mut notes = Vec::new();
    for (index, header) in headers.chunks_exact(PHENT).enumerate() {
        if u32_at(header, 0) == Some(PT_NOTE) {
            segment(file, header, from + index * PHENT, &mut notes)?;
        }
    }
    Ok(notes)
}

fn program_headers(file: &[u8]) -> Result<usize, Malformed> {
    let count = field(u16_at(file, 56), "e_phnum", 56)?;
    if count != PN_XNUM {
        return Ok(count.into());
    }
    let sections = field(u64_at(file, 40), "e_shoff", 40)?;
    let info = usize::try_from(sections).ok().and_then(|at| at.checked_add(44));
    let count = info.and_then(|at| u32_at(file, at));
    let count = count.ok_or_else(|| {
        let why = format!("the section header at {sections:#x} is not within the file");
        Malformed::new("e_shoff", 40, why)
    })?;
    Ok(count as usize)
}

fn segment<'a>(
    file: &'a [u8],
    header: &[u8],
    header_at: usize,
    notes: &mut Vec<Note<'a>>,
) -> Result<(), Malformed> {
    let from = field(u64_at(header, 8), "p_offset", header_at + 8)?;
    let size = field(u64_at(header, 32), "p_filesz", header_at + 32)?;
    let bounds = usize::try_from(from).ok().zip(usize::try_from(size).ok());
    let found = bounds.and_then(|(from, size)| {
        let bytes = file.get(from..from.checked_add(size)?)?;
        Some((from, bytes))
    });
    let (from, bytes) = found.ok_or_else(|| {
        let why = format!("the notes, {size} bytes at {from:#x}, are not within the file");
        Malformed::new("p_offset", header_at + 8, why)
    })?;
    let mut at = 0;
    while at < bytes.len() {
        let note_at = from + at;
        let name_len = field(u32_at(bytes, at), "n_namesz", note_at)? as usize;
        let desc_len = field(u32_at(bytes, at + 4), "n_descsz", note_at + 4)? as usize;
        let kind = field(u32_at(bytes, at + 8), "n_type", note_at + 8)?;
        // Both fields are 32 bits wide, so sums of them do not overflow.
        let name_at = at + 12;
        let desc_at = (name_at + name_len).next_multiple_of(4);
        let owner = bytes.get(name_at..name_at + name_len).ok_or_else(|| {
            let why = format!("a name of {name_len} bytes leaves the segment");
            Malformed::new("n_namesz", note_at, why)
        })?;
        let desc = bytes.get(desc_at..desc_at + desc_len).ok_or_else(|| {
            let why = format!("contents of {desc_len} bytes leave the segment");
            Malformed::new("n_descsz", note_at + 4, why)
        })?;
        let owner = owner.strip_suffix(b"\0").unwrap_or(owner);
        if notes.len() == MOST_NOTES {
            let why = format!("more than {MOST_NOTES} notes");
            return Err(Malformed::new("n_type", note_at + 8, why));
        }
        notes.push(Note { owner, kind, desc, at: from + desc_at });
        at = (desc_at + desc_len).next_multiple_of(4);
    }
    Ok(())
}
