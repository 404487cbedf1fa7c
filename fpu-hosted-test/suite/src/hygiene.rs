//! Checks of files, links and quotes: faults that a reader of the repository would stumble over.

use std::path::Path;

use crate::{
    duties, imports, museum,
    run::{Cmd, Outcome, Suite},
};

/// All names that may stand at the top.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "docs",
    "examples",
    "fpu-core",
    "fpu-hosted-test",
    "fpu-x86",
    "rustfmt.toml",
];
const MAX_LINES: usize = 500;

/// Put together here, so that this file does not hold them.
fn leftovers() -> [String; 6] {
    ["TO-DO", "FIX-ME", "todo-!", "unimplemented-!", "#[ig-nore", "dbg-!"]
        .map(|w| w.replace('-', ""))
}

pub fn check(suite: &Suite) -> Outcome {
    let listed = Cmd::new("git").args(&["ls-files", "-z"]).dir(&suite.root).ok();
    let files: Vec<String> = match listed {
        Ok(text) => text.split('\0').filter(|f| !f.is_empty()).map(str::to_owned).collect(),
        Err(_) => return Outcome::Skipped("not a git checkout, or no git: install git".into()),
    };
    let mut wrong = Vec::new();
    for file in &files {
        let top = file.split('/').next().unwrap_or(file);
        if !TOP.contains(&top) {
            wrong.push(format!("{file}: `{top}` has no place at the top"));
        }
        if file.ends_with(".rs") {
            match std::fs::read_to_string(suite.root.join(file)) {
                Ok(text) => {
                    wrong.extend(of_file(file, &text));
                    let path = suite.root.join(file);
                    let beside = path.parent().unwrap_or(&suite.root);
                    let lost = included(&text).into_iter().filter(|i| !beside.join(i).is_file());
                    wrong.extend(lost.map(|target| format!("{file}: includes no file `{target}`")));
                }
                // Deleted but not yet committed.
                Err(_) if !suite.root.join(file).exists() => {}
                Err(why) => wrong.push(format!("{file}: {why}")),
            }
        }
    }
    wrong.extend(quotes(suite));
    wrong.extend(links(suite, &files));
    wrong.extend(duties::check(suite, &files));
    wrong.extend(imports::check(&suite.root));
    wrong.extend(museum::check(&suite.root, &files));
    if wrong.is_empty() {
        Outcome::Passed { count: 1, note: format!("{} files\n", files.len()) }
    } else {
        wrong.sort();
        wrong.dedup();
        Outcome::Failed(wrong.join("\n"))
    }
}

fn of_file(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        wrong.push(format!("{file}: {lines} lines, {MAX_LINES} are allowed"));
    }
    for word in leftovers() {
        for (number, line) in text.lines().enumerate() {
            if line.contains(&word) {
                wrong.push(format!("{file}:{}: `{word}`", number + 1));
            }
        }
    }
    wrong
}

/// The files that `include_str!` names, from the directory of the source. A guide's is a link to a page.
fn included(text: &str) -> Vec<&str> {
    let calls = text.split(concat!("include", "_str!(\"")).skip(1);
    calls.filter_map(|rest| rest.split('"').next()).collect()
}

/// Quotes that must be what the file says: page, kind of block, file. Rust is quoted whole, output by the line.
const QUOTED: [(&str, &str, &str); 2] = [
    ("docs/kernel.md", "rust", "examples/kernel/src/fpu.rs"),
    ("README.md", "text", "docs/results.md"),
];

fn quotes(suite: &Suite) -> Vec<String> {
    let read = |name: &str| {
        std::fs::read_to_string(suite.root.join(name)).map_err(|why| vec![format!("{name}: {why}")])
    };
    let check = |(page, kind, file)| match (read(page), read(file)) {
        (Ok(text), Ok(source)) => {
            let wrong = misquoted(&text, kind, &source);
            wrong.into_iter().map(|what| format!("{page} quotes of {file}: {what}")).collect()
        }
        (Err(why), _) | (_, Err(why)) => why,
    };
    QUOTED.into_iter().flat_map(check).collect()
}

