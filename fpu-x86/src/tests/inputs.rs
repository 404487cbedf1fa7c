//! What other machines and other software wrote: `testdata/images`, and every recorded CPU's layout.

use std::{collections::BTreeMap, println, string::String, vec, vec::Vec};

use super::*;
use crate::{
    cpuid::CpuidInfo,
    error::PlanError,
    image::write_initial,
    layout::{Layout, Standard},
    origin::{ForeignLayout, XCR0},
    regset::tests::{random_area, same},
    save_instruction::SaveInstruction,
    signal::FrameKind,
    tests::{corpus, sample},
};

const FRAME: &[u8] = include_bytes!("../../testdata/images/frame.bin");
const KVM: &[u8] = include_bytes!("../../testdata/images/kvm.bin");
const FREEBSD: &[u8] = include_bytes!("../../testdata/images/freebsd-xstate.bin");
const PKU: &[u8] = include_bytes!("../../testdata/images/pku-xstate.bin");
const ZEN4: &[u8] = include_bytes!("../../testdata/images/zen4-xstate.bin");
const ZEN4_LAYOUT: &[u8] = include_bytes!("../../testdata/images/zen4-layout.bin");
const VALUES: &str = include_str!("../../testdata/images/values.txt");
const FRAME_VALUES: &str = include_str!("../../testdata/images/values-frame.txt");

const PKRU: u64 = 1 << 9;

/// The registers by name, from the text that the writer of the images made.
fn values(text: &str) -> BTreeMap<&str, Vec<u8>> {
    let value = |hex: &str| {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).rev().map(byte).collect()
    };
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, hex)| (name, value(hex)))
        .collect()
}

/// An AVX-512 machine of Intel's layout, without PKRU.
fn here() -> Plan {
    sample::plan(Components::LEGACY | Components::AVX | Components::AVX512)
}

fn read<'b>(
    bytes: &[u8],
    private: &'b mut [u8],
    rules: &ForeignRules<'b>,
    plan: &'b Plan,
) -> Result<ValidImage<'b>, ForeignError> {
    ForeignImage::copy(bytes, private)?.validate_by(rules, plan)
}

/// ZMM16 to 31 only if the image has them.
fn expect(image: &Image<'_>, text: &str, high: bool) {
    let values = values(text);
    for n in 0..16 {
        let low = [&image.xmm(n).unwrap()[..], &image.ymm_hi(n).unwrap()].concat();
        let all = [&low[..], &image.zmm_hi256(n).unwrap()].concat();
        assert_eq!(all, values[&*std::format!("zmm{n}")], "zmm{n}");
        let expected =
            if high { values[&*std::format!("zmm{}", n + 16)].clone() } else { vec![0; 64] };
        assert_eq!(image.zmm_hi16(n + 16).unwrap()[..], expected, "zmm{}", n + 16);
    }
    for n in 0..8 {
        assert_eq!(image.opmask(n).unwrap().to_le_bytes()[..], values[&*std::format!("k{n}")]);
    }
}

#[test]
fn images_are_taken_for_what_they_contain() {
    let plan = here();
    for (bytes, text) in [(KVM, VALUES), (FREEBSD, VALUES), (FRAME, FRAME_VALUES)] {
        for room in [plan.foreign_len(), 16384] {
            let mut private = vec![0; room];
            let valid = read(bytes, &mut private, &ForeignRules::new(), &plan).unwrap();
            expect(&valid.image(), text, true);
            assert_eq!((valid.pkru(), valid.beyond()), (None, Components::empty()));
        }
    }
}

