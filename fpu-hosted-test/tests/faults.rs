//! Each seeded fault must be caught by the model that the table names, and called what it is.
#![cfg(fpu_loom)]

use fpu_hosted_test::model::{
    table::{self, Row, BACKEND, EMBEDDER, MODELS, PROTOCOL},
    violation,
};
use std::{fs, path::Path};

/// Tries every row before it complains.
fn all_caught(rows: &'static [Row]) {
    let mut missed = 0;
    for row in rows {
        let (layer, name) = row.name();
        let Some(found) = violation(row.model, row.fault) else {
            println!("MISSED {layer} {name} by {}", row.model.name);
            missed += 1;
            continue;
        };
        let verdict = match (found.message.contains(row.message), found.preemptions) {
            (true, n) if n == row.preemptions => "caught",
            (true, _) => "OTHER BOUND",
            (false, _) => "OTHER MESSAGE",
        };
        missed += u32::from(verdict != "caught");
        println!(
            "{verdict} {layer} {name} by {} with {} preemptions in execution {}: {}",
            row.model.name,
            found.preemptions,
            found.execution,
            found.message.lines().next().unwrap_or_default()
        );
    }
    assert_eq!(missed, 0, "faults that their model does not catch, of {}", rows.len());
}

#[test]
fn protocol_faults_are_caught() {
    all_caught(PROTOCOL);
}
#[test]
fn backend_faults_are_caught() {
    all_caught(BACKEND);
}
#[test]
fn kernel_faults_are_caught() {
    all_caught(EMBEDDER);
}

/// A model that catches nothing shows nothing, and one that no test runs less.
#[test]
fn every_model_is_run_and_catches_something() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = fs::read_dir(tests).expect("the tests' directory");
    let sources: String = files
        .map(|file| file.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("loom_")))
        .map(|path| fs::read_to_string(path).expect("a source file"))
        .collect();
    for model in MODELS {
        let name = model.name;
        assert!(table::all().any(|row| row.model.name == name), "{name} catches no fault");
        assert!(sources.contains(&format!("fn {name}() {{\n    check(")), "{name} is not run");
    }
    for row in table::all() {
        assert!(
            MODELS.iter().any(|m| m.name == row.model.name),
            "{} is not listed",
            row.model.name
        );
    }
}

/// The committed table is the one in the code.
#[test]
fn the_table_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/faults.md");
    let wanted = table::markdown();
    if std::env::var_os("FPU_BLESS").is_some() {
        fs::write(&path, &wanted).expect("docs/faults.md can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/faults.md differs from the code; FPU_BLESS=1 rewrites it");
    assert!(table::all().count() >= 25);
}
