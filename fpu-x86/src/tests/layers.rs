//! Imports go downwards: the order of the modules in `lib.rs` is the order of who may use whom.

use std::{
    format, fs,
    path::Path,
    string::{String, ToString},
    vec::Vec,
};

/// The modules of `lib.rs`, from the bottom up, without `tests`.
fn modules(lib: &str) -> Vec<&str> {
    let names = lib.lines().map(|line| line.strip_prefix("pub ").unwrap_or(line));
    let names = names.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    names.filter(|name| *name != "tests" && *name != "guide").collect()
}

/// The source without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let end = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// What is named right behind `crate::`, in braces or without.
fn used(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.push(first(rest));
            continue;
        };
        let (mut depth, mut start) = (1, 0);
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && character == ',') {
                found.push(first(&group[start..at]));
                start = at + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// The first name of a path.
fn first(path: &str) -> String {
    let path = path.trim_start();
    let end = path.find(|c: char| !(c.is_alphanumeric() || "_*".contains(c)));
    path[..end.unwrap_or(path.len())].to_string()
}

/// What a file of the module `own` uses that does not stand below it.
fn wrong(own: &str, text: &str, modules: &[&str]) -> Vec<String> {
    let level = |name: &str| modules.iter().position(|module| *module == name);
    let code = code(text);
    let is_below = |name: &String| level(name) < level(own) && level(name).is_some();
    used(&code).into_iter().filter(|name| name != own && !is_below(name)).collect()
}

fn visit(folder: &Path, files: &mut Vec<(String, String)>, own: Option<&str>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_string();
        let own = own.unwrap_or(&stem);
        if path.is_dir() {
            visit(&path, files, Some(own));
        } else {
            files.push((own.to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_module_uses_only_those_below_it_by_their_paths() {
    let mut files = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files, None);
    let modules = modules(include_str!("../lib.rs"));
    let mut seen = 0;
    for (own, text) in &files {
        if ["tests", "lib", "guide"].contains(&own.as_str()) {
            continue;
        }
        assert!(modules.contains(&own.as_str()), "{own} is not in lib.rs");
        let wrong = wrong(own, text, &modules);
        assert!(wrong.is_empty(), "{own} uses {wrong:?}; the order is {modules:?}");
        seen += used(&code(text)).len();
    }
    assert!(files.len() > 30 && seen > 100, "{} files with {seen} imports", files.len());
}

#[test]
fn what_is_above_or_not_a_module_is_found() {
    let modules =
        modules("mod low;\n#[cfg(x)]\nmod middle;\nmod high;\nmod tests;\npub use high::X;\n");
    assert_eq!(modules, ["low", "middle", "high"]);
    let wrong = |text: &str| wrong("middle", text, &modules).join(" ");
    for fine in [
        "use crate::{\n    low::{self, b::C},\n    middle::D,\n};",
        "use crate::low::high::X;",
        "// crate::high\nuse super::Y;",
        "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::high::X;\n}",
    ] {
        assert_eq!(wrong(fine), "", "{fine}");
    }
    for (bad, name) in [
        ("use crate::{low::A, high::{B, C}};", "high"),
        ("use crate::X;", "X"),
        ("fn f() { crate::high::g() }", "high"),
        ("use crate::{\n    low::A,\n    X, Y,\n};", "X Y"),
        ("use crate::*;", "*"),
    ] {
        assert_eq!(wrong(bad), name, "{bad}");
        let inside = format!("mod inner {{\n    {bad}\n}}");
        assert_eq!(wrong(&inside), name, "{inside}");
    }
}
