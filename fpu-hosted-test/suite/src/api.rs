//! The public API of each library as a text in the repository, so that a change of it shows where changes are read.
//!
//! The step reads the text off the pages that `rustdoc` writes, which have what macros make, and every impl. The pages
//! differ a little with each version of Rust, so the step compares the text with those of one version only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::{
    run::{Outcome, Suite, LIBRARIES},
    toolchains,
};

/// The minor version of the Rust whose pages are recorded, as for the messages of `tests/ui`.
const RECORDED: u32 = 95;

/// The directory of the texts.
const TEXTS: &str = "docs/api";

pub fn check(suite: &Suite) -> Outcome {
    match toolchains::minor() {
        Some(RECORDED) => {}
        other => {
            let other =
                other.map_or("no version of Rust".into(), |minor| format!("Rust 1.{minor}"));
            return Outcome::Skipped(format!("recorded of Rust 1.{RECORDED}, and this is {other}"));
        }
    }
    if let Err(why) = suite.documentation() {
        return Outcome::Failed(why);
    }
    let bless = std::env::var_os("FPU_BLESS").is_some();
    let (mut wrong, mut items) = (Vec::new(), 0);
    for library in LIBRARIES {
        let file = format!("{TEXTS}/{library}.txt");
        let path = suite.root.join(&file);
        let now = match text(library, &suite.target.join("doc")) {
            Ok(now) => now,
            Err(why) => return Outcome::Failed(why),
        };
        items += now.lines().filter(|line| line.starts_with("fpu_")).count();
        let before = fs::read_to_string(&path).unwrap_or_default();
        if bless {
            let written =
                fs::create_dir_all(suite.root.join(TEXTS)).and_then(|()| fs::write(&path, &now));
            wrong.extend(written.err().map(|why| format!("{file}: {why}")));
        } else if now != before {
            wrong.push(format!("{file} is not what rustdoc shows:\n{}", difference(&before, &now)));
        }
    }
    if !wrong.is_empty() {
        wrong.push("`FPU_BLESS=1 cargo suite --only api` writes it anew".into());
        return Outcome::Failed(wrong.join("\n"));
    }
    Outcome::Passed { count: LIBRARIES.len(), note: format!("{items} items\n") }
}

/// The lines of one and not of the other, each with its item.
fn difference(before: &str, now: &str) -> String {
    let lines = |text: &str| -> BTreeSet<String> {
        let mut item = String::new();
        let named = text.lines().map(|line| match line.strip_prefix("    ") {
            Some(rest) => format!("{item}: {}", rest.trim_start()),
            None => {
                item = line.into();
                item.clone()
            }
        });
        named.collect()
    };
    let (before, now) = (lines(before), lines(now));
    let gone = before.difference(&now).map(|line| format!("- {line}\n"));
    let new = now.difference(&before).map(|line| format!("+ {line}\n"));
    gone.chain(new).collect()
}

/// All items of a library, by path.
fn text(library: &str, doc: &Path) -> Result<String, String> {
    let name = library.replace('-', "_");
    let read = |page: &str| {
        let path = doc.join(&name).join(page);
        fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))
    };
    let mut items = BTreeMap::new();
    for (page, path) in listed(&read("all.html")?) {
        items.insert(format!("{name}::{path}"), item(&read(&page)?));
    }
    if items.is_empty() {
        return Err(format!("{library}: all.html lists no item"));
    }
    let mut all = format!(
        "# Public items of {library}, as rustdoc of Rust 1.{RECORDED} shows them.\n\
         # `FPU_BLESS=1 cargo suite --only api` writes this file.\n"
    );
    for (path, lines) in items {
        all += &format!("\n{path}\n");
        for line in lines {
            all += &format!("    {line}\n");
        }
    }
    Ok(all)
}

/// The page and the path of each item.
fn listed(all: &str) -> Vec<(String, String)> {
    let links = all.split("<li><a href=\"").skip(1);
    let links = links.filter_map(|link| link.split_once("</a>")?.0.split_once("\">"));
    // Those at the side lead to parts of the page.
    let links = links.filter(|(page, _)| page.ends_with(".html"));
    links.map(|(page, path)| (page.into(), plain(path))).collect()
}

/// The declaration of an item, its impls, and what these have.
fn item(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((_, rest)) = page.split_once("<pre class=\"rust item-decl\"><code>") {
        let declaration = rest.split("</code></pre>").next().unwrap_or(rest);
        let all = plain(declaration);
        let all = all.lines().map(str::trim_end).filter(|line| !line.is_empty());
        lines.extend(all.map(str::to_owned));
    }
    let mut own: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut of_traits = Vec::new();
    for section in page.split("<h2 id=\"").skip(1) {
        match section.split('"').next().unwrap_or_default() {
            "implementations" => {
                let mut header = String::new();
                for (level, text) in headers(section) {
                    if level == 3 {
                        header = text;
                        own.entry(header.clone()).or_default();
                    } else {
                        own.entry(header.clone()).or_default().insert(text);
                    }
                }
            }
            "trait-implementations" | "foreign-impls" => {
                of_traits.extend(headers(section).into_iter().filter(|(level, _)| *level == 3));
            }
            "synthetic-implementations" => of_traits.extend(headers(section)),
            // Impls of every type, or of another's.
            _ => {}
        }
    }
    for (header, members) in own {
        lines.push(header);
        lines.extend(members.into_iter().map(|member| format!("    {member}")));
    }
    lines.extend(together(of_traits.iter().map(|(_, text)| text.as_str())));
    lines
}

