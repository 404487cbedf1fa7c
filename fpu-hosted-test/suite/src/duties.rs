//! The duties of unsafe code: their index against what comments state and cite.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::run::Suite;

const INDEX: &str = "docs/duties.md";
/// The series: promises of a kernel, a backend and a caller, and needs of an instruction.
const SERIES: &[u8] = b"KBCN";

/// A row of the index.
#[derive(Debug)]
struct Duty {
    stated: String,
    cited: String,
}

/// A comment's line: the text behind its slashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Beside code.
    Plain,
    /// Beside code of an example, in documentation or on a page.
    Example,
    /// Documentation, and what it says in a section on safety.
    Doc { safety: bool },
    /// A page's.
    Prose,
}

#[derive(Debug)]
struct Line<'a> {
    number: usize,
    kind: Kind,
    text: &'a str,
}

/// An argument for an unsafe block or impl.
struct Argument {
    number: usize,
    kind: Kind,
    text: String,
}

pub fn check(suite: &Suite, files: &[String]) -> Vec<String> {
    let mut sources = BTreeMap::new();
    for file in files.iter().filter(|file| file.ends_with(".rs") || file.ends_with(".md")) {
        let path = suite.root.join(file);
        if let (false, Ok(text)) = (path.is_symlink(), fs::read_to_string(&path)) {
            sources.insert(file.clone(), text);
        }
    }
    wrong(&sources)
}

fn wrong(sources: &BTreeMap<String, String>) -> Vec<String> {
    let Some(page) = sources.get(INDEX) else { return vec![format!("{INDEX}: no such file")] };
    let mut wrong = Vec::new();
    let index = index(page, &mut wrong);
    let (mut stated, mut cited) =
        (BTreeMap::<_, Vec<&str>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
    for (file, text) in sources.iter().filter(|(file, _)| *file != INDEX) {
        let lines = if file.ends_with(".rs") { of_source(text) } else { of_page(text) };
        for line in &lines {
            for code in codes(line.text) {
                if SERIES.contains(&code.as_bytes()[0]) && !index.contains_key(&code) {
                    wrong.push(format!("{file}:{}: no duty {code}", line.number));
                }
            }
            let own = statement(line);
            if let Some(code) = &own {
                stated.entry(code.clone()).or_default().push(file);
            }
            if line.kind == (Kind::Doc { safety: true }) {
                for code in
                    expanded(line.text).into_iter().filter(|code| own.as_ref() != Some(code))
                {
                    cited.entry(code).or_default().insert((file.as_str(), true));
                }
            }
        }
        for argument in arguments(&lines) {
            wrong.extend(
                flaws(&argument)
                    .into_iter()
                    .map(|why| format!("{file}:{}: {why}", argument.number)),
            );
            for code in expanded(&argument.text) {
                cited
                    .entry(code)
                    .or_default()
                    .insert((file.as_str(), argument.kind == Kind::Plain));
            }
        }
    }
    for (code, duty) in &index {
        match stated.remove(code).unwrap_or_default()[..] {
            [] => wrong.push(format!("{INDEX}: {code} is stated nowhere (`* **{code}** ..`)")),
            [file] if file == duty.stated => {}
            [file] => wrong.push(format!("{INDEX}: {code} is stated in {file}")),
            ref files => wrong.push(format!("{code} is stated in {}", files.join(" and "))),
        }
        let by = cited.remove(code).unwrap_or_default();
        if by.is_empty() {
            wrong.push(format!("{code} is cited by no argument"));
        }
        let column = column(&duty.stated, &by);
        if column != duty.cited {
            wrong.push(format!("{INDEX}: {code} is cited in: {column}"));
        }
    }
    let unlisted = stated.into_keys().map(|code| format!("{INDEX} lacks {code}"));
    wrong.extend(unlisted);
    wrong
}

/// The rows, whose numbers grow. One that is given up leaves a gap.
fn index(page: &str, wrong: &mut Vec<String>) -> BTreeMap<String, Duty> {
    let mut index = BTreeMap::new();
    let mut last = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> =
            line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let [code, words, text, stated, cited] = cells[..] else { continue };
        if codes(code) != [code] || !SERIES.contains(&code.as_bytes()[0]) {
            continue;
        }
        let number: usize = code[1..].parse().unwrap_or(0);
        if last.insert(code.as_bytes()[0], number).unwrap_or(0) >= number {
            wrong.push(format!("{INDEX}: {code} stands behind a later one"));
        }
        if words.is_empty() || text.is_empty() {
            wrong.push(format!("{INDEX}: {code} says nothing"));
        }
        let stated = stated.split('`').find(|part| part.ends_with(".rs")).unwrap_or("").to_owned();
        index.insert(code.to_owned(), Duty { stated, cited: cited.to_owned() });
    }
    index
}

