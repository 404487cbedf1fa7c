//! JSON lines in, JSON lines out: the layouts of other CPUs.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
};

use fpu_x86::CpuidInfo;

use super::{
    layouts::{explain, Layouts, Region},
    request::{self, Refused, Request},
};

/// Longer lines are refused, so that no input can take all memory.
pub const LONGEST: usize = 16 << 20;

/// Answers every line until the end of the input.
///
/// Answers go out before it waits for more input, so that a program at the other end of two pipes can
/// go line by line, while the answers to a large file are not written in small pieces.
///
/// # Errors
///
/// Those of the input and the output; a bad line is no error but an answer.
pub fn run(input: impl Read, output: impl Write) -> io::Result<()> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let mut output = BufWriter::with_capacity(1 << 16, output);
    let mut line = Vec::new();
    while let Some(whole) = next_line(&mut input, &mut line, &mut output)? {
        let answer = if whole { answer(&line) } else { too_long() };
        output.write_all(answer.as_bytes())?;
        output.write_all(b"\n")?;
    }
    output.flush()
}

/// Reads up to the next line feed. `Some(false)`: the line was too long, and is skipped. `None`: the
/// input has ended.
fn next_line(
    input: &mut BufReader<impl Read>,
    line: &mut Vec<u8>,
    output: &mut impl Write,
) -> io::Result<Option<bool>> {
    line.clear();
    let (mut whole, mut begun) = (true, false);
    loop {
        if input.buffer().is_empty() {
            output.flush()?;
        }
        let chunk = match input.fill_buf() {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            chunk => chunk?,
        };
        if chunk.is_empty() {
            return Ok(begun.then_some(whole));
        }
        begun = true;
        let end = chunk.iter().position(|c| *c == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        whole = whole && line.len() + part.len() <= LONGEST;
        if whole {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(Some(whole));
        }
    }
}

/// The answer to one line, without a line feed.
#[must_use]
pub fn answer(line: &[u8]) -> String {
    match request::read(line) {
        Ok(request) => match layouts(&request) {
            Ok(layouts) => right(&request, &layouts),
            Err(why) => wrong(Some(request.id), &why),
        },
        Err(Refused { id, why }) => wrong(id, &why),
    }
}

fn layouts(request: &Request<'_>) -> Result<Layouts, String> {
    request.cpuid.check_leaf()?;
    let facts = CpuidInfo::from_xsave_leaf(request.cpuid.clone()).map_err(|why| explain(&why))?;
    Layouts::new(&facts, request.bitmap)
}

fn too_long() -> String {
    wrong(None, &format!("the line is longer than {LONGEST} bytes"))
}

fn wrong(id: Option<&str>, why: &str) -> String {
    // A string as a JSON value prints as a JSON string.
    format!("{{\"id\":{},\"error\":{}}}", id.unwrap_or("null"), serde_json::Value::from(why))
}

fn right(request: &Request<'_>, layouts: &Layouts) -> String {
    let mut out = format!("{{\"id\":{},\"bitmap\":{}", request.id, request.bitmap_text);
    for (name, region) in [("standard", &layouts.standard), ("compacted", &layouts.compacted)] {
        let Region { len, places } = region;
        let mut separator = "";
        let _infallible = write!(out, ",\"{name}\":{{\"size\":{len},\"offsets\":{{");
        for (number, (offset, size)) in places {
            let _infallible = write!(out, "{separator}\"{number}\":[{offset},{size}]");
            separator = ",";
        }
        out += "}}";
    }
    out + "}"
}
