//! What is written is read again as it was, for the plan of every recorded CPU; and every byte of it is accounted for.

use std::{println, string::String, vec, vec::Vec};

use super::*;
use crate::{
    components,
    fields::{u64_at, COMPACTED, MXCSR, XCOMP_BV},
    image::{write_initial, ImageMut},
    origin::{ForeignLayout, Origin},
    tests::{
        corpus,
        sample::{self, Random},
        words,
    },
};

/// Registers of the components `present` random, the rest absent and every byte there random too, as after saves.
pub(crate) fn random_area(plan: &Plan, present: Components, random: &mut Random) -> Vec<u8> {
    let mut area = vec![0; plan.area_len()];
    random.fill(&mut area);
    set(&mut area, MXCSR, (random.word() as u32 & plan.mxcsr_mask()).to_le_bytes());
    if plan.format() != Format::Legacy {
        area[XSTATE_BV..576].fill(0);
        set(&mut area, XSTATE_BV, present.bits().to_le_bytes());
    }
    if plan.format() == Format::Compacted {
        set(&mut area, XCOMP_BV, (COMPACTED | plan.components().bits()).to_le_bytes());
    }
    area
}

/// The user components that take any bytes; some of them.
pub(crate) fn some(plan: &Plan, random: &mut Random) -> Components {
    let legal = plan.user_components() & !Components::AMX & !Components::BNDCSR;
    match random.word() % 4 {
        0 => legal,
        _ => Components::from_bits_retain(random.word()) & legal,
    }
}

/// The same registers, absent ones being initial.
#[track_caller]
pub(crate) fn same(one: &Image<'_>, other: &Image<'_>, what: &str) {
    assert_eq!((one.x87(), one.mxcsr()), (other.x87(), other.mxcsr()), "{what}");
    for n in 0..16 {
        assert_eq!(one.xmm(n), other.xmm(n), "{what}: xmm{n}");
    }
    for (number, component) in (2..20).map(|n| (n, components::one(n))) {
        let bytes = |image: &Image<'_>| {
            let size = Origin::Here(image.plan()).standard(number).map_or(0, |(_, size)| size);
            let mut bytes = vec![0; size];
            image.read(component, 0, &mut bytes).unwrap_or_default();
            // A component that one plan does not have reads as its initial value.
            bytes.into_iter().rev().skip_while(|byte| *byte == 0).collect::<Vec<_>>()
        };
        if !Components::SUPERVISOR.contains(component) {
            assert_eq!(bytes(one), bytes(other), "{what}: {component:?}");
        }
    }
}

/// All bytes that no code wrote are zero: gaps, reserved bytes, and the places of absent components except for two
/// words.
#[track_caller]
pub(crate) fn no_residue(bytes: &[u8], plan: &Plan, software: bool, what: &str) {
    let header = bytes.len() > HEADER;
    let present = if header { u64_at(bytes, XSTATE_BV) } else { 3 };
    let mut meant = vec![false; bytes.len()];
    let mut mean = |from: usize, to: usize| meant[from..to].fill(true);
    mean(0, 2);
    mean(24, 32);
    mean(if software { 464 } else { 0 }, if software { 512 } else { 0 });
    if present & 1 != 0 {
        mean(0, 24);
        mean(32, 160);
    }
    if present & 2 != 0 {
        mean(160, 416);
    }
    if header {
        mean(512, 520);
    }
    for number in (2..63).filter(|number| present >> number & 1 != 0) {
        let (offset, size) = Origin::Here(plan).standard(number).unwrap();
        mean(offset, offset + size);
    }
    let wrong = bytes.iter().zip(&meant).position(|(byte, meant)| *byte != 0 && !meant);
    assert_eq!(wrong, None, "{what}: {:#x}", wrong.map_or(0, |at| bytes[at]));
}

