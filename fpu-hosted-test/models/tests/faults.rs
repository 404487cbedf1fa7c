//! The model that the table names must catch each seeded fault of a backend or a kernel, and call it what it is. The
//! faults of the protocol are builds of their own (`src/bin/faults.rs`); here the tests try their edits on the text.

use fpu_models::{
    edit,
    model::{
        table::{self, By, Row, BACKEND, EMBEDDER, MODELS, PROTOCOL},
        violation, MOST_PREEMPTIONS,
    },
    seeded::{Seen, ORDERING},
};
use std::{fs, path::Path};

/// Tries every row before it complains.
fn all_caught(rows: &'static [Row]) {
    let mut missed = 0;
    for row in rows {
        let name = row.name;
        let By::Model(model, preemptions) = row.by else { panic!("{name} has no model") };
        let Some(found) =
            violation(model, Some(row.fault), model.bound.unwrap_or(MOST_PREEMPTIONS))
        else {
            println!("MISSED {name} by {}", model.name);
            missed += 1;
            continue;
        };
        let verdict = match (found.message.contains(row.message), found.preemptions) {
            (true, n) if n == preemptions => "caught",
            (true, _) => "OTHER BOUND",
            (false, _) => "OTHER MESSAGE",
        };
        missed += u32::from(verdict != "caught");
        println!(
            "{verdict} {name} by {} with {} preemptions in execution {}: {}",
            model.name,
            found.preemptions,
            found.execution,
            found.message.lines().next().unwrap_or_default()
        );
    }
    assert_eq!(missed, 0, "faults that their model does not catch, of {}", rows.len());
}

#[test]
fn backend_faults_are_caught() {
    all_caught(BACKEND);
}
#[test]
fn kernel_faults_are_caught() {
    all_caught(EMBEDDER);
}

/// The core has each piece of text that a fault of the protocol replaces, once.
#[test]
fn every_edit_finds_its_text() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fpu-core/src");
    let files = edit::sources(&core).expect("the sources of fpu-core");
    let wrong: Vec<_> = PROTOCOL
        .iter()
        .filter_map(|row| Some((row.name, edit::apply(&mut files.clone(), row.edits?.1).err()?)))
        .map(|(name, why)| format!("the fault {name}: {why}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(PROTOCOL.len() >= 86 && PROTOCOL.iter().all(|row| row.edits.is_some()));
}

#[test]
fn a_text_that_is_not_there_once_is_named() {
    let mut files = [(String::from("a.rs"), String::from("  one();\n  one();\n  two();\n"))].into();
    let said = |result: Result<(), String>| result.expect_err("it is not there once");
    let mut try_one = |file, before| said(edit::apply(&mut files, &[(file, before, "")]));
    assert_eq!(try_one("b.rs", "one();"), "there is no b.rs");
    assert_eq!(try_one("a.rs", "one();"), "a.rs has this 2 times, not once:\none();");
    assert_eq!(try_one("a.rs", "three();"), "a.rs has this 0 times, not once:\nthree();");
    assert_eq!(edit::apply(&mut files, &[("a.rs", "one();\n      two();", "2\n  1")]), Ok(()));
    assert_eq!(files["a.rs"], "one();\n2\n1");
}

/// A model that catches no fault shows nothing, and neither does a model that no test runs.
#[test]
fn every_model_is_run_and_catches_something() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let files = fs::read_dir(tests).expect("the tests' directory");
    let sources: String = files
        .map(|file| file.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("loom_")))
        .map(|path| fs::read_to_string(path).expect("a source file"))
        .collect();
    let catches: Vec<_> = table::all().filter_map(|row| Some(row.model()?.name)).collect();
    for model in MODELS {
        let name = model.name;
        assert!(catches.contains(&name), "{name} catches no fault");
        assert!(sources.contains(&format!("fn {name}() {{\n    check(")), "{name} is not run");
    }
    for name in catches {
        assert!(MODELS.iter().any(|model| model.name == name), "{name} is not listed");
    }
}

/// `docs/theory.md` counts the faults that the explorer finds as the rows do.
#[test]
fn the_theory_counts_the_same() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/theory.md");
    let text = fs::read_to_string(path).expect("docs/theory.md");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted = table::explored();
    assert!(words(&text).contains(&wanted), "docs/theory.md, section 11, should say: {wanted}");
    // The page gives one reason for all faults that the explorer misses.
    let ordering = |row: &Row| !matches!(row.edits, Some((Seen::Not(why), _)) if why != ORDERING);
    assert!(PROTOCOL.iter().all(ordering), "the explorer misses a fault for another reason");
}

/// The committed table is the one in the code.
#[test]
fn the_table_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/faults.md");
    let wanted = table::markdown();
    if std::env::var_os("FPU_BLESS").is_some() {
        fs::write(&path, &wanted).expect("docs/faults.md can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/faults.md differs from the code; FPU_BLESS=1 rewrites it");
    assert!(table::all().count() >= 25);
}
