//! Changes of source text: an edit replaces a piece that occurs exactly once.
//!
//! The comparison takes no notice of white space at the ends of lines, so that a row of the table is indented as the
//! table is.

use std::{collections::BTreeMap, fs, io, path::Path};

/// File, text before, text after.
pub type Edit = (&'static str, &'static str, &'static str);

/// The files under a directory, by their path in it.
pub fn sources(dir: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            let inner = sources(&path)?;
            files.extend(inner.into_iter().map(|(file, text)| (format!("{name}/{file}"), text)));
        } else {
            files.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(files)
}

/// Makes all edits, one after the other.
pub fn apply(files: &mut BTreeMap<String, String>, edits: &[Edit]) -> Result<(), String> {
    for (file, before, after) in edits {
        let Some(text) = files.get_mut(*file) else { return Err(format!("there is no {file}")) };
        let (source, before) = (trimmed(text), trimmed(before));
        let found = source.matches(&before).count();
        if found != 1 {
            return Err(format!("{file} has this {found} times, not once:\n{before}"));
        }
        *text = source.replacen(&before, &trimmed(after), 1);
    }
    Ok(())
}

fn trimmed(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}
