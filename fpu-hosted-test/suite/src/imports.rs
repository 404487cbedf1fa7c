//! Checks the imports between the modules of each crate, by the sources: no circle, and in the libraries downwards
//! only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use crate::source::{code_of, is_word};

/// From below: types and traits, the protocol, the calls of a kernel. A module imports from its own floor and from
/// those below.
const CORE: [&[&str]; 3] = [
    &[
        "align",
        "area",
        "backend",
        "error",
        "guide",
        "heap_area",
        "macros",
        "observe",
        "sync",
        "witness",
    ],
    &["protocol"],
    &[
        "bound", "cpu", "deferred", "grow", "raw", "section", "session", "stopped", "switch",
        "task", "trap", "verify",
    ],
];

/// Crates of several files.
const CRATES: [&str; 8] = [
    "fpu-core",
    "fpu-x86",
    "fpu-hosted-test",
    "fpu-hosted-test/models",
    "fpu-hosted-test/scale",
    "fpu-hosted-test/suite",
    "examples",
    "examples/kernel",
];

type Files = BTreeMap<String, String>;

/// The faults of the crates under that directory.
pub fn check(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in CRATES {
        let src = root.join(name).join("src");
        let mut files = Files::new();
        match read(&src, "", &mut files) {
            Ok(()) if files.len() < 2 => found.push(format!("{name}: no modules found")),
            Ok(()) => {
                let lib = fs::read_to_string(src.join("lib.rs")).unwrap_or_default();
                // Those whose file is elsewhere, too.
                for module in declared(&lib) {
                    files.entry(module.into()).or_default();
                }
                let wrong = wrong(files, floors(name, &lib).as_deref());
                found.extend(wrong.into_iter().map(|what| format!("{name}: {what}")));
            }
            Err(why) => found.push(format!("{}: {why}", src.display())),
        }
    }
    found
}

/// The floors of a crate's modules, where it has an order. That of `fpu-x86` is the order in its `lib.rs`.
fn floors(name: &str, lib: &str) -> Option<Vec<Vec<String>>> {
    match name {
        "fpu-core" => {
            Some(CORE.iter().map(|floor| floor.iter().map(|m| (*m).into()).collect()).collect())
        }
        "fpu-x86" => Some(declared(lib).into_iter().map(|module| vec![module.into()]).collect()),
        _ => None,
    }
}

