//! The floors of `fpu-core`: who may import whom, read off the `use` lines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// From below: what things are said in, how it is done, what a kernel calls. Each imports of its own floor and of those
/// below.
const FLOORS: [&[&str]; 3] = [
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
    &["cpu", "deferred", "raw", "section", "session", "stopped", "task", "verify"],
];

/// What is wrong with the sources under that directory.
pub fn check(src: &Path) -> Vec<String> {
    let mut files = BTreeMap::new();
    match read(src, "", &mut files) {
        Ok(()) => wrong(&files),
        Err(why) => vec![format!("{}: {why}", src.display())],
    }
}

/// Modules by their path, `a` or `a::b`; the crate's first file, which only wires, is none.
fn read(dir: &Path, above: &str, files: &mut BTreeMap<String, String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = if above.is_empty() { stem.clone() } else { format!("{above}::{stem}") };
        if path.is_dir() {
            read(&path, &name, files)?;
        } else if stem == "mod" {
            files.insert(above.into(), fs::read_to_string(&path)?);
        } else if name != "lib" {
            files.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

fn wrong(files: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, text) in files {
        let Some(floor) = floor(module) else {
            wrong.push(format!("fpu-core: `{module}` is on no floor"));
            continue;
        };
        for path in imported(module, text) {
            let named = files.keys().filter(|name| path.starts_with(&format!("{name}::")));
            let Some(target) = named.max_by_key(|name| name.len()) else {
                wrong.push(format!("fpu-core: `{module}` imports `{path}`, which is no module's"));
                continue;
            };
            if self::floor(target) > Some(floor) {
                wrong.push(format!("fpu-core: `{module}` imports upwards: `{path}`"));
            }
            if target != module {
                imports.entry(module).or_default().insert(target);
            }
        }
    }
    let circles = files.keys().filter(|module| reaches(&imports, module, module));
    wrong.extend(circles.map(|module| format!("fpu-core: `{module}` is in a circle of imports")));
    wrong
}

fn floor(module: &str) -> Option<usize> {
    let first = module.split("::").next().unwrap_or(module);
    FLOORS.iter().position(|names| names.contains(&first))
}

fn reaches(imports: &BTreeMap<&str, BTreeSet<&str>>, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for &import in imports.get(module).into_iter().flatten() {
            if import == to {
                return true;
            }
            if seen.insert(import) {
                next.push(import);
            }
        }
    }
    false
}

/// What a module's code names of its own crate, by the whole path: in `use`, or where it stands.
fn imported(module: &str, text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    // What a macro names is the business of whoever writes it, and public.
    let code = lines.flat_map(|line| [line, " "]).collect::<String>().replace("$crate::", "");
    let above = module.rsplit_once("::").map_or(String::new(), |(above, _)| format!("{above}::"));
    let here = format!("{module}::");
    let mut found = Vec::new();
    for (start, whole) in [("crate::", ""), ("super::", above.as_str()), ("self::", here.as_str())]
    {
        for rest in code.split(start).skip(1) {
            found.extend(paths(tree(rest)).into_iter().map(|path| format!("{whole}{path}")));
        }
    }
    found
}

/// A path, with all that is in its braces.
fn tree(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        let inside = depth > 0 || c == '}' && depth == 0;
        !(inside || c.is_alphanumeric() || c == '_' || c == ':')
    });
    &text[..end.unwrap_or(text.len())]
}

/// Its paths one by one.
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

    fn of(files: &[(&str, &str)]) -> Vec<String> {
        wrong(&files.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect())
    }

    #[test]
    fn downwards_is_right() {
        let word = "use super::steps::Save;\nuse crate::{\n    error::{Error, AreaError},\n    witness::Pinned,\n};\n";
        let task = "//! Not this: crate::verify::X.\nfn f() { crate::protocol::word::g() }\n\
                    #[cfg(test)]\nmod tests { use crate::raw::h; }\n";
        let files = [("error", ""), ("witness", ""), ("protocol::steps", ""), ("raw", "")];
        let files = [files.as_slice(), &[("protocol::word", word), ("task", task)]].concat();
        assert_eq!(of(&files), [""; 0]);
        let found = imported("protocol::word", word);
        let all = ["error::Error", "error::AreaError", "witness::Pinned", "protocol::steps::Save"];
        assert_eq!(found, all);
    }

    #[test]
    fn upwards_in_a_circle_and_through_the_top_is_named() {
        let up = [("error", "use crate::task::Task;"), ("task", "")];
        assert_eq!(of(&up), ["fpu-core: `error` imports upwards: `task::Task`"]);
        let circle = [("cpu", "use crate::raw::x;"), ("raw", "fn f() { crate::cpu::y() }")];
        assert_eq!(of(&circle).len(), 2);
        let top = [("cpu", "use crate::{Error};")];
        assert_eq!(of(&top), ["fpu-core: `cpu` imports `Error`, which is no module's"]);
        assert_eq!(of(&[("new", "")]), ["fpu-core: `new` is on no floor"]);
    }
}