#[test]
fn regsets_of_every_recorded_plan_are_read_as_they_were_written() {
    let mut random = Random(21);
    let plans = corpus::plans();
    let (mut rights, mut headers) = (0, 0);
    for (name, plan) in &plans {
        let format = plan.user_format();
        for _ in 0..20 {
            let present = some(plan, &mut random);
            let area = random_area(plan, present, &mut random);
            let image = Image::new(&area, plan);
            let has = format.components().contains(Components::PKRU);
            let pkru = (has && random.word() % 4 != 0).then(|| random.word() as u32);
            let mut out = vec![0xEE; format.xstate_len() + 5];
            let len = format.write_xstate(&image, pkru, &mut out).unwrap();
            assert_eq!(len, format.xstate_len(), "{name}");
            assert!(out[len..].iter().all(|byte| *byte == 0xEE), "{name}");
            no_residue(&out[..len], plan, true, name);
            assert_eq!(u64_at(&out, 464), format.components().bits(), "{name}");
            assert!(out[472..512].iter().all(|byte| *byte == 0), "{name}");
            let valid = format.read_xstate(&mut out[..len]).unwrap();
            same(&image, &valid.image(), name);
            assert_eq!(valid.pkru(), has.then(|| pkru.unwrap_or(0)), "{name}");
            // And into a task that held something else.
            let mut area = random_area(plan, some(plan, &mut random), &mut random);
            let mut task = ImageMut::new(&mut area, plan);
            task.replace_with(&valid).unwrap();
            same(&image, &task.as_image(), name);
            rights += usize::from(pkru.is_some());
            headers += 1;

            let mut legacy = [0xEE; 512];
            format.write_prfpreg(&image, &mut legacy).unwrap();
            no_residue(&legacy, plan, false, name);
            let mut area = vec![0; plan.area_len()];
            write_initial(&mut area, plan);
            let valid = format.read_prfpreg(&mut legacy).unwrap();
            let mut task = ImageMut::new(&mut area, plan);
            task.merge(&valid, Components::LEGACY).unwrap();
            let task = task.as_image();
            assert_eq!((task.x87(), task.mxcsr()), (image.x87(), image.mxcsr()), "{name}");
            assert!((0..16).all(|n| task.xmm(n) == image.xmm(n)), "{name}");
        }
        let mut note = vec![0xEE; format.layout_len()];
        format.write_layout(&mut note).unwrap();
        let layout = ForeignLayout::from_note(&note).unwrap();
        for number in format.components().difference(Components::LEGACY).numbers() {
            assert_eq!(layout.described(number), plan.cpuid_info().described(number), "{name}");
        }
    }
    println!("{} plans, {headers} regsets, {rights} with rights", plans.len());
    assert!(plans.len() > 60 && rights > 100);
}

#[test]
fn a_regset_is_set_whole_or_not_at_all() {
    let plan = words::tiles().plan().unwrap();
    let format = plan.user_format();
    let mut area = vec![0; plan.area_len()];
    write_initial(&mut area, &plan);
    let image = Image::new(&area, &plan);
    let len = format.xstate_len();
    assert_eq!(len, 11008);
    let mut out = vec![0; len + 1];
    format.write_xstate(&image, Some(5), &mut out).unwrap();
    for wrong in [0, 1, 511, 512, 576, len - 1, len + 1] {
        let refused = format.read_xstate(&mut out[..wrong]).map(drop).unwrap_err();
        assert_eq!(refused, ForeignError::WrongLength { len: wrong, need: len });
        assert_eq!(
            (refused.field(), refused.offset(), refused.value()),
            ("length", wrong, wrong as u64)
        );
    }
    for wrong in [0, 511, 513] {
        let refused = format.read_prfpreg(&mut out[..wrong]).map(drop);
        assert_eq!(refused, Err(ForeignError::WrongLength { len: wrong, need: 512 }));
    }
    for short in [0, 575, len - 1] {
        let refused = format.write_xstate(&image, None, &mut vec![0; short]);
        assert_eq!(refused, Err(ImageError::TooShort { need: len }));
    }
    // Tiles need a permission.
    let mut tiles = out[..len].to_vec();
    tiles[514] |= 4;
    tiles[2816] = 1;
    let refused = format.read_xstate(&mut tiles.clone()).map(drop);
    assert_eq!(refused, Err(ForeignError::NotPermitted { bits: 1 << 18 }));
    // SAFETY: C24: nothing is restored.
    let with = unsafe { format.with_tiles() };
    let valid = with.read_xstate(&mut tiles).unwrap();
    let mut row = [0; 2];
    valid.image().read(Components::TILEDATA, 0, &mut row).unwrap();
    assert_eq!((row, valid.pkru()), ([1, 0], Some(5)));
}

#[test]
fn an_image_of_another_plan_goes_out_only_if_it_fits() {
    let plans = sample::plans();
    let small = sample::plan(Components::LEGACY | Components::AVX);
    let from = &plans[0];
    let mut random = Random(4);
    let mut out = vec![0xEE; 4096];
    let area = random_area(from, Components::LEGACY | Components::OPMASK, &mut random);
    let refused = small.user_format().write_xstate(&Image::new(&area, from), None, &mut out);
    assert_eq!(
        (refused, out.iter().all(|byte| *byte == 0xEE)),
        (Err(ImageError::NotManaged { component: Components::OPMASK }), true)
    );
    let area = random_area(from, Components::LEGACY | Components::AVX, &mut random);
    let image = Image::new(&area, from);
    assert_eq!(small.user_format().write_xstate(&image, None, &mut out), Ok(832));
    // Rights for a machine that has none.
    let refused = small.user_format().write_xstate(&image, Some(1), &mut out);
    assert_eq!(refused, Err(ImageError::NotManaged { component: Components::PKRU }));
    // Bits of MXCSR that the other one lacks.
    let mut other = small.clone();
    other.mxcsr_mask = 0xFFBF;
    let mut area = area.clone();
    set(&mut area, MXCSR, 0x1FC0u32.to_le_bytes());
    let image = Image::new(&area, from);
    let refused = other.user_format().write_xstate(&image, None, &mut out);
    assert_eq!(refused, Err(ImageError::ReservedMxcsr { bits: 0x40 }));
    let refused = other.user_format().write_prfpreg(&image, &mut [0; 512]);
    assert_eq!(refused, Err(ImageError::ReservedMxcsr { bits: 0x40 }));
    // What is written says which bits the other one has.
    set(&mut area, MXCSR, 0x1F80u32.to_le_bytes());
    let (image, mut legacy) = (Image::new(&area, from), [0; 512]);
    assert_eq!(other.user_format().write_xstate(&image, None, &mut out), Ok(832));
    other.user_format().write_prfpreg(&image, &mut legacy).unwrap();
    assert_eq!((u32_at(&out, MXCSR_MASK), u32_at(&legacy, MXCSR_MASK)), (0xFFBF, 0xFFBF));
}

