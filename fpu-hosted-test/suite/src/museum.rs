//! Checks that each name in the table of others' bugs is in the sources.

use std::{collections::BTreeSet, path::Path};

const TABLE: &str = "docs/museum.md";

/// The faults of the table.
pub fn check(root: &Path, files: &[String]) -> Vec<String> {
    let Ok(table) = std::fs::read_to_string(root.join(TABLE)) else {
        return vec![format!("{TABLE}: cannot be read")];
    };
    let mut sources = Sources::default();
    for file in files {
        let data = [".rs", ".jsonl", ".txt"].iter().any(|end| file.ends_with(end));
        if file == TABLE || !data {
            continue;
        }
        sources.stem(file);
        if let Ok(text) = std::fs::read_to_string(root.join(file)) {
            sources.add(&text);
        }
    }
    missing(&table, &sources)
}

#[derive(Default)]
struct Sources {
    /// Functions, and files by their names: what tests are called by.
    functions: BTreeSet<String>,
    words: BTreeSet<String>,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

impl Sources {
    fn stem(&mut self, file: &str) {
        let stem = Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        self.functions.extend(stem);
    }
    fn add(&mut self, text: &str) {
        let mut before = "";
        for word in text.split(|c| !is_word(c)).filter(|word| !word.is_empty()) {
            if before == "fn" {
                self.functions.insert(word.into());
            }
            self.words.insert(word.into());
            before = word;
        }
    }
    fn has(&self, name: &str) -> bool {
        // A sentence for a name is a test's.
        let test =
            name.matches('_').count() > 1 && !name.contains(|c: char| c.is_ascii_uppercase());
        self.functions.contains(name) || (!test && self.words.contains(name))
    }
}

/// Names in the table's rows that no source has. The check leaves out what is more than a name: a path of several, or a
/// piece of code.
fn missing(table: &str, sources: &Sources) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(table.lines()).filter(|(_, line)| line.starts_with('|')) {
        for name in line.split('`').skip(1).step_by(2) {
            if name.chars().all(is_word) && !sources.has(name) {
                wrong.push(format!("{TABLE}:{number}: no source has `{name}`"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_gone_is_found() {
        let mut sources = Sources::default();
        sources.add("fn this_is_a_test() { this_was_a_test }\nconst X: &str = \"skip-save\"; Fault::NoPrepare");
        sources.stem("tests/ui/two_tasks_at_once.rs");
        let table = "`not_in_a_row`\n| `this_is_a_test` `two_tasks_at_once` | `skip-save`, `NoPrepare`, `Plan::xfd` |";
        assert_eq!(missing(table, &sources), [""; 0]);
        let table = "\n| `this_was_a_test` | `skip-load`, `NoReturn` |";
        let wrong = missing(table, &sources);
        let gone = ["this_was_a_test", "skip-load", "NoReturn"];
        assert_eq!(wrong, gone.map(|name| format!("docs/museum.md:2: no source has `{name}`")));
    }
}
