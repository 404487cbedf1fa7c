//! Plans from the CPUID words that other machines reported: `fpu-x86/testdata`.

use std::collections::{BTreeMap, BTreeSet};

use fpu_x86::{Components, CpuidInfo, Plan, SaveInstruction};
use raw_cpuid::CpuIdResult;

const FILES: [&str; 3] = [
    include_str!("../../../fpu-x86/testdata/xsave_layouts.jsonl"),
    include_str!("../../../fpu-x86/testdata/no_xsave.jsonl"),
    include_str!("../../../fpu-x86/testdata/quirks.jsonl"),
];

/// The text of `"key":"value"`, or what is between the brackets of `"key":[...]`.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("\"{key}\":");
    let rest = &line[line.find(&quoted)? + quoted.len()..];
    let (open, close) = (&rest[..1], if rest.starts_with('[') { ']' } else { '"' });
    (open != "n").then(|| rest[1..].split(close).next())?
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_matches('"').trim_start_matches("0x"), 16).unwrap()
}

fn facts(line: &str) -> Option<CpuidInfo> {
    let single = [0, 1, 0x8000_0000, 0x8000_0008].map(|leaf| (leaf, 0));
    let keys = single.into_iter().chain((0..63).map(|subleaf| (0xD, subleaf)));
    let words: BTreeMap<(u32, u32), Vec<u32>> = keys
        .filter_map(|(leaf, subleaf)| {
            let four = field(line, &format!("0x{leaf:x}.{subleaf}"))?;
            Some(((leaf, subleaf), four.split(',').map(|word| hex(word) as u32).collect()))
        })
        .collect();
    CpuidInfo::from_cpuid(move |leaf, subleaf| {
        match words.get(&(leaf, subleaf)).map(Vec::as_slice) {
            Some(&[eax, ebx, ecx, edx]) => CpuIdResult { eax, ebx, ecx, edx },
            _ => CpuIdResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
        }
    })
    .ok()
}

/// One plan of each kind, with a name: for ring 3 as the machine was found and for ring 0, by every instruction.
pub fn plans() -> Vec<(String, Plan)> {
    let (mut plans, mut kinds) = (Vec::new(), BTreeSet::new());
    for line in FILES.iter().flat_map(|file| file.lines()) {
        let Some(facts) = facts(line) else { continue };
        let enabled = Components::from_bits_retain(field(line, "xcr0").map_or(3, hex));
        let name = field(line, "brand").or_else(|| field(line, "name")).unwrap_or_default();
        let user = Plan::for_user(facts.clone().with_xcr0(enabled), 0xFFFF, Components::all());
        let kernel = Plan::for_kernel(facts, 0xFFFF, Components::all());
        for plan in [user, kernel].into_iter().flatten() {
            for instruction in SaveInstruction::ALL {
                let Ok(plan) = plan.clone().with_save_instruction(instruction) else { continue };
                let all = plan.components() | Components::PKRU;
                let places: Vec<_> =
                    all.numbers().map(|number| plan.cpuid_info().described(number)).collect();
                let shown = plan.user_format().components();
                if kinds.insert(format!("{all:?} {shown:?} {instruction:?} {places:?}")) {
                    let ring = if plan.is_for_kernel() { 0 } else { 3 };
                    plans.push((format!("{name}, ring {ring}, {instruction:?}"), plan));
                }
            }
        }
    }
    plans
}
