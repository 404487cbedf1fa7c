//! Random and damaged images through validation and a real XRSTOR: what is accepted never faults and
//! lands in the registers as the bytes say, what is refused changes nothing.
//!
//! A million images in release; `FPU_FUZZ=N` runs N.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use fpu_hosted_test::{
    real::{fuzz_foreign, random_image, ForeignBench},
    Random,
};
use fpu_x86::{ForeignError, SaveInstruction};

const MANY: u64 = 1_000_000;
const DEBUG: u64 = 50_000;
/// Of the refused, one in so many is given to the CPU as well.
const ASKED: u64 = 16;

fn images() -> u64 {
    if let Some(asked) = std::env::var("FPU_FUZZ").ok().and_then(|text| text.parse().ok()) {
        return asked;
    }
    let program = std::env::current_exe().unwrap();
    if program.components().any(|part| part.as_os_str() == "release") {
        return MANY;
    }
    println!("not a release build: {DEBUG} images instead of {MANY}");
    DEBUG
}

/// The error without its numbers.
fn reason(why: &ForeignError) -> &'static str {
    match why {
        ForeignError::Truncated { .. } => "Truncated",
        ForeignError::OtherLayout { .. } => "OtherLayout",
        ForeignError::Supervisor { .. } => "Supervisor",
        ForeignError::Unknown { .. } => "Unknown",
        ForeignError::NotEnabled { .. } => "NotEnabled",
        ForeignError::NotPermitted { .. } => "NotPermitted",
        ForeignError::NotStandard { .. } => "NotStandard",
        ForeignError::ReservedHeader { .. } => "ReservedHeader",
        ForeignError::ReservedMxcsr { .. } => "ReservedMxcsr",
        ForeignError::IllegalValue { .. } => "IllegalValue",
        _ => "another",
    }
}

#[derive(Default)]
struct Count {
    images: u64,
    asked: u64,
    agreed: u64,
}

/// What a CPU without MPX, AMX and PKRU can give; the others are tried with recorded words.
const SEEN: [&str; 8] = [
    "accepted",
    "Truncated",
    "Supervisor",
    "Unknown",
    "NotEnabled",
    "NotStandard",
    "ReservedHeader",
    "ReservedMxcsr",
];

#[test]
fn what_is_accepted_never_faults_and_what_is_refused_changes_nothing() {
    let images = images();
    let mut benches = ForeignBench::all();
    // XRSTOR, if there is any, to be asked about what was refused.
    let xrstor =
        benches.iter().position(|bench| bench.plan().save_instruction() != SaveInstruction::Fxsave);
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    let mut words = Random::new(20_261_123);
    let mut image = Vec::new();
    let started = Instant::now();
    for n in 0..images {
        let rung = (n % benches.len() as u64) as usize;
        random_image(benches[rung].plan(), &mut words, &mut image);
        let answer = benches[rung].check(&image);
        let count = counts.entry(answer.as_ref().map_or_else(reason, |()| "accepted")).or_default();
        count.images += 1;
        if let (Err(_), Some(xrstor)) = (answer, xrstor) {
            if count.images % ASKED == 0 {
                count.asked += 1;
                count.agreed += u64::from(benches[xrstor].ask_the_cpu(&image).is_err());
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{images} images, {} plans, {:.0} a second", benches.len(), images as f64 / seconds);
    println!("{:16} {:>9} {:>12} {:>16}", "", "images", "given to CPU", "refused by it");
    for (reason, Count { images, asked, agreed }) in &counts {
        println!("{reason:16} {images:>9} {asked:>12} {agreed:>16}");
    }
    if images >= DEBUG && xrstor.is_some() {
        for reason in SEEN {
            assert!(counts.contains_key(reason), "no image was {reason}");
        }
        let accepted = counts["accepted"].images;
        assert!(accepted > images / 5 && accepted < images * 4 / 5, "{accepted} accepted");
    }
}

/// What the fuzzer starts from, through the function that it calls.
#[test]
fn the_fuzzers_seeds_run() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fpu-x86/fuzz/seeds/foreign");
    let mut benches = ForeignBench::all();
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for seed in fs::read_dir(seeds).unwrap() {
        let path = seed.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        match fuzz_foreign(&mut benches, &fs::read(&path).unwrap()) {
            0 => refused.push(name),
            _ => accepted.push(name),
        }
    }
    accepted.sort();
    refused.sort();
    println!("accepted: {}\nrefused: {}", accepted.join(" "), refused.join(" "));
    for name in ["fxsave_initial", "fxsave_full", "fxsave_pending"] {
        assert!(accepted.iter().any(|seed| seed == name), "{name}");
    }
    for name in ["empty", "fxsave_mxcsr_reserved", "compacted", "reserved", "supervisor", "unknown"]
    {
        assert!(refused.iter().any(|seed| seed == name), "{name}");
    }
}
