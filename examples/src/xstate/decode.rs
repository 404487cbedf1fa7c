//! `xstate decode`: shows the contents of a file.

use fpu_x86::{ForeignImage, ForeignLayout, ForeignRules, Plan};

use crate::report::Style;

use super::{
    bytes::{Malformed, LEGACY},
    elf::{self, Note, Notes},
    input::Input,
    json,
    reading::{Kind, Origin, Raw, MOST},
    show, text,
    whose::Whose,
};

/// The form in which the registers are written.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// For people.
    Show(Style),
    /// For `encode`.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// The facts that are known besides the file.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The layout that images have.
    pub whose: &'a Whose,
    /// The plan for whose tasks the output says whether they could have the registers.
    pub plan: Option<&'a Plan>,
}

/// Decodes a raw image or the images of a core file, whichever it is, and passes on what is to be printed, piece by
/// piece. Returns the parts that could not be decoded.
///
/// # Errors
///
/// Those of `out`.
pub fn decode<E>(
    input: &Input,
    known: &Known<'_>,
    form: Form,
    mut out: impl FnMut(&str) -> Result<(), E>,
) -> Result<Vec<Malformed>, E> {
    if input.bytes(0, 4) == elf::MAGIC {
        return core(input, known, form, &mut out);
    }
    let whole = usize::try_from(input.len()).unwrap_or(usize::MAX);
    let raw = Raw { bytes: input.bytes(0, MOST), whole, base: 0, file: true };
    match one(raw, &Origin::default(), None, known, form) {
        Ok(text) => out(&text).map(|()| Vec::new()),
        Err(why) => Ok(vec![why]),
    }
}

/// One image, as text.
fn one(
    mut raw: Raw,
    origin: &Origin,
    note: Option<&ForeignLayout>,
    known: &Known<'_>,
    form: Form,
) -> Result<String, Malformed> {
    let told = raw.tell(known.whose, note)?;
    // Reading it changes the copy.
    let (mut copy, whole) = (raw.bytes.clone(), raw.whole);
    let reading = raw.read(&told)?;
    let verdict = known.plan.filter(|_| reading.kind != Kind::Compacted).map(|plan| {
        let rules = match reading.by {
            Some(_) => ForeignRules::new().layout(&told.layout),
            None => ForeignRules::new(),
        };
        let format = plan.user_format();
        match reading.kind {
            Kind::Frame => format.read_frame_by(&rules, &mut copy).map(drop),
            Kind::Frame32 => format.read_frame_32_by(&rules, &mut copy).map(drop),
            _ => ForeignImage::first_of(whole, &mut copy).validate_by(&rules, plan).map(drop),
        }
    });
    Ok(match form {
        Form::Show(style) => show::image(&reading, origin, verdict, style),
        Form::Text => text::write(&reading, origin),
        Form::Json => json::image(&reading, origin, verdict),
    })
}

/// A thread's notes.
#[derive(Debug, Default)]
struct Thread {
    id: Option<u32>,
    images: Vec<Note>,
    legacy: Option<Note>,
}

/// Notes that other systems than Linux give the same types.
fn is(note: &Note, owners: &[&str], kind: u32) -> bool {
    note.kind == kind && owners.iter().any(|owner| note.owner == owner.as_bytes())
}