#[test]
fn from_a_debugger_mxcsr_is_a_part_of_sse() {
    let plan = sample::plan(Components::LEGACY | Components::AVX);
    let format = plan.user_format();
    let mut area = vec![0; plan.area_len()];
    write_initial(&mut area, &plan);
    let mut bytes = vec![0; format.xstate_len()];
    format.write_xstate(&Image::new(&area, &plan), None, &mut bytes).unwrap();
    for present in 0..8u8 {
        for (mxcsr, legal) in [(0x3F80u32, true), (0x1_3F80, false)] {
            let mut bytes = bytes.clone();
            bytes[512] = present;
            set(&mut bytes, MXCSR, mxcsr.to_le_bytes());
            let read = format.read_xstate(&mut bytes);
            if legal || present == 0 {
                let expected = if present & 2 != 0 { mxcsr } else { 0x1F80 };
                assert_eq!(read.unwrap().image().mxcsr(), expected, "{present}");
            } else {
                let refused = ForeignError::ReservedMxcsr { bits: 1 << 16 };
                assert_eq!(read.map(drop), Err(refused), "{present}");
            }
        }
    }
}

#[test]
fn the_shadow_stacks_pointer_is_there_where_there_is_one() {
    let plan = sample::kernel();
    let format = plan.user_format();
    let mut area = vec![0; plan.area_len()];
    write_initial(&mut area, &plan);
    assert_eq!(format.shadow_stack(&Image::new(&area, &plan)), None);
    let (offset, _) = plan.place(Components::CET_U).unwrap();
    set(&mut area, XSTATE_BV, Components::CET_U.bits().to_le_bytes());
    set(&mut area, offset + 8, 0x7FFF_1234_5678u64.to_le_bytes());
    assert_eq!(format.shadow_stack(&Image::new(&area, &plan)), None, "not enabled");
    area[offset] = 1;
    let pointer = format.shadow_stack(&Image::new(&area, &plan));
    assert_eq!(pointer.map(u64::from_le_bytes), Some(0x7FFF_1234_5678));
    // A debugger sets it, to what a restore takes and nothing else.
    let mut random = Random(0x5357_4143);
    let component = Components::CET_U;
    for n in 0..20_000u64 {
        let value = match n % 4 {
            0 => random.word(),
            1 => random.word() >> 17 & !7,
            2 => 1 << (n % 64),
            _ => random.word() >> 17,
        };
        let before = area.clone();
        let set_to =
            format.set_shadow_stack(&mut ImageMut::new(&mut area, &plan), &value.to_le_bytes());
        if value % 8 == 0 && value < 1 << 47 {
            assert_eq!(set_to, Ok(()), "{value:#x}");
            let pointer = format.shadow_stack(&Image::new(&area, &plan));
            assert_eq!(pointer.map(u64::from_le_bytes), Some(value));
            assert_eq!(area[..offset + 8], before[..offset + 8], "{value:#x}");
            assert_eq!(area[offset + 16..], before[offset + 16..], "{value:#x}");
        } else {
            let refused = matches!(set_to, Err(ImageError::IllegalValue { component: c, at, value: byte })
                if c == component && byte == value.to_le_bytes()[at - 8]);
            assert!(refused && area == before, "{value:#x}: {set_to:?}");
        }
    }
    for len in [0, 7, 9, 16] {
        let before = area.clone();
        let long = format.set_shadow_stack(&mut ImageMut::new(&mut area, &plan), &vec![0; len]);
        assert_eq!(long, Err(ImageError::OutOfRange { component, at: 8, len }));
        assert_eq!(area, before);
    }
    area[offset] = 0;
    let none = format.set_shadow_stack(&mut ImageMut::new(&mut area, &plan), &[0; 8]);
    assert_eq!(none, Err(ImageError::NotManaged { component }), "not enabled");
    let without = sample::plan(Components::LEGACY);
    let name = String::from("no CET");
    let mut area = vec![0; without.area_len()];
    write_initial(&mut area, &without);
    assert_eq!(without.user_format().shadow_stack(&Image::new(&area, &without)), None, "{name}");
}