#[test]
fn what_is_beyond_the_plan_is_refused_by_name_or_dropped_or_reported() {
    let plan = here();
    let mut private = vec![0; 16384];
    let refused = read(PKU, &mut private, &ForeignRules::new(), &plan).map(drop).unwrap_err();
    assert_eq!(refused, ForeignError::NotEnabled { bits: PKRU });
    let (said, named) = (
        std::format!("{refused}"),
        "XSTATE_BV at offset 512 has components 0x200, which are not enabled: PKRU",
    );
    assert_eq!((said.as_str(), refused.value()), (named, PKRU));

    let rules = ForeignRules::new().beyond(Beyond::Drop);
    let valid = read(PKU, &mut private, &rules, &plan).unwrap();
    expect(&valid.image(), VALUES, true);
    assert_eq!((valid.beyond(), valid.bytes_beyond(Components::PKRU)), (Components::empty(), None));

    let rules = ForeignRules::new().beyond(Beyond::Report);
    let valid = read(PKU, &mut private, &rules, &plan).unwrap();
    expect(&valid.image(), VALUES, true);
    assert_eq!(valid.beyond(), Components::PKRU);
    let rights = 0x5555_5554u64.to_le_bytes();
    assert_eq!(valid.bytes_beyond(Components::PKRU), Some(&rights[..]));
    assert_eq!(valid.bytes_beyond(Components::AVX), None);

    // Present with its initial value it is nothing.
    let mut initial = PKU.to_vec();
    initial[2688..].fill(0);
    let valid = read(&initial, &mut private, &ForeignRules::new(), &plan).unwrap();
    expect(&valid.image(), VALUES, true);
    // Unless that cannot be seen.
    let mut short = vec![0; plan.foreign_len()];
    let refused = read(&initial, &mut short, &ForeignRules::new(), &plan).map(drop);
    assert_eq!(refused, Err(ForeignError::NotEnabled { bits: PKRU }));
}

#[test]
fn an_image_of_a_host_with_tiles_and_nothing_in_them_is_taken() {
    let plan = here();
    let all = 0x6_02E7u64.to_le_bytes();
    for len in [11008, 12288] {
        let mut bytes = vec![0; len];
        bytes[..2688].copy_from_slice(FREEBSD);
        bytes[XCR0..XCR0 + 8].copy_from_slice(&all);
        let mut private = vec![0; 16384];
        for present in [0xE7, 0x6_02E7u64] {
            bytes[512..520].copy_from_slice(&present.to_le_bytes());
            let valid = read(&bytes, &mut private, &ForeignRules::new(), &plan).unwrap();
            expect(&valid.image(), VALUES, true);
        }
        bytes[2816 + 4000] = 1;
        let refused = read(&bytes, &mut private, &ForeignRules::new(), &plan).map(drop);
        assert_eq!(refused, Err(ForeignError::NotEnabled { bits: 1 << 18 }));
        let rules = ForeignRules::new().beyond(Beyond::Report);
        let valid = read(&bytes, &mut private, &rules, &plan).unwrap();
        expect(&valid.image(), VALUES, true);
        assert_eq!(valid.beyond(), Components::TILEDATA);
        assert_eq!(valid.bytes_beyond(Components::TILEDATA).map(<[u8]>::len), Some(8192));
    }
}

#[test]
fn fxsaves_plan_takes_an_image_with_x87_and_sse_only() {
    let plan =
        sample::plan(Components::LEGACY).with_save_instruction(SaveInstruction::Fxsave).unwrap();
    let mut bytes = FRAME.to_vec();
    let mut private = vec![0; 4096];
    let refused = read(&bytes, &mut private, &ForeignRules::new(), &plan).map(drop);
    assert_eq!(refused, Err(ForeignError::NotEnabled { bits: 0xE4 }));
    bytes[512..520].copy_from_slice(&3u64.to_le_bytes());
    let valid = read(&bytes, &mut private, &ForeignRules::new(), &plan).unwrap();
    assert_eq!(valid.image().xmm(3).unwrap()[..], FRAME[160 + 48..160 + 64]);
    let mut area = vec![0; plan.area_len()];
    ImageMut::new(&mut area, &plan).replace_with(&valid).unwrap();
    assert_eq!(area[160..416], FRAME[160..416]);
}

/// A machine of the other maker, by the recorded words of a Ryzen 7 8845HS.
fn zen4_facts() -> CpuidInfo {
    let plan = corpus::plans().into_iter().find(|(name, _)| name.contains("8845HS"));
    plan.unwrap().1.cpuid_info().clone()
}