fn misquoted(page: &str, kind: &str, source: &str) -> Vec<String> {
    let blocks: Vec<&str> = page
        .split(&format!("```{kind}\n"))
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or(rest))
        .collect();
    if blocks.is_empty() {
        return vec!["nothing".into()];
    }
    let said: Vec<&str> = source.lines().collect();
    let right = |block: &str| match kind {
        "text" => block.lines().all(|line| said.contains(&line)),
        _ => source.contains(block),
    };
    let wrong = blocks.into_iter().filter(|block| !right(block));
    wrong.map(|block| format!("what it does not say:\n{block}")).collect()
}

/// Pages whose links are followed as far as they lead into the repository.
fn links(suite: &Suite, files: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.ends_with(".md")) {
        let path = suite.root.join(file);
        // A guide in a crate is a link to the page that is looked at.
        if path.is_symlink() {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let beside = path.parent().unwrap_or(&suite.root);
        let lost = targets(&text).into_iter().filter(|target| !beside.join(target).exists());
        wrong.extend(lost.map(|target| format!("{file}: no file `{target}`")));
    }
    wrong
}

/// The files that links outside of code name. Not a path of `rustdoc`, an address, or a place on the same page.
fn targets(page: &str) -> Vec<&str> {
    let prose = page.split("```").step_by(2);
    let links = prose.flat_map(|text| text.split("](").skip(1));
    let targets = links.filter_map(|rest| rest.split([')', '#']).next());
    targets
        .filter(|t| !t.is_empty() && !t.contains("::") && !t.contains("://") && is_path(t))
        .collect()
}

/// `rustdoc` links to items by names without a dot or a slash, except directories of crates.
fn is_path(target: &str) -> bool {
    target.contains(['.', '/']) || target.starts_with("fpu-") || target == "examples"
}

/// The workspace: where this crate was built, or the directory it was started in.
pub fn workspace_root() -> Option<std::path::PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf);
    let started = std::env::current_dir().ok();
    let is_root = |dir: &std::path::PathBuf| dir.join("fpu-core/Cargo.toml").is_file();
    started.into_iter().chain(built).find(is_root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_leftovers_are_named() {
        let long = "\n".repeat(MAX_LINES + 1);
        assert_eq!(of_file("a.rs", &long).len(), 1);
        assert!(of_file("a.rs", &"\n".repeat(MAX_LINES)).is_empty());
        for word in leftovers() {
            let text = format!("fn f() {{}}\n// {word}\n");
            assert_eq!(of_file("a.rs", &text), [format!("a.rs:2: `{word}`")]);
        }
    }

    #[test]
    fn a_quote_that_is_not_in_the_file_is_named() {
        let source = "fn f() {\n    1\n}\n";
        assert_eq!(misquoted("text\n```rust\n    1\n```\n", "rust", source), [""; 0]);
        let two = "```rust\n    2\n```\n```rust\nfn f() {\n```";
        assert_eq!(misquoted(two, "rust", source).len(), 1);
        assert_eq!(misquoted("no quotes", "rust", source).len(), 1);
        assert_eq!(misquoted("```text\nfn f() {\n}\n```", "text", source), [""; 0], "by the line");
        assert_eq!(misquoted("```text\nfn f()\n```", "text", source).len(), 1, "whole lines");
    }

    #[test]
    fn included_files_are_found() {
        let source =
            concat!("#[doc = include", "_str!(\"../a.md\")]\nmod m;\nf(include", "_str!(\"b.s\"))");
        assert_eq!(included(source), ["../a.md", "b.s"]);
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
        let lib = std::fs::read_to_string(own.join("lib.rs")).unwrap();
        assert!(!included(&lib).is_empty() && included(&lib).iter().all(|f| own.join(f).is_file()));
    }

    #[test]
    fn links_that_lead_to_files_are_found() {
        let page = "[a](b.md#c) [d](#e) [f](https://g.h/i) [j](fpu_core::K) ![l](m/n.svg)\n\
                    ```text\n[o](p.md)\n```\n[q](fpu-core) [r](Plan) `s`[t](../u.md)";
        assert_eq!(targets(page), ["b.md", "m/n.svg", "fpu-core", "../u.md"]);
    }
}
