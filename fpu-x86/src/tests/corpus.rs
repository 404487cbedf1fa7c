//! Plans and layouts made from the words that real CPUs reported, and the words that hypervisors and
//! firmware were reported to give: `testdata/README.md`.

use std::{
    collections::BTreeSet,
    format, println,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    components::{Components, SWITCHED},
    cpuid::Leaf,
    error::PlanError,
    layout::{Compacted, Layout, Standard},
    plan::{Plan, Quirk, SizeWord},
    ring0::ControlState,
    save_instruction::{Format, SaveInstruction},
    tests::words::{Words, FXSR_SSE, OSXSAVE},
};

const WITH_XSAVE: &str = include_str!("../../testdata/xsave_layouts.jsonl");
const WITHOUT_XSAVE: &str = include_str!("../../testdata/no_xsave.jsonl");
const QUIRKS: &str = include_str!("../../testdata/quirks.jsonl");

/// `"key":"value"` or `"key":[...]` of one line of JSON, as text.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let at = line.find(&format!("\"{key}\":"))? + key.len() + 3;
    let rest = &line[at..];
    let end = match rest.as_bytes().first()? {
        b'"' => rest[1..].find('"')? + 2,
        b'[' => rest.find(']')? + 1,
        _ => rest.find([',', '}'])?,
    };
    Some(rest[..end].trim_matches(['"', '[', ']']))
}
fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_matches('"').trim_start_matches("0x"), 16).unwrap()
}

fn recorded(line: &str) -> Words {
    let mut words = Words::default();
    let single = [0, 1, 0x8000_0000, 0x8000_0008].map(|leaf| (leaf, 0));
    let keys = single.into_iter().chain((0..63).map(|sub| (0xD, sub)));
    for (leaf, sub) in keys {
        if let Some(four) = field(line, &format!("0x{leaf:x}.{sub}")) {
            let four: Vec<u32> = four.split(',').map(|word| hex(word) as u32).collect();
            words = words.with(leaf, sub, four.try_into().unwrap());
        }
    }
    words
}

#[test]
fn recorded_cpus_with_xsave() {
    let lines: Vec<&str> = WITH_XSAVE.lines().collect();
    let (mut planned, mut refused) = (0, 0);
    for line in &lines {
        let name = format!("{} {}", field(line, "id").unwrap(), field(line, "brand").unwrap());
        let words = recorded(line);
        let enabled = field(line, "xcr0").filter(|text| *text != "null").map_or(0, hex);
        let words = words.xcr0(enabled);
        let plan = words.plan();
        let dormant = words.cpuid[&(1, 0)][2] & OSXSAVE == 0;
        match field(line, "status").unwrap() {
            // A part with junk in leaf 1.
            _ if words.cpuid[&(1, 0)][3] & FXSR_SSE != FXSR_SSE => {
                assert_eq!(plan, Err(PlanError::NoFxsave), "{name}");
            }
            _ if dormant => {
                assert_eq!(plan.unwrap().save_instruction(), SaveInstruction::Fxsave, "{name}")
            }
            // What the system enabled is not recorded there: only x87 and SSE can be saved.
            status @ ("zero_leaf_d" | "no_leaf_d") => {
                let why = match status {
                    "zero_leaf_d" => PlanError::EmptyXsaveLeaf,
                    _ => PlanError::NoXsaveLeaf,
                };
                assert_eq!(words.clone().xcr0(7).plan(), Err(why), "{name}");
                let plan = words.xcr0(3).plan().unwrap();
                assert_eq!(
                    (plan.save_instruction(), plan.quirks().count()),
                    (SaveInstruction::Fxsave, 1),
                    "{name}"
                );
            }
            "complete" if enabled & 0b11 == 0b11 => {
                let plan = plan.unwrap_or_else(|why| panic!("{name}: {why}"));
                let supported = words.cpuid[&(0xD, 0)];
                assert_eq!(plan.components().bits(), enabled & !0x200, "{name}");
                assert!(plan.area_len() <= supported[2] as usize, "{name}");
                if enabled & 0x200 == 0 {
                    let standard = plan.with_save_instruction(SaveInstruction::Xsave).unwrap();
                    assert_eq!(standard.area_len(), supported[1] as usize, "{name}");
                }
                planned += 1;
            }
            "complete" => assert!(plan.is_err(), "{name}: XCR0 {enabled:#x}"),
            // A faulty tool's words: whatever comes of them, it is an answer.
            _ => refused += usize::from(plan.is_err()),
        }
    }
    println!("{} recorded, {planned} planned, {refused} damaged ones refused", lines.len());
    assert!(planned >= 30, "only {planned} of {}", lines.len());
}