/// The files whose arguments cite a duty: of the libraries, or of all crates if it is none of the libraries'.
fn column(stated: &str, by: &BTreeSet<(&str, bool)>) -> String {
    let library = |name: &str| name.starts_with("core/") || name.starts_with("x86/");
    let of_library = short(stated).is_some_and(|name| library(&name));
    let names = by.iter().filter(|(_, real)| *real).filter_map(|(file, _)| short(file));
    let names: BTreeSet<String> = names.filter(|name| !of_library || library(name)).collect();
    if names.is_empty() {
        return "-".into();
    }
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn short(file: &str) -> Option<String> {
    const CRATES: [(&str, &str); 5] = [
        ("fpu-core/src/", "core/"),
        ("fpu-x86/src/", "x86/"),
        ("fpu-hosted-test/src/", "hosted/"),
        ("examples/src/", "examples/"),
        ("examples/kernel/src/", "kernel/"),
    ];
    let (from, to) = CRATES.into_iter().find(|(from, _)| file.starts_with(from))?;
    let name = file[from.len()..].trim_end_matches(".rs").trim_end_matches("/mod");
    (!name.starts_with("tests/")).then(|| format!("{to}{name}"))
}

fn of_source(text: &str) -> Vec<Line<'_>> {
    let (mut lines, mut safety, mut fenced) = (Vec::new(), false, false);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let kind;
        let text = if let Some(doc) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
        {
            let doc = doc.strip_prefix(' ').unwrap_or(doc);
            if doc.trim_start().starts_with("```") {
                (fenced, safety) = (!fenced, false);
            } else if !fenced && doc.starts_with('#') {
                safety = doc.ends_with("# Safety");
            }
            match in_example(doc) {
                Some(text) if fenced => {
                    kind = Kind::Example;
                    text
                }
                _ if fenced => continue,
                _ => {
                    kind = Kind::Doc { safety };
                    doc
                }
            }
        } else if let Some(text) = line.strip_prefix("//") {
            kind = Kind::Plain;
            text
        } else {
            (safety, fenced) = (false, false);
            continue;
        };
        lines.push(Line { number: number + 1, kind, text });
    }
    lines
}

/// The comment of a line of an example, hidden or not.
fn in_example(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix('#').unwrap_or(line).trim_start().strip_prefix("//")
}

fn of_page(text: &str) -> Vec<Line<'_>> {
    let (mut lines, mut fenced) = (Vec::new(), false);
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push(Line { number: number + 1, kind: Kind::Prose, text: line });
        } else if let Some(text) = in_example(line) {
            lines.push(Line { number: number + 1, kind: Kind::Example, text });
        }
    }
    lines
}

