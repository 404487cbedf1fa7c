//! A fuzzer without its engine: inputs that know the formats, by every way in, for the plans of all recorded CPUs and of
//! this one, on which what is taken is restored.
//!
//! A million inputs in release; `FPU_FUZZ=N` runs N.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use fpu_hosted_test::{
    real::{fuzz_input, variant, Entry, Subject},
    Random,
};
use fpu_x86::Plan;

mod support {
    pub mod recorded;
}
use support::recorded;

const MANY: u64 = 1_000_000;
const DEBUG: u64 = 60_000;

fn inputs() -> u64 {
    if let Some(asked) = std::env::var("FPU_FUZZ").ok().and_then(|text| text.parse().ok()) {
        return asked;
    }
    let program = std::env::current_exe().unwrap();
    if program.components().any(|part| part.as_os_str() == "release") {
        return MANY;
    }
    println!("not a release build: {DEBUG} inputs instead of {MANY}");
    DEBUG
}

/// The seeds of both targets of `fpu-x86/fuzz`, by name, so that each run has the same order.
fn seeds() -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fpu-x86/fuzz/seeds");
    let mut paths = Vec::new();
    for target in ["frame", "foreign"] {
        paths.extend(fs::read_dir(fuzz.join(target)).unwrap().map(|seed| seed.unwrap().path()));
    }
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Names what was tried when an assertion fails.
struct Tried<'a>(&'a str, Entry, u64, &'a [u8]);

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(plan, entry, number, bytes) = self;
            let path = std::env::temp_dir().join(format!("fpu-fuzz-{number}"));
            let kept = fs::write(&path, *bytes).is_ok();
            println!("input {number}, {} bytes, {entry:?}, {plan}", bytes.len());
            println!("kept in {}: {kept}", path.display());
        }
    }
}

/// How often a way in gave an answer.
type Seen = BTreeMap<(Entry, &'static str), u64>;

fn fuzz(subjects: &mut [(String, Subject)], inputs: u64, seed: u64) -> Seen {
    let (seeds, mut words, mut seen) = (seeds(), Random::new(seed), Seen::new());
    for number in 0..inputs {
        let at = words.below(subjects.len());
        let (name, subject) = &mut subjects[at];
        let entry = Entry::ALL[words.below(Entry::ALL.len())];
        let legal = number % 8 == 0;
        let bytes = match legal {
            true => subject.legal(entry, &mut words),
            false => fuzz_input(subject, entry, &seeds, &mut words),
        };
        let tried = Tried(name, entry, number, &bytes);
        let answer = subject.check(entry, &bytes);
        assert!(!legal || answer.is_ok(), "a legal input: {answer:?}");
        let answer = answer.unwrap_or_else(|why| variant(&why));
        drop(tried);
        *seen.entry((entry, answer)).or_default() += 1;
    }
    seen
}

/// What every image can be refused for.
const IMAGE: [&str; 7] = [
    "IllegalValue",
    "NotEnabled",
    "NotStandard",
    "ReservedHeader",
    "ReservedMxcsr",
    "Supervisor",
    "Truncated",
];
/// How a frame is taken.
const FRAME: [&str; 6] = [
    "full",
    "legacy: ExtendedSize",
    "legacy: Magic1",
    "legacy: Magic2",
    "legacy: Software",
    "legacy: XstateSize",
];

/// Every answer that a way in has, and no other.
fn answers(entry: Entry) -> BTreeSet<&'static str> {
    let (image, more): (&[_], &[&[_]]) = match entry {
        Entry::Frame | Entry::Frame32 => (&IMAGE, &[&FRAME, &["NotPermitted", "Unknown"]]),
        Entry::FrameTiles => (&IMAGE, &[&FRAME, &["Unknown"]]),
        // What is beyond the plan is reported.
        Entry::FrameReport => (&IMAGE, &[&FRAME, &["taken in part"]]),
        Entry::Xstate => (&IMAGE, &[&["NotPermitted", "Unknown", "WrongLength", "taken"]]),
        Entry::Prfpreg => (&[], &[&["ReservedMxcsr", "WrongLength", "taken"]]),
        Entry::Foreign | Entry::First => {
            (&IMAGE, &[&["NotPermitted", "OtherLayout", "Unknown", "taken"]])
        }
        Entry::Compacted => (&IMAGE, &[&["NotInFormat", "OtherLayout", "taken", "taken in part"]]),
        Entry::ByNote => (
            &IMAGE,
            &[&["LayoutNote", "NotPermitted", "OtherSize", "Unknown", "WrongLength", "taken"]],
        ),
    };
    let reported = |it: &&str| entry != Entry::FrameReport || *it != "NotEnabled";
    let all = image.iter().chain(more.iter().copied().flatten()).copied();
    all.filter(reported).collect()
}