#[test]
fn recorded_cpus_without_xsave() {
    let lines: Vec<&str> = WITHOUT_XSAVE.lines().collect();
    let mut legacy = 0;
    for line in &lines {
        let brand = field(line, "brand").unwrap();
        let has = |key| field(line, key) == Some("1");
        match recorded(line).plan() {
            Ok(plan) => {
                assert!(has("fxsr") && has("sse"), "{brand}");
                assert_eq!(plan.save_instruction(), SaveInstruction::Fxsave, "{brand}");
                legacy += 1;
            }
            Err(why) => {
                assert_eq!(why, PlanError::NoFxsave, "{brand}");
                assert!(!(has("fxsr") && has("sse")), "{brand}");
            }
        }
    }
    assert!(legacy >= 20, "only {legacy} of {}", lines.len());
}

/// The `(XCR0, IA32_XSS)` pairs that account for both of the CPU's own sizes.
fn pairs(line: &str) -> Vec<(u64, u64)> {
    let Some(at) = line.find("\"pairs\":[[") else { return Vec::new() };
    let rest = &line[at + 10..];
    let end = rest.find("]]").unwrap();
    rest[..end]
        .split("],[")
        .map(|pair| {
            let (xcr0, xss) = pair.split_once(',').unwrap();
            (hex(xcr0.trim_matches('[')), hex(xss))
        })
        .collect()
}

fn list(line: &str, key: &str) -> Vec<String> {
    let text = field(line, key).unwrap_or_default();
    text.split(',')
        .map(|item| item.trim_matches('"').to_string())
        .filter(|s| !s.is_empty())
        .collect()
}

/// Every entry is of one of these kinds; there is no other.
#[derive(Default)]
struct Explained {
    exact: usize,
    undescribed: usize,
    without_subleaf_1: usize,
    no_layout: usize,
    enabled_sets: usize,
    pairs: usize,
}