fn arguments(lines: &[Line<'_>]) -> Vec<Argument> {
    let mut found: Vec<Argument> = Vec::new();
    let mut last = None;
    for line in lines {
        let goes_on = last == Some((line.number - 1, line.kind)) && !line.text.trim().is_empty();
        last = None;
        if !matches!(line.kind, Kind::Plain | Kind::Example) {
            continue;
        }
        if let Some((_, text)) = line.text.split_once("SAFETY:") {
            found.push(Argument { number: line.number, kind: line.kind, text: text.to_owned() });
        } else if let (true, Some(argument)) = (goes_on, found.last_mut()) {
            argument.text.push(' ');
            argument.text.push_str(line.text.trim());
        } else {
            continue;
        }
        last = Some((line.number, line.kind));
    }
    found
}

/// The flaws of an argument.
fn flaws(argument: &Argument) -> Vec<String> {
    let text = argument.text.trim();
    let lower = text.to_lowercase();
    let pointers = ["as above", "see above", "as below", "see below", "likewise", "ditto"];
    let mut flaws: Vec<String> = pointers
        .into_iter()
        .filter(|pointer| lower.contains(pointer))
        .map(|pointer| format!("\"{pointer}\" is no argument"))
        .collect();
    let found = places(text);
    let mut at = 0;
    while at < found.len() {
        let mut end = at;
        while end + 1 < found.len() && joins(&text[found[end].1..found[end + 1].0]) {
            end += 1;
        }
        let (from, to) = (found[at].0, found[end].1);
        if !has_words(&text[..from], &text[to..]) {
            flaws.push(format!("no words beside {}", &text[from..to]));
        }
        at = end + 1;
    }
    // A series of before, or a slip.
    flaws.extend(codes(text).into_iter().filter_map(|code| {
        let old = matches!(code.as_bytes(), [b'A' | b'D'..=b'H' | b'L' | b'O'..=b'Z', b'1'..=b'7']);
        old.then(|| format!("no duty {code}"))
    }));
    flaws
}

fn joins(between: &str) -> bool {
    matches!(between, ", " | " and " | ", and " | " or " | " to " | "-")
}

/// `words (K1)`, `K1 (words)`, or `K1: words`.
fn has_words(before: &str, behind: &str) -> bool {
    if let Some(said) = behind.strip_prefix(':') {
        return said.contains(|c: char| c.is_ascii_lowercase());
    }
    if let Some(said) = behind.strip_prefix(" (") {
        return said.starts_with(|c: char| c.is_alphabetic() || c == '`');
    }
    let open = before.matches('(').count() > before.matches(')').count();
    let ahead = before.rsplit_once('(').map_or("", |(ahead, _)| ahead);
    open && ahead.contains(|c: char| c.is_ascii_lowercase())
}

/// The codes of all series, also those that are none: a letter and a number from 1 to 99.
fn codes(text: &str) -> Vec<String> {
    let found = places(text).into_iter();
    found.map(|(from, to)| text[from..to].to_owned()).collect()
}

fn places(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    for at in 0..bytes.len() {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let end = at + 1 + digits;
        let part_of_word = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_[<`/.".contains(byte))
        };
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let follows =
            bytes.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let hex = |byte: &u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(byte);
        let opcode = at >= 3 && bytes[at - 1] == b' ' && bytes[at - 3..at - 1].iter().all(hex);
        if bytes[at].is_ascii_uppercase()
            && (1..=2).contains(&digits)
            && bytes[at + 1] != b'0'
            && !part_of_word(before)
            && !follows
            && !opcode
        {
            found.push((at, end));
        }
    }
    found
}

/// The codes in a text, those between the ends of `K2-K6` and `K2 to K6` included.
fn expanded(text: &str) -> Vec<String> {
    let found = places(text);
    let mut all = codes(text);
    for pair in found.windows(2) {
        let ((from, end), (next, last)) = (pair[0], pair[1]);
        if matches!(&text[end..next], "-" | " to ") && text[from..=from] == text[next..=next] {
            let number = |at: usize, end: usize| text[at + 1..end].parse::<u32>().unwrap_or(0);
            let series = &text[from..=from];
            all.extend((number(from, end) + 1..number(next, last)).map(|n| format!("{series}{n}")));
        }
    }
    all
}

/// `* **K1** ..` states K1.
fn statement(line: &Line<'_>) -> Option<String> {
    let Kind::Doc { .. } = line.kind else { return None };
    let rest = line.text.trim_start().strip_prefix("* **")?;
    let (code, _) = rest.split_once("**")?;
    (codes(code) == [code] && SERIES.contains(&code.as_bytes()[0])).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaws_of(text: &str) -> Vec<String> {
        flaws(&Argument { number: 1, kind: Kind::Plain, text: text.to_owned() })
    }

    const PAGE: &str = "| K1 | one | text | `f`, `fpu-core/src/a.rs` | core/b |\n";
    const STATES: &str = "/// # Safety\n///\n/// * **K1** it is the one.\nfn f() {}\n";
    const CITES: &str = "// SAFETY: the only one (K1).\n";

    fn sources(page: &str, a: &str, b: &str) -> Vec<String> {
        let files = [(INDEX, page), ("fpu-core/src/a.rs", a), ("fpu-core/src/b.rs", b)];
        wrong(&files.map(|(name, text)| (name.to_owned(), text.to_owned())).into())
    }

    #[test]
    fn a_duty_is_listed_stated_once_and_cited() {
        assert_eq!(sources(PAGE, STATES, CITES), [""; 0]);
        for (page, a, b, why) in [
            ("", STATES, CITES, "no duty K1"),
            ("", STATES, "", "lacks K1"),
            (PAGE, "", CITES, "stated nowhere"),
            (PAGE, CITES, STATES, "is stated in fpu-core/src/b.rs"),
            (PAGE, &STATES.repeat(2), CITES, "stated in fpu-core/src/a.rs and"),
            (PAGE, STATES, "", "cited by no argument"),
            (PAGE, STATES, "/// ```\n/// // SAFETY: K1: the one.\n/// ```\n", "is cited in: -"),
            (PAGE, STATES, &format!("{CITES}// B2 too\n"), "b.rs:2: no duty B2"),
            (&PAGE.replace("core/b", "-"), STATES, CITES, "K1 is cited in: core/b"),
            (
                &format!("{}{PAGE}", PAGE.replace("K1", "K2")),
                STATES,
                CITES,
                "K1 stands behind a later one",
            ),
            (&PAGE.replace("text", ""), STATES, CITES, "says nothing"),
        ] {
            let wrong = sources(page, a, b);
            assert!(wrong.iter().any(|said| said.contains(why)), "{why}: {wrong:?}");
        }
    }

    #[test]
    fn a_section_on_safety_cites_what_it_asks_for() {
        let asks =
            "/// # Safety\n///\n/// One (K1) as for `f`.\n///\n/// # Errors\n///\n/// None.\n";
        assert_eq!(sources(PAGE, STATES, asks), [""; 0]);
        assert_ne!(sources(PAGE, STATES, &asks.replace("# Safety", "# Panics")), [""; 0]);
    }

    #[test]
    fn a_code_without_words_is_no_argument() {
        for right in [
            "pinned (K2), soft-float (K9); closed",
            "K2, K8: interrupts are off. K3: per-CPU data",
            "what K9 (soft-float) forbids",
            "the witness's duties (K2 to K6)",
            "N4: undisturbed in ring 0 (C1)",
            "an opcode, 0F 01 D1, of x87; no code at all",
        ] {
            assert_eq!(flaws_of(right), [""; 0], "{right}");
        }
        for bare in
            ["K1", "C1 to C5.", "N4: C1. N5: bits stay (C5).", "the caller's C9", "K1:", "(K1)"]
        {
            assert_eq!(flaws_of(bare).len(), 1, "{bare}");
        }
        assert_eq!(flaws_of("N4: C1.").len(), 2);
        assert_eq!(flaws_of("pinned (P1)"), ["no duty P1"]);
        assert_eq!(flaws_of("as above, and N4: ring 0"), ["\"as above\" is no argument"]);
    }

    #[test]
    fn an_argument_ends_where_its_comment_ends() {
        let text = "// SAFETY: one,\n// and more.\n//\n// Not this.\n/// // nor this\n// SAFETY: two\nf();\n// three\n";
        let texts: Vec<_> = arguments(&of_source(text)).into_iter().map(|a| a.text).collect();
        assert_eq!(texts, [" one, and more.", " two"]);
        let page = "K1\n```rust\n# // SAFETY: hidden\nf(); // K2\n```\n";
        assert_eq!(of_page(page).len(), 2);
        assert_eq!(arguments(&of_page(page))[0].text, " hidden");
    }

    #[test]
    fn ranges_name_what_is_between() {
        assert_eq!(expanded("K2-K4, C1 to C3"), ["K2", "K4", "C1", "C3", "K3", "C2"]);
        assert_eq!(codes("K0-7 X87 R16D `B1` fork<A2> C100 (N9)"), ["X87", "N9"]);
    }
}