/// Every answer was given, if there were inputs enough.
fn complete(seen: &Seen, inputs: u64) {
    let (mut given, mut due) = (0, 0);
    for entry in Entry::ALL {
        let answers = answers(entry);
        let of_this: BTreeSet<_> =
            seen.keys().filter(|(at, _)| *at == entry).map(|(_, answer)| *answer).collect();
        let others: Vec<_> = of_this.difference(&answers).collect();
        assert!(others.is_empty(), "{entry:?}: {others:?}");
        let missing: Vec<_> = answers.difference(&of_this).collect();
        assert!(missing.is_empty() || inputs < MANY, "{entry:?}: never {missing:?}");
        (given, due) = (given + of_this.len(), due + answers.len());
    }
    println!("{given} of {due} answers");
    assert!(given > due * 9 / 10 || inputs < DEBUG / 2, "{given} of {due}");
}

fn report(seen: &Seen) {
    for entry in Entry::ALL {
        let of_this = seen.iter().filter(|((at, _), _)| *at == entry);
        let answers: Vec<String> =
            of_this.map(|((_, answer), count)| format!("{answer} {count}")).collect();
        println!("{entry:?}: {}", answers.join(", "));
    }
}

#[test]
fn no_input_breaks_a_promise_for_the_plan_of_any_recorded_cpu() {
    let plans = recorded::plans();
    let others: Vec<Plan> =
        plans.iter().cycle().skip(7).map(|(_, it)| it.clone()).take(plans.len()).collect();
    let mut subjects: Vec<(String, Subject)> = plans
        .into_iter()
        .zip(others)
        .map(|((name, plan), other)| (name, Subject::new(plan, other)))
        .collect();
    let inputs = inputs();
    let seen = fuzz(&mut subjects, inputs, 20_261_126);
    println!("{inputs} inputs, {} plans", subjects.len());
    report(&seen);
    complete(&seen, inputs);
}

#[test]
fn what_is_taken_for_this_cpu_is_restored_by_it() {
    let subjects = Subject::of_this_cpu().into_iter();
    let mut subjects: Vec<(String, Subject)> = subjects
        .map(|subject| (format!("{:?}", subject.plan().save_instruction()), subject))
        .collect();
    let inputs = inputs() / 4;
    let seen = fuzz(&mut subjects, inputs, 20_261_127);
    println!("{inputs} inputs, {} plans", subjects.len());
    report(&seen);
    // What there is to be refused depends on the CPU.
    for (entry, answer) in seen.keys() {
        assert!(answers(*entry).contains(answer), "{entry:?}: {answer}");
    }
    let taken = |answer: &str| answer.starts_with(|first: char| first.is_ascii_lowercase());
    let restored: u64 = seen.iter().filter(|((_, it), _)| taken(it)).map(|(_, count)| count).sum();
    assert!(restored > inputs / 4, "{restored} of {inputs} were taken");
}

/// What the fuzzer starts from, as it tries it.
#[test]
fn the_seeds_of_frames_run() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fpu-x86/fuzz/seeds/frame");
    let bytes = |name: &str| fs::read(seeds.join(name)).unwrap();
    let mut subjects = Subject::of_this_cpu();
    let mut names: Vec<String> = fs::read_dir(&seeds)
        .unwrap()
        .map(|seed| seed.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in &names {
        let bytes = bytes(name);
        let mut by = |entry| {
            let answers = subjects.iter_mut().map(|subject| subject.check(entry, &bytes));
            answers.filter(|answer| answer.is_ok()).count()
        };
        let taken = Entry::ALL.map(|entry| (entry, by(entry)));
        println!("{name}: {taken:?}");
        let frames = by(Entry::Frame) + by(Entry::Frame32);
        match name.as_str() {
            // For every plan, as one of the two.
            "fxsave" | "legacy_only_header" | "magic2_missing" | "size_huge" | "narrow_fxsave" => {
                assert!(frames >= Subject::of_this_cpu().len(), "{name}");
            }
            "mxcsr_reserved" | "supervisor" | "cut" | "empty" => {
                assert_eq!(by(Entry::Frame), 0, "{name}");
            }
            _ => {}
        }
    }
    assert!(names.len() >= 34, "{names:?}");
}