#[test]
fn another_makers_layout_is_told_by_a_note_by_words_or_by_size() {
    let plan = here();
    let by_note = ForeignLayout::from_note(ZEN4_LAYOUT).unwrap();
    let by_words = ForeignLayout::from_cpuid_info(&zen4_facts());
    let by_size = ForeignLayout::told_by(Components::from_bits_retain(0x2E7), 2440).unwrap();
    let mut private = vec![0; 4096];
    for layout in [&by_note, &by_words, &by_size] {
        let rules = ForeignRules::new().layout(layout);
        expect(&read(ZEN4, &mut private, &rules, &plan).unwrap().image(), VALUES, false);
    }
    // By itself: XCR0 at 464, and its length.
    let valid = read(ZEN4, &mut private, &ForeignRules::new(), &plan).unwrap();
    expect(&valid.image(), VALUES, false);
    let mut area = vec![0; plan.area_len()];
    let mut image = ImageMut::new(&mut area, &plan);
    image.replace_with(&valid).unwrap();
    expect(&image.as_image(), VALUES, false);
    // As a page of KVM's, which no machine of this kind can have written, the makers that can.
    let mut page = ZEN4.to_vec();
    page.resize(4096, 0);
    let refused = read(&page, &mut private, &ForeignRules::new(), &plan).map(drop).unwrap_err();
    let xcr0 = Components::from_bits_retain(0x2E7);
    assert_eq!(refused, ForeignError::OtherLayout { offset: 464, xcr0 });
    let rules = ForeignRules::new().layout(&by_note);
    expect(&read(&page, &mut private, &rules, &plan).unwrap().image(), VALUES, false);
    // As a signal frame.
    let mut frame = ZEN4.to_vec();
    frame[464..512].fill(0);
    frame[464..468].copy_from_slice(&0x4650_5853u32.to_le_bytes());
    frame[468..472].copy_from_slice(&2444u32.to_le_bytes());
    frame[472..480].copy_from_slice(&0x2E7u64.to_le_bytes());
    frame[480..484].copy_from_slice(&2440u32.to_le_bytes());
    frame.extend(0x4650_5845u32.to_le_bytes());
    let mut copy = frame.clone();
    let read_back = plan.user_format().read_frame(&mut copy).unwrap();
    assert_eq!(read_back.kind(), FrameKind::Full(xcr0));
    expect(&read_back.valid().image(), VALUES, false);
}