#[test]
fn layouts_are_the_sizes_that_recorded_cpus_report() {
    let lines: Vec<&str> = WITH_XSAVE.lines().collect();
    let mut sum = Explained::default();
    for line in &lines {
        let name = format!("{} {}", field(line, "id").unwrap(), field(line, "brand").unwrap());
        let words = recorded(line);
        let facts = match words.cpuid_info() {
            Ok(facts) if facts.xsave() => facts,
            without => {
                let junk = words.cpuid[&(1, 0)][3] & FXSR_SSE != FXSR_SSE;
                let leaf = without.map(|facts| facts.leaf());
                match field(line, "status").unwrap() {
                    _ if junk => assert_eq!(leaf, Err(PlanError::NoFxsave), "{name}"),
                    "no_leaf_d" => {
                        assert!(matches!(leaf, Ok(Some(Leaf::None { .. }))), "{name}");
                    }
                    "zero_leaf_d" => {
                        assert_eq!(leaf, Ok(Some(Leaf::Empty { eax: 0 })), "{name}");
                    }
                    status => panic!("{name}: {status}: {leaf:?}"),
                }
                sum.no_layout += 1;
                continue;
            }
        };
        let undescribed = list(line, "undescribed");
        let numbers: Vec<u32> = undescribed
            .iter()
            .map(|number| number.parse().unwrap())
            .filter(|number| *number >= 2)
            .collect();
        let (user, supervisor) = (facts.supported_user(), facts.supported_supervisor());
        let all = Layout::<Standard>::new(&facts, user);
        let everything = Layout::<Compacted>::new(&facts, user | supervisor);
        // What a faulty tool left out is refused by name; the rest has the CPU's own size.
        match numbers.iter().copied().find(|number| user.numbers().any(|user| user == *number)) {
            Some(number) => {
                let missing = Components::of_number(number).unwrap();
                assert_eq!(all, Err(PlanError::Undescribed(missing)), "{name}");
            }
            None => {
                let computed = all.unwrap_or_else(|why| panic!("{name}: {why}")).len();
                assert_eq!(computed, facts.standard_supported() as usize, "{name}");
            }
        }
        match numbers.first() {
            Some(number) => {
                let missing = Components::of_number(*number).unwrap();
                assert_eq!(everything, Err(PlanError::Undescribed(missing)), "{name}");
                sum.undescribed += 1;
            }
            None if undescribed.is_empty() => sum.exact += 1,
            None => sum.without_subleaf_1 += 1,
        }
        for xcr0 in list(line, "xcr0_candidates") {
            let set = Components::from_bits_retain(hex(&xcr0));
            let layout = Layout::<Standard>::new(&facts, set);
            let layout = layout.unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(layout.len(), facts.standard_enabled() as usize, "{name} {set:?}");
            sum.enabled_sets += 1;
        }
        for (xcr0, xss) in pairs(line) {
            if !facts.xsavec() {
                continue; // There is no compacted format, and no size of it.
            }
            let set = Components::from_bits_retain(xcr0 | xss);
            let layout = Layout::<Compacted>::new(&facts, set);
            let layout = layout.unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(layout.len(), facts.compacted_enabled() as usize, "{name} {set:?}");
            sum.pairs += 1;
        }
    }
    println!(
        "{} CPUs: {} exact, {} with subleaves missing, {} without subleaf 1, {} without a layout; \
         {} sizes of enabled sets, {} compacted",
        lines.len(),
        sum.exact,
        sum.undescribed,
        sum.without_subleaf_1,
        sum.no_layout,
        sum.enabled_sets,
        sum.pairs
    );
    assert!(sum.exact >= 40 && sum.enabled_sets >= 60 && sum.pairs >= 60, "too few were compared");
}

