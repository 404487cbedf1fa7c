//! Wrong use does not compile, and the message says which call is missing.
//!
//! Every file of `tests/ui` is one wrong use. Its first lines name the error (`// error: E0277`) and
//! texts that must be in the message (`// expect: ...`), whatever the compiler's version. Beside it
//! stands the whole message as one compiler gave it, compared only under that compiler. To record
//! again, and then read what changed: `FPU_BLESS=1 cargo test -p fpu-hosted-test --test ui`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The minor version of the compiler whose messages are recorded.
const RECORDED: u32 = 95;
/// Fewer means that cases have been lost.
const AT_LEAST: usize = 40;

fn ui_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui")
}

/// Builds `fpu-core` as a user's cargo does, and returns its library.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "-q", "-p", "fpu-core", "--lib", "--message-format=json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "fpu-core does not build: {said}{text}");
        let mut quoted = text
            .lines()
            .filter(|line| line.contains("\"compiler-artifact\""))
            .flat_map(|line| line.split('"'));
        let file = |path: &&str| path.ends_with(".rlib") && path.contains("libfpu_core");
        PathBuf::from(quoted.rfind(file).expect("cargo names the library"))
    })
}

/// Compiles one file; the message, without what differs between machines, and whether it compiled.
fn compile(file: &Path) -> (bool, String) {
    let library = library();
    let out = std::env::temp_dir().join(format!("fpu-ui-{}", std::process::id()));
    fs::create_dir_all(&out).expect("a directory for output");
    let output = Command::new("rustc")
        .args(["--edition=2021", "--crate-type=lib", "--emit=metadata", "-Awarnings"])
        .arg(format!("--extern=fpu_core={}", library.display()))
        .arg("--out-dir")
        .arg(&out)
        .arg(file)
        .env_remove("RUSTFLAGS")
        .output()
        .expect("rustc starts");
    (output.status.success(), normal(&String::from_utf8_lossy(&output.stderr)))
}

/// Paths become names; line numbers, and the source text of other crates, go: neither a comment added
/// to the library nor an installed `rust-src` changes a message.
fn normal(message: &str) -> String {
    let ours = format!("{}/", ui_dir().display());
    let mut text = String::new();
    let mut foreign = false;
    for line in message.lines() {
        let start = line.trim_start();
        let number = start.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let in_gutter = start.starts_with('|') || start[number..].starts_with(" |");
        if let Some(place) = start.strip_prefix("--> ").or(start.strip_prefix("::: ")) {
            let file = place.split(':').next().unwrap_or(place);
            let place = match (file.split_once("fpu-core/src/"), file.split_once("/library/")) {
                (Some((_, file)), _) => format!("fpu-core/{file}"),
                (_, Some((_, file))) => format!("std/{file}"),
                _ => place.replace(&ours, ""),
            };
            foreign = place.starts_with("fpu-core/") || place.starts_with("std/");
            text.push_str(&format!("  --> {place}"));
        } else if foreign && (in_gutter || start == "...") {
            continue;
        } else if number > 0 && in_gutter {
            text.push_str(&format!("LL{}", &start[number..]));
        } else if in_gutter || start.starts_with("= ") {
            text.push_str(&format!("   {start}"));
        } else {
            text.push_str(line);
            foreign = false;
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the cases are there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "rs"));
    files.sort();
    files
}

/// Every case's message, compiled once for both tests.
fn messages() -> &'static BTreeMap<PathBuf, (bool, String)> {
    static MESSAGES: OnceLock<BTreeMap<PathBuf, (bool, String)>> = OnceLock::new();
    MESSAGES
        .get_or_init(|| sources(&ui_dir()).into_iter().map(|f| (f.clone(), compile(&f))).collect())
}

/// The running compiler's minor version.
fn minor() -> u32 {
    let output = Command::new("rustc").arg("--version").output().expect("rustc starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split('.').nth(1).and_then(|n| n.parse().ok()).expect("rustc 1.N")
}

#[test]
fn wrong_use_does_not_compile_and_says_why() {
    let mut wrong = Vec::new();
    for (file, (compiled, message)) in messages() {
        let name = file.file_stem().expect("a name").to_string_lossy();
        let source = fs::read_to_string(file).expect("readable");
        let header = |key: &str| -> Vec<String> {
            source.lines().filter_map(|l| l.strip_prefix(key)).map(|l| l.trim().into()).collect()
        };
        let (code, expected) = (header("// error: ").concat(), header("// expect: "));
        if *compiled {
            wrong.push(format!("{name} compiles"));
            continue;
        }
        if expected.is_empty() {
            wrong.push(format!("{name} expects no text"));
        }
        // Lints have no number: their name stands in a note.
        let numbered = code.starts_with('E');
        let errors = message.lines().filter(|l| l.starts_with("error") && !l.contains("aborting"));
        for error in errors {
            if numbered && !error.starts_with(&format!("error[{code}]")) {
                wrong.push(format!("{name} fails otherwise than by {code}: {error}"));
            }
        }
        if !message.contains(&code) {
            wrong.push(format!("{name} does not fail by {code}"));
        }
        for text in expected {
            if !message.contains(&text) {
                wrong.push(format!("{name} does not say `{text}`:\n{message}"));
            }
        }
    }
    assert!(messages().len() >= AT_LEAST, "only {} cases", messages().len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn right_use_compiles() {
    for file in sources(&ui_dir().join("right")) {
        let (compiled, message) = compile(&file);
        assert!(compiled, "{}: {message}", file.display());
    }
}

#[test]
fn messages_are_as_recorded() {
    let bless = std::env::var_os("FPU_BLESS").is_some();
    let minor = minor();
    if minor != RECORDED {
        println!("SKIP: UI texts were recorded with rustc 1.{RECORDED}, this is 1.{minor}");
        return;
    }
    let mut wrong = Vec::new();
    for (file, (_, message)) in messages() {
        let record = file.with_extension("stderr");
        if bless {
            fs::write(&record, message).expect("writable");
        } else if fs::read_to_string(&record).unwrap_or_default() != *message {
            wrong.push(format!("{} has changed; it is now:\n{message}", record.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