#[test]
fn compacted_images_from_elsewhere_are_read() {
    let there = sample::plans().remove(0);
    let mut random = sample::Random(3);
    let set = Components::LEGACY | Components::AVX | Components::AVX512;
    let mut area = vec![0; there.area_len()];
    random.fill(&mut area);
    area[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
    area[512..576].fill(0);
    area[512..520].copy_from_slice(&set.bits().to_le_bytes());
    area[520..528].copy_from_slice(&(1 << 63 | there.components().bits()).to_le_bytes());
    let from = Image::new(&area, &there);
    let plan = here();
    let mut private = vec![0; 16384];
    let refused = read(&area, &mut private, &ForeignRules::new(), &plan).map(drop);
    assert!(matches!(refused, Err(ForeignError::NotStandard { .. })));
    let layout = ForeignLayout::of(&there);
    let rules = ForeignRules::new().compacted();
    // Sizes are those of the registers, so this machine knows where they lie.
    for rules in [rules, rules.layout(&layout)] {
        let valid = read(&area, &mut private, &rules, &plan).unwrap();
        let mut own = vec![0; plan.area_len()];
        write_initial(&mut own, &plan);
        let mut image = ImageMut::new(&mut own, &plan);
        image.replace_with(&valid).unwrap();
        let image = image.as_image();
        assert_eq!((image.x87(), image.mxcsr()), (from.x87(), from.mxcsr()));
        for n in 0..32 {
            assert_eq!((image.xmm(n), image.ymm_hi(n)), (from.xmm(n), from.ymm_hi(n)));
            assert_eq!((image.opmask(n), image.zmm_hi256(n)), (from.opmask(n), from.zmm_hi256(n)));
            assert_eq!(image.zmm_hi16(n), from.zmm_hi16(n));
        }
    }
    // A component outside XCOMP_BV; one of unknown size in it; a supervisor's.
    area[512] |= 1 << 3;
    area[520] &= !(1 << 3);
    let refused = read(&area, &mut private, &rules, &plan).map(drop);
    assert_eq!(refused, Err(ForeignError::NotInFormat { bits: 1 << 3 }));
    area[512] &= !(1 << 3);
    area[522] |= 1 << 4;
    let refused = read(&area, &mut private, &rules, &plan).map(drop);
    assert!(matches!(refused, Err(ForeignError::NotStandard { .. })));
}

#[test]
fn supervisor_state_in_a_compacted_image_is_refused_or_left_out() {
    let there = sample::kernel();
    let mut area = vec![0; there.area_len()];
    write_initial(&mut area, &there);
    let set = Components::CET_U | Components::AVX;
    area[512..520].copy_from_slice(&set.bits().to_le_bytes());
    area[576..].fill(7);
    let layout = ForeignLayout::of(&there);
    let plan = sample::plan(Components::LEGACY | Components::AVX);
    let mut private = vec![0; 4096];
    let rules = ForeignRules::new().compacted().layout(&layout);
    let refused = read(&area, &mut private, &rules, &plan).map(drop);
    assert_eq!(refused, Err(ForeignError::Supervisor { bits: Components::CET_U.bits() }));
    let rules = rules.beyond(Beyond::Report);
    let valid = read(&area, &mut private, &rules, &plan).unwrap();
    assert_eq!((valid.beyond(), valid.image().ymm_hi(5)), (Components::CET_U, Some([7; 16])));
    assert_eq!(valid.bytes_beyond(Components::CET_U), Some(&[7; 16][..]));
    // In the standard format there is no place for it.
    let mut standard = vec![0; 832];
    standard[513] = 8;
    for beyond in [Beyond::Refuse, Beyond::Drop, Beyond::Report] {
        let refused = read(&standard, &mut private, &rules.beyond(beyond), &plan).map(drop);
        assert_eq!(refused, Err(ForeignError::Supervisor { bits: Components::CET_U.bits() }));
    }
}

/// What XCR0 and a length tell is right for every recorded CPU, or nothing.
#[test]
fn no_recorded_cpu_is_taken_for_another() {
    let (mut told, mut silent) = (0, Vec::<String>::new());
    for (name, plan) in corpus::plans() {
        let own = ForeignLayout::of(&plan);
        let user = plan.cpuid_info().supported_user() & Components::all();
        for extra in 0..1u64 << 7 {
            let bits = extra & 3;
            // AVX, AVX-512, PKRU, AMX, MPX, the tiles' configuration alone; APX no recorded CPU has.
            let sets = [1 << 2, 0xE0, 1 << 9, 3 << 17, 3 << 3, 1 << 17];
            let chosen = sets.iter().enumerate().filter(|(n, _)| extra >> n & 1 != 0);
            let xcr0 = chosen.fold(3, |all, (_, set)| all | set);
            let xcr0 = Components::from_bits_retain(xcr0);
            if bits == 2
                || !user.contains(xcr0)
                || !xcr0.difference(Components::TILECFG).is_legal_xcr0()
            {
                continue;
            }
            let Ok(layout) = Layout::<Standard>::new(plan.cpuid_info(), xcr0) else {
                continue;
            };
            match ForeignLayout::told_by(xcr0, layout.len()) {
                None => silent.push(std::format!("{name}: {xcr0:?}, {}", layout.len())),
                Some(layout) => {
                    for component in xcr0.iter() {
                        assert_eq!(
                            layout.place(component),
                            own.place(component),
                            "{name}: {xcr0:?}"
                        );
                    }
                    told += 1;
                }
            }
        }
    }
    silent.sort();
    silent.dedup();
    println!("{told} told, {} not: {silent:#?}", silent.len());
    assert!(told > 500 && silent.is_empty(), "{told}");
}

#[test]
fn layout_notes_are_possible_or_refused() {
    let record =
        |words: [u32; 4]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let note =
        |records: &[[u32; 4]]| records.iter().flat_map(|one| record(*one)).collect::<Vec<_>>();
    let (avx, mask) = ([2, 256, 576, 0], [5, 64, 832, 0]);
    let wrong = |offset, value| Err(ForeignError::LayoutNote { offset, value });
    for (records, expected) in [
        (vec![], Ok(())),
        (vec![avx, mask], Ok(())),
        (vec![[18, 8192, 2816, 6], [11, 16, 0, 1]], Ok(())),
        (vec![[1, 256, 576, 0]], wrong(0, 1)),
        (vec![[63, 256, 576, 0]], wrong(0, 63)),
        (vec![[u32::MAX, 256, 576, 0]], wrong(0, u32::MAX)),
        (vec![avx, [2, 64, 832, 0]], wrong(16, 2)),
        (vec![avx, [5, 0, 832, 0]], wrong(20, 0)),
        (vec![[5, u32::MAX, 832, 0]], wrong(4, u32::MAX)),
        // A supervisor component has no place of its own, so its size alone counts: up to 1 MiB.
        (vec![[11, 1 << 20, 0, 1]], Ok(())),
        (vec![[11, (1 << 20) + 1, 0, 1]], wrong(4, (1 << 20) + 1)),
        (vec![avx, [5, 64, 575, 0]], wrong(24, 575)),
        (vec![avx, [5, 64, 831, 0]], wrong(24, 831)),
        (vec![mask, [2, 257, 576, 0]], wrong(24, 576)),
        (vec![[5, 64, u32::MAX, 0]], wrong(8, u32::MAX)),
    ] {
        assert_eq!(ForeignLayout::from_note(&note(&records)).map(drop), expected, "{records:?}");
    }
    let bytes = vec![0; 61 * 16 + 16];
    // 61 records are as many as there are numbers: the first is looked at.
    assert_eq!(ForeignLayout::from_note(&bytes[..61 * 16]).map(drop), wrong(0, 0));
    for (len, need) in [(15, 0), (17, 16), (62 * 16, 61 * 16)] {
        let refused = ForeignLayout::from_note(&bytes[..len]);
        assert_eq!(refused, Err(ForeignError::WrongLength { len, need }));
    }
    // Another size than here is another register.
    let layout = ForeignLayout::from_note(&note(&[[2, 128, 576, 0]])).unwrap();
    let plan = here();
    let mut bytes = FRAME.to_vec();
    bytes[512..520].copy_from_slice(&7u64.to_le_bytes());
    let refused = ForeignImage::in_private(&mut bytes)
        .validate_by(&ForeignRules::new().layout(&layout), &plan)
        .map(drop);
    let component = Components::AVX;
    assert_eq!(refused, Err(ForeignError::OtherSize { component, offset: 576, size: 128 }));
}

/// From each recorded CPU to each: taken exactly where the other one has the components, in the layout of either.
#[test]
fn every_recorded_plan_converts_into_every_other() -> Result<(), PlanError> {
    let mut plans: Vec<(String, Plan)> = Vec::new();
    for (name, plan) in corpus::plans() {
        let layout = ForeignLayout::of(&plan);
        let known = |(_, it): &(String, Plan)| {
            it.components() == plan.components() && ForeignLayout::of(it) == layout
        };
        if !plans.iter().any(known) {
            plans.push((name, plan));
        }
    }
    let mut random = sample::Random(11);
    let (mut taken, mut refused) = (0, 0);
    for (from_name, from) in &plans {
        for (to_name, to) in &plans {
            let what = std::format!("{from_name} to {to_name}");
            let legal = from.components() & !Components::AMX & !Components::BNDCSR;
            let present = Components::from_bits_retain(random.word()) & legal;
            let area = random_area(from, present, &mut random);
            let image = Image::new(&area, from);
            // Written here in the layout of there.
            let mut out = vec![0xEE; to.user_format().xstate_len()];
            let format = to.user_format().without_pkru();
            let written = format.write_xstate(&image, None, &mut out);
            // And read there in the layout of here.
            let mut bytes = vec![0; from.user_format().xstate_len()];
            from.user_format().write_xstate(&image, None, &mut bytes).unwrap();
            let layout = ForeignLayout::of(from);
            let read = ForeignImage::in_private(&mut bytes)
                .validate_by(&ForeignRules::new().layout(&layout), to);
            let user = image.present() & !Components::SUPERVISOR;
            if !to.components().contains(user) {
                assert!(written.is_err() && read.is_err(), "{what}");
                assert!(out.iter().all(|byte| *byte == 0xEE), "{what}");
                refused += 1;
                continue;
            }
            let (len, read) = (written.unwrap(), read.unwrap());
            let back = format.read_xstate(&mut out[..len]).unwrap();
            same(&image, &read.image(), &what);
            same(&image, &back.image(), &what);
            taken += 1;
        }
    }
    println!("{} plans, {taken} conversions taken, {refused} refused", plans.len());
    assert!(taken > 100 && refused > 100);
    Ok(())
}
