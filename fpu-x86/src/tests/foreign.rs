//! Every rule of validation, on plans for components that few CPUs have.

use std::{string::ToString, vec, vec::Vec};

use super::*;
use crate::{
    image::{self, ImageMut},
    save_instruction::Format,
    tests::sample,
    tests::words::server,
};

const TILES: u64 = 1 << 18;
const LWP_APX: u64 = 1 << 62 | 1 << 19;

/// With MPX, PKRU and AMX.
fn full() -> Plan {
    sample::plans().remove(0)
}
/// A frame with these components, their bytes zero.
fn frame(plan: &Plan, present: u64) -> Vec<u8> {
    let mut bytes = vec![0; plan.foreign_len()];
    bytes[..2].copy_from_slice(&0x37Fu16.to_le_bytes());
    bytes[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
    bytes[512..520].copy_from_slice(&present.to_le_bytes());
    bytes
}
fn validate(plan: &Plan, bytes: &[u8]) -> Result<Components, ForeignError> {
    let mut private = vec![0xEE; bytes.len()];
    let valid = ForeignImage::copy(bytes, &mut private)?.validate(plan)?;
    Ok(valid.image().present())
}

#[test]
fn each_rule_names_its_field_and_offset() {
    let plan = full();
    let (good, most) = (frame(&plan, 0xFF), plan.foreign_len());
    assert_eq!(most, 11008);
    assert_eq!(validate(&plan, &good), Ok(Components::from_bits_retain(0xFF)));
    assert_eq!(validate(&plan, &frame(&plan, 0x2_02FF)).map(|set| set.bits()), Ok(0x2_00FF));
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let bits = |bits: u64| frame(&plan, 0xFF | bits);
    assert_eq!(most, good.len());
    let cut = |len: usize| good[..len].to_vec();
    let illegal =
        |component, offset, value| ForeignError::IllegalValue { component, offset, value };
    let reserved = |offset, value| ForeignError::ReservedHeader { offset, value };
    let mut tiles = frame(&plan, 0x2_00FF);
    tiles[2752] = 2;
    let mut tile_rows = frame(&plan, 0x2_00FF);
    (tile_rows[2752], tile_rows[2752 + 48]) = (1, 3);
    let mut tile_data = bits(TILES);
    tile_data[11007] = 1;
    let cases = [
        ("length", 0, vec![], ForeignError::Truncated { len: 0, need: 512 }),
        ("length", 511, cut(511), ForeignError::Truncated { len: 511, need: 512 }),
        ("length", 513, cut(513), ForeignError::Truncated { len: 513, need: 576 }),
        ("length", 575, cut(575), ForeignError::Truncated { len: 575, need: 576 }),
        ("length", 576, cut(576), ForeignError::Truncated { len: 576, need: 832 }),
        ("length", 2687, cut(2687), ForeignError::Truncated { len: 2687, need: 2688 }),
        ("XSTATE_BV", 512, bits(1 << 8), ForeignError::Supervisor { bits: 1 << 8 }),
        ("XSTATE_BV", 512, bits(1 << 11), ForeignError::Supervisor { bits: 1 << 11 }),
        ("XSTATE_BV", 512, bits(1 << 16), ForeignError::Supervisor { bits: 1 << 16 }),
        ("XSTATE_BV", 512, bits(1 << 20), ForeignError::Unknown { bits: 1 << 20 }),
        ("XSTATE_BV", 512, bits(1 << 63), ForeignError::Unknown { bits: 1 << 63 }),
        ("XSTATE_BV", 512, bits(1 << 62), ForeignError::NotEnabled { bits: 1 << 62 }),
        ("XSTATE_BV", 512, bits(1 << 19), ForeignError::NotEnabled { bits: 1 << 19 }),
        ("XSTATE_BV", 512, bits(LWP_APX), ForeignError::NotEnabled { bits: LWP_APX }),
        ("XSTATE_BV", 512, tile_data, ForeignError::NotPermitted { bits: TILES }),
        ("XCOMP_BV", 520, with(520, &[1]), ForeignError::NotStandard { xcomp_bv: 1 }),
        ("XCOMP_BV", 520, with(527, &[128]), ForeignError::NotStandard { xcomp_bv: 1 << 63 }),
        ("reserved", 528, with(528, &[1]), reserved(528, 1)),
        ("reserved", 536, with(536, &[1]), reserved(536, 1)),
        ("reserved", 575, with(575, &[128]), reserved(575, 128)),
        ("MXCSR", 24, with(26, &[1]), ForeignError::ReservedMxcsr { bits: 1 << 16 }),
        ("MXCSR", 24, with(27, &[128]), ForeignError::ReservedMxcsr { bits: 1 << 31 }),
        ("component", 1024, with(1024, &[4]), illegal(Components::BNDCSR, 1024, 4)),
        ("component", 1032, with(1039, &[64]), illegal(Components::BNDCSR, 1032, 0)),
        ("component", 2752, tiles, illegal(Components::TILECFG, 2752, 2)),
        ("component", 2768, tile_rows, illegal(Components::TILECFG, 2768, 0)),
    ];
    for (field, offset, bytes, why) in cases {
        assert_eq!(validate(&plan, &bytes), Err(why), "{why}");
        assert_eq!((why.field(), why.offset()), (field, offset), "{why}");
        assert!(!why.to_string().is_empty());
    }
    let mut small = [0; 100];
    let refused = ForeignImage::copy(&good, &mut small).map(drop);
    assert_eq!(refused, Err(ForeignError::Truncated { len: 100, need: 512 }));
    assert_eq!(small, [0; 100]);
}

#[test]
fn mxcsr_counts_even_without_sse() {
    let plan = full();
    let mut bytes = frame(&plan, 0);
    bytes[27] = 0x10;
    assert_eq!(validate(&plan, &bytes), Err(ForeignError::ReservedMxcsr { bits: 1 << 28 }));
    bytes.truncate(512);
    assert_eq!(validate(&plan, &bytes), Err(ForeignError::ReservedMxcsr { bits: 1 << 28 }));
}

#[test]
fn frames_of_smaller_cpus_and_fxsave_are_taken() {
    let plan = full();
    let mut bytes = frame(&plan, 0b111);
    bytes.truncate(832);
    assert_eq!(validate(&plan, &bytes).map(|set| set.bits()), Ok(0b111));
    bytes.truncate(512);
    assert_eq!(validate(&plan, &bytes), Ok(Components::LEGACY));
    let mut bytes = frame(&plan, 0);
    bytes.truncate(576);
    assert_eq!(validate(&plan, &bytes), Ok(Components::empty()));
}

#[test]
fn what_software_keeps_in_the_legacy_area_is_ignored() {
    let plan = full();
    let mut bytes = frame(&plan, 0b11);
    bytes[28..32].fill(0xFF);
    bytes[416..512].fill(0xFF);
    assert_eq!(validate(&plan, &bytes), Ok(Components::LEGACY));
    let mut area = vec![0; plan.area_len()];
    image::write_initial(&mut area, &plan);
    let before = area.clone();
    let mut private = bytes.clone();
    let valid = ForeignImage::in_private(&mut private).validate(&plan).unwrap();
    ImageMut::new(&mut area, &plan).replace_with(&valid).unwrap();
    assert_eq!((&area[28..32], &area[416..512]), (&before[28..32], &before[416..512]));
}

#[test]
fn protection_keys_are_handed_out_and_not_taken_over() {
    let plan = full();
    let mut bytes = frame(&plan, 0x203);
    bytes[2688..2692].copy_from_slice(&0x5555_5554u32.to_le_bytes());
    let mut private = bytes.clone();
    let valid = ForeignImage::in_private(&mut private).validate(&plan).unwrap();
    assert_eq!((valid.pkru(), valid.image().present()), (Some(0x5555_5554), Components::LEGACY));
    bytes[513] = 0;
    let valid = ForeignImage::in_private(&mut bytes).validate(&plan).unwrap();
    assert_eq!(valid.pkru(), Some(0), "absent is initial");
    let mut legacy = frame(&plan, 0);
    legacy.truncate(512);
    assert_eq!(ForeignImage::in_private(&mut legacy).validate(&plan).unwrap().pkru(), None);
    let without = sample::plan(Components::LEGACY | Components::AVX);
    let mut bytes = frame(&without, 0x200);
    let refused = ForeignImage::in_private(&mut bytes).validate(&without).map(|_| ());
    assert_eq!(refused, Err(ForeignError::NotEnabled { bits: 0x200 }));
}

#[test]
fn tiles_need_a_permission() {
    let plan = full();
    let mut bytes = frame(&plan, TILES);
    bytes[2816..11008].fill(7);
    // SAFETY: C24: nothing is restored.
    let valid = unsafe { ForeignImage::in_private(&mut bytes).validate_with_tiles(&plan) };
    let valid = valid.unwrap();
    let mut area = vec![0; plan.area_len()];
    image::write_initial(&mut area, &plan);
    let mut image = ImageMut::new(&mut area, &plan);
    image.replace_with(&valid).unwrap();
    let mut row = [0; 64];
    image.as_image().read(Components::TILEDATA, 8128, &mut row).unwrap();
    assert_eq!(row, [7; 64]);
}

/// As the million on the CPU, for what this CPU may not have: legal is accepted and comes out as it went
/// in, damaged is refused and leaves the image as it was.
#[test]
fn random_frames_go_in_whole_or_not_at_all() {
    let mut random = sample::Random(5);
    let (mut accepted, mut refused) = (0, 0);
    for plan in sample::plans() {
        let held = {
            let mut area = vec![0; plan.area_len()];
            image::write_initial(&mut area, &plan);
            let mut image = ImageMut::new(&mut area, &plan);
            image.set_xmm(3, [9; 16]).unwrap();
            image.set_mxcsr(0x7F80).unwrap();
            area
        };
        for _ in 0..400 {
            let mut bytes = vec![0; plan.foreign_len()];
            random.fill(&mut bytes);
            let legal = plan.components().bits() & !Components::AMX.bits();
            let legal = legal & !Components::BNDCSR.bits();
            let mut present = random.word() & random.word() & legal;
            if random.word() % 4 == 0 {
                present |= 1 << (random.word() % 64);
            }
            bytes[24..28].copy_from_slice(&(random.word() as u32 & 0xFFFF).to_le_bytes());
            bytes[512..520].copy_from_slice(&present.to_le_bytes());
            bytes[520..576].fill(0);
            let mut area = held.clone();
            let mut private = bytes.clone();
            match ForeignImage::in_private(&mut private).validate(&plan) {
                Err(_) => {
                    refused += 1;
                    let random_tiles = Components::BNDCSR | Components::AMX;
                    assert_ne!(present & (!legal | random_tiles.bits()), 0);
                    assert_eq!(area, held);
                }
                Ok(valid) => {
                    accepted += 1;
                    let mut image = ImageMut::new(&mut area, &plan);
                    image.replace_with(&valid).unwrap();
                    same_registers(&image.as_image(), &valid.image());
                    let known = plan.components().bits() | Components::PKRU.bits();
                    assert_eq!(present & !known, 0);
                    if plan.format() == Format::Legacy {
                        assert_eq!(area.len(), 512);
                    }
                }
            }
        }
    }
    assert!(accepted > 1000 && refused > 300, "{accepted} accepted, {refused} refused");
}

fn same_registers(one: &Image<'_>, other: &Image<'_>) {
    assert_eq!((one.x87(), one.mxcsr()), (other.x87(), other.mxcsr()));
    for n in 0..32 {
        assert_eq!((one.xmm(n), one.ymm_hi(n)), (other.xmm(n), other.ymm_hi(n)));
        assert_eq!((one.opmask(n), one.zmm_hi256(n)), (other.opmask(n), other.zmm_hi256(n)));
        assert_eq!(one.zmm_hi16(n), other.zmm_hi16(n));
    }
    let (mut left, mut right) = ([1; 64], [2; 64]);
    for component in [Components::BNDREGS, Components::BNDCSR, Components::APX] {
        let read = (one.read(component, 0, &mut left), other.read(component, 0, &mut right));
        assert_eq!(read.0, read.1);
        assert!(read.0.is_err() || left == right, "{component:?}");
    }
}

#[test]
fn every_plans_own_export_is_let_in_again() {
    for plan in sample::plans() {
        let mut bytes = vec![0; plan.area_len()];
        image::write_initial(&mut bytes, &plan);
        let mut out = vec![0; plan.standard_len()];
        let len = Image::new(&bytes, &plan).to_standard(&mut out).unwrap();
        assert!(len <= plan.foreign_len(), "{:?}", plan.save_instruction());
        assert_eq!(validate(&plan, &out[..len]).err(), None, "{:?}", plan.save_instruction());
    }
    // A CPU without XSAVE has frames with a header too.
    let plan = server().with(1, 0, [0, 0, 0, 3 << 24]).plan().unwrap();
    let mut bytes = vec![0; plan.area_len()];
    image::write_initial(&mut bytes, &plan);
    let mut out = vec![0; plan.standard_len()];
    let len = Image::new(&bytes, &plan).to_standard(&mut out).unwrap();
    assert_eq!((len, plan.foreign_len()), (576, 576));
    assert!(validate(&plan, &out).is_ok());
}