fn core<E>(
    input: &Input,
    known: &Known<'_>,
    form: Form,
    out: &mut impl FnMut(&str) -> Result<(), E>,
) -> Result<Vec<Malformed>, E> {
    let Notes { whole, mut wrong } = match elf::notes(input) {
        Ok(notes) => notes,
        Err(why) => return Ok(vec![why]),
    };
    let mut layout = None;
    if let Some(note) = whole.iter().find(|note| is(note, &["LINUX"], elf::NT_X86_XSAVE_LAYOUT)) {
        match recorded(input, note) {
            Ok(read) => layout = Some(read),
            Err(why) => {
                wrong.push(why);
                return Ok(wrong);
            }
        }
    }
    let threads = threads(input, &whole);
    if threads.is_empty() {
        if wrong.is_empty() {
            let why = unknown(&whole);
            wrong.push(match whole.first() {
                Some(note) => Malformed::new("n_type", note.head + 8, note.kind, why),
                None => {
                    let count = input.array(56).map_or(0, u16::from_le_bytes);
                    Malformed::new("e_phnum", 56, count, why)
                }
            });
        }
        return Ok(wrong);
    }
    let mut begun = false;
    let mut say = |text: &str| {
        let apart = if begun && !matches!(form, Form::Json) { "\n" } else { "" };
        begun = true;
        out(&format!("{apart}{text}"))
    };
    for (index, thread) in threads.iter().enumerate() {
        let origin = Origin { thread: Some(index + 1), id: thread.id, ..Origin::default() };
        let images = match (&thread.images[..], &thread.legacy) {
            ([], Some(legacy)) => std::slice::from_ref(legacy),
            (images, _) => images,
        };
        if images.is_empty() {
            say(&match form {
                Form::Show(style) => show::nothing(&origin, style),
                Form::Text => text::nothing(&origin),
                Form::Json => json::nothing(&origin),
            })?;
        }
        for note in images {
            let owner = String::from_utf8_lossy(&note.owner).into_owned();
            let origin = Origin { note: Some((owner, note.kind)), at: note.at, ..origin.clone() };
            let len = note.len as usize;
            let whole = if note.kind == elf::NT_PRFPREG { len.min(LEGACY) } else { len };
            let bytes = input.bytes(note.at, whole.min(MOST));
            let raw = Raw { bytes, whole, base: note.at, file: false };
            match one(raw, &origin, layout.as_ref(), known, form) {
                Ok(text) => say(&text)?,
                Err(why) => wrong.push(why),
            }
        }
    }
    Ok(wrong)
}

/// The notes by thread. A thread begins with its NT_PRSTATUS.
fn threads(input: &Input, notes: &[Note]) -> Vec<Thread> {
    let mut threads: Vec<Thread> = Vec::new();
    for note in notes {
        let status = is(note, &["CORE", "FreeBSD"], elf::NT_PRSTATUS);
        let image = is(note, &["LINUX", "FreeBSD"], elf::NT_X86_XSTATE);
        let legacy = is(note, &["CORE", "FreeBSD"], elf::NT_PRFPREG);
        if status || (threads.is_empty() && (image || legacy)) {
            threads.push(Thread::default());
        }
        let Some(thread) = threads.last_mut() else { continue };
        if status {
            thread.id = id(input, note);
        } else if image {
            thread.images.push(note.clone());
        } else if legacy && thread.legacy.is_none() {
            thread.legacy = Some(note.clone());
        }
    }
    threads
}

/// The system's number of a thread. Linux: behind the signal's three words, its number and two sets of signals.
/// FreeBSD, which puts a version in front: behind three sizes and two words.
fn id(input: &Input, status: &Note) -> Option<u32> {
    let word = |at: u64| {
        let inside = at + 4 <= u64::from(status.len);
        input.array(status.at + at).filter(|_| inside).map(u32::from_le_bytes)
    };
    match &status.owner[..] {
        b"FreeBSD" => word(40).filter(|_| word(0) == Some(1)),
        _ => word(32),
    }
}

/// The text that stands in the place of registers.
fn unknown(notes: &[Note]) -> String {
    const MOST: usize = 4;
    let mut kinds: Vec<String> = Vec::new();
    for note in notes {
        let owner = String::from_utf8_lossy(&note.owner);
        let owner: String = owner.chars().filter(|c| !c.is_control()).collect();
        let name = format!("{owner} {:#x}", note.kind);
        if kinds.len() <= MOST && !kinds.contains(&name) {
            kinds.push(name);
        }
    }
    let seen = match kinds.len() {
        0 => "there is no note".to_owned(),
        len if len > MOST => format!("there are {}, and others", kinds[..MOST].join(", ")),
        _ => format!("there are {}", kinds.join(", ")),
    };
    format!("no notes of threads: NT_PRSTATUS (1), NT_PRFPREG (2), NT_X86_XSTATE (0x202); {seen}")
}

/// A core file's own word on where its components are.
fn recorded(input: &Input, note: &Note) -> Result<ForeignLayout, Malformed> {
    /// One record more than there can be.
    const MOST: usize = 62 * 16;
    let bytes = input.bytes(note.at, MOST.min(note.len as usize));
    ForeignLayout::from_note(&bytes).map_err(|why| Malformed::foreign(&why, note.at))
}