/// Impls of traits, those for the same type on one line. Not of what a library cannot name.
fn together<'i>(impls: impl Iterator<Item = &'i str>) -> Vec<String> {
    let mut of: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for text in impls {
        let Some((before, target)) = text.split_once(" for ") else { continue };
        let mut depth = 0;
        let generics = before.find(|c: char| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0 && c == ' '
        });
        let (generics, name) = before.split_at(generics.unwrap_or(before.len()));
        if !["Freeze", "RefUnwindSafe", "StructuralPartialEq", "UnsafeUnpin", "UnwindSafe"]
            .contains(&name.trim_start().trim_start_matches('!'))
        {
            of.entry((target, generics)).or_default().insert(name.trim_start());
        }
    }
    let line = |((target, generics), names): (_, BTreeSet<&str>)| {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        format!("{generics} {names} for {target}")
    };
    of.into_iter().map(line).collect()
}

/// Headers of code, on one line each: 3 of impls, 4 of what is in them.
fn headers(section: &str) -> Vec<(u32, String)> {
    let all = section.split("<h").skip(1).filter_map(|rest| {
        let (level, rest) = rest.split_once(" class=\"code-header\">")?;
        let level = level.parse().ok()?;
        let text = plain(rest.split(&format!("</h{level}>")).next()?);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Some((level, text.replace("( ", "(").replace(", )", ")").replace(", >", ">")))
    });
    all.collect()
}

/// Text without tags.
fn plain(html: &str) -> String {
    let mut text = String::new();
    // What is folded says only how much is folded.
    for part in html.split("<summary") {
        let part = part.split_once("</summary>").map_or(part, |(_, rest)| rest);
        for piece in part.split('<') {
            let (tag, words) = piece.split_once('>').unwrap_or(("", piece));
            if ["div", "/div", "br"].iter().any(|new| tag.starts_with(new)) {
                text.push('\n');
            }
            text.push_str(words);
        }
    }
    let marks = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("ⓘ", ""),
        ("&amp;", "&"),
    ];
    marks.iter().fold(text, |text, (mark, sign)| text.replace(mark, sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<pre class=\"rust item-decl\"><code>pub struct S&lt;T&gt; {\n    pub a: <a href=\"x\">u8</a>,\n}</code></pre>\
        <h2 id=\"panics\">Panics</h2><h4 class=\"code-header\">no</h4>\
        <h2 id=\"implementations\" class=\"section-header\">Implementations</h2>\
        <h3 class=\"code-header\">impl&lt;T&gt; S&lt;T&gt;</h3>\
        <h4 class=\"code-header\">pub fn <a>b</a>(\n    &amp;self,\n    x: T,\n) -&gt; u8<div class=\"where\">where\n    T: Copy,</div></h4>\
        <h4 class=\"code-header\">pub const A: u8</h4>\
        <h2 id=\"trait-implementations\">..</h2><h3 class=\"code-header\">impl Debug for S</h3><h4 class=\"code-header\">fn fmt()</h4>\
        <h2 id=\"synthetic-implementations\">..</h2><h3 class=\"code-header\">impl !Send for S</h3><h3 class=\"code-header\">impl Freeze for S</h3>\
        <h2 id=\"blanket-implementations\">..</h2><h3 class=\"code-header\">impl Any for S</h3>";

    #[test]
    fn a_page_becomes_lines() {
        let lines = item(PAGE);
        let expected = [
            "pub struct S<T> {",
            "    pub a: u8,",
            "}",
            "impl<T> S<T>",
            "    pub const A: u8",
            "    pub fn b(&self, x: T) -> u8 where T: Copy,",
            "impl !Send, Debug for S",
        ];
        assert_eq!(lines, expected);
        let all = "<li><a href=\"#structs\" title=\"Structs\">Structs</a></li><ul><li><a href=\"m/fn.f.html\">m::f</a></li><li><a href=\"struct.S.html\">S</a></li></ul>";
        let found = listed(all);
        assert_eq!(found[0], ("m/fn.f.html".into(), "m::f".into()));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_is_gone_and_new_is_named_with_its_item() {
        let before = "# a\n\nx::S\n    pub fn f()\n    pub fn g()\n";
        let now = "# a\n\nx::S\n    pub fn f(a: u8)\n    pub fn g()\n";
        assert_eq!(difference(before, now), "- x::S: pub fn f()\n+ x::S: pub fn f(a: u8)\n");
        assert_eq!(difference(before, before), "");
    }
}