/// Modules by their path, `a` or `a::b`. A library's first file only wires, and is none; a program's is `main`.
fn read(dir: &Path, above: &str, files: &mut Files) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = join(above, &stem);
        if path.is_dir() {
            // Each program there is a crate of its own.
            if name != "bin" {
                read(&path, &name, files)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") && name != "lib" {
            let name = if stem == "mod" { above.into() } else { name };
            files.insert(name, code(&fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

/// The code of a module, without the tests at its end. Names inside a macro belong to the caller of the macro, and are
/// public.
fn code(text: &str) -> String {
    let end = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    flat(code_of(&text[..end]).replace("$crate::", ""))
}

/// A module inside of the file belongs to the file, which is its `super`.
fn flat(mut code: String) -> String {
    let mut from = 0;
    while let Some(at) = code[from..].find("mod ").map(|at| from + at) {
        from = at + 4;
        let Some(open) = code[at..].find(['{', ';']).map(|open| at + open) else { break };
        if code[open..].starts_with(';') {
            continue;
        }
        let mut depth = 0;
        let close = code[open..].find(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let close = close.map_or(code.len(), |close| open + close);
        let inner = code[open..close].replace("super::super::", "^");
        let inner = inner.replace("super::", "self::").replace('^', "super::");
        code.replace_range(open..close, &inner);
    }
    code
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() {
        name.into()
    } else {
        format!("{above}::{name}")
    }
}

fn above(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(above, _)| above)
}

/// The modules that a file declares.
fn declared(text: &str) -> Vec<&str> {
    let lines = text.lines().filter_map(|line| line.trim().strip_suffix(';'));
    let names = lines.filter_map(|line| match line.split_once("mod ")? {
        (before, name) if before.is_empty() || before.starts_with("pub") => Some(name),
        _ => None,
    });
    names.filter(|name| name.chars().all(is_word)).collect()
}

fn wrong(mut files: Files, floors: Option<&[Vec<String>]>) -> Vec<String> {
    let floor = |module: &str| {
        let first = module.split("::").next().unwrap_or(module);
        floors?.iter().position(|names| names.iter().any(|name| name == first))
    };
    // A module whose file is elsewhere imports nothing of this crate.
    for (module, text) in files.clone() {
        let above = if module == "main" { "" } else { &module };
        for name in declared(&text) {
            files.entry(join(above, name)).or_default();
        }
    }
    let known: Vec<(&str, Names)> =
        files.iter().map(|(m, text)| (m.as_str(), names(m, text))).collect();
    let known: BTreeMap<&str, Names> = known.into_iter().collect();
    let mut wrong = Vec::new();
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (&module, names) in &known {
        if floors.is_some() && floor(module).is_none() {
            wrong.push(format!("`{module}` is on no floor"));
            continue;
        }
        let passed_on = names.passed_on.values().filter(|path| !names.used.contains(*path));
        for path in names.used.iter().chain(passed_on) {
            // A program's first file may have more than modules.
            let main = known.get_key_value("main").map(|(main, _)| *main);
            let Some(target) = target(&known, path).or(main) else {
                wrong.push(format!("`{module}` imports `{path}`, which is no module's"));
                continue;
            };
            if floor(target) > floor(module) {
                wrong.push(format!("`{module}` imports upwards: `{path}`"));
            }
            if target != module && names.used.contains(path) {
                imports.entry(module).or_default().insert(target);
            }
        }
    }
    let circles = known.keys().filter_map(|&module| {
        let with: Vec<&str> = imports
            .get(module)?
            .iter()
            .copied()
            .filter(|with| reaches(&imports, with, module))
            .collect();
        (!with.is_empty())
            .then(|| format!("`{module}` is in a circle of imports, by `{}`", with.join("` and `")))
    });
    wrong.extend(circles);
    wrong
}

/// The module that an imported path leads to, through what others only pass on.
fn target<'m>(known: &BTreeMap<&'m str, Names>, path: &str) -> Option<&'m str> {
    let mut path = path;
    // No chain is longer.
    for _ in 0..8 {
        let own = |name: &&str| {
            path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let module = known.keys().copied().filter(own).max_by_key(|name| name.len())?;
        let rest = path[module.len()..].trim_start_matches("::");
        let name = rest.split("::").next().unwrap_or(rest);
        match known[module].passed_on.get(name) {
            Some(next) if next != path => path = next,
            _ => return Some(module),
        }
    }
    None
}

fn reaches(imports: &BTreeMap<&str, BTreeSet<&str>>, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            next.extend(imports.get(module).into_iter().flatten());
        }
    }
    false
}

/// What a module names of its own crate, by whole paths.
#[derive(Debug, Default)]
struct Names {
    /// By `use`, or in place.
    used: BTreeSet<String>,
    /// What it imports, by the name under which its children and importers find that.
    passed_on: BTreeMap<String, String>,
}

fn names(module: &str, code: &str) -> Names {
    let own = if module == "main" { "" } else { module };
    let outside = |path: &str| -> Option<String> {
        let (mut path, mut base) = (path, None);
        while let Some(rest) = path.strip_prefix("super::") {
            base = Some(above(base.unwrap_or(own)));
            path = rest;
        }
        if let Some(rest) = path.strip_prefix("crate::") {
            return Some(rest.into());
        }
        if let Some(rest) = path.strip_prefix("self::") {
            return Some(join(own, rest));
        }
        let first = path.split("::").next().unwrap_or(path);
        let child = base.is_none() && declared(code).contains(&first);
        (child || base.is_some()).then(|| join(base.unwrap_or(own), path))
    };
    let mut names = Names::default();
    // Without its `use` lines, to see which names they bring for others.
    let (mut body, mut imported) = (String::new(), Vec::new());
    for statement in code.split_inclusive(';') {
        match uses(statement) {
            Some((before, tree)) => {
                body.push_str(before);
                let public = before.trim_end().ends_with("pub") || before.trim_end().ends_with(')');
                imported.extend(paths(tree).into_iter().map(|path| (path, public)));
            }
            None => body.push_str(statement),
        }
    }
    let wires = !declared(code).is_empty();
    for (path, public) in imported {
        let (path, alias) = path.split_once(" as ").unwrap_or((&path, ""));
        let path = path.trim().trim_end_matches("::self");
        let name =
            if alias.is_empty() { path.rsplit("::").next().unwrap_or(path) } else { alias.trim() };
        let Some(path) = outside(path) else { continue };
        // A trait is used without being named.
        if !wires || mentions(&body, name, public) {
            names.used.insert(path.clone());
        }
        names.passed_on.insert(name.to_owned(), path);
    }
    for (at, _) in body.match_indices("::") {
        let start = body[..at].rfind(|c| !is_word(c)).map_or(0, |before| before + 1);
        if body[..start].ends_with("::") {
            continue;
        }
        let rest = &body[start..];
        let end = rest.find(|c| !is_word(c) && c != ':').unwrap_or(rest.len());
        names.used.extend(outside(rest[..end].trim_end_matches(':')));
    }
    names
}

/// Tells whether a file itself uses what it imports. A name that it imports for others may be that of a field too.
fn mentions(body: &str, name: &str, public: bool) -> bool {
    let uses = |at: usize| {
        let (before, behind) = (&body[..at], &body[at + name.len()..]);
        let whole =
            !before.ends_with("fn ") && !before.ends_with(is_word) && !behind.starts_with(is_word);
        let field = name.starts_with(char::is_lowercase)
            && (before.ends_with('.')
                || !behind.starts_with(['(', '!']) && !behind.starts_with("::"));
        whole && !(public && field)
    };
    match name {
        "_" | "*" => !public,
        _ => body.match_indices(name).any(|(at, _)| uses(at)),
    }
}

/// What stands before a `use`, and what it names.
fn uses(statement: &str) -> Option<(&str, &str)> {
    let apart = |at: &usize| *at == 0 || statement[..*at].ends_with(char::is_whitespace);
    let at = statement.rmatch_indices("use ").map(|(at, _)| at).find(apart)?;
    Some((&statement[..at], statement[at + 4..].strip_suffix(';')?))
}

/// The paths of a `use`, one by one.
fn paths(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.split_once('{') else { return vec![tree.trim().into()] };
    let inner = inner.trim_end().trim_end_matches('}');
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inner.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match parts.last_mut() {
            Some(last) if c != ',' || depth > 0 => last.push(c),
            _ => parts.push(String::new()),
        }
    }
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(paths).map(|path| format!("{}{path}", before.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)], floors: Option<&[Vec<String>]>) -> Vec<String> {
        wrong(files.iter().map(|(name, text)| ((*name).into(), code(text))).collect(), floors)
    }
    fn core(files: &[(&str, &str)]) -> Vec<String> {
        of(files, floors("fpu-core", "").as_deref())
    }

    #[test]
    fn downwards_is_right() {
        let word = "use super::steps::Save;\nuse crate::{\n    error::{Error, AreaError},\n    witness::Pinned,\n};\n";
        let task = "//! Not this: crate::verify::X.\nfn f() { crate::protocol::word::g(\"crate::verify\") }\n\
                    #[cfg(test)]\nmod tests { use crate::raw::h; }\n";
        let files = [("error", ""), ("witness", ""), ("protocol::steps", ""), ("raw", "")];
        let files = [files.as_slice(), &[("protocol::word", word), ("task", task)]].concat();
        assert_eq!(core(&files), [""; 0]);
        let found = names("protocol::word", word).used;
        let all = ["error::AreaError", "error::Error", "protocol::steps::Save", "witness::Pinned"];
        assert!(found.iter().eq(&all), "{found:?}");
    }

    #[test]
    fn upwards_in_a_circle_and_through_the_top_is_named() {
        let up = [("error", "use crate::task::Task;"), ("task", "")];
        assert_eq!(core(&up), ["`error` imports upwards: `task::Task`"]);
        let circle = [("cpu", "use crate::raw::x;"), ("raw", "fn f() { crate::cpu::y() }")];
        assert_eq!(core(&circle).len(), 2);
        let top = [("cpu", "use crate::{Error};")];
        assert_eq!(core(&top), ["`cpu` imports `Error`, which is no module's"]);
        assert_eq!(core(&[("new", "")]), ["`new` is on no floor"]);
    }

    #[test]
    fn the_order_of_the_declarations_is_the_order_of_the_floors() {
        let lib = "mod low;\n#[cfg(x)]\npub mod middle;\nmod high;\npub use high::X;\n";
        let floors = floors("fpu-x86", lib);
        let wrong = |text: &str| {
            of(&[("low", ""), ("middle", text), ("high", "")], floors.as_deref()).join(" ")
        };
        for fine in [
            "use crate::{\n    low::{self, b::C},\n    middle::D,\n};",
            "use crate::low::high::X;",
            "// crate::high\nuse crate::low::Y as Z;",
            "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::high::X;\n}",
        ] {
            assert_eq!(wrong(fine), "", "{fine}");
        }
        for (bad, name) in [
            ("use crate::{low::A, high::{B, C}};", "high::B"),
            ("use super::X;", "`X`, which is no"),
            ("fn f() { crate::high::g() }", "high::g"),
            ("use crate::{\n    low::A,\n    X, Y,\n};", "`Y`, which is no"),
        ] {
            assert!(wrong(bad).contains(name), "{bad}: {}", wrong(bad));
            let inside = format!("mod inner {{\n    {}\n}}", bad.replace("super", "super::super"));
            assert!(wrong(&inside).contains(name), "{inside}: {}", wrong(&inside));
        }
    }

    #[test]
    fn what_a_parent_passes_on_is_its_childs() {
        let parent = "mod one;\nmod two;\npub use one::f;\nuse two::Two;\n";
        let one = ("a::one", "use super::Two;");
        let fine = [("a", parent), one, ("a::two", "")];
        assert_eq!(of(&fine, None), [""; 0]);
        let round = [("a", parent), one, ("a::two", "fn g() { super::f() }")];
        let by = ["by `a::two`", "by `a::one`"];
        assert!(of(&round, None).iter().zip(by).all(|(what, by)| what.ends_with(by)));
        // The parent's own code uses what it imports, and a child uses the parent's.
        let own = format!("{parent}pub fn h(two: Two) {{}}\n");
        let round = [("a", own.as_str()), ("a::one", ""), ("a::two", "use super::h;")];
        assert_eq!(of(&round, None).len(), 2);
        let inline = [("a", "mod b;\nfn f() { b::g() }"), ("a::b", "use crate::a::f;")];
        assert_eq!(of(&inline, None).len(), 2);
    }
}
