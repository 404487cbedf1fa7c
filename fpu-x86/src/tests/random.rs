//! Layouts from random words, which no CPU gives: each is sound or refused.

use raw_cpuid::CpuIdResult;
use std::{collections::BTreeMap, println, vec::Vec};

use crate::{
    components::Components,
    cpuid::CpuidInfo,
    error::PlanError,
    layout::{Compacted, Layout, LayoutFormat, Place, Standard},
    plan::Plan,
    tests::sample::Random,
};

const CASES: u32 = if cfg!(debug_assertions) { 20_000 } else { 250_000 };

/// Few bits, about half, or almost all.
fn bits(random: &mut Random) -> u64 {
    let (a, b, c) = (random.word(), random.word(), random.word());
    match random.below(4) {
        0 => a & b & c,
        1 => a,
        2 => a | b | c,
        _ => a & b,
    }
}

/// Leaf 0xD of a CPU that does not exist. In most cases the offsets are those of a packed area in random
/// order; words are then spoilt in some.
fn words(random: &mut Random) -> BTreeMap<u32, [u32; 4]> {
    const ALL: u64 = u64::MAX >> 1;
    let user = bits(random) & ALL | 3;
    let mut supervisor = bits(random) & ALL & !3;
    if random.below(8) != 0 {
        supervisor &= !user;
    }
    let mut numbers: Vec<u32> =
        (2..63).filter(|number| (user | supervisor) >> number & 1 != 0).collect();
    for at in (1..numbers.len()).rev() {
        numbers.swap(at, random.below(at as u64 + 1) as usize);
    }
    let mut words = BTreeMap::new();
    let mut end: u32 = 576;
    for number in numbers {
        let size = match random.below(16) {
            0 => random.word() as u32 & 0xFF_FFFF,
            1..=3 => random.below(9000) as u32 + 1,
            4..=7 => 8,
            _ => 64 * (random.below(20) as u32 + 1),
        };
        let gap = if random.below(3) == 0 { random.below(300) as u32 } else { 0 };
        let offset = end.saturating_add(gap);
        let is_user = user >> number & 1 != 0;
        let flags = (random.word() as u32 & 6) | u32::from(!is_user);
        if is_user {
            end = offset.saturating_add(size);
        }
        words.insert(number, [size, if is_user { offset } else { 0 }, flags, 0]);
    }
    words.insert(0, [user as u32, 832, end, (user >> 32) as u32]);
    words.insert(1, [15, 832, supervisor as u32, (supervisor >> 32) as u32]);
    if random.below(2) == 0 {
        for _ in 0..=random.below(2) {
            let (leaf, word) = (random.below(63) as u32, random.below(4) as usize);
            let value = match random.below(5) {
                0 => 0,
                1 => u32::MAX,
                2 => random.below(700) as u32,
                3 => u32::MAX - random.below(3000) as u32,
                _ => random.word() as u32,
            };
            words.entry(leaf).or_default()[word] = value;
        }
    }
    words
}

fn facts(words: &BTreeMap<u32, [u32; 4]>) -> Result<CpuidInfo, PlanError> {
    let reader = |leaf, subleaf| {
        let words = if leaf == 0xD { words.get(&subleaf).copied() } else { None };
        let [eax, ebx, ecx, edx] = words.unwrap_or_default();
        CpuIdResult { eax, ebx, ecx, edx }
    };
    CpuidInfo::from_xsave_leaf(reader)
}

/// What holds for any layout; also that an area of `len` bytes holds each place.
fn check<F: LayoutFormat>(layout: &Layout<F>, facts: &CpuidInfo, set: Components) {
    let mut places: Vec<(u32, Place<F>)> = Vec::new();
    for number in 0..70 {
        let Some(place) = layout.place(number) else { continue };
        assert!(set.numbers().any(|in_set| in_set == number));
        assert_eq!(facts.described(number).map(|it| it.size as usize), Some(place.size()));
        assert!(place.offset() >= 576 && place.end() <= layout.len(), "{number}: {place:?}");
        places.push((number, place));
    }
    assert_eq!(places.len(), set.difference(Components::LEGACY).numbers().count());
    let end = places.iter().map(|(_, place)| place.end()).max();
    assert_eq!(layout.len(), end.unwrap_or(576));
    places.sort_by_key(|(_, place)| place.offset());
    for pair in places.windows(2) {
        assert!(pair[0].1.end() <= pair[1].1.offset(), "{pair:?} overlap");
    }
}

/// The compacted format by its definition, one component after the other.
fn check_compacted(layout: &Layout<Compacted>, facts: &CpuidInfo, set: Components) {
    let mut end = 576;
    for number in set.difference(Components::LEGACY).numbers() {
        let described = facts.described(number).unwrap();
        while described.align && end % 64 != 0 {
            end += 1;
        }
        assert_eq!(layout.place(number).unwrap().offset(), end);
        end += described.size as usize;
    }
}

#[test]
fn layouts_of_random_words_are_sound_or_refused() {
    let mut random = Random(0x5EED_0003);
    let (mut standard, mut compacted, mut plans) = (0, 0, 0);
    let mut refused: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..CASES {
        let words = words(&mut random);
        let facts = match facts(&words) {
            Ok(facts) => facts,
            Err(why) => {
                assert_eq!(why, PlanError::EmptyXsaveLeaf);
                continue;
            }
        };
        let supported = facts.supported_user() | facts.supported_supervisor();
        let mut set = Components::from_bits_retain(bits(&mut random));
        if random.below(8) != 0 {
            set &= supported;
        }
        let mut count = |why: PlanError| {
            let kind = match why {
                PlanError::NotEnumerated(_) => "not enumerated",
                PlanError::SupervisorOnly(_) => "supervisor only",
                PlanError::Undescribed(_) => "undescribed",
                PlanError::Misplaced { .. } => "misplaced",
                PlanError::WrongSize { .. } => "wrong size",
                other => panic!("{other}"),
            };
            *refused.entry(kind).or_default() += 1;
        };
        for user in [set, set & facts.supported_user()] {
            match Layout::<Standard>::new(&facts, user) {
                Ok(layout) => {
                    assert!(facts.supported_user().contains(user));
                    check(&layout, &facts, user);
                    standard += 1;
                }
                Err(why) => count(why),
            }
        }
        match Layout::<Compacted>::new(&facts, set) {
            Ok(layout) => {
                check(&layout, &facts, set);
                check_compacted(&layout, &facts, set);
                compacted += 1;
            }
            Err(why) => count(why),
        }
        let wanted = Components::from_bits_truncate(bits(&mut random)) | Components::LEGACY;
        if let Ok(plan) = Plan::for_kernel(facts, 0xFFFF, wanted) {
            assert!(plan.area_len() <= 576 + (1 << 20) + 63 * 64);
            assert_eq!(plan.check_cpu(plan.cpuid_info()), Ok(()));
            plans += 1;
        }
    }
    println!(
        "{CASES} CPUs: {standard} standard, {compacted} compacted, {plans} plans, {refused:?}"
    );
    assert!(standard > CASES / 3 && compacted > CASES / 3 && plans > CASES / 100);
    assert_eq!(refused.len(), 5, "{refused:?}");
}
