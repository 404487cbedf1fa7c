//! The benchmark's figures on the pages: one run's, everywhere the same.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{env, fs, path::Path};

use fpu_examples::ratios::{document, Tables};

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_default()
}

/// `FPU_BLESS=1` writes it.
fn is(name: &str, expected: &str) {
    if env::var_os("FPU_BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        fs::write(path, expected).expect("it can be written");
    }
    let found = read(name);
    let differ = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(found == expected, "{name} has not docs/performance.md's figures: {differ:?}");
}

fn tables() -> Tables {
    let tables = Tables::of_page(&read("docs/performance.md"));
    assert!(!tables.cpu.is_empty() && tables.all.len() == 8, "{tables:?}");
    for table in &tables.all {
        assert!(table.rows.len() > 3 && table.rows[0].0 == "bare instructions", "{table:?}");
    }
    tables
}

#[test]
fn the_picture_is_of_the_pages_tables() {
    is("docs/switch.svg", &document(&tables()));
}

#[test]
fn the_readme_has_the_pages_figures() {
    let readme = read("README.md");
    let filled = tables().fill(&readme);
    // A table that is not recognised would never be compared.
    let mut emptied = tables();
    for (_, row) in emptied.all.iter_mut().flat_map(|table| &mut table.rows) {
        row.fill("-".into());
    }
    let empty = emptied.fill(&readme);
    let short = readme.lines().zip(empty.lines()).filter(|(one, other)| one != other).count();
    assert!(short >= 4, "{short} lines of the README have figures");
    is("README.md", &filled);
}