#[test]
fn kernel_plans_of_recorded_cpus() {
    let lines: Vec<&str> = WITH_XSAVE.lines().collect();
    let (mut planned, mut best) = (Vec::new(), [0; SaveInstruction::ALL.len()]);
    for line in &lines {
        let name = format!("{} {}", field(line, "id").unwrap(), field(line, "brand").unwrap());
        let words = recorded(line);
        let complete = field(line, "status") == Some("complete");
        let plan = match words.kernel(Components::all()) {
            Ok(plan) => plan,
            Err(why) => {
                assert_eq!(why, PlanError::NoFxsave, "{name}: it boots with anything else");
                assert_ne!(words.cpuid[&(1, 0)][3] & FXSR_SSE, FXSR_SSE, "{name}");
                continue;
            }
        };
        // What is listed and can be switched is in the plan, or a quirk says why not.
        let facts = plan.cpuid_info();
        let mut due = facts.supported_user() & SWITCHED;
        if plan.save_instruction() == SaveInstruction::Xsaves {
            due |= facts.supported_supervisor() & SWITCHED;
        }
        let left_out = plan.quirks().fold(Components::empty(), |set, quirk| match quirk {
            // Of PKRU, which no plan for ring 0 has, a quirk says that frames have no place for it.
            Quirk::LeftOut { components, .. } => set | components.difference(Components::PKRU),
            _ => set,
        });
        assert_eq!(plan.components() | left_out, due, "{name}");
        assert!(!plan.components().intersects(left_out), "{name}");
        assert_eq!(plan.xcr0() | plan.xss(), plan.components(), "{name}");
        if complete {
            assert_eq!(plan.quirks().count(), 0, "{name}: {:?}", plan.quirks().next());
            best[SaveInstruction::ALL
                .iter()
                .position(|instruction| *instruction == plan.save_instruction())
                .unwrap()] += 1;
            planned.push((name, plan));
        }
    }
    println!("{} plans; by instruction {:?}: {best:?}", planned.len(), SaveInstruction::ALL);
    assert!(planned.len() >= 40 && best[0] >= 15, "{best:?}");
    // A CPU is let in only where every component lies alike.
    let (mut alike, mut refused) = (0, 0);
    for (name, plan) in &planned {
        for (other_name, other) in &planned {
            let cpu = other.cpuid_info();
            match plan.check_cpu(cpu) {
                Ok(()) => {
                    let again = Layout::<Compacted>::new(cpu, plan.components());
                    let here = Layout::<Compacted>::new(plan.cpuid_info(), plan.components());
                    assert_eq!(here, again, "{name}, {other_name}");
                    alike += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert_eq!(plan.check_cpu(plan.cpuid_info()), Ok(()), "{name}");
    }
    println!("{alike} pairs of CPUs are alike, {refused} are refused");
    assert!(refused > alike && alike > planned.len(), "{alike}, {refused}");
}

/// AMD's since family 17h restore the x87 pointers and say so; older ones, and those whose hypervisor hides
/// it, are scrubbed.
#[test]
fn cpus_that_keep_x87_pointers_are_known() {
    let (mut keep, mut fixed) = (0, 0);
    for line in WITH_XSAVE.lines().chain(WITHOUT_XSAVE.lines()) {
        let brand = field(line, "brand").unwrap();
        let Ok(facts) = recorded(line).cpuid_info() else { continue };
        let amd = ["AuthenticAMD", "HygonGenuine"].contains(&field(line, "vendor").unwrap());
        let family: u32 = field(line, "family").unwrap().parse().unwrap();
        let bits =
            field(line, "0x80000008.0").map_or(0, |four| hex(four.split(',').nth(1).unwrap()));
        let keeps = amd && bits & 4 == 0;
        assert_eq!(facts.keeps_x87_pointers(), keeps, "{brand}");
        if amd && family < 0x17 {
            assert!(keeps, "{brand}");
        }
        keep += u32::from(keeps);
        fixed += u32::from(amd && !keeps);
    }
    println!("{keep} AMD CPUs keep x87 pointers, {fixed} do not");
    assert!(keep >= 10 && fixed >= 10, "{keep}, {fixed}");
}

/// Each line, written again from what was read of it, is the line: no word is skipped.
#[test]
fn quirks_are_read_to_the_last_word() {
    let mut names = BTreeSet::new();
    for line in QUIRKS.lines() {
        let name = field(line, "name").unwrap();
        let slug = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!((1..=20).contains(&name.len()) && name.chars().all(slug), "{name}");
        assert!(names.insert(name), "{name} is there twice");
        let about = field(line, "about").unwrap();
        assert!(!about.is_empty(), "{name}");
        let enabled = hex(field(line, "xcr0").unwrap());
        let words = recorded(line);
        let four = |((leaf, sub), [eax, ebx, ecx, edx]): (&(u32, u32), &[u32; 4])| {
            format!(r#""{leaf:#x}.{sub}":["{eax:#x}","{ebx:#x}","{ecx:#x}","{edx:#x}"]"#)
        };
        let cpuid = words.cpuid.iter().map(four).collect::<Vec<_>>().join(",");
        let again = format!(
            r#"{{"name":"{name}","about":"{about}","xcr0":"{enabled:#x}","cpuid":{{{cpuid}}}}}"#
        );
        assert_eq!(again, line);
        // What a task finds enabled is legal, and listed where anything is.
        let enabled = Components::from_bits_retain(enabled);
        assert!(enabled.is_legal_xcr0() && enabled.contains(Components::LEGACY), "{name}");
        if let Some([low, _, _, high]) = words.cpuid.get(&(0xD, 0)) {
            let listed = u64::from(*high) << 32 | u64::from(*low);
            assert_eq!(enabled.bits() & !listed, 0, "{name}");
        }
        assert_eq!(words.cpuid[&(1, 0)][3] & FXSR_SSE, FXSR_SSE, "{name}");
    }
    assert_eq!(names.len(), 25);
}

/// What a kernel that asks for all user components and CET_U gets on each machine of the list: XCR0 and IA32_XSS,
/// where there is XSAVE and XSAVES; the instruction; which components a quirk leaves out; and what the sizes that
/// are there are compared with, when they stay as they are. Derived from the words by hand.
type Expected =
    (&'static str, Option<u64>, Option<u64>, SaveInstruction, u64, [Option<(u32, u32)>; 2]);
const EXPECTED: [Expected; 25] = {
    use SaveInstruction::{Fxsave, Xsave, Xsavec, Xsaveopt, Xsaves};
    const AS_IT_IS: [Option<(u32, u32)>; 2] = [None, None];
    const fn compacted(computed: u32, reported: u32) -> [Option<(u32, u32)>; 2] {
        [None, Some((computed, reported))]
    }
    const fn both(standard: (u32, u32), compacted: (u32, u32)) -> [Option<(u32, u32)>; 2] {
        [Some(standard), Some(compacted)]
    }
    [
        ("bhyve-avx512", Some(0xE7), None, Xsaveopt, 0, AS_IT_IS),
        ("xhyve-mpx", Some(7), None, Xsaveopt, 0, AS_IT_IS),
        ("nvmm", None, None, Fxsave, 0, AS_IT_IS),
        ("firecracker-t2", Some(7), None, Xsaveopt, 0, AS_IT_IS),
        ("kvm-half-amx", Some(0xE7), Some(0), Xsaves, 1 << 17, both((2688, 2696), (2432, 2440))),
        ("openhcl-tdx", Some(0x6_00E7), Some(0x800), Xsaves, 0, compacted(10752, 10704)),
        ("snp-no-cet", Some(7), Some(0), Xsaves, 1 << 11, both((832, 576), (832, 576))),
        ("svsm-ebx", Some(7), Some(0), Xsaves, 0, both((832, 576), (832, 576))),
        ("n5105", Some(3), Some(0), Xsaves, 0, AS_IT_IS),
        ("athlon2", None, None, Fxsave, 0, AS_IT_IS),
        ("virtualbox", Some(7), None, Xsave, 0, AS_IT_IS),
        ("cpuid-limit", None, None, Fxsave, 0, AS_IT_IS),
        ("pkru-off", Some(7), Some(0), Xsavec, 0, AS_IT_IS),
        ("wsl2", Some(7), Some(0), Xsavec, 0, compacted(832, 0)),
        ("xfd-no-amx", Some(0xE7), Some(0x800), Xsaves, 0, compacted(2448, 2432)),
        ("zhaoxin", Some(7), None, Xsaveopt, 0, AS_IT_IS),
        ("via", Some(7), None, Xsaveopt, 0, AS_IT_IS),
        ("rosetta", Some(7), None, Xsave, 0, AS_IT_IS),
        ("acrn-pt", Some(7), Some(0), Xsaves, 0, compacted(832, 960)),
        ("xss-3900", Some(0xE7), Some(0x800), Xsaves, 0, both((2688, 2696), (2448, 2480))),
        ("skylake-mpx", Some(7), Some(0), Xsaves, 0, both((832, 1088), (832, 960))),
        ("openvmm-ebx", Some(7), Some(0x800), Xsaves, 0, compacted(848, 832)),
        ("bhyve-avx", Some(7), None, Xsaveopt, 0, AS_IT_IS),
        ("openbsd-vmm", Some(7), None, Xsaveopt, 0, AS_IT_IS),
        ("firecracker-emr", Some(0xE7), Some(0), Xsaves, 0, AS_IT_IS),
    ]
};

#[test]
fn every_quirk_has_a_plan_for_ring_0() {
    for (line, expected) in QUIRKS.lines().zip(EXPECTED) {
        let (name, xcr0, xss, instruction, left_out, sizes) = expected;
        assert_eq!(field(line, "name"), Some(name));
        let words = recorded(line);
        let plan = words.kernel(Components::USER | Components::CET_U);
        let plan = plan.unwrap_or_else(|why| panic!("{name}: {why}"));
        let state = ControlState::of(&plan);
        assert_eq!(
            (state.xcr0, state.xss, plan.save_instruction()),
            (xcr0, xss, instruction),
            "{name}"
        );
        let plan = plan.with_sizes(&words.cpuid_info().unwrap());
        let (mut said, mut larger) = (Components::empty(), plan.layout.len());
        let mut found = [None; 2];
        for quirk in plan.quirks() {
            match quirk {
                Quirk::LeftOut { components, .. } => said |= components,
                Quirk::Size { word: SizeWord::Supported, .. } => {}
                Quirk::Size { word, computed, reported } => {
                    let index = usize::from(word == SizeWord::Compacted);
                    found[index] = Some((computed, reported));
                    if usize::from(plan.format() == Format::Compacted) == index {
                        larger = larger.max(reported as usize);
                    }
                }
                Quirk::NoXsaveLeaf { last } => assert_eq!((name, last), ("cpuid-limit", 3)),
                other => panic!("{name}: {other}"),
            }
        }
        assert_eq!((said.bits(), found, plan.area_len()), (left_out, sizes, larger), "{name}");
        assert_eq!(plan.scrubs(), name == "athlon2", "{name}");
    }
}

/// In ring 3 every machine has a plan, except the one whose registers no known instruction saves.
#[test]
fn every_quirk_has_a_plan_for_ring_3() {
    for line in QUIRKS.lines() {
        let name = field(line, "name").unwrap();
        let enabled = hex(field(line, "xcr0").unwrap());
        let plan = recorded(line).xcr0(enabled).plan();
        if name == "cpuid-limit" {
            assert_eq!(plan, Err(PlanError::NoXsaveLeaf));
            continue;
        }
        let plan = plan.unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(plan.components().bits(), enabled & !0x200, "{name}");
        assert!(plan.area_len() >= plan.layout.len(), "{name}");
    }
}

/// The words of all recorded CPUs, with XCR0 as it was found, or else with x87 and SSE.
pub(crate) fn machines() -> impl Iterator<Item = (&'static str, Words)> {
    WITH_XSAVE.lines().chain(WITHOUT_XSAVE.lines()).chain(QUIRKS.lines()).map(|line| {
        let enabled = field(line, "xcr0").filter(|text| *text != "null").map_or(3, hex);
        let name = field(line, "brand").or_else(|| field(line, "name")).unwrap_or_default();
        (name, recorded(line).xcr0(enabled))
    })
}

/// The plans of all recorded CPUs, for ring 3 as they were found and for ring 0, by every instruction; one of each
/// kind: same components, same instruction, same places in both formats.
pub(crate) fn plans() -> Vec<(String, Plan)> {
    let mut plans: Vec<(String, Plan)> = Vec::new();
    let mut kinds = BTreeSet::new();
    for (name, words) in machines() {
        for plan in [words.plan(), words.kernel(Components::USER)] {
            for instruction in SaveInstruction::ALL {
                let Ok(plan) =
                    plan.clone().and_then(|plan| plan.with_save_instruction(instruction))
                else {
                    continue;
                };
                let places: Vec<_> =
                    plan.components().numbers().map(|n| plan.cpuid_info().described(n)).collect();
                let pkru = (plan.carries_pkru(), plan.cpuid_info().described(9));
                let kind = format!("{:?} {instruction:?} {places:?} {pkru:?}", plan.components());
                if kinds.insert(kind) {
                    let name = format!("{name}, {instruction:?}, {:?}", plan.is_for_kernel());
                    plans.push((name, plan));
                }
            }
        }
    }
    plans
}
